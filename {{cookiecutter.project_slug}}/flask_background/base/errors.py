"""What the background layer raises. Each message says what was wrong and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError


class BackgroundError(Exception):
    """Base of the errors that are the caller's to mend."""


class ConfigurationError(BackgroundError):
    """A ``CELERY_*`` value of the application's config cannot work."""


class SubmitError(BackgroundError, ValueError):
    """A function or its arguments cannot be sent to a worker."""


class UnknownQueue(SubmitError):
    """The task was meant for a queue that no configured worker serves."""


class UnknownTask(BackgroundError, LookupError):
    """The id was never issued by this application, or the task's result is not there (any more)."""


class GivenUp(BackgroundError):
    """What a task failed with that no worker survived, or none could read."""


class TaskError(BackgroundError):
    """Stands for a task's exception whose own type is not to be had in this process.

    ``type_name`` (str) is the name of the original type; the message is the original message.
    """

    def __init__(self, type_name: str, message: str = "") -> None:
        super().__init__(type_name, message)
        self.type_name, self.message = type_name, message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class BrokerUnavailable(OperationalError):
    """Redis did not take the message within the time that a request may wait."""


class NotWritable(RedisConnectionError):
    """This server of several takes no writes: it has no replica, or is not the primary any more."""


class NotCopied(BrokerUnavailable):
    """No replica has confirmed a message in time, and it was taken back."""


@contextmanager
def redis_needed() -> Iterator[None]:
    """Raise ``BrokerUnavailable`` where Redis is away."""
    try:
        yield
    except BrokerUnavailable:
        raise
    except (OperationalError, RedisError) as error:
        raise BrokerUnavailable(f"Redis does not answer: {error}") from error
