"""Signing in with the API token, and out.

The session is Flask's signed cookie. It ends after ``PERMANENT_SESSION_LIFETIME``, and for all at
once when ``API_TOKEN`` or ``SECRET_KEY`` changes.
"""

from collections.abc import Callable

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

from ..extensions import limiter
from . import operators

bp = Blueprint("operators", __name__)
bp.add_app_template_global(operators.csrf_token)


@bp.app_context_processor
def add_operator() -> dict[str, Callable[[], bool]]:
    """Let templates ask who looks at them."""
    return {
        "is_operator": operators.is_operator,
        "may_see_numbers": operators.may_see_numbers,
        "may_see_details": operators.may_see_details,
    }


@bp.get("/sign-in")
def sign_in_form() -> ResponseReturnValue:
    """Show the form, or the first page to somebody who is signed in."""
    if operators.is_operator():
        return redirect(url_for("main.index"))
    return render_template("operators/sign-in.html")


def _was_wrong(response: Response) -> bool:
    return response.status_code == 401


@bp.post("/sign-in")
@limiter.limit(lambda: str(current_app.config["RATELIMIT_SIGN_IN"]), deduct_when=_was_wrong)
def sign_in() -> ResponseReturnValue:
    """Take the API token and begin a session. Wrong tokens are limited, right ones are not."""
    operators.refuse_forged_form()
    if not operators.is_token(request.form.get("token", "").strip()):
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
