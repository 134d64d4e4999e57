"""Parallel text: one file a language, whose lines say the same, one after the other.

    parallel/ntrex.en.txt   ntrex.de.txt   ntrex.ta.txt ...      or   en.txt   de.txt   ta.txt ...

Line k of every file translates line k of every other, so scores of languages are scores of the same content, and
sentences can be resampled in all languages at once. A line that is blank in one language is left out of all of them;
the log says how many. Files whose names say no language (LICENSE.txt) are passed over, the folder is not searched in
depth. Alignment is taken on trust, only the number of lines is checked.
"""

import codecs
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean

__all__ = ["parallel_files", "read_parallel"]

_LOG = logging.getLogger(__name__)
_TAG = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_ENDING = ".txt"


def read_parallel(
    folder: Path | str, languages: Sequence[str] | None = None, *, sentences: int | None = None
) -> dict[str, tuple[str, ...]]:
    """Return language -> its lines, the same number of each, in the same order.

    Args:
        folder: of files named `<language>.txt` or `<name>.<language>.txt`, in UTF-8.
        languages: which to read, in this order; None reads all there are, by name.
        sentences: most lines of each language, from the first on; None for all.

    Raises:
        DataError: no such folder or language, two files of one language, bytes that are not UTF-8, an empty file,
            files with different numbers of lines, or no line that is filled in all languages.

    Example:
        parallel = read_parallel("corpus/parallel", ["en", "hi"], sentences=500)
        parallel["hi"][0]      # translates parallel["en"][0]
    """
    found = parallel_files(folder)
    wanted = _wanted(languages, found, folder)
    if sentences is not None and sentences < 1:
        raise DataError(f"{sentences} parallel sentences were asked for; give 1 or more, or None for all.")
    lines = {language: _lines(found[language]) for language in wanted}
    _check_aligned({found[language]: len(held) for language, held in lines.items()})
    rows = list(zip(*lines.values(), strict=True))
    filled = [row for row in rows if all(row)]
    if not filled:
        raise DataError(
            f"'{folder}' should hold lines filled in all of {', '.join(wanted)}, found none; check the files."
        )
    if len(filled) < len(rows):
        _LOG.warning("left out %d of %d lines of '%s': blank in a language", len(rows) - len(filled), len(rows), folder)
    return dict(zip(wanted, zip(*filled[:sentences], strict=True), strict=True))


def parallel_files(folder: Path | str) -> dict[str, Path]:
    """Return language -> its file, by name.

    Args:
        folder: as `read_parallel` takes it.

    Raises:
        DataError: no such folder, no such file in it, or two of one language.
    """
    folder = Path(folder)
    if not folder.is_dir():
        parent = folder.parent
        near = did_you_mean(folder.name, [p.name for p in parent.iterdir()] if parent.is_dir() else ())
        raise DataError(
            f"No folder '{folder}' to read parallel text from; give one that holds <language>.txt files.{near}"
        )
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(_ENDING)):
        language = path.name.removesuffix(_ENDING).rpartition(".")[2]
        if not _TAG.fullmatch(language):
            continue
        if language in found:
            raise DataError(
                f"One file of '{language}' was looked for in '{folder}', found {found[language].name} and {path.name}; "
                "keep one of them there."
            )
        found[language] = path
    if not found:
        raise DataError(f"No parallel text in '{folder}'; put in <language>.txt or <name>.<language>.txt files.")
    return dict(sorted(found.items()))


def _wanted(languages: Sequence[str] | None, found: dict[str, Path], folder: Path | str) -> list[str]:
    asked = [languages] if isinstance(languages, str) else languages
    wanted = list(dict.fromkeys(found if asked is None else asked))
    if not wanted:
        raise DataError(f"Parallel text of no language was asked for; '{folder}' has {', '.join(found)}.")
    for language in wanted:
        if language not in found:
            near = did_you_mean(language, found)
            raise DataError(f"No parallel text of '{language}' in '{folder}'; there are {', '.join(found)}.{near}")
    return wanted


def _lines(path: Path) -> list[str]:
    """Return a file's lines without white space around them; the line end is the byte 10 and nothing else."""
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"Line {line} of '{path}' was read as UTF-8, found byte 0x{data[error.start]:02x} that is none of it; "
            "convert the file."
        ) from error
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if not any(lines):
        raise DataError(f"'{path}' should hold a sentence a line, found it empty; fill it or take it away.")
    return lines


def _check_aligned(counts: dict[Path, int]) -> None:
    """Refuse files with different numbers of lines; the message names the first and the first that differs from it."""
    (first, lines), *rest = counts.items()
    for path, count in rest:
        if count != lines:
            raise DataError(
                f"Parallel files should have as many lines, found {lines:,} in '{first.name}' and {count:,} in "
                f"'{path.name}'; align them."
            )
