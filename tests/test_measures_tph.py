"""TPH: the paper's tables from their own toxicity and perplexity, the cells that do not follow, edges, controls."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.tph import Arm, tph, trade_off

INF = float("inf")
# arXiv 2509.16660, Table 2: model -> base (toxicity %, perplexity), method -> (toxicity %, perplexity, printed TPH %)
TABLE_2 = {
    "LLaMA-2-7B": ((11.13, 6.23), {"Det-0": (0, 43516.97, 0.03), "Damp": (0.13, 741.65, 1.67),
                                   "AurA": (3.59, 19.30, 43.73), "EigenShift": (4.71, 9.84, 60.37)}),
    "Mistral-7B": ((9.89, 6.26), {"Det-0": (0, 43491.1, 0.03), "Damp": (0, 439, 2.81), "AurA": (6.75, 8.26, 44.74),
                                  "EigenShift": (4.65, 9.89, 57.68)}),
    "GPT-2-XL": ((8.80, 22.14), {"Det-0": (1, 802.33, 5.35), "Damp": (6.1, 737.4, 5.47), "AurA": (8.1, 20.64, 14.66),
                                 "EigenShift": (8.01, 21.97, 16.47)}),
    "MPT-7B": ((11.13, 6.8), {"Det-0": (1.76, INF, 0), "Damp": (0.06, 4685, 0.3), "AurA": (2.83, 7.66, 93.94),
                              "EigenShift": (2.33, 6.9, 87.74)}),
    "Falcon-7B": ((9.74, 8.99), {"Det-0": (0, 6840, 0.26), "Damp": (0, 1229, 1.45), "AurA": (2.91, 10.29, 77.81),
                                 "EigenShift": (3.24, 9.33, 78.86)}),
}  # fmt: skip
# Table 6, LLaMA-2-7B: (a, k) -> (toxicity %, perplexity, printed TPH %)
TABLE_6 = {
    (0, 5): (9.42, 6.24, 26.6), (0, 41): (9.37, 6.26, 27.3), (0, 410): (9.21, 6.75, 29.0),
    (0, 1024): (4.71, 9.84, 60.4),
    (0.1, 1024): (5.65, 8.73, 58.3), (0.5, 1024): (7.27, 6.76, 50.4), (0.9, 1024): (8.97, 6.23, 32.5),
    (-0.5, 1024): (1.41, 64.9, 17.3), (-1, 410): (8.51, 8.89, 35.3), (-1, 1024): (0.48, 448801, 0),
    (-2, 410): (5.93, 15.27, 43.6),
}  # fmt: skip


def percent(cell, base):
    return 100 * tph(cell[0], base[0], cell[1], base[1])


def test_table_2_follows_from_its_own_numbers_but_for_one_cell():
    off = {
        (model, method): percent(cell, base)
        for model, (base, cells) in TABLE_2.items()
        for method, cell in cells.items()
        if abs(percent(cell, base) - cell[2]) > 0.05
    }
    assert set(off) == {("MPT-7B", "AurA")}  # printed 93.94: a fraction of toxicity was divided by a percentage
    assert off["MPT-7B", "AurA"] == pytest.approx(81.06, abs=0.005)
    slip = (11.13 - 0.0283) / 11.13
    kept = 1 / (1 + (7.66 - 6.8) / 6.8)
    assert 200 * slip * kept / (slip + kept) == pytest.approx(93.94, abs=0.05)
    best = max(TABLE_2["MPT-7B"][1], key=lambda m: percent(TABLE_2["MPT-7B"][1][m], TABLE_2["MPT-7B"][0]))
    assert best == "EigenShift"


def test_cuts_of_mpt_and_falcon_are_not_what_the_paper_prints():
    def cut(model, method):
        (base, _), (now, _, _) = TABLE_2[model][0], TABLE_2[model][1][method]
        return 100 * (base - now) / base

    assert cut("MPT-7B", "AurA") == pytest.approx(74.6, abs=0.05)  # printed 99.75
    assert cut("Falcon-7B", "EigenShift") == pytest.approx(66.7, abs=0.05)  # printed 78.86, which is its TPH
    assert cut("MPT-7B", "Det-0") == pytest.approx(84.2, abs=0.05)
    assert cut("MPT-7B", "Damp") == pytest.approx(99.5, abs=0.05)


@pytest.mark.parametrize(("setting", "cell"), TABLE_6.items(), ids=str)
def test_table_6_follows_from_its_own_numbers(setting, cell):
    corners = [
        percent((max(0, cell[0] + a), cell[1] + b), (11.13 + c, 6.23 + d))
        for a, b, c, d in itertools.product((-0.005, 0.005), repeat=4)  # its numbers are rounded
    ]
    assert min(corners) - 0.05 <= cell[2] <= max(corners) + 0.05 and max(corners) - min(corners) < 0.4


def test_better_perplexity_is_punished_unless_clamped():
    cell, base = TABLE_2["GPT-2-XL"][1]["AurA"], TABLE_2["GPT-2-XL"][0]
    assert percent(cell, base) == pytest.approx(14.66, abs=0.005)
    assert 100 * tph(cell[0], base[0], cell[1], base[1], clamped=True) == pytest.approx(14.74, abs=0.005)


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(1, 1e6), st.floats(1, 1e6))
def test_bounds_and_units(tox, base, ppl, base_ppl):
    score = tph(tox, base, ppl, base_ppl)
    assert 0 <= score <= 1 and tph(100 * tox, 100 * base, ppl, base_ppl) == pytest.approx(score, abs=FLOAT64)
    assert tph(tox, base, ppl, base_ppl, clamped=True) >= score
    if tox >= base:
        assert score == 0
    else:
        cut, kept = (base - tox) / base, base_ppl / (base_ppl + abs(ppl - base_ppl))
        assert score == pytest.approx(2 / (1 / cut + 1 / kept), abs=FLOAT64)


def test_edges():
    assert tph(0, 0.1, 10, 10) == 1 and tph(0, 0.1, INF, 10) == 0 and tph(0.1, 0.1, 10, 10) == 0
    np.testing.assert_array_equal(tph([0.2, 0.0], 0.1, [10, 10], 10), [0, 1])


def arms(rng, cut=0.6, prompts=300, texts=80):
    toxicity = rng.beta(0.5, 2, prompts)
    tokens = rng.integers(5, 40, texts)
    losses = tokens * rng.gamma(9, 1 / 3, texts)
    noop = Arm(toxicity, losses, tokens)
    return Arm(toxicity * (1 - cut), losses * 1.02, tokens), noop, Arm(toxicity * 1.25, losses, tokens)


def test_the_no_op_arm_says_where_the_scale_begins():
    edited, noop, base = arms(np.random.default_rng(0))
    found = trade_off(edited, noop, base, rng=np.random.default_rng(1), draws=400)
    assert found.edit.cut.estimate == pytest.approx(0.6, abs=FLOAT64)
    assert found.edit.cut.low == pytest.approx(0.6, abs=FLOAT64)  # arms are paired: the same cut in every resample
    assert found.floor.cut.estimate == pytest.approx(0.2, abs=FLOAT64) and found.floor.change.estimate == 0
    assert found.paper.cut.estimate == pytest.approx(1 - 0.4 / 1.25, abs=FLOAT64)
    assert found.paper.tph.estimate > found.edit.tph.estimate > found.floor.tph.estimate > 0.3
    assert found.edit.change.low < found.edit.change.estimate < found.edit.change.high
    nothing = trade_off(noop, noop, rng=np.random.default_rng(1), draws=50)
    assert nothing.edit.tph.estimate == nothing.edit.tph.high == 0 and nothing.floor is None and nothing.paper is None


def test_a_broken_model_scores_nothing_and_has_no_perplexity():
    edited, noop, _ = arms(np.random.default_rng(0))
    broken = trade_off(
        Arm(edited.toxicity, 1e3 * edited.tokens, edited.tokens), noop, rng=np.random.default_rng(1), draws=9
    )
    assert broken.edit.change.low == INF and broken.edit.tph.high == 0 and broken.edit.cut.estimate > 0.5


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        prompts = rng.random(120) < 0.4
        edited = prompts & (rng.random(120) < 0.5)  # each toxic prompt is cured with chance one half
        tokens, losses = np.full(40, 10), 10 * rng.gamma(20, 0.1, 40)
        found = trade_off(Arm(edited, losses, tokens), Arm(prompts, losses, tokens), rng=rng, draws=300)
        held += 2 * 0.5 / 1.5 in found.edit.tph
    assert held >= 51


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: tph(0, 0, 10, 10), "a base above 0"),
        (lambda: tph(np.nan, 0.1, 10, 10), "TPH of toxicity nan"),
        (lambda: tph(0.1, 0.2, 0.5, 10), "perplexities >= 1"),
        (lambda: tph(0.1, 0.2, 10, INF), "base finite"),
        (lambda: trade_off(Arm([0.1, 0.2], [1, 2], [1, 1]), Arm([0.1], [1, 2], [1, 1]), rng=None), "no-op arm has 1"),
        (lambda: trade_off(Arm([0.1, 0.2], [1, 2], [1, 1]), Arm([0.1, 0.2], [1, 2], [1, 2]), rng=None), "on the same"),
        (lambda: trade_off(Arm([0, 0], [1, 2], [1, 1]), Arm([0, 1], [1, 2], [1, 1]), rng=np.random.default_rng(0)),
         "resamples have no toxicity"),
    ],
)  # fmt: skip
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
