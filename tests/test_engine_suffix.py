"""A suffix equals a whole forward with the values put in by hand: logits and gradients, whatever the family or site."""

import pytest
import torch

import tiny
from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import DataError, EditError, SiteError
from microtome.engine import prefix
from microtome.engine.edit import Edit, From
from microtome.engine.run import run
from microtome.engine.suffix import record_suffix
from microtome.models import Model
from microtome.models.batch import Batch

DOUBLE = ("gpt2", "neox", "neox-sequential", "opt", "falcon", "bloom", "bert")  # norms in the model's own precision
SINGLE = ("llama", "qwen2", "mistral", "gemma3", "phi3", "mixtral")
KINDS = ("resid_pre", "resid_mid", "resid_post", "attn.heads", "attn.out", "attn.write")
KINDS += ("mlp.neurons", "mlp.out", "mlp.write")
MIDDLE = torch.tensor([2, 4, 2])
SEVERAL = torch.tensor([[5, 5], [4, 5], [3, 5]])


def prompts(model, padded=True):
    short = [3, 4, 11, 12, 13] if padded else [3, 4, 11, 12, 13, 14]
    return model.batch_ids([[5, 6, 7, 8, 9, 10], short, [20, 21, 22, 23, 24, 25]])


def sites_of(model):
    """The sites of the first block and of the last."""
    return [s for s in model.sites if s.path == "embed" or (s.kind in KINDS and s.block in (0, 2))]


def altered(suffix, site):
    """New values for five sequences, rows repeated and out of order."""
    rows = torch.tensor([2, 0, 1, 1, 2])
    noise = torch.randn(5, *suffix.values[site].shape[1:], generator=torch.Generator().manual_seed(1)).double()
    return rows, (suffix.values[site][rows] + noise).requires_grad_()


def by_hand(model, batch, site, positions, reads, rows, values):
    """Whole forwards of the untouched model with the values put in."""
    edit = Edit(site, From(values[:, None]), positions=positions[rows][:, None])
    logits = run(model, batch.select(rows), edits=[edit], grad=True).logits
    at = batch.last[:, None] if isinstance(reads, str) else reads
    return logits[torch.arange(len(rows))[:, None], at[rows]]


def slopes(logits, values):
    """Gradient of a loss that depends on every logit."""
    weights = torch.linspace(-1, 1, logits.numel()).double().view_as(logits)
    return torch.autograd.grad((logits.log_softmax(-1) * weights).sum(), values)[0]


def compare(model, family, batch, positions, reads="last", **how):
    """Compare logits and gradients at every site; the float32 norms of some families round the backward pass."""
    suffix = record_suffix(model, batch, sites_of(model), positions, reads, **how)
    for site in suffix.sites:
        rows, values = altered(suffix, site)
        found = suffix(site, values, rows)
        wanted = by_hand(model, batch, site, suffix.positions, reads, rows, values)
        assert largest(found, wanted) < FLOAT64, site
        gap = largest(slopes(found, values), slopes(wanted, values))
        assert gap < (FLOAT64 if family in DOUBLE else FLOAT32), site
        assert (found - suffix(site, suffix.values[site][rows], rows)).abs().max() > 1e-3 or _unseen(suffix, site)
    return suffix


def _unseen(suffix, site):
    """Whether no attention above the site could show the edited position to the ones read."""
    above = len(suffix.model.anatomy.blocks) - 1 - (site.block or 0)
    return above == 0 and site.kind != "resid_pre" and bool((suffix.reads != suffix.positions[:, None]).any())


@pytest.mark.parametrize(
    ("at", "reads"),
    [(-1, "last"), (MIDDLE, "last"), (MIDDLE, SEVERAL)],
    ids=["last", "mid-prompt", "several reads"],
)
@pytest.mark.parametrize("family", [*DOUBLE[:5], *SINGLE])
def test_logits_and_gradients_equal_whole_forwards(tiny_model, family, at, reads):
    model = tiny_model(family)
    suffix = compare(model, family, prompts(model), at, reads)
    assert suffix.reason == ""


def test_logits_capped_after_the_head_are_capped_here_too():
    """Gemma-2 is eager because of the cap on its scores; without that one it runs on sdpa."""
    module = tiny.build("gemma2")
    module.config._attn_implementation = "sdpa"
    for layer in module.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert module.config.final_logit_softcapping
    model = Model.load(module)
    assert compare(model, "gemma2", prompts(model), MIDDLE).reason == ""


BLOCKED = [("gemma2", "eager"), ("bloom", "eager"), ("bert", "end of its block was not found")]


@pytest.mark.parametrize(("family", "why"), BLOCKED)
def test_models_that_cannot_be_replayed_run_whole_and_say_so(tiny_model, family, why):
    model = tiny_model(family)
    suffix = compare(model, family, prompts(model, padded=False), MIDDLE)
    assert why in suffix.reason


def test_attention_that_looks_ahead_is_not_replayed(tiny_model):
    model = tiny_model("bert")
    suffix = record_suffix(model, prompts(model), "blocks.0.resid_post", MIDDLE)
    rows, values = altered(suffix, suffix.sites[0])
    wanted = by_hand(model, prompts(model), suffix.sites[0], suffix.positions, "last", rows, values)
    assert "later positions" in suffix.reason
    assert largest(suffix(suffix.sites[0], values, rows), wanted) < FLOAT64


def test_a_site_that_cannot_be_entered_runs_whole_and_says_so(tiny_model):
    model = tiny_model("llama")
    suffix = record_suffix(model, prompts(model), "blocks.1.mlp.gate", MIDDLE)
    rows, values = altered(suffix, suffix.sites[0])
    wanted = by_hand(model, prompts(model), suffix.sites[0], suffix.positions, "last", rows, values)
    assert "blocks.1.mlp.gate" in suffix.reason
    assert largest(suffix(suffix.sites[0], values, rows), wanted) < FLOAT64
    assert largest(slopes(suffix(suffix.sites[0], values, rows), values), slopes(wanted, values)) < FLOAT32


def test_without_keeping_the_prefix_the_numbers_are_the_same_and_less_is_held(tiny_model):
    model = tiny_model("llama")
    kept = record_suffix(model, prompts(model), "blocks.0.resid_post", MIDDLE)
    again = compare(model, "llama", prompts(model), MIDDLE, keep=False)
    light = record_suffix(model, prompts(model), "blocks.0.resid_post", MIDDLE, keep=False)
    assert again.reason == "" and light.bytes < kept.bytes / 2
    assert largest(kept.values[kept.sites[0]], light.values[kept.sites[0]]) == EXACT


@pytest.mark.parametrize("padded", ["some parts", "every part", "no part"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "opt", "falcon", "mistral", "gemma3", "phi3"])
def test_a_recording_in_parts_is_that_of_all_rows(tiny_model, monkeypatch, family, padded):
    """Three parts of two rows: a part without padding comes without a mask, and joins others that have one."""
    model, full = tiny_model(family), [[5, 6, 7, 8, 9, 10 + i] for i in range(6)]
    short = {"some parts": [2, 3, 4], "every part": [0, 2, 4], "no part": []}[padded]
    batch = model.batch_ids([ids[1:] if i in short else ids for i, ids in enumerate(full)])
    at, rows = torch.tensor([3, 2, 4, 3, 2, 4]), torch.tensor([5, 0, 3, 3, 2, 4, 1])
    whole = record_suffix(model, batch, "blocks.0.resid_post", at)
    monkeypatch.setattr(prefix, "_ROWS", 2)
    parts = record_suffix(model, batch, "blocks.0.resid_post", at)
    assert whole.reason == parts.reason == ""
    (site,) = parts.sites
    values = whole.values[site][rows].roll(1, 0)
    found = parts(site, values, rows)
    assert largest(found, by_hand(model, batch, site, at, "last", rows, values)) < FLOAT64
    assert largest(found, whole(site, values, rows)) < FLOAT64
    assert parts.bytes == whole.bytes


def test_old_values_give_the_logits_of_the_unedited_run(tiny_model):
    model = tiny_model("neox")
    suffix = record_suffix(model, prompts(model), sites_of(model), -1)
    logits = run(model, prompts(model)).logits[:, -1:]
    for site in suffix.sites:
        assert largest(suffix(site, suffix.values[site]), logits) < FLOAT64


def test_one_row_does_not_depend_on_its_company(tiny_model):
    model = tiny_model("mistral")
    suffix = record_suffix(model, prompts(model), "blocks.0.resid_post", MIDDLE)
    rows, values = altered(suffix, suffix.sites[0])
    together = suffix(suffix.sites[0], values, rows)
    alone = torch.cat([suffix(suffix.sites[0], values[i : i + 1], rows[i : i + 1]) for i in range(5)])
    assert largest(together, alone) < FLOAT64


def test_weights_hooks_and_gradients_of_the_model_stay_as_they_were(tiny_model):
    model = Model.load(tiny.build("gpt2"))
    assert all(p.requires_grad for p in model.module.parameters())
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    suffix = record_suffix(
        model, prompts(model), ["blocks.*.resid_pre", "blocks.1.attn.heads", "blocks.1.mlp.*"], MIDDLE
    )
    for site in suffix.sites:
        rows, values = altered(suffix, site)
        suffix(site, values, rows).square().sum().backward()
        assert values.grad.abs().max() > 0
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in model.module.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_recorded_inside_inference_mode_it_still_gives_gradients(tiny_model):
    model = tiny_model("llama")
    with torch.inference_mode():
        suffix = record_suffix(model, prompts(model), "blocks.1.resid_post", 4)
        still = suffix(suffix.sites[0], suffix.values[suffix.sites[0]])
    rows, values = altered(suffix, suffix.sites[0])
    assert slopes(suffix(suffix.sites[0], values, rows), values).abs().max() > 0
    assert not still.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_replays(dtype):
    model = Model.load(tiny.build("llama", dtype=dtype))
    suffix = record_suffix(model, prompts(model), "blocks.0.resid_post", MIDDLE)
    rows, values = altered(suffix, suffix.sites[0])
    wanted = by_hand(model, prompts(model), suffix.sites[0], suffix.positions, "last", rows, values.to(dtype))
    found = suffix(suffix.sites[0], values, rows)
    assert suffix.reason == "" and found.dtype == dtype
    assert largest(found, wanted) < 16 * torch.finfo(dtype).eps * wanted.abs().max().item()


@pytest.mark.parametrize(
    ("positions", "reads", "why"),
    [
        (6, "last", "Position 6 of row 0 lies outside the 6"),
        (0, "last", "Position 0 of row 1 lies on padding"),
        (4, torch.tensor([3, 5, 5]), "Position 4 of row 0 lies after a position that is read"),
        (torch.tensor([1, 2]), "last", r"one position for each of 3 rows, found shape \(2,\)"),
    ],
)
def test_positions_that_make_no_sense_are_refused(tiny_model, positions, reads, why):
    model = tiny_model("llama")
    with pytest.raises(EditError, match=why):
        record_suffix(model, prompts(model), "blocks.0.resid_post", positions, reads)


def test_values_and_sites_that_do_not_fit_are_refused(tiny_model):
    model = tiny_model("llama")
    suffix = record_suffix(model, prompts(model), "blocks.0.resid_post")
    with pytest.raises(SiteError, match=r"not recorded at 'blocks.1.resid_post', only at \['blocks.0.resid_post'\]"):
        suffix("blocks.1.resid_post", torch.zeros(3, 32))
    with pytest.raises(EditError, match=r"values \(3, 31\) for 3 rows; it takes \[3, 32\]"):
        suffix("blocks.0.resid_post", torch.zeros(3, 31))
    with pytest.raises(SiteError, match="No site"):
        record_suffix(model, prompts(model), "blocks.9.resid_post")
    with pytest.raises(DataError, match="no sequence axis"):
        images = Batch({"pixel_values": torch.zeros(1, 3, 16, 16).double()})
        record_suffix(tiny_model("vit"), images, "blocks.0.resid_post")
