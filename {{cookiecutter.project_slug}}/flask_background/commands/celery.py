"""``flask celery …``: Celery's command line with the application loaded, and ``cluster``."""

import os
from collections.abc import Mapping
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from ..base.errors import ConfigurationError
from ..base.workers import WorkerSpec
from ..cluster.cluster import Cluster, Job, run_celery
from ..core import Core, find_core
from .dead import dead
from .jobs import FORKS, choose, worker_job

_PASS_ON: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": []}
#: What the help shows, a line for each command. Celery's others are named without one.
_SECTIONS = {
    "Run": {
        "cluster": "Run every worker of the config and the scheduler.",
        "worker": "Run one worker of the config.",
        "beat": "Run the scheduler alone.",
        "flower": "Run Flower, a page that shows workers and tasks.",
    },
    "Look": {
        "status": "Name the workers that answer.",
        "inspect": "Ask the workers: active, reserved, registered, stats and more.",
        "result": "Print the result of a task, by its id.",
        "dead": "Look at tasks that were given up; send them again or drop them.",
    },
    "Act": {
        "call": "Start a task by its name.",
        "control": "Tell the workers: shutdown, revoke, rate_limit and more.",
        "purge": "Throw away every task that waits.",
    },
}


class CeleryGroup(click.Group):
    """Our own commands, and every other one of Celery's handed on as it is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, ours and Celery's."""
        return sorted({*super().list_commands(ctx), *_celery_commands()})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what one needs in sections, and name the rest."""
        left = self.list_commands(ctx)
        width = max(len(name) for lines in _SECTIONS.values() for name in lines)
        for title, lines in _SECTIONS.items():
            rows = [(name.ljust(width), text) for name, text in lines.items() if name in left]
            left = [name for name in left if name not in lines]
            with formatter.section(title):
                formatter.write_dl(rows)
        with formatter.section("Celery's others, seldom needed"):
            formatter.write_text(", ".join(left))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command of ours, or wrap the one of Celery's. Raises ``click.NoSuchCommand``."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name not in _celery_commands():
            raise click.NoSuchCommand(cmd_name, possibilities=self.list_commands(ctx), ctx=ctx)
        return click.Command(
            cmd_name,
            context_settings=_PASS_ON,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            callback=_run_as_it_is,
            short_help=_celery_commands()[cmd_name].get_short_help_str(60),
        )


@click.pass_context
def _run_as_it_is(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    celery = _celery_of(ctx)
    try:
        code = run_celery(celery, [str(ctx.command.name), *arguments])
    except click.UsageError as error:
        if error.ctx and ctx.parent:  # or the command would seem to be `flask inspect`
            error.ctx.find_root().info_name = ctx.parent.command_path
        raise
    ctx.exit(code or bool(celery.control.refused))


@click.group(
    cls=CeleryGroup, name="celery", context_settings={"help_option_names": ["-h", "--help"]}
)
def celery_group() -> None:
    """Run and look after the background workers.

    'cluster' is what runs in production; CELERY_WORKERS in config.py says which workers there are.
    cluster, worker and dead are the application's, all other commands Celery's own.
    """


celery_group.add_command(dead)


@celery_group.command()
@click.option("--workers", metavar="NAMES", help="Only these workers of CELERY_WORKERS: a,b.")
@click.option("--no-scheduler", is_flag=True, help="Do not start the scheduler.")
@click.option("--flower/--no-flower", default=None, help="Start the Flower monitor as well.")
@click.option("--spawn", is_flag=True, hidden=True)
@click.pass_context
def cluster(
    ctx: click.Context,
    workers: str | None,
    no_scheduler: bool,
    flower: bool | None,
    spawn: bool,
) -> None:
    """Run all workers of the config and the scheduler, in the foreground.

    SIGTERM or Ctrl-C stops all: running tasks get the time of
    CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT, what is left is put back into its queue. A worker that
    dies is started again. The exit code is 0 after a graceful stop.
    """
    celery = _celery_of(ctx)
    options = celery.options
    watched = options.flower if flower is None else flower
    chosen = choose(options.workers, workers)
    jobs = [worker_job(celery, spec, watched=watched, spawn=spawn) for spec in chosen]
    if watched:
        if "flower" not in _celery_commands():
            message = "Flower is not installed. Install it: uv sync --extra flower"
            raise click.ClickException(message)
        where = [f"--address={options.flower_address}", f"--port={options.flower_port}"]
        jobs.append(Job("flower", ["flower", *where], is_worker=False))
    _run(ctx, jobs, schedule=options.scheduler and not no_scheduler, spawn=spawn)


def _run(
    ctx: click.Context, jobs: list[Job], *, schedule: bool = False, spawn: bool = False
) -> None:
    os.environ["PROCESS_NAME"] = "cluster"
    if path := path_given_to_flask():
        os.environ["FLASK_APP"] = path  # for what it starts
    try:
        ctx.exit(_kind_of_cluster(spawn)(_celery_of(ctx), jobs, schedule=schedule).run())
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def _kind_of_cluster(spawn: bool) -> type[Cluster]:
    # Imported here: the web process has these commands too, and starts nothing.
    if spawn or not FORKS:
        from ..cluster.spawning import SpawningCluster

        return SpawningCluster
    from ..cluster.forking import ForkingCluster

    return ForkingCluster


@celery_group.command(context_settings={"ignore_unknown_options": True})
@click.option("-n", "--hostname", "name", metavar="NAME", help="A worker of CELERY_WORKERS.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def worker(ctx: click.Context, name: str | None, arguments: tuple[str, ...]) -> None:
    """Run one worker, with the options that CELERY_WORKERS gives for its name.

    ARGUMENTS are further options of 'celery worker', such as --concurrency 4 or --loglevel debug;
    they win over the config. Without a name it is the first worker of the config.
    """
    celery = _celery_of(ctx)
    short_name, _, host = (name or "").partition("@")
    by_name = {spec.name: spec for spec in celery.options.workers}
    spec = by_name.get(short_name) if name else celery.options.workers[0]
    if host:
        arguments = ("--hostname", f"{short_name}@{host}", *arguments)
    watched = celery.options.flower
    job = worker_job(celery, spec or WorkerSpec(short_name), *arguments, watched=watched)
    job.host = host or job.host
    if FORKS:
        _run(ctx, [job])
    ctx.exit(run_celery(celery, job.argv))


def _celery_of(ctx: click.Context) -> Core:
    app: Flask = ctx.ensure_object(ScriptInfo).load_app()
    try:
        return find_core(app)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def path_given_to_flask() -> str | None:
    """Say what the running ``flask`` command was told of where the application is.

    It is empty when the command looks for it by itself, and None without such a command.
    """
    ctx = click.get_current_context(silent=True)
    info = ctx.find_object(ScriptInfo) if ctx else None
    return None if info is None or info.create_app else info.app_import_path or ""


def _celery_commands() -> Mapping[str, click.Command]:
    from celery.bin.celery import celery

    return celery.commands
