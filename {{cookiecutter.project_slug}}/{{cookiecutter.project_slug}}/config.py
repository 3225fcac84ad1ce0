"""Settings of the application, read from the environment when it starts.

``FLASK_CONFIG`` chooses one of the classes Development, Production and Testing; ``.env.example``
explains each variable. A value that cannot work stops the start with a sentence about it.
"""

import os
from collections.abc import Mapping
from typing import Any, ClassVar
{% if cookiecutter.include_examples == "yes" %}
from urllib.parse import urlsplit
{% endif %}

import click
from flask_background import connect_redis
{% if cookiecutter.database != "none" %}
from flask_background.database import database_url
{% endif %}
from limits import parse_many
{% if cookiecutter.use_heroku == "yes" %}

from . import heroku
{% endif %}

#: Shortest secret that Production accepts, in characters.
SECRET_LENGTH = 32

_HOW_TO_MAKE_ONE = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_EXAMPLES = ("change", "development", "testing", "your-", "your_", "secret", "example")


class ConfigError(click.ClickException):
    """Settings that cannot work; the message has one sentence for each fault.

    It is a ClickException so that a ``flask`` command prints the sentences and no traceback.
    """


class Config:
    """What all environments share. Upper-case attributes become ``app.config``."""

    APP_NAME = {{ cookiecutter.__project_name_python }}
    APP_DESCRIPTION = {{ cookiecutter.__description_python }}

    # The colour of the pages: teal, blue, violet, plum, green or rust (static/style.css has them).
    APP_COLOR = "{{ cookiecutter.__color }}"

    # The only place that says which workers run and which queues they serve: a number, a list of
    # names, or options by name, such as {"mail": {"queues": ["mail"], "concurrency": 2}}.
    # `flask celery cluster` starts all of them, on every kind of server.
    CELERY_WORKERS: ClassVar[Any] = {"worker": {"concurrency": 1}}

    # Larger request bodies are answered with 413.
    MAX_CONTENT_LENGTH = 64 * 1024

    # https://flask.palletsprojects.com/en/stable/web-security/#set-cookie-options
    SESSION_COOKIE_HTTPONLY = True
    SESSION_COOKIE_SAMESITE = "Lax"
    SESSION_COOKIE_SECURE = False
    # Applications on other ports of the same host share its cookies.
    SESSION_COOKIE_NAME = f"{__package__}_session"
    # Somebody who signed in has to do it again after so many seconds.
    PERMANENT_SESSION_LIFETIME = 12 * 3600
    SESSION_REFRESH_EACH_REQUEST = False

    # Counted in Redis, so that all web processes share the counts; see extensions.py.
    RATELIMIT_ENABLED = True

    #: What a variable is that the environment does not set, where environments differ.
    defaults: ClassVar[dict[str, str]] = {}

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[str] = []

        self.SECRET_KEY = self._text("SECRET_KEY")
        self.API_TOKEN = self._text("API_TOKEN")
        self.REDIS_URL = self._redis_url()
        self.REDIS_TLS_VERIFY = self._choice("REDIS_TLS_VERIFY", "required", "none") != "none"
        self.REDIS_TLS_CA = self._text("REDIS_TLS_CA") or None
        # For each pool of connections in each process; a process has four pools at most.
        self.REDIS_MAX_CONNECTIONS = self._integer("REDIS_MAX_CONNECTIONS", 10, low=1)

        {% if cookiecutter.database != "none" %}
        # https://flask-sqlalchemy.readthedocs.io/en/stable/config/
        self.SQLALCHEMY_DATABASE_URI = self._database_url()
        {% endif %}
        {% if cookiecutter.database == "postgresql" %}
        # What the server allows to all processes together, a release with its new ones among them.
        self.DATABASE_MAX_CONNECTIONS = self._integer("DATABASE_MAX_CONNECTIONS", 20, low=6)
        # Seconds that one statement may take.
        self.DATABASE_STATEMENT_TIMEOUT = self._integer("DATABASE_STATEMENT_TIMEOUT", 30, low=1)
        {% endif %}
        {% if cookiecutter.database != "none" %}

        {% endif %}
        self.LOG_LEVEL = self._choice("LOG_LEVEL", "INFO", "DEBUG", "WARNING", "ERROR")
        {% if cookiecutter.use_heroku == "yes" %}
        self.LOG_FORMAT = self._choice("LOG_FORMAT", "text", "json", "logfmt")
        self.HTTPS_ONLY = "DYNO" in environ
        {% else %}
        self.LOG_FORMAT = self._choice("LOG_FORMAT", "text", "json")
        {% endif %}
        self.SENTRY_DSN = self._text("SENTRY_DSN")
        self.TRUSTED_PROXIES = self._integer("TRUSTED_PROXIES", 0, low=0, high=10)
        # The names under which the application is reached; others are answered with 400.
        hosts = self._text("TRUSTED_HOSTS").replace(",", " ").split()
        # Health checks come from this machine.
        self.TRUSTED_HOSTS = [*hosts, "localhost", "127.0.0.1", "[::1]"] if hosts else None
        self.RATELIMIT_ENQUEUE = self._rate("RATELIMIT_ENQUEUE", "60 per minute")
        self.RATELIMIT_SIGN_IN = self._rate("RATELIMIT_SIGN_IN", "5 per minute; 30 per hour")
        # Whether the page shows its numbers to everybody, or to those who signed in.
        self.PUBLIC_DASHBOARD = self._choice("PUBLIC_DASHBOARD", "yes", "no") == "yes"

        # Seconds. At the soft limit the task gets SoftTimeLimitExceeded, at the hard one it ends.
        # https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits
        self.CELERY_TASK_TIME_LIMIT = self._integer("CELERY_TASK_TIME_LIMIT", 300, low=2)
        self.CELERY_TASK_SOFT_TIME_LIMIT = self._integer(
            "CELERY_TASK_SOFT_TIME_LIMIT", self.CELERY_TASK_TIME_LIMIT * 9 // 10, low=1
        )
        if self.CELERY_TASK_SOFT_TIME_LIMIT >= self.CELERY_TASK_TIME_LIMIT:
            self.faults.append("CELERY_TASK_SOFT_TIME_LIMIT must be below CELERY_TASK_TIME_LIMIT.")
        # How long the result of a task is kept, in seconds.
        self.CELERY_RESULT_EXPIRES = self._integer("CELERY_RESULT_EXPIRES", 3600, low=60)
        {% if cookiecutter.include_examples == "yes" %}

        # Whether everybody may start the example task, or operators only.
        self.PUBLIC_DEMO = self._choice("PUBLIC_DEMO", "yes", "no") == "yes"
        self.MANIFEST_URL = self._web_url("MANIFEST_URL")
        self.MANIFEST_INTERVAL = self._integer("MANIFEST_INTERVAL", 300, low=1)
        self.SLACK_WEBHOOK_URL = self._web_url("SLACK_WEBHOOK_URL")
        {% endif %}

    def _text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or self.defaults.get(name, default)

    def _redis_url(self) -> str:
        url = self._text("REDIS_URL")
        try:
            if url:
                connect_redis(url)  # which only reads the address; it connects later
        except ValueError:
            # The value is not shown, for it may hold a password.
            self.faults.append(
                "REDIS_URL is not the address of a Redis. Write redis://[:password@]host:6379/0."
            )
        return url

    def _integer(self, name: str, default: int, low: int, high: int = 10**9) -> int:
        text = self._text(name, str(default))
        if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
            self.faults.append(f"{name} is {text!r}. Set it to a whole number of {low} or more.")
            return default
        return int(text)

    {% if cookiecutter.database != "none" %}
    def _database_url(self) -> str:
        """Return the address as SQLAlchemy wants it."""
        try:
            return database_url(self._text("DATABASE_URL"), "{{ cookiecutter.database }}")
        except ValueError as error:
            self.faults.append(f"DATABASE_URL {error}")
            return ""

    {% endif %}
    def _rate(self, name: str, default: str) -> str:
        text = self._text(name, default)
        try:
            parse_many(text)
        except ValueError:
            self.faults.append(f"{name} is {text!r}. Set it to a rate such as {default!r}.")
        return text

    def _choice(self, name: str, default: str, *others: str) -> str:
        choices = {choice.lower(): choice for choice in (default, *others)}
        text = self._text(name, default)
        if text.lower() not in choices:
            self.faults.append(f"{name} is {text!r}. Set it to one of: {', '.join(choices)}.")
        return choices.get(text.lower(), default)
    {% if cookiecutter.include_examples == "yes" %}

    def _web_url(self, name: str) -> str:
        text = self._text(name)
        if text and not (text.startswith(("http://", "https://")) and urlsplit(text).hostname):
            self.faults.append(f"{name} is {text!r}. Set it to an address such as https://host/x.")
        return text
    {% endif %}


class Development(Config):
    """On your own machine: works with nothing set. `flask dev` sets a REDIS_URL of its own."""

    TEMPLATES_AUTO_RELOAD = True
    # Seconds that running tasks have when the worker restarts for new code; then they begin again.
    CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 3
    defaults: ClassVar[dict[str, str]] = {
        "SECRET_KEY": "development-only",
        "API_TOKEN": "development-only",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        {% if cookiecutter.database == "sqlite" %}
        "DATABASE_URL": "sqlite:///{{ cookiecutter.project_slug }}.db",  # in instance/
        {% elif cookiecutter.database == "postgresql" %}
        # The one of compose.yaml; `flask dev` sets a DATABASE_URL of its own.
        "DATABASE_URL": f"postgresql://postgres:development-only@127.0.0.1/{__package__}",
        {% endif %}
    }
    {% if cookiecutter.include_examples == "yes" %}

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        if not self.MANIFEST_URL:
            # Something to see: the sample that the application itself serves.
            port = self._integer("PORT", 8000, low=1)
            self.MANIFEST_URL = f"http://127.0.0.1:{port}/sample-manifest.json"
    {% endif %}


class Production(Config):
    """On a server: refuses to start without its own secrets."""

    SESSION_COOKIE_SECURE = True
    {% if cookiecutter.include_examples == "yes" %}
    defaults: ClassVar[dict[str, str]] = {"PUBLIC_DASHBOARD": "no", "PUBLIC_DEMO": "no"}
    {% else %}
    defaults: ClassVar[dict[str, str]] = {"PUBLIC_DASHBOARD": "no"}
    {% endif %}

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        for name in ("SECRET_KEY", "API_TOKEN"):
            if fault := _secret_fault(getattr(self, name)):
                self.faults.append(f"{name} {fault} {_HOW_TO_MAKE_ONE}")
        if self.SECRET_KEY and self.SECRET_KEY == self.API_TOKEN:
            self.faults.append("SECRET_KEY and API_TOKEN are the same. Callers know the second.")
        if not self.REDIS_URL:
            self.faults.append("REDIS_URL is not set. Set it to your Redis: redis://host:6379/0.")


class Testing(Config):
    """For pytest: tasks run at once in the calling process, and nothing needs Redis.

    With ``CELERY_TASK_ALWAYS_EAGER`` set to 0 (a test with a real worker) ``REDIS_URL`` counts.
    """

    TESTING = True
    RATELIMIT_ENABLED = False
    # So that the state of a task can be asked for afterwards, as with a worker.
    CELERY_TASK_STORE_EAGER_RESULT = True
    {% if cookiecutter.database == "sqlite" %}
    defaults: ClassVar[dict[str, str]] = {"DATABASE_URL": "sqlite://"}  # in memory
    {% elif cookiecutter.database == "postgresql" %}
    # Nothing listens there; tests/conftest.py says where there is one.
    defaults: ClassVar[dict[str, str]] = {"DATABASE_URL": "postgresql://127.0.0.1:1/test"}
    {% endif %}

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.SECRET_KEY = "testing-only"  # noqa: S105
        self.API_TOKEN = "testing-token"  # noqa: S105
        self.CELERY_TASK_ALWAYS_EAGER = self._text("CELERY_TASK_ALWAYS_EAGER", "1") != "0"
        if self.CELERY_TASK_ALWAYS_EAGER:
            # Nothing listens there: a unit test that needs Redis shall fail, not find yours.
            self.REDIS_URL = "redis://127.0.0.1:1/0"


CHOICES = {choice.__name__.lower(): choice for choice in (Development, Production, Testing)}


def load(
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Read the settings of one environment, with ``overrides`` on top.

    Raises ``ConfigError`` when ``name`` (or ``FLASK_CONFIG``) is unknown or a value cannot work.
    """
    name = name or environ.get("FLASK_CONFIG", "").strip() or "production"
    if name not in CHOICES:
        raise ConfigError(
            f"FLASK_CONFIG is {name!r}. Set it to one of: {', '.join(CHOICES)}; "
            "if it is not set, production is meant."
        )
    {% if cookiecutter.use_heroku == "yes" %}
    environ = heroku.with_defaults(environ)
    {% endif %}
    chosen = CHOICES[name](environ)
    settings = {key: getattr(chosen, key) for key in dir(chosen) if key.isupper()}
    if chosen.faults:
        raise ConfigError("\n".join([f"The {name} settings cannot work.", *chosen.faults]))
    return settings | {"CONFIG_NAME": name} | dict(overrides or {})


def _secret_fault(value: str) -> str | None:
    """Say what is wrong with a secret, or return None if Production can take it."""
    if not value:
        return "is not set."
    if value.lower().startswith(_EXAMPLES):
        return "still has the value of an example."
    if len(value) < SECRET_LENGTH:
        return f"has {len(value)} characters, and {SECRET_LENGTH} are needed."
    return None
