"""The growing batch of a sweep: sequences enter at their block, one packed pass a block moves all of them on.

A sequence enters before a block (`pre`), between its attention and its MLP (`mid`), or after it (`post`); what lies
before is taken from the recording. Edits at later blocks are applied by hooks while those blocks are replayed. The last
block is computed only at the position read, where there is one.
"""

from contextlib import ExitStack

import torch
from torch import Tensor

from microtome.core.site import Site
from microtome.engine.edit import edit_tokens
from microtome.engine.layout import from_tokens, to_tokens
from microtome.engine.plan import ORDER, Cell, Sequences
from microtome.engine.replay import Piece, Recording, packed_index, replay_block, replay_keys
from microtome.models.model import Model
from microtome.models.trace import first_tensor
from microtome.models.verify import run_chain

__all__ = ["Packed"]


class Packed:
    """Runs the sequences of a plan from a recording.

    Args:
        model: the model.
        recording: the recorded forward of the unedited batch.
        base_sites: activations of the unedited batch at the sites where cells enter.
        cells: the sweep's cells.
        reads: positions the metric looks at, [batch, n].
        chunk_tokens: most tokens in one block call.
    """

    def __init__(
        self,
        model: Model,
        recording: Recording,
        base_sites: dict[Site, Tensor],
        cells: list[Cell],
        reads: Tensor,
        chunk_tokens: int,
    ):
        self.model, self.recording, self.base_sites = model, recording, base_sites
        self.cells, self.reads, self.chunk_tokens = cells, reads, chunk_tokens
        self.blocks = model.anatomy.blocks

    def run(self, sequences: Sequences) -> list[Piece]:
        """Move sequences through the blocks, joining each at its block; return them at the end of the last block."""
        cells, rows, starts = sequences.cells, sequences.rows, sequences.starts
        entry = torch.tensor([c.block for c in self.cells], device=cells.device)[cells]
        stage = torch.tensor([list(ORDER).index(c.stage) for c in self.cells], device=cells.device)[cells]
        pieces: list[Piece] = []
        last = len(self.blocks) - 1
        for i in range(int(entry.min()) if len(entry) else 0, len(self.blocks)):
            pieces += self._enter(i, cells, rows, starts, (entry == i) & (stage == 0), self._pre)
            trim = i == last and self.reads.shape[1] == 1
            pieces = [p for chunk in self._chunks(pieces, self.chunk_tokens) for p in self._advance(i, chunk, trim)]
            for number, join in ((1, self._mid), (2, self._post)):
                new = self._enter(i, cells, rows, starts, (entry == i) & (stage == number), join)
                pieces += [self.at_read(p) for p in new] if trim else new
            pieces = _merge(pieces)
        return pieces

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
                return from_tokens(edit_tokens(tokens, mine, cells, rows, positions, self.recording.seq)[None], x, info)

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
            moved = self.at_read(moved)
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
        edits = [(c, e) for c in piece.cells.unique().tolist() for e in self.cells[c].edits if e.site == site]
        if not edits:
            return x
        if x.shape[1] != self.recording.seq - piece.start:  # only the position read is left
            index = (piece.cells, piece.rows, self.reads[piece.rows, 0])
        else:
            index = packed_index([piece], self.recording.seq)
        return edit_tokens(x.flatten(0, 1), edits, *index, self.recording.seq).reshape(x.shape)

    def _edit_stream(self, block: int, kind: str, piece: Piece, trimmed: bool = False) -> Piece:
        site = kind if kind == "embed" else f"blocks.{block}.{kind}"
        hidden = self._edited(site, piece, piece.hidden)
        if kind == "resid_post" and block + 1 < len(self.blocks):  # the same tensor under its other name
            hidden = self._edited(
                f"blocks.{block + 1}.resid_pre", Piece(piece.start, piece.ids, piece.cells, piece.rows, hidden), hidden
            )
        return Piece(piece.start, piece.ids, piece.cells, piece.rows, hidden)

    def at_read(self, piece: Piece) -> Piece:
        """Return the piece with only the position read, where one position is read."""
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
