"""Plan a sweep: which sequences must be run again, from which block and position, and what it will cost.

A cell is one or several edits; run on every row of the batch it changes nothing before its first touched block and
position. So each (cell, row) becomes a sequence (block, stage, start position): `pre` enters a block with an edited
residual, `mid` enters between attention and MLP (edits of heads, attn.out, resid_mid), `post` leaves the block with an
edited MLP output. A cell of edits behind the last block (`tail`) enters no block and has no sequences. Where the new
activation is bit-identical to the old one the row is not run at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import EditError
from microtome.core.site import Site
from microtome.engine.edit import Edit
from microtome.engine.layout import to_tokens
from microtome.engine.tail import tail_sites
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Cell", "Plan", "Sequences", "make_plan", "parse_bytes", "read_positions"]

STAGES = {
    "embed": "pre",
    "resid_pre": "pre",
    "attn.heads": "mid",
    "attn.out": "mid",
    "attn.write": "mid",
    "resid_mid": "mid",
    "mlp.gate": "pre",
    "mlp.up": "pre",
    "mlp.neurons": "post",
    "mlp.out": "post",
    "mlp.write": "post",
    "resid_post": "post",
}
ORDER = {"pre": 0, "mid": 1, "post": 2, "tail": 3}


@dataclass(frozen=True)
class Cell:
    """One sweep cell: its edits, and where the first of them acts."""

    edits: tuple[Edit, ...]
    block: int
    stage: str


@dataclass(frozen=True)
class Sequences:
    """The (cell, row) pairs to run: cell, row, first changed position, each [n]."""

    cells: Tensor
    rows: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Plan:
    """How a sweep will be run, and its cost.

    Attributes:
        mode: "replay" (blocks from the cached residual) or "whole" (full forwards, cells packed in the batch axis).
        reason: why whole forwards are needed, where they are.
        cells: number of cells.
        rows: batch rows.
        seq: sequence length.
        block_tokens: tokens that pass each block.
        head_tokens: tokens that pass the output head.
        skipped: (cell, row) pairs that change nothing and are not run.
        chunk_tokens: most tokens packed into one block call.
        wave_cells: cells run together.
        budget: bytes allowed for activations beyond the recording.
        peak_bytes: estimate of the most bytes held at once, of the budget.
        recorded_bytes: about what the recording holds beside the budget: residuals, keys and values of the rows.
        flops: multiply-adds times two of the plan, of full forwards for every cell, and of the exact floor (no queries
            computed in the last block but the ones read).
    """

    mode: str
    reason: str
    cells: int
    rows: int
    seq: int
    block_tokens: tuple[int, ...]
    head_tokens: int
    skipped: int
    chunk_tokens: int
    wave_cells: int
    budget: int
    peak_bytes: int
    recorded_bytes: int
    flops: dict[str, float]

    def explain(self) -> str:
        """Return the plan in words: mode, tokens, FLOPs against naive and the floor, bytes."""
        naive = self.flops["naive"]
        full = self.cells * self.rows * self.seq * len(self.block_tokens)
        replays = self.mode == "replay"
        how = "replays blocks from the cached residual" if replays else f"runs whole forwards: {self.reason}"
        lines = [
            f"sweep of {self.cells} cells x {self.rows} rows x {self.seq} positions: {how}",
            f"  skipped: {self.skipped} of {self.cells * self.rows} (cell, row) pairs change nothing",
            f"  block tokens: {sum(self.block_tokens):,} of {full:,} in full forwards; "
            f"head tokens: {self.head_tokens:,}",
            f"  FLOPs: planned {self.flops['planned']:.3g} = {self.flops['planned'] / naive:.3f} of naive {naive:.3g}; "
            f"floor {self.flops['floor'] / naive:.3f}",
            f"  memory: about {_bytes(self.peak_bytes)} at most of a budget of {_bytes(self.budget)}; "
            f"{self.wave_cells} cells at a time, {self.chunk_tokens:,} tokens a block call",
            *([f"  beside it: about {_bytes(self.recorded_bytes)} of recorded activations"] if replays else []),
        ]
        return "\n".join(lines)


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def parse_bytes(text: int | str) -> int:
    """Return a number of bytes from 1073741824, "1GiB", "512MB".

    Raises:
        EditError: the text is not a size.
    """
    if isinstance(text, int):
        return text
    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    number = text.strip().rstrip("BKMGTIbkmgti").strip()
    unit = text.strip()[len(number) :].strip().upper() or "B"
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise EditError(f"memory_budget='{text}' is not a size; write for example '2GiB' or a number of bytes.")
    return int(float(number) * units[unit])


def read_positions(metric, batch: Batch) -> Tensor:
    """Return the positions a metric looks at, [batch, n]."""
    if isinstance(metric.positions, str):
        return batch.last[:, None]
    return metric.positions.reshape(len(batch), -1).to(batch.mask.device)


def as_cell(edits: "Edit | Sequence[Edit]", model: Model) -> Cell:
    """Return a cell with its first block and stage; block -1 when its sites are not ones a replay knows."""
    edits = (edits,) if isinstance(edits, Edit) else tuple(edits)
    sites = [Site("blocks.0.resid_pre") if e.site.path == "embed" else e.site for e in edits]
    inside = [s for s in sites if s not in tail_sites(model)]
    if sites and not inside:
        return Cell(edits, len(model.anatomy.blocks), "tail")
    sites = inside
    if not sites or any(s.block is None or s.kind not in STAGES or s in model.weights for s in sites):
        return Cell(edits, -1, "whole")
    block = min(s.block for s in sites)
    stage = min((STAGES[s.kind] for s in sites if s.block == block), key=ORDER.__getitem__)
    return Cell(edits, block, _enterable(model, block, stage))


def _enterable(model: Model, block: int, stage: str) -> str:
    """Return the stage, or `pre` where the block cannot be entered in its middle."""
    b = model.anatomy.blocks[block]
    if b.post_norm or (stage == "mid" and not b.parallel and b.mlp_path is None) or b.mlp_write is None:
        return "pre"
    return stage


def blocked_reason(model: Model, cells: list[Cell]) -> str:
    """Return why cells cannot be replayed, or an empty string."""
    a = model.anatomy
    if a.kind != "transformer" or a.tail is None:
        return a.missing.get("tail", "the model's parts were not found")
    if any(b.attention != "sdpa" for b in a.blocks):
        return "attention is eager; load the model with attn='sdpa' to replay blocks"
    bad = next((str(e.site) for c in cells if c.block < 0 for e in c.edits), None)
    return f"'{bad}' is not a site a block can be entered at" if bad else ""


def changed_tokens(model: Model, cell: Cell, batch: Batch, base: dict[Site, Tensor] | None) -> Tensor:
    """Return a mask [batch, seq] of positions that a cell's edits change at its sites.

    With the base activations of the site of a single edit, positions whose new value is bit-identical are not counted.
    """
    n, seq = len(batch), batch.seq
    device = batch.mask.device
    rows = torch.arange(n, device=device).repeat_interleave(seq)
    positions = torch.arange(seq, device=device).repeat(n)
    touched = torch.zeros(n * seq, dtype=torch.bool, device=device)
    for edit in cell.edits:
        touched |= edit.touches(rows, positions, seq)
    if base is not None and len(cell.edits) == 1 and cell.edits[0].site in base:
        info = model.select(cell.edits[0].site)[0]
        old = to_tokens(base[cell.edits[0].site], info, n).flatten(0, 1)[touched]
        new = cell.edits[0].apply(old, rows[touched], positions[touched])
        touched[touched.clone()] = (new != old).flatten(1).any(1)
    return touched.reshape(n, seq)


def make_sequences(
    model: Model, cells: list[Cell], batch: Batch, reads: Tensor, base: dict[Site, Tensor] | None, causal: bool
) -> Sequences:
    """Return the sequences that must be run: those whose first changed position does not lie after every read."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    last = reads.max(1).values
    for c, cell in enumerate(cells):
        if cell.stage == "tail":
            continue
        changed = changed_tokens(model, cell, batch, base)
        start = changed.int().argmax(1)
        live = changed.any(1) & ((start <= last) if causal else torch.ones_like(last, dtype=torch.bool))
        rows = live.nonzero().squeeze(1)
        starts = start[rows] if causal else torch.zeros_like(rows)
        found.append((torch.full_like(rows, c), rows, starts))
    if not found:
        none = torch.zeros(0, dtype=torch.long, device=last.device)
        return Sequences(none, none, none)
    return Sequences(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def block_flops(model: Model) -> tuple[float, float, float]:
    """Return multiply-adds x 2 per token of one block, of the head, and of a block's query and output projections."""
    a = model.anatomy
    module = model.module
    per_block = 2.0 * sum(p.numel() for p in module.get_submodule(a.blocks[0].path).parameters() if p.ndim >= 2)
    b = a.blocks[0]
    return per_block, 2.0 * a.d_model * a.vocab, 2.0 * a.d_model * b.heads * b.d_head


def make_plan(
    model: Model, batch: Batch, cells: list[Cell], sequences: Sequences, reads: Tensor, budget: int, reason: str
) -> Plan:
    """Return the plan and its cost for sequences already found."""
    a, n, seq = model.anatomy, len(batch), batch.seq
    layers = max(len(a.blocks), 1)
    item = model.dtype.itemsize
    per_block, per_head, per_query = block_flops(model) if a.blocks else (0.0, 0.0, 0.0)
    naive = len(cells) * n * seq * (layers * per_block + per_head)
    width = a.d_model * 6 + max((3 * b.d_mlp + 4 * b.heads * b.d_head for b in a.blocks), default=0)
    per_token = item * max(width, 1)
    cap = 4096 if model.device.type == "cpu" else 65536
    chunk = int(max(seq, min(cap, budget // 2 // per_token)))
    if reason:
        wave = int(max(1, min(len(cells), budget // 2 // max(1, per_token * n * seq + n * seq * a.vocab * item))))
        total = len(cells) * n * seq
        flops = {"naive": naive, "planned": naive, "floor": naive}
        return Plan(
            "whole",
            reason,
            len(cells),
            n,
            seq,
            (total,) * layers,
            total,
            0,
            chunk,
            wave,
            budget,
            wave * n * seq * (per_token + a.vocab * item),
            0,
            flops,
        )
    lengths = seq - sequences.starts
    block = torch.tensor([c.block for c in cells], device=lengths.device)[sequences.cells]
    tokens = [int(lengths[block <= i].sum()) for i in range(layers)]
    tails = n * sum(c.stage == "tail" for c in cells)
    read_tokens = (sequences.cells.numel() + tails) * reads.shape[1]
    held = int(lengths.sum()) / max(1, len(cells)) * a.d_model * item
    wave = int(max(1, min(len(cells), budget // 2 // max(1, int(3 * held)))))
    trimmed = reads.shape[1] == 1
    keys = tokens[-1] * 2 * a.d_model * 2 * a.blocks[-1].kv_heads * a.blocks[-1].d_head
    last_tokens = sequences.cells.numel() if trimmed else tokens[-1]
    last = keys + last_tokens * per_block if trimmed else tokens[-1] * per_block
    floor = sum(tokens[:-1]) * per_block + last + read_tokens * per_head
    planned = floor + (tokens[-1] * per_query if trimmed else 0)
    flops = {"naive": naive, "planned": planned, "floor": floor}
    peak = int(min(wave * held * 3, budget) + min(chunk, sum(tokens)) * per_token)
    return Plan(
        "replay",
        "",
        len(cells),
        n,
        seq,
        (*tokens[:-1], last_tokens),
        read_tokens,
        len(cells) * n - sequences.cells.numel() - tails,
        chunk,
        wave,
        budget,
        peak,
        n * seq * item * sum(2 * a.d_model + 2 * b.kv_heads * b.d_head for b in a.blocks),
        flops,
    )
