"""The description of the API says what there is."""

import re

from flask import Flask
from flask.testing import FlaskClient


def test_the_description_has_each_route_and_no_other(app: Flask, client: FlaskClient) -> None:
    description = client.get("/api/v1/openapi.json").get_json()
    described = {
        (path, method.upper())
        for path, operations in description["paths"].items()
        for method in operations
        if method != "parameters"
    }
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") and not rule.rule.endswith("openapi.json")
    }

    assert described == routes, "api/openapi.json describes each route below /api/: add yours."
