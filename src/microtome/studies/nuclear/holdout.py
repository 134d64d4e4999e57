"""How far every arm and every formula is off on nuclei that nothing was fitted to.

An arm's number is the median over its seeds of the root mean square; its interval resamples held-out nuclei. Few nuclei
at the edge of the chart hold much of a root mean square, so the median error and the error without the worst hundredth
stand beside it. What a network must beat is not only a formula but interpolation: the formula's residual averaged over
the nearest training nuclei, weighted by 1 / distance^2.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from microtome.core.seeds import generator
from microtome.data.nuclear import BW2, SEMF
from microtome.measures.nuclear_mass import mass_errors
from microtome.records import StageOutput
from microtome.studies.nuclear.subject import ARMS, Subject
from microtome.training.regression import Fitted

__all__ = ["PARTS", "holdout", "nearest"]

PARTS = ("training", "held-out")
NEIGHBOURS = 8


def holdout(subject: Subject, fitted: Mapping[str, Fitted]) -> StageOutput:
    """Errors of every arm's seeds, of formulas and of interpolation, on training and on held-out nuclei."""
    errors, residuals = [], {}
    draw = generator(subject.config.seed, "holdout")
    resampled = draw.integers(0, subject.held.sum(), (subject.config.reading.draws * 5, int(subject.held.sum())))
    rows, headline = [], {}
    for name, found in fitted.items():
        arm = subject.arms["direct" if name == "untrained" else name]
        residuals[name] = arm.truth - arm.predict(found)
        errors += _by_seed(subject, name, residuals[name])
        rows.append(_row(ARMS[name], "network", residuals[name][:, subject.held], resampled))
        headline[name] = _middle(residuals[name][:, subject.held])
    for name, predicted in _baselines(subject).items():
        left = (subject.table.binding - predicted)[None]
        errors += _by_seed(subject, name, left)
        rows.append(_row(name, "formula", left[:, subject.held], resampled))
    return StageOutput(
        tables={"errors": errors, "holdout": rows, "nuclides": _nuclides(subject, residuals, headline)},
        values={f"headline_{name}": place for name, place in headline.items()},
    )


def _by_seed(subject: Subject, arm: str, residuals: Float[np.ndarray, "seed nucleus"]) -> list[dict]:
    rows = []
    for part, mask in zip(PARTS, (subject.train, subject.held), strict=True):
        for seed, left in enumerate(residuals[:, mask]):
            found = mass_errors(left)
            rows.append({"arm": arm, "part": part, "seed": seed, "rms": found.rms, "median": found.median,
                         "trimmed": found.trimmed, "n": found.nuclei})  # fmt: skip
    return rows


def _row(label: str, kind: str, left: Float[np.ndarray, "seed held"], resampled: Int[np.ndarray, "draw held"]) -> dict:
    each = [mass_errors(x) for x in left]
    rms = np.array([e.rms for e in each])
    drawn = np.median(np.sqrt(np.square(left)[:, resampled].mean(-1)), axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "label": label,
        "kind": kind,
        "rms": float(np.median(rms)),
        "low": float(low),
        "high": float(high),
        "best_seed": float(rms.min()),
        "worst_seed": float(rms.max()),
        "ensemble": mass_errors(left.mean(0)).rms,
        "median": float(np.median([e.median for e in each])),
        "trimmed": float(np.median([e.trimmed for e in each])),
        "seeds": len(left),
        "n": left.shape[1],
    }


def _middle(left: Float[np.ndarray, "seed held"]) -> int:
    """Return the seed whose error is the median one (of an even number, the better of the two)."""
    rank = np.square(left).mean(1).argsort(kind="stable")
    return int(rank[(len(rank) - 1) // 2])


def _baselines(subject: Subject) -> dict[str, Float[np.ndarray, "nucleus"]]:
    z, n, fits = subject.table.z, subject.table.n, subject.formulas
    return {
        "SEMF, fitted": fits["semf"].binding(z, n),
        "BW2, fitted": fits["bw2"].binding(z, n),
        "SEMF, literature": SEMF.binding(z, n),
        "BW2, literature": BW2.binding(z, n),
        "SEMF + nearest": nearest(subject, "semf"),
        "BW2 + nearest": nearest(subject, "bw2"),
    }


def nearest(subject: Subject, formula: str) -> Float[np.ndarray, "nucleus"]:
    """Return a formula corrected by its mean residual at the nearest training nuclei, the nucleus itself left out."""
    from scipy.spatial import KDTree

    table, train = subject.table, np.flatnonzero(subject.train)
    places = np.stack([table.z, table.n], 1).astype(float)
    known = subject.formulas[formula].binding(table.z, table.n)
    left = (table.binding - known)[train]
    distance, which = KDTree(places[train]).query(places, NEIGHBOURS + 1)
    weight = np.where(distance > 0, 1 / np.maximum(distance, 1e-9) ** 2, 0.0)
    return known + (weight * left[which]).sum(1) / weight.sum(1)


def _nuclides(
    subject: Subject, residuals: Mapping[str, Float[np.ndarray, "seed nucleus"]], headline: Mapping[str, int]
) -> list[dict]:
    table = subject.table
    semf = table.binding - subject.formulas["semf"].binding(table.z, table.n)
    part = np.where(subject.held, "held-out", np.where(subject.train, "training", "inner held-out"))
    shown = {name: left[headline[name]] for name, left in residuals.items() if name in ("residual", "direct")}
    return [
        {
            "nucleus": table.label(i),
            "z": int(table.z[i]),
            "n": int(table.n[i]),
            "part": str(part[i]),
            "binding": float(table.binding[i]),
            "semf": float(semf[i]),
            **{name: float(left[i]) for name, left in shown.items()},
        }
        for i in range(len(table))
    ]
