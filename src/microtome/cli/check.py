"""`microtome check RECORD`: is it whole? Schema, checksums, claims with their evidence, views that can be drawn."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["check"]


def check(record: Annotated[Path, typer.Argument(help="the folder of a record")]) -> None:
    """Check a record: schema, checksums, claims with controls, views; exit code 2 when it does not hold."""
    from microtome.core.errors import RecordError
    from microtome.records import Record
    from microtome.reports.drawing import draw_view

    found = Record.load(record)
    found.check()
    for view in found.manifest.views:
        draw_view(view, found.tables, found.table)
    if found.status != "finished":
        raise RecordError(
            f"Record '{record}' is not finished: its status is '{found.status}' after {len(found.manifest.stages)} "
            "stages; run the same command to resume."
        )
    typer.echo(
        f"ok: {found.manifest.study}, {len(found.manifest.stages)} stages, {len(found.tables)} tables, "
        f"{len(found.claims)} claims with their controls, {len(found.manifest.views)} views"
    )
