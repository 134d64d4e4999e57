"""Trace one forward pass: which modules ran, what they read and wrote, where attention happened, what was added.

A model's parts are found from this trace alone (`models/anatomy.py`), so no architecture is listed by name. Tensors are
recognised by (storage, offset, number of elements, version): a reshape or a full slice is still the same value, an
in-place addition is a new one. Works on the meta device, where only structure exists.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Attention", "Call", "Trace", "first_tensor", "record_trace", "tensor_key"]

_ADDS = {
    torch.add,
    torch.Tensor.add,
    torch.Tensor.__add__,
    torch.Tensor.__radd__,
    torch.Tensor.add_,
    torch.Tensor.__iadd__,
}
_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax}


def tensor_key(x: Tensor) -> tuple:
    """Return what identifies a tensor's value during one trace: storage, offset, element count, version."""
    return (x.untyped_storage()._cdata, x.storage_offset(), x.numel(), x._version)


def first_tensor(value: object) -> Tensor | None:
    """Return the tensor in a module's output: itself, or the first element of a tuple, list or HF output."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list) and value:
        return first_tensor(value[0])
    if hasattr(value, "last_hidden_state"):
        return value.last_hidden_state
    if isinstance(value, dict) and value:
        return first_tensor(next(iter(value.values())))
    return None


@dataclass
class Call:
    """One module call: when it began and ended, the tensors it read and wrote."""

    name: str
    module: nn.Module
    start: int
    end: int = -1
    inputs: list[tuple] = field(default_factory=list)
    hidden_shape: tuple[int, ...] = ()
    in_shape: tuple[int, ...] = ()
    output: tuple | None = None
    out_shape: tuple[int, ...] = ()
    plain: bool = False


@dataclass(frozen=True)
class Attention:
    """One attention operation: how it was computed and its head counts."""

    time: int
    how: str
    heads: int
    kv_heads: int | None


@dataclass
class Trace:
    """Everything one forward pass showed. `alive` holds the tensors so that no storage is reused meanwhile."""

    calls: list[Call] = field(default_factory=list)
    sums: dict[tuple, tuple] = field(default_factory=dict)
    sum_times: dict[tuple, int] = field(default_factory=dict)
    attentions: list[Attention] = field(default_factory=list)
    mutated: set[tuple] = field(default_factory=set)
    alive: list[Tensor] = field(default_factory=list)
    clock: int = 0

    def tick(self) -> int:
        """Advance and return the clock."""
        self.clock += 1
        return self.clock

    def within(self, call: Call) -> list[Call]:
        """Return the calls made inside `call`, in order of beginning."""
        return [c for c in self.calls if call.start < c.start and c.end < call.end]

    def terms(self, key: tuple, stop: tuple) -> list[tuple]:
        """Return the leaves of the sum that made `key`, not looking inside `stop`."""
        if key == stop or key not in self.sums:
            return [key]
        return [t for operand in self.sums[key] for t in self.terms(operand, stop)]


class _Watch(TorchFunctionMode):
    """Notes additions and attention operations while they happen."""

    def __init__(self, trace: Trace):
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operands = None
        if func in _ADDS and len(args) >= 2 and all(isinstance(a, Tensor) for a in args[:2]):
            operands = (tensor_key(args[0]), tensor_key(args[1]))
        out = func(*args, **kwargs)
        if operands is not None and isinstance(out, Tensor):
            self.trace.alive += [args[0], args[1], out]
            self._note_sum(operands, out)
        elif func is F.scaled_dot_product_attention:
            q, k = args[0] if args else kwargs["query"], args[1] if len(args) > 1 else kwargs["key"]
            self.trace.attentions.append(Attention(self.trace.tick(), "sdpa", q.shape[1], k.shape[1]))
        elif func in _SOFTMAX and isinstance(out, Tensor) and out.ndim == 4:
            self.trace.attentions.append(Attention(self.trace.tick(), "softmax", out.shape[1], None))
        return out

    def _note_sum(self, operands: tuple, out: Tensor) -> None:
        key = tensor_key(out)
        self.trace.sums[key] = operands
        self.trace.sum_times[key] = self.trace.tick()
        if key[:3] == operands[0][:3]:
            self.trace.mutated.add(operands[0])


def record_trace(module: nn.Module, forward: Callable[[], object]) -> Trace:
    """Run `forward` once (no gradients) and return what happened inside `module`.

    Args:
        module: the model; its hooks are added for this call and removed after it.
        forward: a closure that calls the model on probe inputs.
    """
    trace, stack, handles = Trace(), [], []

    def before(name: str):
        def hook(mod, args, kwargs):
            call = Call(name, mod, trace.tick())
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
            trace.alive += tensors
            call.inputs = [tensor_key(t) for t in tensors]
            hidden = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("hidden_states")
            call.in_shape = tuple(hidden.shape) if isinstance(hidden, Tensor) else ()
            trace.calls.append(call)
            stack.append(call)

        return hook

    def after(mod, args, kwargs, output):
        call, out = stack.pop(), first_tensor(output)
        call.end, call.plain = trace.tick(), isinstance(output, Tensor)
        if out is not None:
            trace.alive.append(out)
            call.output, call.out_shape = tensor_key(out), tuple(out.shape)

    for name, mod in module.named_modules():
        handles.append(mod.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(mod.register_forward_hook(after, with_kwargs=True))
    try:
        with torch.no_grad(), _Watch(trace):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return trace
