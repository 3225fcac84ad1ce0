# /// script
# requires-python = ">=3.11"
# dependencies = ["rich>=14"]
# ///
"""Take the pictures of terminals in the README, from real runs.

    uv run docs/pictures.py dev               makes a project and starts it
    uv run docs/pictures.py release HOST ...  releases a project to a server that was set up

HOST and what follows go to ``flask deploy release``; --project FOLDER is the project, and
--ssh-config FILE the settings of ssh. An address in the output becomes 203.0.113.7, nobody's.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images"
WIDTH = 120
ADDRESS = re.compile(r"(?<![\d.])(?!127\.)(\d{1,3}\.){3}\d{1,3}")
CLEAR_LINE = "\x1b[K"


def on_a_terminal(
    command: list[str], folder: Path, done: Callable[[str], bool], **variables: str
) -> str:
    """Run a command on a terminal, until it ends or ``done`` with its output; return that."""
    variables.setdefault("VIRTUAL_ENV", "")
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(folder)
        settings = {"COLUMNS": str(WIDTH), "LINES": "40", "TERM": "xterm-256color", **variables}
        os.execvpe(command[0], command, {**os.environ, **settings})  # noqa: S606
    seen = b""
    stopped = False
    while True:
        try:
            read = os.read(screen, 65536)
        except OSError:  # the terminal is closed
            break
        if not read:
            break
        seen += read
        if not stopped and done(seen.decode(errors="replace")):
            os.write(screen, b"\x03")  # Ctrl-C
            stopped = True
    os.waitpid(pid, 0)
    return seen.decode(errors="replace")


def draw(name: str, command: str, output: str) -> None:
    """Write docs/images/NAME.svg: the command, and what it said."""
    text = ADDRESS.sub("203.0.113.7", output.replace("\r\n", "\n").replace(CLEAR_LINE, ""))
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    lines = Text.from_ansi(f"$ {command}\n{text}".rstrip())
    console.print(lines, no_wrap=True, overflow="ellipsis")
    path = PICTURES / f"{name}.svg"
    console.save_svg(str(path), title=command, theme=MONOKAI)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


def dev() -> None:
    """Start a new project, run a task, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        make = ["uv", "run", "--project", str(ROOT), "cookiecutter", "--no-input"]
        make += ["--default-config", "--output-dir", folder, str(ROOT)]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        project = Path(folder, "my_app")
        subprocess.run(["uv", "sync", "--quiet"], cwd=project, check=True)
        asked = False

        def one_task_is_done(output: str) -> bool:
            nonlocal asked
            if "Ctrl-C" in output and not asked:
                asked = True
                start = ["curl", "-s", "-H", "Content-Type: application/json"]
                start += ["-d", '{"duration": 2}', "http://127.0.0.1:8000/api/v1/start-task"]
                subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
            return asked and output.count("succeeded") > 0

        # Celery warns those who are root, as one is in a container.
        quiet = {"PYTHONWARNINGS": "ignore"}
        command = ["uv", "run", "--quiet", "flask", "dev"]
        output = on_a_terminal(command, project, one_task_is_done, **quiet)
        shown = output[: output.index("\n", output.index("succeeded"))]
        draw("dev", "uv run flask dev", shown.replace(str(project), "my_app"))


def release(project: Path, ssh_config: str, arguments: list[str]) -> None:
    """Release a project to a server."""
    settings = ["--ssh-config", ssh_config] if ssh_config else []
    command = ["uv", "run", "--quiet", "flask", "deploy", *settings, "release", *arguments]
    output = on_a_terminal(command, project, lambda _: False)
    draw("release", "uv run flask deploy release root@203.0.113.7", output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", choices=["dev", "release"])
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--ssh-config", default="")
    chosen, rest = parser.parse_known_args()
    if chosen.picture == "dev":
        dev()
    else:
        release(chosen.project, chosen.ssh_config, rest)
