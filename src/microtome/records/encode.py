"""Encode: a stage's output as it goes to disk, checked whole before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microtome.core.errors import RecordError, did_you_mean
from microtome.records.arrays import array_bytes
from microtome.records.files import digest
from microtome.records.schema import ArrayEntry, StageEntry, TableEntry, array_file, check_name, table_file
from microtome.records.stage import StageOutput
from microtome.records.tables import table_bytes, table_of
from microtome.records.values import Missing, Reason, plain

__all__ = ["Encoded", "encode", "refuse_taken"]


@dataclass(frozen=True)
class Encoded:
    """What a stage leaves on disk.

    Attributes:
        entry: its entry in record.json.
        files: path in the record's folder -> content.
    """

    entry: StageEntry
    files: Mapping[str, bytes]


def encode(name: str, key: str, output: StageOutput, times: Mapping[str, object]) -> Encoded:
    """Return a stage's output as it goes to disk.

    Args:
        name: the stage's name.
        key: the key of its inputs.
        output: what its function returned.
        times: when it was done, and in how many seconds.

    Raises:
        RecordError: a number is NaN or infinite without a reason, a name cannot be stored, or rows do not fit.
    """
    reasons: list[Reason] = []
    tables, arrays, files = {}, {}, {}
    for n, rows in output.tables.items():
        table = table_of(check_name("table", n), rows, reasons)
        files[table_file(n)] = data = table_bytes(n, table)
        columns = {field.name: str(field.type) for field in table.schema}
        tables[n] = TableEntry(blake2b=digest(data), rows=table.num_rows, columns=columns)
    for n, array in output.arrays.items():
        files[array_file(n)] = data = array_bytes(check_name("array", n), array, announced=n in output.reasons)
        arrays[n] = ArrayEntry(blake2b=digest(data), dtype=array.dtype.name, shape=list(array.shape))
    values = plain(output.values, "values", reasons)
    reasons += _array_reasons(name, output)
    entry = StageEntry(
        name=name, key=key, tables=tables, arrays=arrays, values=values, reasons=reasons, times=dict(times)
    )
    return Encoded(entry, files)


def refuse_taken(entry: StageEntry, others: Sequence[StageEntry]) -> None:
    """Refuse a stage that puts out what another one did; file names and SQL do not tell capitals from small letters.

    Args:
        entry: the stage.
        others: the record's other stages.

    Raises:
        RecordError: a table, array or value has a name that is taken.
    """
    for kind in ("tables", "arrays", "values"):
        fold = str if kind == "values" else str.lower
        taken = {fold(n): s.name for s in others for n in getattr(s, kind)}
        for n in getattr(entry, kind):
            if fold(n) in taken:
                raise RecordError(
                    f"Stage '{entry.name}' puts out the {kind[:-1]} '{n}', which stage '{taken[fold(n)]}' did; rename "
                    "one, or choose another folder if the study has changed."
                )
            taken[fold(n)] = entry.name


def _array_reasons(name: str, output: StageOutput) -> list[Reason]:
    reasons = plain(output.reasons, "reasons", [])
    for n in reasons:
        if n not in output.arrays:
            listed = ", ".join(output.arrays) or "none"
            raise RecordError(
                f"Stage '{name}' gives a reason for the array '{n}', its arrays are {listed}; give Missing(reason) in "
                f"tables and values.{did_you_mean(n, output.arrays)}"
            )
    return [Reason(f"arrays.{n}", Missing(why).reason) for n, why in reasons.items()]
