"""The shape of the tables of Z and N: order, parity, kinks at magic numbers, helices, and how it came about.

Only rows that training saw are looked at. One network of each arm is looked at closely - the one whose held-out error
is the median - and the others for how much it differs between seeds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from microtome.core.errors import MeasureError
from microtome.core.seeds import generator
from microtome.data.nuclear import MAGIC
from microtome.data.nuclear.constants import SYMBOLS
from microtome.measures.geometry import Geometry, kinks, order_geometry
from microtome.measures.helix import HelixEvidence, fit_polynomial, helix_evidence
from microtome.records import Stage, StageOutput, Told
from microtome.studies.nuclear.fitting import snapshots_of
from microtome.studies.nuclear.subject import TABLES, Subject
from microtome.training.regression import Fitted

__all__ = ["Network", "evolution", "geometry", "helices", "networks", "table_of"]

FEW = 19
SHOWN = 3


@dataclass(frozen=True, eq=False)
class Network:
    """One trained network of an arm.

    Attributes:
        arm: of which arm.
        fitted: the arm's networks.
        place: which of them.
        headline: whether it is the one that is looked at closely.
    """

    arm: str
    fitted: Fitted
    place: int
    headline: bool


def networks(fitted: Mapping[str, Fitted], held: Stage) -> Iterator[Network]:
    """Yield every network of every arm, the headline ones first within their arm."""
    for arm, found in fitted.items():
        first = int(held.value(f"headline_{arm}"))
        for place in [first, *(p for p in range(len(found.seeds)) if p != first)]:
            yield Network(arm, found, place, place == first)


def table_of(subject: Subject, network: Network, axis: str) -> tuple[np.ndarray, Float[np.ndarray, "number embedding"]]:
    """Return the numbers that training saw and their embeddings."""
    numbers = subject.numbers(axis)
    weight = getattr(network.fitted.module(network.place), axis).weight.detach().numpy()
    return numbers, weight[numbers].astype(np.float64)


def name_of(axis: str, number: int) -> str:
    """Return what a figure calls a row: an element's symbol, or the number of neutrons."""
    return SYMBOLS[number] if axis == "z" and number < len(SYMBOLS) else str(number)


def geometry(subject: Subject, fitted: Mapping[str, Fitted], held: Stage, told: Told) -> StageOutput:
    """Order statistics of every network, and the places of the headline networks' rows in their own axes."""
    rows, components, scores, magic = [], [], [], []
    todo = [(network, axis) for network in networks(fitted, held) for axis in TABLES]
    for k, (network, axis) in enumerate(todo):
        numbers, table = table_of(subject, network, axis)
        rng = generator(subject.config.seed, "geometry", network.arm, network.place, axis)
        draws = subject.config.reading.draws if network.headline else FEW
        found = order_geometry(
            table, numbers, rng=rng, components=subject.config.reading.components, draws=draws,
            spectra=FEW if network.headline else 1,
        )  # fmt: skip
        rows.append(_seed_row(network, axis, found))
        if network.headline:
            components += _component_rows(network, axis, found)
            scores += _score_rows(network, axis, found)
            magic += _kink_rows(subject, network, axis, found, rng)
        told((k + 1) / len(todo))
    return StageOutput(tables={"order": rows, "components": components, "scores": scores, "kinks": magic})


def _seed_row(network: Network, axis: str, found: Geometry) -> dict:
    spearman = [abs(s.value.estimate) for s in found.spearman]
    parity = [p.value.estimate for p in found.parity]
    explained = found.principal.explained
    return {
        "arm": network.arm,
        "table": TABLES[axis],
        "seed": network.place,
        "headline": network.headline,
        "spearman": spearman[0],
        "best_spearman": max(spearman),
        "explained_3": float(explained[:SHOWN].sum()),
        "neighbours": found.neighbours.value.estimate,
        "neighbours_null": found.neighbours.null,
        "parity": max(parity, default=0.0),
        "n": len(found.order),
    }


def _component_rows(network: Network, axis: str, found: Geometry) -> list[dict]:
    kinds = {"explained": found.explained, "spearman": found.spearman, "parity": found.parity}
    return [
        {
            "arm": network.arm,
            "table": TABLES[axis],
            "component": k + 1,
            "statistic": name,
            "value": at.value.estimate,
            "low": at.value.low,
            "high": at.value.high,
            "null": at.null,
            "p": at.p,
            "n": at.value.n,
        }
        for name, values in kinds.items()
        for k, at in enumerate(values)
    ]


def _score_rows(network: Network, axis: str, found: Geometry) -> list[dict]:
    width = min(SHOWN, found.scores.shape[1])
    return [
        {
            "arm": network.arm,
            "table": TABLES[axis],
            "number": int(number),
            "name": name_of(axis, int(number)),
            "parity": "odd" if number % 2 else "even",
            "magic": int(number) in MAGIC,
            **{f"pc{k + 1}": float(row[k]) if k < width else None for k in range(SHOWN)},
        }
        for number, row in zip(found.order, found.scores, strict=True)
    ]


def _kink_rows(subject: Subject, network: Network, axis: str, found: Geometry, rng: np.random.Generator) -> list[dict]:
    try:
        bends = kinks(found.scores[:, :SHOWN], found.order, MAGIC, rng=rng, draws=subject.config.reading.draws)
    except MeasureError:  # too few numbers follow each other around a magic one
        return []
    return [
        {
            "arm": network.arm,
            "table": TABLES[axis],
            "number": int(place),
            "size": float(size),
            "rank": float(rank),
            "mean": bends.mean,
            "p": bends.p,
        }
        for place, size, rank in zip(bends.places, bends.size, bends.rank, strict=True)
    ]


def helices(subject: Subject, fitted: Mapping[str, Fitted], held: Stage, told: Told) -> StageOutput:
    """Helix against polynomial, held-out rows and shuffles: every seed at the first drift, the headline at all."""
    reading = subject.config.reading
    todo = [
        (network, axis, drift)
        for network in networks(fitted, held)
        for axis in TABLES
        for drift in reading.drifts
        if network.headline or (drift == reading.drifts[0] and network.arm in ("direct", "theory"))
    ]
    rows, curves = [], []
    for k, (network, axis, drift) in enumerate(todo):
        numbers, table = table_of(subject, network, axis)
        rng = generator(subject.config.seed, "helix", network.arm, network.place, axis, drift)
        axes = order_geometry(table, numbers, rng=rng, components=SHOWN, draws=1, spectra=1)
        draws = reading.helix_draws if network.headline else FEW
        found = helix_evidence(axes.scores, numbers, rng=rng, drift=drift, draws=draws)
        rows.append(_helix_row(network, axis, drift, found))
        if network.headline and drift == reading.drifts[0]:
            curves += _curve_rows(network, axis, numbers, axes.scores, found)
        told((k + 1) / len(todo))
    return StageOutput(tables={"helices": rows, "helix_curves": curves})


def _helix_row(network: Network, axis: str, drift: int, found: HelixEvidence) -> dict:
    return {
        "arm": network.arm,
        "table": TABLES[axis],
        "seed": network.place,
        "headline": network.headline,
        "drift": drift,
        "r2": found.r2,
        "polynomial": found.polynomial,
        "degree": found.degree,
        "held_out": found.held_out,
        "held_out_polynomial": found.held_out_polynomial,
        "null": float(np.quantile(found.null, 0.95)),
        "p": found.p,
        "period": found.period.estimate,
        "period_low": found.period.low,
        "period_high": found.period.high,
        "turns": found.turns,
        "supported": found.supported,
        "verdict": found.verdict,
        "n": found.period.n,
    }


def _curve_rows(
    network: Network, axis: str, numbers: np.ndarray, scores: np.ndarray, found: HelixEvidence
) -> list[dict]:
    smooth = fit_polynomial(scores, numbers, degree=found.degree)(numbers)
    kinds = {"embedding": scores, "helix": found.helix(numbers), "polynomial": smooth}
    return [
        {
            "arm": network.arm,
            "table": TABLES[axis],
            "number": int(number),
            "component": f"PC{k + 1}",
            "curve": name,
            "value": float(values[row, k]),
        }
        for k in range(scores.shape[1])
        for name, values in kinds.items()
        for row, number in enumerate(numbers)
    ]


def evolution(subject: Subject, stage: Stage, held: Stage, arm: str = "direct") -> StageOutput:
    """How the order of the embeddings came about: every snapshot of the headline network in its own axes."""
    place = int(held.value(f"headline_{arm}"))
    rows, scores = [], []
    for axis, called in TABLES.items():
        numbers = subject.numbers(axis)
        for epoch, tables in snapshots_of(stage, arm, axis).items():
            rng = generator(subject.config.seed, "evolution", axis, epoch)
            table = tables[place][numbers].astype(np.float64)
            found = order_geometry(table, numbers, rng=rng, components=SHOWN, draws=FEW, spectra=1)
            rows.append(
                {
                    "table": called,
                    "epoch": epoch,
                    "spearman": abs(found.spearman[0].value.estimate),
                    "low": max(0.0, found.spearman[0].value.low),
                    "high": found.spearman[0].value.high,
                    "explained_3": float(found.principal.explained[:SHOWN].sum()),
                    "neighbours": found.neighbours.value.estimate,
                    "null": found.spearman[0].null,
                }
            )
            scores += [
                {"table": called, "epoch": epoch, "number": int(number), "name": name_of(axis, int(number)),
                 "pc1": float(at[0]), "pc2": float(at[1])}
                for number, at in zip(found.order, found.scores, strict=True)
            ]  # fmt: skip
    return StageOutput(tables={"evolution": rows, "evolution_scores": scores})
