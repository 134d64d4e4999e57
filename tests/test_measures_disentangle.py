"""Cause, Isolate and Disentangle: the scale's ends, means over templates, MIB's accuracy, intervals, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import MeasureError
from microtome.measures.disentangle import Trials, chance_corrected

NAMES = ("colour", "size", "place")


def design(templates=3, entities=8):
    """Return (asked, templates, entities) of a crossed design: every template about every entity."""
    rows = [(a, f"{a}-{t}", f"e{e}") for a in NAMES for t in range(templates) for e in range(entities)]
    return tuple(list(column) for column in zip(*rows, strict=True))


def scores(right, asked, templates, entities, targets=NAMES, draws=200):
    rng = np.random.default_rng(0)
    return Trials(asked, templates=templates, entities=entities, rng=rng, draws=draws).scores(right, targets)


def own(asked, targets=NAMES):
    return np.array([[a == t for a in asked] for t in targets], dtype=float)


@pytest.mark.parametrize(
    ("answers", "cause", "isolate"),
    [(lambda mine: 1 - mine, 0, 1), (lambda mine: mine, 1, 0), (np.ones_like, 1, 1), (np.zeros_like, 0, 0)],
    ids=["swap nothing", "ideal full swap", "perfect", "broken"],
)
def test_the_ends_of_the_scale(answers, cause, isolate):
    asked, templates, entities = design()
    for score in scores(answers(own(asked)), asked, templates, entities):
        assert (score.cause.estimate, score.isolate.estimate) == (cause, isolate)
        assert score.disentangle.estimate == (cause + isolate) / 2
        assert (score.cause.low, score.cause.high) == (cause, cause)
        # two other attributes with half as many queries each: half cause, half isolate
        assert score.interchange.estimate == pytest.approx((cause + isolate) / 2)
    assert chance_corrected(0.5) == 0 and chance_corrected(1) == 1


def test_templates_count_alike_however_many_pairs_they_have():
    asked = ["colour"] * 5 + ["size"] * 4
    templates = ["a", "a", "a", "a", "b", "c", "c", "c", "d"]
    entities = [f"e{i}" for i in range(9)]
    right = np.array([[1, 1, 1, 1, 0, 1, 0, 0, 1.0]])
    (score, mean) = scores(right, asked, templates, entities, targets=("colour",))
    assert score.cause.estimate == pytest.approx((1 + 0) / 2)
    assert score.isolate.estimate == pytest.approx((1 / 3 + 1) / 2)
    assert score.interchange.estimate == pytest.approx((4 / 5 + 0.5 * 2 / 4) / 1.5)
    assert {a: round(i.estimate, 6) for a, i in score.by_attribute.items()} == {
        "colour": 0.5, "size": round((1 / 3 + 1) / 2, 6)}  # fmt: skip
    assert mean.target is None and mean.disentangle.estimate == score.disentangle.estimate


@given(seed=st.integers(0, 99), shuffle=st.integers(0, 99))
def test_neither_the_order_of_pairs_nor_the_names_matter(seed, shuffle):
    asked, templates, entities = design()
    right = np.random.default_rng(seed).random((3, len(asked)))
    found = scores(right, asked, templates, entities, draws=20)
    order = np.random.default_rng(shuffle).permutation(len(asked))
    moved = scores(right[:, order], *([x[i] for i in order] for x in (asked, templates, entities)), draws=20)
    other = dict(zip(NAMES, ("x", "y", "z"), strict=True))
    renamed = scores(right, [other[a] for a in asked], templates, entities, targets=("x", "y", "z"), draws=20)
    for a, b, c in zip(found, moved, renamed, strict=True):
        assert a.disentangle.estimate == pytest.approx(b.disentangle.estimate)
        assert a.interchange.estimate == pytest.approx(b.interchange.estimate)
        assert a.disentangle.estimate == pytest.approx(c.disentangle.estimate)


def test_scores_are_linear_in_the_answers_draw_by_draw():
    asked, templates, entities = design()
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 3, len(asked)))
    first, second, gain = (scores(x, asked, templates, entities)[-1] for x in (a, b, a - b))
    assert gain.isolate.estimate == pytest.approx(first.isolate.estimate - second.isolate.estimate)
    assert gain.isolate.low <= gain.isolate.estimate <= gain.isolate.high


def test_an_interval_covers_and_widens_where_entities_stand_or_fall_together():
    asked, templates, entities = design(templates=4, entities=40)
    rng = np.random.default_rng(5)
    alone = (rng.random((3, len(asked))) < 0.5).astype(float)
    of_entity = {e: float(rng.random() < 0.5) for e in set(entities)}
    together = np.tile([of_entity[e] for e in entities], (3, 1))
    narrow, wide = (scores(x, asked, templates, entities)[-1].disentangle for x in (alone, together))
    assert 0.5 in narrow
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.n == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r, a, t, e: (r[:2], a, t, e), "one row for each target"),
        (lambda r, a, t, e: (r[:1], ["colour"] * len(a), t, e, ("colour",)), "another attribute"),
        (lambda r, a, t, e: (r[:1], a, t, e, ("weight",)), "weight"),
        (lambda r, a, t, e: (r * np.nan, a, t, e), "NaN"),
        (lambda r, a, t, e: (r, a, t, ["e"] * len(a)), "at least two"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, said):
    asked, templates, entities = design()
    with pytest.raises(MeasureError, match=said):
        scores(*change(own(asked), asked, templates, entities))
