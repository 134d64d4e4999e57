"""SQL over the tables of one record or several gives what counting by hand gives, and reaches nothing else."""

import duckdb
import pyarrow as pa
import pytest

from microtome.core.errors import RecordError
from microtome.records import Record, StageOutput, query

ROWS = [{"layer": i % 3, "effect": i / 4, "task": "recall" if i % 2 else "reasoning"} for i in range(12)]


def recorded(folder, **tables):
    with Record.open(folder, study="toy", config={}, seed=0) as record:
        record.stage("one", lambda: StageOutput(tables=tables))
    return record


def test_a_query_over_one_record_agrees_with_counting_by_hand(tmp_path):
    record = recorded(tmp_path / "r", patching=ROWS, order=[{"layer": 1, "name": "one"}], none=[])
    sql = "select layer, sum(effect) as effect from patching where task = 'recall' group by layer order by layer"
    by_hand = {
        layer: sum(r["effect"] for r in ROWS if r["layer"] == layer and r["task"] == "recall") for layer in range(3)
    }
    for given in (record, tmp_path / "r", str(tmp_path / "r")):
        found = query(given, sql)
        assert isinstance(found, pa.Table)
        assert found.to_pydict() == {"layer": [0, 1, 2], "effect": list(by_hand.values())}
    joined = query(record, 'select name, count(*) as n from patching join "order" using (layer) group by name')
    assert joined.to_pylist() == [{"name": "one", "n": 4}]


def test_a_query_over_several_records_tells_them_apart(tmp_path):
    a = recorded(tmp_path / "a", t=[{"x": 1}, {"x": 2}], alone=[{"y": 5}])
    b = recorded(tmp_path / "b", t=[{"x": 0.5, "more": "z"}])
    found = query([a, tmp_path / "b"], "select record, x, more from t order by x")
    assert found.to_pylist() == [
        {"record": str(b.path), "x": 0.5, "more": "z"},
        {"record": str(a.path), "x": 1.0, "more": None},
        {"record": str(a.path), "x": 2.0, "more": None},
    ]
    assert query([a, b], "select * from alone").to_pylist() == [{"y": 5, "record": str(a.path)}]
    assert query([a], "select count(distinct record) as n from t").to_pylist() == [{"n": 1}]
    assert query([], "select 1 as one").to_pylist() == [{"one": 1}]


def test_records_that_do_not_stack_are_refused(tmp_path):
    words = recorded(tmp_path / "words", t=[{"x": "a"}])
    numbers = recorded(tmp_path / "numbers", t=[{"x": 1}])
    capital = recorded(tmp_path / "capital", T=[{"x": 1}])
    own = recorded(tmp_path / "own", t=[{"record": 1}])
    for records, message in (
        ([words, numbers], r"Table 't' does not stack over 2 records: .*; query them singly\."),
        ([numbers, capital], r"Tables t and T of different records are one name in SQL; query them singly\."),
        ([numbers, own], r"Table 't' of '.*own' has a column 'record' of its own; query it singly\."),
    ):
        with pytest.raises(RecordError, match=message) as caught:
            query(records, "select * from t")
        assert "\n" not in str(caught.value)
    assert query(own, "select record from t").to_pylist() == [{"record": 1}]


@pytest.mark.parametrize("sql", ["select * from pathcing", "select", "selec 1\nfrom t", "", "-- nothing", "select ?"])
def test_a_query_that_fails_says_why_and_names_the_tables(tmp_path, sql):
    with pytest.raises(RecordError) as caught:
        query(recorded(tmp_path / "r", patching=ROWS), sql)
    assert str(caught.value).startswith(f"Query '{' '.join(sql.split())}' failed: ")
    assert str(caught.value).endswith("; the tables are patching.")
    assert "\n" not in str(caught.value)


HOSTILE = [
    "select * from '{secret}'",
    "select * from read_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from glob('{folder}/*')",
    "from sniff_csv('{secret}')",
    "copy (select 1) to '{folder}/out.csv'",
    "copy t from '{secret}'",
    "export database '{folder}/out'",
    "import database '{folder}'",
    "attach '{folder}/out.db'",
    "install httpfs",
    "load httpfs",
    "select * from 'https://example.org/x.csv'",
    "select * from here",
    "set enable_external_access = true; select * from '{secret}'",
    "set python_enable_replacements = true; select * from here",
    'select * from "table"',  # a local variable of `query`
    'set python_enable_replacements = true; select * from "table"',
    "set threads = 2",
    "set temp_directory = '{folder}/out'",
    "select getenv('HOME')",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_query_reaches_no_file_no_network_and_no_variable(tmp_path, sql):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nopensesame\n")
    here = pa.table({"word": ["opensesame"]})  # a variable that duckdb would find, were it let
    record = recorded(tmp_path / "r", t=[{"word": "x"}])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecordError) as caught:
        query(record, sql.format(secret=secret, folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert here.num_rows == 1


def test_an_open_duckdb_would_have_read_them(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nopensesame\n")
    here = pa.table({"word": ["opensesame"]})
    with duckdb.connect() as connection:
        for source in (f"'{secret}'", f"read_csv('{secret}')", "here"):
            assert connection.sql(f"select word from {source}").fetchall() == [("opensesame",)]
    assert here.num_rows == 1


def test_a_query_leaves_the_record_as_it_is(tmp_path):
    record = recorded(tmp_path / "r", t=[{"x": 1}])
    for sql in ("drop view t", "create or replace view t as select 7 as x", "select 1; drop view t"):
        try:
            query(record, sql)
        except RecordError:
            pass
    assert query(record, "select x from t").to_pylist() == [{"x": 1}]
    record.check()
