"""What browsers may do with our answers, and which requests are refused before any view."""

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import Forbidden
from werkzeug.middleware.proxy_fix import ProxyFix

_HEADERS = {
    "Cache-Control": "no-cache",
    # No inline script or style, nothing from other hosts.
    # https://developer.mozilla.org/docs/Web/HTTP/Guides/CSP
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
        "style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PrintableResponse(Response):
    """Writes "?" for half a letter: JSON can bring one ("\\ud800"), and UTF-8 cannot write it."""

    def set_data(self, value: bytes | str) -> None:
        super().set_data(value.encode(errors="replace") if isinstance(value, str) else value)


def init_app(app: Flask) -> None:
    """Believe as many proxies as the config says, guard forms, set headers on every answer."""
    app.response_class = PrintableResponse
    if proxies := app.config["TRUSTED_PROXIES"]:
        # https://flask.palletsprojects.com/en/stable/deploying/proxy_fix/
        # The name of the host comes in Host itself; not every proxy replaces X-Forwarded-Host.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=0
        )
    app.before_request(refuse_cross_site)
    app.after_request(set_headers)


def set_headers(response: Response) -> Response:
    """Set the headers that restrict what a browser does with ``response``."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure and current_app.config["CONFIG_NAME"] == "production":
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


def refuse_cross_site() -> None:
    """Refuse a request by which another site's page would change something here (CSRF).

    Browsers say where a request comes from, in ``Sec-Fetch-Site`` or, older ones, in ``Origin``.
    Clients that are no browsers send neither, and carry no cookies that could be misused.
    https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site in ("same-origin", "none"):
        return
    origin = request.headers.get("Origin")
    if site is None and (origin is None or origin.partition("://")[2] == request.host):
        return
    raise Forbidden("The request came from another site.")
