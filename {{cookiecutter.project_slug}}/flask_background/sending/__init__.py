"""Sending functions and tasks, and waiting for them."""
