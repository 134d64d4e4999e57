"""Spin and parity as evaluators write them: `5/2+`, `(3/2)-`, `1(-)`, `(4- 5- 6-)`, `(4- TO 7-)`, `GE 4`, `[0+]`.

Brackets mean that an assignment rests on weaker arguments; it is taken and marked tentative. A sign after a closing
bracket counts for all in it. A value is given only where it is the only one left: several candidates, bounds and ranges
leave the spin open, and the parity too unless every candidate has the same.
"""

import re
from dataclasses import dataclass

__all__ = ["SpinParity", "parse_spin_parity"]

_CANDIDATE = re.compile(r"(?P<spin>\d+(?:/2)?)(?:\s*\)?\s*\(?(?P<sign>[+-]))?")
_OPEN = re.compile(r"\b(GE|LE|GT|LT|TO|AP)|[<>≤≥~]", re.IGNORECASE)


@dataclass(frozen=True)
class SpinParity:
    """An assignment of spin and parity.

    Attributes:
        spin: in units of h-bar, or None.
        parity: 1, -1 or None.
        tentative: in brackets, wholly or in part.
        reason: why the spin or the parity is open, empty where both are given.
    """

    spin: float | None
    parity: int | None
    tentative: bool
    reason: str


def parse_spin_parity(text: str) -> SpinParity:
    """Return what an assignment says.

    Args:
        text: as in evaluated files; empty for none.

    Example:
        >>> parse_spin_parity("(5/2)+")
        SpinParity(spin=2.5, parity=1, tentative=True, reason='')
    """
    text = text.strip()
    if not text:
        return SpinParity(None, None, False, "no assignment")
    tentative = any(bracket in text for bracket in "([")
    found = list(_CANDIDATE.finditer(text))
    spins = {_number(m["spin"]) for m in found}
    spin = spins.pop() if len(spins) == 1 and not _OPEN.search(text) else None
    parity = _parity(text, [m["sign"] for m in found])
    return SpinParity(spin, parity, tentative, "" if None not in (spin, parity) else f"'{text}' leaves it open")


def _number(spin: str) -> float:
    return int(spin.removesuffix("/2")) / 2 if spin.endswith("/2") else float(spin)


def _parity(text: str, signs: list[str | None]) -> int | None:
    of_all = re.search(r"[\])]\s*([+-])$", text)
    of_none = re.fullmatch(r"\(?([+-])\)?", text)
    alone = of_all or of_none
    given = {alone[1]} if alone else set(signs)
    return {"+": 1, "-": -1}.get(given.pop() or "") if len(given) == 1 else None
