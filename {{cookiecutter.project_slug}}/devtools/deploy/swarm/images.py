"""The images of a release: built once, here, and brought to each machine over ssh."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import click

from ...application import PROJECT, package_name
from ..git import archive
from ..server import Server

REDIS = "redis:8"


def images(release: str) -> list[str]:
    """Name the images that a machine needs for a release."""
    name = package_name().replace("_", "-")
    return [f"{name}:{release}", f"{name}-nginx:{release}", REDIS]


def build(release: str, platform: str) -> None:
    """Build the images from the last commit. Raises ``click.ClickException``."""
    application, nginx, _ = images(release)
    with tempfile.TemporaryFile() as file:
        archive(PROJECT, file)
        for target, image in (("application", application), ("nginx", nginx)):
            file.seek(0)
            _docker(
                "build", "--quiet", "--platform", platform, "--target", target, "--tag", image,
                "--build-arg", f"VERSION={release}", "-", given=file,
            )  # fmt: skip
    if subprocess.run(["docker", "image", "inspect", REDIS], capture_output=True).returncode:  # noqa: S603, S607
        _docker("pull", "--quiet", "--platform", platform, REDIS)


def lacking(release: str, there: Server) -> list[str]:
    """Name the images of a release that a machine does not have."""
    have = there.read("docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
    return [image for image in images(release) if image not in have]


def bring(names: list[str], to: list[Server], source: Server | None = None) -> None:
    """Bring images to machines, from here or from another machine.

    Raises ``click.ClickException``.
    """
    save = f"docker save {' '.join(names)} | gzip -1"
    with tempfile.NamedTemporaryFile() as file:
        reading = source.ssh(save) if source else ["sh", "-c", save]
        if subprocess.run(reading, stdout=file, check=False).returncode:  # noqa: S603
            raise click.ClickException("The images cannot be read; the lines above say why.")
        for_all(lambda one: _pipe(["cat", file.name], one, "docker load --quiet >&2"), to)


def bring_files(folder: str, to: Server, source: Server | None = None) -> None:
    """Bring to a machine's folder what another has there, or here the last commit of it.

    Raises ``click.ClickException``.
    """
    here = ["git", "archive", "HEAD:./deploy/swarm"]
    reading = source.ssh(f"tar c -C {folder} .") if source else here
    _pipe(reading, to, f"mkdir -p {folder} && tar x -C {folder}")


def for_all[T](action: Callable[[T], None], items: list[T]) -> None:
    """Do it for all at the same time. Raises the first error."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(action, items))


def _pipe(reading: list[str], to: Server, writing: str) -> None:
    with subprocess.Popen(reading, cwd=PROJECT, stdout=subprocess.PIPE) as source:  # noqa: S603
        done = subprocess.run(to.ssh(writing), stdin=source.stdout, check=False)  # noqa: S603
    if source.returncode or done.returncode:
        raise click.ClickException(f"Not all of it got to {to.name}; the lines above say why.")


def _docker(*arguments: str, given: BinaryIO | None = None) -> None:
    try:
        done = subprocess.run(["docker", *arguments], stdin=given, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        raise click.ClickException("A release is built with Docker: install it here.") from None
    if done.returncode:
        raise click.ClickException(f"docker {arguments[0]} failed; the lines above say why.")
