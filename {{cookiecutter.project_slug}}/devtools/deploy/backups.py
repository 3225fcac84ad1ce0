"""``flask deploy backup``, ``restore`` and ``drill``: what Redis and a database hold, and back.

What is done on the server stands in ``deploy/redis/`` and ``deploy/database/``: a timer runs the
same scripts.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import click

from ..application import package_name
from .options import host_argument
from .server import Server

#: The ending of a backup of Redis. One of a database has another, by the kind of the database.
_OF_REDIS = ".rdb"


@click.command()
@host_argument
@click.argument("file", type=click.Path(path_type=Path), required=False)
def backup(server: Server, file: Path | None) -> None:
    """Make a backup on HOST and fetch it, into FILE or into backups/.

    It holds tasks and results: keep it as you keep secrets. That of a database is a file of its own
    beside it, with another ending.
    """
    name = package_name()
    newest = f"ls /var/lib/{name}-backups/????-??-??.rdb | tail -n 1"
    there = server.read(
        f"systemctl start {name}-backup || exit; "
        f"for it in $({newest}); do ls ${{it%rdb}}*; done | grep -E '^[^.]+[.][a-z]+$' || true"
    ).split()
    if not there:
        raise click.ClickException(f"{server.name} has no backup. Release to it first.")
    where = file or server.project / "backups" / f"{name}-{server.name}-{Path(there[0]).stem}.rdb"
    for one in sorted(there):
        kind = Path(one).suffix
        _fetch(server, one, where if kind == _OF_REDIS else where.with_suffix(kind))


def _fetch(server: Server, there: str, where: Path) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    # A connection that breaks leaves the file of before.
    part = where.with_name(f"{where.name}.part")
    try:
        part.touch(mode=0o600)
        with part.open("wb") as stream:
            server.fetch(f"cat {there}", stream)
        if server.read(f"sha256sum <{there}").split()[0] != _digest(part):
            raise click.ClickException("The backup did not arrive whole. Try again.")
        part.replace(where)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    click.echo(f"{where}, {where.stat().st_size / 1024:,.0f} KiB")


@click.command()
@host_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask whether what is there may go.")
def restore(server: Server, file: Path, yes: bool) -> None:
    """Put the backup FILE in the place of what HOST holds.

    A backup of Redis ends in .rdb; any other is one of the database. It is copied and checked
    before anything stops; what was there is kept on the server, and comes back if it does not start
    with the backup.
    """
    has_database = (server.project / "deploy" / "database").is_dir()
    what = "database" if has_database and file.suffix != _OF_REDIS else "redis"
    if not yes:
        holder = "Redis" if what == "redis" else what
        question = f"The application on {server.name} stops for some seconds, and what its {holder}"
        click.confirm(f"{question} holds gives way to {file.name}. Go on?", abort=True)
    place = shlex.quote(f"/var/tmp/{package_name()}-{_digest(file)[:16]}{file.suffix}")  # noqa: S108
    script = f"/opt/{package_name()}/current/deploy/{what}/restore"
    with file.open("rb") as stream:
        # A file of that name that somebody else made is not written to.
        arrive = f"umask 077 && rm -f {place} && set -C && cat >{place}"
        server.read(f"{arrive} && echo '{_digest(file)}  {place}' | sha256sum -c --quiet", stream)
    code = server.run(f"{script} {place}; code=$?; rm -f {place}; exit $code")
    if code != 0:
        raise click.ClickException(f"{file} was not restored; the lines above say why.")


@click.command()
@host_argument
def drill(server: Server) -> None:
    """Try whether the newest backup on HOST can be restored.

    A Redis beside the running one takes it and says what it holds, and so does a database. The
    server does this by itself every week; `status` shows the last result.
    """
    name = package_name()
    result = f"cat /var/lib/{name}-backups/drill*"
    sys.exit(server.run(f"systemctl start {name}-drill; code=$?; {result}; exit $code"))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
