"""Errors as answers: problem+json for clients, a page for people.

The JSON form is RFC 9457, https://www.rfc-editor.org/rfc/rfc9457
"""

from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, current_app, g, jsonify, render_template, request
from flask.globals import request_ctx
from flask.typing import ResponseReturnValue
from flask_background import BrokerUnavailable, reason_of
from flask_limiter import RateLimitExceeded
from redis.exceptions import RedisError
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from ..extensions import limiter

#: Seconds after which a client may try again when Redis is away.
RETRY_AFTER = 5

#: What is said of an error when the view has said nothing of its own.
_DETAILS = {
    404: "There is nothing at this address.",
    405: "{method} is not possible here. See the Allow header.",
    413: "The request is larger than {limit} bytes, which is the limit.",
    500: "The application failed. The request id leads to the reason in its log.",
}


def init_app(app: Flask) -> None:
    """Answer every error of ``app`` in the form that the client can read."""
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(RateLimitExceeded, _too_many)
    app.register_error_handler(BrokerUnavailable, _redis_away)
    app.register_error_handler(RedisError, _redis_away)
    app.before_request(_refuse_bad_body)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Make an error's answer; ``detail`` is one sentence that says what was wrong."""
    title = HTTPStatus(status).phrase
    if wants_json():
        said = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        response = jsonify(**said, instance=request.path, request_id=g.get("request_id"))
        response.content_type = "application/problem+json"
    else:
        page = render_template("problem.html", status=status, title=title, detail=detail)
        response = current_app.make_response(page)
    response.status_code = status
    response.headers.extend(dict(headers or {}))
    return response


def wants_json() -> bool:
    """Tell whether the client is a program: by the path, or because it prefers JSON.

    Whoever asks for a host that is not ours gets no page, for its links would lead nowhere.
    """
    paths = ("/api/", "/healthz", "/readyz", "/metrics")
    if request.path.startswith(paths) or request_ctx.url_adapter is None:
        return True
    accepted = request.accept_mimetypes
    as_json = max(accepted["application/json"], accepted["application/problem+json"])
    return bool(as_json > accepted["text/html"])


def _http_error(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None or error.code is None or error.code < 400:
        return error
    kept = ("allow", "retry-after", "www-authenticate", "content-range")
    headers = {name: value for name, value in error.get_headers() if name.lower() in kept}
    detail = error.description or HTTPStatus(error.code).description
    if error.code in _DETAILS and error.description == type(error).description:
        limit = current_app.config["MAX_CONTENT_LENGTH"]
        detail = _DETAILS[error.code].format(method=request.method, limit=limit)
    return problem(error.code, detail, headers)


def _too_many(error: RateLimitExceeded) -> Response:
    seconds = limiter.seconds_to_wait()
    detail = f"The limit is {error.limit.limit}. Try again in {seconds} s."
    return problem(429, detail, {"Retry-After": str(seconds)})


def _redis_away(error: Exception) -> Response:
    """Say what is wrong with Redis. The log has the error itself, which may name hosts."""
    current_app.logger.warning("Redis did not serve this request: %s", error)
    detail = f"{reason_of(error)} Nothing was started; try again soon."
    return problem(503, detail, {"Retry-After": str(RETRY_AFTER)})


def _refuse_bad_body() -> None:
    """Refuse a body that is too large or broken, even where the view would not read it."""
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    if (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    if request.content_length is None and "Transfer-Encoding" in request.headers:
        # Its size is known only at its end, so it is read here; views get what was read.
        try:
            size = len(request.get_data())
        except HTTPException:
            raise
        except Exception as error:
            # Each server has errors of its own for a broken chunk.
            raise BadRequest("The body could not be read.") from error
        if size >= limit:
            raise RequestEntityTooLarge
