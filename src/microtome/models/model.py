"""Model: an unmodified torch module, its tokenizer, and the addresses of its tensors.

Nothing here changes the module: it is put into eval mode and otherwise only read. Loading finds the anatomy from one
traced probe forward and checks it against a second one (`models/verify.py`); what was found and what was not is in
`model.anatomy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from microtome.core.errors import DataError, ModelError, SiteError
from microtome.core.site import Site, select_sites
from microtome.models.anatomy import Anatomy, find_anatomy
from microtome.models.batch import Batch, pad_left
from microtome.models.probe import accepted_arguments, input_device, probe_inputs
from microtome.models.sites import SiteInfo, Tap, site_table, weight_table
from microtome.models.trace import record_trace

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A module with addresses. Make one with `Model.load`.

    Attributes:
        module: the original module, in eval mode.
        tokenizer: its tokenizer, or None.
        anatomy: the parts found (see `Anatomy`).
        name: what was asked for, e.g. "zoo:atlas".
    """

    module: nn.Module
    tokenizer: object | None
    anatomy: Anatomy
    name: str

    @classmethod
    def load(
        cls,
        source: "str | nn.Module",
        *,
        tokenizer: object | None = None,
        dtype: torch.dtype | None = None,
        attn: str | None = None,
        device: str | torch.device | None = None,
        device_map: object | None = None,
        trust_remote_code: bool = False,
        example: dict[str, Tensor] | None = None,
        anatomy: bool = True,
    ) -> "Model":
        """Return a model from a Hub id, a local folder, `zoo:NAME`, or a torch module.

        Args:
            source: what to load.
            tokenizer: for a torch module, the tokenizer that goes with it.
            dtype: weights' type; None keeps what the checkpoint says.
            attn: attention implementation ("sdpa" or "eager"); None keeps the model's default.
            device: where to put the model; None leaves it where it is loaded.
            device_map: accelerate's placement of a model larger than one device.
            trust_remote_code: run code that comes with the checkpoint (refused unless asked for).
            example: inputs of one forward pass, for modules that take neither token ids nor images.
            anatomy: find the parts; False leaves only module paths addressable.

        Raises:
            ModelError: it cannot be loaded safely (missing folder, pickle, non-finite weights).
            AnatomyError: its parts cannot be found.
        """
        from microtome.models.load import load_parts

        if isinstance(source, nn.Module):
            module, name = source, type(source).__name__
        else:
            module, found, name = load_parts(
                source, dtype=dtype, attn=attn, device_map=device_map, trust_remote_code=trust_remote_code
            )
            tokenizer = tokenizer or found
        if device is not None:
            module = module.to(device)
        module.eval()
        _refuse_nonfinite(module, name)
        parts = _anatomy(module, example) if anatomy else Anatomy("modules")
        return cls(module, tokenizer, parts, name)

    @property
    def device(self) -> torch.device:
        """Where the inputs go: where the first parameter is (or, offloaded, will be when it is used)."""
        return input_device(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first parameter."""
        return next(self.module.parameters()).dtype

    @cached_property
    def sites(self) -> dict[Site, SiteInfo]:
        """The named activations, in block order."""
        return site_table(self.module, self.anatomy)

    @cached_property
    def weights(self) -> dict[Site, str]:
        """The addressable weights -> parameter names."""
        return weight_table(self.module, self.anatomy)

    @cached_property
    def accepts(self) -> set[str]:
        """The argument names of the module's forward."""
        return accepted_arguments(self.module)

    def select(self, patterns: "str | Site | Sequence[str | Site]") -> list[SiteInfo]:
        """Return the activations that the patterns name; a module path names that module's output.

        Raises:
            SiteError: a pattern names nothing; the message names the nearest address.
        """
        chosen: dict[Site, SiteInfo] = {}
        for pattern in [patterns] if isinstance(patterns, str | Site) else patterns:
            site = Site.parse(pattern)
            if site not in self.sites and not site.is_glob and (info := self._module_site(site)):
                chosen[site] = info
                continue
            try:
                chosen |= {s: self.sites[s] for s in select_sites([site], self.sites)}
            except SiteError as error:
                reason = self.anatomy.missing.get(site.kind)
                raise SiteError(f"{error}{f' Not found because {reason}.' if reason else ''}") from None
        return [chosen[s] for s in sorted(chosen)]

    def _module_site(self, site: Site) -> SiteInfo | None:
        path, place = str(site), "output"
        if path.endswith(".input"):
            path, place = path.removesuffix(".input"), "input"
        modules = dict(self.module.named_modules())
        return SiteInfo(site, ("batch", "..."), "last", 0, Tap(path, place, copy=True)) if path in modules else None

    def space(self, patterns: "str | Site | Sequence[str | Site]") -> dict[Site, int]:
        """Return site -> number of units for the sites that the patterns name."""
        return {info.site: info.units for info in self.select(patterns)}

    def batch(self, texts: Sequence[str]) -> Batch:
        """Return the left-padded batch of some prompts, tokenised one by one (special tokens as the tokenizer adds).

        Raises:
            DataError: no tokenizer, no texts, or a text with no tokens.
        """
        if self.tokenizer is None:
            raise DataError(f"Model '{self.name}' has no tokenizer, so it cannot take text; use batch_ids or pass one.")
        if isinstance(texts, str):
            raise DataError("batch takes a list of prompts, found one string; write [prompt].")
        return self.batch_ids([self.tokenizer(t)["input_ids"] for t in texts])

    def batch_ids(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Return the left-padded batch of some rows of token ids, with explicit positions where the model takes them.

        Raises:
            DataError: no rows, an empty row, or a token that the model has no embedding of.
        """
        ids, mask = pad_left(rows)
        self.refuse_unknown(ids)
        pad = getattr(self.tokenizer, "pad_token_id", None) or 0
        if self._entries is None or pad < self._entries:
            ids.masked_fill_(~mask, pad)
        ids, mask = ids.to(self.device), mask.to(self.device)
        inputs = {"input_ids": ids}
        if "attention_mask" in self.accepts:
            inputs["attention_mask"] = mask.long()
        if "position_ids" in self.accepts:
            inputs["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
        return Batch(inputs, mask)

    def refuse_unknown(self, ids: Tensor) -> None:
        """Refuse ids [batch, seq] of another tokenizer's vocabulary, which a device answers with a crash.

        Raises:
            DataError: a token that the model has no embedding of.
        """
        entries = self._entries
        if entries is not None and not 0 <= int(ids.min()) <= int(ids.max()) < entries:
            row, place = ((ids < 0) | (ids >= entries)).nonzero()[0].tolist()
            raise DataError(
                f"Token {ids[row, place]} in row {row} was given to '{self.name}', whose table of embeddings has "
                f"{entries} rows; give the tokenizer that the model was trained with."
            )

    @cached_property
    def _entries(self) -> int | None:
        """Rows of the table of token embeddings, None where the module does not say which that is."""
        try:
            return self.module.get_input_embeddings().weight.shape[0]
        except (AttributeError, NotImplementedError):
            return None

    def __repr__(self) -> str:
        a = self.anatomy
        size = sum(p.numel() for p in self.module.parameters())
        parts = f"{len(a.blocks)} blocks, d_model {a.d_model}" if a.blocks else f"{a.kind}"
        return f"Model('{self.name}', {parts}, {size / 1e6:.1f} M parameters)"


def _anatomy(module: nn.Module, example: dict[str, Tensor] | None) -> Anatomy:
    from microtome.models.verify import verify

    device = input_device(module)
    inputs = example if example is not None else probe_inputs(module, device)
    if "use_cache" in accepted_arguments(module):
        inputs = {**inputs, "use_cache": False}
    trace = record_trace(module, lambda: module(**inputs))
    parts = find_anatomy(module, trace)
    if device.type != "meta":
        verify(module, parts, inputs)
    return parts


def _refuse_nonfinite(module: nn.Module, name: str) -> None:
    for path, tensor in module.named_parameters():
        if tensor.device.type != "meta" and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"Model '{name}' has {bad} non-finite values in '{path}' (of {tensor.numel()}); the checkpoint is "
                "damaged, load another."
            )
