"""`flask dev` runs several programs: names in front of lines, one stop for all, no process left."""

import inspect
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devtools.dev import processes
from devtools.dev.processes import Changed, ProcessManager, Program, Stop
from devtools.dev.screen import Output
from flask_background import Child

WAIT = 30.0  # seconds; reached only when something is broken

# Says its name, and says good-bye when it is stopped gracefully.
POLITE = """
import os, signal, sys, time
def bye(*_):
    os.write(1, f"{sys.argv[1]} says bye\\n".encode())  # the print below may be at work still
    sys.exit(0)
signal.signal(getattr(signal, "SIGBREAK", signal.SIGTERM), bye)
print(sys.argv[1], "is up", flush=True)
time.sleep(600)
"""
# Refuses to stop.
STUBBORN = POLITE.replace("sys.exit(0)", "pass")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class Window(io.StringIO):
    """Where the output goes; acts when a text appears."""

    def __init__(self) -> None:
        super().__init__()
        self._actions: list[tuple[str, Callable[[], None]]] = []

    def on(self, text: str, action: Callable[[], None]) -> None:
        """Call `action` once, when a line with `text` is printed."""
        self._actions.append((text, action))

    def write(self, text: str) -> int:
        for entry in list(self._actions):
            if entry[0] in text:
                self._actions.remove(entry)
                entry[1]()
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


class Lifeline:
    """Tells when a process has ended, however it ended: its connection to us breaks."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(WAIT)
        port = self._server.getsockname()[1]
        self.code = (
            f"import socket; line = socket.create_connection(('127.0.0.1', {port})); "
            "line.sendall(b'x'); "
        )

    def connected(self) -> socket.socket:
        """Wait until a process that runs `code` has called."""
        connection, _ = self._server.accept()
        connection.settimeout(WAIT)
        assert connection.recv(1) == b"x"
        return connection

    def close(self) -> None:
        self._server.close()


def has_ended(connection: socket.socket) -> bool:
    """Wait for the end of the process that holds the other side."""
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    line = Lifeline()
    yield line
    line.close()


@pytest.fixture
def window() -> Window:
    return Window()


def program(name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code, name])


def manage(window: Window, names: list[str], **options: object) -> ProcessManager:
    return ProcessManager(Output(names, window), **options)  # type: ignore[arg-type]


def test_each_line_stands_behind_the_name_of_its_program(window: Window) -> None:
    manager = manage(window, ["web", "worker"], reload=False)
    code = "import sys; print('one'); print('two', file=sys.stderr); print('three', end='')"
    assert manager.run([program("web", code)]) == 1
    assert {"web    | one", "web    | two", "web    | three"} <= set(window.lines)


def test_bytes_that_are_no_text_do_not_stop_the_output(window: Window) -> None:
    manager = manage(window, ["web"], reload=False)
    manager.run([program("web", r"import os; os.write(1, b'caf\xe9\ncaf\xc3\xa9\n')")])
    assert {"web | caf\N{REPLACEMENT CHARACTER}", "web | café"} <= set(window.lines)


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),  # not a terminal
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, False),
    ],
)
def test_names_are_coloured_where_colours_are_wanted(
    window: Window, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Output(["web"], window).line("web", "text")
    assert ("\x1b[" in window.getvalue()) is coloured


def test_a_closed_window_does_not_stop_the_programs() -> None:
    window = Window()
    output = Output(["web"], window)
    window.close()
    output.line("web", "nobody reads this")


def test_the_last_started_is_stopped_first(window: Window) -> None:
    manager = manage(window, ["first", "second"])
    window.on("is up", lambda: window.on("is up", lambda: manager.post(Stop())))
    assert manager.run([program("first", POLITE), program("second", POLITE)]) == 0
    text = window.getvalue()
    assert text.index("second says bye") < text.index("first says bye")


@posix_only
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_signal_stops_everything(window: Window, number: str) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    manager = manage(window, ["web"])
    window.on("is up", lambda: signal.pthread_kill(main_thread, getattr(signal, number)))
    before = signal.getsignal(signal.SIGINT)
    assert manager.run([program("web", POLITE)]) == 0
    assert "web | web says bye" in window.lines
    assert signal.getsignal(signal.SIGINT) is before


@posix_only
def test_what_does_not_stop_is_killed_after_the_grace(window: Window) -> None:
    manager = manage(window, ["web"], grace=0.2)
    window.on("is up", lambda: manager.post(Stop()))
    assert manager.run([program("web", STUBBORN)]) == 0
    assert "web | web says bye" in window.lines


@posix_only
def test_a_second_signal_kills_at_once(window: Window) -> None:
    manager = manage(window, ["web"], grace=10 * WAIT)
    window.on("is up", lambda: manager.post(Stop()))
    window.on("says bye", lambda: manager.post(Stop()))
    assert manager.run([program("web", STUBBORN)]) == 0


@posix_only
def test_a_process_that_a_program_forgot_is_ended_with_it(
    window: Window, lifeline: Lifeline
) -> None:
    manager = manage(window, ["web"])
    forgotten = f"{lifeline.code} import time; time.sleep(600)"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {forgotten!r}]);"
    connections = []

    def stop_when_connected() -> None:
        connections.append(lifeline.connected())
        manager.post(Stop())

    window.on("is up", stop_when_connected)
    manager.run([program("web", start + POLITE)])
    assert has_ended(connections[0])


@posix_only
def test_nothing_survives_when_the_owner_is_killed(lifeline: Lifeline) -> None:
    code = f"{lifeline.code} import time; time.sleep(600)"
    owner_code = (
        "import sys, time; from child import Child; "
        f"Child('web', [sys.executable, '-c', {code!r}], on_line=print); time.sleep(600)"
    )
    folder = Path(inspect.getfile(Child)).parent
    owner = subprocess.Popen([sys.executable, "-c", owner_code], cwd=folder)
    try:
        connection = lifeline.connected()
    finally:
        owner.kill()
        owner.wait()
    assert has_ended(connection)


def test_a_change_starts_the_programs_anew(window: Window) -> None:
    manager = manage(window, ["web"])
    code = "import os; print('pid', os.getpid(), flush=True); import time; time.sleep(600)"

    def change() -> None:
        window.on("pid", lambda: manager.post(Stop()))
        manager.post(Changed(["views.py", "models.py"]))

    window.on("pid", change)
    starts: list[int] = []
    assert manager.run([program("web", code)], lambda child: starts.append(child.pid)) == 0
    assert "dev | views.py and 1 more changed: restarting" in window.lines
    assert len(set(starts)) == 2


def test_a_program_that_failed_starts_again_with_the_next_change(window: Window) -> None:
    manager = manage(window, ["web"])

    def change() -> None:
        window.on("ended with exit code 3", lambda: manager.post(Stop()))
        manager.post(Changed(["views.py"]))

    window.on("ended with exit code 3", change)
    assert manager.run([program("web", "raise SystemExit(3)")]) == 0
    said = "dev | web ended with exit code 3. It starts again when a file changes."
    assert window.lines.count(said) == 2


@posix_only
@pytest.mark.parametrize("reload", [True, False])
def test_a_program_that_was_killed_starts_again_by_itself(
    window: Window, tmp_path: Path, reload: bool
) -> None:
    manager = manage(window, ["web"], reload=reload)
    killed = tmp_path / "killed"
    code = (
        f"import os, pathlib, signal, time; killed = pathlib.Path({str(killed)!r})\n"
        "if not killed.exists(): killed.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "print('up again', flush=True); time.sleep(600)"
    )
    window.on("up again", lambda: manager.post(Stop()))
    assert manager.run([program("web", code)]) == 0
    assert "dev | web was ended by SIGKILL. It starts again." in window.lines


@posix_only
def test_a_program_that_is_killed_each_time_waits_between_two_starts(window: Window) -> None:
    manager = manage(window, ["web"])
    moments: list[float] = []

    def note(_: Child) -> None:
        moments.append(time.monotonic())
        if len(moments) == 2:
            manager.post(Stop())

    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert manager.run([program("web", code)], note) == 0
    # It would be started again at once. (The first moment is noted a little after the first start.)
    assert moments[1] - moments[0] > processes.PAUSE / 2


def test_without_reload_the_end_of_one_stops_the_rest(window: Window) -> None:
    manager = manage(window, ["web", "worker"], reload=False)
    code = manager.run([program("web", POLITE), program("worker", "raise SystemExit(3)")])
    assert code == 1
    assert "dev    | worker ended with exit code 3. Stopping the rest." in window.lines


def test_a_program_that_does_not_exist_is_reported(window: Window) -> None:
    manager = manage(window, ["web"], reload=False)
    assert manager.run([Program("web", ["/no/such/program"])]) == 1
    assert any("/no/such/program cannot be started" in line for line in window.lines)


@posix_only
def test_the_exit_code_tells_of_a_signal() -> None:
    child = Child("web", [sys.executable, "-c", "import time; time.sleep(600)"], on_line=print)
    child.kill()
    assert child.wait(WAIT)
    assert child.returncode == 128 + signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
