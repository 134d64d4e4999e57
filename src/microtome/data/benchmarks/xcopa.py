"""XCOPA: which of two sentences is the cause, or the effect, of a premise (Ponti et al. 2020, arXiv 2005.00333).

    "Reisidjad jõudsid piirini" + "seetõttu"  +  "piirikontroll kontrollis nende passe." | "..."

The question is put as in lm-evaluation-harness, so that accuracies compare: the premise without its full stop, the
language's word for `because` or `therefore`, then a choice with its first letter small. One thing differs: there the
last character of a premise is cut off whatever it is, which cuts a letter of every Thai premise; here only punctuation
is. Two options, so chance is 0.5. Haitian, Quechua, Tamil and English read too where their files are present.
"""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from microtome.core.errors import DataError, did_you_mean
from microtome.data.benchmarks.choice import Benchmark, Choice

__all__ = ["BENCHMARK", "CONNECTORS", "read_xcopa"]

CONNECTORS = {
    "en": ("because", "therefore"),
    "et": ("sest", "seetõttu"),
    "ht": ("poukisa", "donk sa"),
    "id": ("karena", "maka"),
    "it": ("perché", "quindi"),
    "qu": ("imataq", "chaymi"),
    "sw": ("kwa sababu", "kwa hiyo"),
    "ta": ("காரணமாக", "எனவே"),
    "th": ("เพราะ", "ดังนั้น"),
    "tr": ("çünkü", "bu yüzden"),
    "vi": ("bởi vì", "vì vậy"),
    "zh": ("因为", "所以"),
}
"""Language -> what links a premise to its cause, and to its effect."""

_SPLITS = ("test", "val")
_ASKED = ("cause", "effect")


def read_xcopa(folder: Path | str, languages: Sequence[str] | None = None, *, split: str = "test") -> list[Choice]:
    """Return the questions of XCOPA.

    Args:
        folder: with `<split>.<language>.jsonl` files, or a folder of each language that holds them.
        languages: which to read; None for all there are.
        split: `test` (500 questions a language) or `val` (100).

    Raises:
        DataError: no such folder, split or language, or a row that is wrong.
    """
    if split not in _SPLITS:
        raise DataError(f"No split '{split}' of XCOPA; choose {' or '.join(_SPLITS)}.{did_you_mean(split, _SPLITS)}")
    found = _files(Path(folder), split)
    wanted = list(found) if languages is None else list(languages)
    for language in wanted:
        if language not in found:
            near = did_you_mean(language, found)
            raise DataError(f"No '{split}.{language}.jsonl' in '{folder}'; there are {', '.join(found)}.{near}")
    return [choice for language in wanted for choice in _read(found[language], language)]


def _files(folder: Path, split: str) -> dict[str, Path]:
    """Return language -> its file, in the folder itself or in one of each language."""
    name = f"{split}.*.jsonl"
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob(name), *folder.glob(f"*/{name}")]):
        language = path.name.split(".")[1]
        if language not in CONNECTORS:
            raise DataError(
                f"'{path}' is XCOPA in '{language}', whose words for because and therefore are not known; add them to "
                "CONNECTORS or take the file away."
            )
        if language in found:
            raise DataError(f"'{path}' and '{found[language]}' are both XCOPA in '{language}'; keep one in '{folder}'.")
        found[language] = path
    if not found:
        raise DataError(
            f"No {name} of XCOPA in '{folder}' or its folders; give the folder of cambridgeltl/xcopa's data."
        )
    return found


def _read(path: Path, language: str) -> list[Choice]:
    lines = path.read_bytes().split(b"\n")
    return [_choice(line, language, f"Line {n} of '{path}'", n) for n, line in enumerate(lines, 1) if line.strip()]


def _choice(line: bytes, language: str, where: str, number: int) -> Choice:
    """Return the question of one line."""
    try:
        row = json.loads(line)
        premise, first, second = (str(row[k]).strip() for k in ("premise", "choice1", "choice2"))
        asked, label = row["question"], row["label"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} should be JSON with premise, choice1, choice2, question and label, found {error!r}; mend it."
        ) from error
    if asked not in _ASKED or label not in (0, 1) or not (premise and first and second):
        raise DataError(
            f"{where} should ask for cause or effect, with label 0 or 1 and nothing blank, found question {asked!r}, "
            f"label {label!r}; mend it."
        )
    connector = CONNECTORS[language][_ASKED.index(asked)]
    endings = tuple(x[0].lower() + x[1:] for x in (first, second))
    return Choice("xcopa", language, str(number), (f"{_open(premise)} {connector}",), endings, int(label))


def _open(premise: str) -> str:
    """Return the premise without its last character where that is punctuation."""
    return premise[:-1] if unicodedata.category(premise[-1]).startswith("P") else premise


BENCHMARK = Benchmark("xcopa", "which of two sentences is the cause, or the effect, of a premise", read_xcopa)
