"""The JSON API under ``/api/v1``: any task's state, the schedule, queues and workers."""

from .routes import bp

__all__ = ["bp"]
