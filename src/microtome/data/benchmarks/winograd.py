"""Crosslingual Winograd: whom a pronoun means (Tikhonov & Ryabinin 2021, arXiv 2106.12066), by partial scoring.

    The trophy doesn't fit into the brown suitcase because [it] is too large.
    ... because The trophy | ... because suitcase   +   is too large.

Each candidate takes the pronoun's place and what follows it is scored, the same words in each case (arXiv 1806.02847;
lm-evaluation-harness's `xwinograd`). Candidates are put in as the file writes them. Where the sentence has no space
behind the pronoun (Japanese, Chinese, before a full stop) none is put there; lm-eval's own task puts one. Chance is
0.5 where there are two candidates. The file calls Japanese `jp`; here it is `ja`.

Columns, parted by tabs, without a head: language, origin, original, sentence, then as JSON its tokens, the pronoun
[text, [first, end], tokens], and the candidates [text, [first, end], tokens, right], places counted in tokens.
"""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.benchmarks.choice import Benchmark, Choice

__all__ = ["BENCHMARK", "read_winograd"]

_COLUMNS = 7
_CODES = {"jp": "ja"}
_QUOTES = {"``": '"“„«', "''": '"”“»'}  # how the tokens write what the sentence writes so


def read_winograd(path: Path | str, languages: Sequence[str] | None = None) -> list[Choice]:
    """Return the questions of the crosslingual Winograd file.

    Args:
        path: of `dataset.tsv` (yandex-research/crosslingual_winograd).
        languages: which to keep, by our codes; None for all there are.

    Raises:
        DataError: no such file or language, or a row that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"No file '{path}' to read crosslingual Winograd from; give the path of its dataset.tsv.")
    lines = path.read_bytes().split(b"\n")
    found = [_choice(line, f"Line {n} of '{path}'", n) for n, line in enumerate(lines, 1) if line.strip()]
    there = list(dict.fromkeys(c.language for c in found))
    for language in languages or ():
        if language not in there:
            near = did_you_mean(language, there)
            raise DataError(f"No questions in '{language}' in '{path}'; there are {', '.join(there) or 'none'}.{near}")
    return [c for c in found if languages is None or c.language in languages]


def _choice(line: bytes, where: str, number: int) -> Choice:
    """Return the question of one row."""
    try:
        language, _, _, sentence, tokens, pronoun, candidates = line.decode("utf-8").rstrip("\r").split("\t")
        text, (first, end), _ = json.loads(pronoun)
        options = [(str(option[0]), bool(option[3])) for option in json.loads(candidates)]
        spans = _spans(sentence, json.loads(tokens))
        start, stop = spans[first][0], spans[end - 1][1]
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"{where} should have {_COLUMNS} columns (language, two of origin, sentence; as JSON its tokens, pronoun "
            f"and candidates), found {error}; mend it."
        ) from error
    if sum(right for _, right in options) != 1:
        raise DataError(f"{where} should have one right candidate, found {sum(r for _, r in options)}; mend it.")
    stop -= len(text) - len(text.rstrip("".join(c for c in text if unicodedata.category(c).startswith("P"))))
    rest = sentence[stop:]
    if not rest.strip():
        raise DataError(f"{where} should go on after the pronoun {text!r}, found its end; leave the row out.")
    return Choice(
        "winograd",
        _CODES.get(language, language),
        str(number),
        tuple(sentence[:start] + option for option, _ in options),
        (rest.strip(),),
        [right for _, right in options].index(True),
        " " if rest[:1].isspace() else "",
    )


def _spans(sentence: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each token stands in the sentence: white space lies between them and nothing else.

    Raises:
        ValueError: a token is not where it should be.
    """
    spans, at = [], 0
    for token in tokens:
        while at < len(sentence) and sentence[at].isspace():
            at += 1
        if sentence.startswith(token, at):
            size = len(token)
        elif sentence[at : at + 1] and sentence[at] in _QUOTES.get(token, ""):
            size = 1
        else:
            raise ValueError(f"no {token!r} at {sentence[at : at + 20]!r}")
        spans.append((at, at + size))
        at += size
    return spans


BENCHMARK = Benchmark("winograd", "whom a pronoun means, by what follows it", read_winograd)
