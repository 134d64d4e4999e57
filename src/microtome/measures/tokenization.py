r"""Tokenization: what a tokenizer does to each language, and two tokenizers side by side.

    fertility        tokens / words, words by white space: no word of Chinese, Japanese, Thai ... is found so (`spaced`)
    bytes per token  UTF-8 bytes / tokens: comparable between tokenizers, not between scripts
    parity           tokens / tokens of the reference language for the same content (Petrov et al. 2023)
    round trip       share of texts that decode to what they were
    fallback         share of tokens that are one byte of a character: the tokenizer has nothing better
    Renyi            H_a(p) / log(token types), a = 2.5, of the tokens' distribution (Zouhar et al. 2023)

Each ratio is of sums over texts, with a percentile bootstrap over texts (or pairs of parallel texts), and knows its n.
FuxiTranyu (arXiv 2408.06273, section 3.3) reports fertility alone. Neither it nor parity says which tokenizer makes the
better model; Renyi efficiency orders tokenizers on one corpus and is no yardstick between languages or corpus sizes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.dedup.canonical import without_spaces
from microtome.measures.intervals import Interval, percentile_interval, wilson
from microtome.measures.vocabulary import Vocabulary

__all__ = [
    "Comparison",
    "LanguageTokens",
    "TokenizerReport",
    "compare_tokenizers",
    "renyi_efficiency",
    "report_tokenizer",
]

ALPHA = 2.5
_CHUNK = 2_000_000  # weights held at once
_LONE = re.compile("[\ud800-\udfff]")
_ROW = ("fertility", "bytes_per_token", "parity", "round_trip", "fallback")


@dataclass(frozen=True)
class LanguageTokens:
    """A tokenizer on one language.

    Attributes:
        language: its name.
        texts: how many texts.
        words: how many words, by white space.
        tokens: how many tokens.
        size: UTF-8 bytes.
        fertility: tokens a word.
        spaced: whether words are what stands between spaces, so that fertility means something.
        bytes_per_token: bytes a token.
        parity: tokens for one of the reference language, on parallel texts; None where there are none.
        round_trip: share of texts that come back.
        fallback: share of tokens that are a lone byte of a character.
        renyi: Renyi efficiency; None where there is one token type.
    """

    language: str
    texts: int
    words: int
    tokens: int
    size: int
    fertility: Interval
    spaced: bool
    bytes_per_token: Interval
    parity: Interval | None
    round_trip: Interval
    fallback: Interval
    renyi: float | None


@dataclass(frozen=True)
class TokenizerReport:
    """A tokenizer on several languages.

    Attributes:
        vocabulary: number of ids.
        scripts: share of the vocabulary by script.
        reference: what parity is to.
        languages: one entry each.
    """

    vocabulary: int
    scripts: Mapping[str, float]
    reference: str
    languages: tuple[LanguageTokens, ...]

    def __getitem__(self, language: str) -> LanguageTokens:
        found = {own.language: own for own in self.languages}
        if language not in found:
            near = did_you_mean(language, found)
            raise MeasureError(f"No language '{language}' in the report; it has {', '.join(found)}.{near}")
        return found[language]

    def rows(self) -> list[dict[str, object]]:
        """Return one flat row a language; a bound is null where there is no interval."""
        return [_row(own) for own in self.languages]


@dataclass(frozen=True)
class Comparison:
    """Two tokenizers on the same texts.

    Attributes:
        first: report of the one.
        second: report of the other.
        ratio: language -> tokens of the second for one of the first, paired by text.
    """

    first: TokenizerReport
    second: TokenizerReport
    ratio: Mapping[str, Interval]

    def rows(self) -> list[dict[str, object]]:
        """Return one flat row a language: both tokenizers' numbers, and the ratio."""
        return [
            {"language": own.language, "texts": own.texts, "spaced": own.spaced}
            | {f"{key}_{n}": row[key] for n, row in ((1, _row(own)), (2, _row(other))) for key in _columns(row)}
            | _bounds("ratio", self.ratio[own.language])
            for own, other in zip(self.first.languages, self.second.languages, strict=True)
        ]


def report_tokenizer(
    tokenizer: Any,
    texts: Mapping[str, Sequence[str]],
    *,
    parallel: Mapping[str, Sequence[str]] | None = None,
    reference: str = "en",
    alpha: float = ALPHA,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> TokenizerReport:
    """Return what a tokenizer does to texts, language by language.

    Args:
        tokenizer: anything with transformers' interface; special tokens are not added.
        texts: language -> at least two texts, none of them blank or with lone surrogates.
        parallel: language -> texts of the same content in the same order, the reference among them; None: no parity.
        reference: the language that parity is to.
        alpha: order of Renyi's entropy.
        draws: resamples of the bootstrap.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        MeasureError: a language with fewer than two texts, a blank text, or parallel texts that do not pair up.

    Example:
        report_tokenizer(tokenizer, {"en": english, "hi": hindi}, parallel=ntrex)["hi"].parity
    """
    _refuse(texts, parallel, reference)
    vocabulary = Vocabulary(tokenizer)
    base = None if parallel is None else _counts(tokenizer, parallel[reference])
    done = []
    for name, own in texts.items():
        ids = _encode(tokenizer, own)
        boot = _Boot(generator(seed, "tokenization", name), draws, level)
        pair = None if base is None or name not in parallel else boot.ratio(_counts(tokenizer, parallel[name]), base)
        done.append(_language(name, own, ids, tokenizer, vocabulary, boot, pair, alpha))
    return TokenizerReport(vocabulary.size, vocabulary.scripts(), reference, tuple(done))


def compare_tokenizers(
    first: Any,
    second: Any,
    texts: Mapping[str, Sequence[str]],
    *,
    parallel: Mapping[str, Sequence[str]] | None = None,
    reference: str = "en",
    alpha: float = ALPHA,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Return the reports of two tokenizers on the same texts, and the ratio of their numbers of tokens.

    Args and errors as for `report_tokenizer`.
    """
    knobs = {"parallel": parallel, "reference": reference, "alpha": alpha, "draws": draws, "level": level, "seed": seed}
    reports = [report_tokenizer(tokenizer, texts, **knobs) for tokenizer in (first, second)]
    ratio = {}
    for name, own in texts.items():
        boot = _Boot(generator(seed, "comparison", name), draws, level)
        ratio[name] = boot.ratio(_counts(second, own), _counts(first, own))
    return Comparison(*reports, ratio)


def renyi_efficiency(counts: Any, alpha: float = ALPHA) -> float | None:
    """Return Renyi's entropy of token types over its largest value, log(types); None for a single type.

    Args:
        counts: how often each type occurs; zeros do not count as types.
        alpha: order, positive; 1 is Shannon's entropy.

    Raises:
        MeasureError: no tokens, or an order that is not positive.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    if not len(counts) or not alpha > 0:
        raise MeasureError(f"Renyi efficiency of order {alpha} over {len(counts)} types; give tokens and an order > 0.")
    if len(counts) == 1:
        return None
    p = counts / counts.sum()
    entropy = -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)
    return float(entropy / np.log(len(p)))


@dataclass(frozen=True)
class _Boot:
    """The bootstrap of one language."""

    rng: np.random.Generator
    draws: int
    level: float

    def ratio(self, above: np.ndarray, below: np.ndarray) -> Interval:
        """Return sum(above) / sum(below) over texts."""
        return self.ratios({"": (above, below)})[""]

    def ratios(self, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Interval]:
        """Return ratios of sums that share their resamples."""
        columns = np.stack([x for pair in pairs.values() for x in pair], 1).astype(np.float64)
        n, step = len(columns), max(1, _CHUNK // len(columns))
        sums = [self._weights(n, min(step, self.draws - i)) @ columns for i in range(0, self.draws, step)]
        drawn, whole = np.concatenate(sums), columns.sum(0)
        return {
            name: percentile_interval(
                whole[2 * i] / whole[2 * i + 1], drawn[:, 2 * i] / drawn[:, 2 * i + 1], n, level=self.level
            )
            for i, name in enumerate(pairs)
        }

    def _weights(self, n: int, draws: int) -> np.ndarray:
        """Return how often each text occurs in each resample, as `bootstrap_weights` does, but for many texts."""
        picked = self.rng.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
        return np.bincount(picked.ravel(), minlength=draws * n).reshape(draws, n)


def _language(
    name: str,
    texts: Sequence[str],
    ids: list[list[int]],
    tokenizer: Any,
    vocabulary: Vocabulary,
    boot: _Boot,
    parity: Interval | None,
    alpha: float,
) -> LanguageTokens:
    tokens, words = np.array([len(row) for row in ids]), np.array([len(text.split()) for text in texts])
    sizes = np.array([len(text.encode()) for text in texts])
    flat = np.concatenate([np.asarray(row, np.int64) for row in ids])
    lone = np.bincount(np.repeat(np.arange(len(ids)), tokens), vocabulary.lone[flat], len(ids))
    found = boot.ratios({"fertility": (tokens, words), "bytes": (sizes, tokens), "fallback": (lone, tokens)})
    back = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    same = sum(a == b for a, b in zip(back, texts, strict=True))
    dense = sum(map(without_spaces, texts))
    return LanguageTokens(
        name, len(texts), int(words.sum()), int(tokens.sum()), int(sizes.sum()), found["fertility"],
        2 * dense <= len(texts), found["bytes"], parity, wilson(same, len(texts), level=boot.level),
        found["fallback"], renyi_efficiency(np.bincount(flat), alpha),
    )  # fmt: skip


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def _counts(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    return np.array([len(row) for row in _encode(tokenizer, texts)])


def _row(own: LanguageTokens) -> dict[str, object]:
    row = {"language": own.language, "texts": own.texts, "words": own.words, "tokens": own.tokens, "bytes": own.size}
    row |= {"spaced": own.spaced, "renyi": own.renyi}
    for name in _ROW:
        row |= _bounds(name, getattr(own, name))
    return row


def _columns(row: Mapping[str, object]) -> list[str]:
    return ["tokens", "renyi", *(f"{name}{end}" for name in _ROW for end in ("", "_low", "_high", "_n"))]


def _bounds(name: str, found: Interval | None) -> dict[str, object]:
    values = (None,) * 4 if found is None else (found.estimate, found.low, found.high, found.n)
    return dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_n"), values, strict=True))


def _refuse(texts: Mapping[str, Sequence[str]], parallel: Mapping[str, Sequence[str]] | None, reference: str) -> None:
    if not texts:
        raise MeasureError("A report on a tokenizer was asked for, found no languages; give texts of at least one.")
    for name, own in [*texts.items(), *(parallel or {}).items()]:
        bad = next((i for i, text in enumerate(own) if not text.strip() or _LONE.search(text)), None)
        if len(own) < 2 or bad is not None:
            found = f"text {bad} {own[bad][:20]!r}" if bad is not None else f"{len(own)}"
            raise MeasureError(
                f"A report on '{name}' needs two texts or more, none blank or with lone surrogates; found {found}; "
                "mend that."
            )
    if parallel is None:
        return
    if reference not in parallel:
        near = did_you_mean(reference, parallel)
        raise MeasureError(f"No parallel texts of the reference '{reference}'; found {', '.join(parallel)}.{near}")
    odd = next((name for name, own in parallel.items() if len(own) != len(parallel[reference])), None)
    if odd is not None:
        raise MeasureError(
            f"Parallel texts of '{odd}' are {len(parallel[odd])} and of '{reference}' {len(parallel[reference])}; "
            "they must pair up line by line."
        )
