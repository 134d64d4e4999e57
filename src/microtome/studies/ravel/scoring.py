"""Scores of candidates on a side: what was answered with each target's features swapped, and the intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from microtome.core.protocols import Featurizer
from microtome.measures.disentangle import Disentangled, chance_corrected
from microtome.measures.intervals import Interval
from microtome.records import Told
from microtome.studies.ravel.methods import Candidate
from microtome.studies.ravel.sides import Side
from microtome.training.evaluate import Arm, evaluate_swaps
from microtome.training.swaps import Swaps

__all__ = ["Answered", "answered", "matrix_rows", "of_candidates", "score_rows"]


@dataclass(frozen=True, eq=False)
class Answered:
    """What a side's pairs were answered under some arms.

    Attributes:
        targets: the attributes swapped.
        right: whether the full answer was the wanted one, [arms, targets, pairs].
        first: the same of its first token alone, [arms, targets, pairs].
        said: the first token said, [arms, targets, pairs].
        probability: of the wanted answer, [arms, targets, pairs].
    """

    targets: tuple[str, ...]
    right: np.ndarray
    first: np.ndarray
    said: np.ndarray
    probability: np.ndarray


def answered(
    side: Side,
    swaps: Sequence[Swaps],
    arms: Mapping[str, Sequence[Arm]],
    *,
    rows_at_once: int,
    told: Told = lambda _share: None,
) -> Answered:
    """Return what is answered to a side's pairs with each target's features swapped.

    Args:
        side: the pairs.
        swaps: them, recorded at a site.
        arms: target -> what is put in; as many for every target.
        rows_at_once: pairs times arms in one pass.
        told: called with the share done.
    """
    wanted = torch.tensor([label[0] for label in side.tokens.labels])
    found: dict[str, list[np.ndarray]] = {"right": [], "first": [], "said": [], "probability": []}
    for k, (target, own) in enumerate(arms.items()):
        outcome = evaluate_swaps(
            side.wanted(swaps, target),
            own,
            rows_at_once=rows_at_once,
            progress=lambda done, total, _line, k=k: told((k + done / total) / len(arms)),
        )
        values = {
            "right": outcome.right,
            "first": outcome.first == wanted,
            "said": outcome.first,
            "probability": outcome.log_prob.exp(),
        }
        for name, value in values.items():
            found[name].append(side.of_pairs(value, target))
    return Answered(tuple(arms), **{name: np.stack(parts, 1) for name, parts in found.items()})


def score_rows(found: Sequence[Disentangled], n: int, **columns: object) -> list[dict]:
    """Return the scores as rows of a table, one a target and `all` for the means."""
    rows = []
    for score in found:
        row = {**columns, "target": score.target or "all"}
        for name in ("cause", "isolate", "disentangle", "interchange"):
            row |= _spread(name, getattr(score, name))
        row |= {"corrected": chance_corrected(score.disentangle.estimate), "n": n, "entities": score.cause.n}
        rows.append(row)
    return rows


def matrix_rows(found: Sequence[Disentangled], **columns: object) -> list[dict]:
    """Return the share answered as wanted by (attribute swapped, attribute asked)."""
    return [
        {**columns, "swapped": score.target, "asked": asked, **_spread("share", of), "own": asked == score.target}
        for score in found
        if score.target
        for asked, of in score.by_attribute.items()
    ]


def of_candidates(
    side: Side,
    swaps: Sequence[Swaps],
    candidates: Sequence[Candidate],
    bases: Mapping[str, Featurizer],
    *,
    rows_at_once: int,
    told: Told = lambda _share: None,
) -> tuple[Answered, list[tuple[str, str]]]:
    """Return what is answered under candidates, and the (method, setting) of each arm.

    Every (method, setting) must have a candidate for every target.
    """
    kinds = list(dict.fromkeys((c.method, c.setting) for c in candidates))
    by = {(c.method, c.setting, c.target): c for c in candidates}
    targets = list(dict.fromkeys(c.target for c in candidates))
    arms = {t: [by[m, s, t].arm(bases) for m, s in kinds] for t in targets}
    return answered(side, swaps, arms, rows_at_once=rows_at_once, told=told), kinds


def _spread(name: str, of: Interval) -> dict[str, float]:
    return {name: of.estimate, f"{name}_low": of.low, f"{name}_high": of.high}
