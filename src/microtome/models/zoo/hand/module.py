"""The bare decoder of `zoo:hand`: token and position embeddings, pre-norm blocks (the norms are identities), a head.

Each block is x = x + attn(norm1(x)); x = x + mlp(norm2(x)) with scaled dot-product attention and a ReLU MLP. It is an
ordinary `torch.nn.Module` with no knowledge of what its weights mean (`weights.py` sets them).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from microtome.core.errors import DataError

__all__ = ["HandConfig", "HandDecoder"]


@dataclass(frozen=True)
class HandConfig:
    """Sizes of a `HandDecoder`, under the names that transformers configs use."""

    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int
    num_hidden_layers: int = 2

    @property
    def num_key_value_heads(self) -> int:
        """Every query head has its own key and value head."""
        return self.num_attention_heads


class HandAttention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.num_attention_heads * config.head_dim
        self.q, self.k, self.v = (nn.Linear(config.hidden_size, width, bias=False) for _ in range(3))
        self.o = nn.Linear(width, config.hidden_size, bias=False)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], mask: Bool[Tensor, "batch 1 query key"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Return what attention writes; `mask` is True where a query may look."""
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(z.transpose(1, 2).flatten(2))


class HandMLP(nn.Module):
    """Up projection, ReLU, down projection."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = nn.ReLU()
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Return what the neurons write."""
        return self.down(self.act(self.up(x)))


class HandBlock(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()
        self.attn, self.mlp = HandAttention(config), HandMLP(config)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], mask: Bool[Tensor, "batch 1 query key"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Return the residual stream after the block."""
        x = x + self.attn(self.norm1(x), mask)
        x = x + self.mlp(self.norm2(x))
        return x


class HandDecoder(nn.Module):
    """A decoder-only transformer with learned positions; logits for every position."""

    def __init__(self, config: HandConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(HandBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Identity()
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
    ) -> CausalLMOutput:
        """Return the logits.

        Args:
            input_ids: token ids.
            attention_mask: non-zero at real tokens; None means all are.
            position_ids: position of each token; None counts the real tokens before it.

        Raises:
            DataError: the sequence is longer than the table of positions.
        """
        seq, longest = input_ids.shape[1], self.config.max_position_embeddings
        if seq > longest and position_ids is None:
            raise DataError(f"zoo:hand takes at most {longest} tokens, found {seq}; shorten the prompt.")
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if position_ids is None:
            position_ids = (real.cumsum(1) - 1).clamp(min=0)
        x = self.embed(input_ids) + self.positions(position_ids)
        mask = _causal_mask(real.bool())
        for block in self.blocks:
            x = block(x, mask)
        return CausalLMOutput(logits=self.head(self.norm(x)))


def _causal_mask(real: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch 1 query key"]:
    """Allow earlier real tokens, and always oneself (a padding row with no key at all would be NaN)."""
    seq = real.shape[1]
    square = torch.ones(seq, seq, dtype=torch.bool, device=real.device)
    itself = torch.eye(seq, dtype=torch.bool, device=real.device)
    return (square.tril() & real[:, None, None, :]) | itself
