"""`microtome records`: the records under a folder, newest first - study, status, model, seed, verdicts.

A damaged record does not hide the others: they are listed, then it is the error.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["records"]


def records(folder: Annotated[Path, typer.Argument(help="where to look")] = Path("runs")) -> None:
    """List the records under a folder."""
    from rich.markup import escape
    from rich.table import Table

    from microtome.cli.display import screen
    from microtome.core.errors import RecordError
    from microtome.records import Record

    files = sorted(folder.rglob("record.json"), key=lambda f: f.stat().st_mtime, reverse=True)
    if not files:
        raise RecordError(f"No records under '{folder}': found no record.json there. Run a study: microtome run STUDY.")
    table = Table("record", "study", "status", "model", "seed", "verdicts", box=None, header_style="bold")
    damaged = []
    for file in files:
        try:
            found = Record.load(file.parent)
        except RecordError as error:
            damaged.append(error)
            continue
        manifest = found.manifest
        verdicts = Counter(j.verdict.outcome for j in found.claims)
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "-"
        model = str(manifest.config.get("model", "-"))
        table.add_row(
            escape(str(file.parent)), escape(manifest.study), manifest.status, escape(model), str(manifest.seed), said
        )
    screen().print(table)
    if damaged:
        raise RecordError(f"{len(damaged)} of {len(files)} records cannot be read; the first: {damaged[0]}")
