"""The recall study through the command: a record with every part, the same after kill -9, the same again for a seed."""

from pathlib import Path

import pytest

from microtome.core.errors import RecordError
from microtome.records import OUTCOMES, Record, differences
from microtome.reports.drawing import draw_view
from study_runs import StudyRun, stages

SMALL = (
    "prompts.items=64 prompts.discovery=24 prompts.validation=16 prompts.test=24 selection.ig_steps=2 "
    "selection.checked_neurons=16 selection.checked_edges=8 testing.null_sets=20 testing.level_nulls=8 "
    "testing.shuffles=4 testing.permutations=100 testing.draws=200"
).split()
STUDY = StudyRun("recall", SMALL)

pytestmark = pytest.mark.slow  # two whole studies, about a minute each on one core


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recall") / "whole"
    done = STUDY.ran(folder, "--paper-compat")
    assert done.returncode == 0, done.stderr
    assert f"report: {folder / 'report.html'}" in done.stdout.replace("\n", "")
    return folder


def test_every_claim_is_judged_with_its_evidence_and_every_view_can_be_drawn(whole):
    record = Record.load(whole)
    record.check()
    assert {j.verdict.outcome for j in record.claims} <= set(OUTCOMES) and len(record.claims) == 7
    for view in record.manifest.views:
        draw_view(view, record.tables, record.table)
    page = (whole / "report.html").read_text()
    figures = page[page.index('<section id="views">') : page.index('<section id="tables">')].split("<figure ")[2:]
    assert len(figures) > 15 and not [f for f in figures if "_2hop" in f]  # after "What was asked", names alone
    assert "http://" not in page.replace("http://www.w3.org", "") and "What was asked" in page


def test_the_controls_are_in_the_record(whole):
    record = Record.load(whole)
    no_op = [r for r in record.rows("drops") if r["ablation"] == "no-op"]
    assert no_op and all(r["drop"] == r["logit_drop"] == 0 for r in no_op)
    assert len([r for r in record.rows("matched_random") if r["level"] == "heads and neurons"]) == 20
    assert {r["network"] for r in record.rows("flagged")} == {"trained", "untrained", "shuffled labels"}
    assert {r["network"] for r in record.rows("authors")} == {"trained", "untrained"}
    assert {r["level"] for r in record.rows("authors")} == {"neurons", "heads", "layers"}
    for row in record.rows("matched_random"):
        assert row["index"] == pytest.approx(row["recall_side"] + row["reasoning_side"])


def test_no_test_country_was_seen_by_anything_that_chooses(whole):
    by_part: dict[str, set[str]] = {}
    for row in Record.load(whole).rows("prompts"):
        by_part.setdefault(row["part"], set()).add(row["pair"])
    chose = by_part["discovery"] | by_part["validation"] | by_part["selectivity"]
    assert not chose & (by_part["test"] | by_part["unseen"] | by_part["transfer"] | by_part["replication"])


def test_killed_in_the_middle_it_ends_with_the_same_record(whole, tmp_path):
    folder = tmp_path / "killed"
    left = STUDY.killed(folder, "scores", "--paper-compat")
    assert 0 < len(left) < 16
    with pytest.raises(RecordError, match="was made with seed = 0, asked for 1"):
        Record.open(folder, study="recall", config={}, seed=1)
    STUDY.made(folder, "--paper-compat")
    assert stages(folder)[: len(left)] == left and len(stages(folder)) == 16
    assert differences(Record.load(whole), Record.load(folder)) == []
