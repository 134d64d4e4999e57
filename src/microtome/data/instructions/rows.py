"""Rows of instruction data as they lie in files or come from the hub, each with the words that say where it is."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.documents import UNDETERMINED
from microtome.data.corpus.lines import chunks
from microtome.data.instructions.tags import FUXITRANYU
from microtome.data.rows import Hub, hub_rows, parquet_rows

__all__ = ["Row", "rows"]

_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_HUB = "hf:"


class Row(NamedTuple):
    """A row and where it was found.

    Attributes:
        values: column -> value.
        source: the file's name, or `hf:NAME`.
        where: as messages name it, `data.jsonl:12`.
        language: what the file's name says; `und` where it says none.
    """

    values: Mapping[str, object]
    source: str
    where: str
    language: str = UNDETERMINED


def rows(path: Path | str) -> Iterator[Row]:
    """Return the rows of a file, of a folder's files in order, or of a data set of the hub, as they are asked for.

    Args:
        path: a .jsonl (also .gz), .json or .parquet file, a folder of such, or `hf:NAME[:CONFIG[:SPLIT]]`.

    Raises:
        DataError: nothing there, an unknown ending, a line that is no JSON object, or a data set that cannot be had.
    """
    if str(path).startswith(_HUB):
        return _hub(str(path).removeprefix(_HUB))
    home = Path(path)
    if home.is_dir():
        files = sorted(p for p in home.iterdir() if p.is_file() and p.name.lower().endswith(_ENDINGS))
        if not files:
            raise DataError(f"No instruction data in '{home}'; put in files that end in {', '.join(_ENDINGS)}.")
        return (row for file in files for row in _file(file))
    if not home.is_file():
        near = did_you_mean(home.name, [p.name for p in home.parent.glob("*")] if home.parent.is_dir() else ())
        raise DataError(f"No file or folder '{home}' to read instruction data from; give the path of one.{near}")
    return _file(home)


def _file(path: Path) -> Iterator[Row]:
    name = path.name.lower()
    ending = next((e for e in _ENDINGS if name.endswith(e)), None)
    if ending is None:
        raise DataError(f"'{path}' ends in '{path.suffix}'; instruction data are read from {', '.join(_ENDINGS)}.")
    said = name[: -len(ending)].rpartition(".")[2]
    language = said if said in FUXITRANYU else UNDETERMINED
    read = {".json": _whole, ".parquet": _parquet}.get(ending, _lines)
    return (Row(values, path.name, where, language) for values, where in read(path))


def _lines(path: Path) -> Iterator[tuple[Mapping[str, object], str]]:
    for line, _, data in chunks(path):
        where = f"{path}:{line}"
        yield _object(_parsed(data, where), where), where


def _whole(path: Path) -> Iterator[tuple[Mapping[str, object], str]]:
    content = _parsed(path.read_bytes(), str(path))
    if not isinstance(content, list):
        raise DataError(f"'{path}' should hold a list of rows, found a {type(content).__name__}; write [row, ...].")
    for number, row in enumerate(content, start=1):
        where = f"{path}:{number}"
        yield _object(row, where), where


def _parsed(data: bytes, where: str) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        first = str(error).partition("\n")[0]
        raise DataError(f"{where} was read as JSON, found {first}; mend the line.") from error


def _object(row: object, where: str) -> Mapping[str, object]:
    if not isinstance(row, dict):
        raise DataError(f"{where} should be a JSON object, found a {type(row).__name__}; write one a row.")
    return row


def _parquet(path: Path) -> Iterator[tuple[Mapping[str, object], str]]:
    return ((row, f"{path}:{number}") for number, row in parquet_rows(path))


def _hub(address: str) -> Iterator[Row]:
    hub = Hub.of(address)
    return (Row(row, f"hf:{hub.name}", f"hf:{hub.name}:{hub.split}:{number}") for number, row in hub_rows(hub))
