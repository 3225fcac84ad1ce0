"""``flask dev``, ``flask deploy``, ``flask smoke``: tools for your machine, never for production.

On a developer's machine the command line begins here, because ``.flaskenv`` says
``FLASK_APP=devtools``. The tools need no application, so they work also when it cannot be loaded.
For every other command the application is loaded, and when that fails, a sentence says why. On a
server there is no devtools, and the command line is the application's own.
"""

from __future__ import annotations

import click
from flask import Flask
from flask.cli import AppGroup, FlaskGroup, ScriptInfo

from .application import load
from .deploy.command import deploy
from .dev.command import dev
from .sections import write_sections
from .smoke import smoke

TOOLS = (dev, deploy, smoke)
SECTIONS = {
    "On your machine": ("dev", "routes", "shell", "run"),
    "Background work": ("celery",),
    "Deployment": ("check", "deploy", "smoke"),
}
#: What libraries say of their commands in words that a newcomer need not know.
LINES = {
    "limiter": "Look at the rate limits, and clear them.",
    "routes": "List the addresses that the application answers.",
    "run": "Run the web server alone; `dev` runs all of it.",
    "shell": "Open a Python prompt in the application.",
}


def create_app() -> Flask:
    """Return what ``flask`` asks for: the application, or only its place while it looks a name up.

    Raises ``click.ClickException`` when the application cannot be loaded.
    """
    context = click.get_current_context(silent=True)
    if context is None or not isinstance(context.command, FlaskGroup):
        return load_with_tools()  # a command of Flask's own, such as `flask run`
    # Flask's own group lists its commands from a to z and looks for the application meanwhile. So
    # our sections take the place of that list where its help ends.
    setattr(context.command, "format_epilog", _format_sections)  # noqa: B010
    place = Flask(__name__)
    place.cli = Commands()
    return place


def load_with_tools() -> Flask:
    """Load the application and add the tools. Raises ``click.ClickException``."""
    app = load()
    for command in TOOLS:
        app.cli.add_command(command)
    return app


def _format_sections(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    if "Commands:\n" in formatter.buffer and isinstance(ctx.command, click.Group):
        del formatter.buffer[formatter.buffer.index("Commands:\n") - 1 :]
        write_sections(ctx, ctx.command, formatter, SECTIONS, LINES)


class Commands(AppGroup):
    """The tools; the application is loaded when another name, or all names, are asked for."""

    def __init__(self) -> None:
        super().__init__(commands={str(command.name): command for command in TOOLS})
        self._told = False

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a tool, or a command of the application. Raises ``click.ClickException``."""
        found = super().get_command(ctx, cmd_name)
        found = found or _application(ctx).cli.get_command(ctx, cmd_name)
        if found is None and isinstance(ctx.command, FlaskGroup):
            names = ctx.command.list_commands(ctx)
            raise click.NoSuchCommand(cmd_name, possibilities=names, ctx=ctx)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the tools and the application's commands; say so if it cannot be loaded."""
        try:
            return _application(ctx).cli.list_commands(ctx)
        except click.ClickException as error:
            if not self._told:  # the help asks twice
                click.secho(f"{error.format_message()}\n", err=True, fg="red")
            self._told = True
            return super().list_commands(ctx)


def _application(ctx: click.Context) -> Flask:
    """Load the application, for this and for all that comes after in this command line."""
    info = ScriptInfo(create_app=load_with_tools)
    app = info.load_app()
    ctx.obj = info
    ctx.with_resource(app.app_context())
    return app
