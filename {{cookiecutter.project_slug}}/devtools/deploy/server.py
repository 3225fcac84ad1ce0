"""One server, reached over ssh: by pyinfra for what changes it, by ssh itself for the rest."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import click

_HOST = re.compile(r"(?:(?P<user>\w[\w.-]*)@)?(?P<name>\w[\w.-]*)(?::(?P<port>\d{1,5}))?", re.ASCII)


@dataclass(frozen=True)
class Server:
    """Where the server is, who we are there, and the project's folder here."""

    name: str
    user: str
    port: int
    project: Path
    ssh_config: str | None = None

    @classmethod
    def parse(cls, text: str, project: Path, ssh_config: str | None = None) -> Server:
        """Read ``[user@]host[:port]``; the user is root and the port 22 unless it says so.

        Raises ``click.BadParameter`` for anything else.
        """
        match = _HOST.fullmatch(text)
        if match is None:
            raise click.BadParameter(
                f"{text!r} is not a server. Write root@203.0.113.7, or user@host:port."
            )
        return cls(
            name=match["name"],
            user=match["user"] or "root",
            port=int(match["port"] or 22),
            project=project,
            ssh_config=ssh_config,
        )

    def __str__(self) -> str:
        """Return how it is written on the command line."""
        return f"{self.user}@{self.name}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def _ssh(self) -> list[str]:
        if shutil.which("ssh") is None:
            raise click.ClickException("This machine has no ssh. Install it: openssh-client.")
        config = ["-F", self.ssh_config] if self.ssh_config else []
        return ["ssh", "-p", str(self.port), *config]

    @cached_property
    def _settings(self) -> dict[str, str]:
        """What ssh's own settings say of the server, by their names in lower case."""
        done = subprocess.run(  # noqa: S603
            [*self._ssh, "-G", f"{self.user}@{self.name}"],
            check=False,
            text=True,
            capture_output=True,
        )
        lines = (line.partition(" ") for line in done.stdout.splitlines())
        return {name: value for name, _, value in lines}

    @property
    def host_key_rule(self) -> str:
        """What becomes of a server whose key ssh does not know: what the user's settings say.

        If they say nothing, which ssh calls "ask", the key is remembered.
        """
        rule = self._settings.get("stricthostkeychecking", "ask")
        return {"ask": "accept-new", "true": "yes", "false": "no"}.get(rule, rule)

    @property
    def address(self) -> str:
        """Where the server is reached, a name or a number; empty if the way leads over another."""
        if {"proxycommand", "proxyjump"} & self._settings.keys():
            return ""
        return self._settings.get("hostname", self.name)

    def ssh(self, command: str, *, terminal: bool = False) -> list[str]:
        """Return the command line that runs a shell command there, as root."""
        line = [*self._ssh, "-o", f"StrictHostKeyChecking={self.host_key_rule}"]
        line += ["-t"] if terminal else ["-o", "BatchMode=yes"]
        root = command if self.user == "root" else f"sudo -- sh -c {shlex.quote(command)}"
        return [*line, f"{self.user}@{self.name}", root]

    def run(self, command: str) -> int:
        """Run a shell command there, with our input and output. Returns its exit code."""
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return subprocess.run(self.ssh(command, terminal=terminal), check=False).returncode  # noqa: S603

    def read(self, command: str, given: BinaryIO | None = None) -> str:
        """Return what a shell command prints there; its input is the file ``given``, if any.

        Raises ``click.ClickException`` if it fails.
        """
        return self._run_quietly(command, given, subprocess.PIPE).decode(errors="replace")

    def fetch(self, command: str, file: BinaryIO) -> None:
        """Write what a shell command prints there into ``file``.

        Raises ``click.ClickException`` if it fails.
        """
        self._run_quietly(command, None, file)

    def _run_quietly(self, command: str, given: BinaryIO | None, output: BinaryIO | int) -> bytes:
        done = subprocess.run(  # noqa: S603
            self.ssh(command),
            stdin=given or subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip()
            raise click.ClickException(f"On {self.name}: {why or 'no answer'}")
        return done.stdout or b""

    def apply(
        self,
        steps: str,
        data: Mapping[str, str | None],
        *,
        dry_run: bool = False,
        folder: str = "vps",
    ) -> None:
        """Apply the steps of a file in a folder of ``deploy``.

        Raises ``click.ClickException`` if one fails; pyinfra has said which.
        """
        line = [sys.executable, "-m", "pyinfra", "--user", self.user, "--port", str(self.port)]
        line += ["--dry"] if dry_run else ["--yes"]  # --yes looks for no changes to tell of
        line += [] if self.user == "root" else ["--sudo"]
        given = {
            "ssh_config_file": self.ssh_config,
            "ssh_strict_host_key_checking": self.host_key_rule,
            **data,
        }
        for name, value in given.items():
            line += ["--data", f"{name}={value}"] if value else []
        line += [self.name, f"deploy/{folder}/{steps}.py"]
        environment = {**os.environ, "PYINFRA_PROGRESS": "off"}  # deploy/vps/progress.py tells it
        done = subprocess.run(line, cwd=self.project, env=environment, check=False)  # noqa: S603
        if done.returncode != 0:
            raise click.ClickException(f"{steps} stopped on {self.name}; the lines above say why.")


def addresses_of(name: str) -> set[str]:
    """Return the addresses to which a name leads from here; none if nobody knows it."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}
