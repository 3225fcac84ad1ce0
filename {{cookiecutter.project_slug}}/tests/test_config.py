"""The settings: what each environment takes, and what stops the start."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from {{ cookiecutter.project_slug }} import config, create_app

GOOD = {
    "SECRET_KEY": "k" * 43,
    "API_TOKEN": "t" * 43,
    "REDIS_URL": "redis://:word@redis.internal:6379/0",
    {% if cookiecutter.database == "sqlite" %}
    "DATABASE_URL": "sqlite:////srv/app.db",
    {% elif cookiecutter.database == "postgresql" %}
    "DATABASE_URL": "postgresql://:word@database.internal/app",
    {% endif %}
}


def test_production_is_meant_when_nothing_is_said() -> None:
    settings = config.load(environ=GOOD)

    assert settings["CONFIG_NAME"] == "production"
    assert settings["SESSION_COOKIE_SECURE"] is True


def test_production_names_every_missing_setting_at_once() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load("production", environ={})

    for name in ("SECRET_KEY", "API_TOKEN", "REDIS_URL"):
        assert f"{name} is not set." in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SECRET_KEY", "short", "5 characters"),
        ("SECRET_KEY", "   ", "not set"),
        ("API_TOKEN", "change-me-" * 4, "the value of an example"),
        ("REDIS_URL", "localhost:6379", "not the address of a Redis"),
        ("REDIS_URL", "redis://host:notaport/0", "not the address of a Redis"),
        ("LOG_FORMAT", "xml", "one of: text, json"),
        ("LOG_LEVEL", "loud", "one of: info, debug"),
        ("TRUSTED_PROXIES", "-1", "whole number"),
        ("TRUSTED_PROXIES", "one", "whole number"),
        ("RATELIMIT_ENQUEUE", "often", "60 per minute"),
        ("CELERY_TASK_TIME_LIMIT", "5m", "whole number"),
    ],
)
def test_a_value_that_cannot_work_stops_the_start(name: str, value: str, expected: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load("production", environ=GOOD | {name: value})

    assert name in caught.value.message
    assert expected in caught.value.message


def test_a_wrong_redis_url_is_not_repeated_because_it_may_hold_a_password() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load("production", environ=GOOD | {"REDIS_URL": "http://:hunter2@host"})

    assert "hunter2" not in caught.value.message


def test_an_unknown_environment_is_refused_with_the_choices() -> None:
    with pytest.raises(config.ConfigError, match=r"'prod'.*development, production, testing"):
        create_app("prod")


def test_development_starts_with_nothing_set() -> None:
    settings = config.load("development", environ={})

    assert settings["REDIS_URL"].startswith("redis://127.0.0.1:")


def test_a_reload_in_development_does_not_wait_long_for_tasks() -> None:
    assert config.load("development", environ={})["CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT"] == 3
    assert "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT" not in config.load("testing", environ={})


def test_unit_tests_never_find_the_redis_of_the_environment() -> None:
    settings = config.load("testing", environ={"REDIS_URL": "redis://production:6379/0"})

    assert settings["REDIS_URL"] == "redis://127.0.0.1:1/0"


def test_overrides_win() -> None:
    settings = config.load("testing", {"MAX_CONTENT_LENGTH": 7}, environ={})

    assert settings["MAX_CONTENT_LENGTH"] == 7


def test_the_command_line_shows_a_sentence_and_no_traceback() -> None:
    environ = {name: value for name, value in os.environ.items() if name not in GOOD}
    environ |= {"FLASK_APP": "{{ cookiecutter.project_slug }}", "FLASK_SKIP_DOTENV": "1"}

    result = subprocess.run(
        [sys.executable, "-m", "flask", "celery", "status"],
        env=environ | {"FLASK_CONFIG": "production"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert result.returncode == 1
    assert "SECRET_KEY is not set." in result.stderr
    assert "Traceback" not in result.stderr


class Recorder(dict[str, str]):
    """An environment that notes what it is asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


def test_the_example_of_the_environment_explains_every_setting() -> None:
    environ = Recorder(GOOD)
    for name in ("development", "production"):
        config.load(name, environ=environ)

    example = (Path(__file__).parents[1] / ".env.example").read_text()
    explained = set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE))
    assert environ.asked <= explained


def test_the_example_of_the_environment_is_not_accepted_as_it_stands() -> None:
    example = (Path(__file__).parents[1] / ".env.example").read_text()
    environ = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))

    with pytest.raises(config.ConfigError) as caught:
        config.load(environ=environ)

    assert len(caught.value.message.splitlines()) == 3  # the heading, and the two secrets
