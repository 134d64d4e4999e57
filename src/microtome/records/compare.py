"""Compare: what sets two records apart, one line each. Times, provenance and the folder do not count.

Two runs of one config and seed give no line; nor does a run that was killed and resumed beside one that was not.
"""

from collections.abc import Iterator

import numpy as np

from microtome.records.record import Record
from microtome.records.values import apart

__all__ = ["differences"]


def differences(a: Record, b: Record) -> list[str]:
    """Return one line for each difference in what two records say; none when they say the same.

    Args:
        a: a record.
        b: another.

    Raises:
        RecordError: a table or array of either is missing or damaged.
    """
    one, two = _said(a), _said(b)
    lines = [f"{where}: {x!r} / {y!r}" for part in one for where, x, y in apart(one[part], two[part], part)]
    return [*lines, *_tables(a, b), *_arrays(a, b)]


def _said(record: Record) -> dict[str, object]:
    """Return what a record says outside its tables and arrays, as plain values; order counts only among views."""
    manifest = record.manifest
    reasons: dict[str, list] = {}
    for reason in sorted(record.reasons, key=repr):
        reasons.setdefault(reason.where, []).append([reason.rows, reason.reason])
    told = ("study", "seed", "status", "stopped_by", "config", "passed", "fingerprints", "views")
    return {
        **{part: getattr(manifest, part) for part in told},
        "stages": {s.name: s.key for s in manifest.stages},
        "values": record.values,
        "reasons": reasons,
        "claims": {j.claim.id: j.model_dump(mode="json") for j in manifest.claims},
        "artefacts": {name: entry.blake2b for name, entry in manifest.artefacts.items()},
        "tables": dict.fromkeys(record.tables),
        "arrays": dict.fromkeys(record.arrays),
    }


def _tables(a: Record, b: Record) -> Iterator[str]:
    for name in (n for n in a.tables if n in b.tables):
        one, two = a.table(name), b.table(name)
        if one.schema != two.schema or one.num_rows != two.num_rows:
            yield f"tables.{name}: {_shape(one)} / {_shape(two)}"
            continue
        for column in one.column_names:
            if one[column] != two[column]:
                pairs = zip(one[column].to_pylist(), two[column].to_pylist(), strict=True)
                yield f"tables.{name}.{column}: differs in {sum(x != y for x, y in pairs)} of {one.num_rows} rows"


def _shape(table) -> str:
    return f"{table.num_rows} rows of {', '.join(f'{field.name} {field.type}' for field in table.schema)}"


def _arrays(a: Record, b: Record) -> Iterator[str]:
    for name in (n for n in a.arrays if n in b.arrays):
        one, two = a.array(name), b.array(name)
        if one.shape != two.shape or one.dtype != two.dtype:
            yield f"arrays.{name}: {one.dtype} {one.shape} / {two.dtype} {two.shape}"
            continue
        same = (one == two) | ((one != one) & (two != two))  # NaN in both
        if not np.all(same):
            yield f"arrays.{name}: differs in {int((~same).sum())} of {one.size} entries"
