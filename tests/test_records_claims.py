"""A verdict that rests on a measurement says on how many items, with what interval, and what the control gave."""

import json

import numpy as np
import pytest

from microtome.core.errors import RecordError
from microtome.records import OUTCOMES, Claim, Missing, Record, Verdict

CLAIM = Claim(
    "dissociation", "Recall and reasoning part.", "arXiv 2510.03366", "Table 2", 0.31, "DD, 95 % interval > 0"
)
TESTED = {"reason": "DD is above 0", "measured": 0.5, "n": 40, "interval": (0.4, 0.6), "control": {"random": 0.01}}


def recorded(folder) -> Record:
    return Record.open(folder, study="toy", config={}, seed=0)


def test_verdicts_come_back_as_they_were_entered(tmp_path):
    other = Claim("cost", "It costs little.", "arXiv 2510.03366", "section 4.1")
    verdict = Verdict("reproduced", **TESTED)
    untested = Verdict("not testable here", "the model is not public")
    with recorded(tmp_path / "r") as record:
        record.judge(CLAIM, Verdict("not reproduced", **TESTED))
        record.judge(other, untested)
        record.judge(CLAIM, verdict)  # replaces the first, in its place
    assert [(j.claim, j.verdict) for j in Record.load(tmp_path / "r").claims] == [(CLAIM, verdict), (other, untested)]


@pytest.mark.parametrize("outcome", [o for o in OUTCOMES if o != "not testable here"])
@pytest.mark.parametrize("lacking", ["measured", "n", "interval", "control"])
def test_a_tested_claim_lacks_nothing(outcome, lacking):
    assert Verdict(outcome, **TESTED).outcome == outcome
    with pytest.raises(RecordError) as caught:
        Verdict(outcome, **{k: v for k, v in TESTED.items() if k != lacking})
    assert str(caught.value) == (
        f"Verdict '{outcome}' lacks {lacking}; give them, or say 'not testable here' and why."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "reproducd"}, "Verdict 'reproducd' is none of reproduced, same direction, not reproduced, not "
                                   "testable here; choose one. Did you mean 'reproduced'?"),
        ({"reason": ""}, "Verdict 'reproduced' has no reason; say in one sentence why."),
        ({"n": 0}, "Verdict 'reproduced' rests on n = 0 items; give a whole number, or say 'not testable here' and "
                   "why."),
        ({"n": 2.5}, "Verdict 'reproduced' rests on n = 2.5 items; give a whole number, or say 'not testable here' and "
                     "why."),
        ({"interval": (0.6, 0.4)}, "Verdict 'reproduced' has the interval (0.6, 0.4); give finite (low, high)."),
        ({"interval": (float("nan"), 1)}, "Verdict 'reproduced' has the interval (nan, 1); give finite (low, high)."),
        ({"interval": 0.1}, "Verdict 'reproduced' has the interval 0.1; give finite (low, high)."),
        ({"interval": (0.1,)}, "Verdict 'reproduced' has the interval (0.1,); give finite (low, high)."),
        ({"control": {}}, "Verdict 'reproduced' lacks control; give them, or say 'not testable here' and why."),
    ],
)  # fmt: skip
def test_a_verdict_that_says_nothing_is_refused(changes, message):
    with pytest.raises(RecordError) as caught:
        Verdict(**{"outcome": "reproduced"} | TESTED | changes)
    assert str(caught.value) == message


def test_a_claim_carries_its_paper_and_place():
    with pytest.raises(RecordError, match="Claim 'x' lacks paper and place; a claim carries the paper and place"):
        Claim("x", "It is so.", "", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measured": float("nan")}, "'claims.dissociation.verdict.measured' is nan: a record holds no NaN"),
        (
            {"measured": Missing("why")},
            "'claims.dissociation.verdict.measured' is Missing('why'); write the reason as text",
        ),
        ({"measured": [0.1, 0.2]}, "'claims.dissociation.verdict.measured."),
        ({"control": {"random": np.inf}}, "'claims.dissociation.verdict.control.random' is inf"),
        ({"control": {"random": np.ones(2)}}, "'claims.dissociation.verdict.control.random' is a ndarray"),
    ],
)
def test_a_verdict_no_record_can_hold_is_refused_and_not_written(tmp_path, changes, message):
    with recorded(tmp_path / "r") as record:
        with pytest.raises(RecordError) as caught:
            record.judge(CLAIM, Verdict(**{"outcome": "reproduced"} | TESTED | changes))
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert Record.load(record.path).claims == ()


def test_numpy_numbers_are_numbers_and_a_missing_control_says_why(tmp_path):
    given = TESTED | {"measured": np.float32(0.5), "n": np.int64(40), "interval": np.array([0.4, 0.6])}
    control = {"random": np.float64(0.01), "untrained": Missing("no untrained model")}
    with recorded(tmp_path / "r") as record:
        record.judge(CLAIM, Verdict("same direction", **given | {"control": control}))
    (judged,) = Record.load(tmp_path / "r").claims
    found = judged.verdict
    assert (found.measured, found.n, found.interval) == (0.5, 40, (0.4, 0.6))
    assert found.control == {"random": 0.01, "untrained": "not computed: no untrained model"}


def test_a_verdict_made_incomplete_by_hand_is_refused_when_read(tmp_path):
    with recorded(tmp_path / "r") as record:
        record.judge(CLAIM, Verdict("reproduced", **TESTED))
    file = tmp_path / "r" / "record.json"
    body = json.loads(file.read_text())
    body["claims"][0]["verdict"]["control"] = {}
    file.write_text(json.dumps(body))
    with pytest.raises(RecordError, match=r"record.json' is damaged: Verdict 'reproduced' lacks control"):
        Record.load(tmp_path / "r")
