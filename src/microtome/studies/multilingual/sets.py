"""Language neurons (LAPE, arXiv 2402.16438) on the discovery half: which, in which layers, and whether any are real.

Some 1 % of neurons always has the lowest entropy, so the sets stand beside those of the same sentences with their
languages shuffled, of an untrained twin, and of each half of the sentences.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from microtome.core.site import Site
from microtome.core.units import Units
from microtome.measures.language_neurons import LanguageNeurons, language_neurons
from microtome.models.model import Model
from microtome.records import Stage, StageOutput, Told
from microtome.studies.multilingual.analysis import Analysis
from microtome.studies.multilingual.rates import fired, gates
from microtome.studies.multilingual.sentences import tokenised, twin_of
from microtome.studies.multilingual.set_tables import (
    Sets,
    kind_rows,
    layer_rows,
    neuron_rows,
    null_rows,
    overlap_rows,
    size_rows,
)

__all__ = ["found_in", "found_sets", "language_sets", "units_of"]


def language_sets(model: Model, texts: Mapping[str, Sequence[str]], knobs: Analysis, told: Told) -> StageOutput:
    """Find the neurons of each language, with their nulls.

    Args:
        model: a model with MLP neurons and a tokenizer.
        texts: language -> parallel sentences.
        knobs: of the analysis.
        told: takes the share done.

    Raises:
        DataError: sentences that cannot be used (see `tokenised`).
        SiteError: a model without single neurons.
        MeasureError: so few neurons above the bar that the share cannot be chosen.
    """
    sentences = tokenised(model, texts, knobs)
    names, reading = sentences.languages, sentences.read("discovery")
    seen = fired(model, reading, knobs, lambda x: told(0.6 * x))
    empty = fired(twin_of(model, knobs), reading, knobs, lambda x: told(0.6 + 0.3 * x), nulls=False)
    whole, twin = (found_in(each.rates, names, knobs) for each in (seen, empty))
    drawn = ([found_in(p, names, knobs) for p in rates] for rates in (seen.halves, seen.shuffled, seen.resampled))
    sets = Sets(seen, empty, whole, twin, *drawn)
    told(1.0)
    return StageOutput(
        tables={
            "language_kinds": kind_rows(sets),
            "language_layers": layer_rows(sets),
            "language_sizes": size_rows(sets),
            "language_overlap": overlap_rows(whole),
            "language_null": null_rows(sets),
            "language_neurons": neuron_rows(seen, whole),
        },
        arrays={"rates": seen.rates, "members": whole.members.astype(np.uint8), "neuron_means": seen.means,
                "lape": whole.entropy},
        reasons={"lape": "infinite where a neuron is above the bar in no language"},
        values={
            "lape_bar": whole.bar,
            "lape_union": len(whole.chosen),
            "lape_neurons": whole.members.shape[1],
            "lape_sites": [str(s) for s in seen.widths],
            "lape_widths": list(seen.widths.values()),
            "lape_sentences": reading.sentences,
            "lape_tokens": int(seen.tokens.sum()),
            "lape_read_at": str(gates(model)[0]),
        },
    )  # fmt: skip


def found_in(rates: np.ndarray, names: Sequence[str], knobs: Analysis) -> LanguageNeurons:
    """Return the sets of some firing rates, [languages, neurons], by the knobs' rule."""
    return language_neurons(rates, names, share=knobs.share, quantile=knobs.quantile)


def found_sets(stage: Stage) -> tuple[LanguageNeurons, dict[Site, int]]:
    """Return the sets that a stage of `language_sets` found, and the neurons of each site."""
    widths = {Site.parse(s): w for s, w in zip(stage.value("lape_sites"), stage.value("lape_widths"), strict=True)}
    names = tuple(dict.fromkeys(r["language"] for r in stage.rows("language_sizes")))
    members = stage.array("members").astype(bool)
    return LanguageNeurons(names, stage.array("lape"), stage.value("lape_bar"), members), widths


def units_of(numbers: np.ndarray, widths: Mapping[Site, int]) -> Units:
    """Return numbered neurons as units of their sites."""
    edges = np.cumsum([0, *widths.values()])
    return Units(
        {s: numbers[(numbers >= a) & (numbers < b)] - a for s, a, b in zip(widths, edges, edges[1:], strict=False)}
    )
