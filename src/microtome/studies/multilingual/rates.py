"""How often each neuron fires in each language - and in halves, shuffles and resamples of the same sentences.

All of them are groups of the same texts, so one pass of the model serves them all (`measures/firing.py`). In a shuffle
the translations of each sentence change places: content stays, language does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.measures.firing import firing_by_group
from microtome.models.model import Model
from microtome.records import Told
from microtome.studies.multilingual.analysis import Analysis
from microtome.studies.multilingual.sentences import Reading, resampled

__all__ = ["Fired", "fired", "gates"]


@dataclass(frozen=True, eq=False)
class Fired:
    """How often neurons fire, by group of texts.

    Attributes:
        rates: in each language, [languages, neurons].
        halves: in each half of the sentences, [2, languages, neurons].
        shuffled: with languages shuffled, [shuffles, languages, neurons].
        resampled: with sentences resampled, [resamples, languages, neurons].
        means: mean activation of each neuron, [neurons].
        widths: site of the neurons -> how many.
        tokens: tokens of each language, [languages].
    """

    rates: np.ndarray
    halves: np.ndarray
    shuffled: np.ndarray
    resampled: np.ndarray
    means: np.ndarray
    widths: Mapping[Site, int]
    tokens: np.ndarray

    @property
    def layer(self) -> np.ndarray:
        """The block of each neuron."""
        return np.repeat([s.block for s in self.widths], list(self.widths.values()))


def fired(model: Model, reading: Reading, knobs: Analysis, told: Told, *, nulls: bool = True) -> Fired:
    """Return how often each neuron fires in each language.

    Args:
        model: a model with MLP neurons.
        reading: the texts.
        knobs: how many shuffles and resamples.
        told: takes the share done.
        nulls: count in halves, shuffles and resamples as well.

    Raises:
        SiteError: a model without single neurons.
    """
    languages = int(reading.language.max()) + 1
    blocks = _groups(reading, languages, knobs) if nulls else [_own(reading, languages)[None]]
    stacked = np.concatenate([b.reshape(-1, len(reading.rows)) for b in blocks]).T
    groups = torch.from_numpy(np.ascontiguousarray(stacked)).float()
    read, neurons = gates(model), [info.site for info in model.select("blocks.*.mlp.neurons")]
    batches = len(reading.parts)
    found = firing_by_group(
        model, reading.batches(model), [*dict.fromkeys([*read, *neurons])], groups,
        told=lambda done: told(done / batches),
    )  # fmt: skip
    rates = np.concatenate([found.sites[g].numpy() for g in read], 1)
    cut = np.cumsum([len(b) * languages for b in blocks])[:-1]
    parts = [p.reshape(-1, languages, rates.shape[1]) for p in np.split(rates, cut)]
    parts += [np.zeros((0, languages, rates.shape[1]))] * (4 - len(parts))
    widths = {n: found.sites[n].shape[1] for n in neurons}
    means = np.concatenate([found.means[n].numpy() for n in neurons])
    return Fired(parts[0][0], parts[1], parts[2], parts[3], means, widths, found.tokens[:languages].numpy())


def gates(model: Model) -> list[Site]:
    """Return where it is read whether a neuron is on: its gate, or the neuron where there is no gate."""
    neurons = [info.site for info in model.select("blocks.*.mlp.neurons")]
    read = [Site(f"blocks.{s.block}.mlp.gate") for s in neurons]
    return [g if g in model.sites else s for g, s in zip(read, neurons, strict=True)]


def _own(reading: Reading, languages: int) -> np.ndarray:
    return (reading.language == np.arange(languages)[:, None]).astype(np.float64)


def _groups(reading: Reading, languages: int, knobs: Analysis) -> list[np.ndarray]:
    """Return the languages, those of each half, shuffled, and resampled: each [draws, languages, texts]."""
    own, rng = _own(reading, languages), generator(knobs.seed, "language sets")
    half = np.isin(reading.sentence, rng.permutation(reading.sentences)[: reading.sentences // 2])
    shuffles = []
    for _ in range(knobs.shuffles):
        # translations of one sentence change places
        order = rng.permuted(np.tile(np.arange(languages), (reading.sentences, 1)), axis=1)
        drawn = order[reading.sentence, reading.language]
        shuffles.append((drawn == np.arange(languages)[:, None]).astype(np.float64))
    counts = resampled(reading.sentences, knobs.resamples, "language sets", seed=knobs.seed)[1:, reading.sentence]
    return [own[None], np.stack([own * half, own * ~half]), np.stack(shuffles), own[None] * counts[:, None]]
