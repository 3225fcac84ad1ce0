"""What a release consists of: the files of the last commit."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=project,
        check=False,
        text=True,
        capture_output=True,
    )
    if done.returncode != 0:
        raise click.ClickException(done.stderr.strip())
    return done.stdout.strip()


def name_release(project: Path, *, allow_dirty: bool) -> str:
    """Name a release after the time and the commit, such as ``20261120-231500-1a2b3c4``.

    Raises ``click.ClickException`` if there is no commit, or if files are not committed and
    ``allow_dirty`` is false.
    """
    try:
        commit = _git(project, "rev-parse", "--short=7", "HEAD")
    except (click.ClickException, FileNotFoundError):
        raise click.ClickException(
            "A release is what is committed, and there is no commit yet. "
            'Make one: git init && git add --all && git commit -m "Begin"'
        ) from None
    changed = _git(project, "status", "--porcelain", "--", ".")
    if changed and not allow_dirty:
        raise click.ClickException(
            f"These files are not committed and would be missing:\n{changed}\n"
            "Commit them, or release without them: --allow-dirty"
        )
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{commit}"


def archive(project: Path, file: BinaryIO) -> None:
    """Write the files of the last commit into ``file``, as a .tar.gz."""
    command = ["git", "archive", "--format=tar.gz", "HEAD", "."]
    subprocess.run(command, cwd=project, check=True, stdout=file)  # noqa: S603
