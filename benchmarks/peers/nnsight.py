"""nnsight: traces on the wrapped HF model.

Module names are HF's. The code of a `with` block must stand in a file; values are saved by hand. Inside a trace the
order of access must be the order of the forward pass.
"""

import torch
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor

from benchmarks.candidates import Candidate, Grid
from benchmarks.peers.plain import joined
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work

__all__ = ["attribution", "capture", "head_sweep", "residual_sweep"]


def _wrapped(work: Work) -> TransformersModel:
    tokenizer = unused_tokenizer(work.model.config.vocab_size, work.scratch)
    return TransformersModel(work.copied_model(), task="text-generation", tokenizer=tokenizer)


def capture(work: Work) -> list[Candidate]:
    """One trace a batch with 16 reads; stopped after the last layer where no logits are asked for."""
    lens = _wrapped(work)

    def whole() -> list[dict[str, Tensor]]:
        return [_read(lens, ids) for ids in work.batches]

    def stopped() -> list[dict[str, Tensor]]:
        return [_read_and_stop(lens, ids) for ids in work.batches]

    return [
        Candidate("nnsight", "memory", whole, joined),
        Candidate("nnsight", "memory, no logits", stopped, joined, note="tracer.stop() after the last layer"),
    ]


def _read(lens: TransformersModel, ids: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    with torch.no_grad(), lens.trace(ids):
        for i in range(BLOCKS):
            kept[f"neurons.{i}"] = lens.model.layers[i].mlp.down_proj.input.save()
            kept[f"resid.{i}"] = lens.model.layers[i].output.save()
    return kept


def _read_and_stop(lens: TransformersModel, ids: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    with torch.no_grad(), lens.trace(ids) as tracer:
        for i in range(BLOCKS):
            kept[f"neurons.{i}"] = lens.model.layers[i].mlp.down_proj.input.save()
            kept[f"resid.{i}"] = lens.model.layers[i].output.save()
        tracer.stop()
    return kept


def residual_sweep(work: Work) -> list[Grid]:
    """One trace a cell, or the 16 cells of a layer as invokes of one trace."""
    lens = _wrapped(work)

    def prepare() -> list[Tensor]:
        clean: list[Tensor] = []
        with torch.no_grad(), lens.trace(work.clean):
            for i in range(BLOCKS):
                clean.append(lens.model.layers[i].input.save())
        return clean

    def single(clean: list[Tensor], layer: int) -> Tensor:
        effects: list[Tensor] = []
        for p in range(POSITIONS):
            with torch.no_grad(), lens.trace(work.corrupt):
                lens.model.layers[layer].input[:, p] = clean[layer][:, p]
                effects.append(work.difference(lens.lm_head.output).save())
        return torch.stack(effects)

    def batched(clean: list[Tensor], layer: int) -> Tensor:
        effects: list[Tensor] = []
        with torch.no_grad(), lens.trace() as tracer:
            for p in range(POSITIONS):
                with tracer.invoke(work.corrupt):
                    lens.model.layers[layer].input[:, p] = clean[layer][:, p]
                    effects.append(work.difference(lens.lm_head.output).save())
        return torch.stack(effects)

    return [
        Grid("nnsight, one trace a cell", prepare, single),
        Grid("nnsight, 16 invokes batched", prepare, batched),
    ]


def head_sweep(work: Work) -> list[Grid]:
    """One trace a cell, or the 8 heads of a layer as invokes of one trace."""
    lens = _wrapped(work)
    width = work.model.config.hidden_size // HEADS
    parts = [slice(h * width, (h + 1) * width) for h in range(HEADS)]

    def prepare() -> list[Tensor]:
        clean: list[Tensor] = []
        with torch.no_grad(), lens.trace(work.clean):
            for i in range(BLOCKS):
                clean.append(lens.model.layers[i].self_attn.o_proj.input.save())
        return clean

    def single(clean: list[Tensor], layer: int) -> Tensor:
        effects: list[Tensor] = []
        for part in parts:
            with torch.no_grad(), lens.trace(work.corrupt):
                lens.model.layers[layer].self_attn.o_proj.input[..., part] = clean[layer][..., part]
                effects.append(work.difference(lens.lm_head.output).save())
        return torch.stack(effects)

    def batched(clean: list[Tensor], layer: int) -> Tensor:
        effects: list[Tensor] = []
        with torch.no_grad(), lens.trace() as tracer:
            for part in parts:
                with tracer.invoke(work.corrupt):
                    lens.model.layers[layer].self_attn.o_proj.input[..., part] = clean[layer][..., part]
                    effects.append(work.difference(lens.lm_head.output).save())
        return torch.stack(effects)

    return [
        Grid("nnsight, one trace a cell", prepare, single),
        Grid("nnsight, 8 invokes batched", prepare, batched),
    ]


def attribution(work: Work) -> list[Candidate]:
    """Clean neurons from one trace, corrupt neurons and their gradients from another."""
    lens = _wrapped(work)

    def run() -> dict[str, Tensor]:
        clean: list[Tensor] = []
        with torch.no_grad(), lens.trace(work.clean):
            for i in range(BLOCKS):
                clean.append(lens.model.layers[i].mlp.down_proj.input.save())
        corrupt: list[Tensor] = []
        with torch.enable_grad(), lens.trace(work.corrupt):
            for i in range(BLOCKS):
                if i == 0:
                    lens.model.layers[0].mlp.down_proj.input = lens.model.layers[0].mlp.down_proj.input.requires_grad_()
                corrupt.append(lens.model.layers[i].mlp.down_proj.input.save())
            score = work.difference(lens.lm_head.output).sum().save()
        slopes = torch.autograd.grad(score, corrupt)
        return {f"neurons.{i}": slopes[i] * (clean[i] - corrupt[i].detach()) for i in range(BLOCKS)}

    return [Candidate("nnsight", "each position", run)]
