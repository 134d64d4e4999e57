"""SignatureStore: digest and band keys of every text on disk, so that memory does not grow with the corpus.

    signatures/
      manifest.json     how they were made, the parts in order with their checksums, whether all texts are in
      part-00000.npy    uint64 [texts, 2 + bands], column by column: the digest, then one key for every band

128 bytes a text at 14 bands. Writing holds one part, and of the texts only a few at a time; clusters hold one column (8
bytes a text), the order of its keys and the clusters. A part is written whole or not at all and then entered in the
manifest, so a killed run goes on after its last part; it notices texts that have changed since by the first of every
part. A finished store takes in what has been added at the end of the corpus.
"""

import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from microtome.core.errors import DataError
from microtome.core.files import clean, write_atomic
from microtome.data.dedup.clusters import Clusters, join, similar_texts
from microtome.data.dedup.exact import digests, same_digests
from microtome.data.dedup.minhash import MinHash, batches
from microtome.data.dedup.shingles import Shingling

__all__ = ["SignatureStore", "write_array", "write_signatures"]

FORMAT, VERSION = "microtome.signatures", 1
PART = 65_536


@dataclass(frozen=True)
class SignatureStore:
    """A finished store.

    Attributes:
        path: its folder.
        manifest: how it was made, and its parts.
    """

    path: Path
    manifest: dict

    @classmethod
    def open(cls, path: str | Path) -> "SignatureStore":
        """Return the store in a folder.

        Raises:
            DataError: there is none, its making did not finish, or a part is missing or damaged.
        """
        store = cls(Path(path), _read(Path(path)))
        if not store.manifest["complete"]:
            raise DataError(
                f"Signatures in '{path}' are unfinished ({len(store)} texts); run the same write_signatures again."
            )
        for entry in store.manifest["parts"]:
            _check(store.path / entry["file"], entry["crc32"])
        return store

    def __len__(self) -> int:
        return sum(entry["texts"] for entry in self.manifest["parts"])

    @property
    def minhash(self) -> MinHash:
        """What the keys were made by."""
        made = self.manifest["minhash"]
        return MinHash(**made | {"shingling": Shingling(**made["shingling"])})

    @property
    def fingerprint(self) -> str:
        """Tells this store from any other: a checksum over its manifest."""
        return f"{zlib.crc32(json.dumps(self.manifest, sort_keys=True).encode()):08x}"

    @cached_property
    def _parts(self) -> list[np.ndarray]:
        return [np.load(self.path / entry["file"], mmap_mode="r") for entry in self.manifest["parts"]]

    def column(self, number: int) -> np.ndarray:
        """Return one column of all texts: 0 and 1 are the digest, 2 and on the bands.

        One part is read at a time: pages of mapped files would count as memory until the system wants them back.
        """
        found, done = np.empty(len(self), np.uint64), 0
        for entry in self.manifest["parts"]:
            found[done : done + entry["texts"]] = np.load(self.path / entry["file"])[:, number]
            done += entry["texts"]
        return found

    def keys(self, texts: np.ndarray) -> np.ndarray:
        """Return the band keys of some texts, [texts, bands].

        Args:
            texts: their numbers.
        """
        edges = np.cumsum([len(part) for part in self._parts])
        where = np.searchsorted(edges, texts, side="right")
        found = np.empty((len(texts), self.minhash.bands), np.uint64)
        for part in np.unique(where).tolist():
            own = where == part
            start = edges[part] - len(self._parts[part])
            found[own] = self._parts[part][texts[own] - start, 2:]
        return found

    def exact(self) -> Clusters:
        """Return the clusters of equal texts."""
        return same_digests(np.stack([self.column(0), self.column(1)], 1))

    def near(self, texts: Sequence[str] | None = None, *, verify: float | None = None) -> Clusters:
        """Return the clusters of near-duplicates, in one pass over all bands.

        Args:
            texts: the texts of the store, by number; needed to verify.
            verify: least exact Jaccard similarity of a pair that is joined; None takes the bands' word.

        Raises:
            DataError: verification was asked for without the texts, or with another number of them.
        """
        bands = (self.column(2 + band) for band in range(self.minhash.bands))
        if verify is None:
            return join(bands, len(self))
        if texts is None or len(texts) != len(self):
            found = "none" if texts is None else f"{len(texts)} of them"
            raise DataError(f"Verification needs the {len(self)} texts of '{self.path}', found {found}; give texts=.")
        return join(bands, len(self), similar_texts(texts, self.minhash.shingling, verify))


def write_signatures(
    texts: Iterable[str],
    path: str | Path,
    minhash: MinHash | None = None,
    *,
    part: int = PART,
    progress: Callable[[int], None] | None = None,
) -> SignatureStore:
    """Return the store of texts after writing what is not in it yet.

    Args:
        texts: read once, in the same order every time; they are numbered in it.
        path: the folder; made if absent.
        minhash: bands, rows and shingles; None for the defaults.
        part: texts in a part.
        progress: called with the number of texts done.

    Raises:
        DataError: no texts, or the folder holds signatures of other texts or made in another way.
    """
    folder, minhash = Path(path), minhash or MinHash()
    manifest = _resume(folder, {"minhash": asdict(minhash), "part": part})
    waiting, entries = iter(texts), manifest["parts"]
    for entry in entries:
        _skip(folder, entry, islice(waiting, entry["texts"]))
    while (rows := _signed(islice(waiting, part), minhash)) is not None:
        entries.append(_write_part(folder, len(entries), rows))
        _save(folder, manifest)
        if progress:
            progress(sum(entry["texts"] for entry in entries))
    if not entries:
        raise DataError(f"Signatures of a corpus were to go to '{folder}', found no texts in it; give at least one.")
    _save(folder, manifest | {"complete": True})
    return SignatureStore.open(folder)


def write_array(path: Path, array: np.ndarray) -> str:
    """Put an array in its place as .npy and return its checksum."""
    stream = io.BytesIO()
    np.save(stream, array)
    write_atomic(path, stream.getvalue())
    return f"{zlib.crc32(stream.getvalue()):08x}"


def _signed(texts: Iterable[str], minhash: MinHash) -> np.ndarray | None:
    """Return digests and keys of texts, column by column; None of no texts."""
    found = [np.concatenate([digests(batch), minhash.keys(batch)], 1) for batch in batches(texts)]
    return np.asfortranarray(np.concatenate(found)) if found else None


def _write_part(folder: Path, number: int, rows: np.ndarray) -> dict:
    file = f"part-{number:05d}.npy"
    crc = write_array(folder / file, rows)
    return {"file": file, "texts": len(rows), "crc32": crc, "first": rows[0, :2].tolist()}


def _skip(folder: Path, entry: dict, texts: Iterator[str]) -> None:
    """Pass over texts whose signatures are there."""
    first = digests(islice(texts, 1)).tolist()
    if first != [entry["first"]] or sum(1 for _ in texts) != entry["texts"] - 1:
        raise DataError(
            f"'{folder / entry['file']}' holds {entry['texts']} texts that are not those given now; give the texts it "
            "was begun with, or choose another folder."
        )


def _resume(folder: Path, head: dict) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    if not (folder / "manifest.json").is_file():
        return {"format": FORMAT, "version": VERSION, **head, "parts": [], "complete": False}
    manifest = _read(folder)
    for key, asked in head.items():
        if manifest[key] != asked:
            raise DataError(
                f"Signatures in '{folder}' were made with {key} {manifest[key]}, asked for {asked}; choose another "
                "folder."
            )
    return manifest | {"complete": False}


def _save(folder: Path, manifest: dict) -> None:
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1).encode())


def _read(folder: Path) -> dict:
    file = folder / "manifest.json"
    if not file.is_file():
        raise DataError(f"No signatures in '{folder}': manifest.json is missing; make them with write_signatures.")
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise DataError(f"The manifest of signatures '{folder}' is damaged ({error}); write them again.") from error
    found = (manifest.get("format"), manifest.get("version"))
    if found != (FORMAT, VERSION):
        raise DataError(f"'{folder}' is {found[0]} {found[1]}, this reads {FORMAT} {VERSION}; write it again.")
    return manifest


def _check(file: Path, expected: str) -> None:
    crc = 0
    if file.is_file():
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                crc = zlib.crc32(block, crc)
    if f"{crc:08x}" != expected:
        what = "damaged (its checksum differs from the manifest)" if file.is_file() else "missing"
        raise DataError(f"Signatures '{file}' are {what}; delete the folder and write them again.")
