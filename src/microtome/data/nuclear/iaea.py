"""The two CSV tables that go by the name of the IAEA's LiveChart of Nuclides.

    iaea-masses         one row a nucleus, AME2020: mass_excess, binding (keV per nucleon), ..., each with _unc, _sys
    iaea-ground-states  the LiveChart interface's `fields=ground_states`: masses, radii, half-lives, spins, ...

Both state mass excess and binding energy; the mass excess is used, since it is given to more places, and the binding
energy checks it. A mass is extrapolated where the file says so (`Y`), and where it does not say.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from microtome.data.nuclear.rows import Format, Rows
from microtome.data.nuclear.sheets import Sheet, header_of, read_sheet
from microtome.data.nuclear.spins import parse_spin_parity
from microtome.data.nuclear.table import Column

__all__ = ["AME2020", "GROUND_STATES", "MASSES"]

AME2020 = (
    "W.J. Huang et al., Chin. Phys. C 45, 030002 (2021), doi:10.1088/1674-1137/abddb0; "
    "M. Wang et al., Chin. Phys. C 45, 030003 (2021), doi:10.1088/1674-1137/abddaf"
)
"""The two papers of the 2020 atomic mass evaluation."""

_LIVECHART = "IAEA Nuclear Data Section, LiveChart of Nuclides, https://nds.iaea.org/livechart"
_MASS_COLUMNS = ("z", "n", "mass_excess", "mass_excess_unc", "mass_excess_sys", "binding")
_STATE_COLUMNS = ("z", "n", "massexcess", "unc_me", "me_systematics", "binding")


def _read_masses(text: str, source: str) -> Rows:
    sheet = read_sheet(text, source)
    names = sheet.texts("nucid") if "nucid" in sheet.columns else [""] * len(sheet.cells)
    return _rows(sheet, names, _MASS_COLUMNS)


def _read_ground_states(text: str, source: str) -> Rows:
    sheet = read_sheet(text, source)
    return _rows(sheet, [""] * len(sheet.cells), _STATE_COLUMNS, observed=True)


def _rows(sheet: Sheet, names: list[str], columns: Sequence[str], *, observed: bool = False) -> Rows:
    _, _, excess, uncertainty, extrapolated, binding = columns
    return Rows(
        source=sheet.source,
        lines=sheet.lines,
        names=names,
        z=sheet.z,
        n=sheet.n,
        kind="mass excess",
        energy=sheet.numbers(excess, "keV"),
        uncertainty=sheet.numbers(uncertainty, "keV"),
        measured=np.array([mark == "N" for mark in sheet.texts(extrapolated)]),
        per_nucleon=sheet.numbers(binding, "keV per nucleon"),
        observed=_observed(sheet) if observed else {},
    )


def _observed(sheet: Sheet) -> dict[str, Column]:
    states = [parse_spin_parity(text) for text in sheet.texts("jp")]
    found = {
        "radius": _stated(sheet, "radius", "unc_r", "fm", "no measured charge radius"),
        "half_life": _half_life(sheet),
        "stability": _stability(sheet),
        "spin": _column([s.spin for s in states], [s.reason for s in states]),
        "parity": _column([s.parity for s in states], [s.reason for s in states]),
        "abundance": _stated(sheet, "abundance", "unc_a", "per cent", "not found in nature"),
        "isospin": _isospin(sheet),
    }
    return found


def _stated(sheet: Sheet, column: str, uncertainty: str, unit: str, absent: str) -> Column:
    values = sheet.numbers(column, unit)
    reasons = tuple(absent if np.isnan(v) else "" for v in values)
    return Column(values, sheet.numbers(uncertainty, unit), reasons)


def _half_life(sheet: Sheet) -> Column:
    """Log10 of seconds; a bound is no value, nor is a stable nucleus's."""
    seconds, error = sheet.numbers("half_life_sec", "s"), sheet.numbers("unc_hls", "s")
    reasons = []
    for text, operator, value in zip(sheet.texts("half_life"), sheet.texts("operator_hl"), seconds, strict=True):
        bound = operator not in ("", "AP")
        absent = "" if value > 0 else "no half-life in seconds"
        reasons.append("stable" if text == "STABLE" else f"only a bound ({operator})" if bound else absent)
    there = np.array([not reason for reason in reasons])
    safe = np.where(there, seconds, 1.0)
    values, spread = np.where(there, np.log10(safe), np.nan), np.where(there, error / safe / np.log(10), np.nan)
    return Column(values, spread, tuple(reasons))


def _stability(sheet: Sheet) -> Column:
    known = {"STABLE": 1.0, "": None, "?": None}
    values = [known.get(text, 0.0) for text in sheet.texts("half_life")]
    return _column(values, ["no half-life" if v is None else "" for v in values])


def _isospin(sheet: Sheet) -> Column:
    """Isospins are whole or half numbers, written as fractions."""
    values = [parse_spin_parity(text).spin for text in sheet.texts("isospin")]
    return _column(values, ["no assignment" if v is None else "" for v in values])


def _column(values: Sequence[float | int | None], reasons: Sequence[str]) -> Column:
    numbers: Float[np.ndarray, "nucleus"] = np.array([np.nan if v is None else v for v in values], np.float64)
    kept = tuple("" if v is not None else reason for v, reason in zip(values, reasons, strict=True))
    return Column(numbers, np.full(len(numbers), np.nan), kept)


def _claims(columns: Sequence[str], text: str) -> float:
    header = header_of(text)
    return sum(column in header for column in columns) / len(columns)


MASSES = Format(
    "iaea-masses", lambda text: _claims(_MASS_COLUMNS, text), _read_masses, lambda _: f"{AME2020}; by {_LIVECHART}"
)
"""AME2020 as one wide CSV."""

GROUND_STATES = Format(
    "iaea-ground-states",
    lambda text: _claims(_STATE_COLUMNS, text),
    _read_ground_states,
    lambda _: f"{_LIVECHART}; masses: {AME2020}",
)
"""The LiveChart's ground states."""
