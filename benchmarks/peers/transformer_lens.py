"""TransformerLens 4: TransformerBridge around the HF model (it forces eager attention), its patching functions.

The patching functions take the grid's rows as a data frame, so one layer can be timed. With frozen parameters the
graph of the attribution has to be started by hand. Inside a hook `hook.name` is canonical, not the name asked for.
"""

import pandas
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities import get_act_name

from benchmarks.candidates import Candidate, Grid
from benchmarks.peers.plain import joined
from benchmarks.peers.tokenizer import unused_tokenizer
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work

__all__ = ["attribution", "capture", "head_sweep", "residual_sweep"]

NEURONS, RESID = "blocks.{}.mlp.hook_post", "blocks.{}.hook_resid_post"


def _bridge(work: Work) -> TransformerBridge:
    model = work.copied_model()
    tokenizer = unused_tokenizer(model.config.vocab_size, work.scratch)
    bridge = TransformerBridge.boot_transformers("llama", hf_model=model, tokenizer=tokenizer, device=work.device)
    return bridge.eval().requires_grad_(False)


def capture(work: Work) -> list[Candidate]:
    """run_with_cache with a filter of 16 names; stopped after the last block where no logits are asked for."""
    bridge = _bridge(work)
    names = [form.format(i) for i in range(BLOCKS) for form in (NEURONS, RESID)]

    def run(**options: int) -> list[dict[str, Tensor]]:
        kept = []
        with torch.no_grad():
            for ids in work.batches:
                _, cache = bridge.run_with_cache(ids, names_filter=names, **options)
                kept.append({f"neurons.{i}": cache[NEURONS.format(i)] for i in range(BLOCKS)})
                kept[-1] |= {f"resid.{i}": cache[RESID.format(i)] for i in range(BLOCKS)}
        return kept

    return [
        Candidate("transformer_lens", "memory", run, joined),
        Candidate(
            "transformer_lens", "memory, no logits", lambda: run(stop_at_layer=BLOCKS), joined, note="stop_at_layer"
        ),
    ]


def residual_sweep(work: Work) -> list[Grid]:
    """get_act_patch_resid_pre, kept per example."""
    return [_sweep(work, patching.layer_pos_patch_setter, "resid_pre", "pos", POSITIONS)]


def head_sweep(work: Work) -> list[Grid]:
    """get_act_patch_attn_head_out_all_pos, kept per example."""
    return [_sweep(work, patching.layer_head_vector_patch_setter, "z", "head", HEADS)]


def _sweep(work: Work, setter: object, name: str, axis: str, cells: int) -> Grid:
    """The two functions above are generic_activation_patch with these arguments; here with the rows of one layer."""
    bridge = _bridge(work)
    names = [get_act_name(name, layer) for layer in range(BLOCKS)]

    def prepare() -> object:
        with torch.no_grad():
            return bridge.run_with_cache(work.clean, names_filter=names)[1]

    def row(cache: object, layer: int) -> Tensor:
        rows = pandas.DataFrame([(layer, i) for i in range(cells)], columns=["layer", axis])
        with torch.no_grad():
            return patching.generic_activation_patch(
                bridge, work.corrupt, cache, work.difference, setter, name, index_df=rows, reduce="none"
            ).values

    return Grid("transformer_lens", prepare, row)


def attribution(work: Work) -> list[Candidate]:
    """Forward and backward hooks on mlp.hook_post."""
    bridge = _bridge(work)
    names = [NEURONS.format(i) for i in range(BLOCKS)]

    def run() -> dict[str, Tensor]:
        with torch.no_grad():
            _, clean = bridge.run_with_cache(work.clean, names_filter=names)
        corrupt: dict[int, Tensor] = {}
        slopes: dict[int, Tensor] = {}
        hooks = [(n, lambda x, hook, i=i: _traced(corrupt, i, x)) for i, n in enumerate(names)]
        back = [(n, lambda g, hook, i=i: slopes.__setitem__(i, g.detach())) for i, n in enumerate(names)]
        with torch.enable_grad(), bridge.hooks(fwd_hooks=hooks, bwd_hooks=back):
            work.difference(bridge(work.corrupt)).sum().backward()
        return {f"neurons.{i}": slopes[i] * (clean[n] - corrupt[i].detach()) for i, n in enumerate(names)}

    return [Candidate("transformer_lens", "each position", run)]


def _traced(corrupt: dict[int, Tensor], layer: int, x: Tensor) -> Tensor:
    """Start the graph at the first neurons and keep every layer's."""
    corrupt[layer] = x if x.requires_grad else x.detach().requires_grad_()
    return corrupt[layer]
