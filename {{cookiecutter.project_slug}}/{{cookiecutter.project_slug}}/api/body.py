"""Read the JSON body of a request. Whatever a client sends ends in a value or in a clear 4xx."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType


def json_object(*allowed: str) -> dict[str, Any]:
    """Return the request's JSON object; ``allowed`` are the names that it may hold.

    Raises ``UnsupportedMediaType`` (415) for a body that is not declared as JSON, ``BadRequest``
    (400) for all else that is wrong with it.
    """
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")
    try:
        body = json.loads(request.get_data(), parse_constant=refuse_constant)
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object, such as {}.")
    if unknown := sorted(body.keys() - set(allowed)):
        known = ", ".join(allowed)
        raise BadRequest(f"The body has the unknown field {unknown[0][:50]!r}. Known are: {known}.")
    return body


def number(body: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return the number ``body[name]``, between ``low`` and ``high``. Raises ``BadRequest``."""
    value = body.get(name)
    # bool is a kind of int in Python, but not a number to the person who sent it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequest(f"The field {name!r} must be a number from {low:g} to {high:g}.")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return the boolean ``body[name]``, False if it is missing. Raises ``BadRequest``."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"The field {name!r} must be true or false.")
    return value


def refuse_constant(text: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's ``json`` would take."""
    raise ValueError(f"{text} is not part of JSON")
