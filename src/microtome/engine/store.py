"""ActivationStore: activations of many sites for any number of tokens, on disk.

    store/
      manifest.json            sites, widths, dtype, shards with token counts and checksums, batches done
      shard-00000.safetensors  one tensor [tokens, units] for each site
      tokens.parquet           item, position and token id of every stored token (written when capture ends)

Capture streams: activations go straight into a shard's buffers; a full shard is written by a thread beside the next
forward and only then entered in the manifest, so memory is bounded by two shards and a killed capture goes on where it
stopped. Padding is not stored. Reading is by token (rows) or by unit (columns) without loading whole shards; each
shard's checksum is verified when it is first opened.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from microtome.core.errors import StoreError
from microtome.core.site import Site
from microtome.engine.parts import PartedStore, Parts
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["ActivationStore", "capture"]

PARTS = Parts("activation store", "microtome.store", 2, "shard", "capture")


def capture(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | Sequence[str | Site]",
    path: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_tokens: int = 2048,
    progress: Callable[[int, int, str], None] | None = None,
) -> "ActivationStore":
    """Store the activations of every real token of some batches; resumes a capture that was cut short.

    Args:
        model: the model.
        batches: the same batches in the same order when resuming.
        sites: activation sites with a sequence axis, globs allowed.
        path: folder of the store.
        dtype: storage type.
        shard_tokens: most tokens in a shard, unless one batch has more (memory is twice this times all units).
        progress: called with (batches done, 0, message).

    Raises:
        StoreError: the folder holds a store of other sites, another model or another type, or no token came.
    """
    path = Path(path)
    infos = model.select(sites)
    widths = {str(i.site): i.units * max(i.d_head, 1) for i in infos}
    head = {"model": model.name, "widths": widths, "dtype": str(dtype).removeprefix("torch.")}
    manifest = PARTS.resume(path, head, {"items": 0})
    done = manifest["batches"]
    with _Writer(path, manifest, shard_tokens, dtype) as writer:
        for number, batch in enumerate(batches):
            if number < done:
                continue
            rows = writer.take(batch, number + 1)
            run(model, batch, read=[i.site for i in infos], logits="none", sink=rows)
            if progress:
                progress(number + 1, 0, "capture")
        writer.close()
    return ActivationStore.open(path)


class _Writing(NamedTuple):
    """A shard that the thread is writing: its entry to come, its tokens, how far the store is with it, its buffers."""

    written: Future
    tokens: int
    done: dict[str, int]
    buffers: dict[str, Tensor]


class _Writer:
    """Fills a shard while the one before is written; the manifest is replaced only after its shard is safely down."""

    def __init__(self, path: Path, manifest: dict, shard_tokens: int, dtype: torch.dtype):
        self.path, self.manifest, self.shard_tokens, self.dtype = path, manifest, shard_tokens, dtype
        self.thread = ThreadPoolExecutor(1, "microtome-store")
        self.free: list[dict[str, Tensor]] = [{}, {}]
        self.filling = self.free.pop()
        self.writing: _Writing | None = None
        self.held = 0
        self.done = {"batches": manifest["batches"], "items": manifest["items"]}

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_error: object) -> None:
        with self.thread:
            self.settle()

    def take(self, batch: Batch, number: int) -> Callable[[Site, Tensor], None]:
        """Return what puts a batch's activations into the shard; it is written first where they would not fit."""
        mask, n = batch.mask, int(batch.mask.sum())
        if self.held + n > self.shard_tokens:
            self.flush()
        items, positions = mask.nonzero(as_tuple=True)
        offset = mask.int().argmax(1)[items]
        columns = (items + self.done["items"], positions - offset, batch.inputs["input_ids"][mask])
        whole, first = n == mask.numel(), self.held
        self._rows("index", n, 3, torch.long)[first : first + n] = torch.stack(columns, 1)
        self.held += n
        self.done = {"batches": number, "items": self.done["items"] + len(batch)}

        def put(site: Site, x: Tensor) -> None:
            x = x.flatten(2)
            rows = self._rows(str(site), n, x.shape[-1], self.dtype)
            rows[first : first + n] = x.flatten(0, 1) if whole else x[mask]

        return put

    def _rows(self, name: str, n: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return a buffer of the shard, made where there is none or it is too short for a first, large batch."""
        if name not in self.filling or len(self.filling[name]) < n:
            self.filling[name] = torch.empty(max(n, self.shard_tokens), width, dtype=dtype)
        return self.filling[name]

    def flush(self) -> None:
        """Hand what is held to the thread as one shard (with its token index), once the shard before is down."""
        self.settle()
        if not self.held:
            return
        tensors = {site: rows[: self.held] for site, rows in self.filling.items()}
        written = self.thread.submit(PARTS.write, self.path, len(self.manifest["shards"]), tensors)
        self.writing = _Writing(written, self.held, self.done, self.filling)
        self.filling, self.held = self.free.pop(), 0

    def settle(self) -> None:
        """Wait for the shard that is being written and enter it in the manifest."""
        if self.writing is None:
            return
        shard, self.writing = self.writing, None
        entry = shard.written.result()
        self.free.append(shard.buffers)
        self.manifest["shards"].append({**entry, "tokens": shard.tokens})
        self.manifest |= shard.done
        PARTS.save(self.path, self.manifest)

    def close(self) -> None:
        self.flush()
        self.settle()
        if not self.manifest["shards"]:
            raise StoreError(f"Nothing to store in '{self.path}': the batches held no token; give at least one prompt.")
        if not self.manifest["complete"]:
            self._write_tokens()
            self.manifest["complete"] = True
            PARTS.save(self.path, self.manifest)

    def _write_tokens(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = []
        for shard in self.manifest["shards"]:
            with safe_open(self.path / shard["file"], "pt") as f:
                rows.append(f.get_tensor("index").numpy())
        index = np.concatenate(rows)
        part = self.path / "tokens.parquet.part"
        pq.write_table(pa.table({n: index[:, i] for i, n in enumerate(("item", "position", "token"))}), part)
        os.replace(part, self.path / "tokens.parquet")


class ActivationStore(PartedStore):
    """A finished store. Open one with `ActivationStore.open`."""

    parts = PARTS

    def __len__(self) -> int:
        return sum(s["tokens"] for s in self.manifest["shards"])

    @property
    def sites(self) -> dict[Site, int]:
        """Sites stored -> numbers per token (heads flattened: head x d_head)."""
        return {Site(s): n for s, n in self.manifest["widths"].items()}

    def index(self) -> dict[str, np.ndarray]:
        """Return item, position (in its prompt) and token id of every stored token."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.path / "tokens.parquet")
        return {name: table[name].to_numpy() for name in table.column_names}

    def tokens(self, site: "Site | str", rows: Sequence[int]) -> Tensor:
        """Return the activations of some stored tokens, [len(rows), units], in the order asked for."""
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise StoreError(f"Token {rows.max()} asked for, the store holds {len(self)} (0-{len(self) - 1}).")
        out = torch.empty(len(rows), self._width(site), dtype=getattr(torch, self.manifest["dtype"]))
        first = 0
        for shard in self.manifest["shards"]:
            here = np.flatnonzero((rows >= first) & (rows < first + shard["tokens"]))
            if here.size:
                with self._shard(shard) as f:
                    part = f.get_slice(str(site))
                    for i in here:
                        at = int(rows[i] - first)
                        out[i] = part[at : at + 1][0]
            first += shard["tokens"]
        return out

    def units(self, site: "Site | str", units: Sequence[int]) -> Tensor:
        """Return some units over all stored tokens, [tokens, len(units)]."""
        width, units = self._width(site), np.asarray(units)
        if units.size and units.max() >= width:
            raise StoreError(f"Unit {units.max()} of '{site}' asked for, the store holds {width} (0-{width - 1}).")
        return torch.cat([chunk[:, torch.as_tensor(units)] for chunk in self.stream(site)])

    def stream(self, site: "Site | str"):
        """Iterate over the shards of a site, each [tokens, units]."""
        self._width(site)
        for shard in self.manifest["shards"]:
            with self._shard(shard) as f:
                yield f.get_tensor(str(site))

    def _width(self, site: "Site | str") -> int:
        if str(site) not in self.manifest["widths"]:
            held = list(self.manifest["widths"])
            raise StoreError(f"Store '{self.path}' does not hold '{site}' (it holds {held[:4]}); capture it.")
        return self.manifest["widths"][str(site)]

    def _shard(self, shard: dict) -> safe_open:
        file = self.file(shard)
        try:
            return safe_open(file, "pt")
        except SafetensorError as error:
            raise StoreError(f"Shard '{file}' cannot be read ({error}); capture it again.") from error
