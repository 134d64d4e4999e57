"""Check an anatomy on real numbers: the sites found must rebuild the model's own tensors.

One probe forward, then for every block: resid_pre + attn.write + mlp.write = resid_post, neurons @ down = mlp.out,
heads @ o = attn.out; and the tail rebuilds the head's output from the last residual. A block that fails names the
identity and the error found. Tolerance is relative to the size of the tensor and the precision of its type.
"""

import torch
from torch import Tensor, nn

from microtome.core.errors import AnatomyError
from microtome.models.anatomy import Anatomy
from microtome.models.trace import first_tensor

__all__ = ["run_chain", "verify"]


def run_chain(module: nn.Module, path: tuple[str, ...], x: Tensor) -> Tensor:
    """Return `x` passed through the named modules in order."""
    for name in path:
        x = first_tensor(module.get_submodule(name)(x))
    return x


def verify(module: nn.Module, anatomy: Anatomy, inputs: dict[str, Tensor]) -> None:
    """Run the model once and check the identities of its anatomy.

    Raises:
        AnatomyError: an identity does not hold; the message names the block, the identity and the largest error.
    """
    if anatomy.kind != "transformer":
        return
    seen = _capture(module, anatomy, inputs)
    for i, b in enumerate(anatomy.blocks):
        if not b.post_norm and b.mlp_write:
            total = seen[b.path, "in"] + seen[b.attn_write, "out"].view_as(seen[b.path, "in"])
            total = total + seen[b.mlp_write, "out"].view_as(total)
            _check(i, "resid_pre + attn.write + mlp.write = resid_post", total, seen[b.path, "out"])
        with torch.no_grad():
            for name, part in ((b.o, "heads @ o = attn.out"), (b.down, "neurons @ down = mlp.out")):
                if name:
                    made = module.get_submodule(name)(seen[name, "in"])
                    _check(i, part, made, seen[name, "out"])
    if anatomy.tail:
        with torch.no_grad():
            logits = run_chain(module, anatomy.tail, seen[anatomy.blocks[-1].path, "out"])
        _check(len(anatomy.blocks) - 1, "tail(resid_post) = head output", logits, seen[anatomy.head, "out"])


def _capture(module: nn.Module, anatomy: Anatomy, inputs: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    paths = {anatomy.head} if anatomy.tail else set()
    for b in anatomy.blocks:
        paths |= {b.path, b.o, b.attn_write, b.down, b.mlp_write}
    seen, handles = {}, []

    def hook(path):
        def keep(mod, args, kwargs, output):
            hidden = args[0] if args else kwargs["hidden_states"]
            seen.setdefault((path, "in"), hidden.clone())
            seen[path, "out"] = first_tensor(output).clone()

        return keep

    def before(path):
        def keep(mod, args, kwargs):
            seen[path, "in"] = (args[0] if args else kwargs["hidden_states"]).clone()

        return keep

    for path in paths - {None}:
        handles.append(module.get_submodule(path).register_forward_pre_hook(before(path), with_kwargs=True))
        handles.append(module.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True))
    try:
        with torch.no_grad():
            module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _check(block: int, identity: str, made: Tensor, found: Tensor) -> None:
    half = found.dtype in (torch.float16, torch.bfloat16)
    allowed = 0.05 if half else 1e-4  # half precision rounds each term of a sum
    made, found = made.double(), found.double().view_as(made)
    error = ((made - found).abs().max() / found.abs().max().clamp(min=1.0)).item()
    if not error <= allowed:
        raise AnatomyError(
            f"Block {block} does not satisfy {identity} (relative error {error:.2g}); looked for additive attention "
            "and MLP writes. Load it with anatomy=False to address its tensors by module path."
        )
