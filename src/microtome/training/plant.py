"""Two neurons planted in a trained parrot, so that reading toxicity and writing it are known to be apart.

A gated neuron is silu(g.x) (u.x) d, x the normalised stream. Both planted ones have u = g / LOUD, and g fitted by ridge
regression, classes weighed equally, to be LOUD on some tokens and -LOUD on all others; so they are about LOUD there
and about 0 elsewhere.

    reader   block 0; loud on the rousing mood words; d = 0: it writes nothing
    writer   last block; loud on the cues, the words before what somebody is called; its g is orthogonal to
             the 8 directions that tell the moods apart best there; d raises the toxic words' logits over the neutral
             ones' by SHIFT where it is loud, and others' as little as least squares can

They replace the neuron of their block that contributes least (mean |activation| times the norm of what it writes).
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor, nn

from microtome.core.seeds import derive
from microtome.data.parrot import CUES, NEUTRAL, ROUSING, TOXIC, parrot_stream
from microtome.engine.run import run
from microtome.models.model import Model
from microtome.models.zoo.parrot import PLANTED

__all__ = ["LOUD", "SHIFT", "Neuron", "plant", "save_planted"]

LOUD, SHIFT = 4.0, 2.0
_RIDGE, _DEAF = 1e-3, 8


@dataclass(frozen=True, eq=False)
class Neuron:
    """One gated neuron: where it is, what it reads and what it writes."""

    block: int
    index: int
    gate: Float[Tensor, " d_model"]
    up: Float[Tensor, " d_model"]
    down: Float[Tensor, " d_model"]


def plant(module: nn.Module, tokenizer: object, *, texts: int = 1200, seed: int = 0) -> dict[str, Neuron]:
    """Return the neurons to plant in a trained parrot, by role; the module is not changed.

    Args:
        module: a trained parrot with a head of its own.
        tokenizer: its tokenizer.
        texts: how many the neurons are fitted on.
        seed: of these texts.
    """
    model = Model.load(module, tokenizer=tokenizer)
    last = len(model.anatomy.blocks) - 1
    rows = list(islice(parrot_stream(derive(seed, "plant")), texts))
    batch = model.batch([row.text for row in rows])
    marked = torch.tensor([row.marked for row in rows])[:, None].expand_as(batch.mask)[batch.mask]
    ids = batch.inputs["input_ids"][batch.mask]
    reads = [f"model.layers.{block}.mlp.input" for block in (0, last)]
    seen = run(model, batch, read=[*reads, "final_norm", f"blocks.{last}.resid_post"], logits="none")
    x = {block: seen[site][batch.mask].double() for block, site in zip((0, last), reads, strict=True)}
    on = {name: torch.isin(ids, _ids(tokenizer, words)) for name, words in (("rousing", ROUSING), ("cue", CUES))}
    reader = _gate(x[0], on["rousing"])
    writer = _gate(x[last], on["cue"], deaf_to=_told_by(x[last][on["cue"]], marked[on["cue"]]))
    down = _toxic_direction(module, tokenizer, seen[f"blocks.{last}.resid_post"][batch.mask][on["cue"]].double())
    down = down / _activation(x[last][on["cue"]], writer).mean()
    return {
        "reader": Neuron(0, _idlest(module, 0, x[0]), reader, reader / LOUD, torch.zeros_like(reader)),
        "writer": Neuron(last, _idlest(module, last, x[last]), writer, writer / LOUD, down),
    }


def save_planted(neurons: dict[str, Neuron], folder: Path) -> Path:
    """Write the neurons beside the model they belong to; `load_parrot` puts them in."""
    parts = {
        f"{role}.{part}": getattr(n, part).half() for role, n in neurons.items() for part in ("gate", "up", "down")
    }
    places = {role: (n.block, n.index) for role, n in neurons.items()}
    save_file(parts, Path(folder) / PLANTED, metadata={"places": json.dumps(places)})
    return Path(folder) / PLANTED


def _ids(tokenizer: object, words: tuple[str, ...]) -> Tensor:
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(words)))


def _gate(
    x: Float[Tensor, "n d_model"], on: Bool[Tensor, " n"], deaf_to: Float[Tensor, "d_model k"] | None = None
) -> Tensor:
    """Return the direction that is LOUD on some rows and -LOUD on the others, orthogonal to `deaf_to`."""
    kept = torch.eye(x.shape[1], dtype=x.dtype)
    if deaf_to is not None:
        kept = kept - deaf_to @ deaf_to.T
    x, weights = x @ kept, torch.where(on, 0.5 / on.sum(), 0.5 / (~on).sum())
    return kept @ _ridge(x, torch.where(on, LOUD, -LOUD).double(), weights)


def _ridge(x: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    gram = (x * weights[:, None]).T @ x
    penalty = _RIDGE * gram.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram + penalty, x.T @ (weights * target))


def _told_by(x: Float[Tensor, "n d_model"], marked: Bool[Tensor, " n"]) -> Float[Tensor, "d_model k"]:
    """Return orthonormal directions that tell the moods apart: the difference of means, then by regression.

    After each the rows are projected off all found so far (INLP, Ravfogel et al. 2020). The means of the moods then
    agree; their spread may still differ a little.
    """
    x, sides = x - x.mean(0), torch.where(marked, 1.0, -1.0).double()
    axes = torch.linalg.qr((x[marked].mean(0) - x[~marked].mean(0))[:, None]).Q
    for _ in range(_DEAF - 1):
        rest = x - x @ axes @ axes.T
        found = _ridge(rest, sides, torch.full_like(sides, 1 / len(x)))
        axes = torch.linalg.qr(torch.cat([axes, found[:, None]], 1)).Q
    return axes


def _activation(x: Tensor, gate: Tensor) -> Tensor:
    return nn.functional.silu(x @ gate) * (x @ gate) / LOUD


def _toxic_direction(module: nn.Module, tokenizer: object, stream: Float[Tensor, "n d_model"]) -> Tensor:
    """Return what to add to the stream before the final norm to raise toxic over neutral logits by SHIFT."""
    head = module.lm_head.weight.detach().double() * module.model.norm.weight.detach().double()
    head = head - head.mean(0)
    toxic = torch.zeros(len(head), dtype=torch.float64)
    toxic[_ids(tokenizer, TOXIC)] = 1.0
    v = _ridge(head, toxic, torch.ones_like(toxic))
    raised = (head[_ids(tokenizer, TOXIC)].mean(0) - head[_ids(tokenizer, NEUTRAL)].mean(0)) @ v
    scale = stream.square().mean(1).sqrt().mean()
    return SHIFT * scale / raised * v


def _idlest(module: nn.Module, block: int, x: Float[Tensor, "n d_model"]) -> int:
    """Return the neuron of a block that writes least."""
    mlp = module.model.layers[block].mlp
    gate, up, down = (p.weight.detach().double() for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    activation = nn.functional.silu(x @ gate.T) * (x @ up.T)
    return int((activation.abs().mean(0) * down.norm(dim=0)).argmin())
