"""Measure the Compose target of a generated project: image, build, start, memory.

    uv run python benchmarks/compose.py            # prints the table
    uv run python benchmarks/compose.py --write    # and keeps it in benchmarks/results/

It needs a container engine. Layers are built without the engine's cache for the cold build; what uv
has downloaded before is not downloaded again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from targets.compose import PRODUCTION, Stack, unique_slug  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "compose.md"
BASE = "python:3.13-slim-trixie"
ROUNDS = 3
#: Seconds until memory is read.
IDLE = 20.0
MIB = 1024 * 1024

#: Run in a container: what its control group uses, of version 2 or 1.
READ_MEMORY = """
cd /sys/fs/cgroup
if [ -e memory.current ]; then cat memory.current memory.stat
else cat memory/memory.usage_in_bytes memory/memory.stat; fi
"""


def main() -> None:
    """Measure and print, and write if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS}")
    write = parser.parse_args().write
    settings = {"MANIFEST_URL": "http://web:8000/sample-manifest.json"}
    with tempfile.TemporaryDirectory() as folder:
        template = support.copy_template(Path(folder) / "template")
        project = support.render(
            template, Path(folder) / "project", {"project_slug": unique_slug()}
        )
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        table = measure(Stack(project, PRODUCTION, settings))
    print(table)
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table)


def measure(stack: Stack) -> str:
    """Measure a stack that is down, and return the table."""
    try:
        cold = seconds(stack, "build", "--quiet", "--no-cache")
        image = (size(stack.images[0]) - size(BASE)) / 1e6
        rebuilds = []
        for number in range(ROUNDS):
            with (stack.project / stack.slug / "ops" / "health.py").open("a") as file:
                file.write(f"# {number}\n")
            rebuilds.append(seconds(stack, "build", "--quiet"))
        starts = []
        for _ in range(ROUNDS):
            starts.append(seconds(stack, "up", "--detach", "--wait"))
            if len(starts) < ROUNDS:
                stack.compose("down", "--volumes")
        stack.smoke()
        time.sleep(IDLE)
        memory = idle_memory(stack)
    finally:
        stack.remove()
    rows = [
        ("image of web and worker, over its base image", f"{image:.0f} MB", "90 MB"),
        ("cold build of all images", f"{cold:.1f} s", ""),
        ("build after a change of one line", f"{max(rebuilds):.1f} s", "5 s"),
        ("from `up` to healthy", f"{max(starts):.1f} s", "10 s"),
        ("idle memory of the whole stack", f"{sum(memory.values()):.0f} MiB", "180 MiB"),
        *((f"- {service}", f"{used:.0f} MiB", "") for service, used in memory.items()),
    ]
    lines = [
        "# Docker Compose, production",
        "",
        f"Made by `benchmarks/compose.py` on {time.strftime('%Y-%m-%d')}, on {machine()}.",
        f"Times are the longest of {ROUNDS}; the cold build finds uv's downloads, and no layer.",
        "Memory is what each container's control group uses, without files that could be",
        f"dropped, after a run of the smoke suite and {IDLE:.0f} s of rest.",
        "",
        "| what | measured | goal |",
        "| --- | --- | --- |",
        *(f"| {what} | {measured} | {goal} |" for what, measured, goal in rows),
    ]
    return "\n".join(lines) + "\n"


def seconds(stack: Stack, *command: str) -> float:
    """Run a command of Compose and return how long it took."""
    began = time.monotonic()
    stack.compose(*command)
    return time.monotonic() - began


def docker(*command: str) -> str:
    """Run ``docker`` and return its output."""
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


def size(image: str) -> int:
    """Return the size of an image in bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def idle_memory(stack: Stack) -> dict[str, float]:
    """Return the memory of each service in MiB."""
    return {service: service_memory(stack, service) for service in stack.services()}


def service_memory(stack: Stack, service: str) -> float:
    """Return the memory of one service in MiB, without the files that the kernel may forget."""
    said = stack.compose("exec", "-T", service, "sh", "-c", READ_MEMORY)
    used, *counters = said.splitlines()
    files = dict(line.split() for line in counters)
    return (int(used) - int(files["inactive_file"])) / MIB


def machine() -> str:
    """Describe the machine in a few words."""
    version = docker("version", "--format", "{{.Server.Version}}").strip()
    return f"{os.cpu_count()} cores with Docker Engine {version}"


if __name__ == "__main__":
    main()
