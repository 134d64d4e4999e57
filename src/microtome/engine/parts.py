"""Parts: a folder of files, each written whole or not at all and then entered in a manifest with its checksum.

    folder/
      manifest.json          what the store is of, its parts in order, how far its making got, whether it is complete
      NAME-00000.safetensors ...

The manifest is replaced in one step, and only after the part is safely down; so after kill -9 a store goes on after its
last part. A part's checksum is verified when it is first read. The stores of activations (`store.py`) and of pooled
activations (`pooled.py`) are such folders.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from safetensors.torch import save_file
from torch import Tensor

from microtome.core.errors import StoreError

__all__ = ["PartedStore", "Parts"]


@dataclass(frozen=True)
class Parts:
    """One kind of store: how it is called, in which version, and what makes it.

    Attributes:
        name: in words, e.g. `activation store`.
        format: in its manifest.
        version: of the format.
        part: what a part is called; its files begin with it.
        again: what makes such a store.
    """

    name: str
    format: str
    version: int
    part: str
    again: str

    @property
    def key(self) -> str:
        """Where the manifest lists the parts."""
        return f"{self.part}s"

    def read(self, path: Path) -> dict:
        """Return the manifest of a folder.

        Raises:
            StoreError: there is none, or it is damaged, of another kind or of another version.
        """
        try:
            manifest = json.loads((path / "manifest.json").read_text())
        except FileNotFoundError as error:
            raise StoreError(
                f"No {self.name} at '{path}': manifest.json is missing; make one with {self.again}."
            ) from error
        except json.JSONDecodeError as error:
            raise StoreError(f"The manifest of store '{path}' is damaged ({error}); {self.again} it again.") from error
        found = (manifest.get("format"), manifest.get("version"))
        if found != (self.format, self.version):
            raise StoreError(
                f"Store '{path}' is {found[0]} {found[1]}, this program reads {self.format} {self.version}; "
                f"{self.again} it again."
            )
        return manifest

    def resume(self, path: Path, head: Mapping[str, object], fresh: Mapping[str, object]) -> dict:
        """Return the manifest of a new or unfinished store.

        Args:
            path: its folder; made if absent.
            head: what it is of; an unfinished one must be of the same.
            fresh: what the manifest of a new one holds beside that.

        Raises:
            StoreError: the folder holds something else.
        """
        path.mkdir(parents=True, exist_ok=True)
        for stale in path.glob("*.part"):
            stale.unlink()
        if not (path / "manifest.json").is_file():
            begun = {"format": self.format, "version": self.version, **head, self.key: [], "batches": 0}
            return begun | {**fresh, "complete": False}
        manifest = self.read(path)
        for key, value in head.items():
            if manifest[key] != value:
                raise StoreError(
                    f"Store '{path}' holds {key} {manifest[key]}, asked for {value}; choose another folder."
                )
        return manifest

    def write(self, path: Path, number: int, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Write one part, whole or not at all, and return its entry: file and checksum."""
        file = path / f"{self.part}-{number:05d}.safetensors"
        part = file.with_name(file.name + ".part")
        save_file(dict(tensors), part)
        os.replace(part, file)
        return {"file": file.name, "crc32": _checksum(file)}

    @staticmethod
    def save(path: Path, manifest: Mapping[str, object]) -> None:
        """Replace the manifest."""
        part = path / "manifest.json.part"
        part.write_text(json.dumps(manifest, indent=1))
        os.replace(part, path / "manifest.json")

    def open(self, path: Path) -> dict:
        """Return the manifest of a finished store.

        Raises:
            StoreError: there is none, or its making did not finish.
        """
        manifest = self.read(path)
        if not manifest["complete"]:
            raise StoreError(
                f"Store '{path}' is unfinished ({manifest['batches']} batches done); run the same {self.again} again."
            )
        return manifest

    def check(self, path: Path, entry: Mapping[str, str]) -> Path:
        """Return a part's file after holding it against its checksum.

        Raises:
            StoreError: it is missing or damaged.
        """
        file, name = path / entry["file"], self.part.capitalize()
        if not file.is_file():
            raise StoreError(f"{name} '{file}' is missing; {self.again} the store again.")
        if _checksum(file) != entry["crc32"]:
            raise StoreError(
                f"{name} '{file}' is damaged (checksum differs from the manifest); {self.again} the store again."
            )
        return file


@dataclass(frozen=True)
class PartedStore:
    """A finished store in parts; its kind says which.

    Attributes:
        path: its folder.
        manifest: what it is of, and its parts.
    """

    path: Path
    manifest: dict
    _checked: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)

    parts: ClassVar[Parts]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return the store in a folder.

        Raises:
            StoreError: there is none, or its making did not finish.
        """
        return cls(Path(path), cls.parts.open(Path(path)))

    def file(self, entry: Mapping[str, str]) -> Path:
        """Return a part's file, checked when it is first asked for.

        Raises:
            StoreError: it is missing or damaged.
        """
        if entry["file"] not in self._checked:
            self._checked[entry["file"]] = self.parts.check(self.path, entry)
        return self._checked[entry["file"]]


def _checksum(path: Path) -> str:
    """CRC-32 of a file: finds damage at a fifth of the cost of a cryptographic digest."""
    crc = 0
    with path.open("rb") as f:
        while block := f.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"
