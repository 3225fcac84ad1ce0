"""``/api/v1/openapi.json``: the API's description, for clients, documentation and fuzzers.

Written by hand, because it is short; tests/test_openapi.py compares it with the routes.
https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, jsonify

from .routes import bp


def _schema(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_AWAY = {"503": _problem("Redis is ill; Retry-After says when to try again.")}
{% if cookiecutter.include_examples == "yes" %}
_STARTS = {
    "202": _json(
        "The task waits; Location is the address of its state.",
        _schema({"task_id": _TEXT, "status": {"const": "PENDING"}}),
    ),
    "413": _problem("The body is too large."),
    "429": _problem("Too many tasks; Retry-After says when to try again."),
    **_AWAY,
}
{% endif %}
_PARAMETERS = [{"name": "task_id", "in": "path", "required": True, "schema": _TEXT}]
_UNKNOWN = {"404": _problem("No such task, or its result has expired.")}

_PATHS: dict[str, Any] = {
    "/api/v1/task-status/{task_id}": {
        "parameters": _PARAMETERS,
        "get": {
            "operationId": "getTask",
            "summary": "How a task is doing; a failed one is an answer like any other.",
            "responses": {
                "200": _json("The task.", {"$ref": "#/components/schemas/Task"}),
                **_UNKNOWN,
                **_AWAY,
            },
        },
        "delete": {
            "operationId": "cancelTask",
            "summary": "Cancel a task: one that waits never runs, one that runs is stopped.",
            "responses": {
                "202": _json(
                    "Cancelled.", _schema({"task_id": _TEXT, "status": {"const": "REVOKED"}})
                ),
                **_UNKNOWN,
                "409": _problem("It had ended."),
                **_AWAY,
            },
        },
    },
    "/api/v1/schedule": {
        "get": {
            "operationId": "getSchedule",
            "summary": "What runs by the clock.",
            "responses": {
                "200": _json(
                    "The schedule.",
                    {
                        "type": "array",
                        "items": _schema(
                            {
                                "name": _TEXT,
                                "task": _TEXT,
                                "schedule": _TEXT,
                                "last_run_at": _TEXT_OR_NULL,
                                "next_run_at": _TEXT_OR_NULL,
                                "total_run_count": _COUNT,
                            }
                        ),
                    },
                ),
                **_AWAY,
            },
        },
    },
    "/api/v1/queues": {
        "get": {
            "operationId": "getQueues",
            "summary": "How many tasks wait in each queue.",
            "responses": {
                "200": _json("By queue.", {"type": "object", "additionalProperties": _COUNT}),
                **_AWAY,
            },
        },
    },
    "/api/v1/workers": {
        "get": {
            "operationId": "getWorkers",
            "summary": "The workers, and the seconds since each one's last sign of life.",
            "responses": {
                "200": _json(
                    "The workers.",
                    {
                        "type": "array",
                        "items": _schema(
                            {
                                "name": _TEXT,
                                "queues": {"type": "array", "items": _TEXT},
                                "heartbeat_age": {"type": "number"},
                                "active": _COUNT,
                                "processed": _COUNT,
                            }
                        ),
                    },
                ),
                **_AWAY,
            },
        },
    },
    {% if cookiecutter.include_examples == "yes" %}
    "/api/v1/start-task": {
        "post": {
            "operationId": "startTask",
            "summary": "Start the example task, which takes some seconds.",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            **_schema(
                                {
                                    "duration": {"type": "number", "minimum": 0, "maximum": 3600},
                                    "fail": {"type": "boolean", "default": False},
                                },
                                optional=("fail",),
                            ),
                            "additionalProperties": False,
                        }
                    }
                },
            },
            "responses": {
                **_STARTS,
                "400": _problem("The body is not as described."),
                "415": _problem("The body is not declared as JSON."),
            },
        },
    },
    "/api/v1/manifest": {
        "get": {
            "operationId": "getManifest",
            "summary": "The manifest that is watched.",
            "responses": {
                "200": _json(
                    "The manifest.",
                    _schema(
                        {
                            "version": {},
                            "manifest": {},
                            "fetched_at": _TEXT_OR_NULL,
                            "checked_at": _TEXT_OR_NULL,
                            "etag": _TEXT_OR_NULL,
                        }
                    ),
                ),
                "404": _problem("None has been fetched yet."),
                **_AWAY,
            },
        },
    },
    "/api/v1/update-manifest": {
        "post": {
            "operationId": "updateManifest",
            "summary": "Check the manifest now, in the background.",
            "security": [{"token": []}],
            "responses": {
                **_STARTS,
                "400": _problem("The body is broken."),
                "401": _problem("The API token is missing or wrong."),
                "409": _problem("MANIFEST_URL is not set."),
            },
        },
    },
    {% endif %}
}

_COMPONENTS: dict[str, Any] = {
    "schemas": {
        "Problem": _schema(
            {
                "type": _TEXT,
                "title": _TEXT,
                "status": {"type": "integer"},
                "detail": _TEXT,
                "instance": _TEXT,
                "request_id": _TEXT_OR_NULL,
            }
        ),
        "Task": _schema(
            {
                "task_id": _TEXT,
                "name": _TEXT_OR_NULL,
                "status": _TEXT,
                "progress": {"type": ["object", "null"]},
                "result": {},
                "error": _TEXT_OR_NULL,
            }
        ),
    },
    "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
}


@bp.get("/openapi.json")
def openapi() -> Response:
    """Answer the description of this API."""
    title = current_app.config["APP_NAME"]
    return jsonify(
        openapi="3.1.0",
        info={"title": title, "version": "1"},
        paths=_PATHS,
        components=_COMPONENTS,
    )
