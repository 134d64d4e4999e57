"""captum: LayerActivation, LayerFeatureAblation with the clean run as baselines, LayerGradientXActivation.

captum cannot read inputs of some layers and outputs of others in one pass, so neurons and residuals are two forwards.
LayerFeatureAblation returns original - ablated; the original is one more forward a call.
"""

from collections.abc import Callable

import torch
from captum.attr import LayerActivation, LayerFeatureAblation, LayerGradientXActivation
from torch import Tensor

from benchmarks.candidates import Candidate, Grid
from benchmarks.peers.plain import joined
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work

__all__ = ["attribution", "capture", "head_sweep", "residual_sweep"]


def capture(work: Work) -> list[Candidate]:
    """Two LayerActivation passes a batch."""
    read = _reader(work, lambda ids: work.model(ids).logits)
    note = "inputs and outputs cannot be mixed: two forwards"
    return [Candidate("captum", "memory", lambda: [read(ids) for ids in work.batches], joined, note=note)]


def _reader(work: Work, forward: Callable) -> Callable[[Tensor], dict[str, Tensor]]:
    neurons = LayerActivation(forward, [layer.mlp.down_proj for layer in work.layers])
    resid = LayerActivation(forward, work.layers)

    def read(ids: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            inner = neurons.attribute(ids, attribute_to_layer_input=True)
            outer = resid.attribute(ids)
        return {f"neurons.{i}": x for i, x in enumerate(inner)} | {f"resid.{i}": x for i, x in enumerate(outer)}

    return read


def residual_sweep(work: Work) -> list[Grid]:
    """Positions of a layer's input are the features."""
    positions = torch.arange(POSITIONS, device=work.device)[None, :, None]
    return _ablations(work, work.layers, positions, POSITIONS)


def head_sweep(work: Work) -> list[Grid]:
    """Heads, as slices of the output projection's input, are the features."""
    width = work.model.config.hidden_size
    heads = (torch.arange(width, device=work.device) // (width // HEADS))[None, None]
    return _ablations(work, [layer.self_attn.o_proj for layer in work.layers], heads, HEADS)


def _ablations(work: Work, modules: list, mask: Tensor, cells: int) -> list[Grid]:
    def forward(ids: Tensor) -> Tensor:
        return work.difference(work.model(ids).logits)

    def prepare() -> tuple[list[Tensor], Tensor]:
        with torch.no_grad():
            clean = LayerActivation(forward, modules).attribute(work.clean, attribute_to_layer_input=True)
            return list(clean), forward(work.corrupt)

    def grid(at_once: int) -> Grid:
        def row(prepared: tuple[list[Tensor], Tensor], layer: int) -> Tensor:
            clean, base = prepared
            change = LayerFeatureAblation(forward, modules[layer]).attribute(
                work.corrupt,
                layer_baselines=clean[layer],
                layer_mask=mask,
                attribute_to_layer_input=True,
                perturbations_per_eval=at_once,
            )
            return base - _one_a_feature(change, mask)

        return Grid(f"captum, perturbations_per_eval {at_once}", prepare, row)

    return [grid(1), grid(cells)]


def _one_a_feature(change: Tensor, mask: Tensor) -> Tensor:
    """Return [features, pairs]: captum repeats a feature's value over all its elements."""
    mask = mask.expand(1, *change.shape[1:])[0]
    firsts = [(mask == f).nonzero()[0].tolist() for f in range(int(mask.max()) + 1)]
    return torch.stack([change[:, p, d] for p, d in firsts])


def attribution(work: Work) -> list[Candidate]:
    """Two LayerActivation runs and one gradient run (activations not multiplied in: the difference is)."""
    modules = [layer.mlp.down_proj for layer in work.layers]

    def forward(ids: Tensor) -> Tensor:
        return work.difference(work.model(ids).logits)

    activations = LayerActivation(forward, modules)
    gradients = LayerGradientXActivation(forward, modules, multiply_by_inputs=False)

    def run() -> dict[str, Tensor]:
        with torch.no_grad():
            clean = activations.attribute(work.clean, attribute_to_layer_input=True)
            corrupt = activations.attribute(work.corrupt, attribute_to_layer_input=True)
        slopes = gradients.attribute(work.corrupt, attribute_to_layer_input=True)
        return {f"neurons.{i}": slopes[i].detach() * (clean[i] - corrupt[i]) for i in range(BLOCKS)}

    return [Candidate("captum", "each position", run)]
