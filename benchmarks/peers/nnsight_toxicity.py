"""nnsight: the head's input changed at every step of one traced generation."""

import torch
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import POSITIONS, Work

__all__ = ["edit_overhead"]


def edit_overhead(work: Work, axes: Tensor) -> list[Candidate]:
    """One `generate` with a loop over its steps."""
    tokenizer = unused_tokenizer(work.model.config.vocab_size, work.scratch)
    lens = TransformersModel(work.copied_model(), task="text-generation", tokenizer=tokenizer)
    return [Candidate("nnsight", "eigenshift", lambda: _spoken(lens, work.clean, axes, work.size.new))]


def _spoken(lens: TransformersModel, ids: Tensor, axes: Tensor, new: int) -> Tensor:
    with torch.no_grad(), lens.generate(ids, max_new_tokens=new) as tracer:
        for _ in tracer.iter[:new]:
            x = lens.lm_head.input
            lens.lm_head.input = x - (x @ axes) @ axes.T
        out = tracer.result.save()
    return out[:, POSITIONS:]
