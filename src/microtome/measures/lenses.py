"""Read the stream through the output head: the logit lens, and each component's direct contribution to a logit.

    logit lens      head(final_norm(resid_l)), the prediction as it stands after block l    (nostalgebraist 2020)
    direct logit    with the final norm's scale frozen at the token, the head is linear in the last residual, so every
    attribution     term of resid = embed + sum_l (heads_l @ o + bias + mlp_l) has its own share of a logit difference,
                    and the shares sum to it                                    (Elhage et al. 2021, section 'logits')

The frozen scale is measured, not assumed: the norm is probed for its weight and for whether it centres, and its scale
at a token is the least-squares one; a norm that is not of that form is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.core.errors import MeasureError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.verify import run_chain

__all__ = ["Contributions", "direct_logit_attribution", "logit_lens"]


def logit_lens(
    model: Model,
    batch: Batch,
    sites: "str | Site | Sequence[str | Site]" = "blocks.*.resid_post",
    *,
    positions: Tensor | None = None,
) -> dict[Site, Tensor]:
    """Return the logits that the stream would give at each site, [batch, n, vocab].

    Args:
        model: a decoder whose output head was found.
        batch: the items.
        sites: sites of width d_model.
        positions: [batch, n]; None reads the last token of each row.

    Raises:
        MeasureError: no chain of modules leads from the stream to the head.
    """
    if model.anatomy.tail is None:
        raise MeasureError(
            f"'{model.name}' has no lens: {model.anatomy.missing.get('tail', 'no output head was found')}."
        )
    at = batch.last[:, None] if positions is None else positions
    rows = torch.arange(len(batch), device=at.device)[:, None]
    seen = run(model, batch, read=sites, logits="none")
    with torch.no_grad():
        return {s: run_chain(model.module, model.anatomy.tail, x[rows, at]) for s, x in seen.items()}


@dataclass(frozen=True, eq=False)
class Contributions:
    """Shares of a logit difference at the last token.

    Attributes:
        parts: site -> [batch, units]: heads by head, MLPs and the embedding as one unit, projection biases apart.
        constant: what the head and norm biases add, [batch].
        total: the logit difference itself (before any soft cap), [batch].
    """

    parts: dict[Site, Tensor]
    constant: Tensor
    total: Tensor


def direct_logit_attribution(model: Model, batch: Batch, answer: Tensor, other: Tensor) -> Contributions:
    """Return each component's direct share of logit(answer) - logit(other) at the last token of each item.

    Args:
        model: a decoder that adds its projections' outputs to the stream.
        batch: the items.
        answer: token ids, [batch].
        other: token ids, [batch].

    Raises:
        MeasureError: the model normalises its writes, or its tail is not one norm and one projection.
    """
    a = model.anatomy
    if a.tail not in ((a.final_norm, a.head), (a.head,)):
        raise MeasureError(
            f"Direct attribution needs a tail of one norm and one head, found {a.tail}; use the logit lens."
        )
    if any(b.post_norm or b.attn_write != b.o or b.mlp_write != b.mlp_out for b in a.blocks):
        raise MeasureError(f"'{model.name}' normalises what its blocks write, so shares are not defined; use patching.")
    norm = model.module.get_submodule(a.tail[0]) if len(a.tail) == 2 else nn.Identity()
    head = model.module.get_submodule(a.head)
    kinds = ("attn.heads", "attn.out", "mlp.out")
    last = f"blocks.{len(a.blocks) - 1}.resid_post"
    seen = run(model, batch, read=["embed", last, *(f"blocks.*.{k}" for k in kinds)], logits="none")
    rows = torch.arange(len(batch), device=answer.device)
    token = {s: x[rows, batch.last] for s, x in seen.items()}
    with torch.no_grad():
        direction = _direction(head, token[Site("embed")], answer, other)
        frozen = _frozen_norm(norm, token[Site(last)])
        share = lambda x: (frozen(x) * direction).sum(-1)  # noqa: E731 - the one line everything else is made of
        parts = {Site("embed"): share(token[Site("embed")])[:, None]}
        for i, block in enumerate(a.blocks):
            heads = _head_writes(model.module.get_submodule(block.o), token[Site(f"blocks.{i}.attn.heads")])
            parts[Site(f"blocks.{i}.attn.heads")] = torch.stack([share(heads[:, h]) for h in range(block.heads)], 1)
            bias = token[Site(f"blocks.{i}.attn.out")] - heads.sum(1)
            parts[Site(f"blocks.{i}.attn.o.bias")] = share(bias)[:, None]
            parts[Site(f"blocks.{i}.mlp.out")] = share(token[Site(f"blocks.{i}.mlp.out")])[:, None]
        logits = run_chain(model.module, a.tail, token[Site(last)])
        total = logits[rows, answer] - logits[rows, other]
        empty = torch.zeros_like(token[Site("embed")])
        biases = head(empty)
        constant = (norm(empty) * direction).sum(-1) + biases[rows, answer] - biases[rows, other]
    return Contributions(parts, constant, total)


def _direction(head: nn.Module, like: Tensor, answer: Tensor, other: Tensor) -> Tensor:
    """What the head reads off the stream for logit(answer) - logit(other), [batch, d_model]; a gradient, as exact."""
    with torch.inference_mode(False), torch.enable_grad():  # through the module itself: its weight may be offloaded
        x, rows = torch.zeros_like(like).requires_grad_(), torch.arange(len(answer), device=answer.device)
        logits = head(x)
        return torch.autograd.grad((logits[rows, answer] - logits[rows, other]).sum(), x)[0]


def _head_writes(o: nn.Module, heads: Tensor) -> Tensor:
    """What each head adds to the stream, [batch, head, d_model]; the projection's bias is left out."""
    apart = torch.diag_embed(heads.transpose(1, 2)).permute(0, 2, 3, 1)  # [batch, head, head, d_head], one head a row
    return o(apart.flatten(2)) - o(torch.zeros_like(heads.flatten(1)))[:, None]


def _frozen_norm(norm: nn.Module, x: Tensor):
    """Return the linear map that the norm is at each row of x [batch, d] with its scale held fixed (bias left out)."""
    bias = norm(torch.zeros_like(x[:1]))
    rough = 8 * torch.finfo(x.dtype).eps  # half precision rounds what is compared here
    probe = torch.ones_like(x[:1])
    probe[:, 1::2] = -1
    weight = (norm(probe) - bias) * probe
    centres = not isinstance(norm, nn.Identity) and torch.allclose(norm(x + 1.0), norm(x), atol=max(1e-4, rough))
    centred = (lambda y: y - y.mean(-1, keepdim=True)) if centres else (lambda y: y)
    made, raw = norm(x) - bias, centred(x) * weight
    scale = (made * raw).sum(-1, keepdim=True) / (raw * raw).sum(-1, keepdim=True)
    if not torch.allclose(raw * scale, made, atol=max(1e-3, rough) * float(made.abs().max())):
        raise MeasureError(f"A {type(norm).__name__} is not a scaled linear map, so its scale cannot be frozen.")
    return lambda y: centred(y) * weight * scale
