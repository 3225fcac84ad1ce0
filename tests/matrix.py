"""The render matrix: what is made from which answers, and how the result is read."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import support
from support import Answers

# Free text that breaks whatever does not quote it, in every answer that takes free text.
ODD_TEXT = {
    "project_name": 'Ada\'s "odd" {{ app }} 🦜 \\',
    "description": (
        'It\'s "quoted" twice "over", has C:\\new\\table, {{ braces }}, {% marks %} and '
        "<script>alert('x')</script>,\na second line, # a hash, emoji 👩‍🚀 and ends in \\"
    ),
    "author_name": 'Zoë "Zo" O\'Neil {# \\',
}

# Beside the matrix: what an answer can do to lines, sort orders and quotes.
SPECIAL = [
    {"project_slug": "x" * 30},
    {"project_slug": "x" * 30, "include_examples": "no"},
    {"project_slug": "z"},
    {"project_slug": "ab", "include_examples": "no"},
    {"project_slug": "a_b_c_1", "project_name": "7"},
    ODD_TEXT,
    {**ODD_TEXT, "project_slug": "odd", "include_examples": "no", "license": "proprietary"},
    {"description": "x" * 300, "license": "BSD-3-Clause"},
    {"description": "only 'single' quotes", "project_name": "\"double\" and 'single'"},
]


@dataclass(frozen=True)
class Project:
    """A project that was made, and from which answers."""

    path: Path
    answers: Answers

    def __str__(self) -> str:
        return support.named(self.answers)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of every file by its path."""
        return support.files(self.path)

    @property
    def slug(self) -> str:
        """The name of its package."""
        return self.path.name

    @property
    def python_version(self) -> str:
        """The Python version that was chosen."""
        return self.answers.get("python_version", "3.13")

    def text(self, path: str) -> str:
        """Return the text of one file."""
        return self.files[path].decode("utf-8")


def render_all(template: Path, output: Path, sheets: list[Answers]) -> list[Project]:
    """Make a project from each sheet of answers, on all processors, and return them in order."""
    work = [(template, output / str(number), sheet) for number, sheet in enumerate(sheets)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        paths = pool.map(support.render, *zip(*work, strict=True), chunksize=8)
        return [Project(path, sheet) for path, sheet in zip(paths, sheets, strict=True)]
