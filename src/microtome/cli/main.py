"""Entry point of `microtome`. Loads no torch until a command needs a model; our errors are one line, exit code 2."""

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from microtome.cli import check, edit, inspect, models, query, records, report, run, studies, zoo
from microtome.cli.launch import relaunch
from microtome.core.errors import MicrotomeError

__all__ = ["app", "main"]

app = typer.Typer(
    name="microtome",
    help="Find which parts of a network carry a behaviour, prove it against controls, edit, record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run", context_settings=run.OPEN_OPTIONS)(run.run)
app.command("studies")(studies.studies)
app.command("models")(models.models)
app.command("inspect")(inspect.inspect)
app.command("report")(report.report)
app.command("check")(check.check)
app.command("records")(records.records)
app.command("query")(query.query)
app.add_typer(zoo.app, name="zoo")
app.add_typer(edit.app, name="edit")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"microtome {version('microtome')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_say_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


def main() -> None:
    """Run the command line; a MicrotomeError becomes one line on stderr and exit code 2."""
    relaunch()
    try:
        app()
    except MicrotomeError as error:
        typer.secho(f"microtome: {' '.join(str(error).split())}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
