"""Suffix: run only what new values at one position can change - differentiably, and as often as training asks.

    suffix(site, values, rows)  ==  run(model, batch.select(rows), edits=[Edit(site, From(values), positions=p)]).logits

New values at position p of a site in block L change that one token in block L, and the tokens p, p+1, ... in the
blocks above. Everything else is a frozen prefix: one forward without gradients keeps the keys and values of the earlier
positions in those blocks, and the residual of the later positions where those blocks begin. A call then moves one token
out of block L, replays the blocks above on positions p.. (`replay.py`), the last of them only at the positions read,
and the head only there. One recording serves several sites, and every basis fitted at them.

Gradients flow to `values` alone: weights take no part. Before use two rows per site are run both ways with altered
values; a model that does not agree runs whole forwards, and `reason` says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import EditError, SiteError
from microtome.core.site import Site
from microtome.engine.edit import Edit, From
from microtome.engine.plan import blocked_reason
from microtome.engine.prefix import Prefix, activations_at, record_prefix
from microtome.engine.replay import Piece, at_positions, call_frozen, replay_block, replay_keys
from microtome.engine.run import run
from microtome.engine.tail import replay_tail
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.trace import first_tensor

__all__ = ["Suffix", "record_suffix"]

_CHAINS = {"attn": ("attn.heads", "attn.out", "attn.write"), "mlp": ("mlp.neurons", "mlp.out", "mlp.write")}
_KINDS = {"resid_pre", "resid_mid", "resid_post", *_CHAINS["attn"], *_CHAINS["mlp"]}


@dataclass(frozen=True, eq=False)
class Suffix:
    """The part of a batch's forward that new values at one position of each row can change. See `record_suffix`.

    Attributes:
        model: the model.
        batch: the prompts.
        positions: the edited position of each row, [batch].
        reads: the positions whose logits are wanted, [batch, n].
        sites: the sites that can be edited.
        values: unedited activations at those positions, by site (those of helping sites included), [batch, *unit].
        reason: why whole forwards are run, or an empty string.
    """

    model: Model
    batch: Batch
    positions: Int[Tensor, " batch"]
    reads: Int[Tensor, "batch n"]
    sites: tuple[Site, ...]
    values: dict[Site, Tensor]
    reason: str = ""
    _prefix: Prefix | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def bytes(self) -> int:
        """Bytes held by what was recorded."""
        held = list(self.values.values())
        if self._prefix is not None:
            calls = self._prefix.recording.attention.values()
            held += [*self._prefix.rest.values(), *(c[name] for c in calls for name in ("key", "value"))]
        return sum(x.numel() * x.element_size() for x in held)

    def __call__(
        self, site: "Site | str", values: Float[Tensor, "n *unit"], rows: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n reads vocab"]:
        """Return the logits at the read positions with new values at the edited positions.

        Args:
            site: one of this suffix's sites.
            values: the new activations; gradients flow to them.
            rows: the batch row of each, repeats allowed; None means every row once.

        Raises:
            SiteError: the site was not recorded.
            EditError: values or rows do not fit.
        """
        site = Site.parse(site)
        rows = torch.arange(len(self), device=self.positions.device) if rows is None else rows
        self._check(site, values, rows)
        values = values.to(self.values[site].dtype)
        if self.reason:
            return self._whole(site, values, rows)
        if self._prefix is None:
            used, place = rows.unique(return_inverse=True)
            part = self._rows(used)
            entries = {_entry(s) for s in part.sites}
            prefix, _ = record_prefix(part.model, part.batch, part.positions, (), entries)
            return replace(part, _prefix=prefix)(site, values, place)
        return self._replay(site, values, rows)

    def _check(self, site: Site, values: Tensor, rows: Tensor) -> None:
        if site not in self.sites:
            raise SiteError(
                f"This suffix was not recorded at '{site}', only at {[str(s) for s in self.sites]}; add it to sites."
            )
        if values.shape[1:] != self.values[site].shape[1:] or rows.shape != values.shape[:1]:
            raise EditError(
                f"Suffix at '{site}' got values {tuple(values.shape)} for {rows.numel()} rows; it takes "
                f"[{rows.numel()}, {', '.join(map(str, self.values[site].shape[1:]))}]."
            )

    def _rows(self, rows: Tensor) -> "Suffix":
        """Return the suffix of some rows, without what was recorded for the others."""
        values = {s: x[rows] for s, x in self.values.items()}
        batch = self.batch.select(rows)
        return replace(
            self, batch=batch, positions=self.positions[rows], reads=self.reads[rows], values=values, _prefix=None
        )

    def _whole(self, site: Site, values: Tensor, rows: Tensor) -> Tensor:
        """Run the whole model with the values put in by an edit."""
        edit = Edit(site, From(values[:, None]), positions=self.positions[rows][:, None])
        out = run(self.model, self.batch.select(rows), edits=[edit], grad=torch.is_grad_enabled()).logits
        items = torch.arange(len(rows), device=rows.device)
        return out[items[:, None], self.reads[rows]]

    # -- replay

    def _replay(self, site: Site, values: Tensor, rows: Tensor) -> Tensor:
        """Leave the site's block, replay the blocks above, read."""
        recording, last = self._prefix.recording, len(self.model.anatomy.blocks) - 1
        entry = _entry(site)
        pieces = self._enter(entry, self._leave(site, values, rows), rows)
        for i in range(entry, last + 1):
            reads = None
            if i == last and any(p.hidden.shape[1] > self.reads.shape[1] for p in pieces):
                pieces, reads = replay_keys(self.model, recording, i, pieces), self.reads
            out = replay_block(self.model, recording, i, pieces, reads)
            pieces = [replace(p, hidden=h, keys=None) for p, h in zip(pieces, out, strict=True)]
        trimmed = entry <= last and reads is not None
        final = torch.cat([p.hidden if trimmed else at_positions(p, self.reads) for p in pieces])
        return replay_tail(self.model, final[torch.cat([p.ids for p in pieces]).argsort()])

    def _enter(self, block: int, hidden: Tensor, rows: Tensor) -> list[Piece]:
        """Return the tokens that enter a block, grouped by start: the new ones, then the later ones as they were."""
        starts, pieces = self.positions[rows], []
        for start in starts.unique().tolist():
            ids = (starts == start).nonzero().squeeze(1)
            after = self._prefix.rest[block][rows[ids], start + 1 - self._prefix.first :]
            tokens = torch.cat([hidden[ids][:, None], after], 1)
            pieces.append(Piece(start, ids, torch.zeros_like(ids), rows[ids], tokens))
        return pieces

    def _leave(self, site: Site, values: Tensor, rows: Tensor) -> Tensor:
        """Return the residual [n, d_model] at the edited positions where the next block begins."""
        if site.path == "embed" or site.kind in ("resid_pre", "resid_post"):
            return values
        block, at = self.model.anatomy.blocks[site.block], f"blocks.{site.block}."
        if site.kind == "resid_mid":
            mid = values
        else:
            write = self._write(site, values)
            if _is_parallel_or_mlp(self.model, site):
                old = self.values[_write_site(self.model, site)][rows]
                return self.values[Site(at + "resid_post")][rows] + (write - old)
            mid = self.values[Site(at + "resid_pre")][rows] + write
        return mid + self._chain(block.mlp_path, mid)

    def _write(self, site: Site, values: Tensor) -> Tensor:
        """Return what new heads, neurons or outputs add to the residual."""
        block, part = self.model.anatomy.blocks[site.block], site.kind.split(".")[0]
        project, write = (block.o, block.attn_write) if part == "attn" else (block.down, block.mlp_write)
        inside, out, _ = _CHAINS[part]
        if site.kind == inside:
            values = self._chain((project,), values.flatten(1))
        if site.kind in (inside, out) and write != (block.o if part == "attn" else block.mlp_out):
            values = self._chain((write,), values)
        return values

    def _chain(self, path: Sequence[str], x: Tensor) -> Tensor:
        """Return tokens [n, d] passed through modules in order."""
        x = x[None]
        for name in path:
            x = first_tensor(call_frozen(self.model.module.get_submodule(name), x))
        return x[0]


def record_suffix(
    model: Model,
    batch: Batch,
    sites: "str | Site | Sequence[str | Site]",
    positions: "int | Int[Tensor, ' batch']" = -1,
    reads: "str | Int[Tensor, 'batch n']" = "last",
    *,
    keep: bool = True,
) -> Suffix:
    """Run the model once without gradients and keep what new values at one position of each row need.

    Args:
        model: the model.
        batch: the prompts.
        sites: where values will be put in; globs allowed. Residuals, attention and MLP outputs, heads and neurons are
            replayed; other sites run whole forwards.
        positions: the position of each row that will be edited; an int is meant for every row (-1: the last).
        reads: positions whose logits are wanted, none before the edited one; "last" is the last real token.
        keep: hold the recorded prefix. False holds only the activations at the edited positions, and every call
            records the rows it needs again: slower, and memory stays bounded however many rows there are.

    Raises:
        SiteError: a site does not exist.
        EditError: a position lies outside its row, on padding, or after a read.

    Example:
        >>> suffix = record_suffix(model, model.batch(bases), "blocks.4.resid_post")
        >>> logits = suffix("blocks.4.resid_post", swapped)  # [batch, 1, vocab], with a graph back to `swapped`
    """
    asked = tuple(info.site for info in model.select(sites))
    with torch.inference_mode(False), torch.no_grad():
        last = batch.last[:, None]
        batch = Batch({k: v.clone() for k, v in batch.inputs.items()}, batch.mask.clone())  # none of inference mode
        reads = last if isinstance(reads, str) else reads.reshape(len(batch), -1).to(last.device)
        positions = _positions(batch, positions, reads)
        reason = blocked_reason(model, []) or next(filter(None, (_site_reason(model, s) for s in asked)), "")
        if reason:
            return Suffix(model, batch, positions, reads, asked, activations_at(model, batch, asked, positions), reason)
        read, prefix = _helpers(model, asked), None
        if keep:
            prefix, values = record_prefix(model, batch, positions, read, {_entry(s) for s in asked})
        else:
            values = activations_at(model, batch, read, positions)
        made = Suffix(model, batch, positions, reads, asked, values, "", prefix)
        reason = _disagreement(made)
    return replace(made, reason=reason, _prefix=None) if reason else made


def _positions(batch: Batch, positions: "int | Tensor", reads: Tensor) -> Tensor:
    """Return the edited position of each row, checked."""
    asked = torch.as_tensor(positions, device=batch.mask.device)
    if asked.ndim > 1 or (asked.ndim and len(asked) != len(batch)):
        raise EditError(f"A suffix takes one position for each of {len(batch)} rows, found shape {tuple(asked.shape)}.")
    asked = asked.expand(len(batch))
    at = torch.where(asked < 0, asked + batch.seq, asked)
    items = torch.arange(len(batch), device=at.device)
    for wrong, what in (
        ((at < 0) | (at >= batch.seq), f"outside the {batch.seq} of the sequence"),
        (~batch.mask[items, at.clamp(0, batch.seq - 1)], "on padding"),
        ((reads < at[:, None]).any(1), "after a position that is read, where it changes nothing"),
    ):
        if wrong.any():
            row = int(wrong.nonzero()[0])
            found = f"Position {int(asked[row])} of row {row} lies {what}"
            raise EditError(f"{found}; positions count in the padded batch.")
    return at


def _entry(site: Site) -> int:
    """Return the first block replayed whole."""
    if site.path == "embed":
        return 0
    return site.block if site.kind == "resid_pre" else site.block + 1


def _is_parallel_or_mlp(model: Model, site: Site) -> bool:
    return site.kind in _CHAINS["mlp"] or model.anatomy.blocks[site.block].parallel


def _write_site(model: Model, site: Site) -> Site:
    at = f"blocks.{site.block}.{site.kind.split('.')[0]}."
    return Site(at + "write") if Site(at + "write") in model.sites else Site(at + "out")


def _site_reason(model: Model, site: Site) -> str:
    """Return why a site cannot be replayed, or an empty string."""
    if site.path == "embed":
        return ""
    if site.block is None or site.kind not in _KINDS:
        return f"'{site}' is not a site that a suffix can start at"
    block = model.anatomy.blocks[site.block]
    if site.kind in ("resid_pre", "resid_post"):
        return ""
    if block.post_norm or block.mlp_write is None or (not _is_parallel_or_mlp(model, site) and block.mlp_path is None):
        return f"the way from '{site}' to the end of its block was not found"
    return ""


def _helpers(model: Model, sites: Sequence[Site]) -> tuple[Site, ...]:
    """Return the sites, and those whose old values leaving their blocks takes."""
    found = set(sites)
    for site in sites:
        if site.kind in (*_CHAINS["attn"], *_CHAINS["mlp"]):
            if _is_parallel_or_mlp(model, site):
                found |= {Site(f"blocks.{site.block}.resid_post"), _write_site(model, site)}
            else:
                found.add(Site(f"blocks.{site.block}.resid_pre"))
    return tuple(sorted(found))


def _disagreement(suffix: Suffix) -> str:
    """Run two rows both ways with altered values at every site; return what differs, or an empty string."""
    if suffix._prefix is not None and not suffix._prefix.recording.causal:
        return "attention looks at later positions"
    rows = torch.tensor([0, len(suffix) - 1], device=suffix.positions.device)
    for site in suffix.sites:
        values = suffix.values[site][rows].roll(1, -1)
        try:
            found = suffix(site, values, rows)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            return f"a block above '{site}' cannot be replayed on packed tokens ({str(error).splitlines()[0]})"
        wanted = suffix._whole(site, values, rows)
        error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)
        if not error <= 200 * torch.finfo(wanted.dtype).eps:
            return f"replaying from '{site}' differs from a whole forward by {float(error):.1g}"
    return ""
