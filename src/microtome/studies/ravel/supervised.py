"""Featurizers from activations and the entities' values: PCA and SAE with selected features, probes, RLAP.

A sparse probe chooses among PCA's and the SAE's features (arXiv 2402.17700, appendix B); the others are subspaces of
their own. All see activations at the edited position of training pairs alone, one for each different prompt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from microtome.core.protocols import Featurizer
from microtome.core.seeds import derive, generator
from microtome.data.ravel import EntityTable
from microtome.features.logistic import LogisticFitter
from microtome.features.pca import PCAFitter
from microtome.features.probe import ProbeFitter, lda, mean_difference
from microtome.features.rlap import RLAPFitter
from microtome.features.selection import select_by_probe
from microtome.records import Told
from microtome.studies.ravel.config import Fitting
from microtome.studies.ravel.methods import Candidate
from microtome.studies.ravel.sides import Side
from microtome.training.sae import SAERecipe, fit_sae
from microtome.training.swaps import Swaps

__all__ = ["Labelled", "labelled_rows", "supervised"]

Found = Iterator[tuple[list[Candidate], dict[str, Featurizer]]]


class Labelled:
    """Activations of different prompts, with the entity each is about.

    Args:
        rows: [n, d].
        entities: the entity of each row.
    """

    def __init__(self, rows: Tensor, entities: Sequence[str]):
        self.rows, self.entities = rows, list(entities)

    def some(self, most: int, seed: int) -> "Labelled":
        """Return at most so many rows, drawn."""
        if len(self.entities) <= most:
            return self
        drawn = generator(seed, "probe rows").choice(len(self.entities), most, replace=False)
        return Labelled(self.rows[torch.as_tensor(drawn, device=self.rows.device)], [self.entities[i] for i in drawn])

    def classes(self, table: EntityTable, attribute: str) -> tuple[Tensor, int]:
        """Return the class of each row by an attribute's value, and how many there are."""
        values, codes = np.unique([table.value(e, attribute) for e in self.entities], return_inverse=True)
        return torch.as_tensor(codes), len(values)


def labelled_rows(side: Side, swaps: Sequence[Swaps]) -> Labelled:
    """Return the activation of every different prompt of a side, bases and sources, at the edited position."""
    found: dict[str, tuple[str, Tensor]] = {}
    for part in swaps:
        base, source = part.base.flatten(1), part.source.flatten(1)
        for row, number in enumerate(part.pairs.tolist()):
            if number < len(side):
                pair = side.pairs[number]
                found.setdefault(pair.base, (pair.groups["entity"], base[row]))
                found.setdefault(pair.source, (pair.groups["source_entity"], source[row]))
    order = sorted(found)
    return Labelled(torch.stack([found[t][1] for t in order]).float(), [found[t][0] for t in order])


def supervised(
    data: Labelled, table: EntityTable, targets: Sequence[str], fitting: Fitting, *, seed: int, told: Told
) -> Found:
    """Yield (candidates, the bases they name) of every method that learns from values.

    Args:
        data: activations of training prompts.
        table: the entities' values.
        targets: the attributes.
        fitting: settings to choose from.
        seed: of the autoencoder, RLAP and the choice of rows.
        told: called with the share done.
    """
    few = data.some(fitting.probe_rows, seed)
    labels = {t: few.classes(table, t) for t in targets}
    yield _selected("pca", _pca(data.rows), few, labels, fitting.costs)
    told(0.2)
    recipe = SAERecipe(k=fitting.sae_k, lr=fitting.sae_lr, epochs=fitting.sae_epochs)
    autoencoder = fit_sae(data.rows, recipe, seed=seed).basis
    told(0.4)
    yield _selected("sae", autoencoder, few, labels, fitting.costs)
    told(0.6)
    rules = {
        "mean_difference": lambda n: ProbeFitter(n, mean_difference),
        "lda": lambda n: ProbeFitter(n, partial(lda, shrinkage=0.3)),
        "logistic": lambda n: LogisticFitter(n, strength=1e-2),
    }
    for method, make in rules.items():
        yield _subspaces(method, "", make, few, labels)
    told(0.7)
    for k, rank in enumerate(fitting.ranks):

        def make(classes: int, rank: int = rank) -> RLAPFitter:
            return RLAPFitter(rank, classes, steps=fitting.rlap_steps, seed=derive(seed, "rlap"))

        yield _subspaces("rlap", f"rank {rank}", make, few, labels)
        told(0.7 + 0.3 * (k + 1) / len(fitting.ranks))


def _pca(rows: Tensor) -> Featurizer:
    fitter = PCAFitter(standardise=True)
    fitter.update(rows)
    return fitter.finish()


def _selected(
    method: str,
    basis: Featurizer,
    data: Labelled,
    labels: Mapping[str, tuple[Tensor, int]],
    costs: Sequence[float],
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return the features of one basis that a sparse probe of each attribute uses, at each cost."""
    features = basis.encode(data.rows).cpu()
    made = []
    for target, (classes, n) in labels.items():
        for cost in costs:
            units = select_by_probe(features, classes, n, C=cost, steps=400).tolist()
            made.append(Candidate(method, target, f"C {cost:g}", method, tuple(units), len(units)))
    return made, {method: basis}


def _subspaces(
    method: str,
    setting: str,
    make: Callable[[int], object],
    data: Labelled,
    labels: Mapping[str, tuple[Tensor, int]],
) -> tuple[list[Candidate], dict[str, Featurizer]]:
    """Return the subspace that a fitter finds for each attribute."""
    made, bases = [], {}
    for target, (classes, n) in labels.items():
        fitter = make(n)
        fitter.update(data.rows.cpu(), labels=classes)
        basis = fitter.finish()
        name = "-".join(filter(None, (method, setting.replace(" ", ""), target.replace(" ", "_"))))
        bases[name] = basis
        made.append(Candidate(method, target, setting, name, None, basis.n_features))
    return made, bases
