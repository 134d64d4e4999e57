"""Replay: run single blocks again from a recorded forward, on chosen positions of chosen rows, exactly.

A block called with its recorded arguments gives its recorded output. So a sweep can start at any block from the cached
residual. Within a block everything but attention works token by token; so the tokens of many sequences, each a suffix
of a row, are packed into one row [1, tokens, d], the arguments that belong to positions (rotary tables, position ids)
are gathered to match, and the block's own attention call is intercepted: each sequence attends to the recorded keys and
values of its earlier positions and to its own. The model's code and its kernels are used as they are.

Exact for causal attention (a position never sees later ones); bidirectional models are replayed with whole rows.
"""

from collections.abc import Callable, Container
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from microtome.engine.attention import as_heads, sdpa_arguments
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.trace import first_tensor

__all__ = [
    "Piece",
    "Recording",
    "at_positions",
    "call_frozen",
    "record",
    "replay_block",
    "replay_keys",
]


@dataclass(frozen=True)
class Piece:
    """Sequences that start at the same position.

    Attributes:
        start: first position held; positions start..seq-1 are held.
        ids: which sequences, [n] (into the plan's list).
        cells: the sweep cell of each, [n].
        rows: the batch row of each, [n].
        hidden: residual stream, [n, seq - start, d_model].
        keys: in the last block, the keys and values of these positions, once computed.
    """

    start: int
    ids: Tensor
    cells: Tensor
    rows: Tensor
    hidden: Tensor
    keys: tuple[Tensor, Tensor] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens held."""
        return self.hidden.shape[0] * self.hidden.shape[1]


@dataclass
class Recording:
    """One recorded forward: for each block its arguments, residuals and attention call."""

    batch: Batch
    arguments: dict[int, tuple[tuple, dict]] = field(default_factory=dict)
    resid_pre: dict[int, Tensor] = field(default_factory=dict)
    resid_post: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, dict] = field(default_factory=dict)
    logits: Tensor | None = None
    causal: bool = True

    @property
    def seq(self) -> int:
        """Sequence length."""
        return self.batch.seq


class _Record(TorchFunctionMode):
    """Keep the arguments of the attention call of some blocks, and whether all of them are causal."""

    def __init__(self, into: dict[int, dict], blocks: Container[int] | None):
        super().__init__()
        self.into, self.blocks, self.block, self.causal = into, blocks, None, True

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.block is not None and func is F.scaled_dot_product_attention:
            call = sdpa_arguments(args, kwargs or {})
            self.causal = self.causal and _is_causal(call)
            if self.blocks is None or self.block in self.blocks:
                self.into[self.block] = {k: v for k, v in call.items() if k != "query"}
        return func(*args, **(kwargs or {}))


def record(
    model: Model, batch: Batch, forward: Callable[[], Tensor | None], blocks: Container[int] | None = None
) -> Recording:
    """Run `forward` (a plain run of `model` on `batch`, giving logits) and keep what replaying needs.

    Args:
        model: the model.
        batch: the prompts.
        forward: the run.
        blocks: which blocks will be replayed; None means all.
    """
    out = Recording(batch)
    mode = _Record(out.attention, blocks)
    modules = dict(model.module.named_modules())

    def before(i):
        def hook(module, args, kwargs):
            mode.block = i
            if blocks is None or i in blocks:
                out.arguments[i] = (args, kwargs)
                out.resid_pre[i] = args[0] if args else kwargs["hidden_states"]

        return hook

    def after(i):
        def hook(module, args, output):
            mode.block = None
            if blocks is None or i in blocks:
                out.resid_post[i] = first_tensor(output)

        return hook

    with ExitStack() as stack:
        for i, block in enumerate(model.anatomy.blocks):
            module = modules[block.path]
            stack.callback(module.register_forward_pre_hook(before(i), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after(i)).remove)
        with mode:
            out.logits = forward()
    out.causal = mode.causal
    return out


def _is_causal(call: dict) -> bool:
    mask = call["attn_mask"]
    if mask is None:
        return call["is_causal"] or call["key"].shape[-2] == 1
    hidden = ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
    upper = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).triu(1)
    return bool((hidden | ~upper).all())


def _align(value: object, rows: Tensor, positions: Tensor, batch: int, seq: int) -> object:
    """Return a recorded argument for packed tokens: position-wise tensors gathered, square masks dropped."""
    if isinstance(value, tuple | list):
        return type(value)(_align(v, rows, positions, batch, seq) for v in value)
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 4 and value.shape[-1] == seq and value.shape[-2] in (1, seq):
        return None
    if value.ndim >= 2 and value.shape[0] in (1, batch) and value.shape[1] == seq:
        row = rows if value.shape[0] > 1 else torch.zeros_like(rows)
        return value[row, positions][None]
    if value.ndim == 1 and value.shape[0] == seq:
        return value[positions]
    return value


def call_frozen(module: nn.Module, *args, **kwargs):
    """Call a module; where a graph is being built, its weights take no part in it."""
    if not torch.is_grad_enabled():
        return module(*args, **kwargs)
    named = module.named_parameters(remove_duplicate=False)
    weights = {name: p.detach() for name, p in named if p.requires_grad and p.device.type != "meta"}
    return torch.func.functional_call(module, weights, args, kwargs) if weights else module(*args, **kwargs)


def _call_block(module, recording: Recording, block: int, flat: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    args, kwargs = recording.arguments[block]
    n = len(recording.batch)

    def fit(v):
        return _align(v, rows, positions, n, recording.seq)

    if args:
        args = (flat, *[fit(a) for a in args[1:]])
        kwargs = {k: fit(v) for k, v in kwargs.items()}
    else:
        kwargs = {k: flat if k == "hidden_states" else fit(v) for k, v in kwargs.items()}
    return first_tensor(call_frozen(module, *args, **kwargs))


def packed_index(pieces: list[Piece], seq: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (cells, rows, positions) of the packed tokens of some pieces, each [tokens]."""
    cells = torch.cat([p.cells.repeat_interleave(p.hidden.shape[1]) for p in pieces])
    rows = torch.cat([p.rows.repeat_interleave(p.hidden.shape[1]) for p in pieces])
    positions = torch.cat([torch.arange(p.start, seq, device=p.rows.device).repeat(p.rows.numel()) for p in pieces])
    return cells, rows, positions


_FEW = 4  # queries of a sequence


class _Packed(TorchFunctionMode):
    """Answer a block's attention call on packed tokens, sequence by sequence (grouped by start)."""

    def __init__(self, recording: Recording, block: int, pieces: list[Piece], query_at: Tensor | None):
        super().__init__()
        self.base, self.pieces, self.query_at = recording.attention[block], pieces, query_at
        self.seq = recording.seq

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        call = sdpa_arguments(args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return self._attend(call)

    def _attend(self, call: dict) -> Tensor:
        outputs, at = [], 0
        for piece in self.pieces:
            n = piece.rows.numel()
            length = self.query_at.shape[1] if self.query_at is not None else piece.hidden.shape[1]
            q = _unpack(call["query"], at, n, length)
            if self.query_at is None:
                k, v = (_unpack(call[name], at, n, length) for name in ("key", "value"))
            else:
                k, v = piece.keys
            at += n * length
            attend = self._few if torch.is_grad_enabled() and piece.start and length <= _FEW else self._kernel
            out = attend(q, k, v, piece, call["scale"], self._mask(piece, length))
            outputs.append(out.transpose(0, 1).reshape(out.shape[1], n * length, out.shape[3]))
        return torch.cat(outputs, 1)[None]

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor, piece: Piece, scale: float | None, mask: dict) -> Tensor:
        """Attend to the earlier positions and the piece's own by torch's kernel."""
        if piece.start:
            k = torch.cat([self._prefix("key", piece, k.shape[1]), k], 2)
            v = torch.cat([self._prefix("value", piece, v.shape[1]), v], 2)
        return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=k.shape[1] != q.shape[1], **mask)

    def _few(self, q: Tensor, k: Tensor, v: Tensor, piece: Piece, scale: float | None, mask: dict) -> Tensor:
        """Attend from a few positions by hand: the kernel would work out gradients of all the earlier keys and values.

        The heads that share keys and values are taken as more queries.
        """
        heads, length = k.shape[1], q.shape[2]
        earlier_k, earlier_v = (self._prefix(name, piece, heads) for name in ("key", "value"))
        asked = q.unflatten(1, (heads, -1)).flatten(2, 3)
        scores = torch.cat([asked @ earlier_k.mT, asked @ k.mT], -1).unflatten(2, (-1, length)).flatten(1, 2)
        scores = scores * (q.shape[3] ** -0.5 if scale is None else scale)
        if mask:
            allowed = mask["attn_mask"]
            scores = scores.masked_fill(~allowed, -torch.inf) if allowed.dtype == torch.bool else scores + allowed
        pattern = scores.softmax(-1, torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
        earlier, own = pattern.unflatten(1, (heads, -1)).flatten(2, 3).split([piece.start, k.shape[2]], -1)
        return (earlier @ earlier_v + own @ v).unflatten(2, (-1, length)).flatten(1, 2)

    def _prefix(self, name: str, piece: Piece, heads: int) -> Tensor:
        """Return the recorded keys or values of the earlier positions, [n, heads, start, d_head]."""
        return as_heads(self.base[name], heads)[piece.rows, :, : piece.start]

    def _mask(self, piece: Piece, length: int) -> dict:
        mask, causal = self.base["attn_mask"], self.base["is_causal"]
        if mask is None and not causal:
            return {}
        if mask is None:
            if self.query_at is None and piece.start == 0:
                return {"is_causal": True}
            asked = self._queries(piece, length)
            if length == 1 and bool((asked == self.seq - 1).all()):
                return {}
            return {"attn_mask": torch.arange(self.seq, device=asked.device) <= asked[:, None, :, None]}
        rows = piece.rows if mask.shape[0] > 1 else torch.zeros_like(piece.rows)
        if self.query_at is None:
            return {"attn_mask": mask[rows, :, piece.start :] if mask.shape[0] > 1 else mask[:, :, piece.start :]}
        return {"attn_mask": mask[rows[:, None], :, self.query_at[piece.rows]].transpose(1, 2)}

    def _queries(self, piece: Piece, length: int) -> Tensor:
        """Positions of the queries, [n or 1, length]."""
        if self.query_at is not None:
            return self.query_at[piece.rows]
        return torch.arange(piece.start, self.seq, device=piece.rows.device)[None]


def _unpack(x: Tensor, at: int, n: int, length: int) -> Tensor:
    """Return packed tokens [1, head, tokens, d_head] at an offset as [n, head, length, d_head]."""
    heads, width = x.shape[1], x.shape[3]
    return x[0, :, at : at + n * length].reshape(heads, n, length, width).transpose(0, 1)


def replay_block(model: Model, recording: Recording, block: int, pieces: list[Piece], query_at: Tensor | None = None):
    """Return the block's output for packed pieces, as a list of [n, length, d_model].

    Args:
        model: the model.
        recording: the recorded forward.
        block: which block.
        pieces: sequences and their residual entering the block.
        query_at: per batch row the positions to compute ([batch] or [batch, n]); the pieces must then carry `keys`.
            None computes every position held.
    """
    module = model.module.get_submodule(model.anatomy.blocks[block].path)
    if query_at is None:
        flat = torch.cat([p.hidden.reshape(p.tokens, -1) for p in pieces])
        _, rows, positions = packed_index(pieces, recording.seq)
        lengths = [p.hidden.shape[1] for p in pieces]
    else:
        query_at = query_at.reshape(len(query_at), -1)
        lengths = [query_at.shape[1]] * len(pieces)
        rows = torch.cat([p.rows for p in pieces])
        positions = query_at[rows].flatten()
        rows = rows.repeat_interleave(query_at.shape[1])
        flat = torch.cat([at_positions(p, query_at).flatten(0, 1) for p in pieces])
    with _Packed(recording, block, pieces, query_at):
        out = _call_block(module, recording, block, flat[None], rows, positions)
    sizes = [p.rows.numel() * n for p, n in zip(pieces, lengths, strict=True)]
    parts = out.reshape(sum(sizes), -1).split(sizes)
    return [x.reshape(p.rows.numel(), n, -1) for x, p, n in zip(parts, pieces, lengths, strict=True)]


def at_positions(piece: Piece, positions: Tensor) -> Tensor:
    """Return what a piece holds at some positions of each batch row ([batch, n]), [sequences, n, d_model]."""
    items = torch.arange(piece.rows.numel(), device=piece.rows.device)
    return piece.hidden[items[:, None], positions[piece.rows] - piece.start]


class _Keys(Exception):
    """Carries the keys and values out of a block before it attends."""


class _StopAtAttention(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            call = sdpa_arguments(args, kwargs or {})
            raise _Keys(call["key"], call["value"])
        return func(*args, **(kwargs or {}))


def replay_keys(model: Model, recording: Recording, block: int, pieces: list[Piece]) -> list[Piece]:
    """Return the pieces with the block's keys and values of their positions; the block is left at its attention."""
    module = model.module.get_submodule(model.anatomy.blocks[block].path)
    flat = torch.cat([p.hidden.reshape(p.tokens, -1) for p in pieces])
    _, rows, positions = packed_index(pieces, recording.seq)
    try:
        with _StopAtAttention():
            _call_block(module, recording, block, flat[None], rows, positions)
    except _Keys as found:
        keys, values = found.args
    out, at = [], 0
    for p in pieces:
        n, length = p.rows.numel(), p.hidden.shape[1]
        pair = (_unpack(keys, at, n, length), _unpack(values, at, n, length))
        out.append(Piece(p.start, p.ids, p.cells, p.rows, p.hidden, pair))
        at += p.tokens
    return out
