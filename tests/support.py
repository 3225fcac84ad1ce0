"""Make projects from the template, and read what was made; shared by all parts of the tests."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cookiecutter.main
import pre_gen_project

ROOT = Path(__file__).resolve().parent.parent
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"
DEFAULT_SLUG = "my_app"
CHOICES = pre_gen_project.CHOICES

Answers = Mapping[str, str]

_reserved: list[socket.socket] = []


@dataclass
class Report:
    """What a run did, in lines that pytest prints at its end."""

    lines: list[str] = field(default_factory=list)

    def add(self, topic: str, text: str) -> None:
        """Add one line."""
        self.lines.append(f"{topic:<14} {text}")


def combinations() -> list[dict[str, str]]:
    """Return every combination of the answers that are a choice.

    ``database`` and ``use_swarm`` take turns: their files hold little of the other choices, and
    each pair of answers is among them, but for those that are refused.
    """
    turns = ("database", "use_swarm")
    others = {name: choices for name, choices in CHOICES.items() if name not in turns}
    found = []
    for numbers in itertools.product(*(range(len(choices)) for choices in others.values())):
        answers = {name: others[name][number] for name, number in zip(others, numbers, strict=True)}
        turn = sum(numbers)
        swarm, database = CHOICES["use_swarm"][turn % 2], CHOICES["database"][turn % 3]
        if database == "sqlite" and "yes" in (answers["use_heroku"], swarm):
            if answers["use_heroku"] == "yes":
                database = "postgresql"
            else:
                swarm = "no"
        found.append(answers | {"use_swarm": swarm, "database": database})
    return found


def named(answers: Answers) -> str:
    """Return a combination of answers as people read it in a failure."""
    return " ".join(f"{question}={answer}" for question, answer in answers.items())


def copy_template(target: Path) -> Path:
    """Copy the template as it stands in the work tree, without what git ignores, and return it.

    All renders of a run start from one copy, so that a file saved meanwhile changes none of them.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in sorted(set(listed.stdout.split("\0")) - {""}):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def render(template: Path, output: Path, answers: Answers) -> Path:
    """Make a project below output through cookiecutter's Python API and return its folder."""
    output.mkdir(parents=True, exist_ok=True)
    settings = output.parent / f".{output.name}-cookiecutter.yaml"
    kept = {name: str(output.parent / f".{name}") for name in ("replay_dir", "cookiecutters_dir")}
    settings.write_text(json.dumps(kept))  # JSON is YAML
    return Path(
        cookiecutter.main.cookiecutter(
            str(template),
            no_input=True,
            extra_context=dict(answers),
            output_dir=str(output),
            config_file=str(settings),
        )
    )


def files(project: Path) -> dict[str, bytes]:
    """Return the content of every file of project by its path, with / on every system."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file()
    }


def free_port() -> int:
    """Return a port of this machine where nobody listens, and which nobody else is given.

    The system hands a port out again as soon as its socket is closed: to a test that runs beside
    this one, or to a connection while a server restarts. On Linux a socket stays bound to it, and
    whoever asks for this very port (with ``SO_REUSEADDR``, as servers do) may listen there still.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    if sys.platform == "linux":
        _reserved.append(holder)  # until this process ends
    else:
        holder.close()
    return port


def env_values(project: Path) -> dict[str, str]:
    """Return the settings in the .env of project."""
    lines = (project / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def digest(*parts: bytes) -> str:
    """Return one hash of parts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def distinct[T](items: Iterable[T], key: Callable[[T], str]) -> Iterator[T]:
    """Yield the first of all items that have the same key."""
    seen = set()
    for item in items:
        name = key(item)
        if name not in seen:
            seen.add(name)
            yield item


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run command in cwd with variables added to the environment, and return how it went.

    What the environment says of an active virtual environment does not reach it.
    """
    environment = {**os.environ, **variables}
    if "VIRTUAL_ENV" not in variables:
        environment.pop("VIRTUAL_ENV", None)
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run command like run, fail the test with its output unless it succeeds, return its stdout."""
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def git(*arguments: str, cwd: Path) -> str:
    """Run git in cwd with an author of its own and without the user's settings."""
    who = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "Template Test"), ("EMAIL", "test@example.com"))
    }
    return succeed("git", *arguments, cwd=cwd, GIT_CONFIG_GLOBAL=os.devnull, **who)


def git_commit_all(repository: Path, message: str) -> None:
    """Commit all that is in repository, which becomes a git repository if it is none."""
    if not (repository / ".git").exists():
        git("init", "--quiet", "--initial-branch=main", cwd=repository)
    git("add", "--all", cwd=repository)
    git("commit", "--quiet", "--message", message, cwd=repository)


def python_files(tree: Mapping[str, Any]) -> list[str]:
    """Return the paths of tree that are Python files."""
    return [path for path in tree if path.endswith(".py")]
