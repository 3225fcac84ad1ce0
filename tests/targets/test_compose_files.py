"""Compose files, Dockerfile, images and nginx, each checked by its own tool."""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
import support
from machine import needs
from targets import authority
from targets.compose import (
    DEVELOPMENT,
    PRODUCTION,
    Stack,
    install,
    unique_slug,
    wait_until,
)

pytestmark = needs("engine")

Render = Callable[[support.Answers], Path]


@pytest.fixture(scope="module")
def stack(render: Render) -> Iterator[Stack]:
    """Bring a new project up for production."""
    with Stack(install(render({"project_slug": unique_slug()})), PRODUCTION) as running:
        yield running


@pytest.mark.parametrize("file", [DEVELOPMENT, PRODUCTION])
@pytest.mark.parametrize("examples", ["yes", "no"])
@pytest.mark.parametrize("database", ["none", "sqlite", "postgresql"])
def test_compose_accepts_the_file(render: Render, file: str, examples: str, database: str) -> None:
    """The files are valid; the one for development needs no .env."""
    project = render({"include_examples": examples, "database": database})
    if file == DEVELOPMENT:
        (project / ".env").unlink()
    support.succeed(
        "docker", "compose", "-f", file, "--profile", "*", "config", "--quiet",
        cwd=project,
        **({"REDIS_PASSWORD": "x", "DATABASE_PASSWORD": "x"} if file == PRODUCTION else {}),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["SECRET_KEY", "API_TOKEN", "REDIS_PASSWORD"])
def test_production_says_which_secret_is_missing(render: Render, name: str) -> None:
    """A missing secret stops the start with a sentence that says how to make it."""
    project = render({})
    (project / ".env").unlink()
    given = {"SECRET_KEY": "x", "API_TOKEN": "x", "REDIS_PASSWORD": "x", name: ""}
    done = support.run("docker", "compose", "-f", PRODUCTION, "config", cwd=project, **given)
    assert done.returncode != 0
    assert f"{name} is missing" in done.stderr and "openssl rand -hex 32" in done.stderr


def test_hadolint_is_content(render: Render) -> None:
    """The Dockerfile follows hadolint's rules, but for those that the project decided against."""
    # DL3008 wants each Debian package at one version, which the archive drops with the next fix.
    project = render({})
    support.succeed("hadolint", "--ignore", "DL3008", "Dockerfile", cwd=project)


def test_the_python_of_the_answers_is_in_the_dockerfile(render: Render) -> None:
    """The image's Python is the one that was chosen."""
    for version in ("3.12", "3.13", "3.14"):
        text = (render({"python_version": version}) / "Dockerfile").read_text()
        assert f"\nFROM python:{version}-slim-trixie AS base\n" in text


@pytest.mark.parametrize("database", ["none", "sqlite", "postgresql"])
def test_shellcheck_is_content(render: Render, database: str) -> None:
    """The scripts in the containers and on the server are clean."""
    swarm = "no" if database == "sqlite" else "yes"
    project = render({"use_swarm": swarm, "database": database})
    files = [path for path in (project / "deploy").rglob("*") if path.is_file()]
    scripts = sorted(path for path in files if path.read_bytes().startswith(b"#!/bin/sh\n"))
    assert {"restore", "watch", "activate", "build"} <= {script.name for script in scripts}
    support.succeed("shellcheck", *scripts, cwd=scripts[0].parent)


def test_the_images_hold_nothing_else(stack: Stack, tmp_path: Path) -> None:
    """No secret, no history, no tests and no compiler is in an image."""
    secrets = [
        value.encode()
        for name, value in support.env_values(stack.project).items()
        if name in ("SECRET_KEY", "API_TOKEN", "REDIS_PASSWORD")
    ]
    for image in stack.images:
        archive = tmp_path / "image.tar"
        container = support.succeed("docker", "create", image, cwd=tmp_path).strip()
        try:
            support.succeed("docker", "export", "--output", archive, container, cwd=tmp_path)
        finally:
            support.succeed("docker", "rm", container, cwd=tmp_path)
        content = archive.read_bytes()
        assert not any(secret in content for secret in secrets), f"{image} holds a secret."
        with tarfile.open(archive) as tar:
            paths = {PurePosixPath(name) for name in tar.getnames()}
        foreign = {
            str(path)
            for path in paths
            if path.name in {".env", ".git", "compose.yaml"}
            or (path.parent.name == "bin" and path.name in {"gcc", "cc", "uv", "uvx"})
            or (
                path.parts[:1] in {("app",), ("srv",)}
                and {".flaskenv", "devtools", "smoke", "tests"} & set(path.parts)
            )
        }
        assert not foreign, f"{image} holds {sorted(foreign)}"
        history = support.succeed("docker", "history", "--no-trunc", image, cwd=tmp_path)
        assert not any(secret.decode() in history for secret in secrets)


def test_only_nginx_can_be_reached(stack: Stack) -> None:
    """No port but nginx' is published, and no process is root."""
    for service in ("web", "worker", "redis"):
        assert "->" not in stack.compose("ps", "--format", "{{.Ports}}", service)
    for service in ("nginx", "web", "worker", "redis"):
        assert stack.compose("exec", "-T", service, "id", "-u").strip() != "0", service


def test_the_application_itself_answers_to_no_other_name(stack: Stack) -> None:
    """The domain, the name of the container, and what its own health check uses."""
    ask = """
import http.client, sys
for name in sys.argv[1:]:
    connection = http.client.HTTPConnection("127.0.0.1", 8000)
    connection.request("GET", "/healthz", headers={"Host": name})
    print(connection.getresponse().status)
"""
    names = ("localhost", "web:8000", "127.0.0.1:8000", "evil.example")
    assert stack.python("web", ask, *names).split() == ["200", "200", "200", "400"]


def test_the_containers_cannot_be_written_to(stack: Stack) -> None:
    """The root file systems are read-only, and there is no capability."""
    for service in ("nginx", "web", "worker", "redis"):
        said = stack.compose("exec", "-T", service, "sh", "-c", "touch /x; cat /proc/1/status")
        assert "Read-only file system" in said, service
        assert "CapEff:\t0000000000000000" in said, service
        assert "NoNewPrivs:\t1" in said, service


def test_a_worker_that_takes_no_tasks_is_unhealthy(stack: Stack) -> None:
    """The worker's check fails when the file that its workers touch is old."""
    check = "find /tmp/alive -mmin -1 | grep -q ."
    stack.compose("exec", "-T", "worker", "sh", "-c", check)
    code = "import os, time; os.utime('/tmp/old', (0, time.time() - 61))"
    said = stack.compose(
        "exec", "-T", "worker", "sh", "-c",
        f"touch /tmp/old; python3 -c \"{code}\"; {check.replace('alive', 'old')} || echo unhealthy",
    )  # fmt: skip
    assert "unhealthy" in said


def test_https_begins_with_the_certificate(stack: Stack, tmp_path: Path) -> None:
    """nginx starts without a certificate, uses the first one, and the next one, by itself."""
    assert "test is successful" in stack.compose("exec", "-T", "nginx", "nginx", "-t")
    assert "speaks HTTP" in stack.compose("logs", "nginx")
    first = authority.Authority(tmp_path)
    for count in (1, 2):
        first.issue("localhost")
        put_certificate(stack, first)
        wait_until(partial(logged, stack, "nginx uses it", count), f"nginx uses number {count}")
    assert "test is successful" in stack.compose("exec", "-T", "nginx", "nginx", "-t")
    assert "listen 8443 ssl" in stack.compose("exec", "-T", "nginx", "nginx", "-T")
    stack.scheme = "https"
    said = stack.smoke("--ca", str(first.certificate))
    assert "everything works" in said
    stack.compose("restart", "nginx")
    stack.smoke("--ca", str(first.certificate), only="tls or health")


def logged(stack: Stack, words: str, times: int) -> bool:
    """Tell whether nginx has said something so many times."""
    return stack.compose("logs", "nginx").count(words) == times


def put_certificate(stack: Stack, source: authority.Authority) -> None:
    """Put a certificate where certbot would."""
    script = "mkdir -p /le/live/localhost && cd /le/live/localhost && tar xof -"
    with subprocess.Popen(
        ["docker", "run", "--rm", "-i", "--user=101:101", "--entrypoint=sh",
         f"--volume={stack.name}_letsencrypt:/le", stack.images[1], "-c", script],
        stdin=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        with tarfile.open(fileobj=process.stdin, mode="w|") as tar:
            for path in (source.key, source.chain):
                info = tarfile.TarInfo(path.name)
                info.size, info.mode, info.mtime = path.stat().st_size, 0o600, int(time.time())
                with path.open("rb") as file:
                    tar.addfile(info, file)
    assert process.returncode == 0
