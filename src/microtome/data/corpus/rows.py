"""Documents from rows: JSON lines, Parquet by batches of its row groups, and data sets streamed through `datasets`."""

import json
from collections.abc import Iterator
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.documents import Document
from microtome.data.corpus.layout import Layout
from microtome.data.corpus.lines import chunks
from microtome.data.rows import Hub, hub_rows, parquet_columns, parquet_rows

__all__ = ["hub_documents", "json_documents", "parquet_documents"]


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
    names = parquet_columns(path)
    if layout.text not in names:
        hint = did_you_mean(layout.text, names)
        raise DataError(f"No column '{layout.text}' in '{path}'; it has {', '.join(names)}.{hint}")
    for number, row in parquet_rows(path):
        document = layout.document(
            row, source=path.name, id=f"{path.name}:{number}", where=f"Row {number} of '{path}'", language=language
        )
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
    return _hub_documents(Hub.of(address), layout)


def _hub_documents(hub: Hub, layout: Layout) -> Iterator[Document]:
    for number, row in hub_rows(hub):
        id = f"{hub.name}:{hub.split}:{number}"
        document = layout.document(row, source=f"hf:{hub.name}", id=id, where=f"Row {number}")
        if document is not None:
            yield document
