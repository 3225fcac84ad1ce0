"""Arguments: JSON, proxies by their value, rows of a database by reference."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sample_app
from engine_support import Running, flask_celery, ready
from flask import Flask, current_app, g
from flask_background import FlaskCelery, SubmitError
from sample_app import celery, create_app
from sample_models import Person, add_and_forget, db, greet, is_attached
from sqlalchemy import delete
from werkzeug.local import LocalProxy


def test_json_and_what_celery_adds_to_it_arrives(either: FlaskCelery) -> None:
    sent: dict[str, Any] = {
        "text": "ü",
        "nested": [1, 2.5, None, True, {"a": []}],
        "day": datetime.date(2026, 11, 20),
        "amount": decimal.Decimal("1.10"),
        "id": uuid.UUID(int=7),
    }

    assert either.submit(sample_app.type_names, **sent).result(timeout=20) == {
        "text": "str",
        "nested": "list",
        "day": "date",
        "amount": "Decimal",
        "id": "UUID",
    }
    assert either.submit(sample_app.echo, sent["nested"]).result(timeout=20) == [
        [sent["nested"]],
        {},
    ]


def test_a_proxy_is_sent_as_what_it_stands_for(either: FlaskCelery) -> None:
    g.user = {"name": "Ada"}
    user = LocalProxy(lambda: g.user)

    sent = either.submit(sample_app.echo, user, [user], who=user)

    ada = {"name": "Ada"}
    assert sent.result(timeout=20) == [[ada, [ada]], {"who": ada}]


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((1, {1, 2}), {}, "Argument 2 is a set, which JSON cannot carry"),
        ((), {"file": object()}, "Argument 'file' is a object"),
        (
            (LocalProxy(lambda: current_app),),
            {},
            "Argument 1 is a Flask, which JSON",
        ),
    ],
)
def test_what_json_cannot_carry_is_refused(
    either: FlaskCelery, args: tuple[Any, ...], kwargs: dict[str, Any], why: str
) -> None:
    with pytest.raises(SubmitError, match=why):
        either.submit(sample_app.echo, *args, **kwargs)


def test_an_argument_that_holds_itself_is_refused(either: FlaskCelery) -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(SubmitError, match=r"Argument 1 is a list.*: it is circular"):
        either.submit(sample_app.echo, endless)


def test_arguments_over_the_limit_are_refused(either: FlaskCelery) -> None:
    limit = 256 * 1024

    with pytest.raises(SubmitError, match=f"{limit} are allowed .CELERY_MAX_ARGUMENT_BYTES."):
        either.submit(sample_app.nothing, "x" * limit)
    assert either.submit(sample_app.length, "x" * (limit - 2)).result(timeout=20) == limit - 2


def test_the_limit_is_that_of_delay_too(either: FlaskCelery) -> None:
    delay: Any = sample_app.double.delay
    with pytest.raises(SubmitError, match="CELERY_MAX_ARGUMENT_BYTES"):
        delay("x" * 256 * 1024)
    with pytest.raises(SubmitError, match="Argument 1 is a set"):
        delay({1})
    assert sample_app.double.delay(2).id


@pytest.mark.parametrize("sanitize", [True, False])
def test_a_dict_that_would_be_taken_for_a_date_is_refused(sanitize: bool) -> None:
    app = create_app({"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_SANITIZE_ARGUMENTS": sanitize})
    wrong = {"__type__": "decimal", "__value__": "1"}

    with app.app_context():
        with pytest.raises(SubmitError, match="'__type__' and '__value__' cannot be sent"):
            celery.submit(sample_app.echo, [wrong])
        more = wrong | {"more": 1}
        assert celery.submit(sample_app.echo, more).result() == [[more], {}]


def test_the_limit_is_in_the_settings() -> None:
    app = create_app({"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_MAX_ARGUMENT_BYTES": 10})

    with app.app_context():
        assert celery.submit(sample_app.echo, "12345678").result() == [["12345678"], {}]
        with pytest.raises(SubmitError, match="take 11 bytes as JSON, and 10 are allowed"):
            celery.submit(sample_app.echo, "123456789")


def test_sanitizing_can_be_turned_off() -> None:
    app = create_app({"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_SANITIZE_ARGUMENTS": False})

    with app.app_context(), pytest.raises(SubmitError, match="a LocalProxy"):
        celery.submit(sample_app.echo, LocalProxy(lambda: {}))


# With a database


@pytest.fixture(scope="module")
def database(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("database") / "people.sqlite"
    return {
        "REDIS_URL": settings["REDIS_URL"].replace("/0", "/1"),
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{file}",
        "CELERY_SUBMIT_PACKAGES": ["sample_models"],
    }


@pytest.fixture(scope="module")
def database_worker(database: dict[str, Any]) -> Iterator[None]:
    running = Running(flask_celery("cluster", "--no-scheduler"), database)
    try:
        ready(database, 1)
        yield
    finally:
        running.end()


@pytest.fixture(params=["with a worker", "eager"])
def with_database(request: pytest.FixtureRequest, database: dict[str, Any]) -> Iterator[Flask]:
    if request.param == "eager":
        database = {**database, "CELERY_TASK_ALWAYS_EAGER": True}
    else:
        request.getfixturevalue("database_worker")
    app = create_app(database)
    with app.app_context():
        db.create_all()
        yield app


def test_a_row_is_sent_by_reference_and_loaded_again(with_database: Flask) -> None:
    ada, bob = Person(name="Ada"), Person(name="Bob")
    db.session.add_all([ada, bob])
    db.session.commit()

    assert celery.submit(greet, ada, bob).result(timeout=20) == ["hello Ada", "hello Bob"]
    assert celery.submit(greet, person=ada).result(timeout=20) == ["hello Ada"]
    assert celery.submit(is_attached, LocalProxy(lambda: ada)).result(timeout=20) is True


@pytest.mark.usefixtures("database_worker")
def test_each_task_has_a_session_of_its_own(database: dict[str, Any]) -> None:
    with create_app(database).app_context():
        db.create_all()

        found = [celery.submit(add_and_forget, name) for name in ("Cy", "Di")]

        assert [future.result(timeout=20) for future in found] == [0, 0]


def test_a_row_without_a_key_is_refused(with_database: Flask) -> None:
    with pytest.raises(SubmitError, match=r"without a primary key.*Commit it first"):
        celery.submit(greet, Person(name="new"))


def test_a_row_that_is_gone_fails_the_task(with_database: Flask) -> None:
    person = Person(name="gone")
    db.session.add(person)
    db.session.commit()
    others = db.engine.connect()
    others.execute(delete(Person).where(Person.id == person.id))
    others.commit()
    others.close()
    db.session.expunge_all()

    error = celery.submit(greet, person).exception(timeout=20)

    assert isinstance(error, LookupError)
    assert "has the primary key" in str(error)


def test_data_that_looks_like_a_reference_is_refused(with_database: Flask) -> None:
    with pytest.raises(SubmitError, match="taken for a reference"):
        celery.submit(sample_app.echo, [{"__model__": "sample_models:Person", "key": [1]}])


def test_sending_needs_no_context_for_plain_arguments(database: dict[str, Any]) -> None:
    create_app({**database, "CELERY_TASK_ALWAYS_EAGER": True})

    assert celery.submit(sample_app.add, [1], [2]).result() == [1, 2]
