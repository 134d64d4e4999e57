"""Anatomy: the parts of a transformer, found from the trace of one forward pass - never from a list of architectures.

    blocks     the ModuleList whose elements each ran once and each held one attention operation
    heads      what the first projection after the attention operation reads (its output projection, `o`)
    neurons    what the MLP's down projection reads
    writes     the two terms that the block adds to its input: resid_post = resid_pre + attn.write + mlp.write
    mid        the sum resid_pre + attn.write, where the block forms it (sequential blocks; absent in parallel ones)
    tail       final norm and output head

Post-norm blocks (BERT) have no running sum; their writes are named the same, and `post_norm` says so. What cannot be
found is left out with a reason in `missing`. `models/verify.py` checks the arithmetic on real numbers.
"""

from dataclasses import dataclass, field

from torch import nn

from microtome.core.errors import AnatomyError
from microtome.models.trace import Call, Trace

__all__ = ["Anatomy", "Block", "find_anatomy", "is_projection"]


@dataclass(frozen=True)
class Block:
    """The named modules of one block (module paths), and its head layout.

    Attributes:
        path: module path of the block.
        reader: module through which attention reads resid_pre (its norm), where it is one module.
        o: attention output projection (reads heads, writes attn.out).
        attn_write: module whose output is added to the residual stream by attention.
        down: MLP down projection (reads neurons), or None (`missing` says why).
        mlp_out: module whose output is mlp.out (the down projection, or the expert mixture).
        mlp_write: module whose output is added to the residual stream by the MLP.
        gate: module emitting the gate pre-activation, where it is separate.
        up: module emitting the up projection, where it is separate.
        qkv: module paths of q, k, v projections, where they are three.
        heads: number of query heads.
        kv_heads: number of key/value heads.
        d_head: width of a head.
        d_mlp: number of neurons (0 without `down`).
        attention: "sdpa" or "softmax" (eager): how the pattern can be seen.
        mlp_path: modules that lead from resid_mid (or, in a parallel block, resid_pre) to mlp.write, or None.
        parallel: attention and MLP both read resid_pre.
        post_norm: the block normalises after adding (BERT).
        mid_norm: in a post-norm block, the module whose output is resid_mid.
        aliased: sites whose tensor the model later changes in place; captures must be copied.
    """

    path: str
    reader: str | None
    o: str
    attn_write: str
    down: str | None
    mlp_out: str | None
    mlp_write: str | None
    gate: str | None
    up: str | None
    qkv: tuple[str, str, str] | None
    heads: int
    kv_heads: int
    d_head: int
    d_mlp: int
    attention: str
    mlp_path: tuple[str, ...] | None
    parallel: bool
    post_norm: bool
    mid_norm: str | None
    aliased: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model, as module paths.

    Attributes:
        kind: "transformer", "convnet" or "modules" (only module paths are addressable).
        blocks: the transformer blocks in order.
        d_model: width of the residual stream.
        embedding: token embedding module, if any.
        final_norm: module between the last block and the head, if any.
        head: output projection, if any.
        tail: modules that lead from the last residual to the head's output, or None.
        vocab: size of the head's output.
        stages: convnets: (stage number, index, module path, channels).
        missing: for each part not found, the reason.
    """

    kind: str
    blocks: tuple[Block, ...] = ()
    d_model: int = 0
    embedding: str | None = None
    final_norm: str | None = None
    head: str | None = None
    tail: tuple[str, ...] | None = None
    vocab: int = 0
    stages: tuple[tuple[int, int, str, int], ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def is_projection(module: nn.Module) -> bool:
    """Whether a module is a linear map by its weight: a leaf with a 2-D weight that is not an embedding table."""
    weight = getattr(module, "weight", None)
    leaf = not any(True for _ in module.children())
    return leaf and getattr(weight, "ndim", 0) == 2 and not isinstance(module, nn.Embedding)


def find_anatomy(module: nn.Module, trace: Trace) -> Anatomy:
    """Return the anatomy that a trace shows.

    Raises:
        AnatomyError: neither transformer blocks nor convolutional stages were seen; the message says what was looked
            for.
    """
    blocks = _block_calls(module, trace)
    if blocks:
        return _transformer(module, trace, blocks)
    stages = _stages(module, trace)
    if stages:
        head = next((c for c in reversed(trace.calls) if is_projection(c.module)), None)
        return Anatomy("convnet", stages=stages, head=head and head.name, vocab=head.out_shape[-1] if head else 0)
    lists = [n for n, m in module.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    raise AnatomyError(
        f"No blocks found in {type(module).__name__}: looked for a ModuleList whose elements each run once and attend "
        f"once, and for stages of convolutions; found lists {lists[:6] or 'none'} and {len(trace.attentions)} "
        "attention operations. Load it with anatomy=False to address its tensors by module path."
    )


def _block_calls(module: nn.Module, trace: Trace) -> list[Call]:
    """Return the calls of the block list: the outermost list whose elements each ran once around an attention."""
    by_name: dict[str, list[Call]] = {}
    for call in trace.calls:
        by_name.setdefault(call.name, []).append(call)
    best: list[Call] = []
    for name, mod in module.named_modules():
        if not isinstance(mod, nn.ModuleList | nn.Sequential) or len(mod) == 0:
            continue
        runs = [by_name.get(f"{name}.{i}" if name else str(i), []) for i in range(len(mod))]
        if all(len(r) == 1 and _attends(r[0], trace) and r[0].out_shape for r in runs) and len(runs) > len(best):
            best = [r[0] for r in runs]
    return best


def _attends(call: Call, trace: Trace) -> bool:
    return any(call.start < a.time < call.end for a in trace.attentions)


def _transformer(module: nn.Module, trace: Trace, calls: list[Call]) -> Anatomy:
    missing: dict[str, str] = {}
    d_model = calls[0].out_shape[-1]
    blocks = tuple(_block(trace, c, d_model, module, missing) for c in calls)
    embedding = next(
        (c.name for c in trace.calls if isinstance(c.module, nn.Embedding) and c.start < calls[0].start), None
    )
    after = [c for c in trace.calls if c.start > calls[-1].end]
    projections = [c for c in after if is_projection(c.module)]
    head = max(projections, key=lambda c: (c.out_shape[-1], c.start), default=None)
    tail = head and _chain(after, calls[-1].output, head.output)
    norm = next(
        (
            c
            for c in after
            if not is_projection(c.module)
            and c.output
            and c.out_shape[-1:] == (d_model,)
            and calls[-1].output in c.inputs
            and not any(True for _ in c.module.children())
        ),
        None,
    )
    if head is None:
        missing["logits"] = "no projection runs after the last block"
    elif tail is None:
        missing["tail"] = "no chain of modules leads from the last residual to the head"
    return Anatomy(
        "transformer",
        blocks,
        d_model,
        embedding,
        norm and norm.name,
        head and head.name,
        tuple(c.name for c in tail) if tail else None,
        head.out_shape[-1] if head else 0,
        (),
        missing,
    )


def _block(trace: Trace, call: Call, d_model: int, module: nn.Module, missing: dict[str, str]) -> Block:
    inside = trace.within(call)
    attention = next(a for a in trace.attentions if call.start < a.time < call.end)
    o = next(
        (c for c in inside if is_projection(c.module) and c.start > attention.time and c.out_shape[-1] == d_model), None
    )
    if o is None:
        raise AnatomyError(
            f"Block '{call.name}' attends but no projection to width {d_model} follows; looked for the "
            "output projection of its attention."
        )
    x = call.inputs[0]
    writes, mid, post_norm, mid_norm = _writes(trace, call, inside, x)
    attn = _producer(inside, next((w for w in writes if _is_from(inside, w, o)), o.output)) or o
    others = [w for w in writes if w != attn.output]
    mlp_key = others[0] if len(others) == 1 else None
    mlp = _producer(inside, mlp_key) if mlp_key else None
    down = _down(inside, mlp, o, d_model)
    if mlp is None:
        missing.setdefault("mlp.out", f"block '{call.name}' adds {len(writes)} terms to its input, two were looked for")
    if mlp is not None and down is None:
        missing.setdefault(
            "mlp.neurons",
            f"no single down projection writes '{mlp.name}' (a mixture of experts, or "
            "fused weights): neurons are not addressable, mlp.out is",
        )
    gate, up = _gate_up(inside, down, attention.time)
    in_width = o.in_shape[-1] if o.in_shape else o.module.weight.shape[-1]
    parallel = mid is None and not post_norm
    path = _chain(inside, x if parallel else mid, mlp.output) if mlp and (parallel or mid) else None
    d_head = in_width // attention.heads
    qkv = _qkv(inside, attention, o)
    return Block(
        path=call.name,
        reader=next((c.name for c in inside if c.inputs == [x] and c.plain and c.end < attention.time), None),
        o=o.name,
        attn_write=attn.name,
        down=down and down.name,
        mlp_out=(down or mlp) and (down or mlp).name,
        mlp_write=mlp and mlp.name,
        gate=gate,
        up=up,
        qkv=qkv,
        heads=attention.heads,
        kv_heads=_kv_heads(module, attention),
        d_head=d_head,
        d_mlp=down.in_shape[-1] if down else 0,
        attention=attention.how,
        mlp_path=tuple(c.name for c in path) if path else None,
        parallel=parallel,
        post_norm=post_norm,
        mid_norm=mid_norm,
        aliased=_aliased(trace, call, o, attn, down, mlp),
    )


def _writes(trace: Trace, call: Call, inside: list[Call], x: tuple):
    """Return (terms added to the stream, key of resid_mid or None, post-norm?, module that emits a post-norm mid)."""
    terms = trace.terms(call.output, x)
    if x in terms:
        writes = _collapsed(trace, inside, [t for t in terms if t != x], x)
        sums = [k for k, t in trace.sum_times.items() if call.start < t < call.end]
        mid = next((k for k in sums if any(sorted(trace.terms(k, x)) == sorted([x, w]) for w in writes)), None)
        return writes, mid if mid != call.output else None, False, None
    outer = _normed_sum(trace, inside, call.output)
    if outer is None:
        return [], None, False, None
    mid_key, mlp_write = _stream_and_write(trace, inside, outer)
    inner = _normed_sum(trace, inside, mid_key)
    if inner is None:
        return [], None, False, None
    attn_write = next((t for t in trace.terms(inner, x) if t != x), None)
    producer = _producer(inside, mid_key)
    return [attn_write, mlp_write], mid_key, True, producer and producer.name


def _collapsed(trace: Trace, inside: list[Call], writes: list[tuple], x: tuple) -> list[tuple]:
    """Return the writes with those that one inner module summed itself (experts + shared expert) taken as one."""
    if len(writes) <= 2:
        return writes
    for call in sorted(inside, key=lambda c: c.start - c.end):
        own = trace.terms(call.output, x) if call.plain and call.output in trace.sums else []
        if len(own) >= 2 and set(own) < set(writes):
            return [w for w in writes if w not in own] + [call.output]
    return writes


def _normed_sum(trace: Trace, inside: list[Call], key: tuple) -> tuple | None:
    """Return the key of the sum that a normalising module turned into `key`."""
    return next((c.inputs[0] for c in inside if c.output == key and c.inputs and c.inputs[0] in trace.sums), None)


def _stream_and_write(trace: Trace, inside: list[Call], total: tuple) -> tuple[tuple, tuple]:
    """Split a post-norm sum into (stream, write): the stream is the operand that is itself a normed sum."""
    a, b = trace.sums[total]
    return (a, b) if _normed_sum(trace, inside, a) else (b, a)


def _producer(inside: list[Call], key: tuple | None) -> Call | None:
    """Return the innermost module that emitted `key` as a plain tensor (the first to finish)."""
    made = [c for c in inside if c.output == key and c.plain]
    return min(made, key=lambda c: c.end, default=None)


def _is_from(inside: list[Call], key: tuple, o: Call) -> bool:
    """Whether the value `key` is the output of `o`, perhaps through modules that read only it (norm, dropout)."""
    if key == o.output:
        return True
    return _chain([c for c in inside if c.start > o.end], o.output, key) is not None


def _down(inside: list[Call], mlp: Call | None, o: Call, d_model: int) -> Call | None:
    """Return the projection whose output is the MLP's write, directly or through a post-norm."""
    if mlp is None:
        return None
    ready = [
        c for c in inside if is_projection(c.module) and c is not o and c.out_shape[-1] == d_model and c.end <= mlp.end
    ]
    last = max(ready, key=lambda c: c.end, default=None)
    return last if last is not None and _is_from(inside, mlp.output, last) else None


def _gate_up(inside: list[Call], down: Call | None, attention_time: int) -> tuple[str | None, str | None]:
    """Return the paths of the gate and up projections: of two that emit d_mlp, the gate's output is activated."""
    if down is None:
        return None, None
    wide = [
        c
        for c in inside
        if is_projection(c.module)
        and c.out_shape[-1] == down.in_shape[-1]
        and c.end < down.start
        and c.inputs
        and c.output
    ]
    groups = [c for c in wide if sum(c.inputs[0] == w.inputs[0] for w in wide) == 2]
    if len(wide) == 1 or len(groups) != 2:
        return None, wide[0].name if len(wide) == 1 else None
    gate = next((c for c in groups if any(c.output in a.inputs for a in inside if a is not c)), None)
    up = next((c for c in groups if c is not gate), None)
    return (gate.name, up.name) if gate and up else (None, None)


def _qkv(inside: list[Call], attention, o: Call) -> tuple[str, str, str] | None:
    before = [c for c in inside if is_projection(c.module) and c.end < attention.time]
    readers = [c for c in before if c.inputs and c.inputs[0] == before[-1].inputs[0]] if before else []
    return tuple(c.name for c in readers[:3]) if len(readers) == 3 else None


def _kv_heads(module: nn.Module, attention) -> int:
    config = getattr(module, "config", None)
    stated = getattr(config, "num_key_value_heads", None)
    return int(stated or attention.kv_heads or attention.heads)


def _chain(calls: list[Call], start: tuple, goal: tuple) -> list[Call] | None:
    """Return the modules, outermost first, that lead from one value to another, each reading that one tensor only."""
    if start == goal:
        return []
    options = [c for c in calls if c.inputs == [start] and c.output is not None and c.output != start and c.plain]
    for call in sorted(options, key=lambda c: c.start - c.end):
        rest = _chain([c for c in calls if c.start > call.end], call.output, goal)
        if rest is not None:
            return [call, *rest]
    return None


def _aliased(trace: Trace, call: Call, o: Call, attn: Call, down: Call | None, mlp: Call | None) -> frozenset[str]:
    named = {
        "resid_pre": call.inputs[0],
        "resid_post": call.output,
        "attn.out": o.output,
        "attn.write": attn.output,
        "mlp.out": (down or mlp) and (down or mlp).output,
        "mlp.write": mlp and mlp.output,
    }
    return frozenset(name for name, key in named.items() if key in trace.mutated)


def _stages(module: nn.Module, trace: Trace) -> tuple[tuple[int, int, str, int], ...]:
    """Return the residual stages of a convnet: lists of same-class blocks, each holding convolutions, each run once."""
    by_name = {c.name: c for c in trace.calls}
    stages = []
    for name, mod in module.named_modules():
        if not isinstance(mod, nn.ModuleList | nn.Sequential) or len(mod) == 0:
            continue
        runs = [by_name.get(f"{name}.{i}" if name else str(i)) for i in range(len(mod))]
        same = len({type(m) for m in mod}) == 1
        if same and all(r and len(r.out_shape) == 4 and _convolutions(r.module) >= 2 for r in runs):
            stages.append(runs)
    flat = [s for s in stages if not any(_holds(other, s) for other in stages if other is not s)]
    flat.sort(key=lambda runs: runs[0].start)
    return tuple((i + 1, j, r.name, r.out_shape[1]) for i, runs in enumerate(flat) for j, r in enumerate(runs))


def _holds(inner: list[Call], outer: list[Call]) -> bool:
    """Whether some list of blocks lies inside an element of `outer` (then `outer` is a list of stages)."""
    return any(inner[0].name.startswith(c.name + ".") for c in outer)


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, nn.Conv2d) for m in module.modules())
