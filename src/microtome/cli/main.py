"""Entry point of `microtome`. Loads no torch until a command needs a model; our errors are one line, exit code 2."""

import sys

import typer

from microtome.cli import inspect, models
from microtome.core.errors import MicrotomeError

__all__ = ["app", "main"]

app = typer.Typer(
    name="microtome",
    help="Find which parts of a network carry a behaviour, prove it against controls, edit, record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("inspect")(inspect.inspect)
app.command("models")(models.models)


@app.callback()
def _root() -> None:
    """Keep sub-commands even while there are few."""


def main() -> None:
    """Run the command line; a MicrotomeError becomes one line on stderr and exit code 2."""
    try:
        app()
    except MicrotomeError as error:
        typer.secho(f"microtome: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("microtome: interrupted; run the same command to resume", fg="yellow", err=True)
        sys.exit(130)
