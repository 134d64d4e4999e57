"""A document: a text and what is known of it. What readers yield, filters judge, and a tokenizer is trained on.

A language is a tag of letters (`zh`, `pt-BR`) or the name of a programming language (`python`). It stays what the
source said; whether the text bears it out is for a filter to judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from microtome.core.errors import DataError

__all__ = ["UNDETERMINED", "Document"]

UNDETERMINED = "und"
"""The language of what was dropped before its language was known (BCP 47)."""


@dataclass(frozen=True)
class Document:
    """A text of a corpus.

    Attributes:
        text: its characters.
        language: tag or programming language; not blank.
        source: where it comes from, e.g. a file's name.
        id: names it within the corpus.
        meta: whatever else its source said of it.

    Raises:
        DataError: a text that is not a string, or a blank language.
    """

    text: str
    language: str
    source: str = ""
    id: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise DataError(f"Document '{self.id}' has a {type(self.text).__name__} for a text; give a string.")
        if not isinstance(self.language, str) or not self.language.strip():
            raise DataError(f"Document '{self.id}' has the language {self.language!r}; give a tag such as 'en'.")

    @property
    def key(self) -> str:
        """What tells it from other documents: source, id and text."""
        return f"{self.source}\0{self.id}\0{self.text}"
