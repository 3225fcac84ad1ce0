"""{{ cookiecutter.project_slug }}: the application factory. Everything begins in ``create_app``."""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_background import ConfigurationError

{% if cookiecutter.include_examples == "yes" %}
from . import api, config, demo, main, manifest
{% else %}
from . import api, config, main
{% endif %}
{% if cookiecutter.database == "none" %}
from .extensions import celery, limiter
{% else %}
from .extensions import celery, db, limiter, migrate
{% endif %}
{% if cookiecutter.use_heroku == "yes" %}
from .heroku import init_app as init_heroku
{% endif %}
{% if cookiecutter.database == "none" %}
from .ops import check, health, logs
{% else %}
from .ops import check, database, health, logs
{% endif %}
from .web import problems, security, sign_in, static_files


def create_app(config_name: str | None = None, overrides: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    ``config_name`` is ``development``, ``production`` or ``testing``; without it the environment
    variable ``FLASK_CONFIG`` decides, and without that it is ``production``. ``overrides`` replace
    single settings; tests use them. Raises ``config.ConfigError`` for settings that cannot work.
    """
    app = Flask(__name__)
    app.config.from_mapping(config.load(config_name, overrides))
    app.json.sort_keys = False  # type: ignore[attr-defined]
    logs.init_app(app)
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
    {% if cookiecutter.database != "none" %}
    db.init_app(app)
    migrate.init_app(app)
    database.init_app(app)
    {% endif %}
    limiter.init_app(app)
    check.init_app(app)
    {% if cookiecutter.include_examples == "yes" %}
    for blueprint in (main.bp, sign_in.bp, api.bp, health.bp, demo.bp, manifest.bp):
    {% else %}
    for blueprint in (main.bp, sign_in.bp, api.bp, health.bp):
    {% endif %}
        app.register_blueprint(blueprint)
    return app
