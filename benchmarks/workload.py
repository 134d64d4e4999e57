"""The model and the inputs that every benchmark and every peer shares.

A Llama of 35.7 M parameters (hidden 512, 8 blocks, 8 heads, intermediate 1536, vocabulary 8192), random weights from
seed 0, float32. Two inputs: 64 x 128 tokens in batches of 16 for capture; 16 prompt pairs of 16 tokens for patching,
where clean and corrupt differ in the one token at position 2. The tiny size keeps the grids and shrinks the widths: it
is there to check every tool's numbers in seconds.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.machine import THREADS

__all__ = ["BLOCKS", "FULL", "HEADS", "PAIRS", "POSITIONS", "TINY", "Size", "Work", "make_work"]

BLOCKS, HEADS = 8, 8
PAIRS, POSITIONS, CHANGED = 16, 16, 2
BATCHES, BATCH = 4, 16


@dataclass(frozen=True)
class Size:
    """What differs between the measured size and the one for checks alone."""

    hidden: int
    neurons: int
    vocabulary: int
    length: int  # of the capture texts
    screened: int  # neurons of a screening
    texts: int  # of a screening
    words: int  # a vocabulary as large as a real model's, where the head matters
    new: int  # tokens generated


FULL = Size(512, 1536, 8192, 128, 10_000, 10_000, 32_000, 64)
TINY = Size(64, 192, 512, 24, 96, 600, 2048, 8)


@dataclass(frozen=True, eq=False)
class Work:
    """What an adapter is given.

    Attributes:
        model: the HF model, frozen, in evaluation mode, on `device`.
        device: "cpu" or "cuda".
        scratch: an empty folder for saved models and streamed activations.
        batches: the capture inputs, 4 x [16, 128].
        clean, corrupt: token ids of the prompt pairs, [16, 16].
        right, wrong: the two answers of each pair, [16].
        size: the measured one, or the tiny one.
    """

    model: LlamaForCausalLM
    device: str
    scratch: Path
    batches: list[Tensor]
    clean: Tensor
    corrupt: Tensor
    right: Tensor
    wrong: Tensor
    size: Size

    def copied_model(self) -> LlamaForCausalLM:
        """Return a copy for a tool to wrap: some replace modules or leave hooks, and the reference must stay bare."""
        return copy.deepcopy(self.model)

    @property
    def layers(self) -> list:
        """The decoder layers."""
        return list(self.model.model.layers)

    def difference(self, logits: Tensor) -> Tensor:
        """Return the logit difference at the last position, [n], for logits [n, seq, vocab]; n is PAIRS or a multiple.

        Rows repeat the pairs in order when several perturbations are stacked in one batch.
        """
        times = logits.shape[0] // PAIRS
        last = logits[:, -1]
        rows = torch.arange(last.shape[0], device=last.device)
        return last[rows, self.right.repeat(times)] - last[rows, self.wrong.repeat(times)]


def make_work(device: str, scratch: Path, size: Size = FULL) -> Work:
    """Return the shared model and inputs; the same numbers in every process and every environment."""
    if device == "cpu":
        torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    draw, vocabulary = torch.Generator().manual_seed(1), size.vocabulary
    texts = torch.randint(vocabulary, (BATCHES * BATCH, size.length), generator=draw)
    clean = torch.randint(vocabulary, (PAIRS, POSITIONS), generator=draw)
    corrupt = clean.clone()
    corrupt[:, CHANGED] += torch.randint(1, vocabulary, (PAIRS,), generator=draw)
    corrupt %= vocabulary
    answers = torch.randint(vocabulary, (2, PAIRS), generator=draw)
    batches = [b.to(device) for b in texts.split(BATCH)]
    inputs = (t.to(device) for t in (clean, corrupt, *answers))
    return Work(_model(size).to(device), device, scratch, batches, *inputs, size)


def _model(size: Size) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=size.hidden,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=size.neurons,
        vocab_size=size.vocabulary,
        max_position_embeddings=512,
        use_cache=False,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)
