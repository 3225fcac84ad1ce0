"""The database: its migrations, what is rolled back, and what happens when it is away."""

{% if cookiecutter.database == "sqlite" %}
from pathlib import Path

{% endif %}
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
{% if cookiecutter.database == "sqlite" %}
from flask_migrate import downgrade, upgrade  # type: ignore[import-untyped]
{% endif %}
from sqlalchemy import text

from {{ cookiecutter.project_slug }} import create_app
from {{ cookiecutter.project_slug }}.extensions import celery, db
from {{ cookiecutter.project_slug }}.main import words
{% if cookiecutter.include_examples == "yes" %}
from {{ cookiecutter.project_slug }}.manifest.tasks import _note_version
{% endif %}
from {{ cookiecutter.project_slug }}.ops import database

AWAY = {
    {% if cookiecutter.database == "sqlite" %}
    "SQLALCHEMY_DATABASE_URI": "sqlite:////nowhere/app.db",
    {% else %}
    "SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://:hunter2@127.0.0.1:1/app",
    {% endif %}
}


def test_the_migrations_make_what_the_models_say(runner: FlaskCliRunner) -> None:
    """If this fails: uv run flask db migrate -m "what changed"."""
    result = runner.invoke(args=["db", "check"])

    assert result.exit_code == 0, result.output


def test_a_task_of_a_transaction_is_sent_with_its_commit(app: Flask) -> None:
    with app.app_context():
        future = celery.submit(words.clock, None, on_commit=True)
        assert celery.task_info(future.id) is None
        db.session.commit()
        assert celery.task_info(future.id) is not None


def test_a_database_that_is_behind_is_said_to_be(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        db.session.execute(text("DELETE FROM alembic_version"))
        assert "behind" in (database.reason() or "")
        db.session.execute(text("INSERT INTO alembic_version VALUES ('future')"))
        assert database.reason() is None  # an older version goes on with newer tables
        said, warning = database.check(0)
        assert "future" in said
        assert warning == "The database is ahead of this version: revision future stays."
        db.session.rollback()


def test_requests_without_the_database_get_503() -> None:
    app = create_app("testing", AWAY)
    app.add_url_rule("/rows", view_func=lambda: str(db.session.execute(text("SELECT 1")).all()))

    response = app.test_client().get("/rows")

    assert response.status_code == 503
    assert response.headers["Retry-After"]
    with app.app_context():
        assert database.reason() == database.AWAY


def test_a_wrong_statement_is_no_outage(client: FlaskClient) -> None:
    client.application.add_url_rule(
        "/wrong", view_func=lambda: str(db.session.execute(text("SELECT x FROM nowhere")))
    )
    client.application.config["PROPAGATE_EXCEPTIONS"] = False

    assert client.get("/wrong").status_code == 500


def test_a_database_that_is_away_ends_the_deployment() -> None:
    with create_app("testing", AWAY).app_context(), pytest.raises(Exception, match="DATABASE_URL"):
        database.check(0)


def test_the_metrics_have_the_database(client: FlaskClient) -> None:
    token = client.application.config["API_TOKEN"]
    text = client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text

    assert "database_up 1.0" in text
    assert "outbox_waiting 0.0" in text
{% if cookiecutter.database == "sqlite" %}


def test_all_migrations_can_be_taken_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    with create_app("testing", {"SQLALCHEMY_DATABASE_URI": url}).app_context():
        upgrade()
        downgrade(revision="base")
        upgrade()
        assert database.reason() is None
{% endif %}
{% if cookiecutter.include_examples == "yes" %}


def test_the_versions_of_the_manifest_are_listed(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        for name in ("1", "1", "2"):
            _note_version(name, "an operator")

    page = client.get("/versions").text

    assert page.count("found by an operator") == 2
    assert page.count('+00:00" data-ago>') == 2
{% endif %}
