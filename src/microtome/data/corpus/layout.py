"""How a corpus is laid out, as its reader was told, and what becomes of a document that cannot be read.

Strictly, the first such document ends the reading with one line that says where. With `errors="drop"` it is counted,
as read and as dropped, with its reason and an example: nothing vanishes without a number.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.counts import Counts
from microtome.data.corpus.documents import UNDETERMINED, Document

__all__ = ["Layout"]

_ENCODINGS = ("utf-8", "gb18030", "cp1252", "latin-1", "shift_jis", "euc-jp", "euc-kr", "big5", "cp1251", "koi8-r")
_ERRORS = ("strict", "drop")


@dataclass(frozen=True)
class Layout:
    """What a reader was told.

    Attributes:
        language: of every document; None where rows or file names say it.
        text: column of the text.
        encoding: of text files, one in which a line ends in the byte 10.
        blank_lines: documents of a .txt file end at a blank line, not at every line.
        errors: `strict` or `drop`.
        counts: where what is dropped is counted.

    Raises:
        DataError: a blank language, an encoding that is unknown or not read by lines, `drop` without counts.
    """

    language: str | None = None
    text: str = "text"
    encoding: str = "utf-8"
    blank_lines: bool = False
    errors: str = "strict"
    counts: Counts | None = None

    def __post_init__(self):
        if self.language is not None and not self.language.strip():
            raise DataError(f"The language {self.language!r} was given for a corpus; give a tag such as 'en', or None.")
        if self.errors not in _ERRORS:
            raise DataError(f"No errors='{self.errors}'; it is strict or drop.{did_you_mean(self.errors, _ERRORS)}")
        if self.errors == "drop" and self.counts is None:
            raise DataError("errors='drop' counts what it drops, found no counts to do so; pass counts=chain.counts.")
        try:
            line_end = "\n".encode(self.encoding)
        except LookupError as error:
            hint = did_you_mean(self.encoding, _ENCODINGS)
            raise DataError(f"No encoding '{self.encoding}'; use one such as {', '.join(_ENCODINGS)}.{hint}") from error
        if line_end.removeprefix(codecs.BOM_UTF8) != b"\n":  # utf-8-sig begins with its mark
            raise DataError(f"Encoding '{self.encoding}' does not end lines in the byte 10; convert the file to UTF-8.")

    def decode(self, data: bytes, offset: int, where: str, language: str | None = None) -> str | None:
        """Return the text of some bytes, or None where they are dropped.

        Args:
            data: the bytes.
            offset: of the first of them in the file.
            where: how a message names them.
            language: of the file, where it is known.

        Raises:
            DataError: strictly, bytes that are not of the encoding.
        """
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError as error:
            at = error.start
            guess = "gb18030" if self.encoding.lower().startswith("utf") else "utf-8"
            unread = data.decode(self.encoding, "replace")
            self.refuse(
                unread, f"not {self.encoding}", where, language,
                f"{where} was read as {self.encoding}, found byte 0x{data[at]:02x} at {offset + at} that is none of "
                f"it; give the encoding it was written in, e.g. encoding='{guess}', or errors='drop'.",
            )  # fmt: skip
        return None

    def refuse(self, text: str, reason: str, where: str, language: str | None, message: str) -> None:
        """Raise, or count a text as dropped.

        Args:
            text: of it, as far as it could be read.
            reason: it is counted under.
            where: names it in the examples.
            language: of the file or row, where it is known.
            message: of the error.

        Raises:
            DataError: strictly.
        """
        if self.errors == "strict" or self.counts is None:
            raise DataError(message)
        document = Document(text, self.language or language or UNDETERMINED, where)
        self.counts.read(document)
        self.counts.drop(document, reason)

    def document(
        self, row: Mapping[str, object], *, source: str, id: str, where: str, language: str | None = None
    ) -> Document | None:
        """Return a row as a document, or None where it is dropped; columns of no name known go to its meta.

        Args:
            row: column -> value; `language`, `source` and `id` are optional.
            source: where the row has none.
            id: where the row has none.
            where: how a message names the row.
            language: where the row has none.

        Raises:
            DataError: no such column; strictly, a text that is none; a language that nothing gives.
        """
        if self.text not in row:
            hint = did_you_mean(self.text, row)
            raise DataError(f"No column '{self.text}' in {where}; it has {', '.join(map(str, row)) or 'none'}.{hint}")
        text, spoken = row[self.text], self.language or _said(row.get("language")) or language
        if not isinstance(text, str) or _surrogates(text):
            kind = "a text with lone surrogates" if isinstance(text, str) else f"a text of {type(text).__name__}"
            said = text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""
            self.refuse(said, kind, where, spoken, f"{where} holds {kind}; mend the row or pass errors='drop'.")
            return None
        if spoken is None:
            raise DataError(f"No language for {where}; pass language='en' or add a column 'language'.")
        rest = {name: value for name, value in row.items() if name not in (self.text, "language", "source", "id")}
        return Document(text, spoken, _said(row.get("source")) or source, _said(row.get("id")) or id, rest)


def _said(value: object) -> str | None:
    """Return a cell as text, or None where it is empty."""
    return None if value is None or not str(value).strip() else str(value)


def _surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)
