"""Do language neurons make their language? Each set is put to 0 (and to its mean) and every language's loss read.

    delta(a, b) = loss per token in language b with the neurons of a ablated, less the loss with none
    selectivity(a) = delta(a, a) - mean over other languages b of delta(a, b)

on the test half, whose sentences found nothing. Any neurons hurt when taken away, so each set stands beside random ones
of the same size in each layer; p is the share of those that are as selective. Intervals resample sentences, the same in
all languages. Two ways of choosing are compared: LAPE, and how much more a neuron matters (|h dL/dh|) in its language
than in the others. Cells of one batch run from one recording (`engine.sweep`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits.make import ablate
from microtome.engine.edit import Constant, Edit
from microtome.engine.sweep import sweep
from microtome.measures.importance import TextLoss
from microtome.measures.resampling import matched_random_p
from microtome.models.model import Model
from microtome.records import Missing, Stage, StageOutput, Told
from microtome.studies.multilingual.analysis import Analysis
from microtome.studies.multilingual.sentences import Reading, resampled, spread, tokenised
from microtome.studies.multilingual.sets import found_sets, units_of

__all__ = ["ALL", "ablation"]

ALL = "all languages"
LAPE, MEANS, IMPORTANCE, RANDOM = "LAPE", "LAPE, to the mean", "importance", "random"
UNMATCHED = "random sets were drawn for another way of choosing or of ablating"


@dataclass(frozen=True, eq=False)
class _Cell:
    """One ablation: how its neurons were chosen, for which language, which draw of a random set."""

    arm: str
    language: int
    units: Units
    edits: Sequence[Edit]


def ablation(
    model: Model, texts: Mapping[str, Sequence[str]], sets: Stage, weights: Stage, knobs: Analysis, told: Told
) -> StageOutput:
    """Ablate each language's neurons and read every language's loss.

    Args:
        model: a causal language model with a tokenizer.
        texts: language -> parallel sentences.
        sets: of `language_sets`, on the same texts and with the same knobs.
        weights: of `importance`, likewise.
        knobs: of the analysis.
        told: takes the share done.

    Raises:
        DataError: sentences that cannot be used (see `tokenised`), or no language that has neurons.
        UnitsError: a layer with too few other neurons to draw random sets from.
    """
    sentences = tokenised(model, texts, knobs)
    names, reading = sentences.languages, sentences.read("test", knobs.ablation_sentences)
    cells = _cells(model, sets, weights, knobs)
    base, effects, tokens = _losses(model, reading, cells, knobs, told, len(names))
    counts = resampled(reading.sentences, knobs.draws, "ablation", seed=knobs.seed)
    # [cells, languages, 1 + draws]: nats a token more than unablated
    deltas = np.einsum("rs,cls->clr", counts, effects - base) / np.einsum("rs,ls->lr", counts, tokens)
    own = np.stack([deltas[i, c.language] for i, c in enumerate(cells)])
    others = (deltas.sum(1) - own) / (len(names) - 1)
    matrix = _matrix(cells, deltas, names, reading.sentences)
    return StageOutput(
        tables={
            "ablation_matrix": matrix,
            "ablation": _selective(cells, own, others, names, reading.sentences),
            "ablation_random": _twins(cells, own, others, names),
        },
        values={
            "ablation_sentences": reading.sentences,
            "ablation_tokens": int(tokens.sum()),
            "ablation_losses": {n: float(base[a].sum() / tokens[a].sum()) for a, n in enumerate(names)},
            "ablation_random_sets": knobs.random,
            "languages_without_neurons": [n for a, n in enumerate(names) if not _of(cells, LAPE, a)],
        },
    )


def _cells(model: Model, sets: Stage, weights: Stage, knobs: Analysis) -> list[_Cell]:
    """Return every ablation to make."""
    found, widths = found_sets(sets)
    means = dict(zip(widths, np.split(sets.array("neuron_means"), np.cumsum(list(widths.values()))[:-1]), strict=True))
    scores = weights.array("importance_neurons")
    cells: list[_Cell] = []
    for a, language in enumerate(found.languages):
        chosen = found.of(language)
        chosen = chosen[np.argsort(found.entropy[chosen], kind="stable")][: knobs.ablated or None]
        if not len(chosen):
            continue
        units = units_of(np.sort(chosen), widths)
        excess = scores[a] - np.delete(scores, a, 0).mean(0)
        weighty = units_of(np.sort(np.argsort(-excess, kind="stable")[: len(chosen)]), widths)
        cells += [_Cell(LAPE, a, units, ablate(units)), _Cell(MEANS, a, units, _to_means(units, means)),
                  _Cell(IMPORTANCE, a, weighty, ablate(weighty))]  # fmt: skip
        for arm, own in [(LAPE, units), *([(IMPORTANCE, weighty)] if knobs.control_importance else [])]:
            rng = generator(knobs.seed, "random sets", arm, language)
            drawn = (own.matched_random(widths, rng) for _ in range(knobs.random))
            cells += [_Cell(f"{RANDOM} {arm}", a, twin, ablate(twin)) for twin in drawn]
    if not cells:
        raise DataError("Sets of at least one language were to be ablated, found none; choose a larger share.")
    return cells


def _to_means(units: Units, means: Mapping[Site, np.ndarray]) -> list[Edit]:
    return [
        Edit(site, Constant(torch.from_numpy(means[site]).float()), units=torch.from_numpy(index.copy()))
        for site, index in units.items()
    ]


def _losses(
    model: Model, reading: Reading, cells: Sequence[_Cell], knobs: Analysis, told: Told, languages: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return summed losses without edits and with each, and tokens, by language and sentence."""
    base, effects, count = [], [], len(reading.parts)
    for done, batch in enumerate(reading.batches(model), 1):
        found = sweep(
            model, batch, [c.edits for c in cells], TextLoss(batch), memory_budget=knobs.memory_budget,
            progress=lambda cell, whole, _, done=done: told((done - 1 + cell / whole) / count),
        )  # fmt: skip
        base.append(found.base.double().cpu().numpy())
        effects.append(found.effects.double().cpu().numpy().T)
    tokens = np.array([len(row) - 1.0 for row in reading.rows])
    swept = reading.square(np.concatenate(effects), languages)
    return reading.square(np.concatenate(base), languages), np.moveaxis(swept, 2, 0), reading.square(tokens, languages)


def _of(cells: Sequence[_Cell], arm: str, language: int) -> list[int]:
    return [i for i, c in enumerate(cells) if c.arm == arm and c.language == language]


def _arms(cells: Sequence[_Cell]) -> list[str]:
    return [a for a in dict.fromkeys(c.arm for c in cells) if not a.startswith(RANDOM)]


def _matrix(cells: Sequence[_Cell], deltas: np.ndarray, names: Sequence[str], n: int) -> list[dict]:
    """Return the loss each language gains with each language's neurons ablated."""
    rows = []
    for arm in _arms(cells):
        for i in (i for i, c in enumerate(cells) if c.arm == arm):
            twins = _of(cells, f"{RANDOM} {LAPE if arm == MEANS else arm}", cells[i].language)
            for b, evaluated in enumerate(names):
                random = float(deltas[twins, b, 0].mean()) if twins else Missing(UNMATCHED)
                rows.append({"arm": arm, "ablated": names[cells[i].language], "evaluated": evaluated,
                             **spread(deltas[i, b], n, "delta"), "random": random,
                             "neurons": len(cells[i].units)})  # fmt: skip
    return rows


def _selective(cells: Sequence[_Cell], own: np.ndarray, others: np.ndarray, names: Sequence[str], n: int) -> list[dict]:
    """Return each language's selectivity, and the mean over languages, against random sets."""
    rows = []
    for arm in _arms(cells):
        mine = [i for i, c in enumerate(cells) if c.arm == arm]
        twins = {i: _of(cells, f"{RANDOM} {arm}", cells[i].language) for i in mine}
        for i in mine:
            null = (own - others)[twins[i], 0]
            rows.append(_line(arm, names[cells[i].language], own[i], others[i], null, len(cells[i].units), n))
        together = [own[mine].mean(0), others[mine].mean(0)]
        draws = np.array([(own - others)[t, 0] for t in twins.values()])
        null = draws.mean(0) if draws.size else np.zeros(0)
        size = round(float(np.mean([len(cells[i].units) for i in mine])))
        rows.append(_line(arm, ALL, *together, null, size, n))
    return rows


def _line(arm: str, language: str, own: np.ndarray, others: np.ndarray, null: np.ndarray, neurons: int, n: int) -> dict:
    found = {"random": Missing(UNMATCHED), "random_high": Missing(UNMATCHED), "p": Missing(UNMATCHED)}
    if len(null):
        found = {
            "random": float(null.mean()),
            "random_high": float(np.quantile(null, 0.95)),
            "p": matched_random_p(float(own[0] - others[0]), null),
        }
    return {
        "arm": arm,
        "language": language,
        "own": float(own[0]),
        "others": float(others[0]),
        **spread(own - others, n, "selectivity"),
        **found,
        "random_sets": len(null),
        "neurons": neurons,
    }


def _twins(cells: Sequence[_Cell], own: np.ndarray, others: np.ndarray, names: Sequence[str]) -> list[dict]:
    """Return every random set: what it does to its language and to the others."""
    return [
        {"arm": c.arm.removeprefix(f"{RANDOM} "), "language": names[c.language], "own": float(own[i, 0]),
         "others": float(others[i, 0]), "selectivity": float(own[i, 0] - others[i, 0]), "neurons": len(c.units)}
        for i, c in enumerate(cells)
        if c.arm.startswith(RANDOM)
    ]  # fmt: skip
