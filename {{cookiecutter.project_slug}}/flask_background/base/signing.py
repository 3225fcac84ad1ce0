"""Messages are signed: a worker runs only what somebody who knows ``SECRET_KEY`` sent.

Whoever can write to Redis could otherwise start any task of the application, with arguments of his
choice. The signature covers the body and all headers but the mark of a repeated delivery; that is
the task, its id, arguments, times, limits, callbacks and stamps. It does not keep a message from
being deleted, delayed, or sent once more. Keys are rotated with Flask's ``SECRET_KEY_FALLBACKS``.
"""

import base64
import hashlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from itsdangerous import BadSignature, Signer
from kombu.utils.json import dumps, loads

from .errors import ConfigurationError

#: The property of a message that holds its signature.
_PROPERTY = "signature"
#: Seconds for which a command to the workers may travel; the clocks of machines differ a little.
_COMMAND_LIFE = 60.0


class Seal:
    """Signs messages with the newest key, and knows those that were signed with any of the keys."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take the keys of a Flask config. Raises ``ConfigurationError`` if it has none."""
        key = config.get("SECRET_KEY")
        if not key:
            raise ConfigurationError(
                "SECRET_KEY is not set. Tasks are signed with it, so that workers run nothing else."
            )
        keys = [*(config.get("SECRET_KEY_FALLBACKS") or ()), key]  # the newest one is the last
        self._task = _signer(keys, "flask_background.task")
        self._command = _signer(keys, "flask_background.command")
        self._record = _signer(keys, "flask_background.record")
        self.begin()

    def begin(self) -> None:
        """Note that this process begins: commands from before are not for it."""
        self._seen: deque[tuple[float, str]] = deque()
        self._since = time.time()

    def sign(self, message: dict[str, Any]) -> None:
        """Sign a task's message."""
        message["properties"][_PROPERTY] = self._task.get_signature(_content(message)).decode()

    def is_signed(self, message: Mapping[str, Any]) -> bool:
        """Tell whether a task's message carries a good signature."""
        signature = str(message["properties"].get(_PROPERTY, ""))
        return self._task.verify_signature(_content(message), signature.encode())

    def sign_command(self, message: dict[str, Any]) -> None:
        """Sign a command to the workers, which holds for a minute."""
        stamped = f"{time.time():.6f} {_content(message).decode()}"
        signature = self._command.get_signature(stamped).decode()
        message["properties"][_PROPERTY] = f"{stamped.partition(' ')[0]} {signature}"

    def is_fresh_command(self, message: Mapping[str, Any]) -> bool:
        """Tell whether a command is signed, of the last minute, and was not seen here before.

        One that was sent before this process began was for the one before it, which has seen it:
        ``shutdown``, repeated for a minute, would end each that is started again.
        """
        at, _, signature = str(message["properties"].get(_PROPERTY, "")).partition(" ")
        content = f"{at} {_content(message).decode()}"
        if not self._command.verify_signature(content, signature.encode()):
            return False
        now = time.time()
        while self._seen and self._seen[0][0] < now - 2 * _COMMAND_LIFE:
            self._seen.popleft()
        fresh = max(now - _COMMAND_LIFE, self._since) <= float(at) <= now + _COMMAND_LIFE
        if not fresh or any(one == signature for _, one in self._seen):
            return False
        self._seen.append((now, signature))
        return True

    def seal(self, text: str) -> str:
        """Sign a text that is kept in Redis, to be run later."""
        return self._record.sign(text).decode()

    def open(self, text: str) -> str | None:
        """Return the text that was sealed, or None if it was not."""
        try:
            return self._record.unsign(text).decode()
        except BadSignature:
            return None


def _signer(keys: list[str], salt: str) -> Signer:
    """Make a signer that derives its keys once, and not for each message."""
    options: Any = {"salt": salt, "digest_method": hashlib.sha256}
    derive = Signer(keys, key_derivation="hmac", **options).derive_key
    return Signer([derive(key) for key in keys], key_derivation="none", **options)


def _content(message: Mapping[str, Any]) -> bytes:
    headers = {name: value for name, value in message["headers"].items() if name != "redelivered"}
    kinds = [message.get("content-type"), message.get("content-encoding")]
    encoding = message["properties"].get("body_encoding")
    return str(dumps([headers, message["body"], *kinds, encoding])).encode()


def without_callbacks(message: Mapping[str, Any]) -> bool:
    """Tell whether a message starts no other task when it ends. Raises for an unreadable body."""
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    _, _, embedded = loads(body)
    return not any(embedded.values()) and not message["headers"].get("stamps")
