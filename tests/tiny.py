"""Tiny random models of every supported family, built from their configs: seconds on a CPU, no download."""

import torch
import transformers as tf

TEXT = dict(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
GATED = dict(
    TEXT,
    intermediate_size=48,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
GEMMA = dict(GATED, head_dim=8, query_pre_attn_scalar=8)


def _configs():
    return {
        "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64)),
        "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(**GATED)),
        "llama-tied": (tf.LlamaForCausalLM, tf.LlamaConfig(**GATED, tie_word_embeddings=True)),
        "mistral": (tf.MistralForCausalLM, tf.MistralConfig(**GATED, sliding_window=4)),
        "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(**GATED)),
        "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config(**GATED, head_dim=8)),
        "gemma2": (tf.Gemma2ForCausalLM, tf.Gemma2Config(**GEMMA, sliding_window=4)),
        "gemma3": (tf.Gemma3ForCausalLM, tf.Gemma3TextConfig(**GEMMA, sliding_window=4)),
        "phi3": (tf.Phi3ForCausalLM, tf.Phi3Config(**GATED)),
        "neox": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig(**TEXT, intermediate_size=48, max_position_embeddings=64)),
        "neox-sequential": (
            tf.GPTNeoXForCausalLM,
            tf.GPTNeoXConfig(**TEXT, intermediate_size=48, max_position_embeddings=64, use_parallel_residual=False),
        ),
        "opt": (
            tf.OPTForCausalLM,
            tf.OPTConfig(**TEXT, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=0),
        ),
        "bloom": (tf.BloomForCausalLM, tf.BloomConfig(vocab_size=61, hidden_size=32, n_layer=3, n_head=4)),
        "falcon": (tf.FalconForCausalLM, tf.FalconConfig(**TEXT, max_position_embeddings=64, alibi=False)),
        "mixtral": (tf.MixtralForCausalLM, tf.MixtralConfig(**GATED, num_local_experts=4)),
        "qwen2-moe": (
            tf.Qwen2MoeForCausalLM,
            tf.Qwen2MoeConfig(
                **GATED,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=24,
                shared_expert_intermediate_size=24,
            ),
        ),
        "bert": (tf.BertForMaskedLM, tf.BertConfig(**TEXT, intermediate_size=48, max_position_embeddings=64)),
        "vit": (
            tf.ViTForImageClassification,
            tf.ViTConfig(
                hidden_size=32,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=48,
                image_size=16,
                patch_size=8,
            ),
        ),
        "resnet": (
            tf.ResNetForImageClassification,
            tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"),
        ),
    }


FAMILIES = tuple(_configs())
DECODERS = tuple(n for n in FAMILIES if n not in ("bert", "vit", "resnet"))
MOE = ("mixtral", "qwen2-moe")


def build(family: str, *, dtype=torch.float64, attn: str | None = None, seed: int = 0):
    """Return the random module of one family, in eval mode, with weights large enough to matter."""
    cls, config = _configs()[family]
    torch.manual_seed(seed)
    if attn is not None:
        config._attn_implementation = attn
    if family in MOE:
        config._experts_implementation = "eager"  # the grouped kernels take no float64
    module = cls(config).to(dtype).eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim >= 2:
                p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
            else:
                p.add_(0.1 * torch.randn_like(p))
    return module
