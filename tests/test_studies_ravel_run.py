"""The RAVEL study through the command: a whole record, the same after kill -9, and refusals that name the count."""

from pathlib import Path

import pytest

from microtome.data.ravel import write_folder
from microtome.data.ravel.synthetic import Planted, synthetic_table
from microtome.features.saving import load_featurizer
from microtome.records import OUTCOMES, Record, differences
from microtome.reports.drawing import draw_view
from microtome.studies.ravel.methods import CONTROLS, METHODS
from study_runs import StudyRun, stages

SMALL = (
    "asking.templates=6 pairs.bases=8 pairs.train=64 pairs.validation=24 pairs.test=48 fitting.ranks=[8] "
    "fitting.epochs=1 fitting.layer_epochs=1 fitting.penalties=[0.001] fitting.costs=[0.1] fitting.sae_epochs=3 "
    "fitting.rlap_steps=20 fitting.probe_rows=150 layers=[1,3] testing.draws=100 testing.random=2 testing.examples=16"
).split()
STUDY = StudyRun("ravel", SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return STUDY.made(tmp_path_factory.mktemp("ravel") / "whole")


@pytest.mark.slow
def test_every_method_is_in_the_table_with_intervals_and_every_view_can_be_drawn(whole):
    record = Record.load(whole)
    record.check()
    rows = [r for r in record.rows("scores") if r["target"] == "all"]
    for side in ("entity-test", "context-test"):
        assert {r["method"] for r in rows if r["side"] == side} == set(METHODS) | set(CONTROLS)
    for row in record.rows("scores"):
        for name in ("cause", "isolate", "disentangle", "interchange"):
            assert 0 <= row[f"{name}_low"] <= row[f"{name}_high"] <= 1
        assert row["disentangle"] == pytest.approx((row["cause"] + row["isolate"]) / 2)
    nothing = [r for r in rows if r["method"] == "empty"]
    assert all(r["cause"] == 0 and r["isolate"] > 0.95 for r in nothing)
    assert {j.verdict.outcome for j in record.claims} <= set(OUTCOMES) and len(record.claims) == 9
    for view in record.manifest.views:
        draw_view(view, record.tables, record.table)
    assert "What was asked" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_nothing_that_is_tested_was_seen_by_what_chooses(whole):
    record = Record.load(whole)
    layer, chosen = record.value("layer"), record.rows("chosen")
    assert layer in (1, 3) and {(c["method"], c["target"]) for c in chosen} == {
        (m, t) for m in METHODS for t in record.value("targets")
    }
    for row in record.rows("pairs"):
        assert row["pairs"] <= {"train": 64, "entity-val": 24, "context-val": 24}.get(row["side"], 48)


@pytest.mark.slow
def test_every_chosen_basis_is_a_file_that_loads_at_its_site_and_width(whole):
    record = Record.load(whole)
    names = {c["basis"] for c in record.rows("chosen")}
    assert {f"{n}.safetensors" for n in names} == set(record.artefacts)
    for name in names:
        path = record.artefact_path(f"{name}.safetensors")
        assert load_featurizer(path, site=record.value("site"), width=128).width == 128


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_record(whole, tmp_path):
    folder = tmp_path / "killed"
    left = STUDY.killed(folder, "fits")
    STUDY.made(folder)
    assert stages(folder)[: len(left)] == left and len(stages(folder)) == 8
    assert differences(Record.load(whole), Record.load(folder)) == []


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("--entity", "town"), "No entity type 'town'"),
        (("--data", "nowhere"), "nowhere"),
        (("--set", "asking.least=100000"), "the study needs 100000"),
        (("--set", "layers=[7]"), "Layer 7 was asked for"),
        (("--position", "first"), "No position 'first'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, further, said):
    done = STUDY.ran(tmp_path / "r", *further)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert said in done.stderr.replace("\n", " ")
    assert Record.load(tmp_path / "r").status == "interrupted" if (tmp_path / "r" / "record.json").exists() else True


def test_a_model_that_knows_nothing_of_a_folders_facts_is_refused_with_the_count(tmp_path):
    table = synthetic_table([Planted("colour", 3), Planted("size", 3)], entities=30)
    write_folder(table, tmp_path / "data")
    further = ("--data", str(tmp_path / "data"), "--entity", table.entity_type)
    done = STUDY.ran(tmp_path / "r", *further)
    said = " ".join(done.stderr.split())
    assert done.returncode != 0 and "Traceback" not in said
    assert "prompts" in said and ("None of" in said or "answers" in said)
