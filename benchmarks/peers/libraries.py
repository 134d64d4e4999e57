"""What scikit-learn, torch and NumPy offer by themselves for the toxicity study's work; they stand in our environment.

The first candidate of a metric is the unit. scikit-learn is timed on some neurons, each costing the same.
"""

from collections.abc import Callable, Sequence

import numpy as np
import sklearn
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.peers.plain_toxicity import Screened

__all__ = ["SAMPLES", "auroc", "head_basis"]

SAMPLES = {"areas": 300, "areas within lengths": 12, "screen": 12}  # neurons given to scikit-learn
CHUNK = 256  # neurons that torch sorts at a time
SKLEARN, TORCH, NUMPY = (f"{m} {v}" for m, v in (
    ("scikit-learn", sklearn.__version__), ("torch", torch.__version__.split("+")[0]), ("numpy", np.__version__)
))  # fmt: skip


def auroc(texts: Screened) -> list[Candidate]:
    """roc_auc_score of each neuron, within each length too; torch's sort and searchsorted for chunks of neurons."""
    everywhere, strata = [np.arange(len(texts.labels))], texts.strata()
    return [
        _each_neuron(texts, "areas", lambda row: {"areas": _area(texts.labels, row, everywhere)}),
        _sorting(texts, "areas", everywhere),
        _each_neuron(texts, "areas within lengths", lambda row: {"areas": _area(texts.labels, row, strata)}),
        _sorting(texts, "areas within lengths", strata),
        _each_neuron(texts, "screen", lambda row: {
            "areas": _area(texts.labels, row, everywhere),
            "within": _area(texts.labels, row, strata),
            "precision": average_precision_score(texts.labels, row),
        }),
    ]  # fmt: skip


def _each_neuron(texts: Screened, metric: str, ask: Callable[[np.ndarray], dict[str, float]]) -> Candidate:
    chosen = texts.some(SAMPLES[metric])

    def run() -> dict[str, Tensor]:
        asked = [ask(texts.values[neuron].astype(float)) for neuron in chosen]
        return {name: torch.tensor([found[name] for found in asked]) for name in asked[0]}

    note = (
        f"{len(chosen)} of {len(texts.values)} neurons timed and scaled, in float64 where it is fastest, and compared"
    )
    return Candidate(f"{SKLEARN}, neuron by neuron", metric, run, note=note, share=len(chosen) / len(texts.values))


def _area(labels: np.ndarray, row: np.ndarray, groups: Sequence[np.ndarray]) -> float:
    """Return the area over the pairs within groups."""
    pairs = [labels[g].sum() * (len(g) - labels[g].sum()) for g in groups]
    return float(np.average([roc_auc_score(labels[g], row[g]) for g in groups], weights=pairs))


def _sorting(texts: Screened, metric: str, groups: Sequence[np.ndarray]) -> Candidate:
    values, chosen = torch.from_numpy(texts.values), texts.some(SAMPLES[metric])
    sides = [[torch.from_numpy(g[texts.labels[g] == side]) for side in (1, 0)] for g in groups]

    def run() -> Tensor:
        return torch.cat([_sorted_area(rows.float(), sides) for rows in values.split(CHUNK)])

    name = f"{TORCH}, sort and searchsorted, {CHUNK} neurons at a time"
    return Candidate(name, metric, run, lambda areas: {"areas": areas[chosen]})


def _sorted_area(rows: Tensor, sides: Sequence[Sequence[Tensor]]) -> Tensor:
    won, pairs = 0, 0
    for ones, zeros in sides:
        positive, negative = rows[:, ones], rows[:, zeros].sort(1).values
        won += sum(torch.searchsorted(negative, positive, right=right).sum(1) for right in (False, True))
        pairs += 2 * len(ones) * len(zeros)
    return won / pairs


def head_basis(weight: Tensor) -> list[Candidate]:
    """The thin SVDs, whose left vectors an edit has no use for."""
    error = 1.0  # a projector's largest: it is told, not refused
    return [
        Candidate(f"{TORCH}, linalg.svd", "axes", lambda: torch.linalg.svd(weight, full_matrices=False)[2],
                  _columns, error, "float32"),
        Candidate(f"{NUMPY}, linalg.svd", "axes", lambda: np.linalg.svd(weight.cpu().numpy(), full_matrices=False)[2],
                  _columns, error, "computes in double, returns float32"),
    ]  # fmt: skip


def _columns(rows: Tensor | np.ndarray) -> dict[str, Tensor]:
    return {"axes": torch.as_tensor(rows).T}
