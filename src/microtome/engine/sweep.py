"""sweep: many edits, one metric - planned, then executed from cached residuals.

    effects[c, i] = metric of item i under cell c's edits

One recorded forward gives every block's arguments, residuals, keys and values. Cells then join a growing batch: at
block l the sequences whose first edit is at l are added, and one packed pass moves all of them through the block. The
last block computes only the positions the metric reads. Results equal one full forward per cell to rounding; a replay
of an unedited row is compared with the recording before every sweep.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.protocols import Metric
from microtome.core.site import Site
from microtome.engine.edit import Edit
from microtome.engine.layout import from_tokens, to_tokens
from microtome.engine.plan import (
    Cell,
    Plan,
    Sequences,
    as_cell,
    blocked_reason,
    make_plan,
    make_sequences,
    parse_bytes,
    read_positions,
)
from microtome.engine.replay import Piece, packed_index, record, replay_block, replay_keys
from microtome.engine.run import Bound, run
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.trace import first_tensor
from microtome.models.verify import run_chain

__all__ = ["SweepResult", "plan", "sweep"]


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep found.

    Attributes:
        effects: metric of every item under every cell, [cells, batch] (or [cells, batch, m]).
        base: metric of every item without edits, [batch] (or [batch, m]).
        plan: how it was run.
    """

    effects: Tensor
    base: Tensor
    plan: Plan


def plan(
    model: Model,
    batch: Batch,
    cells: Sequence["Edit | Sequence[Edit]"],
    metric: Metric,
    *,
    memory_budget: int | str = "2GiB",
) -> Plan:
    """Return how a sweep would be run, without running the model (works on the meta device).

    Args and Raises: as for `sweep`. Rows whose edit turns out to change nothing are not known before a run.
    """
    made = _checked(model, cells)
    reason = blocked_reason(model, made)
    reads = read_positions(metric, batch)
    sequences = make_sequences(model, made, batch, reads, None, causal=True)
    return make_plan(model, batch, made, sequences, reads, parse_bytes(memory_budget), reason)


def _checked(model: Model, cells: Sequence["Edit | Sequence[Edit]"]) -> list[Cell]:
    """Return the cells, after checking that every site exists."""
    if not cells:
        raise EditError("sweep asked for no cells; give at least one edit.")
    edits = {e.site for c in cells for e in ([c] if isinstance(c, Edit) else c)}
    for site in edits:
        if site not in model.weights:
            model.select(site)
    return [as_cell(c, model) for c in cells]


def sweep(
    model: Model,
    batch: Batch,
    cells: Sequence["Edit | Sequence[Edit]"],
    metric: Metric,
    *,
    memory_budget: int | str = "2GiB",
    progress: Callable[[int, int, str], None] | None = None,
) -> SweepResult:
    """Return the metric of every item under every cell's edits.

    Args:
        model: the model.
        batch: the items; edits act on them.
        cells: each an edit, or several made together.
        metric: what to read at the output (see `Metric`); one value or m values per item.
        memory_budget: bytes of activations to hold beyond the recording, e.g. "2GiB".
        progress: called with (cells done, cells, message).

    Raises:
        SiteError: a site does not exist.
        EditError: no cells, or an edit that does not fit.

    Example:
        >>> cells = [Edit(f"blocks.{l}.resid_pre", From(clean[f"blocks.{l}.resid_pre"]), positions=p)
        ...          for l in range(8) for p in range(16)]
        >>> result = sweep(model, corrupt, cells, LogitDiff(answers, counterfactuals))
    """
    made = _checked(model, cells)
    tell = progress or (lambda done, total, message: None)
    with torch.no_grad():
        return _Sweep(model, batch, made, metric, parse_bytes(memory_budget), tell).execute()


class _Sweep:
    """One execution: the recording, the plan and the effects filled in."""

    def __init__(self, model: Model, batch: Batch, cells: list[Cell], metric: Metric, budget: int, tell):
        self.model, self.batch, self.cells, self.metric = model, batch, cells, metric
        self.budget, self.tell = budget, tell
        self.reads = read_positions(metric, batch)
        self.blocks = model.anatomy.blocks
        self.items = torch.arange(len(batch), device=self.reads.device)
        self.base_sites: dict[Site, Tensor] = {}

    def execute(self) -> SweepResult:
        """Record, plan, run."""
        reason = blocked_reason(self.model, self.cells)
        if not reason:
            self._record()
            reason = self._self_check()
        if reason:
            return self._whole(reason)
        causal = self.recording.causal
        sequences = make_sequences(self.model, self.cells, self.batch, self.reads, self.base_sites, causal)
        plan_ = make_plan(self.model, self.batch, self.cells, sequences, self.reads, self.budget, "")
        base = self._metric(self._base_final(self.items), self.items)
        effects = base.expand(len(self.cells), *base.shape).clone()
        for first in range(0, len(self.cells), plan_.wave_cells):
            inside = (sequences.cells >= first) & (sequences.cells < first + plan_.wave_cells)
            self._wave(sequences.cells[inside], sequences.rows[inside], sequences.starts[inside], plan_, effects)
            self.tell(min(first + plan_.wave_cells, len(self.cells)), len(self.cells), "sweep")
        return SweepResult(effects, base, plan_)

    # -- what is known before any cell runs

    def _record(self) -> None:
        """One forward: the recording, and the activations at the sites where cells enter."""
        entry = {e.site for c in self.cells for e in c.edits if e.site.block in (c.block, None)}
        needed = {Site(f"blocks.{c.block}.{kind}") for c in self.cells for kind in _needed(c.stage)}
        known = self.model.sites
        read = sorted(s for s in entry | needed if s in known)

        def forward():
            result = run(self.model, self.batch, read=read, logits="all" if self.reads.shape[1] > 1 else "last")
            self.base_sites = dict(result.activations)
            return result.logits

        self.recording = record(self.model, self.batch, forward)

    def _self_check(self) -> str:
        """Replay one unedited row through every block and the head; return what differs, or an empty string."""
        rows = self.items[:1]
        piece = Piece(0, rows, rows, rows, self.recording.resid_pre[0][:1])
        hidden = None
        for i in range(len(self.blocks)):
            try:
                hidden = replay_block(self.model, self.recording, i, [piece])[0]
            except (RuntimeError, TypeError, KeyError, ValueError) as error:
                return f"block {i} cannot be replayed on packed tokens ({str(error).splitlines()[0]})"
            piece = Piece(0, rows, rows, rows, hidden)
        real = self.batch.mask[:1, :, None]
        tolerance = 200 * torch.finfo(hidden.dtype).eps
        want = self.recording.resid_post[len(self.blocks) - 1][:1]
        error = ((hidden - want) * real).abs().max() / (want * real).abs().max().clamp(min=1e-6)
        if not error <= tolerance:
            return f"replaying blocks differs from the recording by {float(error):.1g}"
        logits, tail = self.recording.logits, self._tail(self._base_final(rows))
        full = logits[:1, self.reads[0]] if logits.shape[1] == self.batch.seq else logits[:1]
        if self.reads.shape[1] == 1 and logits.shape[1] == 1 and int(self.reads[0, 0]) != self.batch.seq - 1:
            return ""
        error = (tail - full).abs().max() / full.abs().max().clamp(min=1e-6)
        return "" if error <= tolerance else f"the output head differs from the model's logits by {float(error):.1g}"

    def _base_final(self, rows: Tensor) -> Tensor:
        """Final residual at the read positions of some rows, [n, reads, d]."""
        final = self.recording.resid_post[len(self.blocks) - 1]
        return final[rows[:, None], self.reads[rows]]

    # -- running sequences

    def _wave(self, cells: Tensor, rows: Tensor, starts: Tensor, plan_: Plan, effects: Tensor) -> None:
        """Move one set of sequences through the blocks, joining each at its block."""
        entry = torch.tensor([c.block for c in self.cells], device=cells.device)[cells]
        stage = torch.tensor([("pre", "mid", "post").index(c.stage) for c in self.cells], device=cells.device)[cells]
        pieces: list[Piece] = []
        last = len(self.blocks) - 1
        for i in range(int(entry.min()) if len(entry) else 0, len(self.blocks)):
            pieces += self._enter(i, cells, rows, starts, (entry == i) & (stage == 0), self._pre)
            trim = i == last and self.reads.shape[1] == 1
            pieces = [p for chunk in self._chunks(pieces, plan_.chunk_tokens) for p in self._advance(i, chunk, trim)]
            for number, join in ((1, self._mid), (2, self._post)):
                new = self._enter(i, cells, rows, starts, (entry == i) & (stage == number), join)
                pieces += [self._at_read(p) for p in new] if trim else new
            pieces = _merge(pieces)
        for piece in pieces:
            self._score(piece, plan_, effects)

    def _enter(self, block: int, cells, rows, starts, chosen: Tensor, join) -> list[Piece]:
        """Return new pieces for the sequences that enter at this block and stage, grouped by start."""
        new = []
        ids = chosen.nonzero().squeeze(1)
        for start in starts[ids].unique().tolist():
            mine = ids[starts[ids] == start]
            empty = self.recording.resid_pre[block][rows[mine], start:]
            new.append(join(block, Piece(start, mine, cells[mine], rows[mine], empty)))
        return new

    def _advance(self, block: int, pieces: list[Piece], trim: bool) -> list[Piece]:
        """Run one block on packed pieces with its cells' edits; in the last block only the read positions."""
        with ExitStack() as stack:
            if not trim:
                self._hook_edits(stack, block, pieces, None)
                out = replay_block(self.model, self.recording, block, pieces)
                done = [Piece(p.start, p.ids, p.cells, p.rows, h) for p, h in zip(pieces, out, strict=True)]
                return [self._edit_stream(block, "resid_post", p) for p in done]
            pieces = replay_keys(self.model, self.recording, block, pieces)
            at = self.reads[:, 0]
            self._hook_edits(stack, block, pieces, at)
            out = replay_block(self.model, self.recording, block, pieces, at)
            done = [Piece(p.start, p.ids, p.cells, p.rows, h) for p, h in zip(pieces, out, strict=True)]
            return [self._edit_stream(block, "resid_post", p, trimmed=True) for p in done]

    def _hook_edits(self, stack: ExitStack, block: int, pieces: list[Piece], query_at: Tensor | None) -> None:
        """Apply, while the block is replayed, the edits that cells already running make inside it."""
        present = set(torch.cat([p.cells for p in pieces]).tolist())
        inside = [
            (c, e)
            for c in present
            for e in self.cells[c].edits
            if e.site.block == block and e.site.kind not in ("resid_pre", "resid_post")
        ]
        if not inside:
            return
        if query_at is None:
            cells, rows, positions = packed_index(pieces, self.recording.seq)
        else:
            cells, rows = torch.cat([p.cells for p in pieces]), torch.cat([p.rows for p in pieces])
            positions = query_at[rows]
        b = self.blocks[block]
        inflow: list[Tensor] = []
        stack.callback(
            self.model.module.get_submodule(b.path)
            .register_forward_pre_hook(
                lambda m, a, k: inflow.append(a[0] if a else k["hidden_states"]), with_kwargs=True
            )
            .remove
        )
        for site in sorted({e.site for _, e in inside}, key=lambda s: (s.kind == "resid_mid", s)):
            info = self.model.sites[site]
            mine = [(c, e) for c, e in inside if e.site == site]

            def change(x, info=info, mine=mine):
                tokens = to_tokens(x, info, 1)[0]
                for c, edit in mine:
                    where = ((cells == c) & edit.touches(rows, positions, self.recording.seq)).nonzero().squeeze(1)
                    if where.numel():
                        new = edit.apply(tokens[where], rows[where], positions[where])
                        tokens = tokens.index_copy(0, where, new)
                return from_tokens(tokens[None], x, info)

            module = self.model.module.get_submodule(info.tap.module)
            if info.tap.place == "input":
                handle = module.register_forward_pre_hook(lambda m, a, change=change: (change(a[0]), *a[1:]))
            elif info.tap.place == "output":
                handle = module.register_forward_hook(lambda m, a, o, change=change: change(o))
            else:

                def mid(m, a, o, change=change):
                    total = inflow[-1] + o.view_as(inflow[-1])
                    return o + (change(total) - total).view_as(o)

                handle = module.register_forward_hook(mid)
            stack.callback(handle.remove)

    # -- entering a block

    def _pre(self, block: int, piece: Piece) -> Piece:
        kinds = ("resid_pre", "embed") if block == 0 else ("resid_pre",)
        for kind in kinds:
            piece = self._edit_stream(block, kind, piece)
        return piece

    def _mid(self, block: int, piece: Piece) -> Piece:
        """Enter between attention and MLP: heads -> o -> write, then the block's own MLP."""
        b, at = self.blocks[block], f"blocks.{block}."
        heads = self._tokens(at + "attn.heads", piece)
        out = self.model.module.get_submodule(b.o)(self._edited(at + "attn.heads", piece, heads).flatten(-2))
        out = self._edited(at + "attn.out", piece, out)
        write = out if b.attn_write == b.o else first_tensor(self.model.module.get_submodule(b.attn_write)(out))
        write = self._edited(at + "attn.write", piece, write)
        if b.parallel:
            delta = write - self._tokens(self._write_site(block, "attn"), piece) + self._mlp_change(block, piece)
            return self._leave(block, piece, self._tokens(at + "resid_post", piece) + delta)
        mid = self._edited(at + "resid_mid", piece, piece.hidden + write)
        moved = Piece(piece.start, piece.ids, piece.cells, piece.rows, mid)
        if self._is_last_trimmed(block):
            moved = self._at_read(moved)
        with ExitStack() as stack:
            self._hook_mlp(stack, block, moved)
            mlp = run_chain(self.model.module, b.mlp_path, moved.hidden.reshape(1, moved.tokens, -1))
        return self._leave(block, moved, moved.hidden + mlp.view_as(moved.hidden))

    def _post(self, block: int, piece: Piece) -> Piece:
        """Enter at the MLP's output."""
        post = self._tokens(f"blocks.{block}.resid_post", piece)
        return self._leave(block, piece, post + self._mlp_change(block, piece))

    def _mlp_change(self, block: int, piece: Piece) -> Tensor | float:
        """What the cells' edits of neurons, mlp.out and mlp.write add to the stream: neurons -> down -> write."""
        b, at = self.blocks[block], f"blocks.{block}."
        edits = [e for c in piece.cells.unique().tolist() for e in self.cells[c].edits]
        kinds = {e.site.kind for e in edits if e.site.block == block}
        if not any(kind.startswith("mlp.") for kind in kinds):
            return 0.0
        if b.down and "mlp.neurons" in kinds:
            neurons = self._edited(at + "mlp.neurons", piece, self._tokens(at + "mlp.neurons", piece))
            out = self.model.module.get_submodule(b.down)(neurons)
        else:
            out = self._tokens(at + "mlp.out", piece)
        out = self._edited(at + "mlp.out", piece, out)
        write = out if b.mlp_write == b.mlp_out else first_tensor(self.model.module.get_submodule(b.mlp_write)(out))
        return self._edited(at + "mlp.write", piece, write) - self._tokens(self._write_site(block, "mlp"), piece)

    def _leave(self, block: int, piece: Piece, post: Tensor) -> Piece:
        done = Piece(piece.start, piece.ids, piece.cells, piece.rows, post)
        return self._edit_stream(block, "resid_post", done, trimmed=post.shape[1] != self.recording.seq - piece.start)

    def _is_last_trimmed(self, block: int) -> bool:
        return block == len(self.blocks) - 1 and self.reads.shape[1] == 1

    def _write_site(self, block: int, part: str) -> str:
        named = f"blocks.{block}.{part}.write"
        return named if Site(named) in self.model.sites else f"blocks.{block}.{part}.out"

    def _hook_mlp(self, stack: ExitStack, block: int, piece: Piece) -> None:
        """Edits inside the MLP by cells that entered at mid."""
        wanted = [
            e
            for c in piece.cells.unique().tolist()
            for e in self.cells[c].edits
            if e.site.block == block and e.site.kind.startswith("mlp.")
        ]
        if wanted:
            trimmed = piece.hidden.shape[1] != self.recording.seq - piece.start
            self._hook_edits(stack, block, [piece], self.reads[:, 0] if trimmed else None)

    # -- small pieces of arithmetic

    def _tokens(self, site: str, piece: Piece) -> Tensor:
        """Base activations of a site for the tokens of a piece, [n, length, *unit shape]."""
        if site.endswith("resid_post"):
            base = self.recording.resid_post[Site(site).block]
        else:
            base = self.base_sites[Site(site)]
        return base[piece.rows, piece.start :]

    def _edited(self, site: str, piece: Piece, x: Tensor) -> Tensor:
        """Return x [n, length, ...] with the edits that the piece's cells make at `site`."""
        site = Site(site)
        n, length = x.shape[:2]
        trimmed = length != self.recording.seq - piece.start
        out = None
        for c in piece.cells.unique().tolist():
            for edit in self.cells[c].edits:
                if edit.site != site:
                    continue
                flat = x.reshape(n * length, *x.shape[2:]) if out is None else out
                cells, rows, positions = self._index(piece, length, trimmed)
                where = ((cells == c) & edit.touches(rows, positions, self.recording.seq)).nonzero().squeeze(1)
                if where.numel():
                    new = edit.apply(flat[where], rows[where], positions[where])
                    out = flat.index_copy(0, where, new.to(flat.dtype))
        return x if out is None else out.reshape(x.shape)

    def _index(self, piece: Piece, length: int, trimmed: bool) -> tuple[Tensor, Tensor, Tensor]:
        if trimmed:
            return piece.cells, piece.rows, self.reads[piece.rows, 0]
        return packed_index([piece], self.recording.seq)

    def _edit_stream(self, block: int, kind: str, piece: Piece, trimmed: bool = False) -> Piece:
        site = kind if kind == "embed" else f"blocks.{block}.{kind}"
        hidden = self._edited(site, piece, piece.hidden)
        if kind == "resid_post" and block + 1 < len(self.blocks):  # the same tensor under its other name
            hidden = self._edited(
                f"blocks.{block + 1}.resid_pre", Piece(piece.start, piece.ids, piece.cells, piece.rows, hidden), hidden
            )
        return Piece(piece.start, piece.ids, piece.cells, piece.rows, hidden)

    def _at_read(self, piece: Piece) -> Piece:
        if piece.hidden.shape[1] == 1 and piece.start != self.recording.seq - 1:
            return piece
        at = self.reads[piece.rows, 0] - piece.start
        hidden = piece.hidden[torch.arange(piece.rows.numel(), device=at.device), at][:, None]
        return Piece(piece.start, piece.ids, piece.cells, piece.rows, hidden)

    def _chunks(self, pieces: list[Piece], limit: int) -> list[list[Piece]]:
        """Cut pieces into lists of at most `limit` tokens."""
        chunks, current, held = [], [], 0
        for piece in _merge(pieces):
            length = piece.hidden.shape[1]
            at = 0
            while at < piece.rows.numel():
                room = max(1, (limit - held) // length)
                part = slice(at, at + room)
                cut = Piece(piece.start, piece.ids[part], piece.cells[part], piece.rows[part], piece.hidden[part])
                current.append(cut)
                held += cut.tokens
                at += room
                if held + length > limit:
                    chunks.append(current)
                    current, held = [], 0
        return [*chunks, current] if current else chunks

    def _score(self, piece: Piece, plan_: Plan, effects: Tensor) -> None:
        """Head and metric for the sequences of a piece, in chunks under the budget."""
        final = piece.hidden
        if self.reads.shape[1] > 1:
            at = self.reads[piece.rows] - piece.start
            held = final.gather(1, at.clamp(min=0)[..., None].expand(-1, -1, final.shape[2]))
            final = torch.where((at >= 0)[..., None], held, self._base_final(piece.rows))
        else:
            final = self._at_read(piece).hidden
        size = max(1, int(self.budget // 4 // (final.shape[1] * self.model.anatomy.vocab * final.element_size())))
        for part in torch.arange(piece.rows.numel(), device=final.device).split(size):
            effects[piece.cells[part], piece.rows[part]] = self._metric(final[part], piece.rows[part])

    def _metric(self, final: Tensor, rows: Tensor) -> Tensor:
        return self.metric(self._tail(final), rows)

    def _tail(self, final: Tensor) -> Tensor:
        logits = run_chain(self.model.module, self.model.anatomy.tail, final)
        config = getattr(self.model.module, "config", None)
        cap = getattr(getattr(config, "text_config", config), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    # -- fallback

    def _whole(self, reason: str) -> SweepResult:
        """Full forwards, several cells packed in the batch axis."""
        n = len(self.batch)
        empty = torch.zeros(0, dtype=torch.long, device=self.reads.device)
        none = Sequences(empty, empty, empty)
        plan_ = make_plan(self.model, self.batch, self.cells, none, self.reads, self.budget, reason)
        base = self._whole_metric(self.batch, [], 1)[0]
        effects = []
        weighted = any(e.site in self.model.weights for c in self.cells for e in c.edits)
        size = 1 if weighted else plan_.wave_cells
        for first in range(0, len(self.cells), size):
            group = self.cells[first : first + size]
            bound = [Bound(e, k * n, (k + 1) * n) for k, c in enumerate(group) for e in c.edits]
            effects += self._whole_metric(self.batch.repeat(len(group)), bound, len(group))
            self.tell(first + len(group), len(self.cells), "sweep (whole forwards)")
        return SweepResult(torch.stack(effects), base, plan_)

    def _whole_metric(self, batch: Batch, bound: list[Bound], cells: int) -> list[Tensor]:
        logits = run(self.model, batch, bound=bound).logits
        if logits.ndim == 2:
            logits = logits[:, None]
        n = len(self.batch)
        out = []
        for k in range(cells):
            own = logits[k * n : (k + 1) * n]
            read = own[self.items[:, None], self.reads] if own.shape[1] > 1 else own
            out.append(self.metric(read, self.items))
        return out


def _needed(stage: str) -> tuple[str, ...]:
    """Sites of the entry block whose base activations entering at a stage needs."""
    mlp = ("mlp.neurons", "mlp.out", "mlp.write")
    return {"pre": (), "mid": ("attn.heads", "attn.out", "attn.write", *mlp), "whole": (), "post": mlp}[stage]


def _merge(pieces: list[Piece]) -> list[Piece]:
    """Join pieces that start at the same position and hold the same length."""
    groups: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.start, piece.hidden.shape[1]), []).append(piece)
    return [
        same[0]
        if len(same) == 1
        else Piece(start, *(torch.cat([getattr(p, name) for p in same]) for name in ("ids", "cells", "rows", "hidden")))
        for (start, _), same in sorted(groups.items())
    ]
