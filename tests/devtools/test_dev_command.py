"""The command `flask dev`: what it says before it starts anything, and what it passes on."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from devtools.dev import command
from devtools.dev.reload import CodeFilter
from devtools.dev.stack import child_environment, programs
from watchfiles import Change


def invoke(*arguments: str) -> Result:
    """Run ``flask dev`` with arguments, without the rest of the command line."""
    return CliRunner().invoke(command.dev, arguments)


def test_the_help_says_what_runs_and_how_it_stops() -> None:
    text = invoke("--help").output
    for word in ("REDIS_URL", "--port", "8000", "PORT", "--no-worker", "--no-reload", "Ctrl-C"):
        assert word in text


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = invoke("--port", str(port))
    assert result.exit_code == 1
    assert result.output == (
        f"Error: Port {port} is in use by another program. Stop it, or choose another: "
        f"uv run flask dev --port {port + 1}\n"
    )


def test_an_address_of_another_machine_is_refused() -> None:
    result = invoke("--host", "192.0.2.1")
    assert result.exit_code == 1
    assert "192.0.2.1 is not an address of this machine" in result.output


def test_a_production_installation_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    monkeypatch.setenv("REDIS_URL", "")
    result = invoke()
    assert result.exit_code == 1
    assert "watchfiles and " in result.output
    assert "uv sync" in result.output


def test_programs_read_the_settings_files_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("SECRET_KEY=from-the-file\nLOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("SECRET_KEY", "from-the-file")
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.delenv("FLASK_CONFIG", raising=False)
    (tmp_path / ".flaskenv").write_text("FLASK_APP=devtools\n")
    monkeypatch.setenv("FLASK_APP", "devtools")
    env = child_environment(tmp_path, "my_app", "redis://127.0.0.1:1/0", 8001, colour=False)
    assert "SECRET_KEY" not in env
    assert env["LOG_LEVEL"] == "WARNING"
    assert env["REDIS_URL"] == "redis://127.0.0.1:1/0"
    assert env["PORT"] == "8001"
    assert env["FLASK_CONFIG"] == "development"
    assert env["FLASK_APP"] == "my_app"


def test_no_worker_leaves_the_web_server() -> None:
    names = [program.name for program in programs("127.0.0.1", 8000, {}, worker=False)]
    assert names == ["web"]


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
