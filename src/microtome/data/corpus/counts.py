"""What became of a corpus: documents and characters read, kept, dropped by reason and scrubbed, for every language.

    kept + dropped = read        of every language, in documents and in characters (as read, before any scrubbing)

Counts add up over shards: merging those of two halves gives those of the whole, the examples of dropped documents
included, because these are a bottom-k sample (`sampling`). The size depends on how many languages and reasons there
are, not on how many documents, so a reason names a rule and holds no number of the document's.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from microtome.data.corpus.documents import Document
from microtome.data.corpus.sampling import Reservoir

__all__ = ["Counts", "Tally"]

_EXCERPT = 240  # characters of an example


@dataclass
class Tally:
    """How much of something there was.

    Attributes:
        documents: how many.
        characters: in them.
        replaced: places scrubbed in them.
    """

    documents: int = 0
    characters: int = 0
    replaced: int = 0

    def add(self, documents: int, characters: int, replaced: int = 0) -> None:
        """Count more."""
        self.documents += documents
        self.characters += characters
        self.replaced += replaced


class Counts:
    """Counters of a pass over documents, by language.

    Args:
        examples: dropped documents kept for browsing, for each language and reason.
        seed: of their draw, 0 or more.
    """

    def __init__(self, *, examples: int = 3, seed: int = 0):
        self._examples, self._seed = examples, seed
        self._tallies: defaultdict[tuple[str, str, str], Tally] = defaultdict(Tally)
        self._dropped: dict[tuple[str, str], Reservoir[dict[str, str]]] = {}

    def read(self, document: Document) -> None:
        """Count a document as read; it is to be kept or dropped next."""
        self._tallies[document.language, "read", ""].add(1, len(document.text))

    def keep(self, document: Document) -> None:
        """Count a document as kept."""
        self._tallies[document.language, "kept", ""].add(1, len(document.text))

    def drop(self, document: Document, reason: str) -> None:
        """Count a document as dropped, and maybe keep its beginning as an example.

        Args:
            document: the one dropped.
            reason: the rule that dropped it, in a few words.
        """
        self._tallies[document.language, "dropped", reason].add(1, len(document.text))
        self._held(document.language, reason).add(
            document.key, {"source": document.source, "id": document.id, "text": document.text[:_EXCERPT]}
        )

    def scrub(self, document: Document, found: Mapping[str, int]) -> None:
        """Count what was replaced in a document.

        Args:
            document: the one scrubbed.
            found: kind -> places.
        """
        for kind, places in found.items():
            self._tallies[document.language, "scrubbed", kind].add(1, len(document.text), places)

    def merge(self, other: "Counts") -> None:
        """Add the counts of another shard."""
        for key, tally in other._tallies.items():
            self._tallies[key].add(tally.documents, tally.characters, tally.replaced)
        for (language, reason), held in other._dropped.items():
            self._held(language, reason).merge(held)

    def rows(self) -> list[dict[str, object]]:
        """Return a row for every language, outcome and reason.

        Returns:
            Rows of `language`, `outcome` (read, kept, dropped or scrubbed), `reason` (or the kind scrubbed),
            `documents`, `characters`, `replaced` and `share` (of the language's documents). A document scrubbed of two
            kinds is in two rows, and in kept.
        """
        order = ("read", "kept", "dropped", "scrubbed")
        rows = []
        for key in sorted(self._tallies, key=lambda k: (k[0], order.index(k[1]), k[2])):
            (language, outcome, reason), tally = key, self._tallies[key]
            read = self.total("read", language).documents
            rows.append({
                "language": language, "outcome": outcome, "reason": reason, "documents": tally.documents,
                "characters": tally.characters, "replaced": tally.replaced, "share": tally.documents / max(1, read),
            })  # fmt: skip
        return rows

    def examples(self) -> list[dict[str, str]]:
        """Return the dropped documents kept for browsing, as rows of `language`, `reason`, `source`, `id`, `text`."""
        return [
            {"language": language, "reason": reason} | example
            for (language, reason), held in sorted(self._dropped.items())
            for example in held.items()
        ]

    def total(self, outcome: str, language: str | None = None) -> Tally:
        """Return how much came to an outcome, for whatever reason.

        Args:
            outcome: read, kept, dropped or scrubbed.
            language: of one language; None for all.
        """
        total = Tally()
        for (spoken, came, _), tally in self._tallies.items():
            if came == outcome and language in (None, spoken):
                total.add(tally.documents, tally.characters, tally.replaced)
        return total

    def _held(self, language: str, reason: str) -> Reservoir[dict[str, str]]:
        if (language, reason) not in self._dropped:
            self._dropped[language, reason] = Reservoir(self._examples, self._seed)
        return self._dropped[language, reason]
