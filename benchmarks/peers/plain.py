"""Plain PyTorch hooks on the HF model: the reference of every check and of every ratio, and the naive way to do it.

Nothing is reused and nothing skipped: one full forward for each patched cell.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from benchmarks.candidates import Candidate, Grid
from benchmarks.workload import BLOCKS, HEADS, POSITIONS, Work

__all__ = ["STEPS", "attribution", "bare", "bare_pairs", "capture", "head_sweep", "residual_sweep"]

STEPS = 5  # points of EAP-IG


def bare(work: Work) -> None:
    """Run the model over the capture inputs and read nothing."""
    with torch.no_grad():
        for ids in work.batches:
            work.model(ids)


def bare_pairs(work: Work) -> None:
    """Run the model once over the corrupt prompts."""
    with torch.no_grad():
        work.model(work.corrupt)


# -- capture


def capture(work: Work) -> list[Candidate]:
    """All neurons and residuals: kept in memory, or streamed as bf16 into a mapped file; with and without the head."""
    backbone = work.model.model
    return [
        Candidate("plain hooks", "memory", lambda: keep(work, work.model), joined),
        Candidate("plain hooks", "memory, no logits", lambda: keep(work, backbone), joined),
        Candidate("plain hooks", "disk", lambda: _stream(work, work.model), rounding=2**-8),
        Candidate("plain hooks", "disk, no logits", lambda: _stream(work, backbone), rounding=2**-8),
    ]


def keep(work: Work, forward: Callable) -> list[dict[str, Tensor]]:
    """Return each batch's activations by name."""
    kept: list[dict[str, Tensor]] = []
    with torch.no_grad(), _watched(work, lambda name, x: kept[-1].__setitem__(name, x)):
        for ids in work.batches:
            kept.append({})
            forward(ids)
    return kept


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return name -> [64, 128, width] from a list of batches."""
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}


def _stream(work: Work, forward: Callable) -> dict[str, Tensor]:
    """Copy each activation into a fresh mapped bf16 file as it appears."""
    path = work.scratch / "plain.bin"
    path.unlink(missing_ok=True)
    texts, length = sum(len(b) for b in work.batches), work.batches[0].shape[1]
    config = work.model.config
    widths = {f"neurons.{i}": config.intermediate_size for i in range(BLOCKS)}
    widths |= {f"resid.{i}": config.hidden_size for i in range(BLOCKS)}
    tokens = texts * length
    whole = torch.from_file(str(path), shared=True, size=tokens * sum(widths.values()), dtype=torch.bfloat16)
    parts = whole.split([tokens * w for w in widths.values()])
    store = {n: part.view(texts, length, w) for (n, w), part in zip(widths.items(), parts, strict=True)}
    first = [0]

    def write(name: str, x: Tensor) -> None:
        store[name][first[0] : first[0] + len(x)].copy_(x)

    with torch.no_grad(), _watched(work, write):
        for ids in work.batches:
            forward(ids)
            first[0] += len(ids)
    return store


@contextmanager
def _watched(work: Work, see: Callable[[str, Tensor], object]):
    """Show `see` the input of every down projection and the output of every layer."""
    with ExitStack() as stack:
        for i, layer in enumerate(work.layers):
            down = layer.mlp.down_proj.register_forward_pre_hook(lambda m, a, i=i: _ignore(see(f"neurons.{i}", a[0])))
            out = layer.register_forward_hook(lambda m, a, o, i=i: _ignore(see(f"resid.{i}", o)))
            stack.callback(down.remove)
            stack.callback(out.remove)
        yield


def _ignore(_: object) -> None:
    return None


# -- patching grids


def residual_sweep(work: Work) -> list[Grid]:
    """Residual entering a layer, one position at a time, from the clean run into the corrupt one."""

    def row(clean: list[Tensor], layer: int) -> Tensor:
        return torch.stack([_patched(work, work.layers[layer], _position(clean[layer], p)) for p in range(POSITIONS)])

    return [Grid("plain hooks", lambda: _inputs(work, work.layers), row)]


def head_sweep(work: Work) -> list[Grid]:
    """z of one head (the input of the output projection) at all positions."""
    projections = [layer.self_attn.o_proj for layer in work.layers]

    def row(clean: list[Tensor], layer: int) -> Tensor:
        return torch.stack([_patched(work, projections[layer], _head(clean[layer], h)) for h in range(HEADS)])

    return [Grid("plain hooks", lambda: _inputs(work, projections), row)]


def _inputs(work: Work, modules: list) -> list[Tensor]:
    """Return the first input of each module in the clean run."""
    seen: list[Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(lambda m, a: seen.append(a[0])).remove)
        work.model(work.clean)
    return seen


def _patched(work: Work, module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logit differences of the corrupt run with a module's first input changed."""
    handle = module.register_forward_pre_hook(lambda m, a: (change(a[0]), *a[1:]))
    try:
        with torch.no_grad():
            return work.difference(work.model(work.corrupt).logits)
    finally:
        handle.remove()


def _position(clean: Tensor, position: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, position] = clean[:, position]
        return x

    return change


def _head(clean: Tensor, head: int) -> Callable[[Tensor], Tensor]:
    width = clean.shape[-1] // HEADS
    part = slice(head * width, (head + 1) * width)

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., part] = clean[..., part]
        return x

    return change


# -- attribution


def attribution(work: Work) -> list[Candidate]:
    """Gradient of the logit difference x (clean - corrupt), for every neuron; EAP-IG a point at a time."""
    return [
        Candidate("plain hooks", "each position", lambda: _scores(work, 1)),
        Candidate("plain hooks", "summed over positions", lambda: _summed(_scores(work, 1))),
        Candidate("plain hooks", f"EAP-IG, {STEPS} points", lambda: _summed(_scores(work, STEPS))),
    ]


def _scores(work: Work, steps: int) -> dict[str, Tensor]:
    """Return the mean gradient over points k / steps between the embeddings, x (clean - corrupt), by layer."""
    projections = [layer.mlp.down_proj for layer in work.layers]
    clean = _inputs(work, projections)
    embed = work.model.get_input_embeddings()
    start, end = embed(work.corrupt), embed(work.clean)
    corrupt, slopes = _slopes(work, start)
    for k in range(1, steps):
        _, more = _slopes(work, start + k / steps * (end - start))
        slopes = [a + b for a, b in zip(slopes, more, strict=True)]
    return {f"neurons.{i}": (c - x) * g / steps for i, (c, x, g) in enumerate(zip(clean, corrupt, slopes, strict=True))}


def _slopes(work: Work, embeddings: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return every layer's neurons and the gradients there, for some input embeddings."""
    seen: list[Tensor] = []
    with ExitStack() as stack, torch.enable_grad():
        for layer in work.layers:
            stack.callback(layer.mlp.down_proj.register_forward_pre_hook(lambda m, a: _traced(a, seen)).remove)
        score = work.difference(work.model(inputs_embeds=embeddings).logits).sum()
        slopes = torch.autograd.grad(score, seen)
    return [x.detach() for x in seen], list(slopes)


def _traced(args: tuple, seen: list[Tensor]) -> tuple:
    """Start the graph at the first neurons seen; the weights are frozen."""
    x = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
    seen.append(x)
    return (x, *args[1:])


def _summed(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum over positions: [pairs, neurons]."""
    return {name: x.sum(1) for name, x in scores.items()}
