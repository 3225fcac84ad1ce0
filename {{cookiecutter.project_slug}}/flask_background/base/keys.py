"""The names of what the engine keeps in Redis; ``redis.lua`` says what each holds."""

import hashlib

#: Seconds for which an issued task that never ran, or a cancelled one, is remembered.
ISSUED_TTL = 24 * 3600


class Keys:
    """The names, all with a prefix, so that applications that share a Redis do not meet."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.unacked = f"{prefix}unacked"
        self.unacked_index = f"{prefix}unacked_index"
        self.recent = f"{prefix}recent"
        self.counters = f"{prefix}counters"
        self._own = own = f"{prefix}background:"
        self.workers = f"{own}workers"
        self.scheduler_lease = f"{own}scheduler:lease"
        self.scheduler_runs = f"{own}scheduler:runs"
        self.local_cluster = f"{own}local-cluster"
        self.failed = f"{own}failed"
        self.failures = f"{own}failures"
        self.dead = f"{own}dead:order"
        self.refused = f"{own}refused"
        self.probe = f"{own}probe"
        self.listener = f"{own}listener"

    def record(self, task_id: str) -> str:
        """Name a task's record."""
        return f"{self.prefix}celery-task-meta-{task_id}"

    def wake(self, queue: str) -> str:
        """Name the list that wakes workers which wait for a queue."""
        return f"{self.prefix}{queue}.wake"

    def delayed(self, queue: str) -> str:
        """Name the messages of a queue that are for later."""
        return f"{self.prefix}{queue}.delayed"

    def cancelled(self, task_id: str) -> str:
        """Name the mark that a task was cancelled."""
        return f"{self._own}cancelled:{task_id}"

    def deliveries(self, task_id: str) -> str:
        """Name the count of a task's deliveries after the first one."""
        return f"{self._own}deliveries:{task_id}"

    def lock(self, name: str) -> str:
        """Name the lock of a function that does not overlap itself."""
        return f"{self._own}lock:{name}"

    def done(self, name: str, values: str) -> str:
        """Name the note that a function has done its work for some values."""
        digest = hashlib.sha256(values.encode()).hexdigest()
        return f"{self._own}done:{name}:{digest}"
