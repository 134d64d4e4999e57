"""Parallel sentences as a model reads them: tokens, two disjoint halves, batches by length, resamples.

The same sentences are taken in every language, so that languages differ in nothing but language; halves are of
sentences, so that no sentence that found something tests it in another language. Texts of all languages share batches,
sorted by length, which wastes little on padding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from microtome.core.errors import DataError
from microtome.core.seeds import derive, generator
from microtome.measures.intervals import percentile_interval
from microtome.models.batch import Batch
from microtome.models.model import Model
from microtome.models.zoo.untrained import untrained
from microtome.studies.multilingual.analysis import Analysis

__all__ = ["Reading", "Sentences", "resampled", "spread", "tokenised", "twin_of"]

Half = Literal["discovery", "test", "both"]


@dataclass(frozen=True, eq=False)
class Reading:
    """Texts of all languages, shortest first: the order in which they are read.

    Attributes:
        rows: token ids of each text.
        language: number of each text's language, [texts].
        sentence: number of the sentence that it is a translation of, from 0, [texts].
        sentences: how many sentences.
        limit: tokens in one forward pass.
    """

    rows: Sequence[Sequence[int]]
    language: np.ndarray
    sentence: np.ndarray
    sentences: int
    limit: int

    @cached_property
    def parts(self) -> list[slice]:
        """The rows of each batch: as many as fit under the limit when padded, at least one."""
        edges = [0]
        for i, row in enumerate(self.rows):
            if i > edges[-1] and (i + 1 - edges[-1]) * len(row) > self.limit:
                edges.append(i)
        return [slice(a, b) for a, b in pairwise([*edges, len(self.rows)])]

    def batches(self, model: Model) -> Iterator[Batch]:
        """Yield the batches of a model, in the order of the rows."""
        return (model.batch_ids(self.rows[part]) for part in self.parts)

    def square(self, values: np.ndarray, languages: int) -> np.ndarray:
        """Return values of texts [texts, ...] by language and sentence, [languages, sentences, ...]."""
        out = np.zeros((languages, self.sentences, *values.shape[1:]), values.dtype)
        out[self.language, self.sentence] = values
        return out


@dataclass(frozen=True, eq=False)
class Sentences:
    """Parallel sentences in tokens.

    Attributes:
        languages: their names.
        rows: token ids by language and sentence.
        halves: half -> numbers of its sentences.
        limit: tokens in one forward pass.
    """

    languages: tuple[str, ...]
    rows: Sequence[Sequence[Sequence[int]]]
    halves: Mapping[str, np.ndarray]
    limit: int

    def read(self, half: Half, most: int | None = None) -> Reading:
        """Return the texts of a half, of its first `most` sentences (already in random order)."""
        chosen = np.concatenate(list(self.halves.values())) if half == "both" else self.halves[half]
        chosen = chosen[:most]
        texts = [(a, k, self.rows[a][i]) for a in range(len(self.languages)) for k, i in enumerate(chosen)]
        texts.sort(key=lambda t: len(t[2]))
        language, sentence, rows = zip(*texts, strict=True)
        return Reading(rows, np.array(language), np.array(sentence), len(chosen), self.limit)


def tokenised(model: Model, texts: Mapping[str, Sequence[str]], knobs: Analysis, most: int | None = None) -> Sentences:
    """Return parallel sentences in a model's tokens, drawn at random and split in halves.

    Args:
        model: a causal language model with a tokenizer.
        texts: language -> sentences; those of one number are translations of each other.
        knobs: how many sentences, and how much of each.
        most: another number of sentences.

    Raises:
        DataError: fewer than two languages, no or too few sentences, numbers that differ between languages, no
            tokenizer, or a sentence of fewer than two tokens.
    """
    _check(model, texts)
    count = len(next(iter(texts.values())))
    chosen = generator(knobs.seed, "sentences").permutation(count)[: most or knobs.sentences]
    cut = len(chosen) // 2
    rows = []
    for language, sentences in texts.items():
        ids = {int(i): model.tokenizer(sentences[i])["input_ids"][: knobs.longest] for i in chosen}
        short = next((i for i in sorted(ids) if len(ids[i]) < 2), None)
        if short is not None:
            raise DataError(
                f"Sentence {short} in '{language}' ('{sentences[short][:40]}') has {len(ids[short])} token(s) in this "
                "model, so no token of it can be predicted; leave it out in every language."
            )
        rows.append([ids[int(i)] for i in chosen])
    halves = {"discovery": np.arange(cut), "test": np.arange(cut, len(chosen))}
    return Sentences(tuple(texts), rows, halves, knobs.batch_tokens)


def _check(model: Model, texts: Mapping[str, Sequence[str]]) -> None:
    if len(texts) < 2:
        raise DataError(f"At least two languages were asked for, found {', '.join(texts) or 'none'}; give more.")
    if model.tokenizer is None:
        raise DataError(f"Model '{model.name}' has no tokenizer, so it cannot read sentences; load it with one.")
    counts = {language: len(sentences) for language, sentences in texts.items()}
    empty = [language for language, n in counts.items() if not n]
    if empty:
        raise DataError(f"Sentences in {', '.join(empty)} were asked for, found 0; leave the language out.")
    if len(set(counts.values())) > 1:
        raise DataError(f"As many parallel sentences in each language were asked for, found {counts}; align them.")
    if min(counts.values()) < 12:
        raise DataError(f"At least 12 parallel sentences were asked for, found {min(counts.values())}; give more.")


def twin_of(model: Model, knobs: Analysis) -> Model:
    """Return a network of the same shape that learnt nothing, with the model's tokenizer."""
    return Model.load(untrained(model.module, derive(knobs.seed, "twin") % 2**32), tokenizer=model.tokenizer)


def resampled(sentences: int, draws: int, *names: str, seed: int) -> np.ndarray:
    """Return how often each sentence is in the whole (first row: once each) and in each resample, [1 + draws, n]."""
    rng = generator(seed, "resamples", *names)
    drawn = rng.multinomial(sentences, np.full(sentences, 1 / sentences), draws)
    return np.concatenate([np.ones((1, sentences)), drawn])


def spread(values: np.ndarray, n: int, name: str = "value") -> dict:
    """Return a statistic on the whole (the first value) with its 95 % percentile interval over resamples, as columns.

    Args:
        values: on the whole and on each resample, [1 + draws].
        n: what was resampled.
        name: of the column.
    """
    found = percentile_interval(float(values[0]), values[1:], n)
    return {name: found.estimate, "low": found.low, "high": found.high, "n": n}
