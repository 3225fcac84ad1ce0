"""``flask celery …``: Celery's command line with the application loaded, and ``cluster``."""

import os
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource
from flask import Flask
from flask.cli import ScriptInfo

from ..base.errors import ConfigurationError
from ..base.workers import WorkerSpec
from ..cluster.cluster import Cluster, Job, run_celery
from ..core import Core, find_core
from .dead import dead

#: Whether this system can fork: Windows cannot.
_FORKS = hasattr(os, "fork")
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
        """Find a command of ours, or wrap the one of Celery's.

        Raises ``click.NoSuchCommand``, which names the nearest one.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name not in _celery_commands():
            raise click.NoSuchCommand(cmd_name, possibilities=self.list_commands(ctx), ctx=ctx)
        foreign = _celery_commands()[cmd_name]

        @click.pass_context
        def pass_on(ctx: click.Context, arguments: tuple[str, ...]) -> None:
            celery: Any = _celery_of(ctx)
            try:
                code = run_celery(celery, [cmd_name, *arguments])
            except click.UsageError as error:
                if error.ctx and ctx.parent:  # or the command would seem to be `flask inspect`
                    error.ctx.find_root().info_name = ctx.parent.command_path
                raise
            ctx.exit(code or bool(celery.control.refused))

        return click.Command(
            cmd_name,
            context_settings=_PASS_ON,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            callback=pass_on,
            short_help=foreign.get_short_help_str(60),
        )


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
    jobs = [
        _worker_job(celery, spec, fork=not spawn, watched=watched)
        for spec in _choose(options.workers, workers)
    ]
    if watched:
        jobs.append(Job("flower", _flower_argv(celery), is_worker=False))
    _run(ctx, jobs, schedule=options.scheduler and not no_scheduler, spawn=spawn)


def _run(ctx: click.Context, jobs: list[Job], *, schedule: bool = False, spawn: bool) -> None:
    os.environ["PROCESS_NAME"] = "cluster"
    if path := path_given_to_flask():
        os.environ["FLASK_APP"] = path  # for what it starts
    ctx.exit(_kind(spawn)(_celery_of(ctx), jobs, schedule=schedule).run())


def _kind(spawn: bool) -> type[Cluster]:
    # Imported here: the web process has these commands too, and starts nothing.
    if spawn or not _FORKS:
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
    job = _worker_job(celery, spec or WorkerSpec(short_name), *arguments, watched=watched)
    job.host = host or job.host
    if _FORKS:
        _run(ctx, [job], spawn=False)
    ctx.exit(run_celery(celery, job.argv))


def _choose(workers: tuple[WorkerSpec, ...], names: str | None) -> list[WorkerSpec]:
    if names is None:
        return list(workers)
    by_name = {spec.name: spec for spec in workers}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in by_name:
            raise click.BadParameter(
                f"{name!r} is not a worker of CELERY_WORKERS. There are: {', '.join(by_name)}.",
                param_hint="--workers",
            )
    return [by_name[name] for name in wanted]


def _worker_job(
    celery: Core, spec: WorkerSpec, *arguments: str, fork: bool = True, watched: bool = False
) -> Job:
    """Make the job of a worker. Its tasks run in places unless it names a pool of Celery's."""
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker
    from celery.concurrency.solo import TaskPool as SoloPool

    argv = [*spec.argv(celery.options.log_level, watched=watched), *arguments]
    celery_context = CLIContext(app=celery, no_color=True, workdir=None)
    try:
        # Let Celery read them here, or a wrong value would end the worker again and again.
        name = click.get_current_context().command_path
        given = worker.make_context(name, argv[1:], obj=celery_context)
    except click.UsageError as error:
        if arguments:
            raise  # what was typed is wrong
        raise click.ClickException(
            f"CELERY_WORKERS[{spec.name!r}] cannot work: {error.format_message()}"
        ) from error
    with given:
        chosen = given.get_parameter_source("pool") is ParameterSource.COMMANDLINE
        solo = given.params["pool"] is SoloPool
        concurrency, scale = given.params["concurrency"], given.params["autoscale"]
    if not _FORKS:
        # Celery's process pool needs fork: https://docs.celeryq.dev/en/stable/faq.html#windows
        return Job(spec.name, argv if chosen else [*argv, "--pool", "solo"])
    if not fork or (chosen and not solo):
        return Job(spec.name, argv)
    if solo or not isinstance(concurrency, int):
        concurrency = 1 if solo else os.cpu_count() or 1
    most, least = scale or (concurrency, concurrency)
    return Job(spec.name, [*argv, "--pool", "prefork", "--concurrency", "1"], places=(least, most))


def _flower_argv(celery: Core) -> list[str]:
    if "flower" not in _celery_commands():
        raise click.ClickException("Flower is not installed. Install it: uv sync --extra flower")
    options = celery.options
    return ["flower", f"--address={options.flower_address}", f"--port={options.flower_port}"]


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
