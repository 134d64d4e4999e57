"""The IAEA's tables, where they lie on this machine: counts, energies against the evaluation's own, known defects."""

import csv
import functools
from pathlib import Path

import numpy as np
import pytest

from microtome.data.nuclear import PAPER_TASKS, derive, leaks, read_table, split, tasks

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "nuclear"
MASSES, STATES = FOLDER / "ame2020.csv", FOLDER / "ground_states.csv"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the IAEA's nuclear tables are not on this machine")


@functools.cache
def table(path: Path = MASSES, least: int = 8, measured: bool = True, max_uncertainty: float | None = None):
    """Read once a process; the files do not change."""
    return read_table(path, min_z=least, min_n=least, measured=measured, max_uncertainty=max_uncertainty)


@pytest.mark.parametrize(
    ("least", "measured", "max_uncertainty", "count"),
    [
        (8, True, None, 2456), (9, True, None, 2441), (21, True, None, 2237), (1, True, None, 2547),
        (12, True, None, 2394), (8, False, None, 3276), (9, False, None, 2441 + 817),
        # The specification's 2327 takes the rounded uncertainty per nucleon times A: one nucleus at 100 keV falls out.
        (9, True, 0.1, 2328),
    ],
)  # fmt: skip
def test_the_cuts_leave_what_the_specification_counts(least, measured, max_uncertainty, count):
    assert len(table(MASSES, least, measured, max_uncertainty)) == count


def test_the_one_duplicate_is_the_mislabelled_row_and_the_first_is_kept():
    found = table(MASSES, 0, False)
    assert found.provenance.rows == 3378 and len(found) == 3377 and found.provenance.dropped == {"duplicate": 1}
    (note,) = found.provenance.notes
    assert "Z = 88, N = 124 stands twice" in note and "as '212RA'" in note and "as '237AC'" in note
    row = found.rows_of(np.array([88]), np.array([124]))[0]
    assert found.measured[row] and found.binding[row] / 212 == pytest.approx(7.7475078, abs=1e-6)
    assert "doi:10.1088/1674-1137/abddb0" in found.provenance.citation


def test_binding_energies_of_known_nuclei():
    found = table(MASSES, 0)
    for z, n, per_nucleon in ((2, 2, 7073.9156), (26, 30, 8790.3563), (82, 126, 7867.4530)):
        row = found.rows_of(np.array([z]), np.array([n]))[0]
        assert found.binding[row] / (z + n) * 1e3 == pytest.approx(per_nucleon, abs=1e-4)


def raw() -> dict[tuple[int, int], dict[str, str]]:
    """First row of every nucleus, as text."""
    found = {}
    with MASSES.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((int(row["z"]), int(row["n"])), row)
    return found


@pytest.mark.parametrize(
    ("name", "column", "least"),
    [("sn", "sn", 2300), ("sp", "sp", 2200), ("s2n", "s2n", 2200), ("s2p", "s2p", 2100), ("qa", "qa", 2200),
     ("qbm", "beta_decay_en", 2100), ("qbm_n", "qbmn", 1900), ("qec", "qec", 2100)],
)  # fmt: skip
def test_energies_from_binding_alone_are_the_evaluations_own(name, column, least):
    found, rows = table(MASSES, 0), raw()
    derived = derive(found, name)
    stated = np.array(
        [float(cell) if (cell := rows[key][column]) != "NULL" else np.nan
         for key in zip(found.z.tolist(), found.n.tolist(), strict=True)]
    )  # fmt: skip
    gap = np.abs(derived.values * 1e3 - stated)
    assert np.isfinite(gap).sum() >= least and np.nanmax(gap) < 1.1e-3  # keV


def test_total_binding_is_what_the_column_per_nucleon_says():
    found, rows = table(MASSES, 0), raw()
    stated = [float(rows[z, n]["binding"]) * (z + n) for z, n in zip(found.z.tolist(), found.n.tolist(), strict=True)]
    assert np.abs(found.binding * 1e3 - stated).max() < 0.02  # keV


def test_ground_states_agree_with_the_masses_and_add_what_else_is_observed():
    states, masses = table(STATES, 9), table(MASSES, 9)
    rows = masses.rows_of(states.z, states.n)
    both = rows >= 0
    assert len(states) == 2442 and both.sum() == 2441
    assert np.abs(states.binding[both] - masses.binding[rows[both]]).max() < 1e-9
    assert np.isfinite(states.observed["radius"].values).sum() == 880
    found = tasks(states, [*PAPER_TASKS, "half_life", "stability", "spin", "parity", "abundance", "isospin", "control"])
    spin, a = found.values[:, found.names.index("spin")], states.a
    assert ((2 * spin[np.isfinite(spin)]) % 2 == (a % 2)[np.isfinite(spin)]).all()  # half-integer for odd A
    even = (states.z % 2 == 0) & (states.n % 2 == 0)
    assert set(spin[even & np.isfinite(spin)]) == {0.0}
    life = states.observed["half_life"]
    assert {"stable", "only a bound (GT)"} < set(life.reasons) and (life.reasons.count("") > 2000)
    assert all((np.isnan(v)) == bool(r) for v, r in zip(life.values, life.reasons, strict=True))


def test_the_papers_split_leaks_and_the_masked_one_does_not():
    names = [name for name in PAPER_TASKS if name != "radius"]
    found = tasks(table(), names, neighbours=table(MASSES, 0))
    assert leaks(split(found, "task", share=0.5)).share > 0.9
    assert leaks(split(found, "nucleus", mask=False)).share > 0.9
    for kind in ("nucleus", "edge", "region"):
        assert not leaks(split(found, kind))
