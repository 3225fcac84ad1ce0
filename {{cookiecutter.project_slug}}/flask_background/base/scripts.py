"""The way into ``redis.lua``, whose head says what each key in Redis holds."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

TEXT = (Path(__file__).parents[1] / "redis.lua").read_text(encoding="utf-8")
#: What Redis calls the script once it has it; https://redis.io/docs/latest/commands/evalsha/
SHA = hashlib.sha1(TEXT.encode(), usedforsecurity=False).hexdigest()


def evalsha(command: str, keys: Iterable[str], values: Iterable[Any]) -> list[Any]:
    """Spell the call of a command of the script, for a Redis that has the script."""
    names = list(keys)
    return ["EVALSHA", SHA, len(names), *names, command, *values]


def call(client: Redis, command: str, keys: Iterable[str], *values: Any) -> Any:
    """Run a command of the script. Raises ``redis.exceptions.RedisError``."""
    any_client: Any = client
    return known(any_client.execute_command, evalsha(command, keys, values))


def known(execute: Callable[..., Any], words: list[Any]) -> Any:
    """Execute what ``evalsha`` has spelled; to a Redis that lacks the script, bring it along."""
    try:
        return execute(*words)
    except NoScriptError:
        return execute("EVAL", TEXT, *words[2:])
