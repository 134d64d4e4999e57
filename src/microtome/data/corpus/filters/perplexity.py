"""Perplexity: text that a character model of its language finds unlikely.

Each language has its own model (`character_model`) and its own threshold, a quantile of the perplexities of reference
documents that the model was not fitted on: at quantile 0.99 one in a hundred documents like the reference is dropped,
in every language alike. Perplexities of different languages do not compare; neither do these with KenLM's, which are of
words or sentence pieces.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.data.corpus.character_model import CharacterModel
from microtome.data.corpus.documents import Document
from microtome.data.corpus.sampling import priority

__all__ = ["FILTER", "Perplexity"]

_LEAST = 10  # documents to fit on, and to calibrate on


@dataclass(frozen=True)
class Perplexity:
    """Drop what is less likely than the reference documents were.

    Attributes:
        models: language -> its model.
        thresholds: language -> highest perplexity kept.
        shortest: characters that a text must have to be judged.
        unfitted: `error` or `keep` documents of languages without a model.

    Raises:
        DataError: models and thresholds of different languages, or another word for `unfitted`.
    """

    models: Mapping[str, CharacterModel]
    thresholds: Mapping[str, float]
    shortest: int = 20
    unfitted: str = "error"
    rank: ClassVar[int | None] = None
    needs: ClassVar[str | None] = None

    def __post_init__(self):
        if set(self.models) != set(self.thresholds) or not self.models:
            raise DataError(
                f"Perplexity has models of {', '.join(self.models) or 'no language'} and thresholds of "
                f"{', '.join(self.thresholds) or 'none'}; give both for each, or use Perplexity.fit."
            )
        if self.unfitted not in ("error", "keep"):
            raise DataError(f"No unfitted='{self.unfitted}'; it is error or keep.")

    @classmethod
    def fit(
        cls,
        documents: Iterable[Document],
        *,
        order: int = 5,
        quantile: float = 0.99,
        held_out: float = 0.2,
        shortest: int = 20,
        seed: int = 0,
    ) -> "Perplexity":
        """Return the filter of the languages of a reference sample, which is held while it is fitted.

        Args:
            documents: clean ones, e.g. from `sample_documents`; 10,000 of a language do.
            order: characters of the longest n-gram.
            quantile: share of held-out documents below the threshold (linear between order statistics).
            held_out: share of the documents that the threshold is found on.
            shortest: characters that a document must have to be judged, here and later.
            seed: of the split, which depends on nothing else than the documents.

        Raises:
            DataError: too few documents of a language, or a share outside 0 to 1.

        Example:
            chain = Chain([*default_filters(), Perplexity.fit(sample_documents(read_corpus("corpus"), 10_000))])
        """
        if not (0 < held_out < 1 and 0 < quantile <= 1):
            raise DataError(f"Perplexity was to be fitted with quantile {quantile} and held_out {held_out}; 0 to 1.")
        texts: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for document in documents:
            if len(document.text) >= shortest:
                # Not the key alone: a sample of the same seed holds just those of low priority.
                held = priority(seed, f"held out\0{document.key}") < held_out
                texts[document.language][held].append(document.text)
        if not texts:
            raise DataError(f"Perplexity was to be fitted, found no document of {shortest} characters; give some.")
        models, thresholds = {}, {}
        for language, (fitted, kept) in sorted(texts.items()):
            if min(len(fitted), len(kept)) < _LEAST:
                raise DataError(
                    f"Perplexity of '{language}' was to be fitted on {len(fitted)} and calibrated on {len(kept)} "
                    f"documents of {shortest} characters or more; give {_LEAST} or more for each."
                )
            models[language] = CharacterModel.fit(fitted, order=order)
            thresholds[language] = float(np.quantile([models[language].perplexity(text) for text in kept], quantile))
        return cls(models, thresholds, shortest)

    def __call__(self, document: Document) -> str | None:
        """Return None to keep the document, or why it is dropped.

        Raises:
            DataError: no model of its language, unless those are to be kept.
        """
        model = self.models.get(document.language)
        if model is None and self.unfitted == "error":
            raise DataError(
                f"Perplexity has no model of '{document.language}' (it has {', '.join(self.models)}); fit one, or "
                f"replace(filter, unfitted='keep').{did_you_mean(document.language, self.models)}"
            )
        if model is None or len(document.text) < self.shortest:
            return None
        return "high perplexity" if model.perplexity(document.text) > self.thresholds[document.language] else None


FILTER = Perplexity
