"""Attribution against exact patching, its completeness, and the planted truth of zoo:hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.edit import Edit, From
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.attribution import attribution_patching, edge_attribution, integrated_gradients
from microtome.models import Model
from microtome.models.zoo.hand.world import hand_items

CLEAN = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13, 14]]
CORRUPT = [[5, 6, 17, 8, 9, 10], [3, 4, 21, 12, 13, 14]]
SITES = ["blocks.*.mlp.neurons", "blocks.*.attn.heads"]


class Logit:
    positions = "last"

    def __call__(self, logits, rows):
        return logits[:, 0, 7] - logits[:, 0, 3]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_integrated_gradients_are_complete(tiny_model, family):  # V11
    model = tiny_model(family)
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    items = torch.arange(2)
    gap = Logit()(run(model, clean, logits="last").logits, items) - Logit()(
        run(model, corrupt, logits="last").logits, items
    )
    errors = []
    for steps in (1, 8, 64):
        scores = integrated_gradients(model, clean, corrupt, "embed", Logit(), steps=steps)
        errors.append((sum(scores.values()).sum(1) - gap).abs().max().item())
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.05 * gap.abs().max()


def test_points_packed_or_not_are_equal(tiny_model):  # V17
    model = tiny_model("llama")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    whole = integrated_gradients(model, clean, corrupt, SITES, Logit(), steps=5)
    parts = integrated_gradients(model, clean, corrupt, SITES, Logit(), steps=5, points_per_pass=2)
    assert max(largest(whole[s], parts[s]) for s in whole) < FLOAT64


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "qwen3"])
def test_edges_of_a_sender_sum_to_its_node_score(tiny_model, family, steps):  # V12
    model = tiny_model(family)
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    edges = edge_attribution(model, clean, corrupt, Logit(), steps=steps)
    nodes = integrated_gradients(model, clean, corrupt, "blocks.*.attn.heads", Logit(), steps=steps)
    for i, (site, unit) in enumerate(edges.senders):
        if site.kind == "attn.heads":
            assert largest(edges.scores[:, i].sum(1), nodes[site][:, unit]) < 1e-6, (site, unit)
    assert not edges.scores[:, ~edges.possible].any() and edges.possible.sum() > 20


def test_scores_of_patterns_are_by_head(tiny_model):
    """A pattern's axes are [batch, head, query, key]; in a parallel model's last block it acts through the head."""
    model = tiny_model("llama")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    site = Site("blocks.1.attn.pattern")
    source, own = (run(model, b, read=site)[site] for b in (clean, corrupt))
    found = attribution_patching(model, clean, corrupt, site, Logit())[site]
    grad = gradients(model, corrupt, site, Logit()).grads[site]
    assert found.shape == (2, 4) and largest(found, ((source - own) * grad).sum((2, 3))) < FLOAT64


def test_attribution_works_under_inference_mode(tiny_model):
    model = tiny_model("llama")
    scores = []
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
            nodes = integrated_gradients(model, clean, corrupt, SITES, Logit(), steps=2)
            edges = edge_attribution(model, clean, corrupt, Logit(), steps=2)
            scores.append((torch.cat(list(nodes.values()), 1), edges.scores))
    assert largest(scores[0][0], scores[1][0]) == largest(scores[0][1], scores[1][1]) == EXACT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_those_of_single_precision_to_rounding(dtype):
    scores = {}
    for kind in (torch.float32, dtype):
        model = Model.load(tiny.build("llama", dtype=dtype).to(kind))  # the same numbers in both
        clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
        nodes = integrated_gradients(model, clean, corrupt, SITES, Logit(), steps=3)
        edges = edge_attribution(model, clean, corrupt, Logit(), steps=3).scores
        assert edges.dtype == next(iter(nodes.values())).dtype == kind
        scores[kind] = torch.cat([*nodes.values(), edges.flatten(1)], 1).float()
    size = scores[torch.float32].abs().max().item()
    assert largest(scores[dtype], scores[torch.float32]) < 30 * torch.finfo(dtype).eps * size


def test_unpaired_batches_are_refused(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(MeasureError, match="must pair token by token"):
        attribution_patching(model, model.batch_ids([[1, 2]]), model.batch_ids([[1, 2, 3]]), SITES, Logit())


def test_models_that_normalise_their_writes_have_no_edges_here(tiny_model):
    model = tiny_model("gemma3")
    batch = model.batch_ids(CLEAN)
    with pytest.raises(MeasureError, match="normalises what it writes"):
        edge_attribution(model, batch, batch, Logit())


class Difference:
    positions = "last"

    def __init__(self, items):
        self.answer = torch.tensor([i.answer for i in items])
        self.other = torch.tensor([i.cf_answer for i in items])

    def __call__(self, logits, rows):
        x = logits[:, -1]
        return x.gather(1, self.answer[rows][:, None])[:, 0] - x.gather(1, self.other[rows][:, None])[:, 0]


@pytest.fixture(scope="module", params=["recall", "lookup"])
def planted(request):
    """zoo:hand, clean and corrupt batches of one task, the metric and the true units."""
    from microtome.models.zoo.hand.truth import HAND_TRUTH

    model = Model.load("zoo:hand", dtype=torch.float64)
    items = hand_items(request.param, 24)
    clean, corrupt = (model.batch([getattr(i, w) for i in items]) for w in ("prompt", "counterfactual"))
    return model, clean, corrupt, Difference(items), getattr(HAND_TRUTH["plain"], request.param)


def auroc(scores: dict, truth) -> float:
    values = np.concatenate([np.abs(scores[s].numpy()).mean(0) for s in scores])
    labels = np.concatenate([np.isin(np.arange(scores[s].shape[1]), truth.at(s)) for s in scores])
    assert 0 < labels.sum() < len(labels)
    return roc_auc_score(labels, values)


def test_gradients_put_the_true_units_first(planted):
    model, clean, corrupt, metric, truth = planted
    assert auroc(attribution_patching(model, clean, corrupt, SITES, metric), truth) == 1.0
    assert auroc(integrated_gradients(model, clean, corrupt, SITES, metric, steps=5), truth) == 1.0


def test_exact_patching_puts_the_true_units_first(planted):
    model, clean, corrupt, metric, truth = planted
    source = run(model, clean, read=SITES, logits="none")
    found = {}
    for site in source:
        cells = [Edit(site, From(source[site]), units=[u]) for u in range(source[site].shape[2])]
        result = sweep(model, corrupt, cells, metric)
        assert result.plan.mode == "replay"
        found[site] = (result.effects - result.base).T
    assert auroc(found, truth) == 1.0
