"""LinEAS: at one site it is Lin-AcT, at several it is trained through the others, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from close import EXACT, largest
from microtome.core.errors import DataError, SiteError
from microtome.edits.activation_transport import fit_transport
from microtome.edits.affine import transport
from microtome.engine.edit import Edit
from microtome.engine.run import run
from microtome.models import Model

FIRST, LAST = "blocks.0.resid_post", "blocks.2.resid_post"


def rows(low, high, seed, count=64):
    """Random rows of 3 to 8 tokens; toxic ones are from one half of the vocabulary, clean ones from the other."""
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, rng.integers(3, 9)).tolist() for _ in range(count)]


TOXIC, CLEAN = rows(3, 30, 0), rows(30, 61, 1)
HELD_OUT = rows(3, 30, 2), rows(30, 61, 3)


def edits(maps):
    return [Edit(site, value) for site, value in maps.items()]


def states(model, texts, site, maps):
    return run(model, model.batch_ids(texts), read=site, edits=edits(maps), logits="none")[site][:, -1].double()


def distance(model, site, maps, toxic=TOXIC, clean=CLEAN):
    """The squared Wasserstein-2 distance of each coordinate, in clean variances; summed."""
    moved, goal = (states(model, t, site, m).numpy() for t, m in ((toxic, maps), (clean, {})))
    return float((((np.sort(moved, 0) - np.sort(goal, 0)) ** 2).mean(0) / goal.var(0, ddof=1)).sum())


def test_one_site_with_all_rows_is_the_least_squares_map_of_quantiles(tiny_model):
    model = tiny_model("llama")
    (found,) = fit_transport(model, [FIRST], TOXIC, CLEAN, steps=200, batch=64, seed=0).values()
    want = transport(states(model, TOXIC, FIRST, {}), states(model, CLEAN, FIRST, {}), by="quantiles")
    assert largest(found.factor, want.factor) < 1e-3
    assert largest(found.offset, want.offset) < 1e-3
    assert largest(want.factor, torch.ones_like(want.factor)) > 0.1


def test_maps_of_two_sites_are_trained_through_each_other(tiny_model):
    model = tiny_model("llama")
    joint = fit_transport(model, [FIRST, LAST], TOXIC, CLEAN, steps=80, batch=64, seed=0)
    assert list(joint) == [FIRST, LAST]
    for site in joint:  # the second does not undo what the first did
        assert distance(model, site, joint) < 0.5 * distance(model, site, {})
        assert distance(model, site, joint, *HELD_OUT) < distance(model, site, {}, *HELD_OUT)
    apart = {
        site: transport(states(model, TOXIC, site, {}), states(model, CLEAN, site, {}), by="quantiles")
        for site in joint
    }
    assert distance(model, LAST, joint) < distance(model, LAST, apart)  # which does not know that the first acts
    alone = {LAST: joint[LAST]}
    assert distance(model, LAST, joint) < distance(model, LAST, alone)  # so it is nothing without the first


def test_strength_0_changes_no_bit(tiny_model):
    model = tiny_model("gpt2")
    maps = fit_transport(model, ["blocks.*.mlp.out"], TOXIC, CLEAN, steps=3, seed=0)
    batch = model.batch_ids(TOXIC)
    plain = run(model, batch).logits
    still = {site: replace(m, strength=0.0) for site, m in maps.items()}
    assert len(maps) == 3
    assert largest(run(model, batch, edits=edits(still)).logits, plain) == EXACT
    assert largest(run(model, batch, edits=edits(maps)).logits, plain) > 1e-3


def test_a_penalty_leaves_numbers_alone_and_a_large_one_all(tiny_model):
    model = tiny_model("llama")

    def moved(penalty):
        maps = fit_transport(model, [FIRST, LAST], TOXIC, CLEAN, steps=30, batch=64, penalty=penalty, seed=0)
        return maps, sum(int((m.factor != 1).sum()) for m in maps.values())

    (maps, none), (_, some), (_, every) = moved(2.0), moved(0.2), moved(0.0)
    assert none == 0 and all((m.offset == 0).all() for m in maps.values())
    assert 0 < some < every == 64
    batch = model.batch_ids(TOXIC)
    assert largest(run(model, batch, edits=edits(maps)).logits, run(model, batch).logits) == EXACT


def test_a_seed_gives_one_result_and_touches_neither_the_model_nor_the_global_state(tiny_model):
    model = tiny_model("llama")
    before, weights = torch.get_rng_state(), {n: p.clone() for n, p in model.module.named_parameters()}

    def fitted(seed):
        return fit_transport(model, [FIRST], TOXIC, CLEAN[:40], steps=4, batch=8, seed=seed)[FIRST]

    one, same, other = fitted(1), fitted(1), fitted(2)
    assert torch.equal(one.factor, same.factor) and torch.equal(one.offset, same.offset)
    assert not torch.equal(one.factor, other.factor)
    assert not one.factor.requires_grad and one.strength == 1
    assert torch.equal(before, torch.get_rng_state())
    for name, p in model.module.named_parameters():
        assert torch.equal(p, weights[name]) and p.grad is None


def test_it_works_in_inference_mode_and_in_half_precision(tiny_model):
    model, settings = tiny_model("llama"), {"steps": 3, "seed": 0}
    want = fit_transport(model, [LAST], TOXIC, CLEAN, **settings)[LAST]
    with torch.inference_mode():
        found = fit_transport(model, [LAST], TOXIC, CLEAN, **settings)[LAST]
    assert torch.equal(found.factor, want.factor)
    half = Model.load(tiny.build("llama").to(torch.bfloat16))
    maps = fit_transport(half, [LAST], TOXIC, CLEAN, steps=40, seed=0)
    assert maps[LAST].factor.dtype == torch.float32
    assert distance(half, LAST, maps) < 0.5 * distance(half, LAST, {})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"sites": []}, SiteError, "give a list of at least one"),
        ({"sites": FIRST}, SiteError, "give a list of at least one"),
        ({"sites": ["blocks.7.resid_post"]}, SiteError, "blocks.7.resid_post"),
        ({"sites": ["blocks.0.attn.pattern"]}, SiteError, r"found activations .*give sites \[batch, seq, d\]"),
        ({"toxic": []}, DataError, "from 0 toxic to 64 clean rows was asked for"),
        ({"clean": CLEAN[:1]}, DataError, "to 1 clean rows was asked for"),
        ({"toxic": [[3], []]}, DataError, "each with a token"),
        ({"steps": 0}, DataError, "with steps 0 was asked for"),
        ({"batch": 1}, DataError, "with batch 1 was asked for"),
        ({"lr": float("nan"), "penalty": -1.0}, DataError, "with lr nan, penalty -1.0 was asked for"),
    ],
)
def test_bad_input_is_one_line(tiny_model, change, error, match):
    asked = {"sites": [FIRST], "toxic": TOXIC, "clean": CLEAN, "steps": 1, "batch": 32, "lr": 0.1, "penalty": 0.0}
    asked |= change
    with pytest.raises(error, match=match) as caught:
        fit_transport(tiny_model("llama"), asked.pop("sites"), asked.pop("toxic"), asked.pop("clean"), seed=0, **asked)
    assert "\n" not in str(caught.value)
