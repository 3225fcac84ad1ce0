"""Whoever can write to Redis can put anything into a queue. None of it may run, or stop a worker.

The messages are written straight into Redis, past all checks of the sending side.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sample_app
from engine_support import Running, wait_until
from flask_background import ConfigurationError, FlaskCelery, Future
from flask_background.sending.functions import resolve
from sample_app import celery, create_app


def message(
    body: str | bytes,
    *,
    task: Any = "background.call",
    content_type: str = "application/json",
    **changes: Any,
) -> dict[str, Any]:
    """Make a message the way Celery does."""
    task_id = str(uuid.uuid4())
    body = body.encode() if isinstance(body, str) else body
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_tag": task_id,
            "delivery_info": {"exchange": "", "routing_key": "default"},
            "priority": 0,
            "body_encoding": "base64",
        },
        **changes,
    }


def call(path: Any, *args: Any) -> dict[str, Any]:
    """Make a message that names a function, as `submit` would."""
    return message(json.dumps([[path, args, {}], {}, None]))


def send(box: redis.Redis, sent: dict[str, Any]) -> str:
    """Put a message into the queue, signed if it can be: who has the key gets no further either."""
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        assert celery.seal
        celery.seal.sign(sent)
    box.lpush(celery.key("default"), json.dumps(sent))
    return str(sent["properties"]["correlation_id"])


@pytest.fixture(autouse=True)
def worker_lives_on(live: FlaskCelery, workers: Running) -> Iterator[None]:
    """After each of these messages the same worker process takes the next task."""
    before = {beat.name: beat.pid for beat in live.heartbeats()}
    yield
    assert live.submit(sample_app.add, 1, 1).result(timeout=20) == 2
    assert {beat.name: beat.pid for beat in live.heartbeats()} == before
    assert "ended with exit code" not in workers.output


REFUSED = {
    "a system call": ("os:system", "outside of the packages"),
    "a standard module": ("subprocess:check_output", "outside of the packages"),
    "a builtin": ("builtins:eval", "outside of the packages"),
    "a private function": ("sample_app:_private", "private"),
    "a dunder": ("sample_app:__import__", "private"),
    "a class": ("sample_app:Holder", "not a function defined in that module"),
    "a method": ("sample_app:Holder.method", "private or no name"),
    "an imported function": ("sample_app:connect_redis", "not a function defined in that module"),
    "an imported module": ("sample_app:os.system", "private or no name"),
    "a task": ("sample_app:double", "not a function defined in that module"),
    "a borrowed method": ("sample_app:borrowed", "not a function defined in that module"),
    "a lambda": ("sample_app:nameless", "not a function defined in that module"),
    "the layer itself": ("flask_background.cluster.cluster:run_celery", "outside of the packages"),
    "no such function": ("sample_app:missing", "not a function defined in that module"),
    "no such module": ("sample_app.missing:add", "cannot be imported"),
    "no path": ("sample_app.add", "is not of the form"),
    "a path that goes up": ("sample_app..os:system", ""),
    "a number": (7, "is not of the form"),
    "a list": (["sample_app:add"], "is not of the form"),
}


def test_a_name_that_may_not_run_is_refused_by_the_worker(
    live: FlaskCelery, box: redis.Redis, workers: Running, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    sent = {case: send(box, call(path, f"touch {proof}")) for case, (path, _) in REFUSED.items()}

    for case, task_id in sent.items():
        info = ended(live, task_id).info
        assert info is not None, case
        assert (info.state, info.error_type) == ("FAILURE", "SubmitError"), case
        assert REFUSED[case][1] in str(info.error), case
        workers.wait_for(task_id)  # it is in the log
    assert not proof.exists()


def ended(live: FlaskCelery, task_id: str) -> Future:
    """Wait for the end of a task that was never announced."""
    future = live.get(task_id)
    wait_until(future.done, "the task to end")
    return future


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "pickle"])
def test_a_pickle_is_not_opened_by_the_worker(
    box: redis.Redis, workers: Running, tmp_path: Path, content_type: str
) -> None:
    proof = tmp_path / "proof"
    body = pickle.dumps(((Exploit(proof),), {}, None))

    task_id = send(box, message(body, content_type=content_type))

    assert "content" in workers.wait_for(task_id)
    assert not proof.exists()


def test_a_pickle_is_not_opened_by_whoever_reads_results(
    live: FlaskCelery, box: redis.Redis, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    future = live.submit(sample_app.nothing, countdown=200)
    box.set(live.backend.get_key_for_task(future.id), pickle.dumps(Exploit(proof)))

    assert future.state == "UNKNOWN"
    assert not proof.exists()


@pytest.mark.parametrize("key", ["CELERY_ACCEPT_CONTENT", "CELERY_RESULT_ACCEPT_CONTENT"])
def test_pickle_cannot_be_turned_on_for_reading(live: FlaskCelery, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}.* JSON only"):
        create_app({key: ["json", "pickle"]})
    live.init_app(live.flask_app)


@pytest.mark.parametrize("key", ["CELERY_TASK_SERIALIZER", "CELERY_RESULT_SERIALIZER"])
def test_pickle_cannot_be_turned_on_for_writing(live: FlaskCelery, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}.* JSON only"):
        create_app({key: "pickle"})
    live.init_app(live.flask_app)


MALFORMED = {
    "no JSON": message("{"),
    "not a list": message('"text"'),
    "too short": message("[]"),
    "no arguments": message("[[], {}, null]"),
    "arguments of other types": message('[7, "x", null]'),
    "embed of another type": message('[["sample_app:add", [], {}], {}, 5]'),
    "an unknown task": message("[[], {}, {}]", task="os.system"),
    "a task that is no text": message("[[], {}, {}]", task=["os.system"]),
    "no headers": message("[[], {}, {}]", headers={}),
    "headers of another type": message("[[], {}, {}]", headers=7),
    "an unknown type": message("hello", content_type="text/unknown"),
    "no base64": message("[[], {}, {}]") | {"body": "%%%"},
    "a foreign time": message(
        "[[], {}, {}]", headers={"task": "background.call", "id": "t", "eta": "never"}
    ),
}


def test_a_malformed_message_does_not_stop_the_worker(box: redis.Redis) -> None:
    for sent in MALFORMED.values():
        send(box, sent)


def test_what_is_no_message_at_all_does_not_stop_the_worker(box: redis.Redis) -> None:
    box.lpush(celery.key("default"), "", "not json", "[]", "{}", '{"body": 1}')


@pytest.mark.parametrize(
    "path",
    [
        "flask_background.cluster.guard:main",
        "flask_background.cluster.guard:start",
        "flask_background.cluster.child:Child",
        "devtools.dev.processes:ProcessManager",
        "devtools.smoke:smoke",
    ],
)
def test_engine_and_tools_are_out_of_reach(path: str) -> None:
    """They run any command that they are given."""
    module, _, name = path.partition(":")

    with pytest.raises(ValueError, match=name):
        resolve(path, (module.partition(".")[0],))
