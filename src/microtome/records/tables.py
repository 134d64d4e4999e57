"""Tables: flat rows as Parquet, the same bytes for the same content.

Rows may come as dictionaries, as columns, or as a pyarrow Table. Columns keep the order in which they first appear; a
row without some key has null there. NaN and infinity are refused; `Missing(reason)` in a cell becomes null and its
reason goes to record.json. Schema metadata is dropped and one writer setting used, so that two runs of one seed leave
identical files (for one version of pyarrow, which stamps its name into them).
"""

import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microtome.core.errors import RecordError
from microtome.records.values import Missing, Reason, text_key

__all__ = ["Rows", "table_bytes", "table_from", "table_of"]

Rows = Iterable[Mapping[str, object]] | Mapping[str, Sequence[object]] | pa.Table
"""What a table may be given as."""

_ROW_GROUP = 131_072


def table_of(name: str, rows: Rows, reasons: list[Reason]) -> pa.Table:
    """Return the rows as a pyarrow Table without NaN.

    Args:
        name: the table's name, for reasons and errors.
        rows: a list of dictionaries, a dictionary of columns, or a Table.
        reasons: takes a Reason for each (column, reason) of the Missing cells.

    Raises:
        RecordError: a column mixes types, columns differ in length or have one name, or a number is NaN or infinite.
    """
    if isinstance(rows, pa.Table):
        table = rows.replace_schema_metadata(None)
    else:
        columns = rows if isinstance(rows, Mapping) else _columns(name, rows)
        _refuse_ragged(name, columns)
        arrays = [_array(f"tables.{name}.{c}", values, reasons) for c, values in columns.items()]
        table = pa.table(arrays, names=[text_key(c, f"tables.{name}") for c in columns])
    _refuse_twins(name, table.column_names)
    for i, (column, values) in enumerate(zip(table.column_names, table.columns, strict=True)):
        _refuse_nan(f"tables.{name}.{column}", values)
        if pa.types.is_float16(values.type):  # DuckDB reads none
            table = table.set_column(i, column, values.cast(pa.float32()))
    return table.combine_chunks()


def table_bytes(name: str, table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file.

    Args:
        name: its name, for errors.
        table: the table.

    Raises:
        RecordError: Parquet cannot hold a column's type.
    """
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink, compression="zstd", version="2.6", row_group_size=_ROW_GROUP)
    except pa.ArrowException as error:
        raise RecordError(f"Table '{name}' cannot be stored: {_line(error)}; use a simpler type.") from error
    return sink.getvalue()


def table_from(data: bytes) -> pa.Table:
    """Return the table in the bytes of a file that `table_bytes` made."""
    return pq.read_table(pa.BufferReader(data))


def _columns(name: str, rows: Iterable[Mapping[str, object]]) -> dict[str, list]:
    rows = list(rows)
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RecordError(f"Table '{name}' row {i} is a {type(row).__name__}; give each row as a dictionary.")
    names = dict.fromkeys(key for row in rows for key in row)
    return {column: [row.get(column) for row in rows] for column in names}


def _refuse_ragged(name: str, columns: Mapping[str, Sequence[object]]) -> None:
    lengths = {}
    for column, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise RecordError(f"Column 'tables.{name}.{column}' is a {type(values).__name__}; give one value per row.")
        lengths[column] = len(values)
    if len(set(lengths.values())) > 1:
        raise RecordError(f"Table '{name}' has columns of lengths {lengths}; give every column one value per row.")


def _refuse_twins(name: str, columns: Sequence[str]) -> None:
    """Refuse two columns of one name; SQL does not tell capitals from small letters."""
    seen: dict[str, str] = {}
    for column in columns:
        if (twin := seen.setdefault(column.lower(), column)) is not column:
            raise RecordError(f"Table '{name}' has the columns '{twin}' and '{column}', one name in SQL; rename one.")


def _array(where: str, values: Sequence[object], reasons: list[Reason]) -> pa.Array | pa.ChunkedArray:
    """Return a column; Missing cells become null, and their reasons go with their rows to `reasons`."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    cells = values if _is_numeric(values) else [v.item() if isinstance(v, np.generic) else v for v in values]
    missing: dict[str, list[int]] = {}
    for i, cell in enumerate(() if cells is values else cells):
        if isinstance(cell, Missing):
            missing.setdefault(cell.reason, []).append(i)
            cells[i] = None
    reasons.extend(Reason(where, reason, _ranges(rows)) for reason, rows in missing.items())
    try:
        return pa.array(cells)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise RecordError(f"Column '{where}' does not fit one type: {_line(error)}; give one type of value.") from error


def _is_numeric(values: Sequence[object]) -> bool:
    """Whether pyarrow takes the values whole."""
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf" and values.dtype.isnative


def _ranges(rows: Sequence[int]) -> str:
    """Write sorted row numbers as ``0-3,7``."""
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _refuse_nan(where: str, values: pa.ChunkedArray | pa.Array, place: str = "row") -> None:
    kind = values.type
    if pa.types.is_floating(kind):
        bad = pc.invert(pc.is_finite(values))
        if pc.any(bad).as_py():
            at = pc.index(bad, True).as_py()
            raise RecordError(
                f"Column '{where}' holds {values[at].as_py()} in {place} {at} ({pc.sum(bad).as_py()} in all): a record "
                "holds no NaN or infinity; give Missing('the reason')."
            )
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _refuse_nan(where, pc.list_flatten(values), "list item")
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            _refuse_nan(f"{where}.{kind.field(i).name}", pc.struct_field(values, i), place)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
