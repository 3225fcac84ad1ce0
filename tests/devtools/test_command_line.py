"""The command line begins in devtools: its own commands need no application, the others say why."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from devtools.dev.redis_server import EmbeddedRedis
from machine import need
from sample_project import Flask

Break = Callable[[Path], dict[str, str]]

#: What keeps each command from doing more than reading its arguments: nothing listens there.
NOBODY = "root@127.0.0.1:1"


def syntax_error(project: Path) -> dict[str, str]:
    """Save a file half-way through a line."""
    with (project / "sample" / "views.py").open("a") as file:
        file.write("\ndef broken(\n")
    return {}


def missing_library(project: Path) -> dict[str, str]:
    """Import what is not installed."""
    with (project / "sample" / "views.py").open("a") as file:
        file.write("import no_such_library\n")
    return {}


def error_in_the_factory(project: Path) -> dict[str, str]:
    """Let create_app fail."""
    file = project / "sample" / "__init__.py"
    file.write_text(file.read_text().replace("    return app\n", '    app.config["NO_SUCH"]\n'))
    return {}


def missing_setting(project: Path) -> dict[str, str]:
    """Leave out what the application insists on."""
    (project / ".env").write_text("FLASK_CONFIG=development\n")
    return {}


#: How it can be broken, and the sentence about it.
BROKEN: list[tuple[Break, str]] = [
    (syntax_error, "The application cannot be loaded: SyntaxError in sample/views.py, line 4: "
     "'(' was never closed."),
    (missing_library, "The application cannot be loaded: ModuleNotFoundError in sample/views.py, "
     "line 3: No module named 'no_such_library'."),
    (error_in_the_factory, "The application cannot be loaded: KeyError in sample/__init__.py, "
     "line 26: 'NO_SUCH'."),
    (missing_setting, "SECRET_KEY is not set."),
]  # fmt: skip

broken = pytest.mark.parametrize(
    ("breaks", "sentence"), BROKEN, ids=lambda it: getattr(it, "__name__", "")
)


@broken
def test_a_command_of_a_broken_application_says_in_a_sentence_why(
    project: Path, flask: Flask, breaks: Break, sentence: str
) -> None:
    variables = breaks(project)
    for command in ("greet", "celery status", "routes", "run --port 1", "shell", "nonsense"):
        done = flask(*command.split(), **variables)
        assert done.returncode == 1, command
        assert done.stderr == f"Error: {sentence}\n", command
        assert done.stdout == ""


@broken
def test_the_tools_work_all_the_same(
    project: Path, flask: Flask, breaks: Break, sentence: str
) -> None:
    need("ssh")
    variables = breaks(project)
    for command in ("rollback", "status", "logs", "run"):
        more = ["true"] if command == "run" else []
        done = flask("deploy", command, NOBODY, *more, **variables)
        # Mostly "Connection refused"; another program may listen there.
        assert "127.0.0.1 port 1" in done.stdout + done.stderr, "It has asked the server."
        assert sentence not in done.stderr
    done = flask("smoke", "http://127.0.0.1:1", **variables)
    assert done.returncode == 1
    assert re.fullmatch(r"1/1 test_site \.\.\. [0-9.]+ s, 1 failed\n", done.stderr)
    assert "1 failed" in done.stdout
    done = flask("dev", "--host", "192.0.2.1", **variables)
    assert "192.0.2.1 is not an address of this machine" in done.stderr


def names_in_sections(shown: str) -> list[str]:
    """Return the first word of each line in the sections of a help: headings, and commands."""
    sections = shown[shown.index("On your machine:") :]
    return [line.split()[0] for line in sections.splitlines() if line]


@pytest.mark.parametrize("group", [[], ["deploy"], ["celery"], ["celery", "dead"]])
def test_each_command_has_one_line_that_is_not_cut(flask: Flask, group: list[str]) -> None:
    shown = flask(*group, "--help", COLUMNS="80").stdout
    assert shown.startswith("Usage:")
    assert "..." not in shown.replace("[ARGS]...", "")


@broken
def test_the_help_names_what_works_and_says_what_does_not(
    project: Path, flask: Flask, breaks: Break, sentence: str
) -> None:
    variables = breaks(project)
    done = flask("--help", **variables)
    assert done.returncode == 0
    assert done.stderr.strip() == sentence
    names = names_in_sections(done.stdout)
    assert {"dev", "deploy", "smoke", "run"} <= set(names) and "greet" not in names
    for command in ("dev", "deploy", "smoke"):
        done = flask(command, "--help", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: python -m flask {command} ")


def test_somebody_who_asks_for_the_error_gets_all_of_it(project: Path, flask: Flask) -> None:
    missing_library(project)
    assert "Traceback" in flask("--debug", "greet").stderr


def test_all_commands_stand_beside_each_other(flask: Flask) -> None:
    done = flask("--help")
    assert done.stderr == ""
    assert names_in_sections(done.stdout) == [
        *("On", "dev", "routes", "shell", "run"),
        *("Background", "celery"),
        *("Deployment:", "deploy", "smoke"),
        *("More:", "greet"),
    ]
    assert flask("greet").stdout == "redis redis://127.0.0.1:1/0\n"
    assert "healthz" in flask("routes").stdout


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("deplyo", "deploy"),
        ("rotues", "routes"),
        ("gret", "greet"),
        ("deploy relase", "release"),
        ("deploy release host --alow-dirty", "--allow-dirty"),
        ("smoke --insecur", "--insecure"),
        ("celery statuss", "status"),
        ("celery worker --concurency 2", "--concurrency"),
    ],
)
def test_a_wrong_name_leads_to_the_nearest_right_one(flask: Flask, typed: str, right: str) -> None:
    done = flask(*typed.split())
    assert done.returncode == 2
    proposed = done.stderr.rpartition("Did you mean")[2]
    assert f"'{right}'" in proposed


def test_a_second_window_finds_the_running_redis(project: Path, flask: Flask) -> None:
    with EmbeddedRedis(project / "instance" / "redis") as redis:
        assert flask("greet").stdout == f"redis {redis.url}\n"
        other = "redis://127.0.0.1:2/0"
        assert flask("greet", REDIS_URL=other).stdout == f"redis {other}\n"
        assert flask("greet", FLASK_CONFIG="production").stdout != f"redis {redis.url}\n"
        assert flask("--app", "sample", "greet").stdout == "redis redis://127.0.0.1:1/0\n"


def test_without_devtools_the_command_line_is_the_applications_own(
    project: Path, flask: Flask
) -> None:
    for path in (project / "devtools").rglob("*.py"):
        path.unlink()
    (project / ".flaskenv").unlink()
    assert flask("--app", "sample", "greet").returncode == 0
    assert flask("greet", FLASK_APP="sample").returncode == 0
    assert "No such command 'dev'" in flask("dev", FLASK_APP="sample").stderr
