"""Reading instruction data: files, folders and data sets of the hub, in any of the layouts that `formats` tells apart.

    read_conversations("openhermes.jsonl"), read_conversations("aya/"), read_conversations("hf:CohereForAI/aya_dataset")
    read_preferences("hf:HuggingFaceH4/ultrafeedback_binarized:default:train_prefs")

Rows stream, one batch at most is held (a .json is one piece). A row that is none of the layouts ends the reading with
one line that says where it is. What is well-formed but cannot be trained on is for `selection`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from microtome.core.errors import DataError
from microtome.data.instructions.formats import as_conversation, as_pair
from microtome.data.instructions.rows import Row, rows
from microtome.data.instructions.schema import Conversation, PreferencePair

__all__ = ["read_conversations", "read_preferences"]

Kind = TypeVar("Kind", Conversation, PreferencePair)


def read_conversations(path: Path | str, *, language: str | None = None) -> Iterator[Conversation]:
    """Return the conversations of a data set as they are asked for.

    Args:
        path: a .jsonl (also .gz), .json or .parquet file, a folder of such, or `hf:NAME[:CONFIG[:SPLIT]]`.
        language: of all of them; None takes what the rows say, else the name of a file (`de.jsonl`), else `und`.

    Raises:
        DataError: nothing to read there, a row of no known layout, or (at the end) no row at all.

    Example:
        chosen = select(read_conversations("aya.parquet"), languages=FUXITRANYU)
    """
    return _read(path, as_conversation, language)


def read_preferences(path: Path | str, *, language: str | None = None) -> Iterator[PreferencePair]:
    """Return the pairs of answers of a data set as they are asked for.

    Args:
        path: as for conversations.
        language: as for conversations.

    Raises:
        DataError: as for conversations.

    Example:
        pairs = select(read_preferences("ultrafeedback.jsonl", language="en")).kept
    """
    return _read(path, as_pair, language)


def _read(path: Path | str, make: Callable[..., Kind], language: str | None) -> Iterator[Kind]:
    if language is not None and not language.strip():
        raise DataError(f"The language {language!r} was given for '{path}'; give a tag such as 'en', or None.")
    return _made(rows(path), str(path), make, language)


def _made(found: Iterator[Row], path: str, make: Callable[..., Kind], language: str | None) -> Iterator[Kind]:
    empty = True
    for row in found:
        empty = False
        yield make(row.values, source=row.source, id=row.where, language=language, otherwise=row.language)
    if empty:
        raise DataError(f"'{path}' was read as instruction data, found no row in it; check the file.")
