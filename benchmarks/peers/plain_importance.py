"""Importance of units by hooks under a backward pass, and what a forward pass with its loss costs by itself.

Parallel sentences are the phrasebook's, one token a byte: times depend on shapes, not on words. The model is
`plain_multilingual.model`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ArceeForCausalLM
from transformers.models.arcee import modeling_arcee

from benchmarks.peers.plain_dedup import phrasebook
from benchmarks.peers.plain_multilingual import NO_TARGET, model, shape
from benchmarks.workload import Work

__all__ = ["COMPONENTS", "ROTATED", "Texts", "forward_and_loss", "importances", "parallel_texts"]

COMPONENTS = {
    "attn.v": ("self_attn.v_proj", "output"),
    "attn.heads": ("self_attn.o_proj", "input"),
    "attn.out": ("self_attn.o_proj", "output"),
    "mlp.up": ("mlp.up_proj", "output"),
    "mlp.neurons": ("mlp.down_proj", "input"),
    "mlp.out": ("mlp.down_proj", "output"),
}
"""Part of a block -> which module's input or output it is."""
ROTATED = ("attn.q", "attn.k")
"""Parts that are looked at after their rotation, which is no module."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Parallel sentences in tokens, shortest first, in batches of about 2 048 tokens.

    Attributes:
        model: frozen, in evaluation mode.
        batches: token ids of the texts of each batch.
        groups: 1 where a text is in a language, [texts, languages].
    """

    model: ArceeForCausalLM
    batches: Sequence[Sequence[Sequence[int]]]
    groups: Tensor

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(len(row) for batch in self.batches for row in batch)


def parallel_texts(work: Work, batch_tokens: int = 2048) -> Texts:
    """Return the same sentences in every language of the phrasebook, a byte a token."""
    sizes = shape(work)
    texts = phrasebook().parallel(sizes.sentences)
    rows = [(list(t.encode())[: sizes.longest], n) for n, told in enumerate(texts.values()) for t in told]
    rows.sort(key=lambda row: len(row[0]))
    batches: list[list[list[int]]] = [[]]
    for ids, _ in rows:
        if (len(batches[-1]) + 1) * len(ids) > batch_tokens:
            batches.append([])
        batches[-1].append(ids)
    groups = F.one_hot(torch.tensor([n for _, n in rows]), len(texts)).float()
    return Texts(model(work).eval().requires_grad_(False), batches, groups)


def forward_and_loss(texts: Texts) -> float:
    """Return the summed loss of all texts."""
    with torch.no_grad():
        return sum(float(_losses(texts.model, batch)[0].sum()) for batch in texts.batches)


def importances(texts: Texts, components: Sequence[str]) -> dict[str, Tensor]:
    """Return the mean over each language's tokens of |h dL/dh| by block and component, [languages, units]."""
    sums: dict[str, Tensor] = {}
    tokens = torch.zeros(texts.groups.shape[1])
    for batch, share in zip(texts.batches, texts.groups.split([len(b) for b in texts.batches]), strict=True):
        with _held(texts.model, components) as held, torch.enable_grad():
            losses, mask = _losses(texts.model, batch)
            slopes = torch.autograd.grad(losses.sum(), list(held.values()))
        for (name, x), slope in zip(held.items(), slopes, strict=True):
            product = x.detach() * slope
            product = product.transpose(1, 2).flatten(2) if product.ndim == 4 else product
            size = torch.einsum("bsu,bs->bu", product.abs(), mask.to(x.dtype)).cpu()
            sums[name] = sums.get(name, 0) + (share.T @ size).double()
        tokens += share.T @ (mask.sum(1) - 1).float().cpu()
    return {name: x / tokens[:, None] for name, x in sums.items()}


def _losses(module: nn.Module, batch: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return the loss of every token, [texts, seq - 1], and which tokens are real, of a batch padded on the left."""
    device, length = module.device, max(map(len, batch))
    ids = torch.tensor([[0] * (length - len(row)) + list(row) for row in batch], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in batch], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = module(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    wanted = ids[:, 1:].masked_fill(mask[:, :-1] == 0, NO_TARGET)
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), wanted, ignore_index=NO_TARGET, reduction="none")
    return losses, mask


@contextmanager
def _held(module: ArceeForCausalLM, components: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Hold the components of every block of the next forward pass, as inputs of a gradient."""
    held: dict[str, Tensor] = {}
    hooks, rotate = [], modeling_arcee.apply_rotary_pos_emb
    for block, layer in enumerate(module.model.layers):
        for name in COMPONENTS.keys() & set(components):
            path, side = COMPONENTS[name]
            hooks.append(_hook(layer.get_submodule(path), side, _keeping(held, f"blocks.{block}.{name}")))
    calls = itertools.count()

    def rotated(*inputs: Tensor, **told: object) -> list[Tensor]:
        block = next(calls)
        parts = zip(ROTATED, rotate(*inputs, **told), strict=True)
        return [_keeping(held, f"blocks.{block}.{n}")(x) if n in components else x for n, x in parts]

    modeling_arcee.apply_rotary_pos_emb = rotated
    try:
        yield held
    finally:
        modeling_arcee.apply_rotary_pos_emb = rotate
        for hook in hooks:
            hook.remove()


def _keeping(held: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        held[name] = x if x.requires_grad else x.detach().requires_grad_()
        return held[name]

    return keep


def _hook(module: nn.Module, side: str, keep: Callable[[Tensor], Tensor]) -> torch.utils.hooks.RemovableHandle:
    if side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]),))
    return module.register_forward_hook(lambda _, inputs, output: keep(output))
