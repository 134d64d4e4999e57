"""Architectures to train from scratch, each a config that plain transformers loads: `fuxi`, `llama`, `qwen`.

    fuxi     FuxiTranyu's block (arXiv 2408.06273, section 3.4): before each part RMSNorm, rotary positions, every head
             with keys and values of its own, biases in attention and MLP, an ungated MLP  x + down(gelu(up(norm(x)))),
             embeddings and output head untied. In transformers that block is called Arcee; its activation is a setting.
    llama    no biases, a gated MLP  x + down(silu(gate(norm(x))) * up(norm(x))), fewer key/value heads if asked
    qwen     Qwen3: as llama, and queries and keys are normalised within each head

What the paper leaves unsaid is ours: base of the rotary angles 10,000, weights drawn from a normal distribution of
standard deviation 0.02, epsilon of the norms 1e-5, no dropout. Dense models only; the recipe of the zoo's small Llamas
is in `recipe.py`.
"""

import torch
from transformers import (
    ArceeConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from microtome.core.errors import ConfigError

__all__ = ["fuxi", "fuxitranyu_8b", "initialised", "llama", "parameter_count", "qwen"]

_THETA, _SPREAD, _EPSILON = 10_000.0, 0.02, 1e-5


def fuxi(
    vocabulary: int,
    *,
    layers: int,
    width: int,
    mlp: int,
    heads: int,
    context: int,
    theta: float = _THETA,
    spread: float = _SPREAD,
    bos: int | None = 0,
    eos: int | None = 1,
) -> ArceeConfig:
    """Return FuxiTranyu's architecture in a given size.

    Args:
        vocabulary: tokens, the unused ones included.
        layers: blocks.
        width: of the residual stream.
        mlp: neurons of a block.
        heads: of a block; they share the width among them.
        context: longest text, in tokens.
        theta: base of the rotary angles.
        spread: standard deviation of the initial weights.
        bos: id of the token that begins a text.
        eos: id of the token that ends it.

    Raises:
        ConfigError: the heads do not divide the width into even parts.
    """
    _refuse_uneven(width, heads, heads)
    common = _common(vocabulary, layers, width, mlp, heads, context, theta, spread, bos, eos)
    return ArceeConfig(**common, hidden_act="gelu", attention_bias=True, mlp_bias=True, tie_word_embeddings=False)


def fuxitranyu_8b() -> ArceeConfig:
    """Return the architecture of FuxiTranyu-8B (Table 4): 8.095 billion parameters.

    The vocabulary is 250,680 tokens and 72 that are never used, which make it a multiple of 128.
    """
    return fuxi(250_752, layers=30, width=4096, mlp=16_384, heads=32, context=4096)


def llama(
    vocabulary: int,
    *,
    layers: int,
    width: int,
    mlp: int,
    heads: int,
    context: int,
    kv_heads: int | None = None,
    tied: bool = False,
    theta: float = _THETA,
    spread: float = _SPREAD,
    bos: int | None = 0,
    eos: int | None = 1,
) -> LlamaConfig:
    """Return the stock Llama architecture in a given size.

    Args:
        vocabulary: tokens.
        layers: blocks.
        width: of the residual stream.
        mlp: neurons of a block.
        heads: of a block; they share the width among them.
        context: longest text, in tokens.
        kv_heads: heads of keys and values; as many as `heads` if None.
        tied: let the output head be the embedding.
        theta: base of the rotary angles.
        spread: standard deviation of the initial weights.
        bos: id of the token that begins a text.
        eos: id of the token that ends it.

    Raises:
        ConfigError: the heads do not divide the width into even parts, or the key/value heads not the heads.
    """
    _refuse_uneven(width, heads, kv_heads or heads)
    common = _common(vocabulary, layers, width, mlp, heads, context, theta, spread, bos, eos)
    return LlamaConfig(**common, num_key_value_heads=kv_heads or heads, tie_word_embeddings=tied)


def qwen(
    vocabulary: int,
    *,
    layers: int,
    width: int,
    mlp: int,
    heads: int,
    context: int,
    kv_heads: int | None = None,
    tied: bool = True,
    theta: float = 1_000_000.0,
    spread: float = _SPREAD,
    bos: int | None = 0,
    eos: int | None = 1,
) -> Qwen3Config:
    """Return the stock Qwen3 architecture in a given size.

    Args:
        vocabulary: tokens.
        layers: blocks.
        width: of the residual stream.
        mlp: neurons of a block.
        heads: of a block; they share the width among them.
        context: longest text, in tokens.
        kv_heads: heads of keys and values; as many as `heads` if None.
        tied: let the output head be the embedding, as in the small Qwen3 models.
        theta: base of the rotary angles.
        spread: standard deviation of the initial weights.
        bos: id of the token that begins a text.
        eos: id of the token that ends it.

    Raises:
        ConfigError: the heads do not divide the width into even parts, or the key/value heads not the heads.
    """
    _refuse_uneven(width, heads, kv_heads or heads)
    common = _common(vocabulary, layers, width, mlp, heads, context, theta, spread, bos, eos)
    return Qwen3Config(
        **common, num_key_value_heads=kv_heads or heads, head_dim=width // heads, tie_word_embeddings=tied
    )


def parameter_count(config: PreTrainedConfig) -> int:
    """Return how many parameters the causal language model of a config has; no memory is taken for them.

    Args:
        config: of any causal language model that transformers knows.
    """
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in module.parameters())


def initialised(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Return a causal language model with the random weights of a seed, in float32.

    Args:
        config: of any causal language model that transformers knows.
        seed: of the weights; the caller's generators are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _common(
    vocabulary: int,
    layers: int,
    width: int,
    mlp: int,
    heads: int,
    context: int,
    theta: float,
    spread: float,
    bos: int | None,
    eos: int | None,
) -> dict:
    """Return what the configs of all three call alike."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "initializer_range": spread,
        "rms_norm_eps": _EPSILON,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": None,  # a padding token's embedding would never be trained, and packed rows have no padding
    }


def _refuse_uneven(width: int, heads: int, kv_heads: int) -> None:
    if heads < 1 or width % (2 * heads):
        raise ConfigError(
            f"Width {width} was asked for with {heads} heads; rotary positions need an even number of dimensions a "
            f"head: make the width a multiple of {2 * max(heads, 1)}."
        )
    if kv_heads < 1 or heads % kv_heads:
        raise ConfigError(f"{heads} heads cannot share {kv_heads} key/value heads; give a divisor of {heads}.")
