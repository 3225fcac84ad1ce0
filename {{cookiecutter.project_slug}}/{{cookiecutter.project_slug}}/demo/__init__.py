"""Example: a long task with progress, started by the API or by the page's form."""

from .routes import bp

__all__ = ["bp"]
