"""Tables and arrays come back as they went in, the same bytes for the same content, and hold no NaN unannounced."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import RecordError
from microtome.records import Missing, Reason, Record, StageOutput
from microtome.records.arrays import array_bytes, array_from
from microtome.records.tables import table_bytes, table_from, table_of


def stored(rows, reasons=None) -> pa.Table:
    return table_from(table_bytes("t", table_of("t", rows, [] if reasons is None else reasons)))


int64 = st.integers(-(2**63), 2**63 - 1)
columns_of = {
    "i": st.none() | int64,
    "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "b": st.none() | st.booleans(),
    "s": st.none() | st.text(max_size=5),
    "l": st.none() | st.lists(int64, max_size=3),
}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.fixed_dictionaries(columns_of), max_size=8))
def test_rows_come_back_and_equal_rows_are_equal_bytes(rows):
    assert stored(rows).to_pylist() == rows
    as_columns = {c: [row[c] for row in rows] for c in (rows[0] if rows else ())}
    one, *others = (table_bytes("t", table_of("t", given_, [])) for given_ in (rows, iter(rows), as_columns))
    assert others == [one, one]


def test_a_row_without_a_key_has_null_and_columns_keep_their_order():
    table = stored([{"z": 1}, {"a": "x", "z": 2}])
    assert table.column_names == ["z", "a"]
    assert table.to_pylist() == [{"z": 1, "a": None}, {"z": 2, "a": "x"}]


def test_numpy_columns_keep_their_type_and_metadata_is_no_content():
    given_ = {"a": np.arange(3, dtype=np.int8), "b": np.array([True, False, True]), "c": np.array(["x", "y", "z"]),
              "d": np.arange(3, dtype=">f4"), "e": np.arange(6.0)[::2], "f": np.ones(3, np.float16)}  # fmt: skip
    table = stored(given_)
    assert {f.name: str(f.type) for f in table.schema} == {
        "a": "int8", "b": "bool", "c": "string", "d": "double", "e": "double", "f": "float"}  # fmt: skip
    assert table.to_pydict() == {k: v.tolist() for k, v in given_.items()}
    labelled = table.replace_schema_metadata({"when": "today"})
    assert table_bytes("t", table_of("t", labelled, [])) == table_bytes("t", table_of("t", table, []))


def test_chunks_and_slices_are_no_content():
    whole = pa.table({"x": list(range(10)), "s": list("abcdefghij")})
    pieces = pa.concat_tables([whole.slice(0, 3), whole.slice(3)])
    assert table_bytes("t", table_of("t", pieces, [])) == table_bytes("t", table_of("t", whole, []))


def test_a_missing_cell_is_null_and_its_reason_keeps_the_rows():
    reasons = []
    few, none = Missing("too few items"), Missing("no control")
    table = stored([{"p": few}, {"p": 0.5}, {"p": few}, {"p": few}, {"p": none}, {"p": None}], reasons)
    assert table["p"].to_pylist() == [None, 0.5, None, None, None, None]
    assert reasons == [Reason("tables.t.p", "too few items", "0,2-3"), Reason("tables.t.p", "no control", "4")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"x": 1.0}, {"x": float("nan")}], "Column 'tables.t.x' holds nan in row 1 (1 in all): a record holds no NaN "
                                            "or infinity; give Missing('the reason')."),
        ({"x": np.array([np.inf, 0, np.nan])}, "Column 'tables.t.x' holds inf in row 0 (2 in all): a record holds no "),
        ({"x": np.array([np.nan], np.float16)}, "Column 'tables.t.x' holds nan in row 0 (1 in all)"),
        ([{"x": [0.0]}, {"x": [1.0, np.nan]}], "Column 'tables.t.x' holds nan in list item 2 (1 in all)"),
        ([{"x": {"y": np.nan}}], "Column 'tables.t.x.y' holds nan in row 0 (1 in all)"),
        (pa.table({"x": [None, float("nan")]}), "Column 'tables.t.x' holds nan in row 1 (1 in all)"),
        ([{"x": 1}, {"x": "a"}], "Column 'tables.t.x' does not fit one type: "),
        ([{"x": 2**70}], "Column 'tables.t.x' does not fit one type: "),
        ([{"x": object()}], "Column 'tables.t.x' does not fit one type: "),
        ([{"x": "\ud800"}], "Column 'tables.t.x' does not fit one type: "),
        ({"x": [1, 2], "y": [1]}, "Table 't' has columns of lengths {'x': 2, 'y': 1}; give every column one value per "
                                  "row."),
        ({"x": 3}, "Column 'tables.t.x' is a int; give one value per row."),
        ({"x": "abc"}, "Column 'tables.t.x' is a str; give one value per row."),
        ([{"x": 1}, [2]], "Table 't' row 1 is a list; give each row as a dictionary."),
        ([{3: 1}], "'tables.t' has the key 3 (int); keys are text, use str(key)."),
        ([{"K": 1, "k": 2}], "Table 't' has the columns 'K' and 'k', one name in SQL; rename one."),
        ([{"x": {}}], "Table 't' cannot be stored: "),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused_on_one_line(rows, message):
    with pytest.raises(RecordError) as caught:
        stored(rows)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ARRAYS = [
    np.arange(6).reshape(2, 3).astype(dtype)
    for dtype in ("?", "i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", ">f4", ">i8")
] + [np.zeros((0, 3)), np.array(7.0), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(9)[::-2]]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_come_back_with_their_type_and_shape(array):
    found = array_from(array_bytes("a", array, announced=False))
    assert found.dtype.name == array.dtype.name and found.shape == array.shape
    assert np.array_equal(found, array)
    assert array_bytes("a", array.copy(), announced=False) == array_bytes("a", array, announced=False)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.0, 1.0], [np.nan, np.inf]]), "Array 'a' of shape (2, 2) holds nan at (1, 0) (2 in all): a record "
         "holds no NaN or infinity unannounced; give StageOutput(reasons={'a': 'the reason'})."),
        ([1, 2], "Array 'a' is list; give a numpy array of numbers or booleans."),
        (np.array(["x"]), "Array 'a' is <U1; give a numpy array of numbers or booleans."),
        (np.ma.array([1, 2], mask=[0, 1]), "Array 'a' is MaskedArray; give a numpy array of numbers or booleans."),
        (np.ones(2, complex), "Array 'a' is complex128: "),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused_on_one_line(array, message):
    with pytest.raises(RecordError) as caught:
        array_bytes("a", array, announced=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_gives_back_what_a_stage_put_in(tmp_path):
    rows = [{"layer": 0, "effect": 0.25, "unit": "é"}, {"layer": 1, "effect": Missing("head absent"), "unit": None}]
    gap = np.array([[0.5, np.nan]])
    with Record.open(tmp_path / "r", study="toy", config={"k": 1}, seed=3) as record:
        stage = record.stage(
            "one",
            lambda: StageOutput(
                tables={"effects": rows, "none": []},
                arrays={"recovery": gap, "mask": gap > 0},
                values={"auc": Missing("one class only"), "n": np.int64(2)},
                reasons={"recovery": "position 1 is padding"},
            ),
        )
    read = Record.load(tmp_path / "r")
    for side in (stage, read):
        assert side.rows("effects") == [rows[0], {"layer": 1, "effect": None, "unit": None}]
        assert side.rows("none") == []
        assert np.array_equal(side.array("recovery"), gap, equal_nan=True)
        assert side.array("mask").tolist() == [[True, False]]
        assert side.value("n") == 2 and side.value("auc") is None
    assert (read.tables, read.arrays) == (("effects", "none"), ("recovery", "mask"))
    assert read.reasons == (
        Reason("tables.effects.effect", "head absent", "1"),
        Reason("values.auc", "one class only"),
        Reason("arrays.recovery", "position 1 is padding"),
    )
    (entry,) = read.manifest.stages
    assert entry.tables["effects"].rows == 2
    assert entry.tables["effects"].columns == {"layer": "int64", "effect": "double", "unit": "string"}
    assert (entry.arrays["recovery"].dtype, entry.arrays["recovery"].shape) == ("float64", [1, 2])
    read.check()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (StageOutput(values={"auc": float("nan")}), "'values.auc' is nan: a record holds no NaN or infinity"),
        (StageOutput(values={3: 1}), "'values' has the key 3 (int); keys are text"),
        (StageOutput(tables={"t": [{"x": np.nan}]}), "Column 'tables.t.x' holds nan in row 0"),
        (StageOutput(arrays={"a": np.array([np.nan])}), "Array 'a' of shape (1,) holds nan at (0,)"),
        (StageOutput(arrays={"gain": np.ones(1)}, reasons={"gian": "why"}), "Stage 'one' gives a reason for the array "
         "'gian', its arrays are gain; give Missing(reason) in tables and values. Did you mean 'gain'?"),
        (StageOutput(arrays={"a": np.ones(1)}, reasons={"a": ""}), "Missing was given ''; say in words why"),
        (StageOutput(tables={"T": [{"x": 1}], "t": [{"x": 1}]}), "Stage 'one' puts out the table 't', which stage "
         "'one' did; rename one, or choose another folder if the study has changed."),
        (None, "Stage 'one' returned a NoneType; return a StageOutput."),
        *(
            (StageOutput(tables={name: [{"x": 1}]}), f"{name!r} cannot be the name of this table; begin with a letter "
             "and use only letters, digits and _.")
            for name in ("../x", "", "a.b", "a b", "a;drop", "1a", "a\n", "é", 3)
        ),
        *(
            (StageOutput(arrays={name: np.ones(1)}), f"{name!r} cannot be the name of this array; begin with a letter "
             "or digit and use only letters, digits, _ . -.")
            for name in ("../x", "", "/etc/x", ".x", "a/b", "a\\b", "a\n", "a\0")
        ),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_stored_leaves_no_trace(tmp_path, output, message):
    with Record.open(tmp_path / "r", study="toy", config={}, seed=0) as record:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RecordError) as caught:
            record.stage("one", lambda: output)
        assert message in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before
        assert record.manifest.stages == []


def test_what_is_not_there_is_an_error_that_names_what_is(tmp_path):
    with Record.open(tmp_path / "r", study="toy", config={}, seed=0) as record:
        stage = record.stage("one", lambda: StageOutput(tables={"effects": [{"x": 1}]}))
    with pytest.raises(
        RecordError, match=r"No table 'effect' in record '.*'; it has effects. Did you mean 'effects'\?"
    ):
        record.table("effect")
    with pytest.raises(RecordError, match=r"No array 'a' in record '.*'; it has none\."):
        record.array("a")
    with pytest.raises(
        RecordError, match=r"Stage 'one' has no table 'effect'; it has effects. Did you mean 'effects'\?"
    ):
        stage.table("effect")
    for ask, kind in ((record.value, "value"), (record.artefact_path, "artefact"), (stage.value, "value")):
        with pytest.raises(RecordError, match=f"o {kind} 'x'"):
            ask("x")


def test_two_runs_of_one_seed_leave_the_same_bytes(tmp_path):
    def run(folder, seed):
        rng = np.random.default_rng(seed)
        with Record.open(folder, study="toy", config={"k": 1}, seed=seed) as record:
            for i, (a, b) in enumerate(itertools.pairwise((5, 300, 7))):
                rows = [{"i": j, "draw": float(x), "name": f"unit {j}"} for j, x in enumerate(rng.normal(size=a))]
                record.stage(f"s{i}", lambda r=rows, b=b: StageOutput({f"t{b}": r}, {f"a{b}": rng.normal(size=(b, 2))}))
        return {
            f.relative_to(folder): f.read_bytes() for kind in ("tables", "arrays") for f in (folder / kind).iterdir()
        }

    first, second, other = run(tmp_path / "a", 0), run(tmp_path / "b", 0), run(tmp_path / "c", 1)
    assert len(first) == 4 and first == second
    assert all(first[name] != other[name] for name in first)
