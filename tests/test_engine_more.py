"""Gradients, generation and the store: against finite differences, plain transformers, and a plain run."""

import json

import pytest
import torch

import tiny
from close import EXACT, FINITE, FLOAT64, largest
from microtome.core.errors import EditError, StoreError
from microtome.core.site import Site
from microtome.engine.edit import Add, Edit, Scale, Zero
from microtome.engine.generate import generate
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.engine.store import ActivationStore, capture
from microtome.models import Model

ROWS = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13]]


class Logit:
    positions = "last"

    def __call__(self, logits, rows):
        return logits[:, 0, 7]


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma3"])
def test_gradients_are_finite_differences(tiny_model, family):
    model = tiny_model(family)
    batch = model.batch_ids(ROWS)
    sites = ["blocks.1.mlp.neurons", "blocks.0.attn.heads", "blocks.*.resid_pre", "blocks.2.attn.out"]
    found = gradients(model, batch, sites, Logit())
    for site, grad in found.grads.items():
        direction = torch.randn(grad.shape[2:], generator=torch.Generator().manual_seed(0), dtype=grad.dtype)
        ahead, behind = (
            run(model, batch, edits=[Edit(site, Add(direction * e))]).logits[:, -1, 7].sum() for e in (1e-4, -1e-4)
        )
        slope, want = (ahead - behind) / 2e-4, (grad * direction).sum()
        assert abs(slope - want) < FINITE * max(1.0, abs(want)), site


def test_gradient_at_a_reader_is_its_share(tiny_model):
    """The stream's gradient is the sum of what attention, the MLP and the rest of the model draw from it."""
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    block = model.anatomy.blocks[2]
    readers = [f"{block.reader}.input", f"{block.mlp_path[0]}.input", f"{model.anatomy.final_norm}.input"]
    grads = gradients(model, batch, ["blocks.2.resid_pre", *readers], Logit()).grads
    total = next(g for s, g in grads.items() if s.kind == "resid_pre")
    shares = sum(g for s, g in grads.items() if s.kind != "resid_pre")
    assert largest(total, shares) < FLOAT64


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_gradients_see_what_a_run_sees(tiny_model, family):
    """At every site at once, also where a model adds to a tensor in place after we have read it."""
    model = tiny_model(family)
    batch = model.batch_ids([ROWS[0], ROWS[0][::-1]])
    sites = [s for s in model.sites if s.kind != "attn.pattern"]
    seen, found = run(model, batch, read=sites), gradients(model, batch, sites, Logit())
    for site in sites:
        own = seen[site][:, -1:] if site.path == "logits" else seen[site]
        assert largest(found.values[site], own) < FLOAT64, site
        assert found.grads[site].shape == own.shape, site


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_gradient_at_a_pattern_is_a_finite_difference(attn):
    model = Model.load(tiny.build("llama", attn=attn))
    batch = model.batch_ids([ROWS[0], ROWS[0][::-1]])  # eager masks give NaN for padded rows, with or without us
    grad = gradients(model, batch, "blocks.1.attn.pattern", Logit()).grads[Site("blocks.1.attn.pattern")]
    assert grad.shape == (2, 4, 6, 6)
    for head in range(4):
        ahead, behind = (
            run(model, batch, edits=[Edit("blocks.1.attn.pattern", Add(e), units=[head])]).logits[:, -1, 7]
            for e in (1e-4, -1e-4)
        )
        assert largest((ahead - behind) / 2e-4, grad[:, head].sum((1, 2))) < FINITE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradients_keep_no_graph_before_the_first_site_nor_for_weights(tiny_model, family):
    model = tiny_model(family)
    seen = run(model, model.batch_ids(ROWS), read=["blocks.1.resid_pre", "blocks.2.resid_pre"], grad=True)
    assert seen["blocks.1.resid_pre"].is_leaf and not seen["blocks.2.resid_pre"].is_leaf
    found, todo = set(), [seen.logits.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found.add(node)
            todo += [n for n, _ in node.next_functions]
    leaves = [n.variable for n in found if type(n).__name__ == "AccumulateGrad"]
    assert len(leaves) == 1 and leaves[0] is seen["blocks.1.resid_pre"]


def test_gradients_work_under_inference_mode(tiny_model):
    model = tiny_model("llama")
    outside = gradients(model, model.batch_ids(ROWS), "blocks.1.mlp.neurons", Logit())
    with torch.inference_mode():
        inside = gradients(model, model.batch_ids(ROWS), "blocks.1.mlp.neurons", Logit())
    site = Site("blocks.1.mlp.neurons")
    assert largest(inside.grads[site], outside.grads[site]) == EXACT


def test_gradients_leave_parameters_alone(tiny_model):
    model = Model.load(tiny.build("llama"))
    gradients(model, model.batch_ids(ROWS), "blocks.0.resid_pre", Logit())
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())


def test_foreign_hooks_and_hidden_states_survive_gradients():
    model = Model.load(tiny.build("llama"))
    calls = []
    model.module.model.layers[0].register_forward_hook(lambda *a: calls.append(1))
    batch = model.batch_ids(ROWS)
    own = model.module(**batch.inputs, output_hidden_states=True)
    held = [(m, list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.module.modules()]
    gradients(model, batch, ["blocks.*.resid_pre", "blocks.1.attn.pattern"], Logit())
    assert held == [(m, list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.module.modules()]
    out = model.module(**batch.inputs, output_hidden_states=True)
    assert len(calls) == 3 and all(map(torch.equal, out.hidden_states, own.hidden_states))
    out.logits.sum().backward()  # weights still take gradients where the caller wants them
    assert all(p.grad is not None for p in model.module.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_generation_without_edits_is_that_of_transformers(tiny_model, family):
    model = tiny_model(family)
    batch = model.batch_ids(ROWS)
    inputs = {k: batch.inputs[k] for k in ("input_ids", "attention_mask")}
    plain = model.module.generate(**inputs, max_new_tokens=6, do_sample=False)[:, batch.seq :]
    assert torch.equal(generate(model, batch, 6), plain)
    assert torch.equal(generate(model, batch, 6, edits=[Edit("blocks.1.mlp.neurons", Scale(1.0))]), plain)


@pytest.mark.parametrize("positions", [None, 2, -1])
def test_generation_with_edits_equals_a_loop_of_whole_forwards(tiny_model, positions):
    model = tiny_model("llama")
    rows = [list(r) for r in ([5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13, 14])]
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = generate(
        model, model.batch_ids(rows), 5, edits=[Edit("blocks.1.resid_pre", Add(vector), positions=positions)]
    )
    at = positions if positions is None else positions % 6
    for _ in range(5):
        edit = Edit("blocks.1.resid_pre", Add(vector), positions=at)
        following = run(model, model.batch_ids(rows), edits=[edit], logits="last").logits[:, 0].argmax(-1)
        rows = [[*r, int(t)] for r, t in zip(rows, following, strict=True)]
    ends = [list(r).index(2) + 1 if 2 in r else 5 for r in made.tolist()]  # 2 ends a sequence
    assert all(m[:e] == r[6 : 6 + e] for m, r, e in zip(made.tolist(), rows, ends, strict=True))


def test_sampling_is_seeded_and_leaves_the_global_state(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, three = (generate(model, batch, 8, sample=True, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three) and torch.equal(before, torch.get_rng_state())


def test_generation_refuses_weight_edits(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(EditError, match=r"cannot edit the weight 'head\.weight'"):
        generate(model, model.batch_ids(ROWS), 2, edits=[Edit("head.weight", Zero())])


PROMPTS = [[i, 5, 9 + i, 3][: 2 + i % 3] for i in range(1, 12)]
READ = ["blocks.*.mlp.neurons", "blocks.1.attn.heads", "blocks.0.resid_post"]


def batches(model):
    return [model.batch_ids(PROMPTS[i : i + 3]) for i in range(0, len(PROMPTS), 3)]


def test_the_store_holds_every_real_token_once(tiny_model, tmp_path):
    model = tiny_model("llama")
    store = capture(model, batches(model), READ, tmp_path / "s", dtype=torch.float64, shard_tokens=7)
    index = store.index()
    assert len(store) == sum(map(len, PROMPTS)) and len(store.manifest["shards"]) > 2
    assert [PROMPTS[i][p] for i, p in zip(index["item"], index["position"], strict=True)] == index["token"].tolist()
    rows = [13, 0, len(store) - 1, 5]
    for site in store.sites:
        for row, got in zip(rows, store.tokens(site, rows), strict=True):
            alone = run(model, model.batch_ids([PROMPTS[index["item"][row]]]), read=site)[site]
            assert largest(alone[0, index["position"][row]].flatten(), got) < FLOAT64
    site = "blocks.1.mlp.neurons"
    assert largest(store.units(site, [3, 40])[:, 1], store.tokens(site, range(len(store)))[:, 40]) == EXACT


def test_a_capture_cut_short_goes_on_where_it_stopped(tiny_model, tmp_path):
    model = tiny_model("llama")
    whole = capture(model, batches(model), READ, tmp_path / "whole", shard_tokens=7)

    def cut():
        yield from batches(model)[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(model, cut(), READ, tmp_path / "cut", shard_tokens=7)
    with pytest.raises(StoreError, match="unfinished"):
        ActivationStore.open(tmp_path / "cut")
    again = capture(model, batches(model), READ, tmp_path / "cut", shard_tokens=7)
    assert again.manifest == whole.manifest


def test_damaged_stores_are_refused(tiny_model, tmp_path):
    model = tiny_model("llama")
    store = capture(model, batches(model), READ, tmp_path, shard_tokens=7)
    shard = tmp_path / store.manifest["shards"][1]["file"]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors' is damaged"):
        list(ActivationStore.open(tmp_path).stream(READ[2]))
    with pytest.raises(StoreError, match=r"does not hold 'embed'"):
        list(store.stream("embed"))
    with pytest.raises(StoreError, match="Token 999 asked for"):
        store.tokens(READ[2], [999])
    with pytest.raises(StoreError, match="holds dtype bfloat16, asked for float32"):
        capture(model, batches(model), READ, tmp_path, dtype=torch.float32)
    (tmp_path / "manifest.json").write_text(json.dumps(store.manifest)[:-9])
    with pytest.raises(StoreError, match=r"manifest of store .* is damaged"):
        ActivationStore.open(tmp_path)
    with pytest.raises(StoreError, match="No activation store at"):
        ActivationStore.open(tmp_path / "nowhere")


def test_an_empty_capture_is_refused(tiny_model, tmp_path):
    with pytest.raises(StoreError, match="held no token"):
        capture(tiny_model("llama"), [], READ, tmp_path)
