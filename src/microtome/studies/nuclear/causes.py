"""Does the prediction need that shape? Replaced embedding tables, and the map of predictions over a plane of one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
import torch
from jaxtyping import Float
from torch.func import functional_call

from microtome.core.errors import MeasureError
from microtome.core.seeds import generator
from microtome.data.nuclear import MAGIC
from microtome.measures.principal import principal
from microtome.measures.replacement import replacement_ladder, replacement_test
from microtome.measures.topography import plane_of_components, topography
from microtome.records import Stage, StageOutput, Told
from microtome.studies.nuclear.embeddings import Network, name_of, networks
from microtome.studies.nuclear.subject import TABLES, Subject
from microtome.training.regression import Fitted

__all__ = ["maps", "odd_even_gap", "replacements"]

LOOKED_AT = ("direct", "residual")
DRIFTS = (1, 3, 5)
AS_MANY = 5  # a polynomial of this much higher a degree has as many parameters as a helix that may grow


def replacements(subject: Subject, fitted: Mapping[str, Fitted], held: Stage, told: Told) -> StageOutput:
    """Errors, and the odd-even gap, with each table swapped for descriptions of it (headline networks)."""
    todo = [(n, axis) for n in networks(fitted, held) if n.headline and n.arm in LOOKED_AT for axis in TABLES]
    rows = []
    for k, (network, axis) in enumerate(todo):
        order = np.arange(subject.shape.protons if axis == "z" else subject.shape.neutrons)
        table = getattr(network.fitted.module(network.place), axis).weight.detach().numpy().astype(np.float64)
        seen = np.isin(order, subject.numbers(axis))
        rng = generator(subject.config.seed, "replacement", network.arm, axis)
        options = {"drifts": DRIFTS, "degrees": (3, *(drift + AS_MANY for drift in DRIFTS)), "without": (1, 2, 3, 4, 5)}
        ladder = replacement_ladder(table, order, rng=rng, trained=seen, **options)
        found = replacement_test(table, ladder, _score(subject, network, axis))
        rows += [{"arm": network.arm, "table": TABLES[axis], **asdict(row)} for row in found]
        told((k + 1) / len(todo))
    return StageOutput(tables={"replacements": rows})


def _score(subject: Subject, network: Network, axis: str) -> Callable[[np.ndarray], dict[str, float]]:
    """Return what says how a network does with another table in the place of its own."""
    arm, table = subject.arms[network.arm], subject.table
    module = network.fitted.module(network.place)
    z, n = torch.from_numpy(table.z), torch.from_numpy(table.n)
    inputs = (z, n, torch.zeros_like(z))

    @torch.no_grad()
    def score(embedding: np.ndarray) -> dict[str, float]:
        weights = {f"{axis}.weight": torch.from_numpy(embedding).float()}
        predicted = arm.quantity(functional_call(module, weights, inputs).double().numpy())
        left = arm.truth - predicted
        parts = {"training": subject.train, "held-out": subject.held}
        errors = {name: float(np.sqrt(np.square(left[part]).mean())) for name, part in parts.items()}
        return errors | {"odd-even gap": odd_even_gap(subject, predicted, axis)}

    return score


def odd_even_gap(subject: Subject, binding: Float[np.ndarray, "nucleus"], axis: str) -> float:
    """Return the mean odd-even staggering along chains, (-1)^n (2 B(n) - B(n-1) - B(n+1)) / 2, in MeV.

    Args:
        subject: its table says which nuclei have both neighbours.
        binding: of every nucleus of the table.
        axis: "z" along isotones, "n" along isotopes.
    """
    table, step = subject.table, np.array([1, 0] if axis == "z" else [0, 1])
    below, above = (table.rows_of(table.z + s * step[0], table.n + s * step[1]) for s in (-1, 1))
    inside = (below >= 0) & (above >= 0)
    sign = np.where(getattr(table, axis) % 2 == 0, 1.0, -1.0)
    return float((sign * (2 * binding - binding[below] - binding[above]) / 2)[inside].mean())


def maps(subject: Subject, fitted: Mapping[str, Fitted], held: Stage) -> StageOutput:
    """Predicted binding energy over the plane of PC1 and PC2 of each table, the other number held at one."""
    network = next(n for n in networks(fitted, held) if n.headline and n.arm == "direct")
    grids, items, summary = [], [], []
    for axis, called in TABLES.items():
        other = "n" if axis == "z" else "z"
        fixed = _commonest(subject, other)
        numbers = subject.numbers(axis)
        module = network.fitted.module(network.place)
        table = getattr(module, axis).weight.detach().numpy()[numbers].astype(np.float64)
        plane = plane_of_components(principal(table, along=numbers))
        found = topography(
            table, plane, _predictor(subject, network, axis, fixed), points=subject.config.reading.points
        )
        step = [float(a[1] - a[0]) / 2 for a in (found.x, found.y)]
        grids += [
            {"table": called, "x": float(x - step[0]), "x2": float(x + step[0]), "y": float(y - step[1]),
             "y2": float(y + step[1]), "binding": float(found.values[i, j])}
            for i, y in enumerate(found.y)
            for j, x in enumerate(found.x)
        ]  # fmt: skip
        items += [
            {
                "table": called,
                "number": int(number),
                "name": name_of(axis, int(number)) if number % 10 == 0 or axis == "z" else None,
                "x": float(at[0]),
                "y": float(at[1]),
                "on_map": float(on),
                "predicted": float(own),
            }
            for number, at, on, own in zip(numbers, found.items, found.on_map, found.predicted, strict=True)
        ]
        off = float(np.sqrt(np.square(found.on_map - found.predicted).mean()))
        summary.append({"table": called, "fixed": f"{TABLES[other]} = {fixed}", "off_plane": off,
                        "spread": float(found.predicted.std()), "n": len(numbers)})  # fmt: skip
    return StageOutput(tables={"map_grid": grids, "map_items": items, "maps": summary})


def _commonest(subject: Subject, axis: str) -> int:
    """Return the magic number that most training nuclei have."""
    counts = np.bincount(getattr(subject.table, axis)[subject.train], minlength=max(MAGIC) + 1)
    return max(MAGIC, key=lambda number: counts[number])


def _predictor(subject: Subject, network: Network, axis: str, fixed: int) -> Callable[[np.ndarray], np.ndarray]:
    arm, module = subject.arms[network.arm], network.fitted.module(network.place)
    if arm.base.any():
        raise MeasureError(
            "A map of an arm with a formula under it was asked for; a point of the plane has no formula."
        )
    other = (module.n if axis == "z" else module.z).weight[fixed]

    @torch.no_grad()
    def predict(embeddings: np.ndarray) -> np.ndarray:
        own = torch.from_numpy(embeddings).float()
        beside = other.expand(len(own), -1)
        task = torch.zeros(len(own), dtype=torch.int64)
        z, n = (own, beside) if axis == "z" else (beside, own)
        found = module.from_embeddings(z, n, task).double().numpy()
        return found * arm.scaling.std[0] + arm.scaling.mean[0]

    return predict
