"""Importance by |h dL/dh|: the slope of the loss along each unit at each token; padding and batches change nothing."""

import pytest
import torch

from close import FINITE, FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.edit import Edit, Scale
from microtome.engine.run import run
from microtome.measures.firing import firing
from microtome.measures.importance import importance, token_losses

SITE = Site("blocks.1.mlp.neurons")
ROWS = [[5, 6, 7, 8, 9], [3, 4, 11], [20, 21, 22, 23]]


def loss(model, rows, edits=()):
    batch = model.batch_ids(rows)
    return float(token_losses(run(model, batch, edits=edits).logits, batch).sum())


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_it_is_the_slope_of_the_loss_along_each_unit_summed_over_tokens(tiny_model, family):
    model, step = tiny_model(family), 2e-2
    row = [ROWS[0]]
    found = importance(model, [model.batch_ids(row)], SITE)
    for unit in (0, 5):
        total = 0.0
        for position in range(len(row[0])):
            ends = [
                loss(model, row, [Edit(SITE, Scale(1 + s), units=[unit], positions=position)]) for s in (step, -step)
            ]
            total += abs(ends[0] - ends[1]) / (2 * step)
        assert float(found.sites[SITE][unit]) * found.tokens == pytest.approx(total, rel=FINITE, abs=1e-6)


def test_batches_and_padding_change_nothing(tiny_model):
    model = tiny_model("llama")
    together = importance(model, [model.batch_ids(ROWS)], "blocks.*.mlp.neurons")
    apart = importance(model, [model.batch_ids([row]) for row in ROWS], "blocks.*.mlp.neurons")
    assert together.tokens == apart.tokens == 9
    assert together.loss == pytest.approx(apart.loss, rel=FLOAT64)
    assert all((together.sites[s] - apart.sites[s]).abs().max() < FLOAT64 for s in together.sites)


def test_a_unit_that_nothing_reads_has_none(tiny_model):
    model = tiny_model("llama")
    weight = model.module.model.layers[1].mlp.down_proj.weight
    kept = weight[:, 4].clone()
    with torch.no_grad():
        weight[:, 4] = 0
    try:
        found = importance(model, [model.batch_ids(ROWS)], SITE).sites[SITE]
    finally:
        with torch.no_grad():
            weight[:, 4] = kept
    assert found[4] == 0 and (found > 0).sum() > 40


def test_heads_give_one_number_each(tiny_model):
    model = tiny_model("llama")
    found = importance(model, [model.batch_ids(ROWS)], "blocks.*.attn.heads")
    assert all(x.shape == (4,) for x in found.sites.values()) and len(found.sites) == 3


def test_firing_counts_positive_tokens(tiny_model):
    model = tiny_model("llama")
    site = Site("blocks.0.mlp.gate")
    found = firing(model, [model.batch_ids(ROWS)], site)
    by_hand = torch.cat([run(model, model.batch_ids([r]), read=site)[site][0] for r in ROWS]) > 0
    assert found.tokens == 12 and (found.sites[site] - by_hand.double().mean(0)).abs().max() < FLOAT64


def test_texts_without_a_next_token_are_refused(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(MeasureError, match="over 0 tokens"):
        importance(model, [model.batch_ids([[3]])], SITE)
