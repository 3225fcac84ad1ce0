"""What can never be done ends in the dead letters: poison, hostile messages, unknown tasks."""

from __future__ import annotations

import base64
import itertools
import json
import random
from typing import Any

import pytest
import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, run, wait_until
from flask_background import FlaskCelery, GivenUp
from flask_background.state import failed
from flask_background.worker.giving_up import bury
from kombu.utils.json import dumps

NUMBERS = itertools.count(1)
FEW = {"CELERY_MAX_DELIVERIES": 2, "CELERY_WORKERS": 1}


def message(**changes: Any) -> dict[str, Any]:
    """Make a message as Celery sends it, with some of its headers changed."""
    body = base64.b64encode(dumps([[1], {}, {}]).encode()).decode()
    task_id = f"made-up-{next(NUMBERS)}"
    headers = {"lang": "py", "task": "sample_app.double", "id": task_id, "retries": 0}
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers | changes,
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "default"},
            "delivery_tag": "of-the-sender",
            "body_encoding": "base64",
        },
    }


def test_a_task_that_ends_its_worker_each_time_is_given_up(
    start: StartCluster, client: FlaskCelery, own_redis: EmbeddedRedis
) -> None:
    start(FEW, "cluster", workers=1)
    future = client.submit(sample_app.die)

    with pytest.raises(GivenUp, match="begun 2 times"):
        future.result(timeout=30)
    (letter,) = client.dead_letters()
    assert (letter.id, letter.list) == (future.id, client.key("default"))
    assert letter.name == "sample_app.die"
    assert client.submit(sample_app.add, 1, 2).result(timeout=20) == 3

    settings = {"REDIS_URL": own_redis.url}
    assert future.id in run(settings, "dead", "list").stdout
    assert json.loads(run(settings, "dead", "show", future.id).stdout)["name"] == "sample_app.die"
    assert "sent again" in run(settings, "dead", "requeue", future.id).stdout
    wait_until(client.dead_letters, "it to be given up again")
    assert "dropped" in run(settings, "dead", "drop", "--all").stdout
    assert client.dead_letters() == []


def test_a_letter_that_nobody_has_is_an_error(own_redis: EmbeddedRedis) -> None:
    done = run({"REDIS_URL": own_redis.url}, "dead", "show", "nothing")

    assert done.returncode == 1
    assert "No dead letter has the id 'nothing'" in done.stderr


def test_an_unknown_task_is_given_up_when_no_worker_knows_it(
    start: StartCluster, client: FlaskCelery
) -> None:
    start(FEW | {"CELERY_MAX_DELIVERIES": 1}, "cluster", workers=1)
    future = client.get(client.send_task("of.another.version").id)

    with pytest.raises(GivenUp, match=r"No worker knows a task named 'of.another.version'"):
        future.result(timeout=20)


HOSTILE = [
    "",
    "no JSON",
    "\ufffd\x00",
    "[]",
    "null",
    "{}",
    "[" * 5000,
    dumps(message() | {"headers": []}),
    dumps(message() | {"properties": {}}),
    dumps(message() | {"properties": {"delivery_info": 1, "delivery_tag": []}}),
    dumps(message() | {"body": "%%%"}),
    dumps(message() | {"body": 7}),
    dumps(message() | {"body": base64.b64encode(b"\xff{").decode()}),
    dumps(message() | {"body": base64.b64encode(b'{"a": 1}').decode()}),
    dumps(message() | {"body": base64.b64encode(b"[1, 2, 3]").decode()}),
    dumps(message() | {"content-type": "application/x-python-serialize"}),
    dumps(message() | {"content-type": "made/up"}),
    dumps(message() | {"content-encoding": "made-up"}),
    dumps(message() | {"headers": {}}),
    dumps(message(id=None)),
    dumps(message(id=[])),
    dumps(message(task={})),
    dumps(message(task="no.such.task")),
    dumps(message(eta="tomorrow")),
    dumps(message(expires={"never": 1})),
    dumps(message(eta="9999-12-31T23:59:59.999999+00:00", id="far")),
    dumps(message(timelimit="x")),
    dumps(message(timelimit=[1])),
    dumps(message(compression="gzip")),
    dumps(message(retries="many")),
    dumps(message(stamped_headers=7)),
]


def test_no_message_ends_the_worker(
    start: StartCluster, client: FlaskCelery, store: redis.Redis
) -> None:
    # Unsigned ones are let in, so that nothing but the reading itself keeps them out.
    start({**FEW, "CELERY_MAX_DELIVERIES": 1, "CELERY_ACCEPT_UNSIGNED": True}, "worker", workers=1)
    dice = random.Random(7)  # noqa: S311  (the same in each run)
    whole = dumps(message())
    cut = [whole[: dice.randrange(len(whole))] for _ in range(60)]
    changed = []
    for _ in range(120):
        place = dice.randrange(len(whole))
        changed.append(whole[:place] + chr(dice.randrange(32, 300)) + whole[place + 1 :])
    store.lpush(client.key("default"), *HOSTILE, *cut, *changed)

    # One worker without a cluster: had it ended, nobody would have started it again.
    assert client.submit(sample_app.add, 1, 2).result(timeout=60) == 3
    reasons = {letter.reason for letter in client.dead_letters()}
    assert len(client.dead_letters()) >= len(cut)
    assert any("no message" in reason for reason in reasons)
    assert any("ContentDisallowed" in reason for reason in reasons)
    assert any("no.such.task" in reason for reason in reasons)


def test_only_the_latest_are_kept(client: FlaskCelery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(failed.KEPT, failed.GIVEN_UP, (2, None))
    for number in range(4):
        text = dumps(message(id=f"id-{number}"))
        bury(client, "", client.key("default"), text, "no reason", task_id=f"id-{number}")

    assert [letter.id for letter in client.dead_letters()] == ["id-3", "id-2"]
