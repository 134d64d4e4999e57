"""sweep: many edits, one metric - planned, then executed from cached residuals.

    effects[c, i] = metric of item i under cell c's edits

One recorded forward gives every block's arguments, residuals, keys and values. Cells then join a growing batch: at
block l the sequences whose first edit is at l are added, and one packed pass moves all of them through the block. The
last block computes only the positions the metric reads; cells edited behind it run the head alone. Results equal one
full forward per cell to rounding; a replay of an unedited row is compared with the recording before every sweep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.protocols import Metric
from microtome.core.site import Site
from microtome.engine.edit import Edit
from microtome.engine.packed import Packed
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
from microtome.engine.replay import Piece, record, replay_block
from microtome.engine.run import Bound, run
from microtome.engine.tail import Tail, replay_tail, tail_sites
from microtome.models.batch import Batch
from microtome.models.model import Model

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
        self.tail = Tail(model, [c.edits for c in cells], self.reads, batch.seq)

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
        base = self.metric(replay_tail(self.model, self._base_final(self.items)), self.items)
        effects = base.expand(len(self.cells), *base.shape).clone()
        self._score_tails(effects)
        packed = Packed(self.model, self.recording, self.base_sites, self.cells, self.reads, plan_.chunk_tokens)
        for first in range(0, len(self.cells), plan_.wave_cells):
            inside = (sequences.cells >= first) & (sequences.cells < first + plan_.wave_cells)
            chosen = Sequences(sequences.cells[inside], sequences.rows[inside], sequences.starts[inside])
            for piece in packed.run(chosen):
                self._score(piece, packed, effects)
            self.tell(min(first + plan_.wave_cells, len(self.cells)), len(self.cells), "sweep")
        return SweepResult(effects, base, plan_)

    # -- what is known before any cell runs

    def _record(self) -> None:
        """One forward: the recording, and the activations at the sites where cells enter."""
        behind = tail_sites(self.model)
        entry = {e.site for c in self.cells for e in c.edits if e.site.block in (c.block, None)} - behind
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
        logits, tail = self.recording.logits, replay_tail(self.model, self._base_final(rows))
        full = logits[:1, self.reads[0]] if logits.shape[1] == self.batch.seq else logits[:1]
        if self.reads.shape[1] == 1 and logits.shape[1] == 1 and int(self.reads[0, 0]) != self.batch.seq - 1:
            return ""
        error = (tail - full).abs().max() / full.abs().max().clamp(min=1e-6)
        return "" if error <= tolerance else f"the output head differs from the model's logits by {float(error):.1g}"

    def _base_final(self, rows: Tensor) -> Tensor:
        """Final residual at the read positions of some rows, [n, reads, d]."""
        final = self.recording.resid_post[len(self.blocks) - 1]
        return final[rows[:, None], self.reads[rows]]

    def _score(self, piece: Piece, packed: Packed, effects: Tensor) -> None:
        """Head and metric for the sequences of a piece, in chunks under the budget."""
        final = piece.hidden
        if self.reads.shape[1] > 1:
            at = self.reads[piece.rows] - piece.start
            held = final.gather(1, at.clamp(min=0)[..., None].expand(-1, -1, final.shape[2]))
            final = torch.where((at >= 0)[..., None], held, self._base_final(piece.rows))
        else:
            final = packed.at_read(piece).hidden
        for part in torch.arange(piece.rows.numel(), device=final.device).split(self._at_once()):
            self._put(effects, final[part], piece.rows[part], piece.cells[part])

    def _score_tails(self, effects: Tensor) -> None:
        """Head and metric for cells that are edited behind the last block only, from the recorded final residual."""
        tails = [c for c, cell in enumerate(self.cells) if cell.stage == "tail"]
        cells = torch.tensor(tails, dtype=torch.long, device=self.items.device).repeat_interleave(len(self.items))
        rows = self.items.repeat(len(tails))
        for part in torch.arange(len(rows), device=rows.device).split(self._at_once()):
            self._put(effects, self._base_final(rows[part]), rows[part], cells[part])

    def _put(self, effects: Tensor, final: Tensor, rows: Tensor, cells: Tensor) -> None:
        effects[cells, rows] = self.metric(self.tail(final, rows, cells), rows)

    def _at_once(self) -> int:
        """Rows whose logits fit in a quarter of the budget."""
        return max(
            1, int(self.budget // 4 // (self.reads.shape[1] * self.model.anatomy.vocab * self.model.dtype.itemsize))
        )

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
    mid = ("attn.heads", "attn.out", "attn.write", *mlp)
    return {"pre": (), "mid": mid, "whole": (), "post": mlp, "tail": ()}[stage]
