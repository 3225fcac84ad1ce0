"""The watcher of the manifest."""

from __future__ import annotations

import pytest

from . import tasks
from .client import Client

pytestmark = [pytest.mark.log("worker"), pytest.mark.usefixtures("manifest")]

UPDATE = "/api/v1/update-manifest"


@pytest.mark.parametrize("token", ["", "wrong", "ä" * 40])
def test_an_update_needs_the_token(client: Client, token: str) -> None:
    """Nobody can have the manifest updated without the API token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = client.post(UPDATE, headers=headers)
    answer.expect_problem(401)
    assert "bearer" in answer.headers.get("WWW-Authenticate", "").lower(), (
        f"{answer} does not say in WWW-Authenticate what is needed."
    )


def test_the_manifest_is_updated_on_demand(client: Client, token: str) -> None:
    """With the token, the manifest is fetched, and is there afterwards."""
    answer = client.post(UPDATE, token=token)
    assert answer.status != 401, (
        "The API token was refused. Give the one of this deployment with --api-token."
    )
    if answer.status == 409:
        pytest.skip("the deployment has no MANIFEST_URL, so nothing is watched")
    ended, _ = tasks.wait_for_state(client, tasks.accepted(answer), "SUCCESS")
    manifest = client.get("/api/v1/manifest").expect(200).json()
    assert manifest["version"] == ended["result"]["version"], f"Not the one fetched: {manifest}"
    assert isinstance(manifest["manifest"], dict), f"There is no manifest: {manifest}"
    assert manifest["checked_at"] >= manifest["fetched_at"], f"The times are odd: {manifest}"


def test_the_watcher_is_scheduled_and_checks(client: Client) -> None:
    """The manifest is checked by the clock too."""
    names = [entry["name"] for entry in client.numbers("/api/v1/schedule").json()]
    if "manifest-watch" not in names:
        pytest.skip("the deployment has no MANIFEST_URL, so nothing is watched")

    def checked() -> str | None:
        answer = client.get("/api/v1/manifest")
        return answer.json()["checked_at"] if answer.status == 200 else None

    client.wait_for("The first check of the manifest", checked)
