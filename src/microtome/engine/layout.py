"""One layout for every activation: [batch, seq, *unit shape], the unit axis first after the sequence.

Modules hand tensors around in many shapes ([tokens, d], [batch, head, query, key], [batch, channel, h, w]); edits and
reads see one. `to_tokens` and `from_tokens` are inverse.
"""

from torch import Tensor

from microtome.models.sites import SiteInfo

__all__ = ["from_result", "from_tokens", "to_result", "to_tokens"]


def to_tokens(x: Tensor, info: SiteInfo, batch: int) -> Tensor:
    """Return a tapped tensor as [batch, seq, *unit shape] (seq is 1 where there is no sequence)."""
    place = info.tap.place
    if place == "pattern":
        return x.transpose(1, 2)
    if place in ("q", "k", "v"):
        return x.transpose(1, 2)
    if info.unit_axis == "channel" or (x.ndim == 2 and x.shape[0] == batch and info.axes[-1] in ("vocab", "...")):
        return x.unsqueeze(1)
    if info.unit_axis == "head":
        return x.reshape(batch, -1, info.units, info.d_head)
    return x.reshape(batch, -1, *x.shape[-1:]) if x.ndim <= 3 else x


def from_tokens(x: Tensor, like: Tensor, info: SiteInfo) -> Tensor:
    """Return [batch, seq, *unit shape] in the shape the module gave."""
    if info.tap.place in ("pattern", "q", "k", "v"):
        return x.transpose(1, 2).contiguous()
    return x.reshape(like.shape)


def to_result(x: Tensor, info: SiteInfo) -> Tensor:
    """Return what a caller reads: patterns as [batch, head, query, key], images without the dummy sequence axis."""
    if info.tap.place == "pattern":
        return x.transpose(1, 2)
    if info.unit_axis == "channel" or info.axes == ("batch", "vocab"):
        return x.squeeze(1)
    return x


def from_result(x: Tensor, info: SiteInfo) -> Tensor:
    """Return what a caller reads as [batch, seq, *unit shape]; the inverse of `to_result`."""
    if info.tap.place == "pattern":
        return x.transpose(1, 2)
    if info.unit_axis == "channel" or info.axes == ("batch", "vocab"):
        return x.unsqueeze(1)
    return x
