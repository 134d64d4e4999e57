"""PooledStore: one number for every neuron and text, pooled over the text's tokens, on disk neuron by neuron.

    pooled/
      manifest.json            sites, widths, poolings, blocks with sample counts and checksums, batches done
      block-00000.safetensors  for each site and pooling float16 [neuron, sample], and the samples' lengths

    max    the largest value over tokens (AurA, self-conditioning)      mean   their mean
    last   the value at the last token                                  top-q  mean of the largest share q of them

Token activations are pooled as soon as the model makes them and never kept: memory is one block, whatever the number of
texts. Blocks are [neuron, sample], the layout that ranks a neuron over all samples by reading only its rows; a block is
written whole or not at all and entered in the manifest with its CRC-32, so a killed run goes on after its last block.
Padding counts nowhere. Values beyond float16's range are stored as its largest (their order stays, but for ties among
them) and counted in `saturated`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from microtome.core.errors import StoreError
from microtome.core.site import Site
from microtome.engine.parts import PartedStore, Parts
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["PooledRows", "PooledStore", "pool", "pool_tokens"]

PARTS = Parts("pooled store", "microtome.pooled", 1, "block", "pool")
LARGEST = torch.finfo(torch.float16).max


def pool_tokens(x: Tensor, mask: Tensor, how: str) -> Tensor:
    """Return one value for each text and unit, [batch, units], in float32.

    Args:
        x: activations, [batch, seq, units].
        mask: the tokens to pool over, [batch, seq]; at least one in every row.
        how: "max", "mean", "last", or "top-q" with a share q in (0, 1], such as "top-0.1" (at least one token).

    Raises:
        StoreError: another name.
    """
    x, held = x.float(), mask[..., None]
    if how == "max":
        return x.masked_fill(~held, -torch.inf).amax(1)
    if how == "mean":
        return x.masked_fill(~held, 0).sum(1) / held.sum(1)
    if how == "last":
        steps = torch.arange(x.shape[1], device=x.device)
        return x[torch.arange(len(x), device=x.device), (mask * steps).amax(1)]
    counts = (_share(how) * mask.sum(1)).ceil().clamp(min=1).long()
    ordered = x.masked_fill(~held, -torch.inf).topk(int(counts.max()), 1).values
    chosen = torch.arange(ordered.shape[1], device=x.device) < counts[:, None]
    return ordered.masked_fill(~chosen[..., None], 0).sum(1) / counts[:, None]


def _share(how: str) -> float:
    try:
        share = float(how.removeprefix("top-"))
    except ValueError:
        share = 0.0
    if not how.startswith("top-") or not 0 < share <= 1:
        raise StoreError(f"No pooling '{how}'; choose 'max', 'mean', 'last' or 'top-q' with 0 < q <= 1 ('top-0.1').")
    return share


def pool(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | Sequence[str | Site]",
    path: str | Path,
    *,
    how: Sequence[str] = ("max",),
    skip: int = 0,
    block_samples: int = 256,
    progress: Callable[[int, int, str], None] | None = None,
) -> "PooledStore":
    """Store the pooled activations of every text of some batches; resumes a run that was cut short.

    Args:
        model: the model.
        batches: the same batches in the same order when resuming.
        sites: activation sites with a sequence axis, globs allowed.
        path: folder of the store.
        how: poolings, see `pool_tokens`.
        skip: tokens at each text's beginning to leave out (1 for a BOS, whose activations dwarf the others' in many
            models); the last token always counts.
        block_samples: most texts in a block, unless one batch has more (memory is twice this times all units).
        progress: called with (batches done, 0, message).

    Raises:
        StoreError: an unknown pooling, a site without tokens, NaN, another store in the folder, or no text.
    """
    path, how = Path(path), list(how)
    for name in how:
        pool_tokens(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), name)
    infos = model.select(sites)
    for info in infos:
        if info.axes[1] != "seq" or not info.units:
            raise StoreError(f"Pooling '{info.site}' over tokens: its axes are {list(info.axes)}; name others.")
    widths = {str(i.site): i.units * max(i.d_head, 1) for i in infos}
    writer = _Writer(path, {"model": model.name, "widths": widths, "how": how, "skip": skip}, block_samples)
    for number, batch in enumerate(batches):
        if number < writer.first:
            continue
        rows = writer.take(batch, number)
        run(model, batch, read=[i.site for i in infos], logits="none", sink=rows)
        if progress:
            progress(number + 1, 0, "pool")
    writer.close()
    return PooledStore.open(path)


class _Writer:
    """Fills a block with pooled columns; the manifest is replaced only after its block is safely down."""

    def __init__(self, path: Path, head: dict, block_samples: int):
        self.path, self.head, self.block_samples = path, head, block_samples
        self.manifest = PARTS.resume(path, head, {"saturated": 0})
        self.first = self.done = self.manifest["batches"]
        self.block: dict[str, Tensor] = {}
        self.held = self.saturated = 0

    def take(self, batch: Batch, number: int) -> Callable[[Site, Tensor], None]:
        """Return what pools a batch's activations into the block; it is written first where they would not fit."""
        n = len(batch)
        if self.held and self.held + n > self.block_samples:
            self.flush()
        first, self.held, self.done = self.held, self.held + n, number + 1
        lengths = batch.mask.sum(1)
        places = batch.mask.cumsum(1)
        mask = batch.mask & ((places > self.head["skip"]) | (places == lengths[:, None]))
        self._columns("lengths", 1, n, torch.int32)[0, first : first + n] = lengths

        def put(site: Site, x: Tensor) -> None:
            x = x.flatten(2)
            for how in self.head["how"]:
                pooled = pool_tokens(x, mask.to(x.device), how).cpu()
                if pooled.isnan().any():
                    raise StoreError(
                        f"Pooling '{site}' found {int(pooled.isnan().sum())} NaN in batch {number}; mend the model."
                    )
                self.saturated += int((pooled.abs() > LARGEST).sum())
                columns = self._columns(f"{site}|{how}", x.shape[-1], n, torch.float16)
                columns[:, first : first + n] = pooled.clamp(-LARGEST, LARGEST).T

        return put

    def _columns(self, name: str, units: int, n: int, dtype: torch.dtype) -> Tensor:
        """Return a buffer of the block, made where there is none or it is too short for a first, large batch."""
        if name not in self.block or self.block[name].shape[1] < n:
            self.block[name] = torch.empty(units, max(n, self.block_samples), dtype=dtype)
        return self.block[name]

    def flush(self) -> None:
        """Write what is held as one block and enter it in the manifest."""
        if not self.held:
            return
        tensors = {key: columns[:, : self.held].contiguous() for key, columns in self.block.items()}
        entry = PARTS.write(self.path, len(self.manifest["blocks"]), tensors)
        self.manifest["blocks"].append({**entry, "samples": self.held})
        saturated = self.manifest["saturated"] + self.saturated
        self.manifest |= {"batches": self.done, "saturated": saturated, "complete": False}
        self.held = self.saturated = 0
        PARTS.save(self.path, self.manifest)

    def close(self) -> None:
        self.flush()
        if not self.manifest["blocks"]:
            raise StoreError(f"Nothing to pool in '{self.path}': the batches held no text; give at least one.")
        self.manifest["complete"] = True
        PARTS.save(self.path, self.manifest)


class PooledStore(PartedStore):
    """A finished store of pooled activations. Open one with `PooledStore.open`."""

    parts = PARTS

    def __len__(self) -> int:
        return sum(b["samples"] for b in self.manifest["blocks"])

    @property
    def sites(self) -> dict[Site, int]:
        """Sites stored -> neurons (heads flattened: head x d_head)."""
        return {Site(s): n for s, n in self.manifest["widths"].items()}

    @property
    def saturated(self) -> int:
        """How many values were beyond float16's range."""
        return self.manifest["saturated"]

    @property
    def lengths(self) -> np.ndarray:
        """Real tokens of every sample, [samples]."""
        return self._gather("lengths", slice(None))[0].astype(np.int64)

    def rows(self, site: "Site | str", how: str | None = None) -> "PooledRows":
        """Return a site's matrix [neuron, sample], read from disk as it is sliced.

        Args:
            site: one of `sites`.
            how: which pooling; None: the first.

        Raises:
            StoreError: the store does not hold it.
        """
        how = self.manifest["how"][0] if how is None else how
        if str(site) not in self.manifest["widths"] or how not in self.manifest["how"]:
            raise StoreError(
                f"Store '{self.path}' does not hold '{site}' pooled by '{how}' (it holds "
                f"{list(self.manifest['widths'])[:4]} by {self.manifest['how']}); pool it."
            )
        return PooledRows(self, f"{site}|{how}", (self.manifest["widths"][str(site)], len(self)))

    def _gather(self, name: str, units: slice) -> np.ndarray:
        parts = []
        for block in self.manifest["blocks"]:
            with safe_open(self.file(block), "np") as f:
                parts.append(f.get_slice(name)[units])
        return np.concatenate(parts, 1)


@dataclass(frozen=True)
class PooledRows:
    """A matrix [neuron, sample] on disk: `shape`, and slices of neurons as float16 arrays, as `screening` reads it."""

    store: PooledStore
    name: str
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, units: slice) -> np.ndarray:
        start, stop, step = units.indices(len(self))
        return self.store._gather(self.name, slice(start, max(start, stop)))[::step]
