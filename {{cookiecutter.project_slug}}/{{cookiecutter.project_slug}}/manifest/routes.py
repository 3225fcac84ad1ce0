"""Routes of the watcher: the manifest, an update on demand, and a sample to watch."""

{% if cookiecutter.database == "none" %}
from datetime import datetime
{% else %}
from datetime import UTC, datetime
{% endif %}
from pathlib import Path
from typing import Any

{% if cookiecutter.database == "none" %}
from flask import Blueprint, Response, current_app, jsonify, send_file
from flask.typing import ResponseReturnValue
{% else %}
from flask import Blueprint, Response, current_app, jsonify, render_template, send_file
from flask.typing import ResponseReturnValue
from sqlalchemy import select
{% endif %}
from werkzeug.exceptions import Conflict, NotFound

from ..api.routes import accepted
{% if cookiecutter.database == "none" %}
from ..web.operators import require_token
{% else %}
from ..extensions import db
from ..models import Version
from ..web.operators import require_numbers, require_token
{% endif %}
from . import store
from .tasks import check_manifest

bp = Blueprint("manifest", __name__)
bp.add_app_template_filter(datetime.fromisoformat, "moment")

#: Edit this file while the application runs, and the watcher notices.
SAMPLE = Path(__file__).with_name("sample-manifest.json")


@bp.app_template_global()
def manifest_view() -> dict[str, Any]:
    """Read what the page shows of the manifest. Raises ``RedisError``."""
    stored, check = store.load()
    return {"stored": stored, "check": check, "history": store.history()}


@bp.get("/api/v1/manifest")
def show_manifest() -> Response:
    """Answer the stored manifest, and when it was fetched and last checked."""
    stored, check = store.load()
    if stored is None:
        raise NotFound("No manifest has been fetched yet.")
    return jsonify(
        version=stored.version,
        manifest=stored.manifest,
        fetched_at=stored.fetched_at,
        checked_at=check.checked_at and check.checked_at.isoformat(),
        etag=stored.etag,
    )


@bp.post("/api/v1/update-manifest")
@require_token
def update_manifest() -> ResponseReturnValue:
    """Have the manifest checked now, in the background. Needs the API token."""
    if not current_app.config["MANIFEST_URL"]:
        raise Conflict("MANIFEST_URL is not set, so there is no manifest to fetch.")
    {% if cookiecutter.database == "none" %}
    return accepted(check_manifest.delay().id)
    {% else %}
    return accepted(check_manifest.delay("an operator").id)


@bp.get("/versions")
@require_numbers
def versions() -> str:
    """List the latest versions of the manifest, who found them, and when."""
    latest = db.session.scalars(select(Version).order_by(Version.id.desc()).limit(50))
    # All times are in UTC; SQLite does not say so.
    rows = [(version, version.found_at.replace(tzinfo=UTC)) for version in latest]
    return render_template("manifest/versions.html", versions=rows, words=True)
    {% endif %}


@bp.get("/sample-manifest.json")
def sample_manifest() -> Response:
    """Serve the sample that is watched in development. It has an ETag, so 304 can be seen too."""
    return send_file(SAMPLE, mimetype="application/json", conditional=True, max_age=0)
