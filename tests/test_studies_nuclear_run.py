"""The nuclear study through the command: whole records, a table of the user's own, kill -9, and refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from microtome.data.nuclear import BW2, theory_table, write_compact
from microtome.records import OUTCOMES, Record, differences
from microtome.reports.drawing import draw_view
from microtome.training.regression.saving import load_fitted
from study_runs import StudyRun, stages

SMALL = (
    "fitting.seeds=2 fitting.epochs=12 fitting.direct_epochs=12 fitting.snapshots=4 network.embedding=16 "
    "network.width=16 reading.draws=9 reading.helix_draws=9 reading.drifts=[1] reading.points=8 reading.terms=3 "
    "multitask.seeds=1 multitask.epochs=1 modular.steps=40 modular.p=11"
).split()
STUDY = StudyRun("nuclear", SMALL)
STAGES = 15


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return STUDY.made(tmp_path_factory.mktemp("nuclear") / "whole")


@pytest.mark.slow
def test_every_claim_has_a_verdict_and_every_view_can_be_drawn(whole):
    """A whole run: fits, nulls, report."""
    record = Record.load(whole)
    record.check()
    assert stages(whole)[-1] == "modular" and len(stages(whole)) == STAGES
    assert {j.verdict.outcome for j in record.claims} <= set(OUTCOMES) and len(record.claims) == 10
    for judged in record.claims:
        low, high = judged.verdict.interval
        assert low <= judged.verdict.measured <= high and judged.verdict.control
    for view in record.manifest.views:
        draw_view(view, record.tables, record.table)
    page = (whole / "report.html").read_text()
    assert "Latent space topography" in page and "Chart of nuclides" in page
    assert {r["arm"] for r in record.rows("order")} == {"residual", "direct", "theory", "noise", "untrained"}


@pytest.mark.slow
def test_the_networks_are_left_as_files_that_predict_what_the_record_says(whole):
    """Needs the whole run."""
    record = Record.load(whole)
    fitted, about = load_fitted(record.artefact_path("direct.safetensors"))
    rows = record.rows("nuclides")
    z, n = ([r[k] for r in rows] for k in "zn")
    predicted = fitted.predict(z, n)[record.value("headline_direct")] * about["std"] + about["mean"]
    left = np.array([r["binding"] - r["direct"] for r in rows])
    assert np.abs(predicted - left).max() < 1e-3
    assert not list(whole.parent.glob("checkpoints/*.pt"))


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_record(whole, tmp_path):
    """Two runs, one of them killed."""
    folder = tmp_path / "killed"
    left = STUDY.killed(folder, "fit_direct")
    STUDY.made(folder)
    assert stages(folder)[: len(left)] == left and len(stages(folder)) == STAGES
    assert differences(Record.load(whole), Record.load(folder)) == []


@pytest.mark.slow
def test_a_table_of_the_users_own_is_read_and_named_in_the_report(tmp_path):
    """A whole run on a csv whose masses are those of a formula and noise."""
    table = theory_table(BW2)
    noise = np.random.default_rng(0).normal(0, 0.2, len(table))
    path = tmp_path / "mine.csv"
    write_compact(replace(table, binding=table.binding + noise, uncertainty=np.full(len(table), 0.2)), path)
    record = Record.load(STUDY.made(tmp_path / "own", "--table", str(path), "--fitting.by_uncertainty", "true"))
    assert record.value("source") == str(path) and record.value("nuclei") == len(table)
    rows = {r["label"]: r["rms"] for r in record.rows("holdout")}
    assert 0.15 < rows["BW2, fitted"] < 0.3 < rows["SEMF, fitted"]


def refused(folder: Path, *further: str) -> str:
    done = STUDY.ran(folder, *further)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert not (folder / "report.html").exists()
    return " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_command_refuses_bad_tables_in_one_line(tmp_path):
    """Three starts of the program; what is wrong with tables is tested in test_studies_nuclear."""
    path = tmp_path / "bad.csv"
    path.write_text("z,n,mass\n20,20,1\n")
    assert "has the column 'mass'" in refused(tmp_path / "a", "--table", str(path))
    assert "No file" in refused(tmp_path / "b", "--table", str(tmp_path / "nowhere.csv"))
    assert "could not be fetched" in refused(tmp_path / "c", "--table", f"file://{tmp_path}/nowhere.csv")
