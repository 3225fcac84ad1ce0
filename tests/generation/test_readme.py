"""What the README says beside other templates is true of this one."""

from __future__ import annotations

import re
import subprocess

import pytest
import support

TEXT = (support.ROOT / "README.md").read_text(encoding="utf-8")
#: The search and the last column of each line of the table.
ROWS = [
    (pattern.replace("\\|", "|"), answer)
    for pattern, answer in re.findall(r"^\|[^|]+\| `(.+?)` \|.*\| (\w+) \|$", TEXT, re.MULTILINE)
]


def test_the_table_is_read() -> None:
    assert {answer for _, answer in ROWS} == {"yes", "no"}


@pytest.mark.parametrize(("pattern", "answer"), ROWS)
def test_the_search_finds_what_this_template_has_and_nothing_else(
    pattern: str, answer: str
) -> None:
    search = ["git", "grep", "-liE", pattern, "--", ":!*.md"]
    found = subprocess.run(search, cwd=support.ROOT, check=False, capture_output=True, text=True)
    assert (answer == "yes") == bool(found.stdout), found.stdout


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert pictures
    assert [name for name in pictures if not (support.ROOT / name).is_file()] == []
