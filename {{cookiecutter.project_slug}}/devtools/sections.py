"""The help of a group in sections, where click writes one list from a to z."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

Sections = Mapping[str, Iterable[str]]


class SectionedGroup(click.Group):
    """A group of commands that stand in sections, in the order in which one needs them."""

    def __init__(self, *arguments: Any, sections: Sections, **more: Any) -> None:
        """Prepare; commands of no section come last."""
        super().__init__(*arguments, **more)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        write_sections(ctx, self, formatter, self.sections, {})


def write_sections(
    ctx: click.Context,
    group: click.Group,
    formatter: click.HelpFormatter,
    sections: Sections,
    lines: Mapping[str, str],
) -> None:
    """Write the commands of a group, each with its line in ``lines`` or else its own."""
    commands = {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
    shown = {name: command for name, command in commands.items() if command and not command.hidden}
    width = max(map(len, shown))
    named = {name for names in sections.values() for name in names}
    rest = [name for name in shown if name not in named]
    for title, names in {**sections, "More": rest}.items():
        limit = formatter.width - width - 6
        rows = [
            (name.ljust(width), lines.get(name) or shown[name].get_short_help_str(limit))
            for name in names
            if name in shown
        ]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
