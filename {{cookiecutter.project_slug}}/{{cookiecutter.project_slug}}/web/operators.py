"""Operators: people who signed in with the API token, and may do more than look.

The session is Flask's signed cookie; it holds no secret. It ends after
``PERMANENT_SESSION_LIFETIME``, and for all at once when ``API_TOKEN`` or ``SECRET_KEY`` changes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from functools import wraps

from flask import (
    Blueprint,
    Response,
    current_app,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden

from ..extensions import limiter

bp = Blueprint("operators", __name__)


def is_operator() -> bool:
    """Tell whether the request comes from a browser that signed in."""
    return hmac.compare_digest(str(session.get("operator", "")), _proof())


def may_see_numbers() -> bool:
    """Tell whether the request may see the page's numbers: what runs, waits and failed."""
    return bool(current_app.config["PUBLIC_DASHBOARD"]) or is_operator()


def may_see_details() -> bool:
    """Tell whether it may see ids and errors of all tasks too, with which they can be cancelled."""
    return current_app.config["CONFIG_NAME"] != "production" or is_operator()


@bp.app_template_global()
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


def require_operator[**P, R](view: Callable[P, R]) -> Callable[P, R]:
    """Decorate the view of an operator's form: 403 for others, and for a forged form."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if not is_operator():
            raise Forbidden("Only somebody who is signed in may do this.")
        refuse_forged_form()
        return view(*args, **kwargs)

    return guarded


@bp.app_context_processor
def add_operator() -> dict[str, Callable[[], bool]]:
    """Let templates ask who looks at them."""
    return {
        "is_operator": is_operator,
        "may_see_numbers": may_see_numbers,
        "may_see_details": may_see_details,
    }


@bp.get("/sign-in")
def sign_in_form() -> ResponseReturnValue:
    """Show the form, or the first page to somebody who is signed in."""
    if is_operator():
        return redirect(url_for("main.index"))
    return render_template("operators/sign-in.html")


def _was_wrong(response: Response) -> bool:
    return response.status_code == 401


@bp.post("/sign-in")
@limiter.limit(lambda: str(current_app.config["RATELIMIT_SIGN_IN"]), deduct_when=_was_wrong)
def sign_in() -> ResponseReturnValue:
    """Take the API token and begin a session. Wrong tokens are limited, right ones are not."""
    refuse_forged_form()
    sent = request.form.get("token", "").strip().encode(errors="replace")
    if not hmac.compare_digest(sent, current_app.config["API_TOKEN"].encode()):
        current_app.logger.warning("Somebody tried to sign in with a wrong token.")
        return render_template("operators/sign-in.html", wrong=True), 401
    session.clear()
    session.permanent = True
    session["operator"] = _proof()
    return redirect(url_for("main.index"), 303)


@bp.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End the session."""
    refuse_forged_form()
    session.clear()
    return redirect(url_for("main.index"), 303)


def _proof() -> str:
    """What a session holds of the token: enough to know it again, useless without our key."""
    key, token = current_app.config["SECRET_KEY"], current_app.config["API_TOKEN"]
    return hmac.new(key.encode(), b"operator:" + token.encode(), hashlib.sha256).hexdigest()
