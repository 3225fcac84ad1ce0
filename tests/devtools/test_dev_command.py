"""The command `flask dev`: what it says before it starts anything, and what it passes on."""

import socket
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from watchfiles import Change

from {{ cookiecutter.project_slug }}.dev import command
from {{ cookiecutter.project_slug }}.dev.command import child_environment, programs, without_secrets
from {{ cookiecutter.project_slug }}.dev.reload import CodeFilter


def test_the_help_says_what_runs_and_how_it_stops(runner: FlaskCliRunner) -> None:
    text = runner.invoke(args=["dev", "--help"]).output
    for word in ("REDIS_URL", "--port", "8000", "PORT", "--no-worker", "--no-reload", "Ctrl-C"):
        assert word in text


def test_a_port_in_use_is_said_before_anything_starts(runner: FlaskCliRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = runner.invoke(args=["dev", "--port", str(port)])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: Port {port} is in use by another program. Stop it, or choose another: "
        f"uv run flask dev --port {port + 1}\n"
    )


def test_an_address_of_another_machine_is_refused(runner: FlaskCliRunner) -> None:
    result = runner.invoke(args=["dev", "--host", "192.0.2.1"])
    assert result.exit_code == 1
    assert "192.0.2.1 is not an address of this machine" in result.output


def test_a_production_installation_is_told_what_is_missing(
    runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    monkeypatch.setenv("REDIS_URL", "")
    result = runner.invoke(args=["dev"])
    assert result.exit_code == 1
    assert "watchfiles and " in result.output
    assert "uv sync" in result.output


def test_programs_read_the_settings_files_themselves(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("SECRET_KEY=from-the-file\nLOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("SECRET_KEY", "from-the-file")
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.delenv("FLASK_CONFIG", raising=False)
    with app.app_context():
        env = child_environment(tmp_path, "redis://127.0.0.1:1/0", 8001, colour=False)
    assert "SECRET_KEY" not in env
    assert env["LOG_LEVEL"] == "WARNING"
    assert env["REDIS_URL"] == "redis://127.0.0.1:1/0"
    assert env["PORT"] == "8001"
    assert env["FLASK_CONFIG"] == "development"
    assert env["FLASK_APP"]


def test_no_worker_leaves_the_web_server() -> None:
    names = [program.name for program in programs("127.0.0.1", 8000, {}, worker=False)]
    assert names == ["web"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:p%40ss@host:6380/1?password=x", "rediss://host:6380/1"),
        ("redis://:secret@[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("app/views.py", True),
        (".env", True),
        (".flaskenv", True),
        ("app/templates/index.html", False),
        ("app/__pycache__/views.py", False),
        ("notes.txt", False),
    ],
)
def test_a_change_of_code_or_settings_restarts(path: str, matters: bool) -> None:
    assert CodeFilter()(Change.modified, str(Path("/project") / path)) is matters
