"""The weights of `zoo:planted`: a lookup, one head that gathers, and a readout.

    embedding   entity: h = Q [codes | noise]; word of an attribute: its gate, one of the noise's axes; other tokens: 0
    block 0     nothing
    block 1     one head looks at all tokens alike (its queries and keys are 0) and passes on what they hold
    head        value v of attribute a: SHARPNESS * <its code, h> + GATE where a was asked for

A prompt of T tokens is gathered with weight 1/T each, so the sharpness falls a little with the prompt's length; which
value is largest does not change. No axis of h is without variance: a fit could use such a one to shrink a swap at no
cost, since rotations that mix it in write into nothing. The gates are so long that the noise on their axes opens none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AddedToken, PreTrainedTokenizerFast

from microtome.data.ravel import EntityTable, fill
from microtome.models.zoo.hand.module import HandConfig, HandDecoder
from microtome.models.zoo.planted.world import VALUES

__all__ = ["WIDTH", "PlantedModel", "PlantedTruth", "build_planted"]

WIDTH = 24
NOISE = 0.6  # standard deviation of each noise coordinate; a code has length 1
SHARPNESS, GATE = 6.0, 40.0
_TYPICAL = 7  # tokens of a prompt
_GATE_LENGTH = 8.0
_PAD, _BOS, _UNKNOWN = "<pad>", "<bos>", "<unk>"


@dataclass(frozen=True, eq=False)
class PlantedTruth:
    """Where what lies in h.

    Attributes:
        world: one of `WORLDS`.
        axes: attribute -> orthonormal axes of the block it is read from, [24, k].
        readouts: attribute -> what each of its values reads, [24, values].
    """

    world: str
    axes: dict[str, Float[Tensor, "d_model k"]]
    readouts: dict[str, Float[Tensor, "d_model values"]]


@dataclass(frozen=True, eq=False)
class PlantedModel:
    """A module with its tokenizer, the table it knows and the truth about it."""

    module: HandDecoder
    tokenizer: PreTrainedTokenizerFast
    table: EntityTable
    truth: PlantedTruth


def build_planted(world: str, table: EntityTable, dtype: torch.dtype | None, seed: int) -> PlantedModel:
    """Return the model of a world that knows a table of it (`planted_table`)."""
    tokenizer = _tokenizer(table)
    draw = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw, dtype=torch.float64)).Q
    truth, used = _truth(world, table, q)
    config = HandConfig(len(tokenizer), WIDTH, 1, WIDTH, 8, max_position_embeddings=64)
    module = HandDecoder(config).to(torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        noise = q[:, used:]
        gates = noise[:, : len(VALUES)]
        _set_entities(module.embed, tokenizer, table, truth, noise, draw)
        for a, gate in zip(VALUES, gates.T, strict=True):
            module.embed.weight[tokenizer.convert_tokens_to_ids(a)] = _GATE_LENGTH * gate
            ids = tokenizer.convert_tokens_to_ids(_values(table, a))
            module.head.weight[ids] = SHARPNESS * truth.readouts[a].T + GATE / _GATE_LENGTH * gate
        mover = module.blocks[1].attn
        mover.v.weight.copy_(torch.eye(WIDTH))
        mover.o.weight.copy_(_TYPICAL * torch.eye(WIDTH))
    return PlantedModel(module.to(dtype or torch.float32).eval(), tokenizer, table, truth)


def _truth(world: str, table: EntityTable, q: Tensor) -> tuple[PlantedTruth, int]:
    """Return the truth, and how many axes of Q the codes take."""
    axes, readouts, used = {}, {}, 0
    for name, n in VALUES.items():
        if world == "shared" and name == "shape":
            axes[name], readouts[name] = axes["color"], _shared_readout(table, readouts["color"])
            continue
        axes[name] = q[:, used : used + n - 1]
        readouts[name] = axes[name] @ _simplex(n).T
        used += n - 1
    return PlantedTruth(world, axes, readouts), used


def _shared_readout(table: EntityTable, colors: Tensor) -> Tensor:
    """Return for every shape the direction of the mean code of the colors that have it."""
    pairs = {(e.values["color"], e.values["shape"]) for e in table.entities}
    shape_of = dict(pairs)
    known = [[shape_of[c] == shape for c in _values(table, "color")] for shape in _values(table, "shape")]
    means = colors @ torch.tensor(known, dtype=colors.dtype).T
    return means / means.norm(dim=0)


def _simplex(n: int) -> Float[Tensor, "n k"]:
    """Return n unit vectors in n - 1 dimensions, as far from each other as can be."""
    corners = torch.eye(n, dtype=torch.float64) - 1 / n
    u, s, _ = torch.linalg.svd(corners)
    flat = u[:, : n - 1] * s[: n - 1]
    return flat / flat.norm(dim=1, keepdim=True)


def _set_entities(
    embed: nn.Embedding, tokenizer: PreTrainedTokenizerFast, table: EntityTable, truth: PlantedTruth, noise: Tensor,
    draw: torch.Generator,
) -> None:  # fmt: skip
    """Write h of every entity; a shared attribute adds nothing to the block it is read from."""
    own = [a for a in VALUES if not (truth.world == "shared" and a == "shape")]
    place = {a: {v: i for i, v in enumerate(_values(table, a))} for a in own}
    for entity in table.entities:
        h = sum(truth.readouts[a][:, place[a][entity.values[a]]] for a in own)
        h = h + NOISE * noise @ torch.randn(noise.shape[1], generator=draw, dtype=torch.float64)
        embed.weight[tokenizer.convert_tokens_to_ids(entity.name)] = h


def _values(table: EntityTable, attribute: str) -> list[str]:
    return sorted(set(table.column(attribute)))


def _tokenizer(table: EntityTable) -> PreTrainedTokenizerFast:
    """Return the word tokenizer of a table; a name is one token, with its space too; `<bos>` in front."""
    splitter, names = pre_tokenizers.Whitespace(), [e.name for e in table.entities]
    texts = [fill(t.text, "")[0] for t in (*table.templates, *table.wikipedia)]
    words = [word for text in texts for word, _ in splitter.pre_tokenize_str(text)]
    values = [v for a in VALUES for v in _values(table, a)]
    vocabulary = dict.fromkeys([_PAD, _BOS, _UNKNOWN, *words, *values, *names])
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token=_UNKNOWN))
    core.pre_tokenizer = splitter
    core.post_processor = processors.TemplateProcessing(single=f"{_BOS} $A", special_tokens=[(_BOS, 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=_BOS,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in names])
    return tokenizer
