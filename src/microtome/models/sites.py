"""Sites of a model: for every address, the axes of its tensor, how many units it has, and where it can be tapped.

A tap is a module's input or output (read or replaced by a hook), or the inside of an attention operation. The table is
derived from the anatomy; module paths are addressable too: `some.module` is its output, `some.module.input` its input.
"""

from dataclasses import dataclass

from torch import nn

from microtome.core.site import Site
from microtome.models.anatomy import Anatomy, Block

__all__ = ["SiteInfo", "Tap", "site_table", "weight_table"]

STREAM = ("batch", "seq", "d_model")


@dataclass(frozen=True)
class Tap:
    """Where a tensor can be read or replaced.

    Attributes:
        module: module path.
        place: "input", "output", "mid" (block input plus what the module writes) or "q", "k", "v", "pattern".
        copy: the model changes this tensor in place later; a capture must be copied.
    """

    module: str
    place: str
    copy: bool = False


@dataclass(frozen=True)
class SiteInfo:
    """One addressable activation: its axes, the unit axis, the number of units (0: not known before a run)."""

    site: Site
    axes: tuple[str, ...]
    unit_axis: str
    units: int
    tap: Tap
    d_head: int = 0


def site_table(module: nn.Module, anatomy: Anatomy) -> dict[Site, SiteInfo]:
    """Return the named activations of a model, in block order (module paths are resolved on demand)."""
    infos: list[SiteInfo] = []
    if anatomy.blocks:
        infos.append(_stream("embed", Tap(anatomy.blocks[0].path, "input"), anatomy))
    for i, block in enumerate(anatomy.blocks):
        infos += _block_sites(i, block, anatomy)
    for stage, index, path, channels in anatomy.stages:
        site = Site(f"encoder.stage{stage}.{index}.units")
        infos.append(SiteInfo(site, ("batch", "channel", "height", "width"), "channel", channels, Tap(path, "output")))
    if anatomy.final_norm:
        infos.append(_stream("final_norm", Tap(anatomy.final_norm, "output"), anatomy))
    if anatomy.head:
        axes = ("batch", "seq", "vocab") if anatomy.kind == "transformer" else ("batch", "vocab")
        infos.append(SiteInfo(Site("logits"), axes, "vocab", anatomy.vocab, Tap("", "output")))
    return {info.site: info for info in infos}


def _stream(name: str, tap: Tap, anatomy: Anatomy) -> SiteInfo:
    return SiteInfo(Site(name), STREAM, "d_model", anatomy.d_model, tap)


def _block_sites(i: int, b: Block, anatomy: Anatomy) -> list[SiteInfo]:
    at = f"blocks.{i}."
    heads = ("batch", "seq", "head", "d_head")
    out = [_stream(at + "resid_pre", Tap(b.path, "input", "resid_pre" in b.aliased), anatomy)]
    for name, count in (("q", b.heads), ("k", b.kv_heads), ("v", b.kv_heads)):
        if b.attention == "sdpa":
            out.append(SiteInfo(Site(f"{at}attn.{name}"), heads, "head", count, Tap(b.path, name), b.d_head))
    out.append(
        SiteInfo(Site(at + "attn.pattern"), ("batch", "head", "query", "key"), "head", b.heads, Tap(b.path, "pattern"))
    )
    out.append(SiteInfo(Site(at + "attn.heads"), heads, "head", b.heads, Tap(b.o, "input"), b.d_head))
    out.append(_stream(at + "attn.out", Tap(b.o, "output", "attn.out" in b.aliased), anatomy))
    if b.attn_write != b.o:
        out.append(_stream(at + "attn.write", Tap(b.attn_write, "output", "attn.write" in b.aliased), anatomy))
    if b.post_norm and b.mid_norm:
        out.append(_stream(at + "resid_mid", Tap(b.mid_norm, "output"), anatomy))
    elif not b.parallel:
        out.append(_stream(at + "resid_mid", Tap(b.attn_write, "mid"), anatomy))
    for name, path in (("gate", b.gate), ("up", b.up)):
        if path and b.down:
            out.append(
                SiteInfo(Site(f"{at}mlp.{name}"), ("batch", "seq", "d_mlp"), "d_mlp", b.d_mlp, Tap(path, "output"))
            )
    if b.down:
        out.append(
            SiteInfo(Site(at + "mlp.neurons"), ("batch", "seq", "d_mlp"), "d_mlp", b.d_mlp, Tap(b.down, "input"))
        )
    if b.mlp_out:
        out.append(_stream(at + "mlp.out", Tap(b.mlp_out, "output", "mlp.out" in b.aliased), anatomy))
    if b.mlp_write and b.mlp_write != b.mlp_out:
        out.append(_stream(at + "mlp.write", Tap(b.mlp_write, "output", "mlp.write" in b.aliased), anatomy))
    out.append(_stream(at + "resid_post", Tap(b.path, "output", "resid_post" in b.aliased), anatomy))
    return out


def weight_table(module: nn.Module, anatomy: Anatomy) -> dict[Site, str]:
    """Return canonical weight addresses (and every parameter's own path) -> parameter name."""
    names = dict(module.named_parameters(remove_duplicate=False))
    table = {Site(name): name for name in names}
    parts = {"embed": anatomy.embedding, "head": anatomy.head, "final_norm": anatomy.final_norm}
    for i, block in enumerate(anatomy.blocks):
        parts |= {
            f"blocks.{i}.attn.o": block.o,
            f"blocks.{i}.mlp.down": block.down,
            f"blocks.{i}.mlp.gate": block.gate,
            f"blocks.{i}.mlp.up": block.up,
        }
        parts |= dict(zip([f"blocks.{i}.attn.{n}" for n in "qkv"], block.qkv or (), strict=False))
    for part, path in parts.items():
        for kind in ("weight", "bias"):
            if path is not None and f"{path}.{kind}" in names:
                table[Site(f"{part}.{kind}")] = f"{path}.{kind}"
    return table
