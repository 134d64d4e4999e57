"""A chain of filters that documents stream through, and the account of what became of them.

    read -> filter -> filter -> ... -> scrub -> kept

The first filter with a reason drops a document; scrubbing comes last. Whatever else is called with a document and
returns None or a reason can stand among the filters, a `Decontaminate` for one. Nothing of a document is kept but the
examples (`counts`), so memory does not grow with the corpus. Shards go through chains of their own, and their counts
are merged.
"""

from collections.abc import Callable, Iterable, Iterator

from microtome.core.errors import DataError
from microtome.data.corpus.counts import Counts
from microtome.data.corpus.documents import Document
from microtome.data.corpus.privacy import Scrub

__all__ = ["Chain"]


class Chain:
    """Filters in order, then scrubbing, with counts that grow as documents pass.

    Args:
        filters: each called with a document, returning None or a reason to drop it.
        scrub: what is replaced in documents kept; None for nothing.
        examples: dropped documents kept for browsing, for each language and reason.
        seed: of the draw of these, 0 or more.

    Example:
        chain = Chain(default_filters(), scrub=Scrub())
        kept = sum(1 for document in chain(read_corpus("corpus")))
        chain.report()
    """

    def __init__(
        self,
        filters: Iterable[Callable[[Document], str | None]],
        *,
        scrub: Scrub | None = None,
        examples: int = 3,
        seed: int = 0,
    ):
        self.filters = tuple(filters)
        self.scrub = scrub
        self.counts = Counts(examples=examples, seed=seed)
        wrong = [f for f in self.filters if isinstance(f, type) or not callable(f)]
        if wrong:
            raise DataError(f"A chain was given {wrong[0]!r} for a filter; give what is called with a document.")

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents that are kept, as they come."""
        for document in documents:
            self.counts.read(document)
            reason = next((r for r in (judge(document) for judge in self.filters) if r is not None), None)
            if reason is not None:
                self.counts.drop(document, reason)
                continue
            self.counts.keep(document)
            yield self._scrubbed(document)

    def report(self) -> list[dict[str, object]]:
        """Return what became of the documents so far, a row for every language, outcome and reason."""
        return self.counts.rows()

    def _scrubbed(self, document: Document) -> Document:
        if self.scrub is None:
            return document
        scrubbed, found = self.scrub(document)
        self.counts.scrub(document, found)
        return scrubbed
