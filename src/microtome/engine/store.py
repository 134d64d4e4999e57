"""ActivationStore: activations of many sites for any number of tokens, on disk.

    store/
      manifest.json            sites, widths, dtype, shards with token counts and checksums, batches done
      shard-00000.safetensors  one tensor [tokens, units] for each site
      tokens.parquet           item, position and token id of every stored token (written when capture ends)

Capture streams: a shard is written when full and only then entered in the manifest, so memory is bounded by one shard
and a killed capture goes on where it stopped. Padding is not stored. Reading is by token (rows) or by unit (columns)
without loading whole shards; each shard's checksum is verified when it is first opened.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import StoreError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["ActivationStore", "capture"]

VERSION = 2


def capture(
    model: Model,
    batches: Iterable[Batch],
    sites: "str | Site | Sequence[str | Site]",
    path: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_tokens: int = 8192,
    progress: Callable[[int, int, str], None] | None = None,
) -> "ActivationStore":
    """Store the activations of every real token of some batches; resumes a capture that was cut short.

    Args:
        model: the model.
        batches: the same batches in the same order when resuming.
        sites: activation sites with a sequence axis, globs allowed.
        path: folder of the store.
        dtype: storage type.
        shard_tokens: tokens in a shard (memory is about this times the units of all sites).
        progress: called with (batches done, 0, message).

    Raises:
        StoreError: the folder holds a store of other sites, another model or another type, or no token came.
    """
    path = Path(path)
    infos = model.select(sites)
    widths = {str(i.site): i.units * max(i.d_head, 1) for i in infos}
    head = {"model": model.name, "widths": widths, "dtype": str(dtype).removeprefix("torch.")}
    manifest = _resume(path, head)
    writer = _Writer(path, manifest, shard_tokens, items=manifest["items"])
    done = manifest["batches"]
    for number, batch in enumerate(batches):
        if number < done:
            continue
        parts: dict[str, Tensor] = {}

        def take(site, x, batch=batch, parts=parts):
            parts[str(site)] = x.flatten(2).to(dtype)[batch.mask].cpu()

        run(model, batch, read=[i.site for i in infos], logits="none", sink=take)
        items, positions = batch.mask.nonzero(as_tuple=True)
        offset = (batch.mask.int().argmax(1))[items]
        index = torch.stack([items + writer.items, positions - offset, batch.inputs["input_ids"][batch.mask]], 1)
        writer.add(parts, index.cpu(), number + 1, len(batch))
        if progress:
            progress(number + 1, 0, "capture")
    writer.close()
    return ActivationStore.open(path)


def _resume(path: Path, head: dict) -> dict:
    """Return the manifest of a fresh or unfinished store."""
    path.mkdir(parents=True, exist_ok=True)
    for stale in path.glob("*.part"):
        stale.unlink()
    if not (path / "manifest.json").is_file():
        fresh = {"format": "microtome.store", "version": VERSION, **head, "shards": [], "batches": 0, "items": 0}
        return fresh | {"complete": False}
    manifest = _manifest(path)
    for key, value in head.items():
        if manifest[key] != value:
            raise StoreError(f"Store '{path}' holds {key} {manifest[key]}, asked for {value}; choose another folder.")
    return manifest


@dataclass
class _Writer:
    """Collects tokens and writes full shards; the manifest is replaced only after its shard is safely down."""

    path: Path
    manifest: dict
    shard_tokens: int
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    index: list[Tensor] = field(default_factory=list)
    held: int = 0
    batches: int = 0
    items: int = 0

    def add(self, parts: dict[str, Tensor], index: Tensor, batches: int, items: int) -> None:
        self.items += items
        self.parts.append(parts)
        self.index.append(index)
        self.held += len(index)
        self.batches = batches
        if self.held >= self.shard_tokens:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one shard (with its token index, so that a killed capture loses nothing)."""
        if not self.held:
            return
        name = f"shard-{len(self.manifest['shards']):05d}.safetensors"
        tensors = {s: torch.cat([p[s] for p in self.parts]) for s in self.parts[0]}
        tensors["index"] = torch.cat(self.index)
        part = self.path / (name + ".part")
        save_file(tensors, part)
        os.replace(part, self.path / name)
        self.manifest["shards"].append({"file": name, "tokens": self.held, "crc32": _checksum(self.path / name)})
        self.manifest |= {"batches": self.batches, "items": self.items}
        self.parts, self.index, self.held = [], [], 0
        self._save()

    def close(self) -> None:
        self.flush()
        if not self.manifest["shards"]:
            raise StoreError(f"Nothing to store in '{self.path}': the batches held no token; give at least one prompt.")
        if not self.manifest["complete"]:
            self._write_tokens()
            self.manifest["complete"] = True
            self._save()

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

    def _save(self) -> None:
        part = self.path / "manifest.json.part"
        part.write_text(json.dumps(self.manifest, indent=1))
        os.replace(part, self.path / "manifest.json")


def _checksum(path: Path) -> str:
    """CRC-32 of a file: finds damage at a fifth of the cost of a cryptographic digest."""
    crc = 0
    with path.open("rb") as f:
        while block := f.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def _manifest(path: Path) -> dict:
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except FileNotFoundError as error:
        raise StoreError(
            f"No activation store at '{path}': manifest.json is missing; make one with capture."
        ) from error
    except json.JSONDecodeError as error:
        raise StoreError(f"The manifest of store '{path}' is damaged ({error}); capture it again.") from error
    if manifest.get("version") != VERSION:
        raise StoreError(f"Store '{path}' has version {manifest.get('version')}, this program reads {VERSION}.")
    return manifest


@dataclass(frozen=True)
class ActivationStore:
    """A finished store. Open one with `ActivationStore.open`."""

    path: Path
    manifest: dict
    _checked: set = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """Return the store in a folder.

        Raises:
            StoreError: there is none, or its capture did not finish.
        """
        path = Path(path)
        manifest = _manifest(path)
        if not manifest["complete"]:
            raise StoreError(
                f"Store '{path}' is unfinished ({manifest['batches']} batches done); run the same capture again."
            )
        return cls(path, manifest)

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

    def _shard(self, shard: dict):
        file = self.path / shard["file"]
        if shard["file"] not in self._checked:
            if not file.is_file():
                raise StoreError(f"Shard '{file}' is missing; capture the store again.")
            if _checksum(file) != shard["crc32"]:
                raise StoreError(f"Shard '{file}' is damaged (checksum differs from the manifest); capture it again.")
            self._checked.add(shard["file"])
        try:
            return safe_open(file, "pt")
        except SafetensorError as error:
            raise StoreError(f"Shard '{file}' cannot be read ({error}); capture it again.") from error
