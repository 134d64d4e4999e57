"""Reading labelled files: bytes to text in a stated encoding, CSV to rows, JSON and JSON lines to objects.

Every way a file can be wrong ends in one line that says where. Text is decoded strictly: a wrong encoding is an error,
not a text full of question marks; a file of UTF-8 read as something else is one too. CSV cells may hold line
breaks, NUL and a hundred thousand characters; rows of another width than the header are not guessed at but counted.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean

__all__ = ["Table", "column", "label_of", "read_csv", "read_json", "read_json_lines", "read_text"]

ENCODING = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""

_ENCODINGS = ("utf-8", "utf-16", "gb18030", "cp1252", "latin-1", "shift_jis", "euc-kr", "big5", "cp1251")
_LONGEST_CELL = 1 << 30


def read_text(path: Path | str, encoding: str = ENCODING) -> str:
    """Return a file's text.

    Args:
        path: the file.
        encoding: the codec it is written in.

    Raises:
        DataError: no such file or codec, or bytes that are not of it.
    """
    source = Path(path)
    if not source.is_file():
        near = did_you_mean(source.name, [p.name for p in source.parent.glob("*")] if source.parent.is_dir() else ())
        raise DataError(f"No file '{source}' to read labelled texts from; give the path of one.{near}")
    data = source.read_bytes()
    try:
        text = data.decode(encoding)
    except LookupError as error:
        hint = did_you_mean(encoding, _ENCODINGS)
        raise DataError(f"No encoding '{encoding}' is known; use one such as {', '.join(_ENCODINGS)}.{hint}") from error
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        likely = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "gb18030"
        raise DataError(
            f"'{source}' was read as {encoding}, found byte 0x{data[at]:02x} at {at} that is none of it; give the "
            f"encoding it was written in, e.g. encoding='{likely if 'utf' in encoding else 'utf-8-sig'}'."
        ) from error
    if not codecs.lookup(encoding).name.startswith("utf") and _is_utf8(data):
        raise DataError(
            f"'{source}' was read as {encoding}, found that all its bytes are valid UTF-8, some beyond ASCII; read it "
            "with encoding='utf-8-sig'."
        )
    return text


def _is_utf8(data: bytes) -> bool:
    """Say whether bytes are UTF-8 and not just ASCII; text of another encoding is so only by rare accident."""
    if data.isascii():
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class Table:
    """A CSV as read.

    Attributes:
        path: the file.
        columns: names in the header.
        rows: column -> cell, for each row as wide as the header.
        ragged: how many rows were not.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    ragged: int


def read_csv(path: Path | str, *, encoding: str = ENCODING, delimiter: str = ",") -> Table:
    """Return the rows of a CSV with a header; blank lines are skipped.

    Raises:
        DataError: what `read_text` refuses, no header or no rows, a column named twice, or quotes that do not close.
    """
    source, rows, ragged = Path(path), [], 0
    text = read_text(source, encoding)
    with _long_cells():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        try:
            header = next(reader, [])
            for cells in filter(None, reader):
                if len(cells) == len(header):
                    rows.append(dict(zip(header, cells, strict=True)))
                else:
                    ragged += 1
        except csv.Error as error:
            raise DataError(
                f"'{source}' is not CSV at line {reader.line_num} ({error}); quote cells with \" and double the "
                "quotes inside."
            ) from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if not rows or twice:
        bare = f"{len(header)} columns in the first line and no row of that many cells"
        found = f"the column '{twice[0]}' twice" if twice else bare
        raise DataError(f"'{source}' should hold a header and rows, found {found}; mend the file.")
    return Table(source, tuple(header), tuple(rows), ragged)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Allow cells of any length while a file is read; csv keeps its limit process-wide."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def column(name: str, columns: Iterable[str], path: Path | str) -> str:
    """Return the name of a column that is there.

    Raises:
        DataError: it is not; the message names the nearest.
    """
    known = list(columns)
    if name not in known:
        raise DataError(f"No column '{name}' in '{path}'; it has {', '.join(known)}.{did_you_mean(name, known)}")
    return name


def label_of(value: object, where: str, values: Mapping[str, int] | None = None) -> int:
    """Return a cell as 0 or 1.

    Args:
        value: the cell: `0`, `1`, `0.0`, `1.0`, or a key of `values`.
        where: how the message names the cell.
        values: what other words stand for, e.g. `{"hate": 1, "none": 0}`.

    Raises:
        DataError: it is none of these.
    """
    found = str(value).strip()
    if values is not None:
        if found in values:
            return int(values[found])
        known = list(values)
        raise DataError(f"{where} is {found[:40]!r}; values name {', '.join(known)}.{did_you_mean(found, known)}")
    if found in ("0", "0.0", "1", "1.0"):
        return int(found[0])
    raise DataError(f"{where} is {found[:40]!r}; labels must be 0 or 1 (or pass values={{word: 0 or 1}}).")


def read_json(path: Path | str) -> list[dict]:
    """Return the objects of a JSON file that holds a list of them.

    Raises:
        DataError: what `read_text` refuses, or something else in the file.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"'{path}' is not JSON ({error}); fetch the file again.") from error
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise DataError(f"'{path}' should hold a list of objects, found {type(content).__name__}; mend the file.")
    return content


def read_json_lines(path: Path | str) -> list[dict]:
    """Return the objects of a file with one on each line.

    Raises:
        DataError: what `read_text` refuses, a line that is no object, or no lines.
    """
    rows = []
    # Not splitlines: JSON leaves U+2028, U+0085 and their like inside a line.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of '{path}' is not JSON ({error.msg}); write one object a line.") from error
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of '{path}' is a {type(row).__name__}; write one object a line.")
        rows.append(row)
    if not rows:
        raise DataError(f"'{path}' should hold one object a line, found no lines; mend the file.")
    return rows
