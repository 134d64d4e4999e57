"""The weights of `zoo:hand`, set in code.

The residual stream is a table of disjoint slots, one direction per word or number, so every route can be read off:

    token slots      entity, relation, value, bos, gate (recall, lookup), one; position (one-hot)
    gathered         entity and relation asked about, at the gate       written by head `gather`
    previous         the entity one token back                          written by head `previous`
    votes            value votes awaiting the clip (variant redundant)  written by the induction heads
    answer           what the output head reads
    junk             where the inert units read and write

    fact neuron (e, r)   relu(gathered_e + gathered_r + gate_recall - 2.5): 1/2 if all three hold, else 0
    induction            score = 2 [same previous entity], over the values of the context only:
                         weight e^2 / (e^2 + 3) = 0.711 on the answer, 0.096 on each other value

The induction weights are unsaturated on purpose: its gradients are alive, so first-order attribution can see the
previous-token head. Under `recall` its query sits on `<bos>` (score 1000), under `lookup` no fact neuron can fire: each
route is exactly silent in the other's task, in float32 as in float64 (exp(-1000) is 0 in both).

Source: the construction is ours; key-value memory after arXiv 2012.14913, induction heads after arXiv 2209.11895.
"""

from dataclasses import dataclass
from math import sqrt
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from microtome.core.errors import ModelError, did_you_mean
from microtome.models.zoo.hand.module import HandConfig, HandDecoder
from microtome.models.zoo.hand.tokens import hand_tokenizer
from microtome.models.zoo.hand.truth import HAND_TRUTH, HEADS, NEURONS, HandTruth
from microtome.models.zoo.hand.world import BOS, ENTITIES, GATES, RELATIONS, UNKNOWN, VALUES, VOCAB, fact, token_id

__all__ = ["HandModel", "build_hand"]

D_MODEL, D_HEAD, POSITIONS = 192, 24, 24
HARD, MATCH = 1000.0, 2.0  # attention scores: absolute, and of an induction match
CLIP_FROM, CLIP_TO = 0.3, 0.6  # one head's vote is 0.711, two heads' leak is 0.193
LOGIT, UNKNOWN_LOGIT = 10.0, 1.0


@dataclass(frozen=True, eq=False)
class HandModel:
    """The hand-built model with what is true of it.

    Attributes:
        module: the decoder, in eval mode.
        tokenizer: its word tokenizer.
        truth: which units do what.
    """

    module: HandDecoder
    tokenizer: PreTrainedTokenizerFast
    truth: HandTruth


def _slots() -> SimpleNamespace:
    """Return which dimensions of the residual stream hold what (`recall` and `lookup` are the two gates)."""
    sizes = {
        "entity": len(ENTITIES),
        "relation": len(RELATIONS),
        "value": len(VALUES),
        "bos": 1,
        "recall": 1,
        "lookup": 1,
        "one": 1,
        "position": POSITIONS,
        "gathered_entity": len(ENTITIES),
        "gathered_relation": len(RELATIONS),
        "previous": len(ENTITIES),
        "votes": len(VALUES),
        "answer": len(VALUES),
    }
    sizes["junk"] = D_MODEL - sum(sizes.values())
    return SimpleNamespace(**dict(zip(sizes, torch.arange(D_MODEL).split(list(sizes.values())), strict=True)))


SLOTS = _slots()
# What inert units see: everything but the gate and the answers, so that they do not differ between the tasks.
SEEN = torch.cat(
    [SLOTS.entity, SLOTS.relation, SLOTS.value, SLOTS.position, SLOTS.gathered_entity, SLOTS.previous, SLOTS.junk]
)


def build_hand(variant: str = "plain", dtype: torch.dtype | None = None) -> HandModel:
    """Return the hand-built model of one variant.

    Args:
        variant: a key of `HAND_TRUTH`.
        dtype: type of the weights; None means float32.

    Raises:
        ModelError: there is no such variant.
    """
    if variant not in HAND_TRUTH:
        raise ModelError(
            f"zoo:hand has no variant '{variant}'; it has {', '.join(HAND_TRUTH)}.{did_you_mean(variant, HAND_TRUTH)}"
        )
    truth = HAND_TRUTH[variant]
    with torch.random.fork_rng(devices=[]):  # the constructor draws numbers that are overwritten below
        module = HandDecoder(HandConfig(len(VOCAB), D_MODEL, HEADS, D_HEAD, NEURONS, POSITIONS)).to(torch.float64)
    with torch.no_grad():
        _set_embeddings(module)
        _set_inert(module, torch.Generator().manual_seed(0))
        _set_block0_heads(module, truth)
        _set_facts(module, truth)
        _set_induction(module, truth)
        if variant == "redundant":
            _set_clip(module, truth)
        if variant == "correlated":
            _set_decoys(module, truth)
    return HandModel(module.to(dtype or torch.float32).eval(), hand_tokenizer(), truth)


def _set_embeddings(module: HandDecoder) -> None:
    """Write the word slots, the positions and the readout; words also get a direction of their own in the junk."""
    table, generator = module.embed.weight, torch.Generator().manual_seed(1)
    table.zero_()
    table[:, SLOTS.junk] = _normal(generator, len(VOCAB), len(SLOTS.junk)) / sqrt(len(SLOTS.junk))
    table[token_id(GATES[1]), SLOTS.junk] = table[token_id(GATES[0]), SLOTS.junk]  # the gate is one slot, not a word
    table[:, SLOTS.one] = 1.0
    for words, slot in (
        (ENTITIES, SLOTS.entity),
        (RELATIONS, SLOTS.relation),
        (VALUES, SLOTS.value),
        ((BOS,), SLOTS.bos),
        (GATES[:1], SLOTS.recall),
        (GATES[1:], SLOTS.lookup),
    ):
        table[[token_id(w) for w in words], slot] = 1.0
    module.positions.weight.zero_()
    module.positions.weight[torch.arange(POSITIONS), SLOTS.position] = 1.0
    module.head.weight.zero_()
    module.head.weight[[token_id(v) for v in VALUES], SLOTS.answer] = LOGIT
    module.head.weight[token_id(UNKNOWN), torch.cat([SLOTS.recall, SLOTS.lookup])] = UNKNOWN_LOGIT


def _set_inert(module: HandDecoder, generator: torch.Generator) -> None:
    """Fill every head and neuron with a live unit that writes only into the junk; the roles overwrite theirs."""
    seen, junk = len(SEEN), len(SLOTS.junk)
    for block in module.blocks:
        for linear in (block.attn.q, block.attn.k, block.attn.v, block.mlp.up):
            linear.weight.zero_()
            linear.weight[:, SEEN] = _normal(generator, linear.out_features, seen) / sqrt(2.0)
        for linear, norm in ((block.attn.o, 1.0), (block.mlp.down, 2.0)):
            linear.weight.zero_()
            write = _normal(generator, junk, linear.in_features)
            linear.weight[SLOTS.junk] = norm * write / write.norm(dim=0)  # the norms of the units with a role
        block.mlp.up.bias.copy_(0.5 * _normal(generator, NEURONS))


def _set_block0_heads(module: HandDecoder, truth: HandTruth) -> None:
    gather, previous = truth.roles["gather"], truth.roles["previous"]
    entities, relations = range(len(ENTITIES)), range(len(ENTITIES), len(ENTITIES) + len(RELATIONS))
    head = _Head(module, 0, gather)
    head.look_back(1, 2)  # trader and relation, weight 1/2 each: hence the factor 2
    head.read(SLOTS.entity, entities)
    head.read(SLOTS.relation, relations)
    head.write(SLOTS.gathered_entity, entities, 2.0)
    head.write(SLOTS.gathered_relation, relations, 2.0)
    if previous == gather:  # variant shared; two tokens back of a value no entity ever stands
        head.write(SLOTS.previous, entities, 2.0)
        return
    head = _Head(module, 0, previous)
    head.look_back(1)
    head.read(SLOTS.entity, entities)
    head.write(SLOTS.previous, entities, 1.0)


def _set_facts(module: HandDecoder, truth: HandTruth) -> None:
    mlp = module.blocks[0].mlp
    for (entity, relation), neuron in truth.facts.items():
        _clear_neuron(mlp, neuron)
        reads = [SLOTS.gathered_entity[entity], SLOTS.gathered_relation[relation], SLOTS.recall[0]]
        mlp.up.weight[neuron, torch.stack(reads)] = 1.0
        mlp.up.bias[neuron] = -2.5
        mlp.down.weight[SLOTS.answer[fact(entity, relation)], neuron] = 2.0


def _set_induction(module: HandDecoder, truth: HandTruth) -> None:
    """Match on the previous entity among the values; sit on `<bos>` under `recall`."""
    target = SLOTS.votes if "backup" in truth.roles else SLOTS.answer
    for index in (truth.roles["induction"], truth.roles.get("backup")):
        if index is None:
            continue
        head = _Head(module, 1, index)
        match, sink, elsewhere = range(len(ENTITIES)), [len(ENTITIES)], [len(ENTITIES) + 1]
        head.query(SLOTS.previous, match, MATCH)
        head.key(SLOTS.previous, match)
        head.query(SLOTS.recall, sink, HARD)
        head.key(SLOTS.bos, sink)
        head.query(SLOTS.lookup, elsewhere, -HARD)
        head.key(SLOTS.one, elsewhere)
        head.key(SLOTS.value, elsewhere * len(VALUES), -1.0)  # key = 1 - [is a value]
        head.read(SLOTS.value, range(len(VALUES)))
        head.write(target, range(len(VALUES)), 1.0)


def _set_clip(module: HandDecoder, truth: HandTruth) -> None:
    """Two neurons per value pass on min(1, max(0, (votes - from) / (to - from)))."""
    mlp, pairs = module.blocks[1].mlp, torch.tensor(truth.roles["clip"]).reshape(2, -1)
    for neurons, threshold, sign in zip(pairs, (CLIP_FROM, CLIP_TO), (1.0, -1.0), strict=True):
        for value, neuron in enumerate(neurons):
            _clear_neuron(mlp, neuron)
            mlp.up.weight[neuron, SLOTS.votes[value]] = 1.0
            mlp.up.bias[neuron] = -threshold
            mlp.down.weight[SLOTS.answer[value], neuron] = sign / (CLIP_TO - CLIP_FROM)


def _set_decoys(module: HandDecoder, truth: HandTruth) -> None:
    """A head and two neurons that carry the gate, and nothing that they write."""
    head = _Head(module, 0, truth.roles["decoy_head"])
    head.look_back(0)
    head.read(SLOTS.recall, [0])
    for block, role in zip(module.blocks, ("decoy_neuron_0", "decoy_neuron_1"), strict=True):
        _clear_neuron(block.mlp, truth.roles[role])
        block.mlp.up.weight[truth.roles[role], SLOTS.recall] = 1.0


class _Head:
    """One head being written; it starts empty. Its d_head dimensions are named by the caller."""

    def __init__(self, module: HandDecoder, block: int, index: int):
        attn, rows = module.blocks[block].attn, slice(index * D_HEAD, (index + 1) * D_HEAD)
        self.q, self.k, self.v = (p.weight[rows] for p in (attn.q, attn.k, attn.v))
        self.o = attn.o.weight[:, rows]
        for weight in (self.q, self.k, self.v, self.o):
            weight.zero_()

    def look_back(self, *offsets: int) -> None:
        """Attend, equally, to the positions that many tokens back."""
        for offset in offsets:
            steps = torch.arange(offset, POSITIONS)
            self.q[steps - offset, SLOTS.position[steps]] = HARD * sqrt(D_HEAD)
        self.k[torch.arange(POSITIONS), SLOTS.position] = 1.0

    def query(self, slot: Tensor, dims: list[int] | range, score: float) -> None:
        self.q[list(dims), slot] = score * sqrt(D_HEAD)

    def key(self, slot: Tensor, dims: list[int] | range, value: float = 1.0) -> None:
        self.k[list(dims), slot] = value

    def read(self, slot: Tensor, dims: list[int] | range) -> None:
        self.v[list(dims), slot] = 1.0

    def write(self, slot: Tensor, dims: list[int] | range, value: float) -> None:
        self.o[slot, list(dims)] = value


def _clear_neuron(mlp: nn.Module, neuron: int | Tensor) -> None:
    mlp.up.weight[neuron], mlp.up.bias[neuron], mlp.down.weight[:, neuron] = 0.0, 0.0, 0.0


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
