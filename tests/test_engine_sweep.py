"""sweep equals one whole forward per cell (V13), whatever the site, position, padding, budget or metric."""

import pytest
import torch

import tiny
from close import FLOAT64, largest
from microtome.core.errors import EditError, SiteError
from microtome.engine.edit import Add, Custom, Edit, From, Scale, Zero
from microtome.engine.plan import parse_bytes
from microtome.engine.run import run
from microtome.engine.sweep import plan, sweep
from microtome.models import Model

EAGER = ("gemma2", "bloom")  # their eager masks give NaN for padded rows, with or without us
KINDS = (
    "embed",
    "resid_pre",
    "resid_mid",
    "attn.heads",
    "attn.out",
    "attn.write",
    "mlp.gate",
    "mlp.up",
    "mlp.neurons",
    "mlp.out",
    "mlp.write",
    "resid_post",
)


class Difference:
    """Logit difference at given positions ("last", or [batch, n])."""

    def __init__(self, positions="last"):
        self.positions = positions
        self.answer, self.other = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])

    def __call__(self, logits, rows):
        take = lambda ids: logits.gather(2, ids[rows][:, None, None].expand(-1, logits.shape[1], 1))[..., 0]  # noqa: E731
        out = take(self.answer) - take(self.other)
        return out[:, 0] if isinstance(self.positions, str) else out


def pairs(model, padded: bool):
    short = [3, 4, 11, 12, 13] if padded else [3, 4, 11, 12, 13, 14]
    clean = [[5, 6, 7, 8, 9, 10], short, [20, 21, 22, 23, 24, 25]]
    corrupt = [[5, 6, 17, 8, 9, 10], [3, 14, *short[2:]], [20, 21, 22, 43, 24, 25]]
    return model.batch_ids(clean), model.batch_ids(corrupt)


def cells_of(model, clean):
    sites = [s for s in model.sites if s.kind in KINDS]
    source = run(model, clean, read=sites, logits="none")
    cells = [Edit(s, From(source[s]), positions=p) for s in sites for p in (None, 1, [2, 4], -1)]
    cells += [Edit(s, Zero(), units=[0, 2]) for s in sites]
    cells.append(
        [
            Edit("blocks.0.attn.heads", units=[1]),
            Edit("blocks.1.attn.heads", units=[0]),
            Edit("blocks.2.resid_post", Add(0.3), positions=-1),
        ]
    )
    cells.append([Edit("blocks.1.resid_pre", Add(0.1), positions=3), Edit("blocks.1.mlp.out", Scale(2.0))])
    cells.append(
        [
            Edit("blocks.0.attn.heads", units=[1]),
            Edit("blocks.0.mlp.out", Scale(0.5)),
            Edit("blocks.2.mlp.out", Zero(), units=[0]),
        ]
    )
    return cells


def one_by_one(model, batch, cells, metric):
    at = batch.last[:, None] if isinstance(metric.positions, str) else metric.positions
    effects = []
    for cell in cells:
        logits = run(model, batch, edits=cell if isinstance(cell, list) else [cell]).logits
        effects.append(metric(logits[torch.arange(len(batch))[:, None], at], torch.arange(len(batch))))
    return torch.stack(effects)


@pytest.mark.parametrize("budget", ["1GiB", "64KiB"])
@pytest.mark.parametrize("positions", ["last", torch.tensor([[3, 5], [4, 5], [2, 4]])], ids=["last", "several"])
@pytest.mark.parametrize("family", [*tiny.DECODERS, "bert"])
def test_sweep_equals_whole_forwards(tiny_model, family, positions, budget):
    model = tiny_model(family)
    clean, corrupt = pairs(model, padded=family not in EAGER)
    cells, metric = cells_of(model, clean), Difference(positions)
    found = sweep(model, corrupt, cells, metric, memory_budget=budget)
    assert found.plan.mode == ("whole" if family in EAGER else "replay"), found.plan.reason
    assert largest(found.effects, one_by_one(model, corrupt, cells, metric)) < FLOAT64
    assert found.effects.std() > 1e-3


@pytest.mark.parametrize("budget", ["1GiB", "64KiB"])
@pytest.mark.parametrize("positions", ["last", torch.tensor([[3, 5], [4, 5], [2, 4]])], ids=["last", "several"])
@pytest.mark.parametrize("family", [f for f in tiny.DECODERS if f not in EAGER])
def test_edits_behind_the_last_block_run_the_head_alone_and_mix_with_others(tiny_model, family, positions, budget):
    model = tiny_model(family)
    _, corrupt = pairs(model, padded=True)
    head = f"{model.anatomy.head}.input"
    behind = [
        Edit(head, Scale(0.5), units=[0, 3]),
        Edit("final_norm", Add(0.3), positions=-1),
        Edit("logits", Zero(), units=[2]),
        [Edit("final_norm", Scale(0.9)), Edit(head, Add(0.1), units=[1]), Edit("logits", Scale(2.0))],
    ]
    mixed = [
        [Edit("blocks.1.mlp.out", Scale(0.5)), Edit(head, Zero(), units=[1])],
        Edit("blocks.2.resid_post", Add(1.0)),
    ]
    cells, metric = [*behind, *mixed], Difference(positions)
    found = sweep(model, corrupt, cells, metric, memory_budget=budget)
    assert found.plan.mode == "replay", found.plan.reason
    assert largest(found.effects, one_by_one(model, corrupt, cells, metric)) < FLOAT64
    assert (found.effects[:3] - found.base).abs().amax(tuple(range(1, found.base.ndim + 1))).min() > 1e-6


def test_a_sweep_of_head_edits_passes_no_token_through_a_block(tiny_model):
    model = tiny_model("llama")
    _, corrupt = pairs(model, padded=False)
    cells = [Edit("final_norm", Zero(), units=[i]) for i in range(8)]
    made = plan(model, corrupt, cells, Difference())
    assert made.block_tokens == (0, 0, 0) and made.head_tokens == 8 * 3 and made.skipped == 0
    assert sweep(model, corrupt, cells, Difference()).plan.block_tokens == (0, 0, 0)


def test_cells_that_change_nothing_are_not_run(tiny_model):
    model = tiny_model("llama")
    clean, corrupt = pairs(model, padded=False)
    source = run(model, clean, read="blocks.0.resid_pre")["blocks.0.resid_pre"]
    before = [Edit("blocks.0.resid_pre", From(source), positions=0)]  # all prompts agree at position 0
    found = sweep(model, corrupt, before, Difference())
    assert found.plan.skipped == 3 and torch.equal(found.effects[0], found.base)


def test_base_is_the_metric_of_the_unedited_run(tiny_model):
    model = tiny_model("gpt2")
    _, corrupt = pairs(model, padded=True)
    metric = Difference()
    base = sweep(model, corrupt, [Edit("blocks.0.resid_pre", Scale(1.0))], metric).base
    assert largest(base, metric(run(model, corrupt, logits="last").logits, torch.arange(3))) < FLOAT64


@pytest.mark.parametrize("site", ["blocks.1.attn.pattern", "blocks.1.attn.q", "blocks.0.mlp.down.weight"])
def test_sites_that_cannot_be_replayed_fall_back_and_say_so(tiny_model, site):
    model = tiny_model("llama")
    _, corrupt = pairs(model, padded=False)
    cells = [Edit(site, Scale(0.5)), Edit("blocks.0.resid_pre", Add(0.1))]
    found = sweep(model, corrupt, cells, Difference())
    assert found.plan.mode == "whole" and site in found.plan.explain()
    assert largest(found.effects, one_by_one(model, corrupt, cells, Difference())) < FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sweeps_in_every_precision(dtype):
    """Replay differs from whole forwards by no more than rounding, and cells by far more."""
    model = Model.load(tiny.build("llama", dtype=dtype))
    clean, corrupt = pairs(model, padded=True)
    cells, metric = cells_of(model, clean), Difference()
    found = sweep(model, corrupt, cells, metric)
    assert found.plan.mode == "replay" and found.effects.dtype == dtype
    size = run(model, corrupt).logits.abs().max().item()
    assert largest(found.effects, one_by_one(model, corrupt, cells, metric)) < 8 * torch.finfo(dtype).eps * size
    assert found.effects.float().std() > 0.1 * size


@pytest.mark.parametrize("site", ["blocks.1.mlp.neurons", "blocks.1.attn.pattern"], ids=["replay", "whole"])
def test_foreign_hooks_and_hidden_states_survive_a_sweep(site):
    model = Model.load(tiny.build("llama"))
    calls = []
    model.module.model.layers[0].register_forward_hook(lambda *a: calls.append(1))
    _, corrupt = pairs(model, padded=True)
    before = model.module(**corrupt.inputs, output_hidden_states=True)
    held = [(m, list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.module.modules()]
    with pytest.raises(ZeroDivisionError):
        sweep(model, corrupt, [Edit(site, Custom(lambda f: 1 // 0))], Difference())
    sweep(model, corrupt, [Edit(site, Scale(0.5), positions=3)], Difference())
    assert held == [(m, list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.module.modules()]
    assert len(calls) > 1
    after = model.module(**corrupt.inputs, output_hidden_states=True)
    assert len(after.hidden_states) == 4 and all(map(torch.equal, before.hidden_states, after.hidden_states))


def test_explain_counts_the_exact_floor():
    """36 of 64 layer steps times 136 of 256 position steps are left when every layer and position is patched."""
    model = Model.load(tiny.build("llama"))
    batch = model.batch_ids([[1, 2, 3, 4]])
    cells = [Edit(f"blocks.{i}.resid_pre", Zero(), positions=p) for i in range(3) for p in range(4)]
    made = plan(model, batch, cells, Difference())
    assert made.block_tokens == (10, 20, 12)  # 1+2+3+4 for each started block; the last only at its 12 read tokens
    assert made.flops["floor"] <= made.flops["planned"] < 0.6 * made.flops["naive"]
    assert "of naive" in made.explain() and "memory" in made.explain()


def test_explain_works_for_70b_parameters_on_the_meta_device():
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=8192,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        intermediate_size=28672,
        vocab_size=128256,
    )
    with torch.device("meta"):
        model = Model.load(transformers.LlamaForCausalLM(config))
    assert sum(p.numel() for p in model.module.parameters()) > 69e9
    ids = torch.zeros(4, 32, dtype=torch.long).tolist()
    with torch.device("cpu"):
        batch = model.batch_ids(ids)
    import dataclasses

    batch = dataclasses.replace(batch, mask=torch.ones(4, 32, dtype=torch.bool))
    cells = [Edit(f"blocks.{i}.resid_pre", Zero(), positions=p) for i in range(0, 80, 8) for p in range(32)]
    made = plan(model, batch, cells, Difference(), memory_budget="8GiB")
    assert made.mode == "replay" and made.flops["planned"] < 0.5 * made.flops["naive"]
    assert made.peak_bytes <= made.budget


@pytest.mark.parametrize(("text", "value"), [("1KiB", 1024), ("2GB", 2_000_000_000), (77, 77), ("1.5 MiB", 1572864)])
def test_sizes(text, value):
    assert parse_bytes(text) == value


def test_bad_requests_are_refused(tiny_model):
    model = tiny_model("llama")
    _, corrupt = pairs(model, padded=False)
    with pytest.raises(EditError, match="no cells"):
        sweep(model, corrupt, [], Difference())
    with pytest.raises(SiteError, match=r"No site 'blocks\.7\.resid_pre'"):
        sweep(model, corrupt, [Edit("blocks.7.resid_pre")], Difference())
    with pytest.raises(EditError, match="'lots' is not a size"):
        sweep(model, corrupt, [Edit("blocks.0.resid_pre")], Difference(), memory_budget="lots")
