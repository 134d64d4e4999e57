"""Every family's parts are found from structure, and the captured sites rebuild the model's own tensors."""

import pytest
import torch
from torch import nn

import tiny
from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import AnatomyError, SiteError
from microtome.engine.run import run
from microtome.models import Batch, Model
from microtome.models.probe import probe_inputs

TRANSFORMERS = [f for f in tiny.FAMILIES if f != "resnet"]
ROWS = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13, 14]]


def inputs_of(model: Model) -> Batch:
    return model.batch_ids(ROWS) if "input_ids" in model.accepts else Batch(probe_inputs(model.module, model.device))


def weight_of(model: Model, site: str) -> torch.Tensor:
    """A projection as [in, out], whatever its class."""
    path = model.weights[next(s for s in model.weights if str(s) == site)].removesuffix(".weight")
    module = model.module.get_submodule(path)
    return module.weight if type(module).__name__ == "Conv1D" else module.weight.T


def bias_of(model: Model, site: str):
    found = [n for s, n in model.weights.items() if str(s) == site]
    return dict(model.module.named_parameters())[found[0]] if found else 0.0


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_sites_rebuild_the_residual_stream(tiny_model, family):
    model = tiny_model(family)
    seen = run(model, inputs_of(model), read=list(model.sites))
    for i, block in enumerate(model.anatomy.blocks):
        at = f"blocks.{i}."
        heads = seen[at + "attn.heads"].flatten(-2) @ weight_of(model, at + "attn.o.weight")
        assert largest(heads + bias_of(model, at + "attn.o.bias"), seen[at + "attn.out"]) < FLOAT64  # V4
        if block.down:
            out = seen[at + "mlp.neurons"] @ weight_of(model, at + "mlp.down.weight")
            assert largest(out + bias_of(model, at + "mlp.down.bias"), seen[at + "mlp.out"]) < FLOAT64  # V4
        else:
            assert family in tiny.MOE
        if not block.post_norm:
            attn, mlp = (seen.get(f"{at}{part}.write", seen[f"{at}{part}.out"]) for part in ("attn", "mlp"))
            assert largest(seen[at + "resid_pre"] + attn + mlp, seen[at + "resid_post"]) < FLOAT64  # V3
        pattern = seen[at + "attn.pattern"]
        eager = block.attention == "softmax"  # eager kernels take their softmax in single precision
        assert largest(pattern.sum(-1), torch.ones_like(pattern[..., 0])) < (FLOAT32 if eager else FLOAT64)
        if block.attention == "sdpa":
            values = seen[at + "attn.v"].transpose(1, 2)
            values = values.repeat_interleave(block.heads // block.kv_heads, dim=1)
            assert largest((pattern @ values).transpose(1, 2), seen[at + "attn.heads"]) < FLOAT64


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_with_every_site_read_are_bit_equal(tiny_model, family):
    model = tiny_model(family)
    batch = inputs_of(model)
    with torch.no_grad():
        own = model.module(**batch.inputs).logits
    assert largest(run(model, batch, read=list(model.sites)).logits, own) == EXACT


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_eager_and_sdpa_show_the_same_pattern(tiny_model, family):
    eager = Model.load(tiny.build(family, attn="eager"))
    assert eager.anatomy.blocks[0].attention == "softmax" and tiny_model(family).anatomy.blocks[0].attention == "sdpa"
    read = "blocks.*.attn.pattern"
    one, two = (run(m, m.batch_ids(ROWS), read=read) for m in (eager, tiny_model(family)))
    assert max(largest(one[s], two[s]) for s in one) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_models_load(dtype):
    model = Model.load(tiny.build("llama", dtype=dtype))
    assert run(model, model.batch_ids(ROWS), read="blocks.0.mlp.neurons")["blocks.0.mlp.neurons"].dtype == dtype


def test_the_neuron_is_what_the_down_projection_reads(tiny_model):
    model = tiny_model("llama")
    seen = run(model, model.batch_ids(ROWS), read=["blocks.1.mlp.{gate,up,neurons}"])
    product = nn.functional.silu(seen["blocks.1.mlp.gate"]) * seen["blocks.1.mlp.up"]
    assert largest(product, seen["blocks.1.mlp.neurons"]) < FLOAT64


def test_grouped_heads_are_counted(tiny_model):
    block = tiny_model("llama").anatomy.blocks[0]
    assert (block.heads, block.kv_heads, block.d_head) == (4, 2, 8)


def test_tied_weights_are_both_addressable(tiny_model):
    model = tiny_model("llama-tied")
    assert "head.weight" in map(str, model.weights) and "embed.weight" in map(str, model.weights)


def test_experts_have_no_neurons_and_say_why(tiny_model):
    with pytest.raises(SiteError, match="mixture of experts"):
        tiny_model("mixtral").select("blocks.0.mlp.neurons")


def test_structure_is_found_on_the_meta_device():
    with torch.device("meta"):
        module = type(tiny.build("llama"))(tiny.build("llama").config)
    assert len(Model.load(module).anatomy.blocks) == 3


def test_a_model_without_blocks_says_what_was_looked_for():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 9)

        def forward(self, input_ids):
            return self.out(self.embed(input_ids))

    with pytest.raises(AnatomyError, match="looked for a ModuleList whose elements each run once and attend once"):
        Model.load(Net())
    model = Model.load(Net(), anatomy=False)
    assert run(model, model.batch_ids([[1, 2]]), read="embed")["embed"].shape == (1, 2, 4)


@pytest.mark.parametrize("family", ["llama", "neox", "qwen2", "opt", "gpt2"])
def test_left_padding_changes_nothing(tiny_model, family):  # V14
    model = tiny_model(family)
    alone = run(model, model.batch_ids([ROWS[0][:4]]), logits="last").logits
    padded = run(model, model.batch_ids([ROWS[0][:4], ROWS[1]]), logits="last").logits[:1]
    assert largest(alone, padded) < FLOAT64
