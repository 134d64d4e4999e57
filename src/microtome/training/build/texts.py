"""Texts of a language on disk: Parquet written as documents come, read in order or by number, never held whole."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from microtome.core.errors import RecordError
from microtome.core.files import PART
from microtome.data.corpus.documents import Document

__all__ = ["Texts", "TextsWriter", "languages_in"]

_GROUP = 4096  # documents that are written, and read, at a time
_HELD = 8  # such groups held for reading by number
_SCHEMA = pa.schema([("text", pa.string()), ("source", pa.string()), ("id", pa.string())])
_ENDING = ".parquet"


class TextsWriter:
    """Writes documents into one file a language; a file takes its name when all is written.

    Args:
        folder: made if absent.

    Example:
        with TextsWriter(folder) as writer:
            for document in documents:
                writer.add(document)
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[Document]] = {}

    def add(self, document: Document) -> None:
        """Take one document."""
        waiting = self._waiting.setdefault(document.language, [])
        waiting.append(document)
        if len(waiting) == _GROUP:
            self._flush(document.language)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for language in list(self._waiting):
            self._flush(language)
        for language, file in self._files.items():
            file.close()
            if kind is None:
                self._part(language).replace(self.folder / f"{language}{_ENDING}")

    def _part(self, language: str) -> Path:
        return self.folder / f"{PART}{language}{_ENDING}"

    def _flush(self, language: str) -> None:
        rows = self._waiting[language]
        if not rows:
            return
        if language not in self._files:
            self._files[language] = pq.ParquetWriter(self._part(language), _SCHEMA, compression="zstd")
        columns = {"text": [d.text for d in rows], "source": [d.source for d in rows], "id": [d.id for d in rows]}
        self._files[language].write_table(pa.table(columns, schema=_SCHEMA), row_group_size=_GROUP)
        self._waiting[language] = []


class Texts(Sequence[str]):
    """The texts of one language, by number.

    Args:
        file: as `TextsWriter` wrote it.

    Raises:
        RecordError: it is none.
    """

    def __init__(self, file: Path):
        try:
            self._file = pq.ParquetFile(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise RecordError(
                f"'{file}' was to hold texts, found no whole Parquet file ({error}); remove it."
            ) from error
        rows = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = np.cumsum(rows)
        self.language = file.name.removesuffix(_ENDING)
        self._group = lru_cache(_HELD)(self._read)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[str]:
        for group in range(len(self._ends)):
            yield from self._read(group)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        place = number % len(self)
        group = int(np.searchsorted(self._ends, place, side="right"))
        return self._group(group)[place - (int(self._ends[group - 1]) if group else 0)]

    def documents(self) -> Iterator[Document]:
        """Yield the documents, in order."""
        for group in range(len(self._ends)):
            for row in self._file.read_row_group(group).to_pylist():
                yield Document(row["text"], self.language, row["source"], row["id"])

    def _read(self, group: int) -> list[str]:
        return self._file.read_row_group(group, columns=["text"]).column("text").to_pylist()


def languages_in(folder: Path) -> Mapping[str, Texts]:
    """Return the texts of every language in a folder, by name in order.

    Raises:
        RecordError: there are none.
    """
    found = {file.name.removesuffix(_ENDING): Texts(file) for file in sorted(folder.glob(f"[!.]*{_ENDING}"))}
    if not found:
        raise RecordError(f"'{folder}' was to hold texts by language, found none; remove it to make them again.")
    return found
