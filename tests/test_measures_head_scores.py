"""Scores of directions against finite differences and the model's own arithmetic; which of them depend on a sign."""

import pytest
import torch

from close import FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.features.free_directions import whitened_basis
from microtome.features.head_basis import head_basis
from microtome.measures.head_damage import damage
from microtome.measures.head_scores import (
    Contexts,
    head_scores,
    relative_gaps,
    selection_frequency,
    vocabulary_scores,
)

V, D = 40, 9
INVARIANT = ("abs", "std", "auroc", "contribution", "benefit", "benefit_cost")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT, BIAS, TOKENS = draw(V, D, seed=1), draw(V, seed=2), torch.tensor([3, 7, 8])
CONTEXTS = Contexts(draw(25, D, seed=3) + 0.5, draw(30, D, seed=4))
BASIS = head_basis(WEIGHT)
AXES = BASIS.axes


def every_score(axes, *, weight=WEIGHT):
    return head_scores(CONTEXTS, axes) | vocabulary_scores(CONTEXTS, weight, TOKENS, axes, bias=BIAS)


def mass(hidden, axis, eps):
    """Mean probability of the set after damping one direction by eps."""
    moved = hidden - eps * torch.outer(hidden @ axis, axis)
    return (moved @ WEIGHT.T + BIAS).softmax(1)[:, TOKENS].sum(1).mean()


def test_benefit_is_the_slope_of_the_sets_probability():
    got, eps = every_score(AXES)["benefit"], 1e-5
    for i in range(D):
        slope = (mass(CONTEXTS.toxic, AXES[:, i], -eps) - mass(CONTEXTS.toxic, AXES[:, i], eps)) / (2 * eps)
        assert abs(slope - got[i]) < 1e-6


def test_cost_is_the_second_order_kl_on_clean_contexts():
    """benefit / benefit_cost is the cost plus a thousandth of the mean cost, so the costs can be read off."""
    got = every_score(AXES)
    floored = got["benefit"] / got["benefit_cost"]
    cost = floored - 1e-3 * floored.mean() / (1 + 1e-3)
    for i in range(D):
        eps = 1e-3
        edited = CONTEXTS.clean - eps * torch.outer(CONTEXTS.clean @ AXES[:, i], AXES[:, i])
        kl = damage(CONTEXTS.clean, edited, WEIGHT, bias=BIAS).kl
        assert kl / eps**2 == pytest.approx(float(cost[i]), rel=2e-2)


def test_contributions_of_all_directions_add_up_to_the_logits():
    want = CONTEXTS.toxic @ (WEIGHT - WEIGHT.mean(0)).T
    assert every_score(AXES)["contribution"].sum() == pytest.approx(float(want[:, TOKENS].mean()), abs=FLOAT64)


def test_a_score_does_not_ask_which_way_a_vector_points_unless_it_is_the_papers():
    flips = torch.where(torch.arange(D) % 2 == 0, -1.0, 1.0).double()
    plain, flipped = every_score(AXES), every_score(AXES * flips)
    assert set(plain) == {*INVARIANT, "signed", "code_axis"}
    for name in INVARIANT:
        assert largest(plain[name], flipped[name]) < FLOAT64
    raw = CONTEXTS.toxic.mean(0) - CONTEXTS.clean.mean(0)
    assert largest(raw @ AXES, raw @ (AXES * flips)) > 0.1  # the paper's score before any convention
    assert largest(plain["signed"], flipped["signed"]) < FLOAT64  # made a convention: largest entry of W v positive
    u = (WEIGHT - WEIGHT.mean(0)) @ AXES
    turned = AXES * u.gather(0, u.abs().argmax(0, keepdim=True))[0].sign()
    assert largest(plain["signed"], raw @ turned) < FLOAT64
    assert largest(plain["code_axis"], flipped["code_axis"]) > 0.1


def test_the_released_codes_axis_is_another_one_unless_v_is_the_identity():
    raw = CONTEXTS.toxic.mean(0) - CONTEXTS.clean.mean(0)
    assert largest(head_scores(CONTEXTS, AXES)["code_axis"], AXES @ raw) < FLOAT64
    assert largest(head_scores(CONTEXTS, AXES)["code_axis"].abs(), head_scores(CONTEXTS, AXES)["abs"]) > 0.1
    own = head_scores(CONTEXTS, torch.eye(D, dtype=torch.float64))
    assert largest(own["code_axis"].abs(), own["abs"]) < FLOAT64
    assert "code_axis" not in head_scores(CONTEXTS, AXES[:, :4])


def test_oblique_directions_are_scored_on_the_same_footing():
    basis = whitened_basis(BASIS, torch.cov(draw(80, D, seed=5).T))
    got = vocabulary_scores(CONTEXTS, WEIGHT, TOKENS, basis.read, basis.write, bias=BIAS)["benefit"]
    eps = 1e-5
    for i in (0, 4):
        ends = []
        for step in (-eps, eps):
            moved = CONTEXTS.toxic - step * torch.outer(CONTEXTS.toxic @ basis.read[:, i], basis.write[i])
            ends.append((moved @ WEIGHT.T + BIAS).softmax(1)[:, TOKENS].sum(1).mean())
        assert abs((ends[0] - ends[1]) / (2 * eps) - got[i]) < 1e-6


def test_chunks_of_the_vocabulary_change_nothing():
    whole = vocabulary_scores(CONTEXTS, WEIGHT, TOKENS, AXES, bias=BIAS)
    parts = vocabulary_scores(CONTEXTS, WEIGHT, TOKENS, AXES, bias=BIAS, chunk=7)
    assert all(largest(whole[name], parts[name]) < FLOAT64 for name in whole)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_kl_never_passes_its_bound_and_nears_half_the_variance(scale):
    hidden = draw(20, D, seed=9) * scale
    for seed in range(20):
        q = torch.linalg.qr(draw(D, 3, seed=seed)).Q
        for a in (0.0, -1.0, 0.7):
            found = damage(hidden, hidden - (1 - a) * hidden @ q @ q.T, WEIGHT)
            assert 0 <= found.kl <= found.bound
    p, ratios = (hidden @ WEIGHT.T).softmax(1), []
    for step in (0.1, 0.001):
        change = -step * (hidden @ q @ q.T) @ WEIGHT.T / scale
        half = 0.5 * ((p * change.square()).sum(1) - (p * change).sum(1).square()).mean()
        edited = hidden - step * hidden @ q @ q.T / scale
        ratios.append(abs(damage(hidden, edited, WEIGHT).kl / float(half) - 1))
    assert ratios[1] < 1e-2 and ratios[1] < ratios[0]


def test_damage_reports_shares():
    units = torch.tensor([0, 2])
    q = AXES[:, units]
    found = damage(
        CONTEXTS.clean, CONTEXTS.clean - CONTEXTS.clean @ q @ q.T, WEIGHT, singular=BASIS.singular, units=units
    )
    s = BASIS.singular.square()
    assert found.share == 2 / D and found.spectrum == pytest.approx(float((s[0] + s[2]) / s.sum()))
    want = ((CONTEXTS.clean @ q).square().sum(1) / CONTEXTS.clean.square().sum(1)).mean()
    assert found.energy == pytest.approx(float(want))
    nothing = damage(CONTEXTS.clean, CONTEXTS.clean, WEIGHT)
    assert (nothing.kl, nothing.bound, nothing.energy) == (0, 0, 0)


def test_gaps_show_vectors_that_are_not_told_apart():
    gaps = relative_gaps(torch.tensor([4.0, 2.0, 2.0, 1.0]))
    assert gaps.tolist() == [0.5, 0.0, 0.0, 1.0]


def test_a_planted_direction_is_always_selected_and_noise_is_not():
    hidden = draw(200, D, seed=11)
    contexts = Contexts(hidden[:100] + 3 * AXES[:, 4], hidden[100:])
    found = selection_frequency(lambda c: head_scores(c, AXES)["abs"], contexts, 2, draws=60)
    assert found[4] == 1 and found.sum() == pytest.approx(2)
    assert found[torch.arange(D) != 4].max() < 0.9
    again = selection_frequency(lambda c: head_scores(c, AXES)["abs"], contexts, 2, draws=60)
    assert largest(found, again) == 0


def test_bad_input_is_named():
    with pytest.raises(MeasureError, match=r"found \[0, 9\] and \[3, 9\]"):
        Contexts(draw(0, D), draw(3, D))
    with pytest.raises(MeasureError, match="of 3 clean contexts were asked for, found some not finite"):
        Contexts(draw(3, D), torch.full((3, D), torch.nan))
    with pytest.raises(MeasureError, match=r"Directions \[9, m\] were asked for, found \[4, 4\]"):
        head_scores(CONTEXTS, torch.eye(4))
    for ids in ([], [V], range(V)):
        with pytest.raises(MeasureError, match="give some, not all"):
            vocabulary_scores(CONTEXTS, WEIGHT, torch.tensor(list(ids), dtype=torch.long), AXES)
    with pytest.raises(MeasureError, match="top 10 of 9 directions"):
        selection_frequency(lambda c: head_scores(c, AXES)["abs"], CONTEXTS, 10)
