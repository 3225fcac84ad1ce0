"""The web server of a project, without the project: its settings, on a small application."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import support

#: /pid says which process answers; any other path takes seconds.
APPLICATION = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] != "/pid":
        time.sleep(4)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""

#: Writes down which process loaded it, and takes a while for it.
SLOW_START = """
import os, pathlib, time

time.sleep(0.5)
pathlib.Path("loaded").write_text(str(os.getpid()))

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""

#: Is stopped while it loads: the main process, and by it this one, which is told at once.
STOPPED_START = """
import os, signal

os.kill(os.getppid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)

def app(environ, start_response):
    return []
"""


@dataclass
class WebServer:
    """A web server that listens on a socket in a folder."""

    process: subprocess.Popen[bytes]
    address: Path

    def ask(self, path: str) -> socket.socket:
        """Connect and send a request."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(str(self.address))
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return client


def answer(client: socket.socket) -> bytes:
    """Return all that comes until the server has no more to say; empty if it hung up."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(1000):
            said += more
    return said


@pytest.fixture
def web(render: Callable[[support.Answers], Path], tmp_path: Path) -> Iterator[WebServer]:
    """Start one with the settings of a project."""
    settings = render({}) / "gunicorn.conf.py"
    (tmp_path / "slow.py").write_text(APPLICATION)
    address = tmp_path / "web.sock"
    command = [sys.executable, "-m", "gunicorn", "-c", str(settings), "slow:app"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "BIND": f"unix:{address}"})
    try:
        while not address.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield WebServer(process, address)
    finally:
        process.kill()
        process.wait()


def test_clients_at_its_door_are_served_before_it_ends(web: WebServer) -> None:
    """They got in before the door was closed, and do not wait for somebody else's long request."""
    assert b"200 OK" in answer(web.ask("/pid"))
    (child,) = psutil.Process(web.process.pid).children()
    long = web.ask("/long")
    child.send_signal(signal.SIGSTOP)  # it is slow to see them, as on a busy machine
    clients = [web.ask("/pid") for _ in range(5)]
    web.process.terminate()
    while web.address.exists():
        time.sleep(0.05)
    child.send_signal(signal.SIGCONT)

    own = str(child.pid).encode()
    assert [answer(client).endswith(own) for client in clients] == [True] * 5
    long.setblocking(False)
    with pytest.raises(BlockingIOError):
        long.recv(1)
    long.settimeout(20)
    assert b"200 OK" in answer(long)
    assert web.process.wait(20) == 0


def run_to_its_end(settings: Path, folder: Path, **environment: str) -> list[str]:
    """Start a web server, stop it as soon as it is ready; return what it wrote."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind(str(folder / "notify.sock"))
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", str(settings), "slow_start:app"],
            cwd=folder,
            env={
                **os.environ,
                "BIND": f"unix:{folder / 'web.sock'}",
                "NOTIFY_SOCKET": str(folder / "notify.sock"),
                **environment,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert (folder / "loaded").exists()
            assert process.stdout
            process.terminate()
            return process.stdout.read().splitlines()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("count", ["1", "2"])
def test_systemd_hears_when_the_application_is_there(
    render: Callable[[support.Answers], Path], tmp_path: Path, count: str
) -> None:
    """Not before, so that what cannot start is seen at once. A single process loads it itself."""
    (tmp_path / "slow_start.py").write_text(SLOW_START)
    settings = render({}) / "gunicorn.conf.py"
    lines = run_to_its_end(settings, tmp_path, WEB_CONCURRENCY=count)
    assert any(
        line.endswith(" INFO    web gunicorn.error: Handling signal: term") for line in lines
    )
    main = next(
        found[1] for line in lines if (found := re.search(r"Listening at: .* \((\d+)\)", line))
    )
    assert ((tmp_path / "loaded").read_text() == main) == (count == "2")


def test_a_stop_while_the_application_loads_is_no_error(
    render: Callable[[support.Answers], Path], tmp_path: Path
) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED_START)
    settings = render({}) / "gunicorn.conf.py"
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", str(settings), "stopped:app"],
        cwd=tmp_path,
        env={**os.environ, "BIND": f"unix:{tmp_path / 'web.sock'}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert [line for line in done.stdout.splitlines() if " INFO    web gunicorn." not in line] == []
