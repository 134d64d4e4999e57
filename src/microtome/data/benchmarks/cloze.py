"""Cloze from parallel text: how does this sentence go on? The true ending against those of three other sentences.

    "The committee will meet again in" + "Geneva next week to decide." | three endings of about the same length

Cut at a word boundary about 60 % into the sentence; where words are not written apart (fewer than one space in twenty
characters: Chinese, Japanese, Thai), before a letter. The same sentences are asked in every language, so accuracies of
languages are of the same content. Endings of similar length (among the 16 nearest) leave length little to tell. Four
options: chance is 0.25. It measures a language model, not knowledge; any language with parallel text has it.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.benchmarks.choice import Benchmark, Choice
from microtome.data.parallel import read_parallel

__all__ = ["BENCHMARK", "cloze", "read_cloze"]

_AT, _OPTIONS, _NEAREST, _SHORTEST, _SPACES = 0.6, 4, 16, 8, 1 / 20


def read_cloze(
    folder: Path | str, languages: Sequence[str] | None = None, *, count: int = 500, seed: int = 0
) -> list[Choice]:
    """Return the cloze questions of a folder of parallel text.

    Args:
        folder: as `data.parallel` reads it.
        languages: which to read; None for all there are.
        count: questions of each language.
        seed: of the draw.

    Raises:
        DataError: the folder cannot be read, or too few sentences can be cut.
    """
    return cloze(read_parallel(folder, languages), count=count, seed=seed)


def cloze(
    parallel: Mapping[str, Sequence[str]], languages: str | Sequence[str] | None = None, *, count: int, seed: int = 0
) -> list[Choice]:
    """Return cloze questions made from parallel text.

    Args:
        parallel: language -> its lines.
        languages: one or more to ask in; None for all. Which sentences are asked depends on all of `parallel`.
        count: questions of each language.
        seed: of the sentences, the wrong endings and the places of the right ones.

    Raises:
        DataError: no such language, or fewer sentences than questions that can be cut in all languages.

    Example:
        choices = cloze(read_parallel("parallel"), ["en", "hi"], count=200)
    """
    wanted = [languages] if isinstance(languages, str) else list(parallel) if languages is None else list(languages)
    for language in wanted:
        if language not in parallel:
            raise DataError(
                f"No '{language}' in the text; it has {', '.join(parallel)}.{did_you_mean(language, parallel)}"
            )
    parted = {language: _spaced(sentences) for language, sentences in parallel.items()}
    halves = {lang: [_cut(s, parted[lang]) for s in sentences] for lang, sentences in parallel.items()}
    fit = [i for i, row in enumerate(zip(*halves.values(), strict=True)) if all(row)]
    if not 1 <= count <= len(fit) or len(fit) < _OPTIONS:
        raise DataError(
            f"{count} cloze questions of {_OPTIONS} options were asked for, found {len(fit)} sentences that can be cut "
            "in every language; ask for fewer or give more text."
        )
    asked = sorted(generator(seed, "cloze").permutation(fit)[:count])
    return [
        choice
        for language in wanted
        for choice in _questions(language, halves[language], asked, fit, " " if parted[language] else "", seed)
    ]


def _questions(
    language: str, halves: list, asked: Sequence[int], fit: Sequence[int], delimiter: str, seed: int
) -> list[Choice]:
    lengths = np.array([len(halves[i][1]) for i in fit])
    made = []
    for row in asked:
        rng = generator(seed, "cloze", language, int(row))
        context, ending = halves[row]
        near = np.argsort(np.abs(lengths - len(ending)), kind="stable")
        others = list(dict.fromkeys(e for e in (halves[fit[i]][1] for i in near[: 2 * _NEAREST]) if e != ending))
        if len(others) < _OPTIONS - 1:
            raise DataError(
                f"Line {row + 1} in '{language}' has {len(others)} other endings to choose from; give more."
            )
        endings = [str(e) for e in rng.permutation(others[:_NEAREST])[: _OPTIONS - 1]]
        answer = int(rng.integers(_OPTIONS))
        endings.insert(answer, ending)
        made.append(Choice("cloze", language, str(row + 1), (context,), tuple(endings), answer, delimiter))
    return made


def _spaced(sentences: Sequence[str]) -> bool:
    """Return whether a language writes its words apart."""
    return sum(s.count(" ") for s in sentences) > _SPACES * sum(map(len, sentences))


def _cut(sentence: str, spaced: bool) -> tuple[str, str] | None:
    """Return the sentence in two, parted nearest to 60 % of it; None where a part would be very short."""
    places = range(_SHORTEST, len(sentence) - _SHORTEST)
    fit = [i for i in places if (sentence[i] == " " if spaced else _begins(sentence, i))]
    if not fit:
        return None
    at = min(fit, key=lambda i: abs(i - _AT * len(sentence)))
    return sentence[:at].rstrip(), sentence[at:].lstrip()


def _begins(sentence: str, at: int) -> bool:
    """Return whether a letter of a script without case stands here, and no white space before it."""
    return unicodedata.category(sentence[at]) == "Lo" and not sentence[at - 1].isspace()


BENCHMARK = Benchmark("cloze", "how a sentence of parallel text goes on, among four endings", read_cloze)
