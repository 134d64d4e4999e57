"""Reading a corpus, streaming: text, JSON lines, Parquet, a folder of them, or a data set of the Hugging Face hub.

    corpus/en.txt, corpus/zh.jsonl.gz ...    a folder: a file's name is its language
    web.jsonl, web.parquet                   columns `text` and, optional, `language`, `source`, `id`
    hf:NAME, hf:NAME:CONFIG:SPLIT            streamed through `datasets`, where that is installed

At most one line, one batch of a row group or one row is held. Every way a file can be wrong is one line that says
where; with `errors="drop"` a line that cannot be read is counted and left out. Folders are not searched in depth.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.counts import Counts
from microtome.data.corpus.documents import Document
from microtome.data.corpus.layout import Layout
from microtome.data.corpus.lines import chunks
from microtome.data.corpus.rows import hub_documents, json_documents, parquet_documents
from microtome.data.corpus.source_code import PROGRAMMING

__all__ = ["read_corpus"]

_ENDINGS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
_TAG = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_HUB = "hf:"


def read_corpus(
    path: Path | str,
    *,
    language: str | None = None,
    blank_lines: bool = False,
    text: str = "text",
    encoding: str = "utf-8",
    errors: str = "strict",
    counts: Counts | None = None,
) -> Iterator[Document]:
    """Return the documents of a corpus, one after the other as they are asked for.

    Args:
        path: a file (.txt, .jsonl, each also with .gz, or .parquet), a folder of such files named by language, or
            `hf:NAME` (with `:CONFIG:SPLIT` where it needs them; the split is `train` otherwise).
        language: of every document; None takes it from the column `language`, else from the name of a folder's file.
        blank_lines: documents of a .txt end at a blank line, not at every line.
        text: column of the text.
        encoding: of .txt and .jsonl files.
        errors: `strict` ends at what cannot be read; `drop` leaves it out and counts it.
        counts: where dropped lines are counted, e.g. those of the chain that the documents go through.

    Raises:
        DataError: nothing at the path, an ending or encoding that is unknown, a column that is missing, no language,
            bytes that are not text, or (at the end) no document at all.

    Example:
        chain = Chain(default_filters())
        for document in chain(read_corpus("corpus", errors="drop", counts=chain.counts)):
            ...
    """
    layout = Layout(language, text, encoding, blank_lines, errors, counts)
    if str(path).startswith(_HUB):
        return _some(hub_documents(str(path).removeprefix(_HUB), layout), str(path))
    home = Path(path)
    if home.is_dir():
        return _some(_folder(home, layout), str(home))
    if not home.is_file():
        near = did_you_mean(home.name, [p.name for p in home.parent.glob("*")] if home.parent.is_dir() else ())
        raise DataError(f"No file or folder '{home}' to read a corpus from; give the path of one.{near}")
    if layout.language is None and _ending(home).startswith(".txt"):
        raise DataError(f"No language for '{home}'; pass language='en', or give the folder of files named by language.")
    return _some(_file(home, layout, None), str(home))


def _ending(path: Path) -> str:
    """Return the ending a file is read by.

    Raises:
        DataError: it is none of those known.
    """
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise DataError(f"'{path}' ends in '{path.suffix}', a corpus is read from {', '.join(_ENDINGS)}; convert it.")


def _folder(home: Path, layout: Layout) -> Iterator[Document]:
    files = sorted(p for p in home.iterdir() if p.is_file() and p.name.lower().endswith(_ENDINGS))
    if not files:
        raise DataError(f"No files of a corpus in '{home}'; put in <language>.txt, .jsonl or .parquet.")
    for file in files:
        yield from _file(file, layout, _named(file, layout))


def _named(file: Path, layout: Layout) -> str | None:
    """Return the language a file's name says: all of it, or its last part (`en.txt`, `ntrex.en.txt`).

    Raises:
        DataError: it says none, in a format that says none itself.
    """
    name = file.name[: -len(_ending(file))].rpartition(".")[2]
    if _TAG.fullmatch(name) or name in PROGRAMMING:
        return name
    if layout.language is None and _ending(file).startswith(".txt"):
        raise DataError(f"'{file}' should be named by its language, as en.txt; rename it or pass language='en'.")
    return None


def _file(file: Path, layout: Layout, language: str | None) -> Iterator[Document]:
    ending = _ending(file)
    if ending == ".parquet":
        return parquet_documents(file, layout, language)
    if ending.startswith(".jsonl"):
        return json_documents(file, layout, language)
    return _texts(file, layout, layout.language or language or "")


def _texts(file: Path, layout: Layout, language: str) -> Iterator[Document]:
    for line, offset, data in chunks(file, blank_lines=layout.blank_lines):
        text = layout.decode(data, offset, f"Line {line} of '{file}'", language)
        if text is not None and text.strip():
            yield Document(text.replace("\r\n", "\n"), language, file.name, f"{file.name}:{line}")


def _some(documents: Iterator[Document], where: str) -> Iterator[Document]:
    """Yield the documents; having yielded none is an error."""
    found = False
    for document in documents:
        found = True
        yield document
    if not found:
        raise DataError(f"'{where}' was read as a corpus, found no document in it that can be read; check the file.")
