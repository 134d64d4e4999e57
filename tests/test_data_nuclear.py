"""Nuclear tables: every format into one table in MeV, energies from binding energies alone, splits that do not leak."""

import contextlib
import functools
import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import ConfigError, DataError
from microtome.data.fetch import fetch
from microtome.data.nuclear import (
    BW2,
    DIFFERENCES,
    FORMATS,
    PAPER_TASKS,
    SEMF,
    SPLITS,
    TASKS,
    NuclearTable,
    Provenance,
    derive,
    label,
    leaks,
    parse_spin_parity,
    promiscuity,
    read_table,
    split,
    standardise,
    tasks,
    theory_table,
    twin,
    unseen,
    write_compact,
)
from microtome.data.nuclear.constants import HYDROGEN_EXCESS, NEUTRON_EXCESS
from microtome.data.nuclear.fixed_width import LAYOUT_2020, places

ENERGIES = tuple(DIFFERENCES)


def made(z, n, binding, uncertainty=None, measured=None) -> NuclearTable:
    """Make a table by hand."""
    z, n, binding = np.array(z), np.array(n), np.array(binding, float)
    spread = np.zeros(len(z)) if uncertainty is None else np.array(uncertainty, float)
    marks = np.ones(len(z), bool) if measured is None else np.array(measured, bool)
    return NuclearTable(z, n, binding, spread, marks, Provenance("by hand", "none", "", "nobody", len(z)))


def small() -> NuclearTable:
    """The built-in table from calcium to krypton."""
    return theory_table(min_z=20, max_z=36, min_n=20, max_n=46)


# Formulas


def test_the_semi_empirical_formula_is_the_sum_written_out():
    iron = 15.75 * 56 - 17.8 * 56 ** (2 / 3) - 0.711 * 26 * 25 / 56 ** (1 / 3) - 23.7 * 16 / 56 + 11.18 / 56**0.5
    copper = 15.75 * 64 - 17.8 * 16 - 0.711 * 29 * 28 / 4 - 23.7 * 36 / 64 - 11.18 / 8
    cobalt = 15.75 * 59 - 17.8 * 59 ** (2 / 3) - 0.711 * 27 * 26 / 59 ** (1 / 3) - 23.7 * 25 / 59
    found = SEMF.binding(np.array([26, 29, 27]), np.array([30, 35, 32]))
    assert np.abs(found - [iron, copper, cobalt]).max() < FLOAT64  # even-even, odd-odd, odd A


def test_the_formula_with_shell_terms_is_the_sum_written_out():
    # Nickel-64: Z 28 is magic, so P = 0; A^(1/3) = 4.
    nickel = (16.58 * 64 - 26.95 * 16 - 0.774 * 784 / 4 - 31.51 - 43.4 * 8 / 64 + 11.18 / 8 + 14.77 * 4
              + 2.22 * 28 ** (4 / 3) / 4 + 55.62 * 64 / 256)  # fmt: skip
    assert abs(BW2.binding(np.array([28]), np.array([36]))[0] - nickel) < FLOAT64
    assert promiscuity(np.array([28, 30, 50]), np.array([36, 34, 82])).tolist() == [0.0, 1.5, 0.0]  # 2 * 6 / 8
    parts = BW2.contributions(np.array([30]), np.array([34]))
    assert abs(parts["shell"][0] + 1.9 * 1.5) < FLOAT64 and abs(parts["shell squared"][0] - 0.14 * 2.25) < FLOAT64
    assert abs(sum(parts.values())[0] - BW2.binding(np.array([30]), np.array([34]))[0]) < FLOAT64


def test_a_formula_takes_one_coefficient_a_term():
    with pytest.raises(ConfigError, match="'semf' got 2 coefficients for its 5 terms; give one for each of volume"):
        replace(SEMF, coefficients=(1.0, 2.0))


# Theory tables


def test_the_built_in_table_is_the_formula_along_the_valley():
    table = theory_table()
    assert len(table) == 2546 and (table.binding == BW2.binding(table.z, table.n)).all()
    rows = table.rows_of(np.array([26, 82, 26]), np.array([30, 126, 60]))
    assert (rows[:2] >= 0).all() and rows[2] == -1  # iron-56, lead-208; iron-86 is far from stable
    assert min(np.bincount(table.z)[8:].min(), np.bincount(table.n)[8:].min()) >= 3
    assert table.provenance.dropped["far from the valley of stability"] + len(table) == table.provenance.rows
    again = theory_table()
    assert (again.binding == table.binding).all() and (again.z == table.z).all()


def test_a_twin_has_the_nuclei_of_its_table_and_a_formulas_energies():
    table = made([20, 21], [20, 20], [300.0, 310.0], [0.1, 0.2], [True, False])
    copy = twin(table, SEMF)
    assert copy.z.tolist() == [20, 21] and copy.measured.tolist() == [True, False]
    assert (copy.binding == SEMF.binding(table.z, table.n)).all() and not copy.uncertainty.any()
    assert "semf twin of by hand" in copy.provenance.source and "volume 15.75" in copy.provenance.citation


# Tables


def test_a_table_holds_each_nucleus_once_with_a_finite_energy():
    with pytest.raises(DataError, match=r"40Ca stands 2 times in 'by hand'; keep one row a nucleus"):
        made([20, 20], [20, 20], [340.0, 341.0])
    with pytest.raises(DataError, match=r"41Ca of 'by hand' has no finite binding energy; leave the row out"):
        made([20, 20], [20, 21], [340.0, np.nan])


def test_cuts_count_what_went_and_why():
    table = made([2, 20, 20, 20], [2, 20, 21, 22], [28.3, 342, 350, 361], [0, 0.05, 0.2, np.nan], [1, 1, 1, 0])
    kept = table.cut(max_uncertainty=0.1)
    assert [kept.label(i) for i in range(len(kept))] == ["40Ca"]
    assert kept.provenance.dropped == {"extrapolated": 1, "Z < 8 or N < 8": 1, "uncertainty above 0.1 MeV": 1}
    assert len(table.cut(measured=False, min_z=0, min_n=0)) == 4
    with pytest.raises(DataError, match=r"No nucleus of 'by hand' is left of 4 rows \(1 extrapolated; 3 Z < 90 or N"):
        table.cut(min_z=90)


def test_rows_are_found_by_nucleus_and_absent_ones_are_minus_one():
    table = small()
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table.take(order)
    assert (shuffled.rows_of(shuffled.z, shuffled.n) == np.arange(len(table))).all()
    assert shuffled.rows_of(np.array([-1, 20, 300, 20]), np.array([20, -2, 20, 300])).tolist() == [-1] * 4
    assert label(82, 126) == "208Pb" and label(0, 1) == "1n" and label(119, 180) == "299[Z=119]"


# Energies


def test_decay_energies_are_those_of_nature():
    # Free neutron, hydrogen, helium-4, beryllium-8: B = 0, 0, 28.2957, 56.4995 MeV.
    table = made([0, 1, 2, 4], [1, 0, 2, 4], [0, 0, 28.295662, 56.499508])
    assert derive(table, "qbm").values[0] == pytest.approx(0.782347, abs=1e-6)
    assert derive(table, "qec").values[1] == pytest.approx(-0.782347, abs=1e-6)
    assert derive(table, "qa").values[3] == pytest.approx(0.0918, abs=1e-4)


def test_energies_obey_the_identities_of_masses():
    table = theory_table(min_z=20, max_z=40, min_n=20, max_n=50)
    value = {name: derive(table, name).values for name in ENERGIES}

    def at(name, dz, dn):
        rows = table.rows_of(table.z + dz, table.n + dn)
        return np.where(rows >= 0, value[name][rows], np.nan)

    for left, right in (
        (value["s2n"], value["sn"] + at("sn", 0, -1)),
        (value["s2p"], value["sp"] + at("sp", -1, 0)),
        (value["qec"], -at("qbm", -1, 1)),
        (value["qbm_n"], value["qbm"] - at("sn", 1, -1)),
        (value["qa"], 28.295662378 - value["s2n"] - at("s2p", 0, -2)),
    ):
        gap = np.abs(left - right)
        assert np.isfinite(gap).sum() > 50 and np.nanmax(gap) < FLOAT64


def test_uncertainties_add_in_quadrature_and_gaps_have_reasons():
    table = made([20, 20, 20], [20, 21, 22], [340, 348, 360], [0.3, 0.4, np.nan])
    one = derive(table, "sn")
    assert one.values[1:].tolist() == [8, 12] and np.isnan(one.values[0])
    assert one.uncertainty[1] == pytest.approx(0.5) and np.isnan(one.uncertainty[[0, 2]]).all()
    assert one.reasons == ("no nucleus at Z+0, N-1 in the table", "", "")
    with pytest.raises(ConfigError, match=r"No energy 'qbmn'; there are binding, .*Did you mean 'qbm_n'\?"):
        derive(table, "qbmn")


def test_energies_at_the_edge_come_from_the_table_before_its_cuts():
    table = small()
    cut = table.cut(min_z=22)
    assert np.isnan(derive(cut, "sp").values[cut.z == 22]).all()
    rows = table.rows_of(cut.z, cut.n)
    np.testing.assert_array_equal(derive(cut, "sp", neighbours=table).values, derive(table, "sp").values[rows])


# Spins


@pytest.mark.parametrize(
    ("text", "spin", "parity", "tentative"),
    [
        ("0+", 0, 1, False), ("5/2-", 2.5, -1, False), ("(5/2+)", 2.5, 1, True), ("(5/2)+", 2.5, 1, True),
        ("3/2(-)", 1.5, -1, True), ("[9/2-]", 4.5, -1, True), ("(3/2)", 1.5, None, True), ("7", 7, None, False),
        ("(1/2+ 3/2+)", None, 1, True), ("(4- TO 7-)", None, -1, True), ("(GE6+)", None, 1, True),
        ("GE 4", None, None, False), (">3", None, None, False), ("(0 1 2)", None, None, True),
        ("(1,2)-", None, -1, True), ("(2 3+)", None, None, True), ("(5/2- 7/2+)", None, None, True),
        ("(+)", None, 1, True), ("HIGH J", None, None, False), ("", None, None, False),
    ],
)  # fmt: skip
def test_spins_and_parities_are_read_where_they_are_certain(text, spin, parity, tentative):
    found = parse_spin_parity(text)
    assert (found.spin, found.parity, found.tentative) == (spin, parity, tentative)
    assert (found.reason == "") == (spin is not None and parity is not None)


# Files


def keV(table: NuclearTable) -> np.ndarray:
    return table.binding * 1e3


def excess(table: NuclearTable) -> np.ndarray:
    """Mass excesses in keV."""
    return (table.z * HYDROGEN_EXCESS + table.n * NEUTRON_EXCESS - table.binding) * 1e3


def iaea_masses(table: NuclearTable) -> str:
    lines = ["nucid,n,z,mass_excess,mass_excess_unc,mass_excess_sys,binding,sn"]
    for row, (b, m) in enumerate(zip(keV(table) / table.a, excess(table), strict=True)):
        mark = "N" if table.measured[row] else "Y"
        name = table.label(row).upper()
        lines.append(f"{name},{table.n[row]},{table.z[row]},{m:.6f},{table.uncertainty[row] * 1e3},{mark},{b:.4f},NULL")
    return "\n".join(lines) + "\n"


STATES = "z,n,symbol,radius,unc_r,abundance,unc_a,jp,half_life,operator_hl,half_life_sec,unc_hls,isospin"


def ground_states(table: NuclearTable, state: str = "Ca,3.5,0.01,,,7/2-,STABLE,, ,,3/2") -> str:
    lines = [f"{STATES},massexcess,unc_me,me_systematics,binding"]
    for row, (b, m) in enumerate(zip(keV(table) / table.a, excess(table), strict=True)):
        lines.append(f"{table.z[row]},{table.n[row]},{state},{m:.6f},1.0,{'N' if table.measured[row] else 'Y'},{b:.4f}")
    return "\n".join(lines) + "\n"


def fixed_width(table: NuclearTable, layout: str = LAYOUT_2020, stated: bool = True) -> str:
    """Write a mass file as the Atomic Mass Data Center lays it out."""
    head = ["1    A T O M I C   M A S S   A D J U S T M E N T", "0 made by a test; all energies in keV"]
    if stated:
        head += ["   col 1     :  Fortran character control", f"   format    :  {layout}"]
    lines, where = [*head, "1N-Z    N    Z   A  EL    O     MASS EXCESS"], places(layout)
    for row, (b, m) in enumerate(zip(keV(table) / table.a, excess(table), strict=True)):
        z, n, point = int(table.z[row]), int(table.n[row]), "." if table.measured[row] else "#"
        energies = [f"{x:.4f}".replace(".", point) for x in (m, table.uncertainty[row] * 1e3, b, 0.01)]
        cells = ["0", n - z, n, z, n + z, table.label(row).lstrip("0123456789"), "x", *energies, "B-", "*"]
        line = ""
        for cell, place in zip(cells, where, strict=False):
            line = line.ljust(place.start) + str(cell).rjust(place.stop - place.start)
        lines.append(line)
    return "\n".join(lines) + "\n"


LAYOUT_2003 = "a1,i3,i5,i5,i5,1x,a3,a4,1x,f13.5,f11.5,f11.3,f9.3,1x,a2,f11.3,f9.3,1x,i3,1x,f12.5,f11.5"
WRITERS = {
    "iaea-masses": iaea_masses,
    "iaea-ground-states": ground_states,
    "amdc": fixed_width,
    "amdc, elder": functools.partial(fixed_width, layout=LAYOUT_2003),
    "amdc, layout not stated": functools.partial(fixed_width, stated=False),
}


def written(tmp_path, text: str, name: str = "table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_is_told_by_its_content_and_read_to_the_same_table(tmp_path, writer):
    table = small()
    table = replace(table, uncertainty=np.full(len(table), 0.001), measured=np.arange(len(table)) % 3 > 0)
    path = written(tmp_path, WRITERS[writer](table), "file")
    found = read_table(path, measured=False)
    assert found.provenance.format == writer.partition(",")[0] and found.provenance.source == str(path)
    assert found.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.z == table.z).all() and (found.n == table.n).all() and (found.measured == table.measured).all()
    assert np.abs(found.binding - table.binding).max() < 1e-7 and np.abs(found.uncertainty - 0.001).max() < 1e-12
    kept = read_table(path)
    assert len(kept) == table.measured.sum() and kept.provenance.dropped == {"extrapolated": (~table.measured).sum()}


def test_the_evaluations_papers_are_cited(tmp_path):
    table = small()
    for writer in ("iaea-masses", "iaea-ground-states", "amdc"):
        found = read_table(written(tmp_path, WRITERS[writer](table)))
        assert "10.1088/1674-1137/abddb0" in found.provenance.citation and "abddaf" in found.provenance.citation
    elder = read_table(written(tmp_path, WRITERS["amdc, elder"](table)))
    assert elder.provenance.citation == "the atomic mass evaluation that the file's header names"


def test_a_compact_file_written_is_read_back(tmp_path):
    table = small()
    table = replace(table, uncertainty=np.full(len(table), 0.0002), measured=np.arange(len(table)) % 2 > 0)
    table = replace(table, provenance=replace(table.provenance, citation="A. Nobody, 2026: a table"))
    write_compact(table, tmp_path / "own.csv")
    found = read_table(tmp_path / "own.csv", measured=False)
    assert found.provenance.format == "compact" and found.provenance.citation == "A. Nobody, 2026: a table"
    assert np.abs(found.binding - table.binding).max() < 1e-9 and (found.measured == table.measured).all()
    assert np.abs(found.uncertainty - 0.0002).max() < 1e-12


COMPACT = """# citation: made for this test
Z,N,binding_per_nucleon_kev,uncertainty_kev,radius_fm,radius_uncertainty_fm,half_life_s,spin_parity
20,20,8551.3,0.5,3.4776,0.0019,,0+

20,21,8546.7,,,,3.1e12,(7/2)-
"""


def test_the_compact_schema_holds_what_its_columns_say(tmp_path):
    table = read_table(written(tmp_path, COMPACT))
    assert table.binding == pytest.approx([40 * 8.5513, 41 * 8.5467])
    assert table.uncertainty[0] == pytest.approx(0.02) and np.isnan(table.uncertainty[1]) and table.measured.all()
    radius, half_life, spin = (table.observed[name] for name in ("radius", "half_life", "spin"))
    assert radius.values[0] == 3.4776 and radius.uncertainty[0] == 0.0019 and radius.reasons == ("", "no radius")
    assert half_life.values[1] == pytest.approx(12 + np.log10(3.1)) and np.isnan(half_life.values[0])
    assert spin.values.tolist() == [0, 3.5] and table.observed["parity"].values.tolist() == [1, -1]
    write_compact(table, tmp_path / "again.csv")
    again = read_table(tmp_path / "again.csv")
    assert again.observed["radius"].values[0] == 3.4776 and again.observed["radius"].reasons[1] == "no radius"
    assert again.provenance.citation == "made for this test"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Ca,,,,,,5,,5.0,0.5,", {"half_life": np.log10(5), "stability": 0}),
        ("Ca,,,,,,5,AP,5.0,0.5,", {"half_life": np.log10(5)}),
        ("Ca,,,,,,5,GT,5.0,0.5,", {"half_life": "only a bound (GT)", "stability": 0}),
        ("Ca,,,96.9,0.2,0+,STABLE,, ,,0", {"half_life": "stable", "stability": 1, "abundance": 96.9, "isospin": 0}),
        ("Ca,,,,,(3 4),,,,,", {"half_life": "no half-life in seconds", "stability": "no half-life",
                              "spin": "'(3 4)' leaves it open", "radius": "no measured charge radius",
                              "abundance": "not found in nature", "isospin": "no assignment"}),
    ],
)  # fmt: skip
def test_ground_states_come_with_what_else_is_observed(tmp_path, state, expected):
    table = read_table(written(tmp_path, ground_states(small().take([5]), state)))
    for name, value in expected.items():
        column = table.observed[name]
        if isinstance(value, str):
            assert np.isnan(column.values[0]) and column.reasons[0] == value
        else:
            assert column.values[0] == pytest.approx(value) and column.reasons[0] == ""
    if "half_life" in expected and not isinstance(expected["half_life"], str):
        assert table.observed["half_life"].uncertainty[0] == pytest.approx(0.1 / np.log(10))


def test_of_a_nucleus_twice_the_first_row_is_kept_and_both_are_named(tmp_path):
    table = small().take([3, 4])
    text = iaea_masses(table) + f"237AC,{table.n[0]},{table.z[0]},54020,400,Y,7550,NULL\n"
    found = read_table(written(tmp_path, text))
    assert np.abs(found.binding - table.binding).max() < 1e-7 and found.provenance.dropped["duplicate"] == 1
    (note,) = found.provenance.notes
    assert note.startswith(f"Z = {table.z[0]}, N = {table.n[0]} stands twice (line 2 as '{table.label(0).upper()}'")
    assert note.endswith("line 4 as '237AC'); the first is kept.")


def swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


WRONG = [
    (lambda: swap(COMPACT, "radius_fm", "radios_fm"), r"has the column 'radios_fm', .*Did you mean 'radius_fm'\?"),
    (lambda: swap(COMPACT, "binding_per_nucleon_kev", "binding"), r"column 'binding', .*Did you mean 'binding_kev'\?"),
    (lambda: swap(COMPACT, "Z,", "protons,"), r"No column 'z' in '.*', which has protons, n, .*; rename or add it"),
    (lambda: swap(COMPACT, "binding_per_nucleon_kev,", ""), "Line 3 of .* has 8 cells where the header has 7"),
    (lambda: swap(COMPACT, "radius_fm", "uncertainty_kev"), "has the column 'uncertainty_kev' 2 times; keep one"),
    (lambda: swap(COMPACT, "uncertainty_kev", "binding_kev"), "has binding_kev and binding_per_nucleon_kev; a compact"),
    (lambda: "z,n,radius_fm\n20,20,3.4\n", "has no energy; a compact table has exactly one of mass_excess_kev"),
    (lambda: swap(COMPACT, "8546.7", "8546,7"), "Line 5 of .* has 9 cells where the header has 8; the file is cut"),
    (lambda: swap(COMPACT, "8546.7", "lots"), r"Line 5 \(41Ca\) of .* has 'lots' for binding_per_nucleon_kev; give a"),
    (lambda: swap(COMPACT, "8546.7", "inf"), r"Line 5 \(41Ca\) .* has 'inf' for binding_per_nucleon_kev"),
    (lambda: swap(COMPACT, "20,21,", "20.5,21,"), "Line 5 of .* has '20.5' for z; give a whole number of nucleons"),
    (lambda: swap(COMPACT, "8546.7", "350414.7") + "20,22,8616.6,,,,,\n",
     r"Line 5 \(41Ca\) .* 500 to 9500; mend the row or its unit"),
    (lambda: swap(COMPACT, '(7/2)-', '"(7/2)-'), "is not CSV at line 5"),
    (lambda: "z,n,binding_kev,measured\n20,20,342052,yes\n", r"\(40Ca\) .* has 'yes' for measured; give 1, or 0"),
    (lambda: "z,n,binding_kev\n20,20,8551.3\n20,21,8546.7\n",
     "read as the total binding energy in keV, found a median of 8549, .* looks like the binding energy per nucleon in "
     "keV; name the column"),
    (lambda: "z,n,binding_per_nucleon_kev\n20,20,342052\n",
     "per nucleon in keV, .* looks like the total binding energy in keV"),
    (lambda: "z,n,binding_kev\n20,20,342.052\n", "looks like the total binding energy in MeV"),
    (lambda: "z,n,binding_per_nucleon_kev\n20,20,8.5513\n", "looks like the binding energy per nucleon in MeV"),
    (lambda: "z,n,binding_kev\n20,20,77\n", "which no nucleus has, in keV or MeV"),
    (lambda: "z,n,mass_excess_kev\n20,20,-34.8\n20,21,-35.1\n20,22,-38.5\n20,23,-38.4\n", "what they are in MeV"),
    (lambda: swap(iaea_masses(small()), "mass_excess,", "mass_exces,"), r"No column 'mass_excess' .*Did you mean"),
    (lambda: iaea_masses(small())[:-20], "cells where the header has 8; the file is cut short or damaged"),
    (lambda: fixed_width(small())[:-85], "is no line of a mass table: N '.*', Z '.*', A ''; the file is cut short"),
    (lambda: fixed_width(small())[:-55], "for the uncertainty; give a number"),
    (lambda: "<!doctype html>\n<p>moved</p>", r"none of the known tables \(iaea-masses, .* found '<!doctype html>'"),
    (lambda: "", "is none of the known tables"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[m[:30] for _, m in WRONG])
def test_what_is_wrong_in_a_file_is_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_table(written(tmp_path, text()))
    assert "\n" not in str(error.value)


def test_a_column_of_totals_where_the_sheet_has_them_per_nucleon_is_found(tmp_path):
    table = small()
    lines = [line.split(",") for line in iaea_masses(table).splitlines()]
    for row, cells in enumerate(lines[1:]):
        cells[6] = f"{table.binding[row] * 1e3:.4f}"
    text = "\n".join(map(",".join, lines))
    with pytest.raises(
        DataError, match=r"binding energy per nucleon in keV, .* looks like the total binding energy in keV"
    ):
        read_table(written(tmp_path, text))


def test_a_row_whose_mass_excess_and_binding_energy_disagree_is_named(tmp_path):
    table = small()
    lines = iaea_masses(table).splitlines()
    cells = lines[10].split(",")
    cells[6] = f"{float(cells[6]) + 5:.4f}"
    lines[10] = ",".join(cells)
    with pytest.raises(DataError, match=rf"Line 11 \({table.label(9)}\) .* as its binding energy, but its mass excess"):
        read_table(written(tmp_path, "\n".join(lines)))


def test_a_fixed_width_number_that_is_none_is_named(tmp_path):
    text = fixed_width(small().take([0, 1]))
    value = f"{excess(small())[1]:.4f}"
    with pytest.raises(DataError, match=r"Line 7 of .* has '-2x.*' for the mass excess; give a number \(keV\)"):
        read_table(written(tmp_path, swap(text, value, "-2x" + value[3:])))
    gone = swap(text, value, " " * len(value))
    with pytest.raises(DataError, match=r"Line 7 of .* has '' for the mass excess"):
        read_table(written(tmp_path, gone))


def test_files_and_formats_that_are_not_there(tmp_path):
    written(tmp_path, COMPACT, "masses.csv")
    with pytest.raises(DataError, match=r"No file '.*mases.csv' to read .* Did you mean 'masses.csv'\?"):
        read_table(tmp_path / "mases.csv")
    with pytest.raises(ConfigError, match=r"No format 'compat' of nuclear tables; .*Did you mean 'compact'\?"):
        read_table(tmp_path / "masses.csv", format="compat")
    with pytest.raises(DataError, match="No column 'mass_excess'"):
        read_table(tmp_path / "masses.csv", format="iaea-masses")
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(DataError, match="read as UTF-8, found byte 0x8b at 1 that is none of it"):
        read_table(tmp_path / "packed")
    with pytest.raises(DataError, match=r"No nucleus of '.*' is left of 2 rows \(2 Z < 30 or N < 8\)"):
        read_table(tmp_path / "masses.csv", min_z=30)
    assert set(FORMATS) == {"iaea-masses", "iaea-ground-states", "compact", "amdc"}


# Download


@contextlib.contextmanager
def serving(folder, *, short: bool = False):
    """Serve a folder on a local port, by choice breaking off early; yield its address and the paths asked for."""
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            if not short:
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"z,n,binding_kev\n")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_table_is_read_from_an_address(tmp_path):
    remote, local, told = tmp_path / "remote", tmp_path / "local", []
    remote.mkdir()
    path = written(remote, COMPACT, "masses.csv")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with serving(remote) as (url, asked):
        found = read_table(url + "masses.csv", folder=local, sha256=digest, progress=lambda *now: told.append(now))
        assert found.provenance.source == url + "masses.csv" and found.provenance.sha256 == digest
        assert found.provenance.citation == "made for this test" and (local / "masses.csv").is_file()
        assert told[-1] == ("masses.csv", path.stat().st_size, path.stat().st_size)
        assert asked == [("/masses.csv", "microtome")]
        read_table(url + "masses.csv", folder=local, sha256=digest)
        assert len(asked) == 1
        read_table(url + "masses.csv", folder=local)
        assert len(asked) == 2
        assert fetch(url + "masses.csv?fields=ground_states&nuclides=all", local).name == (
            "masses.csv_fields_ground_states_nuclides_all"
        )
    assert len(read_table(path.as_uri(), folder=local)) == 2


def test_a_download_that_is_not_whole_or_not_the_one_leaves_nothing(tmp_path):
    remote, local = tmp_path / "remote", tmp_path / "local"
    remote.mkdir()
    written(remote, COMPACT, "masses.csv")
    with serving(remote) as (url, _):
        with pytest.raises(DataError, match=r"has SHA-256 \w{12}\.\.\. where 000000000000\.\.\. is expected"):
            read_table(url + "masses.csv", folder=local, sha256="0" * 64)
        with pytest.raises(DataError, match=r"could not be fetched \(.*File not found.*\); check the address"):
            read_table(url + "other.csv", folder=local)
    with (
        serving(remote, short=True) as (url, _),
        pytest.raises(DataError, match=r"announced 100000 bytes, found 16; the download broke off"),
    ):
        read_table(url + "masses.csv", folder=local)
    with pytest.raises(DataError, match="could not be fetched"):
        fetch(url + "masses.csv", local, timeout=2.0)
    assert list(local.iterdir()) == []


def test_a_failed_download_keeps_the_file_that_was_there(tmp_path):
    (tmp_path / "remote").mkdir()
    earlier = written(tmp_path, COMPACT, "masses.csv")
    with serving(tmp_path / "remote", short=True) as (url, _), pytest.raises(DataError, match="broke off"):
        fetch(url + "masses.csv", tmp_path)
    assert earlier.read_text() == COMPACT


def test_a_file_on_disk_is_checked_too(tmp_path):
    with pytest.raises(DataError, match=r"where 1{12}\.\.\. is expected; give the file of that checksum"):
        read_table(written(tmp_path, COMPACT), sha256="1" * 64)


# Tasks


def test_tasks_are_columns_with_units_scales_and_reasons():
    table = small()
    found = tasks(table, ["sn", "binding", "binding_semf", "z", "coulomb"])
    assert found.names == ("sn", "binding", "binding_semf", "z", "coulomb") and found.values.shape == (len(table), 5)
    assert [(t.unit, t.scale) for t in found.tasks[:2]] == [("MeV", 0.2), ("MeV", 0.1)]
    np.testing.assert_array_equal(found.values[:, 2], table.binding - SEMF.binding(table.z, table.n))
    assert (found.values[:, 4] < 0).all() and found.missing()["binding"] == {}
    gaps = int(np.isnan(found.values[:, 0]).sum())
    assert gaps > 0 and found.missing()["sn"] == {"no nucleus at Z+0, N-1 in the table": gaps}
    columns = found.columns()
    assert columns["z"] == table.z.tolist() and columns["sn"].count(None) == gaps
    assert all((value is None) == bool(why) for value, why in zip(columns["sn"], columns["sn_reason"], strict=True))


def test_tasks_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match=r"No task 'bindin'; there are binding, .*Did you mean 'binding'\?"):
        tasks(small(), ["bindin"])
    with pytest.raises(ConfigError, match=r"asked for are sn, sn; .* name some, each once"):
        tasks(small(), ["sn", "sn"])
    with pytest.raises(DataError, match=r"value for the task 'radius' \(the table has no radius\); leave it out"):
        tasks(small(), ["binding", "radius"])
    assert set(PAPER_TASKS) < set(TASKS)


def test_the_control_is_noise_that_belongs_to_the_nucleus():
    table = theory_table()
    noise = tasks(table, ["control"]).values[:, 0]
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
    part = table.cut(min_z=50)
    np.testing.assert_array_equal(tasks(part, ["control"]).values[:, 0], noise[table.z >= 50])
    assert not np.array_equal(tasks(table, ["control"], seed=1).values[:, 0], noise)


def test_scaling_is_of_training_numbers_only_and_is_undone():
    found = tasks(small(), ["binding", "sn"])
    part = split(found, "nucleus", seed=3)
    scaling = standardise(found, part.train)
    scaled = scaling.forward(found.values)
    inside = np.where(part.train, scaled, np.nan)
    assert np.abs(np.nanmean(inside, 0)).max() < FLOAT64 and np.abs(np.nanstd(inside, 0) - 1).max() < FLOAT64
    np.testing.assert_allclose(scaling.back(scaled), found.values, atol=FLOAT64)
    with pytest.raises(DataError, match="The task 'sn' has no number in training"):
        standardise(found, part.train & [True, False])


# Splits


NAMES = ("binding", "sn", "sp", "s2n", "s2p", "qa", "qbm", "qbm_n", "qec")


@pytest.mark.parametrize("kind", SPLITS)
def test_a_split_divides_the_numbers_there_are(kind):
    found = tasks(small(), NAMES)
    part = split(found, kind, seed=1)
    again, other = split(found, kind, seed=1), split(found, kind, seed=2)
    parts = part.train.astype(int) + part.held + part.masked
    assert (parts == found.present).all() and part.train.any() and part.held.any()
    assert (part.held == again.held).all() and (part.held == other.held).all() == (kind == "edge")
    assert part.leaky == (kind == "task") and bool(part.masked.any()) == (kind != "task")
    assert ("is leaky" in " ".join(part.warnings)) == part.leaky


def test_whole_nuclei_are_held_out_and_every_number_keeps_enough():
    part = split(tasks(theory_table(), ["binding", "sn"]), "nucleus", share=0.1, keep=3, seed=5)
    table, held = part.tasks.table, part.held_nuclei
    assert held.sum() == round(0.1 * len(table)) and not (held & part.train_nuclei).any()
    assert min(np.bincount(axis[~held])[8:].min() for axis in (table.z, table.n)) >= 3
    assert not part.unseen and part.warnings == ()
    most = split(part.tasks, "nucleus", share=0.9, keep=4, seed=5)
    left = [np.bincount(axis[~most.held_nuclei])[8:] for axis in (table.z, table.n)]
    before = [np.bincount(axis)[8:] for axis in (table.z, table.n)]
    assert all((now >= np.minimum(4, then)).all() for now, then in zip(left, before, strict=True))
    assert most.held_nuclei.sum() < 0.9 * len(table)


def test_what_is_masked_is_what_touches_a_held_out_nucleus():
    whole = theory_table(min_z=30, min_n=36, max_z=40, max_n=52)
    table = whole.cut(min_z=33, min_n=40)
    found = tasks(table, NAMES, neighbours=whole)
    part = split(found, "region", box=(38, 40, 0, 200))  # the table's last row among them
    held = {(z, n) for z, n in zip(table.z[part.held_nuclei].tolist(), table.n[part.held_nuclei].tolist(), strict=True)}
    for row, column in zip(*np.nonzero(part.train | part.masked), strict=True):
        rule = DIFFERENCES[NAMES[column]]
        other = rule.minus if rule.plus == (0, 0) else rule.plus
        touches = other is not None and (table.z[row] + other[0], table.n[row] + other[1]) in held
        assert part.masked[row, column] == touches


def test_edges_are_the_ends_of_chains_from_nickel_on():
    part = split(tasks(theory_table()), "edge", ends=2, keep=4)
    table, held = part.tasks.table, part.held_nuclei
    for z in range(8, 111):
        chain = np.sort(table.n[table.z == z])
        out = np.sort(table.n[held & (table.z == z)])
        long = z >= 28 and len(chain) >= 8
        assert out.tolist() == ([*chain[:2].tolist(), *chain[-2:].tolist()] if long else [])


def test_a_region_is_a_box_or_what_lies_nearest():
    found = tasks(theory_table())
    boxed = split(found, "region", box=(50, 60, 70, 80)).held_nuclei
    table = found.table
    assert (boxed == ((table.z >= 50) & (table.z <= 60) & (table.n >= 70) & (table.n <= 80))).all()
    held = split(found, "region", seed=4, share=0.05).held_nuclei
    assert held.sum() == round(0.05 * len(table))
    assert np.ptp(table.z[held]) < 20 and np.ptp(table.n[held]) < 25


def test_numbers_never_trained_are_named():
    found = tasks(small())
    part = split(found, "region", box=(36, 36, 0, 200))
    assert part.unseen.z == (36,) and part.unseen.nuclei == part.held_nuclei.sum()
    (warning,) = part.warnings
    assert "nuclei have a number that no training nucleus has (Z = 36" in warning and "untrained embeddings" in warning
    every = np.ones(len(found.table), bool)
    assert not unseen(found.table, every, every)


def test_a_validation_part_is_taken_from_training_alone():
    found = tasks(theory_table(), ["binding", "sn", "qa"])
    outer = split(found, "nucleus", seed=1)
    inner = split(found, "nucleus", seed=2, within=outer.train)
    assert (inner.train | inner.held | inner.masked == outer.train).all() and not (inner.held & outer.held).any()
    assert not leaks(inner)


def test_splits_that_leave_nothing_are_refused():
    found = tasks(small())
    with pytest.raises(ConfigError, match=r"No split 'nuclei'; there are nucleus, .*Did you mean 'nucleus'\?"):
        split(found, "nuclei")
    with pytest.raises(ConfigError, match=r"A share of 1.5 is to be held out; give one between 0 and 1"):
        split(found, share=1.5)
    with pytest.raises(DataError, match=r"'region' of .* nuclei leaves no number held out"):
        split(found, "region", box=(90, 100, 0, 200))
    with pytest.raises(DataError, match="leaves no number left in training"):
        split(found, "region", box=(0, 100, 0, 200))


# Leakage


def rank_says(part) -> int:
    """Count held-out energies in the row space of training ones, by linear algebra on binding energies."""
    table = part.tasks.table
    keys = {}

    def row(i, task):
        rule, line = DIFFERENCES[task.name], {}
        for sign, step in ((1, rule.plus), (-1, rule.minus)):
            if step is not None:
                line[keys.setdefault((table.z[i] + step[0], table.n[i] + step[1]), len(keys))] = sign
        return line

    def matrix(mask):
        return [row(i, part.tasks.tasks[c]) for i, c in zip(*np.nonzero(mask), strict=True)]

    def dense(lines):
        out = np.zeros((len(lines), len(keys)))
        for line, values in zip(out, lines, strict=True):
            for key, value in values.items():
                line[key] = value
        return out

    train, held = matrix(part.train), matrix(part.held)
    train, held = dense(train), dense(held)
    _, singular, basis = np.linalg.svd(train, full_matrices=False)
    basis = basis[singular > 1e-9]
    return int((np.abs(held - held @ basis.T @ basis).max(1) < 1e-9).sum())


@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9), kind=st.sampled_from([*SPLITS]), mask=st.booleans(),
       names=st.sets(st.sampled_from(NAMES), min_size=1))  # fmt: skip
def test_the_checker_finds_what_linear_algebra_finds(seed, share, kind, mask, names):
    table = theory_table(min_z=27, max_z=34, min_n=28, max_n=36, width=2.5)
    part = split(tasks(table, sorted(names)), kind, seed=seed, share=share, keep=1, mask=mask)
    found = leaks(part)
    assert found.total == rank_says(part) and sum(found.held.values()) == part.held.sum()
    assert mask is False or kind == "task" or not found


def test_leaky_splits_are_flagged_and_masked_ones_pass():
    found = tasks(theory_table(), NAMES)
    by_task = leaks(split(found, "task"))
    assert by_task.share > 0.99 and bool(by_task) and "follow from training numbers, e.g. " in str(by_task)
    bare = split(found, "nucleus", mask=False)
    assert bare.leaky and leaks(bare).share > 0.9
    passed = leaks(split(found, "nucleus"))
    assert not passed and passed.examples == () and "None of" in str(passed)
    alone = split(tasks(theory_table()), "nucleus", mask=False)
    assert not alone.leaky and not leaks(alone)  # binding energies alone give none of each other away


def test_a_derivation_names_the_fewest_numbers():
    table = made([20, 20, 20], [20, 21, 22], [340, 348, 360])
    part = split(tasks(table, ["binding", "sn", "s2n"]), "task", share=0.5)
    held, train = np.zeros((3, 3), bool), part.tasks.present.copy()
    held[2, 0], train[2, 0] = True, False
    found = leaks(replace(part, train=train, held=held))
    assert found.derivable == {"binding": 1, "sn": 0, "s2n": 0} and found.held["binding"] == 1
    (leak,) = found.examples
    assert leak.number == "binding(42Ca)" and set(leak.from_numbers) in (
        {"sn(42Ca)", "binding(41Ca)"},
        {"s2n(42Ca)", "binding(40Ca)"},
    )


def test_what_is_no_energy_cannot_leak_by_this_rule():
    part = split(tasks(small(), ["binding", "control", "z"]), "task")
    assert set(leaks(part).held) == {"binding"}
    assert not leaks(split(tasks(small(), ["control"]), "task"))
    same = split(tasks(small(), ["binding", "binding_bw2"]), "task")
    # A residual to a known formula is the binding energy itself.
    assert leaks(same).total == (same.held & same.train[:, ::-1]).sum() > 0
