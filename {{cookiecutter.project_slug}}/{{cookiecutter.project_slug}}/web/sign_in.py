"""Signing in with the API token, and out.

The session is Flask's signed cookie. It ends after ``PERMANENT_SESSION_LIFETIME``, and for all at
once when ``API_TOKEN`` or ``SECRET_KEY`` changes.
"""

from flask import Blueprint, current_app, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden

from ..extensions import limiter
from . import operators

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

bp = Blueprint("operators", __name__)
for name in ("csrf_token", "is_operator", "may_see_details", "may_see_numbers"):
    bp.add_app_template_global(getattr(operators, name))


@bp.get("/sign-in")
def sign_in_form() -> ResponseReturnValue:
    """Show the form, or the first page to somebody who is signed in."""
    _refuse_plain_http()
    if operators.is_operator():
        return redirect(url_for("main.index"))
    return render_template("operators/sign-in.html")


def _sends_the_token() -> bool:
    return operators.is_token(request.form.get("token", "").strip())


@bp.post("/sign-in")
@limiter.limit(lambda: str(current_app.config["RATELIMIT_SIGN_IN"]), exempt_when=_sends_the_token)
def sign_in() -> ResponseReturnValue:
    """Take the API token and begin a session.

    Wrong tokens are limited, the right one is not: who guesses does not lock others out.
    """
    _refuse_plain_http()
    operators.refuse_forged_form()
    if not _sends_the_token():
        current_app.logger.warning("Somebody tried to sign in with a wrong token.")
        return render_template("operators/sign-in.html", wrong=True), 401
    session.clear()
    session.permanent = True
    session["operator"] = operators.proof_of_token()
    return redirect(url_for("main.index"), 303)


@bp.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End the session."""
    operators.refuse_forged_form()
    session.clear()
    return redirect(url_for("main.index"), 303)


def _refuse_plain_http() -> None:
    """In production, take no token that others on the way could have read."""
    at_home = request.host.rpartition(":")[0] in _THIS_MACHINE or request.host in _THIS_MACHINE
    if current_app.config["CONFIG_NAME"] == "production" and not (request.is_secure or at_home):
        raise Forbidden("Sign in over https://, or others can read the token on its way.")
