"""`flask dev` as a whole, on a small project: it starts, reloads and stops cleanly."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from devtools.dev.redis_server import running_url
from redis import Redis
from sample_project import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

WAIT = 60.0  # seconds; reached only when something is broken


class Dev:
    """A running `flask dev`, with its output as it comes."""

    def __init__(self, project: Path, port: int, env: dict[str, str]) -> None:
        self.port = port
        self.instance = project / "instance"
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flask", "dev", "--port", str(port)],
            cwd=project,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, *texts: str, after: int = 0) -> int:
        """Wait for a line that holds all `texts`; return the number of the line that follows it."""

        def find() -> int | None:
            numbers = range(after, len(self.lines))
            return next((n + 1 for n in numbers if all(t in self.lines[n] for t in texts)), None)

        with self._news:
            found = self._news.wait_for(find, WAIT)
        if not found:
            pytest.fail("\n".join([f"No line with {texts} after line {after}:", *self.lines]))
        return found

    def get(self, path: str) -> tuple[int, str]:
        """Ask the web server; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def wait(self) -> int:
        """Wait for the end and the last line; return the exit code."""
        code = self.process.wait(WAIT)
        self._reader.join(WAIT)
        return code


@pytest.fixture(params=["", "fake"], ids=["valkey", "as on Windows"])
def dev(project: Path, request: pytest.FixtureRequest) -> Iterator[Dev]:
    """`flask dev`, running: once with the real server, once with what stands in on Windows."""
    port = support.free_port()
    running = Dev(project, port, environment(DEV_REDIS=request.param))
    try:
        running.wait_for("dev ", "Ready")
        yield running
    finally:
        running.process.terminate()  # nothing to do if it has ended as it should
        running.wait()


def processes_in(folder: Path) -> dict[int, str]:
    """What runs with this working folder or one below it (Linux; elsewhere nothing is found)."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                text = (process / "cmdline").read_text()
                found[int(process.name)] = text.replace("\0", " ")
        except OSError:
            continue  # it has ended meanwhile, or belongs to somebody else
    return found


def test_it_runs_reloads_and_stops(dev: Dev, project: Path) -> None:
    assert dev.get("/healthz") == (200, "well")
    assert running_url(dev.instance) is not None
    assert processes_in(project) or sys.platform != "linux"
    line = dev.wait_for("worker", " ready")

    views = project / "sample" / "views.py"
    code = "\nimport os\nprint('the new code says', os.environ['MARK'], flush=True)\n"
    views.write_text(views.read_text() + code)
    line = dev.wait_for("dev ", "views.py changed: restarting", after=line)
    dev.wait_for("web ", "the new code says one", after=line)
    dev.wait_for("worker ", "the new code says one", after=line)
    line = dev.wait_for("dev ", "Ready", after=line)
    assert dev.get("/healthz")[0] == 200

    settings = project / ".env"
    settings.write_text(settings.read_text().replace("MARK=one", "MARK=two"))
    dev.wait_for("web ", "the new code says two", after=line)
    dev.wait_for("worker ", "the new code says two", after=line)
    line = dev.wait_for("dev ", "Ready", after=line)

    views.write_text(views.read_text() + "\nthis is no Python\n")
    line = dev.wait_for("web ended with exit code", after=line)
    views.write_text(views.read_text().replace("\nthis is no Python\n", ""))
    line = dev.wait_for("dev ", "Ready", after=line)
    assert dev.get("/healthz")[0] == 200

    dev.process.send_signal(signal.SIGINT)
    assert dev.wait() == 0
    assert dev.lines[-1].endswith("Stopped.")
    assert running_url(dev.instance) is None
    assert processes_in(project) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dev", [""], ids=["valkey"], indirect=True)
def test_a_killed_worker_comes_back_without_an_edit(dev: Dev, project: Path) -> None:
    line = dev.wait_for("worker", " ready")
    # Its guard has the command behind its own name.
    clusters = [
        number
        for number, command in processes_in(project).items()
        if "celery cluster" in command and "guard.py" not in command
    ]
    os.kill(min(clusters), signal.SIGKILL)
    line = dev.wait_for("dev ", "worker was ended by SIGKILL. It starts again.", after=line)
    dev.wait_for("worker", " ready", after=line)


def test_a_second_one_in_the_same_project_is_refused(dev: Dev, project: Path) -> None:
    port = support.free_port()
    second = Dev(project, port, environment())
    assert second.wait() == 1
    assert str(dev.process.pid) in second.lines[-1]


@pytest.mark.parametrize("dev", [""], ids=["valkey"], indirect=True)
def test_everything_stops_when_redis_ends(dev: Dev, project: Path) -> None:
    with Redis.from_url(running_url(dev.instance) or "") as redis:
        redis.shutdown()
    assert dev.wait() == 1
    assert any("redis ended with exit code 0. Stopping the rest." in line for line in dev.lines)
    assert processes_in(project) == {}
