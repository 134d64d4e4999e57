"""Architectures to train: their size, a block recomputed by hand, what a token sees, and that plain tools load them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from close import FLOAT32, OTHER, largest
from microtome.core.errors import ConfigError
from microtome.models import Model
from microtome.training.architectures import fuxi, fuxitranyu_8b, initialised, llama, parameter_count, qwen

SIZE = dict(layers=3, width=32, mlp=48, heads=4, context=64)
MAKERS = {"fuxi": fuxi, "llama": llama, "qwen": qwen}


@pytest.fixture(scope="module", params=MAKERS)
def module(request):
    """A random model whose weights are large enough to matter, biases included."""
    made = initialised(MAKERS[request.param](61, **SIZE, spread=0.2), 0).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=draw))
    return made


def ids(rows=2, seq=12):
    return torch.randint(0, 61, (rows, seq), generator=torch.Generator().manual_seed(2))


def by_formula(vocabulary, layers, width, mlp):
    attention, two = 4 * (width**2 + width), 2 * width * mlp + mlp + width
    return 2 * vocabulary * width + layers * (attention + two + 2 * width) + width


@pytest.mark.parametrize("size", [(61, 3, 32, 48), (256, 2, 64, 256), (1000, 1, 16, 8)])
def test_fuxi_has_the_parameters_of_its_formula(size):
    vocabulary, layers, width, mlp = size
    config = fuxi(vocabulary, layers=layers, width=width, mlp=mlp, heads=4, context=64)
    assert parameter_count(config) == by_formula(*size)


def test_fuxitranyu_has_8_095_billion_parameters():
    count = parameter_count(fuxitranyu_8b())
    assert count == by_formula(250_752, 30, 4096, 16_384)
    assert round(count / 1e9, 3) == 8.095
    assert fuxitranyu_8b().vocab_size == 128 * 1959 == 250_680 + 72


def test_llama_and_qwen_have_the_parameters_of_their_formulas():
    outside, norms = 61 * 32, 3 * 2 * 32 + 32
    blocks = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)  # two key/value heads of eight
    assert parameter_count(llama(61, **SIZE, kv_heads=2)) == 2 * outside + blocks + norms
    assert parameter_count(llama(61, **SIZE, kv_heads=2, tied=True)) == outside + blocks + norms
    assert parameter_count(qwen(61, **SIZE, kv_heads=2)) == outside + blocks + norms + 3 * 2 * 8
    assert parameter_count(qwen(61, **SIZE, kv_heads=2, tied=False)) == 2 * outside + blocks + norms + 3 * 2 * 8


def by_hand(weights, tokens, heads):
    """FuxiTranyu's forward pass in double precision, from the paper's words."""
    w = {name: value.double() for name, value in weights.items()}
    x = w["model.embed_tokens.weight"][tokens]
    batch, seq, width = x.shape
    d = width // heads
    angle = torch.arange(seq).double()[:, None] / 10_000 ** (torch.arange(0, d, 2).double() / d)

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name + ".weight"]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def turned(x):  # each pair (i, i + d/2) is one complex number
        z = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([z.real, z.imag], -1)

    def split(x):
        return x.view(batch, seq, heads, d).transpose(1, 2)

    unseen = torch.ones(seq, seq).triu(1).bool()
    for i in range(3):
        block = f"model.layers.{i}"
        y = norm(x, f"{block}.input_layernorm")
        q, k, v = (split(linear(y, f"{block}.self_attn.{n}_proj")) for n in "qkv")
        pattern = (turned(q) @ turned(k).mT / d**0.5).masked_fill(unseen, -torch.inf).softmax(-1)
        x = x + linear((pattern @ v).transpose(1, 2).reshape(x.shape), f"{block}.self_attn.o_proj")
        h = linear(norm(x, f"{block}.post_attention_layernorm"), f"{block}.mlp.up_proj")
        x = x + linear(h * 0.5 * (1 + torch.erf(h / 2**0.5)), f"{block}.mlp.down_proj")
    return norm(x, "model.norm") @ w["lm_head.weight"].T


@pytest.mark.parametrize("module", ["fuxi"], indirect=True)
def test_fuxi_is_the_block_of_the_paper(module):
    weights = module.state_dict()
    assert not any("gate" in name for name in weights)
    assert all(n.replace("weight", "bias") in weights for n in weights if "proj.weight" in n)
    logits = module(ids(), use_cache=False).logits
    assert logits.std() > 0.1
    assert largest(logits, by_hand(weights, ids(), 4)) < OTHER


def test_a_later_token_changes_no_earlier_logits(module):
    tokens = ids()
    before = module(tokens, use_cache=False).logits
    tokens[:, 7] = (tokens[:, 7] + 1) % 61
    after = module(tokens, use_cache=False).logits
    assert torch.equal(before[:, :7], after[:, :7])
    assert largest(before[:, 7:], after[:, 7:]) > 0.1


def test_attention_depends_on_how_far_apart_tokens_are_not_on_where(module):
    place = torch.arange(12).expand(2, 12)
    module.set_attn_implementation("eager")
    run = lambda at: module(ids(), position_ids=at, use_cache=False, output_attentions=True)  # noqa: E731
    here, shifted = run(place), run(place + 31)
    module.set_attn_implementation("sdpa")
    assert all(largest(a, b) < FLOAT32 for a, b in zip(here.attentions, shifted.attentions, strict=True))
    assert largest(here.logits, shifted.logits) < OTHER
    mask = torch.ones(12, 12).tril().bool().expand(2, 1, 12, 12)
    apart = module(ids(), position_ids=2 * place, attention_mask=mask, use_cache=False).logits
    assert largest(here.logits, apart) > 0.01


def test_plain_transformers_loads_what_is_saved(module, tmp_path):
    module.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(module)
    assert largest(module(ids()).logits, again(ids()).logits) < FLOAT32


def test_microtome_finds_the_parts(module):
    model = Model.load(module)
    assert (len(model.anatomy.blocks), model.anatomy.d_model) == (3, 32)
    assert model.space("blocks.*.mlp.neurons") == {s: 48 for s in model.space("blocks.*.mlp.neurons")}
    assert len(model.space("blocks.*.mlp.neurons")) == len(model.space("blocks.*.attn.heads")) == 3
    assert not model.anatomy.missing, model.anatomy.missing


def test_the_seed_gives_the_weights_and_leaves_the_generator():
    config, before = fuxi(61, **SIZE), torch.get_rng_state()
    one, same, other = (initialised(config, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert 0.018 < one.std() < 0.022


def test_no_token_is_left_untrained():
    assert initialised(fuxi(61, **SIZE), 0).get_input_embeddings().padding_idx is None


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"Width 30 was asked for with 4 heads; .*a multiple of 8"):
        fuxi(61, layers=1, width=30, mlp=8, heads=4, context=8)
    with pytest.raises(ConfigError, match="4 heads cannot share 3 key/value heads; give a divisor of 4"):
        llama(61, layers=1, width=32, mlp=8, heads=4, kv_heads=3, context=8)
