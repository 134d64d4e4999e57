"""RealToxicityPrompts (Gehman et al. 2020) from the user's path: JSON lines, prompt and continuation nested.

    {"filename", "begin", "end", "challenging", "prompt": {"text", "toxicity", ...}, "continuation": {...}}

The eight scores are Perspective's, from 0 to 1, or null. The file is roughly sorted by toxicity, so rows are shuffled
by seed before anything is taken from the front.
"""

import random
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.labelled.files import read_json_lines
from microtome.data.labelled.rows import Intake, LabelledSet

__all__ = ["load_real_toxicity"]

SCORES = (
    "toxicity", "severe_toxicity", "profanity", "sexually_explicit", "identity_attack", "flirtation", "threat",
    "insult",
)  # fmt: skip
_PARTS = ("prompt", "continuation")


def load_real_toxicity(
    path: Path | str, *, part: str = "prompt", threshold: float = 0.5, seed: int | None = 0
) -> LabelledSet:
    """Return the prompts (or the continuations) with label 1 where toxicity reaches a threshold.

    Args:
        path: the .jsonl file.
        part: `prompt` or `continuation`; the other part's text is the attribute `other`.
        threshold: least toxicity of label 1.
        seed: of the shuffle; None keeps the file's order.

    Returns:
        The set; attributes are the scores (None where null), `challenging` and `other`. Dropped: null toxicity.

    Raises:
        DataError: no such file or part, a line that does not have the layout, or a single class.
    """
    if part not in _PARTS:
        raise DataError(f"RealToxicityPrompts has no part '{part}'; it has {' and '.join(_PARTS)}.")
    intake = Intake(path)
    for number, row in enumerate(read_json_lines(path), start=1):
        scored = row.get(part)
        if not isinstance(scored, dict) or not isinstance(scored.get("text"), str):
            raise DataError(f"Row {number} of '{path}' has no text in '{part}'; give RealToxicityPrompts' own .jsonl.")
        marks = {name: _score(scored.get(name), f"{part}.{name} of row {number} of '{path}'") for name in SCORES}
        if marks["toxicity"] is None:
            intake.drop("toxicity is null")
            continue
        other = row.get(_PARTS[part == "prompt"])
        said = other.get("text") if isinstance(other, dict) else None
        attributes = {**marks, "challenging": bool(row.get("challenging")), "other": said}
        id = f"{row.get('filename', number)}:{row.get('begin', '')}-{row.get('end', '')}"
        intake.add(scored["text"], int(marks["toxicity"] >= threshold), attributes, id=id)
    if seed is not None:
        random.Random(f"real-toxicity-{seed}").shuffle(intake.rows)
    return intake.finish()


def _score(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"{where} is {value!r}; scores are numbers from 0 to 1, or null.")
    return float(value)
