"""Values: plain JSON with no NaN in it. What could not be computed is null, with the reason kept beside it.

    {"auc": Missing("only one class in the test split")}   ->   {"auc": null} and a Reason at "auc"

None says that a value does not apply; Missing says that it should be there and why it is not. A bare NaN or infinity
is refused: it says neither. `plain` returns exactly what reading record.json gives back, types included.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import RecordError

__all__ = ["Missing", "Reason", "apart", "plain", "text_key"]


@dataclass(frozen=True)
class Missing:
    """Stands where a number could not be computed.

    Attributes:
        reason: why, in words a reader of the report understands.
    """

    reason: str

    def __post_init__(self):
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise RecordError(f"Missing was given {self.reason!r}; say in words why the value could not be computed.")


@dataclass(frozen=True)
class Reason:
    """Why something in a record is null.

    Attributes:
        where: its address: ``values.auc[2]``, ``tables.scores.p_value`` or ``arrays.recovery``.
        reason: why.
        rows: for a table's column, the rows, as ``0-3,7``.
    """

    where: str
    reason: str
    rows: str | None = None


def plain(value: object, where: str, reasons: list[Reason]) -> object:
    """Return `value` as JSON can hold it: tuples become lists, numpy scalars Python's, Missing null.

    Args:
        value: any nesting of mappings with text keys, lists, tuples, text, numbers, booleans, None, Missing.
        where: its address, for reasons and errors.
        reasons: takes a Reason for each Missing met.

    Raises:
        RecordError: a number is NaN or infinite, or something JSON cannot hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, where)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, Missing):
        reasons.append(Reason(where, _text(value.reason, where)))
        return None
    if isinstance(value, Mapping):
        return {text_key(k, where): plain(v, f"{where}.{k}", reasons) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]", reasons) for i, v in enumerate(value)]
    raise RecordError(
        f"'{where}' is a {type(value).__name__}, which record.json cannot hold; give numbers, text, lists or mappings "
        "(an ndarray goes among the arrays)."
    )


def text_key(key: object, where: str) -> str:
    """Return a key that JSON, or a table's header, can hold.

    Args:
        key: the key.
        where: the address of what it is a key of, for errors.

    Raises:
        RecordError: it is not text.
    """
    if not isinstance(key, str):
        raise RecordError(f"'{where}' has the key {key!r} ({type(key).__name__}); keys are text, use str(key).")
    return _text(key, where)


def _number(value: int | float, where: str) -> int | float:
    """Return a Python number, also for an enum's or a subclass's."""
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise RecordError(f"'{where}' is {value}: a record holds no NaN or infinity; give Missing('the reason').")
    return float(value)


def _text(value: str, where: str) -> str:
    """Return Python text, also for an enum's or a subclass's."""
    try:
        return value.encode().decode()
    except UnicodeEncodeError as error:
        raise RecordError(f"'{where}' holds text that is not Unicode ({error.reason}); repair the text.") from error


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def apart(a: object, b: object, where: str) -> Iterator[tuple[str, object, object]]:
    """Say leaf by leaf where two plain values differ; 1, 1.0 and True are three values.

    Args:
        a: a plain value.
        b: another.
        where: the address of both.

    Yields:
        The address of a leaf and its two values; where one has none, something that prints as ``nothing``.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(k for k in b if k not in a)]:
            yield from apart(a.get(key, _ABSENT), b.get(key, _ABSENT), f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from apart(x, y, f"{where}[{i}]")
    elif type(a) is not type(b) or a != b:
        yield where, a, b
