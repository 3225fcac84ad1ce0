"""{{ cookiecutter.project_slug }}: the application factory. Everything begins in ``create_app``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_background import ConfigurationError

{% if cookiecutter.include_examples == "yes" %}
from . import api, config, demo, main, manifest
{% else %}
from . import api, config, main
{% endif %}
from .extensions import celery, limiter, redis
{% if cookiecutter.use_heroku == "yes" %}
from .heroku import init_app as init_heroku
{% endif %}
from .ops import health, logs, metrics
from .ops.check import check
from .web import operators, problems, security, static_files


def create_app(config_name: str | None = None, overrides: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    ``config_name`` is ``development``, ``production`` or ``testing``; without it the environment
    variable ``FLASK_CONFIG`` decides, and without that it is ``production``. ``overrides`` replace
    single settings; tests use them. Raises ``config.ConfigError`` for settings that cannot work.
    """
    app = Flask(__name__)
    app.config.from_mapping(config.load(config_name, overrides, instance_path=app.instance_path))
    app.json.sort_keys = False  # type: ignore[attr-defined]
    logs.configure(app)
    security.init_app(app)
    static_files.init_app(app)
    problems.init_app(app)
    {% if cookiecutter.use_heroku == "yes" %}
    init_heroku(app)
    {% endif %}
    {% if cookiecutter.include_examples == "yes" %}
    manifest.init_app(app)
    {% endif %}
    try:
        celery.init_app(app)
    except ConfigurationError as error:
        raise config.ConfigError(str(error)) from None
    redis.init_app(app)
    limiter.init_app(app)
    for blueprint in (main.bp, operators.bp, api.bp, health.bp, metrics.bp):
        app.register_blueprint(blueprint)
    {% if cookiecutter.include_examples == "yes" %}
    for example in (demo.bp, manifest.bp):
        app.register_blueprint(example)
    {% endif %}
    app.cli.add_command(check)
    return app
