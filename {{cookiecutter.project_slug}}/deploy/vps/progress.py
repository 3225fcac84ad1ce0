"""What `flask deploy` shows while the server is worked on, instead of pyinfra's own lines."""

import logging

import click
from devtools.steps import Steps
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State


class Progress(BaseStateCallback):
    """Tells of each step, and at the end how many changed something, if not all did."""

    def __init__(self) -> None:
        """Begin without a step: how many there are is known when the first one starts."""
        self._steps = Steps(0)
        self._changed = self._done = 0

    def operation_start(self, state: State, op_hash: str) -> None:
        """Tell of the step that begins."""
        logger.setLevel(logging.WARNING)
        self._steps.total = len(state.get_op_order())
        self._steps.start(", ".join(state.get_op_meta(op_hash).names))

    def operation_host_error(
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Tell that it failed; pyinfra has said why, and ends."""
        self._steps.end("failed")

    def operation_end(self, state: State, op_hash: str) -> None:
        """Tell that it ended well, and after the last one what came of all."""
        results = [state.get_op_data_for_host(host, op_hash) for host in state.inventory]
        changed = any(result.operation_meta.did_change() for result in results)
        self._steps.end("" if changed else "no change")
        self._changed += changed
        self._done += 1
        if self._done == self._steps.total != self._changed:
            click.echo(f"{self._changed} of {self._done} steps changed something.", err=True)
