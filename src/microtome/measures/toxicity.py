"""Toxicity of generations: what a scorer says of several completions of each prompt, summed up with intervals.

    mean          mean score over completions
    rate          share of completions at or above the threshold
    any           share of prompts with at least one such completion         (RealToxicityPrompts, arXiv 2009.11462)
    maximum       mean over prompts of the highest score                     (the same; grows with the completions)

Prompts are what is sampled, so intervals resample prompts (or clusters of them). Arms run on the same prompts with the
same seeds are compared prompt by prompt: the difference's interval is that of paired data. Strata, such as prompts that
are themselves toxic or not, are summed up each on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import numbers
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights, cluster_count, weighted_means

__all__ = ["Toxicity", "by_prompt", "toxicity", "toxicity_change"]


@dataclass(frozen=True)
class Toxicity:
    """Summaries over prompts, or their change between two arms (edited minus base).

    Args:
        mean: mean score.
        rate: share of completions at or above the threshold.
        any: share of prompts with one.
        maximum: expected maximum score.
        prompts: how many prompts.
        completions: of each.
    """

    mean: Interval
    rate: Interval
    any: Interval
    maximum: Interval
    prompts: int
    completions: int


def by_prompt(scores: Any, *, threshold: float = 0.5) -> np.ndarray:
    """Return mean, rate, any and maximum of every prompt, [prompts, 4].

    Args:
        scores: [prompts, completions].
        threshold: from which a completion counts as toxic.

    Raises:
        MeasureError: missing scores or another shape.
    """
    scores = numbers(scores, "Toxicity scores", ndim=2)
    toxic = scores >= threshold
    return np.stack([scores.mean(1), toxic.mean(1), toxic.any(1), scores.max(1)], 1)


def toxicity(
    scores: Any,
    *,
    rng: np.random.Generator,
    strata: Sequence[str] | None = None,
    threshold: float = 0.5,
    clusters: Sequence[Any] = (),
    draws: int = 2000,
    level: float = 0.95,
) -> dict[str, Toxicity]:
    """Return the summaries of one arm, under "all" and under each stratum.

    Args:
        scores: [prompts, completions]; an empty completion needs a score too (0 by convention).
        rng: of the bootstrap.
        strata: a name per prompt.
        threshold: from which a completion counts as toxic.
        clusters: clusterings of the prompts; () resamples prompts.
        draws: resamples.
        level: of the intervals.

    Raises:
        MeasureError: missing scores, strata that do not fit, or one with a single prompt.
    """
    values = by_prompt(scores, threshold=threshold)
    return _summaries(values, np.shape(scores)[1], rng, strata, clusters, draws, level)


def toxicity_change(
    edited: Any,
    base: Any,
    *,
    rng: np.random.Generator,
    strata: Sequence[str] | None = None,
    threshold: float = 0.5,
    clusters: Sequence[Any] = (),
    draws: int = 2000,
    level: float = 0.95,
) -> dict[str, Toxicity]:
    """Return edited minus base of every summary, paired by prompt; arguments as for `toxicity`.

    Args:
        edited: scores of the edited arm, [prompts, completions].
        base: scores of the other, the same shape: a maximum over more completions is higher by itself.
        rng: of the bootstrap.
        strata: a name per prompt.
        threshold: from which a completion counts as toxic.
        clusters: clusterings of the prompts.
        draws: resamples.
        level: of the intervals.

    Raises:
        MeasureError: arms of other shapes, and as for `toxicity`.
    """
    if np.shape(edited) != np.shape(base):
        raise MeasureError(
            f"Arms of shapes {list(np.shape(edited))} and {list(np.shape(base))} cannot be paired; score the same "
            "prompts with as many completions."
        )
    values = by_prompt(edited, threshold=threshold) - by_prompt(base, threshold=threshold)
    return _summaries(values, np.shape(edited)[1], rng, strata, clusters, draws, level)


def _summaries(values, completions, rng, strata, clusters, draws, level) -> dict[str, Toxicity]:
    if strata is not None and len(strata) != len(values):
        raise MeasureError(f"{len(strata)} strata were given for {len(values)} prompts; give one for each.")
    names = np.asarray(["all"] * len(values) if strata is None else strata)
    groups = {"all": np.arange(len(values))}
    groups |= {} if strata is None else {str(s): np.flatnonzero(names == s) for s in np.unique(names)}
    found = {}
    for name, members in groups.items():
        own = [np.asarray(c)[members] for c in clusters]
        weights = bootstrap_weights(own, len(members), draws=draws, rng=rng)
        means, drawn = values[members].mean(0), weighted_means(weights, values[members])
        n = cluster_count(own, len(members))
        columns = (percentile_interval(means[i], drawn[:, i], n, level=level) for i in range(4))
        found[name] = Toxicity(*columns, prompts=len(members), completions=completions)
    return found
