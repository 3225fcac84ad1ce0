"""Run one command, and end it with all that it started when the owner says so or is gone.

    python guard.py GRACE COMMAND [ARGUMENT ...]

The owner (see child.py) holds the other end of this program's standard input:

- the letter `s`, or the end of the input, stops the command gracefully: SIGTERM, or Ctrl-Break on
  Windows. What still runs after GRACE seconds is killed. The operating system closes the input
  when the owner is killed, so no process outlives its owner, on any system;
- the letter `k` kills at once.

The signal goes to the command alone: programs with children of their own, such as Celery, expect
to tell their children themselves. The exit code is the command's, or 128 + n for signal n.

Only the standard library, and no import of the application: a guard must be small and start fast.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

CANNOT_START = 127


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, out of reach of the terminal's Ctrl-C."""
    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=sys.platform != "win32",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def terminate(child: subprocess.Popen[bytes], grace: float) -> None:
    """Ask the command to stop; kill what remains after `grace` seconds."""
    timer = threading.Timer(grace, kill, [child])
    timer.daemon = True
    timer.start()
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            child.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            child.terminate()


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the command and every process of its group."""
    if sys.platform == "win32":
        tree = ["taskkill", "/F", "/T", "/PID", str(child.pid)]
        subprocess.run(tree, capture_output=True, check=False)  # noqa: S603
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def follow_orders(child: subprocess.Popen[bytes], grace: float) -> None:
    """Read the owner's letters until the input ends."""
    # os.read, not sys.stdin: a buffered reader would hold a lock that the interpreter needs to end.
    while (order := os.read(0, 1)) == b"s":
        terminate(child, grace)
    if order == b"k":
        kill(child)
    else:
        terminate(child, grace)


def main(arguments: list[str]) -> int:
    """Run the command of `arguments` (GRACE COMMAND ...) and return its exit code."""
    grace, command = float(arguments[0]), arguments[1:]
    try:
        child = start(command)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror or error}", flush=True)
        return CANNOT_START
    signal.signal(signal.SIGTERM, lambda *_: terminate(child, grace))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow_orders, args=(child, grace), daemon=True).start()
    code = child.wait()
    if sys.platform != "win32":
        kill(child)  # the command has gone; what it forgot in its group goes too
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
