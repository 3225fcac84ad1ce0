"""From ``CELERY_WORKERS`` to the jobs of a cluster."""

import os

import click
from click.core import ParameterSource

from ..base.workers import WorkerSpec
from ..cluster.cluster import Job
from ..core import Core

#: Whether this system can fork: Windows cannot.
FORKS = hasattr(os, "fork")


def choose(workers: tuple[WorkerSpec, ...], names: str | None) -> list[WorkerSpec]:
    """Return those that are named (``a,b``), or all. Raises ``click.BadParameter``."""
    by_name = {spec.name: spec for spec in workers}
    wanted = list(by_name) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in by_name:
            raise click.BadParameter(
                f"{name!r} is not a worker of CELERY_WORKERS. There are: {', '.join(by_name)}.",
                param_hint="--workers",
            )
    return [by_name[name] for name in wanted]


def worker_job(
    celery: Core, spec: WorkerSpec, *arguments: str, watched: bool, spawn: bool = False
) -> Job:
    """Make the job of a worker. Its tasks run in places unless it names a pool of Celery's.

    ``arguments`` were typed for this worker; ``watched``: Flower looks at it; ``spawn``: its
    cluster does not fork. Raises ``click.ClickException`` for options that cannot work.
    """
    # Imported here: the web process starts no worker.
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
        has_pool = given.get_parameter_source("pool") is ParameterSource.COMMANDLINE
        pool, places, scale = (given.params[name] for name in ("pool", "concurrency", "autoscale"))
    if not FORKS and not has_pool:
        # Celery's process pool needs fork: https://docs.celeryq.dev/en/stable/faq.html#windows
        argv += ["--pool", "solo"]
    solo = pool is SoloPool
    if not FORKS or spawn or (has_pool and not solo):
        return Job(spec.name, argv)
    if solo or not isinstance(places, int):
        places = 1 if solo else os.cpu_count() or 1
    most, least = scale or (places, places)
    return Job(spec.name, [*argv, "--pool", "prefork", "--concurrency", "1"], places=(least, most))
