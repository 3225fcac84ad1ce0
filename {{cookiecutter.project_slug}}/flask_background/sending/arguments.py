"""What may travel as an argument: JSON, proxies by their value, model instances by reference."""

import math
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from flask import current_app, has_app_context
from kombu import Queue
from kombu.utils.json import dumps
from werkzeug.local import LocalProxy

from ..base.errors import SubmitError

#: The key that marks a reference to a database row in a message.
_REFERENCE = "__model__"

#: Dicts with exactly these keys mean something else in a message: a row, or a date or the like.
_RESERVED = ({_REFERENCE, "key"}, {"__type__", "__value__"})

_NUMBERS = frozenset({bool, int, float})
_PLAIN = _NUMBERS | {str}
#: Characters of arguments that are shown to people.
_SHOWN = 1024


def prepare(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, limit: int, sanitize: bool
) -> tuple[list[Any], dict[str, Any]]:
    """Make arguments fit for a message.

    With ``sanitize``, a proxy such as ``current_user`` becomes what it stands for, and a model
    instance of Flask-SQLAlchemy a reference that the worker loads again. Raises ``SubmitError``
    that names the argument which JSON cannot carry, or the size when all are over ``limit`` bytes.
    """
    change = _to_message if sanitize else _refuse_reserved
    named = {f"Argument {number}": value for number, value in enumerate(args, 1)}
    named |= {f"Argument {name!r}": value for name, value in kwargs.items()}
    size = 0
    for name, value in named.items():
        named[name], length = _as_json(name, value, change)
        size += length
    _check_size("The arguments take", size, limit, "CELERY_MAX_ARGUMENT_BYTES")
    values = list(named.values())
    return values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))


def check_result(value: Any, limit: int) -> None:
    """Raise ``SubmitError`` for what a task may not return: no JSON, or too much of it."""
    size = _as_json("The result", value, _refuse_reserved)[1]
    _check_size("The result takes", size, limit, "CELERY_MAX_RESULT_BYTES")


def _as_json(name: str, value: Any, change: Callable[[Any], Any]) -> tuple[Any, int]:
    """Return a value as it is sent, and how many bytes that takes."""
    try:
        if value is None or type(value) in _NUMBERS:
            return value, len(repr(value))  # as long as its JSON
        value = _replace(value, change)
        return value, len(dumps(value))
    except SubmitError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        circular = isinstance(error, RecursionError) or "Circular" in str(error)
        raise SubmitError(
            f"{name} is a {type(value).__name__}, which JSON cannot carry: "
            f"{'it is circular, or nested too deeply' if circular else error}. Use numbers, texts, "
            "lists, dicts, dates or ids, and load the rest where it is needed."
        ) from error


def _check_size(what: str, size: int, limit: int, setting: str) -> None:
    if size > limit:
        raise SubmitError(
            f"{what} {size} bytes as JSON, and {limit} are allowed ({setting}). Store the data, "
            "and send where it is."
        )


def short_text(values: Any) -> str | None:
    """Write arguments for people; None leaves it to Celery, which is slower and takes anything."""
    try:
        text = repr(values)
    except Exception:
        return None
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``SubmitError`` for an option of ``apply_async`` that cannot mean anything."""
    for name in options.keys() & _OPTIONS.keys():
        fits, what = _OPTIONS[name]
        if options[name] is not None and not fits(options[name]):
            raise SubmitError(f"The option {name} is {options[name]!r:.100}. Give {what}.")


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, (datetime, str)) and bool(datetime.fromisoformat(str(value)))
    except ValueError:
        return False


_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "countdown": (_is_number, "a number of seconds"),
    "time_limit": (_is_number, "a number of seconds"),
    "soft_time_limit": (_is_number, "a number of seconds"),
    "eta": (_is_moment, "a datetime"),
    "expires": (lambda it: _is_number(it) or _is_moment(it), "a number of seconds or a datetime"),
    "priority": (lambda it: type(it) is int and 0 <= it <= 9, "a number from 0 (first) to 9"),
    "queue": (lambda it: isinstance(it, (str, Queue)), "the name of a queue"),
    "task_id": (lambda it: isinstance(it, str), "a text"),
}


def load_references[T: (tuple[Any, ...], dict[str, Any])](values: T) -> T:
    """Replace references to database rows, as :func:`prepare` made them, by the rows."""
    if not _has_database():
        return values
    return _replace(values, _from_message)  # type: ignore[no-any-return]


def _replace(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to ``value`` and to what lists, tuples and dicts in it hold."""
    if value is None or type(value) in _PLAIN:
        return value
    changed = change(value)
    if changed is not value:
        return changed
    if type(value) is list or type(value) is tuple:
        return type(value)(_replace(item, change) for item in value)
    if type(value) is dict:
        return {key: _replace(item, change) for key, item in value.items()}
    return value


def _to_message(value: Any) -> Any:
    if isinstance(value, LocalProxy):
        return _replace(value._get_current_object(), _to_message)
    _refuse_reserved(value)
    # Without SQLAlchemy in the process no value can be one of its models.
    if "sqlalchemy" in sys.modules and has_app_context() and _has_database():
        return _reference(value)
    return value


def _refuse_reserved(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() in _RESERVED:
        raise SubmitError(
            f"A dict with the keys {' and '.join(map(repr, value))} cannot be sent: it would be "
            "taken for a reference to a row, a date or the like. Pass the thing itself, or rename "
            "a key."
        )
    return value


def _has_database() -> bool:
    return "sqlalchemy" in current_app.extensions


def _reference(value: Any) -> Any:
    db = current_app.extensions["sqlalchemy"]
    if not isinstance(value, db.Model):
        return value
    from sqlalchemy import inspect  # type: ignore[import-not-found,unused-ignore]

    identity = inspect(value).identity
    model = f"{type(value).__module__}:{type(value).__qualname__}"
    if identity is None:
        raise SubmitError(
            f"A {model} without a primary key cannot be sent: the worker could not find it. "
            "Commit it first, or flush it and send on_commit."
        )
    return {_REFERENCE: model, "key": list(identity)}


def _from_message(value: Any) -> Any:
    if not isinstance(value, Mapping) or set(value) != {_REFERENCE, "key"}:
        return value
    db = current_app.extensions["sqlalchemy"]
    for mapper in db.Model.registry.mappers:
        if f"{mapper.class_.__module__}:{mapper.class_.__qualname__}" == value[_REFERENCE]:
            row = db.session.get(mapper.class_, tuple(value["key"]))
            if row is None:
                raise LookupError(f"No {value[_REFERENCE]} has the primary key {value['key']}.")
            return row
    raise LookupError(f"The application has no model {value[_REFERENCE]!r}.")
