"""The log lines."""

import json
import logging

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }} import create_app
from {{ cookiecutter.project_slug }}.ops import logs


def test_a_request_leaves_one_line_with_its_id(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.get("/nothing?password=hunter2", headers={"X-Request-ID": "abc"})

    (line,) = [line for line in capsys.readouterr().out.splitlines() if "access" in line]
    assert "GET /nothing 404" in line
    assert "request=abc" in line
    assert "hunter2" not in line


def test_health_checks_leave_no_line(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.get("/healthz")

    assert "healthz" not in capsys.readouterr().out


FORGED = "2026-01-01 00:00:00,000 ERROR   web app: forged"
BREAKS = ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", "\x1b[2K\r"]


@pytest.mark.parametrize("separator", BREAKS, ids=ascii)
@pytest.mark.parametrize("log_format", logs.FORMATTERS)
def test_no_text_forges_a_line(
    separator: str, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app("testing", {"LOG_FORMAT": log_format})
    evil = f"x{separator}{FORGED}"
    ids = {"task_id": evil, "request_id": evil, "task_name": evil}
    try:
        raise ValueError(evil)
    except ValueError as error:
        app.logger.exception("It failed with %s for %s", error, evil, extra=ids)

    output = capsys.readouterr().out
    assert "forged" in output
    assert not [line for line in output.splitlines() if line.startswith("2026-01-01")]
    assert output.count("\r") == output.count("\x1b") == 0


def test_half_a_letter_does_not_stop_a_line(
    client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.application.logger.warning("half a letter: %s", "\ud800")

    assert "half a letter: \\ud800" in capsys.readouterr().out


def test_json_lines_carry_the_ids(app: Flask) -> None:
    record = logging.LogRecord("app", logging.INFO, "file", 1, "sent %d", (3,), None)

    with app.test_request_context(headers={"X-Request-ID": "abc"}):
        app.preprocess_request()
        logs.add_context(record)
    line = json.loads(logs.FORMATTERS["json"]().format(record))

    assert line["message"] == "sent 3"
    assert line["level"] == "INFO"
    assert line["request_id"] == "abc"
    assert line["process"] == "web"
