"""Keep the manifest in Redis. Each write is one step, so no reader ever sees half of one.

Every function here raises ``RedisError`` when Redis does not answer.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..extensions import celery
from .fetch import Fetched

#: How many past versions are remembered, without their content; and how many changes wait for
#: Slack, if it takes none for long. Each names some of its keys, shortened.
HISTORY, KEYS, KEY_LENGTH = 20, 20, 100


@dataclass(frozen=True)
class Stored:
    """The manifest as it is kept. Times are ISO 8601 in UTC."""

    version: str
    manifest: dict[str, Any]
    fetched_at: str
    etag: str | None
    last_modified: str | None
    url: str


@dataclass(frozen=True)
class Change:
    """A new version, the old one (None: it is the first), and some top-level keys that differ."""

    old: str | None
    new: str
    keys: list[str]
    at: str


@dataclass(frozen=True)
class Check:
    """When the manifest was last looked for, and what was wrong, if anything was."""

    checked_at: datetime | None
    error: str | None


def load() -> tuple[Stored | None, Check]:
    """Read the manifest and the last check."""
    with celery.redis.pipeline() as pipeline:
        pipeline.get(celery.key("manifest"))
        pipeline.hgetall(celery.key("manifest:check"))
        text, check = pipeline.execute()
    at = None
    with suppress(ValueError):  # somebody else's
        at = datetime.fromisoformat(check.get("at", ""))
    return _read(Stored, text), Check(at, check.get("error") or None)


def history() -> list[Change]:
    """Read the past changes, newest first."""
    texts = celery.redis.lrange(celery.key("manifest:history"), 0, -1)
    return [change for text in texts if (change := _read(Change, text))]


def save(fetched: Fetched, url: str) -> Change | None:
    """Store what was fetched; return the change if it is another version than before.

    The change is stored in the same step, and waits there until Slack was told of it: a worker
    that dies in between loses neither.
    """
    old, _ = load()
    now = _now()
    stored = Stored(**vars(fetched), fetched_at=now, url=url)
    change = None
    with celery.redis.pipeline(transaction=True) as pipeline:
        pipeline.set(celery.key("manifest"), json.dumps(asdict(stored)))
        if old is None or old.version != fetched.version:
            keys = changed_keys(old.manifest if old else {}, fetched.manifest)
            change = Change(old.version if old else None, fetched.version, keys, now)
            text = json.dumps(asdict(change))
            pipeline.lpush(celery.key("manifest:history"), text)
            pipeline.ltrim(celery.key("manifest:history"), 0, HISTORY - 1)
            pipeline.rpush(celery.key("manifest:untold"), text)
            pipeline.ltrim(celery.key("manifest:untold"), -HISTORY, -1)
        _note_check(pipeline, now, "")
        pipeline.execute()
    return change


def save_check(error: str = "") -> None:
    """Note that the manifest was looked for now, and what was wrong."""
    with celery.redis.pipeline(transaction=True) as pipeline:
        _note_check(pipeline, _now(), error)
        pipeline.execute()


def untold() -> Iterator[Change]:
    """Yield each change that Slack does not know yet, the oldest first; the next one forgets it."""
    key = celery.key("manifest:untold")
    while isinstance(text := celery.redis.lindex(key, 0), str):
        if change := _read(Change, text):
            yield change
        if not celery.redis.lrem(key, 1, text) and celery.redis.lindex(key, 0) == text:
            celery.redis.lpop(key)  # bytes that are no text


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name the top-level keys that were added, removed or changed, but for ``version``.

    There may be one more than ``KEYS``: it tells that there are more.
    """
    keys, missing = sorted((old.keys() | new.keys()) - {"version"}), object()
    changed = [key for key in keys if old.get(key, missing) != new.get(key, missing)]
    return [key[:KEY_LENGTH] for key in changed[: KEYS + 1]]


def _read[T](kind: Callable[..., T], text: str | bytes | None) -> T | None:
    """Make what was stored of its text; None if there is none, or somebody else's."""
    try:
        made = json.loads(text or "null")
        datetime.fromisoformat(made.get("at") or made["fetched_at"])
        return kind(**made)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None


def _note_check(pipeline: Any, at: str, error: str) -> None:
    pipeline.hset(celery.key("manifest:check"), mapping={"at": at, "error": error})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
