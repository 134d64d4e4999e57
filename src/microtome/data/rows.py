"""Rows as they lie in Parquet files or come from the Hugging Face hub, streamed and numbered from 1."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from microtome.core.errors import DataError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["Hub", "hub_rows", "parquet_columns", "parquet_rows"]

Row = Mapping[str, object]

_BATCH = 256


def parquet_columns(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        DataError: not a Parquet file.
    """
    with _opened(path) as file:
        return file.schema_arrow.names


def parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a Parquet file, each with its number; a batch of a row group is held.

    Raises:
        DataError: not a Parquet file.
    """
    number = 0
    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row


class Hub(NamedTuple):
    """A data set of the hub.

    Attributes:
        name: its name, or a local folder's.
        config: its configuration; None where it has one.
        split: which part.
    """

    name: str
    config: str | None
    split: str

    @classmethod
    def of(cls, address: str) -> "Hub":
        """Return what an address says: `NAME`, `NAME:CONFIG` or `NAME:CONFIG:SPLIT`, the split `train` otherwise.

        Raises:
            DataError: it names nothing, or `datasets` is not installed.
        """
        name, config, split = [*address.split(":", 2), "", ""][:3]
        if not name:
            raise DataError("'hf:' names no data set; write hf:NAME or hf:NAME:CONFIG:SPLIT.")
        if importlib.util.find_spec("datasets") is None:
            raise DataError(f"'hf:{address}' is read through datasets, which is not installed; pip install datasets.")
        return cls(name, config or None, split or "train")


def hub_rows(hub: Hub) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a data set, streamed, each with its number.

    Args:
        hub: which.

    Raises:
        DataError: the data set cannot be had.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(hub.name, hub.config, split=hub.split, streaming=True)
    except (OSError, ValueError) as error:  # OSError: not found, no connection, offline mode
        first = str(error).partition("\n")[0]
        said = f"'hf:{hub.name}' could not be had, found {first!r}; check its name, config and split."
        raise DataError(said) from error
    yield from enumerate(rows, start=1)


def _opened(path: Path) -> "ParquetFile":
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except ArrowInvalid as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"'{path}' was read as Parquet, found {first} Fetch the file again.") from error
