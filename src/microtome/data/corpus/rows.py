"""Documents from rows: JSON lines, Parquet by batches of its row groups, and data sets streamed through `datasets`."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.documents import Document
from microtome.data.corpus.layout import Layout
from microtome.data.corpus.lines import chunks

__all__ = ["hub_documents", "json_documents", "parquet_documents"]

_BATCH = 256


def json_documents(path: Path, layout: Layout, language: str | None) -> Iterator[Document]:
    """Yield the documents of a file with one JSON object a line.

    Args:
        path: the file, .gz or not.
        layout: as the reader was told.
        language: of rows that say none.

    Raises:
        DataError: what `Layout` refuses; strictly, a line that is no JSON object.
    """
    for line, offset, data in chunks(path):
        where = f"Line {line} of '{path}'"
        text = layout.decode(data, offset, where, language)
        if text is None or not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):  # ValueError: also a number of too many digits
            row = None
        if not isinstance(row, dict):
            said = f"{where} should be a JSON object, found {text[:40]!r}; write one a line or pass errors='drop'."
            layout.refuse(text, "not a JSON object", where, language, said)
            continue
        document = layout.document(row, source=path.name, id=f"{path.name}:{line}", where=where, language=language)
        if document is not None:
            yield document


def parquet_documents(path: Path, layout: Layout, language: str | None) -> Iterator[Document]:
    """Yield the documents of a Parquet file.

    Args:
        path: the file.
        layout: as the reader was told.
        language: of rows that say none.

    Raises:
        DataError: not a Parquet file; what `Layout` refuses.
    """
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
    except ArrowInvalid as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"'{path}' was read as Parquet, found {first} Fetch the file again.") from error
    with file:
        names = file.schema_arrow.names
        if layout.text not in names:
            hint = did_you_mean(layout.text, names)
            raise DataError(f"No column '{layout.text}' in '{path}'; it has {', '.join(names)}.{hint}")
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                document = layout.document(
                    row, source=path.name, id=f"{path.name}:{number}", where=f"Row {number} of '{path}'",
                    language=language,
                )  # fmt: skip
                if document is not None:
                    yield document


def hub_documents(address: str, layout: Layout) -> Iterator[Document]:
    """Return the documents of a data set, streamed.

    Args:
        address: `NAME`, `NAME:CONFIG` or `NAME:CONFIG:SPLIT`; a name may be a local folder's.
        layout: as the reader was told.

    Raises:
        DataError: `datasets` is not installed, the data set cannot be had, or what `Layout` refuses.
    """
    name, config, split = [*address.split(":", 2), "", ""][:3]
    if not name:
        raise DataError("'hf:' names no data set; write hf:NAME or hf:NAME:CONFIG:SPLIT.")
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"'hf:{address}' is read through datasets, which is not installed; pip install datasets.")
    return _hub_rows(name, config or None, split or "train", layout)


def _hub_rows(name: str, config: str | None, split: str, layout: Layout) -> Iterator[Document]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config, split=split, streaming=True)
    except (OSError, ValueError) as error:  # OSError: not found, no connection, offline mode
        first = str(error).partition("\n")[0]
        raise DataError(f"'hf:{name}' could not be had, found {first!r}; check its name, config and split.") from error
    for number, row in enumerate(rows, start=1):
        document = layout.document(row, source=f"hf:{name}", id=f"{name}:{split}:{number}", where=f"Row {number}")
        if document is not None:
            yield document
