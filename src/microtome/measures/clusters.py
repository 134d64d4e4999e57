"""Layer experts by clustering (EigenShift's RQ2, arXiv 2509.16660, Algorithm 3): does 2-means find the two classes?

Features of one layer, [items, d], are clustered without labels into two; the cluster is then read as a prediction, the
clusters named so that it fits best. The paper calls the result AUROC: of a prediction of 0s and 1s it is the balanced
accuracy. There is no held-out data, and naming the clusters by the labels lifts chance above 1/2. So beside the score
stands its exact null: labels shuffled over fixed clusters make a hypergeometric table, summed up rather than drawn.
What two classes of other lengths, or another confound, would give the same way, `readouts` shows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from microtome.core.errors import MeasureError
from microtome.measures.arrays import two_classes, unit_matrix

__all__ = ["ClusterExpert", "cluster_expert"]


@dataclass(frozen=True)
class ClusterExpert:
    """How well two clusters of a layer's features fit the labels.

    Args:
        auroc: of the hard prediction, which is its balanced accuracy; at least 1/2 by the naming of the clusters.
        average_precision: of the hard prediction.
        precision: of class 1.
        recall: of class 1.
        f1: of class 1.
        f1_macro: mean of both classes' F1.
        silhouette: mean silhouette width of the clusters, -1 to 1; knows no labels.
        chance: mean `auroc` if labels had nothing to do with the clusters.
        p: chance of at least this `auroc` then.
        sizes: items of the cluster named 0 and of that named 1.
    """

    auroc: float
    average_precision: float
    precision: float
    recall: float
    f1: float
    f1_macro: float
    silhouette: float
    chance: float
    p: float
    sizes: tuple[int, int]


def cluster_expert(features: Any, labels: Any, *, seed: int, silhouette_items: int = 2000) -> ClusterExpert:
    """Return how well 2-means on a layer's features finds the labels.

    Args:
        features: [items, d].
        labels: 0 or 1 per item.
        seed: of the clustering (best of 10 starts) and of the items drawn for the silhouette.
        silhouette_items: most items the silhouette looks at; its cost is their number squared.

    Raises:
        MeasureError: missing values, a single class, or features that are all the same.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    x = unit_matrix(features, "Features")
    positive = two_classes(labels, len(x))
    if len(x) < 3 or (x == x[0]).all():
        raise MeasureError(f"Features of {len(x)} items do not fall into two clusters; give items that differ.")
    cluster = KMeans(2, n_init=10, random_state=seed).fit_predict(x).astype(bool)
    if _balanced(cluster, positive) < 0.5:
        cluster = ~cluster
    chosen = np.random.default_rng(seed).permutation(len(x))[:silhouette_items]
    chosen = np.union1d(chosen, [cluster.argmax(), cluster.argmin()])  # a tiny cluster has at least one item in it
    hits, named, n1 = int((cluster & positive).sum()), int(cluster.sum()), int(positive.sum())
    misses = int((~cluster & ~positive).sum())
    precision, recall = hits / named, hits / n1
    f1, f1_zero = 2 * hits / (named + n1), 2 * misses / (2 * len(x) - named - n1)
    chance, p = _null(_balanced(cluster, positive), len(x), n1, named)
    return ClusterExpert(
        auroc=_balanced(cluster, positive),
        average_precision=recall * precision + (1 - recall) * n1 / len(x),
        precision=precision,
        recall=recall,
        f1=f1,
        f1_macro=(f1 + f1_zero) / 2,
        silhouette=float(silhouette_score(x[chosen], cluster[chosen])),
        chance=chance,
        p=p,
        sizes=(len(x) - named, named),
    )


def _balanced(cluster: np.ndarray, positive: np.ndarray) -> float:
    return float((cluster[positive].mean() + (~cluster)[~positive].mean()) / 2)


def _null(observed: float, n: int, n1: int, named: int) -> tuple[float, float]:
    """Mean, and chance of at least the observed, of the better balanced accuracy over hypergeometric tables."""
    from scipy.stats import hypergeom

    hits = np.arange(max(0, named + n1 - n), min(named, n1) + 1)
    balanced = (hits / n1 + 1 - (named - hits) / (n - n1)) / 2
    better, chances = np.maximum(balanced, 1 - balanced), hypergeom.pmf(hits, n, n1, named)
    return float((better * chances).sum()), float(min(1.0, chances[better >= observed - 1e-12].sum()))
