"""A stage is reused while its inputs are what they were, done again when they are not, and leaves nothing by halves."""

import json
from pathlib import Path

import numpy as np
import pytest

from microtome.core.errors import RecordError
from microtome.records import Missing, Record, StageOutput, differences


def opened(folder, **changes) -> Record:
    return Record.open(folder, **{"study": "toy", "config": {"scale": 1.0}, "seed": 0} | changes)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


class Pipeline:
    """draw -> double -> total, and beside them an aside that none depends on; tells which of them were computed."""

    def __init__(self, start=1, factor=2, code=""):
        self.start, self.factor, self.code = start, factor, code
        self.done: list[str] = []

    def run(self, record: Record) -> list[str]:
        draw = record.stage("draw", lambda: self.draw(), {"start": self.start}, code=self.code)
        double = record.stage("double", lambda: self.double(draw), {"draw": draw, "factor": self.factor})
        record.stage("total", lambda: self.total(double), {"double": double})
        record.stage("aside", lambda: self.aside())
        return self.done

    def draw(self):
        self.done.append("draw")
        return StageOutput(tables={"draws": [{"x": abs(self.start) + i} for i in range(3)]})

    def double(self, draw):
        self.done.append("double")
        return StageOutput(arrays={"doubled": np.array(draw.table("draws")["x"].to_pylist()) * self.factor})

    def total(self, double):
        self.done.append("total")
        return StageOutput(values={"total": int(double.array("doubled").sum())})

    def aside(self):
        self.done.append("aside")
        return StageOutput(values={"aside": 1})


def run(folder, **changes) -> list[str]:
    with opened(folder) as record:
        return Pipeline(**changes).run(record)


EVERY = ["draw", "double", "total", "aside"]


def test_a_second_run_computes_nothing_and_changes_no_byte(tmp_path):
    assert run(tmp_path / "r") == EVERY
    before = files(tmp_path / "r")
    assert run(tmp_path / "r") == []
    assert files(tmp_path / "r") == before
    assert Record.load(tmp_path / "r").value("total") == 12


def test_a_stage_says_whether_it_was_reused_and_reads_the_same_either_way(tmp_path):
    def one(record):
        return record.stage("one", lambda: StageOutput({"t": [{"x": 0.1}]}, {"a": np.ones(2)}, {"v": (1, 2.0)}))

    with opened(tmp_path / "r") as record:
        first = one(record)
    with opened(tmp_path / "r") as record:
        second = one(record)
    assert (first.reused, second.reused) == (False, True)
    assert first.digest == second.digest
    assert first.table("t") == second.table("t") and first.value("v") == second.value("v") == [1, 2.0]


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"start": 5}, ["draw", "double", "total"]),  # its results differ, so all downstream
        ({"start": -1}, ["draw"]),  # another input, the same results: downstream stands
        ({"code": "2"}, ["draw"]),
        ({"factor": 3}, ["double", "total"]),
        ({"factor": 2.0}, ["double", "total"]),  # 2 and 2.0 are two inputs
    ],
)
def test_what_depends_on_a_change_is_done_again_and_nothing_else(tmp_path, changes, computed):
    run(tmp_path / "r")
    assert run(tmp_path / "r", **changes) == computed
    run(tmp_path / "fresh", **changes)
    # beside a run that knew from the start: the same record, in the same order
    again, fresh = Record.load(tmp_path / "r"), Record.load(tmp_path / "fresh")
    assert differences(again, fresh) == []
    assert [s.name for s in again.manifest.stages] == [s.name for s in fresh.manifest.stages] == EVERY


def test_stages_stand_in_the_order_the_run_asks_for_them(tmp_path):
    for names in ("ac", "abc", "cab"):  # one that the study gained in the middle, then another order
        with opened(tmp_path / "r") as record:
            for name in names:
                record.stage(name, lambda name=name: StageOutput(values={name: 1}), code=names)
        assert [s.name for s in record.manifest.stages] == list(names)


def test_a_table_that_is_no_longer_put_out_is_removed(tmp_path):
    for code, name in (("1", "old"), ("2", "new")):
        with opened(tmp_path / "r") as record:
            record.stage("one", lambda name=name: StageOutput({name: [{"x": 1}], "both": []}), code=code)
    assert record.tables == ("new", "both")
    assert {f.name for f in (tmp_path / "r" / "tables").iterdir()} == {"new.parquet", "both.parquet"}


def test_a_deleted_file_is_computed_anew(tmp_path):
    run(tmp_path / "r")
    (tmp_path / "r" / "tables" / "draws.parquet").unlink()
    with pytest.raises(RecordError, match=r"'draws.parquet' is missing; run the study again, it will be computed anew"):
        Record.load(tmp_path / "r").check()
    assert run(tmp_path / "r") == ["draw"]
    Record.load(tmp_path / "r").check()


def test_a_name_another_stage_puts_out_is_refused(tmp_path):
    with opened(tmp_path / "r") as record:
        record.stage("one", lambda: StageOutput({"t": [{"x": 1}]}, values={"v": 1}))
        for taken in (StageOutput({"T": []}), StageOutput(values={"v": 2})):
            with pytest.raises(
                RecordError, match=r"Stage 'two' puts out the (table 'T'|value 'v'), which stage 'one' d"
            ):
                record.stage("two", lambda taken=taken: taken)
        assert record.stage("two", lambda: StageOutput(values={"V": 2})).value("V") == 2
    assert record.rows("t") == [{"x": 1}]


@pytest.mark.parametrize("raised", [ValueError("no such\nhead"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_a_stage_that_raises_leaves_the_record_resumable_and_nothing_by_halves(tmp_path, raised):
    run(tmp_path / "whole")

    def fail(_):
        raise raised

    stopped = Pipeline()
    stopped.total = fail
    with pytest.raises(type(raised)), opened(tmp_path / "r") as record:
        stopped.run(record)
    found = Record.load(tmp_path / "r")
    assert (found.status, found.manifest.stopped_by) == (
        "interrupted",
        {"ValueError": "ValueError: no such head", "SystemExit": "SystemExit: 3"}.get(
            type(raised).__name__, "KeyboardInterrupt"
        ),
    )
    assert [s.name for s in found.manifest.stages] == ["draw", "double"]
    assert set(files(tmp_path / "r")) == {".lock", "record.json", "tables/draws.parquet", "arrays/doubled.safetensors"}
    assert differences(found, Record.load(tmp_path / "whole")) != []

    assert run(tmp_path / "r") == ["total", "aside"]
    resumed = Record.load(tmp_path / "r")
    assert resumed.manifest.stopped_by is None and len(resumed.manifest.times["resumed"]) == 1
    assert resumed.manifest.resumed_with == []  # the same code went on with it
    assert differences(resumed, Record.load(tmp_path / "whole")) == []


def test_a_failed_recomputation_leaves_the_old_results(tmp_path):
    run(tmp_path / "r")
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "r") as record:
        record.stage("draw", lambda: 1 / 0, {"start": 7})
    # the record was finished and nothing new was written, so it still is
    assert Record.load(tmp_path / "r").status == "finished"
    assert run(tmp_path / "r") == []


def test_status_follows_the_run(tmp_path):
    record = opened(tmp_path / "r")
    assert Record.load(record.path).status == "running"
    record.interrupt("the battery")
    assert (Record.load(record.path).status, Record.load(record.path).manifest.stopped_by) == (
        "interrupted",
        "the battery",
    )
    record = opened(tmp_path / "r")
    assert (Record.load(record.path).status, Record.load(record.path).manifest.stopped_by) == ("running", None)
    record.finish()
    assert Record.load(record.path).status == "finished" and "ended" in record.manifest.times
    with opened(tmp_path / "r") as record:
        assert record.status == "finished"
        record.stage("late", lambda: StageOutput(values={"v": 1}))
        assert record.status == "running"
    assert Record.load(record.path).status == "finished"


def test_a_record_that_is_closed_or_read_cannot_be_written(tmp_path):
    with opened(tmp_path / "r") as closed:
        pass
    for record in (closed, Record.load(tmp_path / "r")):
        for write in (
            lambda r: r.stage("x", StageOutput),
            lambda r: r.add_artefact("x", Path.touch),
            lambda r: r.views([]),
            lambda r: r.finish(),
            lambda r: r.interrupt("x"),
        ):
            with pytest.raises(
                RecordError, match=r"Record '.*' was asked for .*, found it open for reading; use Record"
            ):
                write(record)
    with Record.load(tmp_path / "r") as record:  # reading in a block changes nothing
        assert record.tables == ()


def folder_of(path: Path, text: str) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "w.txt").write_text(text)
    (path / "card.txt").write_text("card")


def test_artefacts_come_back_and_are_made_again_when_their_inputs_change(tmp_path):
    calls = []

    def make(record, text):
        written = [
            record.add_artefact("basis.npy", lambda p: calls.append(np.save(p, np.ones(2) * len(text))), {"t": text}),
            record.add_artefact("lens", lambda p: calls.append(folder_of(p, text)), {"t": text}),
        ]
        assert np.load(written[0]).tolist() == [len(text)] * 2
        assert (written[1] / "deep" / "w.txt").read_text() == text

    for text, computed in (("ab", 2), ("ab", 0), ("abc", 2)):
        calls.clear()
        with opened(tmp_path / "r") as record:
            make(record, text)
        assert len(calls) == computed
    assert record.artefacts == ("basis.npy", "lens")
    assert Record.load(record.path).artefact_path("lens") == tmp_path / "r" / "artefacts" / "lens"

    (tmp_path / "r" / "artefacts" / "lens" / "deep" / "w.txt").write_text("abd")
    with pytest.raises(
        RecordError, match=r"Artefact 'lens' of record '.*' is damaged: its checksum is .*; delete 'lens'"
    ):
        Record.load(record.path).check()


def test_an_artefact_that_fails_leaves_nothing_and_may_turn_from_folder_to_file(tmp_path):
    def half(path: Path) -> None:
        folder_of(path, "half")
        raise OSError("disk full")

    with opened(tmp_path / "r") as record:
        with pytest.raises(OSError, match="disk full"):
            record.add_artefact("lens", half)
        assert list((tmp_path / "r" / "artefacts").iterdir()) == [] and record.artefacts == ()
        with pytest.raises(
            RecordError, match=r"'lens' was to be written to '.*', found nothing there; write to that path"
        ):
            record.add_artefact("lens", lambda path: None)
        for turn, write in enumerate(
            (lambda p: folder_of(p, "x"), lambda p: p.write_text("y"), lambda p: folder_of(p, "z"))
        ):
            path = record.add_artefact("lens", write, {"turn": turn})
        assert path.is_dir() and {f.name for f in path.iterdir()} == {"deep", "card.txt"}
    Record.load(record.path).check()


def test_views_are_kept_as_data(tmp_path):
    with opened(tmp_path / "r") as record:
        record.views([{"kind": "bar", "n": np.int64(3)}, {"kind": "line", "where": ("a", "b")}])
        with pytest.raises(RecordError, match=r"'views\[0\].n' is nan"):
            record.views([{"n": float("nan")}])
    assert Record.load(record.path).manifest.views == [{"kind": "bar", "n": 3}, {"kind": "line", "where": ["a", "b"]}]
    assert "NaN" not in json.dumps(json.loads((record.path / "record.json").read_text()))


OUTPUT = {"tables": {"t": [{"x": 1}, {"x": 2}]}, "arrays": {"a": np.ones(2)}, "values": {"v": 1.0}}


@pytest.mark.parametrize(
    ("output", "then", "line"),
    [
        ({"tables": {"t": [{"x": 1}, {"x": 3}]}}, None, "tables.t.x: differs in 1 of 2 rows"),
        ({"tables": {"t": [{"x": 1.0}]}}, None, "tables.t: 2 rows of x int64 / 1 rows of x double"),
        ({"tables": {}}, None, "tables.t: None / nothing"),
        ({"arrays": {"a": np.ones(3)}}, None, "arrays.a: float64 (2,) / float64 (3,)"),
        ({"arrays": {"a": np.eye(2)[0]}}, None, "arrays.a: differs in 1 of 2 entries"),
        ({"values": {"v": 1}}, None, "values.v: 1.0 / 1"),
        ({"values": {"v": Missing("why")}}, None, "reasons.values.v: nothing / [[None, 'why']]"),
        ({}, lambda r: r.views([{"kind": "bar"}]), "views: [] / [{'kind': 'bar'}]"),
        ({}, lambda r: r.add_artefact("b", lambda p: p.write_text("x")), "artefacts.b: nothing / "),
        ({}, lambda r: r.interrupt("x"), "status: 'finished' / 'interrupted'"),
    ],
)
def test_differences_name_what_sets_two_records_apart(tmp_path, output, then, line):
    with opened(tmp_path / "a") as one:
        one.stage("s", lambda: StageOutput(**OUTPUT))
    with opened(tmp_path / "b") as two:
        two.stage("s", lambda: StageOutput(**OUTPUT | output))
        if then:
            then(two)
    found = differences(one, two)
    assert any(f.startswith(line) for f in found), found
    assert differences(one, one) == []
