"""Measure how long an owner waits for the tests of a project just made: ``uv run pytest``.

    uv run python benchmarks/own_suite.py            # prints the table
    uv run python benchmarks/own_suite.py --write    # and keeps it in benchmarks/results/

It exits with 1 if the longest of three runs takes a minute or more.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "own_suite.md"
ROUNDS = 3
GOAL = 60.0


def main() -> None:
    """Measure and print, and write if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS}")
    write = parser.parse_args().write
    lines = [
        "# The tests of a project just made",
        "",
        f"Made by `benchmarks/own_suite.py` on {date.today()}, on {os.cpu_count()} cores:",
        f"`uv run pytest`, {ROUNDS} times. The goal is less than {GOAL:.0f} s.",
        "",
        "| answers | tests passed | shortest, s | longest, s |",
        "| --- | --- | --- | --- |",
    ]
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        template = support.copy_template(Path(folder) / "template")
        for examples in ("yes", "no"):
            answers = {"include_examples": examples}
            project = support.render(template, Path(folder) / examples, answers)
            support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
            passed, times = measure(project)
            longest = max(longest, *times)
            row = (f"include_examples={examples}", passed, f"{min(times):.0f}", f"{max(times):.0f}")
            lines.append(f"| {' | '.join(row)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if write:
        RESULTS.write_text(table)
    sys.exit(longest >= GOAL)


def measure(project: Path) -> tuple[str, list[float]]:
    """Run the tests; return how many passed, and the seconds of each run."""
    passed, times = "", []
    for _ in range(ROUNDS):
        began = time.monotonic()
        output = support.succeed("uv", "run", "--quiet", "pytest", "-q", cwd=project)
        times.append(time.monotonic() - began)
        found = re.search(r"(\d+) passed", output)
        passed = found[1] if found else "none"
    return passed, times


if __name__ == "__main__":
    main()
