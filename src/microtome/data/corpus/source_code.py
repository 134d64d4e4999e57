"""Source code as a corpus: the files of one programming language under a folder, such as the standard library.

The languages are the sixteen of FuxiTranyu (arXiv 2408.06273, Table 3). Left out: test code (by the names of files and
folders), what lies in hidden folders or other packages' (`site-packages`, `node_modules`), links, and files that are
huge, empty, not UTF-8 or hold NUL. No licence is looked at.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.counts import Counts
from microtome.data.corpus.documents import Document

__all__ = ["PROGRAMMING", "read_source"]

PROGRAMMING = {
    "assembly": (".asm", ".s"), "c": (".c", ".h"), "cpp": (".cc", ".cpp", ".cxx", ".hpp", ".hh"), "csharp": (".cs",),
    "go": (".go",), "java": (".java",), "javascript": (".js", ".mjs"), "lua": (".lua",), "php": (".php",),
    "python": (".py",), "ruby": (".rb",), "rust": (".rs",), "scala": (".scala",), "sql": (".sql",),
    "typescript": (".ts", ".tsx"), "visualbasic": (".vb", ".bas"),
}  # fmt: skip
"""Programming language -> endings of its files. (`lua` is also the tag of Luba-Lulua: write that `lua-CD`.)"""

_OTHERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "vendor"})
_TESTS = frozenset({"test", "tests", "testing", "idle_test"})


def read_source(
    path: Path | str, language: str, *, longest: int = 1 << 20, counts: Counts | None = None
) -> Iterator[Document]:
    """Return the source files of one language under a folder, one document each, in the order of their paths.

    Args:
        path: the folder, searched in depth.
        language: one of `PROGRAMMING`.
        longest: bytes of a file; longer ones are left out.
        counts: where files left out are counted, e.g. those of the chain that the documents go through.

    Raises:
        DataError: no such folder or language, a length below 1, or (at the end) no such file.

    Example:
        documents = read_source(sysconfig.get_path("stdlib"), "python")
    """
    home = Path(path)
    if language not in PROGRAMMING:
        hint = did_you_mean(language, PROGRAMMING)
        raise DataError(f"No programming language '{language}'; there are {', '.join(PROGRAMMING)}.{hint}")
    if not home.is_dir():
        raise DataError(f"No folder '{home}' to read {language} from; give the path of one.")
    if longest < 1:
        raise DataError(f"Files of at most {longest} bytes were asked for; ask for 1 or more.")
    return _documents(home, language, longest, counts)


def _documents(home: Path, language: str, longest: int, counts: Counts | None) -> Iterator[Document]:
    found = False
    for file in _files(home, PROGRAMMING[language]):
        name = file.relative_to(home).as_posix()
        data = b"" if file.stat().st_size > longest else file.read_bytes()
        reason = "test code" if _is_test(file) else _unreadable(file, data, longest)
        document = Document(data.decode("utf-8", "replace"), language, home.name, name)
        if reason is None:
            found = True
            yield document
        elif counts is not None:
            counts.read(document)
            counts.drop(document, reason)
    if not found:
        raise DataError(
            f"No {language} to read under '{home}'; it is looked for in {', '.join(PROGRAMMING[language])}."
        )


def _files(home: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files with an ending, folders that hold other things left out, nothing through links."""
    for folder, folders, names in os.walk(home):
        folders[:] = sorted(f for f in folders if f not in _OTHERS | _TESTS and not f.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if name.lower().endswith(endings) and file.is_file() and not file.is_symlink():
                yield file


def _is_test(file: Path) -> bool:
    stem = file.stem.lower()
    return stem.startswith("test_") or stem.endswith(("_test", ".test", ".spec")) or stem == "conftest"


def _unreadable(file: Path, data: bytes, longest: int) -> str | None:
    """Return why a file is no document, or None."""
    if file.stat().st_size > longest:
        return "longer than asked for"
    if not data.strip():
        return "empty"
    if b"\0" in data:
        return "binary"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "not utf-8"
    return None
