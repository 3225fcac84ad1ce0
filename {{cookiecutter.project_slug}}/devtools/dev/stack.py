"""What `flask dev` runs: Redis, web server and workers, and the environment that they get."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from dotenv import dotenv_values
from flask_background import without_password

from ..application import PROJECT, package_name
from .processes import Changed, ProcessManager, Program, Stop
from .redis_address import uses_fake
from .redis_server import EmbeddedRedis, RedisStartError
from .screen import Announcement, Output
from .services import services

FLASK = (sys.executable, "-m", "flask")


def run(host: str, port: int, redis_url: str, *, reload: bool, worker: bool) -> int:
    """Run until Ctrl-C; return the exit code.

    Args:
        host: the web server's address.
        port: the web server's port.
        redis_url: the Redis to use; empty to start the embedded one.
        reload: whether to restart on a change of the code.
        worker: whether to run the workers and the scheduler.

    Raises:
        click.ClickException: the embedded Redis did not start.
    """
    package = package_name()
    others = [one for one in services(PROJECT) if not os.environ.get(one.VARIABLE)]
    output = Output(["redis", *map(_name, others), "web", "worker"])
    manager = ProcessManager(output, cwd=PROJECT, reload=reload)
    where = f"{without_password(redis_url)} (from REDIS_URL)"
    with ExitStack() as stack:
        if not redis_url:
            redis = EmbeddedRedis(
                PROJECT / "instance" / "redis",
                on_line=lambda text: output.line("redis", text),
                on_exit=lambda child: manager.post(
                    Stop(f"redis ended with exit code {child.returncode}. Stopping the rest.")
                ),
            )
            try:
                redis_url = stack.enter_context(redis).url
            except RedisStartError as error:
                raise click.ClickException(str(error)) from None
            kept = "in memory, gone at the end" if uses_fake() else f"data in {redis.data_dir}"
            where = f"{without_password(redis_url)} ({kept})"
        more: dict[str, str] = {}
        for service in others:
            try:
                more[service.VARIABLE] = stack.enter_context(_server(service, output, manager)).url
            except RuntimeError as error:
                raise click.ClickException(str(error)) from None
        if reload:
            from .reload import Watcher  # a development dependency, not needed without reload

            folders = [PROJECT / package, PROJECT / "flask_background"]
            watcher = Watcher(PROJECT, folders, lambda files: manager.post(Changed(files)))
            stack.enter_context(watcher)
        environment = child_environment(PROJECT, package, redis_url, port, colour=output.colour)
        environment |= more
        _migrate(package, environment, output)
        facts = {
            "Worker": "runs, with the scheduler" if worker else "not started (--no-worker)",
            "Redis": where,
            "Reload": "when a Python file, .env or .flaskenv changes" if reload else "no",
        }
        announcement = Announcement(output, host, port, facts)
        code = manager.run(programs(host, port, environment, worker=worker), announcement.follow)
    output.own("Stopped.")
    return code


def _name(service: ModuleType) -> str:
    return service.__name__.rpartition(".")[2]


def _server(service: ModuleType, output: Output, manager: ProcessManager) -> Any:
    """Prepare a server that the project needs."""
    name = _name(service)
    return service.Server(
        PROJECT / "instance" / name,
        on_line=lambda text: output.line(name, text),
        on_exit=lambda child: manager.post(
            Stop(f"{name} ended with exit code {child.returncode}. Stopping the rest.")
        ),
    )


def _migrate(package: str, environment: dict[str, str], output: Output) -> None:
    """Bring the database up to date, if the application has one. Raises ``ClickException``."""
    if (PROJECT / package / "migrations").is_dir():
        done = subprocess.run(  # noqa: S603
            [*FLASK, "db", "upgrade"],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        for line in lines if done.returncode else [one for one in lines if "Running" in one]:
            output.own(line)
        if done.returncode:
            raise click.ClickException("The database could not be brought up to date; see above.")


def programs(host: str, port: int, env: dict[str, str], *, worker: bool) -> list[Program]:
    """Return the programs of the application, in the order of their start."""
    serve = ["run", "--debug", "--no-reload", "--host", host, "--port", str(port)]
    web = Program("web", [*FLASK, *serve], {**env, "PROCESS_NAME": "web"})
    cluster = Program("worker", [*FLASK, "celery", "cluster"], {**env, "PROCESS_NAME": "worker"})
    return [web, cluster] if worker else [web]


def child_environment(
    project: Path, package: str, redis_url: str, port: int, *, colour: bool
) -> dict[str, str]:
    """Return the environment of the programs, which load the application without devtools.

    Flask has put `.env` and `.flaskenv` into our own environment. What came from there is left out:
    each program reads the files itself, so an edit of them arrives with the next restart.
    """
    files = {**dotenv_values(project / ".flaskenv"), **dotenv_values(project / ".env")}
    env = {name: value for name, value in os.environ.items() if files.get(name) != value}
    env["FLASK_APP"] = package
    env["REDIS_URL"] = redis_url
    env["PORT"] = str(port)
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONIOENCODING"] = "utf-8"
    if not files.get("FLASK_CONFIG"):
        env.setdefault("FLASK_CONFIG", "development")
    if colour:
        env["FORCE_COLOR"] = "1"
    return env
