"""Query: SQL over the tables of one record or several, by DuckDB.

Each table is a view of its own name. Over several records every view has the further column ``record``, the folder a
row came from, and holds the rows of all records that have the table. A query sees these views and nothing else: files,
network, Python's variables and DuckDB's settings are closed to it.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from microtome.core.errors import RecordError
from microtome.records.record import Record

__all__ = ["query"]

_CLOSED = {"enable_external_access": False, "python_enable_replacements": False, "lock_configuration": True}

Source = Record | str | Path


def query(records: Source | Sequence[Source], sql: str) -> pa.Table:
    """Return the result of a query over the tables of some records.

    Args:
        records: a record or its folder, or several.
        sql: a query in DuckDB's dialect.

    Raises:
        RecordError: the query fails or gives no rows, a record cannot be read, or tables of one name do not stack.

    Example:
        >>> query("runs/recall/a", "select layer, avg(effect) as effect from patching group by layer order by layer")
    """
    import duckdb

    views = _views(records)
    with duckdb.connect(config=_CLOSED) as connection:
        for name, table in views.items():
            if table.column_names:  # DuckDB has no table without columns
                connection.register(name, table)
        try:
            answer = connection.sql(sql)
            found = None if answer is None else answer.to_arrow_table()
        except duckdb.Error as error:
            raise _failed(sql, " ".join(str(error).split()), views) from error
    if found is None:
        raise _failed(sql, "it is no query", views)
    return found


def _views(records: Source | Sequence[Source]) -> dict[str, pa.Table]:
    if isinstance(records, Record | str | Path):
        opened = _opened(records)
        return {name: opened.table(name) for name in opened.tables}
    several = [_opened(r) for r in records]
    names = dict.fromkeys(name for r in several for name in r.tables)
    if twins := [n for n in names if any(m != n and m.lower() == n.lower() for m in names)]:
        raise RecordError(f"Tables {' and '.join(twins)} of different records are one name in SQL; query them singly.")
    return {name: _stack(name, [r for r in several if name in r.tables]) for name in names}


def _opened(source: Source) -> Record:
    return source if isinstance(source, Record) else Record.load(source)


def _stack(name: str, records: Sequence[Record]) -> pa.Table:
    """Return the rows of all records, each with the folder it came from."""
    tables = []
    for record in records:
        table = record.table(name)
        if "record" in (c.lower() for c in table.column_names):
            raise RecordError(f"Table '{name}' of '{record.path}' has a column 'record' of its own; query it singly.")
        tables.append(table.append_column("record", pa.array([str(record.path)] * table.num_rows, pa.string())))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        line = " ".join(str(error).split())
        raise RecordError(
            f"Table '{name}' does not stack over {len(tables)} records: {line}; query them singly."
        ) from error


def _failed(sql: str, found: str, views: dict[str, pa.Table]) -> RecordError:
    listed = ", ".join(views) or "none"
    return RecordError(f"Query '{' '.join(sql.split())}' failed: {found}; the tables are {listed}.")
