"""run: one forward pass of an untouched model, reading some sites and editing others.

Hooks are placed for the one call and taken away after it - only ours, so foreign hooks survive. Edits at a site come
before reads of it. With no logits asked for, the forward stops once everything asked for has been seen. Weight edits
go through `torch.func.functional_call`; the model's own weights stay as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import EditError, SiteError
from microtome.core.site import Site
from microtome.engine.attention import AttentionTap
from microtome.engine.edit import Edit
from microtome.engine.layout import from_result, from_tokens, to_result, to_tokens
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.sites import SiteInfo
from microtome.models.trace import first_tensor

__all__ = ["Bound", "Run", "Session", "edited_weights", "run"]

_ATTENTION = ("q", "k", "v", "pattern")


@dataclass(frozen=True, eq=False)
class Run(Mapping):
    """What one forward pass gave: activations by site, and the logits.

    Attributes:
        activations: site -> activation ([batch, seq, ...]; patterns [batch, head, query, key]).
        logits: [batch, seq or 1, vocab] ([batch, classes] for vision models), or None.
    """

    activations: dict[Site, Tensor]
    logits: Tensor | None

    def __getitem__(self, site: "Site | str") -> Tensor:
        site = Site.parse(site)
        if site not in self.activations:
            held = [str(s) for s in self.activations][:6]
            raise SiteError(f"This run did not read '{site}' (it read {held}); add it to read=.")
        return self.activations[site]

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site | str) and Site.parse(site) in self.activations

    def get(self, site: "Site | str", default: Tensor | None = None) -> Tensor | None:
        """Return the activation of a site, or `default` where this run did not read it."""
        return self[site] if site in self else default

    def __iter__(self):
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)


@dataclass(frozen=True)
class Bound:
    """An edit bound to rows [start, stop) of a packed batch; those rows stand for the items 0, 1, ... of the data."""

    edit: Edit
    start: int
    stop: int


class _Stop(Exception):
    """Everything asked for has been seen."""


def run(
    model: Model,
    batch: Batch,
    read: "str | Site | Sequence[str | Site]" = (),
    edits: Sequence[Edit] = (),
    *,
    logits: str = "all",
    grad: bool = False,
    bound: Sequence[Bound] | None = None,
    sink: Callable[[Site, Tensor], None] | None = None,
) -> Run:
    """Run the model once, reading and editing activations.

    Args:
        model: the model.
        batch: its inputs.
        read: sites to return; globs allowed.
        edits: changes to make, in order.
        logits: "all", "last" (only the last position, where the model can) or "none" (stop as soon as possible).
        grad: keep the autograd graph from the first site read onward (see `gradients`).
        bound: edits bound to rows, for packed batches (used by `sweep`); replaces `edits`.
        sink: called with (site, activation) as soon as each is seen, instead of keeping it; memory stays bounded.

    Returns:
        the activations and logits.

    Raises:
        SiteError: a site does not exist in this model.
        EditError: an edit does not fit its site.

    Example:
        >>> clean = run(model, model.batch(["The capital of France is"]), read="blocks.*.resid_post")
        >>> clean["blocks.0.resid_post"].shape
        >>> run(model, batch, edits=[Edit("blocks.1.attn.heads", units=[0])]).logits
    """
    changes = list(bound) if bound is not None else [Bound(e, 0, len(batch)) for e in edits]
    weights = [c.edit for c in changes if c.edit.site in model.weights]
    changes = [c for c in changes if c.edit.site not in model.weights]
    session = Session(model, batch, model.select(read) if read else [], changes, grad, sink)
    session.stoppable = logits == "none"
    inputs = dict(batch.inputs)
    if "use_cache" in model.accepts:
        inputs["use_cache"] = False
    if logits == "last" and "logits_to_keep" in model.accepts:
        inputs["logits_to_keep"] = 1
    output = session.forward(inputs, edited_weights(model, weights))
    out = None if logits == "none" or output is None else getattr(output, "logits", first_tensor(output))
    if logits == "last" and out is not None and out.ndim == 3:
        out = out[:, -1:]
    return Run(session.values, out)


def edited_weights(model: Model, edits: Sequence[Edit]) -> dict[str, Tensor]:
    """Return parameter name -> edited weight; units are rows (axis 0) of the weight.

    Raises:
        EditError: the weight is offloaded, so it holds no numbers here.
    """
    names = dict(model.module.named_parameters(remove_duplicate=False))
    changed: dict[str, Tensor] = {}
    for edit in edits:
        name = model.weights[edit.site]
        if names[name].device.type == "meta":
            raise EditError(
                f"Cannot edit '{edit.site}': the weight is offloaded by device_map; load it onto a device, or edit "
                "the activation that it makes."
            )
        weight = changed.get(name, names[name].detach())
        zero = torch.zeros(1, dtype=torch.long, device=weight.device)
        changed[name] = edit.apply(weight[None], zero, zero)[0]
    return changed


def _without_graph(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return the parameters detached, so that no graph is kept for them (offloaded and special ones stay as is)."""
    names = module.named_parameters(remove_duplicate=False)
    return {n: p.detach() for n, p in names if type(p) is torch.nn.Parameter and p.device.type != "meta"}


class Session:
    """The hooks of one forward pass."""

    def __init__(self, model: Model, batch: Batch, read: list[SiteInfo], changes: list[Bound], grad: bool, sink):
        self.model, self.n, self.grad, self.sink = model, len(batch), grad, sink
        self.length = batch.seq
        self.values: dict[Site, Tensor] = {}
        self.inflow: dict[str, Tensor] = {}
        self.seen: dict[Site, int] = {}
        self.prompt = 0  # while generating: the prompt's length; a site then counts the positions it has seen
        self.stoppable = False
        self.taps: dict[tuple[str, str], list[tuple[SiteInfo, list[Bound], bool]]] = {}
        infos = {i.site: i for i in read} | {c.edit.site: model.select(c.edit.site)[0] for c in changes}
        for site in sorted(infos, key=_mid_last):
            info, here = infos[site], [c for c in changes if c.edit.site == site]
            _refuse_units(info, here)
            self.taps.setdefault((info.tap.module, info.tap.place), []).append((info, here, info in read))
        self.pending = {key for key, taps in self.taps.items() if any(t[2] for t in taps)}

    def forward(self, inputs: dict[str, Tensor], weights: dict[str, Tensor], call: Callable | None = None):
        """Run the module (or `call`) with this session's hooks; None when it was stopped early."""
        module = self.model.module
        if self.grad:
            weights = _without_graph(module) | weights
        with ExitStack() as stack:
            stack.enter_context(
                torch.enable_grad()
                if self.grad
                else nullcontext()
                if torch.is_inference_mode_enabled()
                else torch.no_grad()
            )
            for handle in self._hooks(stack):
                stack.callback(handle.remove)
            try:
                if weights:
                    return torch.func.functional_call(module, weights, kwargs=inputs, tie_weights=False)
                return (call or module)(**inputs)
            except _Stop:
                return None

    def _hooks(self, stack: ExitStack):
        modules = dict(self.model.module.named_modules())
        handles = []
        mids = {path for path, place in self.taps if place == "mid"}
        for block in self.model.anatomy.blocks:
            if block.attn_write in mids:
                handles.append(
                    modules[block.path].register_forward_pre_hook(self._keep_inflow(block.attn_write), with_kwargs=True)
                )
        for path, place in self.taps:
            if place == "input":
                handles.insert(0, modules[path].register_forward_pre_hook(self._on_input(path), with_kwargs=True))
            elif place == "output":
                handles.append(modules[path].register_forward_hook(self._on_output(path)))
        for path in mids:
            handles.append(modules[path].register_forward_hook(self._on_mid(path)))
        handles += self._attention_hooks(stack, modules)
        return handles

    def _attention_hooks(self, stack: ExitStack, modules: dict):
        blocks = {b.path: i for i, b in enumerate(self.model.anatomy.blocks)}
        wanted = {(blocks[path], place) for path, place in self.taps if place in _ATTENTION}
        if not wanted:
            return []
        paths = {i: p for p, i in blocks.items()}
        tap = AttentionTap(
            wanted,
            lambda i, place, x: self._visit((paths[i], place), x),
            [b.kv_heads for b in self.model.anatomy.blocks],
        )
        stack.enter_context(tap)
        handles = []
        for i in {i for i, _ in wanted}:
            handles.append(modules[paths[i]].register_forward_pre_hook(lambda m, a, i=i: setattr(tap, "block", i)))
            handles.append(modules[paths[i]].register_forward_hook(lambda m, a, o: setattr(tap, "block", None)))
        return handles

    def _keep_inflow(self, writer: str):
        def hook(module, args, kwargs):
            self.inflow[writer] = args[0] if args else kwargs["hidden_states"]

        return hook

    def _on_input(self, path: str):
        def hook(module, args, kwargs):
            old = args[0] if args else kwargs["hidden_states"]
            new = self._visit((path, "input"), old)
            if new is old:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return hook

    def _on_output(self, path: str):
        def hook(module, args, output):
            old = getattr(output, "logits", None) if path == "" else None
            old = first_tensor(output) if old is None else old
            new = self._visit((path, "output"), old)
            return None if new is old else _with_first(output, old, new)

        return hook

    def _on_mid(self, path: str):
        def hook(module, args, output):
            write = first_tensor(output)
            inflow = self.inflow[path]
            mid = inflow + write.view_as(inflow)
            new = self._visit((path, "mid"), mid)
            if new is mid:
                return None
            return _with_first(output, write, write + (new - mid).view_as(write))

        return hook

    def _visit(self, key: tuple[str, str], x: Tensor) -> Tensor:
        """Apply the edits and take the reads at one tap; return `x` itself when nothing changed."""
        for info, changes, wanted in self.taps[key]:
            if changes:
                x = self._edit(x, info, changes)
            if wanted:
                kept = to_result(to_tokens(x, info, self.n), info)
                if self.grad:  # a node of its own, so that a gradient here is that of this reader alone
                    kept = kept.view_as(kept) if kept.requires_grad else kept.detach().requires_grad_()
                    x = from_tokens(from_result(kept.clone() if info.tap.copy else kept, info), x, info)
                elif info.tap.copy:
                    kept = kept.clone()
                if self.sink is not None:
                    self.sink(info.site, kept)
                else:
                    self.values[info.site] = kept
        self.pending.discard(key)
        if self.stoppable and not self.pending:
            raise _Stop
        return x

    def _edit(self, x: Tensor, info: SiteInfo, changes: list[Bound]) -> Tensor:
        tokens = to_tokens(x, info, self.n)
        seq = tokens.shape[1]
        # where only the last positions reach the head, its tokens are the batch's last
        first = max(0, self.length - seq)
        if self.prompt:
            first = self.seen.get(info.site, first)
            self.seen[info.site] = first + seq
        out = tokens
        for change in changes:
            part = out[change.start : change.stop]
            n = part.shape[0]
            rows = torch.arange(n, device=x.device).repeat_interleave(seq)
            positions = torch.arange(first, first + seq, device=x.device).repeat(n)
            flat = part.reshape(n * seq, *part.shape[2:])
            if change.edit.positions is None:
                new = change.edit.apply(flat, rows, positions)
            else:
                chosen = change.edit.touches(rows, positions, self.length or seq).nonzero().squeeze(1)
                new = flat.index_copy(0, chosen, change.edit.apply(flat[chosen], rows[chosen], positions[chosen]))
            new = new.reshape(part.shape)
            out = new if n == self.n else torch.cat([out[: change.start], new, out[change.stop :]])
        return from_tokens(out, x, info)


def _mid_last(site: Site) -> tuple:
    """Sites of one tap in the order the model forms them: what is added comes before the sum."""
    return (site.kind == "resid_mid", site)


def _refuse_units(info: SiteInfo, changes: list[Bound]) -> None:
    for change in changes:
        units = change.edit.units
        if units is None or change.edit.basis is not None or info.units == 0 or units.numel() == 0:
            continue
        if int(units.max()) >= info.units:
            raise EditError(
                f"Edit at '{info.site}': unit {int(units.max())} does not exist, it has {info.units} "
                f"(0-{info.units - 1})."
            )


def _with_first(output: object, old: Tensor, new: Tensor):
    """Return a module's output with its first tensor replaced."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, tuple):
        return (new, *output[1:])
    for name in ("logits", "last_hidden_state"):
        if getattr(output, name, None) is old:
            output[name] = new
            return output
    found = type(output).__name__
    raise EditError(f"Cannot replace the first tensor of a {found}; edit a module that returns a tensor.")
