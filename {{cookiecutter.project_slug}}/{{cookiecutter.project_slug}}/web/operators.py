"""Operators: whoever knows the API token, and may do more than look.

People sign in with it (see ``sign_in.py``); programs send it as ``Authorization: Bearer``.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from functools import wraps

from flask import current_app, request, session
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized


def is_token(sent: str) -> bool:
    """Tell whether a text is the API token, in a time that does not tell how much was right."""
    return hmac.compare_digest(
        sent.encode(errors="replace"), current_app.config["API_TOKEN"].encode()
    )


def proof_of_token() -> str:
    """Return what the session of an operator holds: a keyed hash, which does not tell the token.

    Another token or ``SECRET_KEY`` makes another hash, which ends all sessions.
    """
    key, token = current_app.config["SECRET_KEY"], current_app.config["API_TOKEN"]
    return hmac.new(key.encode(), b"operator:" + token.encode(), hashlib.sha256).hexdigest()


def is_operator() -> bool:
    """Tell whether the request carries the API token, or comes from a browser that signed in."""
    sent = request.authorization
    if sent and sent.type == "bearer" and sent.token and is_token(sent.token):
        return True
    return hmac.compare_digest(str(session.get("operator", "")), proof_of_token())


def may_see_numbers() -> bool:
    """Tell whether the request may see the page's numbers: what runs, waits and failed."""
    return bool(current_app.config["PUBLIC_DASHBOARD"]) or is_operator()


def may_see_details() -> bool:
    """Tell whether it may see ids and errors of all tasks too, with which they can be cancelled."""
    return current_app.config["CONFIG_NAME"] != "production" or is_operator()


def csrf_token() -> str:
    """Return the token that a form must send back; it is the session's own.

    https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
    """
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def refuse_forged_form() -> None:
    """Raise ``Forbidden`` unless the form carries the token of the session.

    It comes on top of ``security.refuse_cross_site``, which looks at where a request is from.
    """
    expected = str(session.get("csrf", "")).encode()
    sent = request.form.get("csrf_token", "").encode(errors="replace")
    if not expected or not hmac.compare_digest(sent, expected):
        raise Forbidden("This form is too old. Load the page again, then send it once more.")


def refuse_strangers() -> None:
    """Raise ``Unauthorized`` (401) unless the request is an operator's."""
    if not is_operator():
        raise Unauthorized(
            "Sign in, or send the header Authorization: Bearer with the API token.",
            www_authenticate=WWWAuthenticate("bearer", {"realm": current_app.name}),
        )


def require_token[**P, R](view: Callable[P, R]) -> Callable[P, R]:
    """Decorate a view of the API: 401 for those who are no operators."""
    return _after(refuse_strangers, view)


def require_operator[**P, R](view: Callable[P, R]) -> Callable[P, R]:
    """Decorate the view of an operator's form: 403 for others, and for a forged form."""

    def refuse() -> None:
        if not is_operator():
            raise Forbidden("Only somebody who is signed in may do this.")
        refuse_forged_form()

    return _after(refuse, view)


def require_numbers[**P, R](view: Callable[P, R]) -> Callable[P, R]:
    """Decorate a view that shows numbers: 403 for those who may not see them."""

    def refuse() -> None:
        if not may_see_numbers():
            raise Forbidden("Only operators may see this: sign in, or send the API token.")

    return _after(refuse, view)


def _after[**P, R](check: Callable[[], None], view: Callable[P, R]) -> Callable[P, R]:
    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        check()
        return view(*args, **kwargs)

    return guarded
