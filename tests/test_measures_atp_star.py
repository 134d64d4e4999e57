"""AtP*: equal to AtP where nothing saturates or cancels, exact where linear, and right where AtP is planted to fail."""

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from close import EXACT, FLOAT64, OTHER, largest
from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.engine.edit import Edit, From
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.atp_star import atp_star, missed_at_most, qk_fixed
from microtome.measures.attribution import attribution_patching
from microtome.measures.faithfulness import against_truth
from microtome.measures.outputs import LogitDiff
from microtome.models import Model
from microtome.models.zoo.hand.module import HandConfig, HandDecoder
from microtome.models.zoo.hand.truth import HAND_TRUTH
from microtome.models.zoo.hand.world import hand_items

CLEAN = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13]]
CORRUPT = [[5, 6, 17, 8, 9, 10], [3, 4, 21, 12, 13]]
METRIC = LogitDiff(torch.tensor([7, 8]), torch.tensor([3, 9]))
LAST = {"llama": "model.norm", "qwen3": "model.norm", "gpt2": "transformer.ln_f", "neox": "gpt_neox.final_layer_norm"}
QK = ["blocks.2.attn.q", "blocks.2.attn.k"]


def linear_after_the_heads(family) -> Model:
    """A tiny model whose last heads reach the logits linearly: no last MLP, no final norm."""
    module = tiny.build(family)
    parent, _, name = LAST[family].rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())
    block = Model.load(module).anatomy.blocks[2]
    with torch.no_grad():
        for p in module.get_submodule(block.down).parameters():
            p.zero_()
    return Model.load(module)


def exact(model, clean, corrupt, site, metric):
    """Effect of patching each unit of a site, [batch, units]."""
    source = run(model, clean, read=site, logits="none")[site]
    cells = [Edit(site, From(source), units=[u]) for u in range(source.shape[2])]
    result = sweep(model, corrupt, cells, metric)
    return (result.effects - result.base).T


@pytest.mark.parametrize("family", sorted(LAST))
def test_queries_and_keys_are_exact_where_heads_enter_linearly(family):
    model = linear_after_the_heads(family)
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    fixed = qk_fixed(model, clean, corrupt, QK, METRIC)
    plain = attribution_patching(model, clean, corrupt, QK, METRIC)
    for site in fixed:
        want = exact(model, clean, corrupt, site, METRIC)
        assert largest(fixed[site], want) < FLOAT64
        assert largest(plain[site], want) > 1e-3  # the softmax bends, so plain AtP is off


def test_small_changes_of_queries_and_keys_score_as_in_plain_attribution():
    module = tiny.build("llama")
    with torch.no_grad():
        table = module.model.embed_tokens.weight
        table[17], table[21] = table[7] + 1e-5 * table[17], table[11] + 1e-5 * table[21]
    model = Model.load(module)
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    sites = ["blocks.*.attn.q", "blocks.*.attn.k"]
    fixed, plain = (f(model, clean, corrupt, sites, METRIC) for f in (qk_fixed, attribution_patching))
    for site in fixed:
        assert largest(fixed[site], plain[site]) < OTHER * plain[site].abs().max()


@pytest.mark.parametrize("by_block", [False, True])
def test_other_sites_are_plain_attribution_and_the_last_block_has_nothing_to_drop(tiny_model, by_block):
    model = tiny_model("llama")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    sites = ["blocks.*.mlp.neurons", "blocks.*.attn.heads", "blocks.1.attn.v", "blocks.1.attn.pattern"]
    plain = attribution_patching(model, clean, corrupt, sites, METRIC)
    fixed, starred = (
        qk_fixed(model, clean, corrupt, sites, METRIC),
        atp_star(model, clean, corrupt, sites, METRIC, by_block=by_block),
    )
    assert all(largest(fixed[s], plain[s]) == EXACT and (starred[s] >= 0).all() for s in plain)
    last, first = Site("blocks.2.mlp.neurons"), Site("blocks.0.mlp.neurons")
    assert largest(starred[last], plain[last].abs()) < FLOAT64
    assert largest(starred[first], plain[first].abs()) > 1e-3


def test_graddrop_by_hand(tiny_model):
    """For block 1's neurons the passes differ only where block 2's attention or MLP is dropped."""
    model = tiny_model("gpt2")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    site = Site("blocks.1.mlp.neurons")
    source, own = (run(model, b, read=site)[site] for b in (clean, corrupt))

    def attribution(dropped):
        handles = [
            model.module.transformer.h[2].get_submodule(name).register_forward_hook(lambda m, a, o: detached(o))
            for name in dropped
        ]
        found = attribution_patching(model, clean, corrupt, site, METRIC)[site].abs()
        for handle in handles:
            handle.remove()
        return found

    detached = lambda o: (o[0].detach(), *o[1:]) if isinstance(o, tuple) else o.detach()  # noqa: E731
    want = (3 * attribution([]) + attribution(["attn"]) + attribution(["mlp"])) / 5  # its own MLP's pass is left out
    assert largest(atp_star(model, clean, corrupt, site, METRIC)[site], want) < FLOAT64
    assert largest(source, own) > 1e-3


def decoder(layers, heads=2, neurons=4) -> HandDecoder:
    """An empty decoder of width 8 over 8 words: word i stands in dimension i, logits read the stream."""
    module = HandDecoder(HandConfig(8, 8, heads, 4, neurons, 6, layers)).double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
        module.embed.weight.copy_(torch.eye(8))
        module.head.weight.copy_(torch.eye(8))
    return module


def saturated() -> Model:
    """Head 0 attends hard: query word 4 to key words 0 and 3, query word 5 to word 1; word 1 writes into logit 7."""
    module = decoder(1)
    attn, sharp = module.blocks[0].attn, 40.0
    with torch.no_grad():
        attn.q.weight[0, 4], attn.q.weight[1, 5] = sharp, sharp
        attn.k.weight[0, 0], attn.k.weight[1, 1], attn.k.weight[0, 3] = 1.0, 1.0, 3.0
        attn.v.weight[0, 1], attn.o.weight[7, 0] = 1.0, 1.0
    return Model.load(module)


Logit7 = LogitDiff(torch.tensor([7]), torch.tensor([6]))


@pytest.mark.parametrize(
    ("place", "clean", "corrupt"),
    [("q", [0, 1, 5], [0, 1, 4]), ("k", [2, 1, 4], [0, 1, 4])],
    ids=["query moved to another key", "key that stops drawing the query"],
)
def test_the_qk_fix_finds_what_a_saturated_softmax_hides(place, clean, corrupt):
    model, site = saturated(), Site(f"blocks.0.attn.{place}")
    clean, corrupt = model.batch_ids([clean]), model.batch_ids([corrupt])
    want = exact(model, clean, corrupt, site, Logit7)
    plain = attribution_patching(model, clean, corrupt, site, Logit7)[site]
    fixed = qk_fixed(model, clean, corrupt, site, Logit7)[site]
    starred = atp_star(model, clean, corrupt, site, Logit7)[site]
    assert want[0, 0] > 0.3 and plain.abs().max() < 1e-6  # 1 for the query; 1/3 once three keys draw alike
    assert largest(fixed, want) < FLOAT64 and largest(starred, want.abs()) < FLOAT64
    assert fixed[0, 1] == 0  # head 1 attends evenly and writes nothing


def cancelling() -> Model:
    """Neuron 0 of block 0 writes a = [word 0] into logit 7; block 1 takes a small a back: - relu(a) + relu(a - .3)."""
    module = decoder(2)
    first, second = module.blocks[0].mlp, module.blocks[1].mlp
    with torch.no_grad():
        first.up.weight[0, 0], first.down.weight[7, 0] = 1.0, 1.0
        first.up.weight[1, 0], first.down.weight[5, 1] = 1.0, 1.0  # a twin that writes where nothing reads
        first.up.weight[2, 0], first.down.weight[6, 2] = 1.0, -0.2  # a unit with a plain effect
        second.up.weight[:2, 7], second.up.bias[0], second.up.bias[1] = 1.0, 0.1, -0.3
        second.down.weight[7, 0], second.down.weight[7, 1] = -1.0, 1.0
    return Model.load(module)


def test_graddrop_finds_what_cancels():
    model, site = cancelling(), Site("blocks.0.mlp.neurons")
    clean, corrupt = model.batch_ids([[2, 0]]), model.batch_ids([[2, 3]])
    want = exact(model, clean, corrupt, site, Logit7)[0]
    plain = attribution_patching(model, clean, corrupt, site, Logit7)[site][0]
    starred = atp_star(model, clean, corrupt, site, Logit7)[site][0]
    assert want.tolist() == pytest.approx([0.7, 0, 0.2, 0])  # 1 written, 0.3 taken back
    assert plain.tolist() == pytest.approx([0, 0, 0.2, 0])
    assert starred.tolist() == pytest.approx([1 / 3, 0, 0.2, 0])  # found in one pass of three: block 1's MLP dropped
    blockwise = atp_star(model, clean, corrupt, site, Logit7, by_block=True)[site][0]
    assert blockwise.tolist() == pytest.approx([1, 0, 0.2, 0])


@pytest.mark.parametrize("task", ["recall", "lookup"])
def test_true_units_come_first(task):
    model = Model.load("zoo:hand", dtype=torch.float64)
    items = hand_items(task, 24)
    clean, corrupt = (model.batch([getattr(i, w) for i in items]) for w in ("prompt", "counterfactual"))
    metric = LogitDiff(*(torch.tensor([getattr(i, n) for i in items]) for n in ("answer", "cf_answer")))
    scores = atp_star(model, clean, corrupt, ["blocks.*.mlp.neurons", "blocks.*.attn.heads"], metric)
    means = {s: x.mean(0).numpy() for s, x in scores.items()}
    assert against_truth(means, getattr(HAND_TRUTH["plain"], task)).auroc == 1.0


def test_what_is_missed_is_bounded():
    """With the two strong units verified nothing is left; left in, they show, and the bound covers them."""
    model, site = cancelling(), Site("blocks.0.mlp.neurons")
    clean, corrupt = model.batch_ids([[2, 0]]), model.batch_ids([[2, 3]])
    rng = lambda: np.random.default_rng(0)  # noqa: E731
    rest = missed_at_most(model, clean, corrupt, Units({site: [1, 3]}), Logit7, rng=rng(), subsets=16)
    assert rest.bound < FLOAT64 and np.abs(rest.effects[site]).max() < FLOAT64
    found = missed_at_most(model, clean, corrupt, Units({site: range(4)}), Logit7, rng=rng(), subsets=64)
    assert found.effects[site][[0, 2]] == pytest.approx([0.7, 0.2], abs=0.2) and found.bound > 0.7
    assert (np.abs(found.effects[site][[1, 3]]) < 3 * found.error[site][[1, 3]]).all()
    tighter = missed_at_most(model, clean, corrupt, Units({site: range(4)}), Logit7, rng=rng(), subsets=1024)
    assert 0.7 < tighter.bound < found.bound


def test_refusals(tiny_model):
    model = Model.load(decoder(1))
    batch = model.batch_ids([[1, 2]])
    with pytest.raises(MeasureError, match=r"GradDrop at 'blocks\.0\.mlp\.neurons': every pass drops its own part"):
        atp_star(model, batch, batch, "blocks.0.mlp.neurons", Logit7, by_block=True)
    with pytest.raises(MeasureError, match="must pair token by token"):
        qk_fixed(model, batch, model.batch_ids([[1, 2, 3]]), "blocks.0.attn.q", Logit7)
    with pytest.raises(MeasureError, match="Bounding 0 units by 64 subsets"):
        missed_at_most(model, batch, batch, Units(), Logit7, rng=np.random.default_rng(0))
