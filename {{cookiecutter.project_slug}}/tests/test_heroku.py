"""What differs on a dyno, and that it differs nowhere else."""

import logging
import sys
from typing import Any

import pytest
from flask import Flask
from flask_background import is_verified, with_tls_rule

from {{ cookiecutter.project_slug }} import config, create_app, heroku

DYNO = {
    "DYNO": "web.1",
    "SECRET_KEY": "s" * 40,
    "API_TOKEN": "t" * 40,
    "REDIS_URL": "rediss://:secret@host:6380",
    {% if cookiecutter.database != "none" %}
    "DATABASE_URL": "postgres://u:secret@host:5432/name",
    {% endif %}
}


def load(**environ: str) -> dict[str, Any]:
    return config.load("production", environ={**DYNO, **environ})


def verifies(settings: dict[str, Any]) -> bool:
    url, verify = settings["REDIS_URL"], settings["REDIS_TLS_VERIFY"]
    return is_verified(with_tls_rule(url, verify=verify, ca_file=settings["REDIS_TLS_CA"]))


def test_a_dyno_has_the_settings_of_its_platform() -> None:
    settings = load()

    assert settings["TRUSTED_PROXIES"] == 1
    assert settings["LOG_FORMAT"] == "logfmt"
    assert settings["HTTPS_ONLY"] is True
    assert settings["REDIS_MAX_CONNECTIONS"] == 2
    assert not verifies(settings)


def test_what_is_set_wins() -> None:
    settings = load(LOG_FORMAT="json", REDIS_TLS_VERIFY="required", REDIS_MAX_CONNECTIONS=" ")

    assert settings["LOG_FORMAT"] == "json"
    assert settings["REDIS_TLS_VERIFY"] is True
    assert settings["REDIS_MAX_CONNECTIONS"] == 2


def test_a_known_authority_is_checked_on_a_dyno_too() -> None:
    settings = load(REDIS_TLS_CA="/app/redis.pem")

    assert verifies(settings)


def test_elsewhere_a_certificate_is_checked_and_http_is_allowed() -> None:
    settings = config.load(
        "production", environ={name: value for name, value in DYNO.items() if name != "DYNO"}
    )

    assert settings["HTTPS_ONLY"] is False
    assert settings["TRUSTED_PROXIES"] == 0
    assert verifies(settings)


@pytest.fixture
def on_dyno() -> Flask:
    return create_app("testing", {"HTTPS_ONLY": True, "TRUSTED_PROXIES": 1})


def test_http_leads_to_https(on_dyno: Flask) -> None:
    answer = on_dyno.test_client().get(
        "/api/v1/schedule?a=b", headers={"Host": "app.example", "X-Forwarded-Proto": "http"}
    )

    assert answer.status_code == 308
    assert answer.headers["Location"] == "https://app.example/api/v1/schedule?a=b"


def test_https_is_answered(on_dyno: Flask) -> None:
    client = on_dyno.test_client()

    assert client.get("/healthz", headers={"X-Forwarded-Proto": "https"}).status_code == 200


def test_a_client_cannot_choose_where_it_is_led(on_dyno: Flask) -> None:
    """The router passes X-Forwarded-Host on as it came."""
    answer = on_dyno.test_client().get(
        "/", headers={"Host": "app.example", "X-Forwarded-Host": "evil.example"}
    )

    assert answer.headers["Location"] == "https://app.example/"


@pytest.mark.parametrize(
    "value", ["two\nlines", 'a "quote"', "back\\slash", "a=b", "ü", "", "\x1b"]
)
def test_a_record_is_one_line_of_pairs(value: str) -> None:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": value, "path": value})

    line = heroku.LogfmtFormatter().format(record)

    assert line.startswith('level=info logger=n msg="')
    assert line.isprintable() and line.isascii()


def test_a_traceback_stays_in_the_line() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})

    line = heroku.LogfmtFormatter().format(record)

    assert "msg=failed" in line
    assert "ValueError: no" in line
    assert "\n" not in line
