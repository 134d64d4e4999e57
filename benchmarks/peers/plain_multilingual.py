"""Sizes and the model of the multilingual study's benchmarks, what it is trained on, and a plain training loop.

The model is the laptop recipe's (`training/build/presets/laptop.toml`), FuxiTranyu's block as transformers has it, with
random weights; so are rows, batches and clipping. Training rows are drawn from a Zipf law, so that there is something
to learn.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ArceeConfig, ArceeForCausalLM

from benchmarks import workload
from benchmarks.workload import Work

__all__ = [
    "FULL",
    "KINDS",
    "NO_TARGET",
    "TINY",
    "MicroBatch",
    "Shape",
    "Trained",
    "Training",
    "config",
    "model",
    "shape",
    "trained",
    "training",
]

KINDS = ("whole rows", "packed documents")
DOCUMENT = 60  # tokens of a packed document, on average
NO_TARGET = -100  # no target, as F.cross_entropy has it


@dataclass(frozen=True)
class Shape:
    """Sizes of everything; the training's are the laptop recipe's.

    Attributes:
        layers, width, mlp, heads, vocabulary: of the model.
        seq, rows, parts: tokens of a row, rows of a batch, batches of an update.
        updates: of one training run on a CPU; a GPU takes `more` times as many.
        bf16: multiply in bfloat16.
        sentences, longest: parallel sentences in each language, and most tokens of one.
        documents, planted: for MinHash, and how many of them have a near-duplicate besides.
        filtered, deduplicated: documents of a corpus, of which four times as many are to take no more memory.
    """

    layers: int
    width: int
    mlp: int
    heads: int
    vocabulary: int
    seq: int
    rows: int
    parts: int
    updates: int
    more: int
    bf16: bool
    sentences: int
    longest: int
    documents: int
    planted: int
    filtered: int
    deduplicated: int


FULL = Shape(7, 160, 640, 5, 8192, 256, 16, 2, 3, 20, True, 10, 64, 5000, 1000, 10_000, 70_000)
TINY = Shape(2, 32, 64, 2, 256, 24, 4, 2, 3, 1, False, 6, 24, 300, 100, 100, 200)


def shape(work: Work) -> Shape:
    """Return the sizes that go with the shared work's."""
    return FULL if work.size == workload.FULL else TINY


def config(sizes: Shape) -> ArceeConfig:
    """Return the model's: biases everywhere, an ungated GELU, RMSNorm, rotary positions, an untied head."""
    return ArceeConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.seq,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        hidden_act="gelu",
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
        use_cache=False,
    )


def model(work: Work) -> ArceeForCausalLM:
    """Return the model with its first weights."""
    torch.manual_seed(0)
    return ArceeForCausalLM(config(shape(work))).to(work.device)


# -- training


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Rows of one forward pass, on the CPU.

    Attributes:
        ids: tokens, [rows, seq].
        wanted: the token to predict at each place, or -100, [rows, seq].
        documents: which document each token is of, [rows, seq]; None where each row is one text.
        positions: each token's place in its document, [rows, seq]; None where each row is one text.
    """

    ids: Tensor
    wanted: Tensor
    documents: Tensor | None
    positions: Tensor | None


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained, on what, and how; AdamW as the laptop recipe sets it, at one rate.

    Attributes:
        model: with its first weights; train a copy (`fresh`).
        updates: the batches of each update.
        work: says the device, and has a scratch folder.
    """

    model: ArceeForCausalLM
    updates: Sequence[Sequence[MicroBatch]]
    work: Work
    rate: float = 3e-4
    decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0

    @property
    def sizes(self) -> Shape:
        """Sizes of everything."""
        return shape(self.work)

    @property
    def tokens(self) -> int:
        """Of the whole run."""
        return sum(part.ids.numel() for parts in self.updates for part in parts)

    def fresh(self) -> ArceeForCausalLM:
        """Return a copy to train."""
        return copy.deepcopy(self.model)


def training(work: Work, kind: str) -> Training:
    """Return a run of a kind: the same in every process.

    Args:
        work: says the device and the size.
        kind: one of `KINDS`.
    """
    sizes, draw = shape(work), torch.Generator().manual_seed(2)
    updates = sizes.updates * (sizes.more if work.device == "cuda" else 1)
    law = 1 / torch.arange(1.0, sizes.vocabulary + 1)
    size = (updates, sizes.parts, sizes.rows, sizes.seq)
    ids = torch.multinomial(law, torch.Size(size).numel(), replacement=True, generator=draw).view(size)
    begins = torch.rand(size, generator=draw) < 1 / DOCUMENT if kind == "packed documents" else None
    batches = [
        [_micro(ids[u, p], None if begins is None else begins[u, p]) for p in range(sizes.parts)]
        for u in range(updates)
    ]
    return Training(model(work), batches, work)


def _micro(ids: Tensor, begins: Tensor | None) -> MicroBatch:
    wanted = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], NO_TARGET)], 1)
    if begins is None:
        return MicroBatch(ids, wanted, None, None)
    begins = begins.clone()
    begins[:, 0] = True
    place = torch.arange(ids.shape[1]).expand_as(ids)
    positions = place - torch.where(begins, place, 0).cummax(1).values
    wanted[:, :-1][begins[:, 1:]] = NO_TARGET
    documents = begins.flatten().cumsum(0).view_as(ids) - 1
    return MicroBatch(ids, wanted, documents, positions)


class Trained(NamedTuple):
    """The loss of each update, [updates], and the seconds that all updates took, without set-up."""

    losses: Tensor
    seconds: float


def trained(task: Training) -> Trained:
    """Train a copy in a loop as it stands in any tutorial."""
    module, device = task.fresh().train(), task.work.device
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": task.decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=task.rate, betas=task.betas, eps=task.eps, fused=True)
    losses, begun = [], time.perf_counter()
    for parts in task.updates:
        count, total = sum(int((part.wanted != NO_TARGET).sum()) for part in parts), 0.0
        for part in parts:
            inputs = {"input_ids": part.ids.to(device)}
            if part.positions is not None:
                inputs["position_ids"] = part.positions.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=task.sizes.bf16):
                logits = module(**inputs).logits
            wanted = part.wanted.to(device).flatten()
            loss = (
                F.cross_entropy(logits.float().flatten(0, 1), wanted, ignore_index=NO_TARGET, reduction="sum") / count
            )
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, task.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return Trained(torch.tensor(losses), time.perf_counter() - begun)
