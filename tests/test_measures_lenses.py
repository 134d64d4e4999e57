"""The lens ends in the model's own logits; shares of a logit difference sum to it and follow ablation where linear."""

import pytest
import torch

import tiny
from close import FLOAT32, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits import ablate
from microtome.engine.run import run
from microtome.measures.lenses import direct_logit_attribution, logit_lens
from microtome.models import Model
from microtome.models.zoo.hand.world import hand_items

ROWS = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13]]
ANSWER, OTHER = torch.tensor([7, 8]), torch.tensor([3, 9])


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "opt", "gemma3"])
def test_the_lens_after_the_last_block_is_the_models_own_prediction(tiny_model, family):
    model = tiny_model(family)
    batch = model.batch_ids(ROWS)
    lens = logit_lens(model, batch)
    own = run(model, batch, logits="last").logits
    assert largest(lens[max(lens)], own) < FLOAT64 and largest(lens[min(lens)], own) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "qwen2", "opt", "falcon"])
def test_shares_sum_to_the_logit_difference(tiny_model, family):  # V3
    model = tiny_model(family)
    batch = model.batch_ids(ROWS)
    found = direct_logit_attribution(model, batch, ANSWER, OTHER)
    own = run(model, batch, logits="last").logits[:, 0]
    assert largest(found.total, own[[0, 1], ANSWER] - own[[0, 1], OTHER]) < FLOAT64
    # norms of several families compute in single precision
    assert largest(sum(p.sum(1) for p in found.parts.values()) + found.constant, found.total) < FLOAT32
    assert all(p.abs().max() > 0 for s, p in found.parts.items() if s.kind in ("attn.heads", "mlp.out"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_shares_sum_in_every_precision(family, dtype):
    model = Model.load(tiny.build(family, dtype=dtype))
    found = direct_logit_attribution(model, model.batch_ids(ROWS), ANSWER, OTHER)
    shares = sum(p.sum(1) for p in found.parts.values()) + found.constant
    size = max(p.abs().max().item() for p in found.parts.values())
    assert largest(shares, found.total) < 20 * torch.finfo(dtype).eps * size  # about 15 terms, each rounded


def test_a_share_is_the_effect_of_ablating_what_enters_linearly():  # V10
    """In zoo:hand the final norm is the identity, so the last block's shares are exact ablation effects."""
    model = Model.load("zoo:hand", dtype=torch.float64)
    items = hand_items("lookup", 8)
    batch = model.batch([i.prompt for i in items])
    answer, other = (torch.tensor([getattr(i, n) for i in items]) for n in ("answer", "cf_answer"))
    shares = direct_logit_attribution(model, batch, answer, other).parts[Site("blocks.1.attn.heads")]
    rows = torch.arange(8)

    def difference(edits):
        logits = run(model, batch, edits=edits, logits="last").logits[:, 0]
        return logits[rows, answer] - logits[rows, other]

    whole = difference([])
    for head in range(shares.shape[1]):
        lost = whole - difference(ablate(Units({"blocks.1.attn.heads": [head]})))
        assert largest(lost, shares[:, head]) < FLOAT64
    assert shares.abs().max() > 0.1


def test_models_without_a_plain_tail_are_refused(tiny_model):
    with pytest.raises(MeasureError, match="normalises what its blocks write"):
        direct_logit_attribution(tiny_model("gemma3"), tiny_model("gemma3").batch_ids(ROWS), ANSWER, OTHER)
    with pytest.raises(MeasureError, match="has no lens"):
        logit_lens(tiny_model("vit"), tiny_model("llama").batch_ids(ROWS))
