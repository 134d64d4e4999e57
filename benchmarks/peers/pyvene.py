"""pyvene: CollectIntervention for capture, VanillaIntervention for patching.

Neurons are named by module path (pyvene's own "mlp_activation" of a Llama is silu(gate), not what meets the down
projection). Collecting needs keep_last_dim, or only the first position comes back. pyvene removes every hook on the
model after a call, so it works on a copy. It has no attribution.
"""

from collections.abc import Callable

import pyvene
import torch
from torch import Tensor

from benchmarks.candidates import Candidate, Grid
from benchmarks.peers.plain import joined
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work

__all__ = ["capture", "head_sweep", "residual_sweep"]


def capture(work: Work) -> list[Candidate]:
    """16 CollectInterventions in one forward."""
    config = work.model.config
    names = [f"neurons.{i}" for i in range(BLOCKS)] + [f"resid.{i}" for i in range(BLOCKS)]
    wanted = {f"model.layers[{i}].mlp.down_proj.input": config.intermediate_size for i in range(BLOCKS)}
    wanted |= {f"model.layers[{i}].output": config.hidden_size for i in range(BLOCKS)}
    lens = _collector(work.copied_model(), wanted)

    def run() -> list[dict[str, Tensor]]:
        return [dict(zip(names, _collected(lens, ids), strict=True)) for ids in work.batches]

    return [Candidate("pyvene", "memory", run, joined)]


def _collector(model: torch.nn.Module, widths: dict[str, int]) -> pyvene.IntervenableModel:
    made = [
        {"component": place, "intervention": pyvene.CollectIntervention(embed_dim=width, keep_last_dim=True)}
        for place, width in widths.items()
    ]
    return pyvene.IntervenableModel(made, model=model)


def _collected(lens: pyvene.IntervenableModel, ids: Tensor) -> list[Tensor]:
    with torch.no_grad():
        (_, found), _ = lens({"input_ids": ids})
    return found


def residual_sweep(work: Work) -> list[Grid]:
    """One call a cell, the unit is the position."""

    def source(clean: Tensor, position: int) -> Tensor:
        return clean[:, position : position + 1]

    return _grids(work, ("block_input", "pos"), "model.layers[{}].input", source, POSITIONS)


def head_sweep(work: Work) -> list[Grid]:
    """One call a cell, the unit is the head, at all positions."""

    def source(clean: Tensor, head: int) -> Tensor:
        return clean.unflatten(-1, (HEADS, -1))[:, :, head : head + 1].transpose(1, 2)

    place = ("head_attention_value_output", "h")
    return _grids(work, place, "model.layers[{}].self_attn.o_proj.input", source, HEADS)


def _grids(work: Work, place: tuple[str, str], path: str, source: Callable, cells: int) -> list[Grid]:
    """The documented call (source and base prompt for each cell), and the source's representation passed in."""
    model, (component, unit) = work.copied_model(), place
    made = {"component": component, "unit": unit, "intervention_type": pyvene.VanillaIntervention}
    lenses = [pyvene.IntervenableModel({"layer": i, **made}, model=model) for i in range(BLOCKS)]
    reader = _collector(model, {path.format(i): model.config.hidden_size for i in range(BLOCKS)})
    base, sources = {"input_ids": work.corrupt}, [{"input_ids": work.clean}]

    def documented(clean: None, layer: int) -> Tensor:
        with torch.no_grad():
            calls = [lenses[layer](base, sources, {"sources->base": cell})[1] for cell in range(cells)]
        return torch.stack([work.difference(out.logits) for out in calls])

    def passed_in(clean: list[Tensor], layer: int) -> Tensor:
        effects = []
        for cell in range(cells):
            with torch.no_grad():
                found = source(clean[layer], cell)
                out = lenses[layer](base, unit_locations={"sources->base": cell}, source_representations=found)[1]
            effects.append(work.difference(out.logits))
        return torch.stack(effects)

    return [
        Grid("pyvene, source and base prompt", lambda: None, documented),
        Grid("pyvene, source representations passed in", lambda: _collected(reader, work.clean), passed_in),
    ]
