"""Language-specific neurons by the entropy of how often each fires in each language (LAPE, arXiv 2402.16438).

    p_ik = P(neuron i fires | language k)      q_ik = p_ik / sum_k p_ik      LAPE_i = - sum_k q_ik ln q_ik

Low entropy: the neuron fires in few languages. A bar, the 95th percentile of *all* p, does two things: a neuron that
is above it in no language is left out however low its entropy, and a chosen neuron belongs to every language in which
it is above it. Of all neurons exactly the 1 % with the lowest entropy are chosen, so the union of the sets is
round(0.01 N): that this is the rule is borne out by the authors' released files, whose unions are that to the neuron.

Some 1 % is always chosen: what it means, only the same on texts whose languages are shuffled, and an ablation, show.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtome.core.errors import DataError, MeasureError
from microtome.core.units import Units
from microtome.measures.arrays import numbers

__all__ = ["LanguageNeurons", "firing_bar", "language_neurons", "overlaps", "read_released"]


@dataclass(frozen=True, eq=False)
class LanguageNeurons:
    """Which neurons belong to which languages.

    Attributes:
        languages: their names.
        entropy: LAPE of every neuron in nats; infinite where it fires often enough in no language, [units].
        bar: the firing rate from which a neuron counts as active.
        members: whether a neuron belongs to a language, [languages, units].
    """

    languages: tuple[str, ...]
    entropy: np.ndarray
    bar: float
    members: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """Numbers of the neurons that belong to some language."""
        return np.flatnonzero(self.members.any(0))

    def of(self, language: str) -> np.ndarray:
        """Return the numbers of a language's neurons.

        Raises:
            MeasureError: no such language.
        """
        if language not in self.languages:
            raise MeasureError(f"Neurons of '{language}' were asked for, found languages {', '.join(self.languages)}.")
        return np.flatnonzero(self.members[self.languages.index(language)])

    def kinds(self) -> np.ndarray:
        """Return in how many languages each neuron is above the bar among those chosen, 0 for the others, [units]."""
        return self.members.sum(0)

    def units(self, language: str, widths: Mapping[str, int]) -> Units:
        """Return a language's neurons as units.

        Args:
            language: which one.
            widths: site -> its neurons, in the order in which they were numbered.

        Raises:
            MeasureError: no such language, or widths that do not add up.
        """
        total = sum(widths.values())
        if total != self.members.shape[1]:
            raise MeasureError(f"Sites of {total} neurons were given for {self.members.shape[1]}; give those screened.")
        edges = np.cumsum([0, *widths.values()])
        mine = self.of(language)
        return Units(
            {s: mine[(mine >= a) & (mine < b)] - a for s, a, b in zip(widths, edges[:-1], edges[1:], strict=True)}
        )


def language_neurons(
    rates: Any, languages: Sequence[str], *, share: float = 0.01, quantile: float = 0.95
) -> LanguageNeurons:
    """Return the neurons of each language.

    Args:
        rates: how often each neuron fires in each language, [languages, units], from 0 to 1.
        languages: their names, two or more.
        share: of all neurons that are chosen.
        quantile: of all rates, the bar.

    Raises:
        MeasureError: rates outside 0 to 1, names that do not fit, a share or quantile out of range, or so few neurons
            above the bar that the share cannot be filled.
    """
    p = numbers(rates, "Firing rates", ndim=2, length=len(languages))
    if len(languages) < 2 or p.min() < 0 or p.max() > 1:
        raise MeasureError(
            f"Firing rates [languages, units] from 0 to 1 of at least two languages were asked for, found "
            f"{list(p.shape)} from {p.min():.3g} to {p.max():.3g}."
        )
    if not 0 < share < 1:
        raise MeasureError(f"A share of {share} of the neurons was asked for; give one between 0 and 1.")
    bar = firing_bar(p, quantile)
    active = p > bar
    entropy = np.where(active.any(0), _entropy(p), np.inf)
    k = round(share * p.shape[1])
    if k < 1 or np.isfinite(entropy).sum() < k:
        raise MeasureError(
            f"{k} neurons of {p.shape[1]} were to be chosen, found {int(np.isfinite(entropy).sum())} that fire above "
            f"{bar:.3g} in some language; lower the quantile or change the share."
        )
    chosen = np.zeros(p.shape[1], bool)
    chosen[np.argsort(entropy, kind="stable")[:k]] = True
    return LanguageNeurons(tuple(languages), entropy, bar, active & chosen)


def firing_bar(rates: Any, quantile: float = 0.95) -> float:
    """Return the firing rate above which a neuron counts as active in a language: a quantile of all rates.

    Where more than the rest of all rates are 1, as in a model that has hardly been trained, the bar is 1 and no neuron
    is above it.

    Args:
        rates: of any shape.
        quantile: which one; of n rates the round(quantile n)-th in order, as the authors' `kthvalue` has it.

    Raises:
        MeasureError: no rate, one that is no number, or a quantile out of range.

    Example:
        >>> firing_bar([[0.1, 0.2], [0.3, 0.4]], 0.5)
        0.2
    """
    p = numbers(rates, "Firing rates").ravel()
    if not 0 < quantile < 1:
        raise MeasureError(f"The {quantile} quantile of firing rates was asked for; give one between 0 and 1.")
    place = max(round(quantile * p.size) - 1, 0)
    return float(np.partition(p, place)[place])


def overlaps(found: LanguageNeurons) -> np.ndarray:
    """Return the Jaccard index of every two languages' sets, [languages, languages]; 0 where both are empty."""
    m = found.members.astype(np.float64)
    both = m @ m.T
    either = m.sum(1)[:, None] + m.sum(1)[None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def read_released(path: Path | str) -> list[list[np.ndarray]]:
    """Return the sets in a file as the authors release them: for each language and each layer the neurons' numbers.

    Args:
        path: a `.pth` file; only tensors and lists are read from it, never code.

    Raises:
        DataError: no such file, or another content.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise DataError(f"No file '{path}' of released neurons; give the path of one.")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        sets = [[np.asarray(layer, dtype=np.int64).ravel() for layer in language] for language in held]
    except (RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"'{path}' was to hold lists of neurons by language and layer, found {error}.") from error
    if not sets or len({len(s) for s in sets}) != 1 or any(x.size and x.min() < 0 for s in sets for x in s):
        raise DataError(f"'{path}' was to hold as many layers for each language, found {[len(s) for s in sets]}.")
    return sets


def _entropy(p: np.ndarray) -> np.ndarray:
    total = p.sum(0)
    q = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    return -(q * np.log(q, out=np.zeros_like(q), where=q > 0)).sum(0)
