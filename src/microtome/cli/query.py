"""`microtome query RECORD SQL`: ask a record's tables, by DuckDB."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["query"]


def query(
    record: Annotated[Path, typer.Argument(help="the folder of a record")],
    sql: Annotated[str, typer.Argument(help="e.g. 'select layer, avg(effect) from patching group by layer'")] = "",
    csv: Annotated[bool, typer.Option("--csv", help="comma-separated, every row")] = False,
    limit: Annotated[int, typer.Option(help="rows to print")] = 40,
) -> None:
    """Print the answer to a query; without one, the record's tables and their columns."""
    from microtome.records import Record
    from microtome.records import query as ask

    found = Record.load(record)
    if not sql:
        for name in found.tables:
            table = found.table(name)
            typer.echo(f"{name} ({table.num_rows:,} rows): {', '.join(table.column_names)}")
        return
    answer = ask(found, sql)
    if csv:
        _print_csv(answer)
    else:
        _print_table(answer, limit)


def _print_csv(answer) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(answer.column_names)
    writer.writerows(row.values() for row in answer.to_pylist())
    typer.echo(text.getvalue(), nl=False)


def _print_table(answer, limit: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from microtome.cli.display import screen

    table = Table(*map(escape, answer.column_names), box=None, header_style="bold")
    for row in answer.slice(0, limit).to_pylist():
        table.add_row(*(escape(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row.values()))
    screen().print(table)
    if answer.num_rows > limit:
        typer.echo(f"{limit} of {answer.num_rows:,} rows; --limit or --csv for more")
