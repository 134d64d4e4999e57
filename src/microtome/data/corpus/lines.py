"""Bytes of a text file, one document after the other, none of them kept: a line each, or lines up to a blank one.

Lines end at the byte 10 and nowhere else (not at U+2028 and its like); gzip is unpacked on the way.
"""

import codecs
import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from microtome.core.errors import DataError

__all__ = ["Chunk", "chunks"]

_LONGEST = 1 << 26


class Chunk(NamedTuple):
    """The bytes of one document, without the line end.

    Attributes:
        line: number of its first line, from 1.
        offset: of its first byte in the (unpacked) file.
        data: the bytes.
    """

    line: int
    offset: int
    data: bytes


def chunks(path: Path, *, blank_lines: bool = False) -> Iterator[Chunk]:
    """Yield the bytes of each document of a file, blank ones left out.

    Args:
        path: the file; unpacked if it ends in .gz.
        blank_lines: documents end at a blank line, not at every line.

    Raises:
        DataError: a document over 64 MiB, or a .gz that is damaged.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            yield from _joined(_lines(file, path), path) if blank_lines else _filled(_lines(file, path))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"'{path}' was read as gzip, found it damaged ({error}); fetch the file again.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[Chunk]:
    """Yield every line with its end, without a byte-order mark."""
    number = offset = 0
    while line := file.readline(_LONGEST):
        number += 1
        _check_length(len(line), number, path)
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        yield Chunk(number, offset + len(line) - len(data), data)
        offset += len(line)


def _filled(lines: Iterator[Chunk]) -> Iterator[Chunk]:
    return (Chunk(number, offset, data.rstrip(b"\r\n")) for number, offset, data in lines if data.strip())


def _joined(lines: Iterator[Chunk], path: Path) -> Iterator[Chunk]:
    """Yield the lines between blank ones together, their bytes as they are, so that places in them stay true."""
    held: list[Chunk] = []
    for line in itertools.chain(lines, [Chunk(0, 0, b"")]):
        if line.data.strip():
            held.append(line)
            _check_length(line.offset + len(line.data) - held[0].offset, held[0].line, path)
        elif held:
            yield Chunk(held[0].line, held[0].offset, b"".join(part.data for part in held).rstrip(b"\r\n"))
            held = []


def _check_length(size: int, line: int, path: Path) -> None:
    if size >= _LONGEST:
        raise DataError(
            f"'{path}' should hold documents of less than {_LONGEST >> 20} MiB, found a longer one at line {line}; "
            "split it, or check that it is text with one document a line."
        )
