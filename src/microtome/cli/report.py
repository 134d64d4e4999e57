"""`microtome report RECORD`: write the report of a record, and its figures as files when asked."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    record: Annotated[Path, typer.Argument(help="the folder of a record")],
    figures: Annotated[Path | None, typer.Option(help="also write each figure here, as SVG and PNG")] = None,
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="open the report when done")] = False,
) -> None:
    """Write report.html beside a record: one file that opens offline."""
    from microtome.cli.catalog import study_of
    from microtome.cli.display import open_page
    from microtome.records import Record
    from microtome.reports import export_figures, render

    found = Record.load(record)
    path = render(found, study_of(found)).resolve()
    if figures is not None:
        typer.echo(f"figures: {len(export_figures(found, figures))} files in {figures}")
    typer.echo(f"report: {path}")
    if open_report:
        open_page(path)
