"""A linear scorer over hashed n-grams, fitted on the user's rows: every character's share of the score is exact.

Features of a text: its 1- and 2-word grams and, inside words with a space at each end, its grams of 3 to 5 characters,
each hashed into one of `buckets`. With x_j = 1 / sqrt(number of different features) where feature j occurs, else 0,

    logit = bias + sum_j w_j x_j          score = 1 / (1 + exp(-logit))

so the logit is a sum over occurrences: a feature's w_j x_j is shared equally by its occurrences, an occurrence's by its
characters, and what all characters got, plus the bias, is the logit. Weights are logistic regression (L2), then
Platt's scaling (1999, with his smoothed targets) of logits from folds that did not see the text; the scaling is linear
and is folded into weights and bias. Text is folded (`data.folding`). Characters of scripts without spaces are words.

A fitted scorer knows its rows, nothing else: on other data calibrate and evaluate again. The file is safetensors with
a JSON header; nothing is unpickled.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from microtome.core.errors import DataError, MeasureError
from microtome.data.folding import folded
from microtome.data.labelled import LabelledSet
from microtome.data.spans import Span, spread
from microtome.measures.scorers.lexicon import UNSPACED

__all__ = ["Attribution", "NgramScorer", "fit_ngram", "load_ngram", "save_ngram"]

_RUN = re.compile(r"\w+")
_WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
_FORMAT, _VERSION = "microtome.scorer.ngram", "1"


class Attribution(NamedTuple):
    """What each character adds to a text's logit, [characters], and what is there without any."""

    characters: np.ndarray
    bias: float

    @property
    def logit(self) -> float:
        """The logit: all characters and the bias together."""
        return float(self.characters.sum() + self.bias)

    def per_token(self, offsets: Sequence[Span]) -> tuple[np.ndarray, float]:
        """Return (per token, rest): with the bias, their sum is the logit (see `data.spans.spread`)."""
        return spread(self.characters, offsets)


@dataclass(frozen=True, eq=False)
class NgramScorer:
    """A fitted scorer.

    Attributes:
        weights: of the features, calibrated, [buckets], float32.
        bias: of the logit, calibrated.
        words: fewest and most words of a word gram.
        characters: fewest and most characters of a character gram.
        origin: digest of the rows it was fitted on.
        rows: how many those were, by label.
    """

    weights: np.ndarray
    bias: float
    words: tuple[int, int]
    characters: tuple[int, int]
    origin: str
    rows: tuple[int, int]
    family: str = field(default="ngram", init=False)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability that each text is toxic, [texts]."""
        logits = self.logits(texts)
        return np.exp(-np.logaddexp(0.0, -logits))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits, [texts]; a text without words has the bias alone.

        Raises:
            MeasureError: one text instead of a list.
        """
        if isinstance(texts, str):
            raise MeasureError("The n-gram scorer takes a list of texts, found one string; write [text].")
        sums = []
        for text in texts:
            present = np.unique(self._grams(text).buckets)
            sums.append(self.weights[present].sum(dtype=np.float64) / max(len(present), 1) ** 0.5)
        return self.bias + np.array(sums)

    def attribute(self, text: str) -> Attribution:
        """Return what each character adds to the logit."""
        grams = self._grams(text)
        present, which, count = np.unique(grams.buckets, return_inverse=True, return_counts=True)
        each = self.weights[present].astype(np.float64) / (max(len(present), 1) ** 0.5 * count)
        letters = _shared(each[which], grams.starts, grams.lengths, grams.letters)
        return Attribution(np.bincount(grams.places, letters, minlength=len(text))[: len(text)], self.bias)

    def spans(self, text: str, *, least: float = 0.5) -> list[Span]:
        """Return the words that add at least so much to the logit, as spans of characters.

        Args:
            text: any text.
            least: logits that a word must add to be flagged.
        """
        given = self.attribute(text).characters
        letters, places = folded(text)
        words = ((places[a], places[b - 1] + 1) for a, b in (m.span() for m in _WORD.finditer(letters)))
        return [(a, b) for a, b in words if given[a:b].sum() >= least]

    def _grams(self, text: str) -> "_Grams":
        return _grams(text, len(self.weights), self.words, self.characters)


class _Grams(NamedTuple):
    """The features of a text: bucket, and the letters [start, start + length) of the folded text that each takes.

    A gram of two words is listed once, with the letters of both and what is between them.
    """

    buckets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    letters: int
    places: np.ndarray


def fit_ngram(
    rows: LabelledSet,
    *,
    strength: float = 0.1,
    buckets: int = 1 << 18,
    words: tuple[int, int] = (1, 2),
    characters: tuple[int, int] = (3, 5),
    folds: int = 4,
) -> NgramScorer:
    """Return the scorer fitted and calibrated on labelled texts; the same rows give the same scorer.

    Args:
        rows: texts with labels; equal texts fall into one fold.
        strength: inverse of the L2 penalty's (sklearn's C), per row: C = strength * rows.
        buckets: features that are told apart.
        words: fewest and most words of a word gram.
        characters: fewest and most characters of a character gram.
        folds: for the calibration.

    Raises:
        MeasureError: so few rows that a fold would be fitted on one class.

    Example:
        scorer = fit_ngram(load_labelled_csv("comments.csv"))
        scorer.attribute("you grubnak").per_token(tokens.offsets)
    """
    labels = rows.labels
    x = _matrix(rows.texts, buckets, words, characters)
    fold = np.array([zlib.crc32(text.encode()) % folds for text in rows.texts])
    held = np.zeros(len(labels))
    for k in np.unique(fold):
        inside = fold != k
        if len(np.unique(labels[inside])) < 2:
            raise MeasureError(
                f"Fold {k} of {folds} would be fitted on {int(inside.sum())} rows of one class (of {len(labels)} rows, "
                f"{int(labels.sum())} with label 1); give more rows or fewer folds."
            )
        weights, bias = _logistic(x[inside], labels[inside], strength)
        held[~inside] = x[~inside] @ weights + bias
    slope, shift = _platt(held, labels)
    weights, bias = _logistic(x, labels, strength)
    counts = (int((labels == 0).sum()), int(labels.sum()))
    scaled = (slope * weights).astype(np.float32)
    return NgramScorer(scaled, float(slope * bias + shift), tuple(words), tuple(characters), _digest(rows), counts)


def save_ngram(scorer: NgramScorer, path: Path | str) -> Path:
    """Write a scorer to a safetensors file; `load_ngram` gives it back, bit for bit."""
    fields = {name: getattr(scorer, name) for name in ("bias", "words", "characters", "origin", "rows")}
    header = {"format": _FORMAT, "version": _VERSION, "fields": json.dumps(fields)}
    save_file({"weights": scorer.weights}, path, metadata=header)
    return Path(path)


def load_ngram(path: Path | str) -> NgramScorer:
    """Return the scorer in a file.

    Raises:
        DataError: no such file, not safetensors, or not a scorer of this version.
    """
    if not Path(path).is_file():
        raise DataError(f"No scorer file '{path}'; write one with save_ngram.")
    try:
        with safe_open(path, "np") as file:
            header, weights = file.metadata() or {}, file.get_tensor("weights")
        if (header.get("format"), header.get("version")) != (_FORMAT, _VERSION):
            raise DataError(
                f"'{path}' was asked for as {_FORMAT} {_VERSION}, found {header.get('format', 'no format')} "
                f"{header.get('version', '')}; write it again with save_ngram."
            )
        fields: Mapping = json.loads(header["fields"])
        lists = {name: tuple(fields[name]) for name in ("words", "characters", "rows")}
        return NgramScorer(weights, float(fields["bias"]), origin=fields["origin"], **lists)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"'{path}' was asked for as a scorer, found none in it ({error}); save it again.") from error


def _digest(rows: LabelledSet) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for row in sorted((r.text, r.label) for r in rows):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _matrix(texts: Sequence[str], buckets: int, words: tuple[int, int], characters: tuple[int, int]):
    """Return the features of texts as a sparse matrix [texts, buckets]."""
    from scipy.sparse import csr_matrix

    present = [np.unique(_grams(text, buckets, words, characters).buckets) for text in texts]
    sizes = np.array([len(p) for p in present])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    ends = np.concatenate([[0], sizes.cumsum()])
    return csr_matrix((values, np.concatenate(present), ends), shape=(len(texts), buckets))


def _logistic(x, labels: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Return weights and bias; features are scaled by log(rows / rows they occur in) first, and the weights back.

    So the penalty keeps what is common to most texts out of it, and a text that has none of the telling features is
    judged by the bias alone.
    """
    from sklearn.linear_model import LogisticRegression

    rarity = np.log((1 + len(labels)) / (1 + x.getnnz(axis=0)))
    fit = LogisticRegression(C=strength * len(labels), max_iter=2000, tol=1e-5).fit(x.multiply(rarity).tocsr(), labels)
    return fit.coef_[0] * rarity, float(fit.intercept_[0])


def _platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope (at least 0) and shift that make logits probabilities, by Newton's method on Platt's targets."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design, answer = (
        np.stack([logits, np.ones_like(logits)], 1),
        np.array([0.0, np.log((positives + 1) / (negatives + 1))]),
    )

    def loss(at: np.ndarray) -> float:
        z = design @ at
        return float((np.logaddexp(0, z) - targets * z).sum())

    for _ in range(100):
        p = np.exp(-np.logaddexp(0, -(design @ answer)))
        gradient = design.T @ (p - targets)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while loss(answer - size * step) > loss(answer) and size > 1e-10:
            size /= 2
        answer = answer - size * step
        if np.abs(gradient).max() < 1e-9 * len(labels):
            break
    return max(float(answer[0]), 0.0), float(answer[1])


def _shared(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """Return values shared equally by the letters each takes, [n]."""
    before = np.repeat(lengths.cumsum() - lengths, lengths)
    letters = np.repeat(starts, lengths) + np.arange(lengths.sum()) - before
    return np.bincount(letters, np.repeat(values / np.maximum(lengths, 1), lengths), minlength=n)


def _grams(text: str, buckets: int, words: tuple[int, int], characters: tuple[int, int]) -> _Grams:
    letters, places = folded(text)
    parts = [_word_grams(letters, n) for n in range(words[0], words[1] + 1)]
    parts += [_character_grams(letters, n) for n in range(characters[0], characters[1] + 1)]
    hashes, starts, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Grams((hashes % np.uint64(buckets)).astype(np.int64), starts, lengths, len(letters), np.array(places, int))


def _word_grams(letters: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, first letter and length of every gram of n words."""
    found = np.array([m.span() for m in _WORD.finditer(letters)], dtype=np.int64).reshape(-1, 2)
    hashes = _hashes(letters, found[:, 0], found[:, 1])
    count = max(len(found) - n + 1, 0)
    joint = np.full(count, 0x9E37 + n, dtype=np.uint64)
    for k in range(n):
        joint = _mixed(joint ^ hashes[k : k + count])
    starts, ends = found[:count, 0], found[n - 1 : n - 1 + count, 1]
    return joint, starts, ends - starts


def _character_grams(letters: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, first letter and length of every gram of n characters, a word's ends counting as a space each."""
    runs = [m.span() for m in _RUN.finditer(letters)]
    padded = "".join(f" {letters[a:b]} " for a, b in runs)
    origin = np.concatenate([np.arange(a - 1, b + 1) for a, b in runs]) if runs else np.zeros(0, int)
    owner = np.repeat(np.arange(len(runs)), [b - a + 2 for a, b in runs])
    first = np.arange(max(len(padded) - n + 1, 0))
    first = first[owner[first] == owner[first + n - 1]]
    spaces = np.array([c == " " for c in padded], dtype=bool)
    left, right = spaces[first], spaces[first + n - 1]
    hashes = _mixed(_hashes(padded, first, first + n) ^ np.uint64(0xC4A2 + n))
    return hashes, origin[first] + left, n - left.astype(np.int64) - right


_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2^64
_BACK = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


def _hashes(letters: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return polynomial hashes sum_k c_k step^(start - k) mod 2^64 of many slices at once, from prefix sums."""
    codes = np.frombuffer(letters.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)
    down = np.full(len(codes) + 1, _BACK)
    up = np.full(len(codes) + 1, _STEP)
    down[0] = up[0] = 1
    np.multiply.accumulate(down, out=down)
    np.multiply.accumulate(up, out=up)
    sums = np.concatenate([np.zeros(1, np.uint64), (codes * down[:-1]).cumsum(dtype=np.uint64)])
    return _mixed((sums[ends] - sums[starts]) * up[starts] ^ (ends - starts).astype(np.uint64))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return values with every bit depending on every other (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
