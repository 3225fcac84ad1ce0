"""What this machine has of all that tests need beside Python and git, and what was not tried.

A test that needs more than the machine has is skipped with its reason: ``need("npm")`` in a
fixture, ``pytestmark = needs("engine")`` for a file. With ``bin/test --strict`` it fails instead.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Boots a server from the image SERVER
VPS = Path(__file__).resolve().parents[2] / "shared" / "engine" / "vps"
NGINX, SERVER = "nginx:1.26-trixie", "vps:debian-13"
#: What gives a process a clock of its own; empty where it is not installed
FAKETIME = next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")


def chromium() -> str | None:
    """Return the path of this machine's Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _python_3_12() -> bool:
    """Look for one, or let uv download it, as it would by itself."""
    found = ("uv", "python", "find", "--no-project", "--no-python-downloads", "3.12")
    return _succeeds(*found) or _succeeds("uv", "python", "install", "--quiet", "3.12")


@dataclass(frozen=True)
class Need:
    """What tests need, how it is looked for, and the packages of Debian that bring it."""

    name: str
    there: Callable[[], bool]
    packages: str = ""


def _program(program: str, package: str) -> Need:
    return Need(program, lambda: shutil.which(program) is not None, package)


NEEDS = {
    "browser": Need("Chromium", lambda: chromium() is not None, "chromium"),
    "engine": Need(
        "a container engine with Compose",
        lambda: _succeeds("docker", "info") and _succeeds("docker", "compose", "version"),
        "docker.io docker-cli docker-compose docker-buildx",
    ),
    "server": Need(
        f"a container engine with the image {SERVER}, which boots systemd",
        lambda: VPS.exists() and _succeeds("docker", "image", "inspect", SERVER),
    ),
    "nginx": Need(
        f"a container engine with the images {NGINX} and {SERVER}",
        lambda: _succeeds("docker", "image", "inspect", NGINX, SERVER),
    ),
    "faketime": Need("libfaketime", lambda: bool(FAKETIME), "faketime"),
    "npm": _program("npm", "npm"),
    "openssl": _program("openssl", "openssl"),
    "python 3.12": Need("Python 3.12, which uv could not download", _python_3_12),
    "redis-server": _program("redis-server", "redis-server"),
    "ssh": _program("ssh", "openssh-client"),
    "taskset": _program("taskset", "util-linux"),
}


@functools.cache
def lack(what: str) -> str:
    """Say why a test that needs ``what`` cannot run here; empty if it can."""
    need = NEEDS[what]
    if need.there():
        return ""
    return f"needs {need.name}" + (f" (apt-get install {need.packages})" if need.packages else "")


def need(*all_of: str) -> None:
    """Skip the test unless the machine has all that it needs."""
    if reasons := list(filter(None, map(lack, all_of))):
        pytest.skip("; ".join(reasons))


def needs(what: str) -> pytest.MarkDecorator:
    """Return the mark of tests that need it, for a whole file."""
    return pytest.mark.skipif(bool(lack(what)), reason=lack(what))


class Tally:
    """How many tests of each part were tried, and why others were not.

    ``bin/test`` runs pytest twice. The second run takes over what the first one has counted, in the
    file that the environment variable TEST_TALLY names.
    """

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.skipped: Counter[tuple[str, str, str]] = Counter()

    def add(self, reports: Iterable[pytest.TestReport]) -> None:
        """Count the results of tests, each test once."""
        skipped, tried = {}, set()
        for report in reports:
            if isinstance(report.longrepr, tuple) and report.skipped:
                skipped[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")
            elif isinstance(report, pytest.TestReport):
                tried.add(report.nodeid)
        for nodeid, reason in skipped.items():
            self.skipped[*_place(nodeid), reason] += 1
        self.tried.update(_place(nodeid)[0] for nodeid in tried - skipped.keys())

    def lines(self) -> list[str]:
        """Return a short table, and the one command that brings what was missing."""
        parts = sorted({*self.tried, *(part for part, _, _ in self.skipped)})
        lines = []
        for part in parts:
            missed = sum(count for key, count in self.skipped.items() if key[0] == part)
            text = f"{self.tried[part]:5} tried"
            lines.append(f"{part:<14} {text}, {missed} not" if missed else f"{part:<14} {text}")
        by_reason: dict[tuple[str, str], Counter[str]] = {}
        for (part, file, reason), count in self.skipped.items():
            by_reason.setdefault((part, reason), Counter())[file] += count
        for (part, reason), files in sorted(by_reason.items()):
            lines.append(f"not tried: {part}, {', '.join(sorted(files))} ({files.total()})")
            lines.append(f"{'':<14} {reason}")
        found = (re.findall(r"\(apt-get install ([^)]+)\)", key[2]) for key in self.skipped)
        packages = {name for texts in found for text in texts for name in text.split()}
        if packages:
            command = f"sudo apt-get install --yes {' '.join(sorted(packages))}"
            lines.append(f"This brings what is missing, on Debian: {command}")
        return lines

    def continued(self) -> Tally:
        """Add what an earlier run has counted, and leave all of it for a later one."""
        file = Path(os.environ.get("TEST_TALLY") or os.devnull)
        if text := file.read_text(encoding="utf-8"):
            tried, skipped = json.loads(text)
            self.tried.update(tried)
            self.skipped.update({(part, name, why): count for part, name, why, count in skipped})
        rows = [[*key, count] for key, count in self.skipped.items()]
        file.write_text(json.dumps([self.tried, rows]), encoding="utf-8")
        return self


def _place(nodeid: str) -> tuple[str, str]:
    """Return the part of the tests, and the file, that a test belongs to."""
    path = Path(nodeid.partition("::")[0])
    return path.parts[1] if len(path.parts) > 2 else path.stem, path.stem
