"""Every target starts the same two commands, and they are written down in several files."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import yaml
from matrix import Project
from support import distinct

#: What runs everywhere, by the name of the process. SLUG stands for the project's package.
COMMANDS = {
    "web": ["gunicorn", "-c", "gunicorn.conf.py", "SLUG:create_app()"],
    "worker": ["flask", "--app", "SLUG", "celery", "cluster"],
}

#: What may stand before a command: it finds the program, or waits before it starts it.
WRAPPERS = ("start", "exec", "uv", "run", "--no-dev", "--quiet")

Found = dict[str, list[list[str]]]


def plain(command: str | list[str], slug: str) -> list[str]:
    """Return a command without folders, wrappers and the name of the project."""
    words = shlex.split(command) if isinstance(command, str) else list(command)
    while words and Path(words[0]).name in WRAPPERS:
        words = words[1:]
    named = (re.sub(rf"^{slug}(?=$|:)", "SLUG", word) for word in words[1:])
    return [Path(words[0]).name, *named]


def of_the_procfile(project: Project) -> Found:
    """Read the Procfile."""
    lines = [line.partition(":") for line in project.text("Procfile").splitlines()]
    return {name: [plain(line, project.slug)] for name, _, line in lines if name in COMMANDS}


def of_compose(project: Project) -> Found:
    """Read compose.production.yaml, where a service without a command has that of the image."""
    services = yaml.safe_load(project.text("compose.production.yaml"))["services"]
    return {name: [command(services[name], project)] for name in COMMANDS}


def of_the_swarm(project: Project) -> Found:
    """Read the Swarm's stack file."""
    (file,) = (path for path in project.files if re.fullmatch(r"deploy/swarm/[^/]*\.ya?ml", path))
    services = yaml.safe_load(project.text(file))["services"]
    return {name: [command(services[name], project)] for name in COMMANDS}


def command(service: dict[str, str | list[str]], project: Project) -> list[str]:
    """Return the command of a service."""
    if "command" in service:
        return plain(service["command"], project.slug)
    stages = re.split(r"^FROM ", project.text("Dockerfile"), flags=re.MULTILINE)
    (stage,) = (one for one in stages if re.match(r"\S+ AS application\b", one, re.IGNORECASE))
    (words,) = re.findall(r"^CMD (\[.*\])$", stage, re.MULTILINE)
    return plain(json.loads(words), project.slug)


def of_systemd(project: Project) -> Found:
    """Read the units."""
    found: Found = {}
    for name in COMMANDS:
        unit = project.text(f"deploy/systemd/{project.slug}-{name}.service")
        lines = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        found[name] = [plain(line, project.slug) for line in lines]
    return found


def of_supervisor(project: Project) -> Found:
    """Read supervisord's configuration, which has the web server twice: one waits in reserve."""
    parser = configparser.RawConfigParser()
    parser.read_string(project.text(f"deploy/supervisor/{project.slug}.conf"))
    found: Found = {}
    for section in parser.sections():
        for name in COMMANDS:
            if re.match(rf"program:{project.slug}-{name}\b", section):
                words = plain(parser[section]["command"], project.slug)
                found.setdefault(name, []).append(words)
    return found


#: By the file or folder that a project with the target has.
TARGETS: dict[str, Callable[[Project], Found]] = {
    "Procfile": of_the_procfile,
    "compose.production.yaml": of_compose,
    "deploy/systemd": of_systemd,
    "deploy/supervisor": of_supervisor,
    "deploy/swarm": of_the_swarm,
}


def test_every_target_starts_the_same_two_commands(matrix: list[Project]) -> None:
    seen = set()
    for project in distinct(matrix, lambda one: repr((one.slug, sorted(one.files)))):
        for mark, read in TARGETS.items():
            if not any(path == mark or path.startswith(f"{mark}/") for path in project.files):
                continue
            seen.add(mark)
            found = read(project)
            assert set(found) == set(COMMANDS), f"{project}: {mark} starts {sorted(found)}"
            for name, commands in found.items():
                assert commands, f"{project}: {mark} starts no {name}"
                for words in commands:
                    assert words == COMMANDS[name], f"{project}: {mark}: {name} is {words}"
    assert seen == set(TARGETS)


def test_a_command_that_differs_is_noticed() -> None:
    same = "/opt/app/.venv/bin/gunicorn -c gunicorn.conf.py 'app:create_app()'"
    assert plain(same, "app") == COMMANDS["web"]
    assert (
        plain(
            ["deploy/supervisor/start", ".venv/bin/flask", "--app", "app", "celery", "cluster"],
            "app",
        )
        == (COMMANDS["worker"])
    )
    assert plain("flask --app app celery worker", "app") != COMMANDS["worker"]
    assert plain("gunicorn 'app:create_app()'", "app") != COMMANDS["web"]
