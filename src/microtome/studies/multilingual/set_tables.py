"""Tables of language neurons: by layer, by language, their overlap, each neuron, and all of it beside the nulls.

    specific: above the bar in one language    partial: in several    shared: in all

"Above the bar" takes all neurons; the sets take the share of lowest entropy (LAPE). Counts stand with the spread of
resampled sentences about them, their mean over shuffled languages, and the untrained twin's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microtome.measures.language_neurons import LanguageNeurons, overlaps
from microtome.studies.multilingual.rates import Fired

__all__ = ["Sets", "kind_rows", "layer_rows", "neuron_rows", "null_rows", "overlap_rows", "size_rows"]

KINDS = ("specific", "partial", "shared")


@dataclass(frozen=True, eq=False)
class Sets:
    """Language neurons with their nulls.

    Attributes:
        seen: firing rates of the model.
        empty: of its untrained twin.
        whole: the sets.
        twin: of the untrained twin.
        halves: of each half of the sentences.
        shuffled: of each shuffle of the languages.
        resampled: of each resample of the sentences.
    """

    seen: Fired
    empty: Fired
    whole: LanguageNeurons
    twin: LanguageNeurons
    halves: Sequence[LanguageNeurons]
    shuffled: Sequence[LanguageNeurons]
    resampled: Sequence[LanguageNeurons]


def kind_rows(sets: Sets) -> list[dict]:
    """Return how many neurons of each layer are above the bar in one, several and all languages."""
    layer = sets.seen.layer
    own, empty = _kinds(sets.seen.rates, sets.whole), _kinds(sets.empty.rates, sets.twin)
    nulls, draws = (
        [_kinds(p, s) for p, s in zip(rates, found, strict=True)]
        for rates, found in ((sets.seen.shuffled, sets.shuffled), (sets.seen.resampled, sets.resampled))
    )
    rows = []
    for block in np.unique(layer):
        here = layer == block
        for kind, name in enumerate(KINDS, 1):
            count = int((own[here] == kind).sum())
            rows.append(
                {
                    "layer": int(block),
                    "kind": name,
                    **_counted(count, [int((d[here] == kind).sum()) for d in draws]),
                    "shuffled": float(np.mean([(d[here] == kind).sum() for d in nulls])),
                    "untrained": int((empty[here] == kind).sum()),
                    "n": int(here.sum()),
                }
            )
    return rows


def _kinds(rates: np.ndarray, found: LanguageNeurons) -> np.ndarray:
    """Return 0 for a neuron above the bar in no language, 1 in one, 2 in several, 3 in all."""
    count = (rates > found.bar).sum(0)
    return np.where(count == len(rates), 3, np.minimum(count, 2))


def _counted(count: int, draws: Sequence[int], name: str = "count") -> dict:
    """Return a count and the resamples' spread about it (they are noisier than the whole, so their mean is off)."""
    half = 1.96 * float(np.std(draws, ddof=1))
    return {name: count, "low": max(0.0, count - half), "high": count + half}


def layer_rows(sets: Sets) -> list[dict]:
    """Return how many neurons of each layer each language has."""
    layer, found, rows = sets.seen.layer, sets.whole, []
    for block in np.unique(layer):
        here = layer == block
        for a, language in enumerate(found.languages):
            rows.append(
                {
                    "layer": int(block),
                    "language": language,
                    **_counted(
                        int(found.members[a, here].sum()), [int(s.members[a, here].sum()) for s in sets.resampled]
                    ),
                    "shuffled": float(np.mean([s.members[a, here].sum() for s in sets.shuffled])),
                    "untrained": int(sets.twin.members[a, here].sum()),
                    "n": int(here.sum()),
                }
            )
    return rows


def size_rows(sets: Sets) -> list[dict]:
    """Return the size of each language's set, and how much of it either half of the sentences finds again."""
    found, rows = sets.whole, []
    for a, language in enumerate(found.languages):
        one, two = (s.members[a] for s in sets.halves)
        likely = one.sum() * two.sum() / one.size  # expected overlap of two random sets
        rows.append(
            {
                "language": language,
                **_counted(int(found.members[a].sum()), [int(s.members[a].sum()) for s in sets.resampled], "size"),
                "specific": int((found.members[a] & (found.kinds() == 1)).sum()),
                "shuffled": float(np.mean([s.members[a].sum() for s in sets.shuffled])),
                "untrained": int(sets.twin.members[a].sum()),
                "half_jaccard": float((one & two).sum() / max((one | two).sum(), 1)),
                "chance_jaccard": float(likely / max(one.sum() + two.sum() - likely, 1)),
                "n": found.members.shape[1],
            }
        )
    return rows


def overlap_rows(found: LanguageNeurons) -> list[dict]:
    """Return the Jaccard index of every two languages' sets, and what random sets of their sizes would have."""
    matrix, sizes, n = overlaps(found), found.members.sum(1), found.members.shape[1]
    rows = []
    for a, first in enumerate(found.languages):
        # the last first, so that a heat map without its diagonal has the languages in order on both axes
        for b, second in reversed(list(enumerate(found.languages))):
            if a == b:
                continue
            likely = sizes[a] * sizes[b] / n
            chance = likely / max(sizes[a] + sizes[b] - likely, 1)
            rows.append({"first": first, "second": second, "jaccard": float(matrix[a, b]), "chance": float(chance),
                         "smaller": int(min(sizes[a], sizes[b])), "n": n})  # fmt: skip
    return rows


def null_rows(sets: Sets) -> list[dict]:
    """Return what the chosen neurons look like: the entropy of the lowest share, and how many have one language."""
    found, shuffled = sets.whole, sets.shuffled
    observed = _summary(found)
    p = (1 + sum(_summary(s)[0] <= observed[0] for s in shuffled)) / (1 + len(shuffled))
    kinds_of = {
        "trained": ([found], sets.resampled),
        "languages shuffled": (shuffled, shuffled),
        "untrained": ([sets.twin], [sets.twin]),
    }
    rows = []
    for name, (sets, draws) in kinds_of.items():
        entropy, specific = np.mean([_summary(s) for s in sets], axis=0)
        spread_ = 1.96 * np.std([_summary(s) for s in draws], axis=0, ddof=1 if len(draws) > 1 else 0)
        rows.append(
            {
                "model": name,
                "entropy": float(entropy),
                "low": float(max(0.0, entropy - spread_[0])),
                "high": float(entropy + spread_[0]),
                "specific": float(specific),
                "specific_low": float(max(0.0, specific - spread_[1])),
                "specific_high": float(specific + spread_[1]),
                "most": float(np.log(len(found.languages))),
                "p": float(p) if name == "trained" else None,
                "chosen": len(found.chosen),
                "n": found.members.shape[1],
            }
        )
    return rows


def _summary(found: LanguageNeurons) -> tuple[float, float]:
    """Return the mean entropy of the chosen neurons, and how many of them belong to one language."""
    return float(found.entropy[found.chosen].mean()), float((found.kinds() == 1).sum())


def neuron_rows(seen: Fired, found: LanguageNeurons) -> list[dict]:
    """Return every chosen neuron with its languages, lowest entropy first."""
    sites = list(seen.widths)
    edges = np.cumsum([0, *seen.widths.values()])
    rows = []
    for unit in found.chosen[np.argsort(found.entropy[found.chosen], kind="stable")]:
        site = int(np.searchsorted(edges, unit, side="right") - 1)
        mine = [found.languages[a] for a in np.flatnonzero(found.members[:, unit])]
        best = int(seen.rates[:, unit].argmax())
        rows.append(
            {
                "neuron": f"{sites[site]} {unit - edges[site]}",
                "layer": int(sites[site].block),
                "languages": ", ".join(mine),
                "of": len(mine),
                "entropy": float(found.entropy[unit]),
                "fires_most_in": found.languages[best],
                "rate": float(seen.rates[best, unit]),
                "rate_elsewhere": float(np.delete(seen.rates[:, unit], best).mean()),
                "n": int(seen.tokens.sum()),
            }
        )
    return rows
