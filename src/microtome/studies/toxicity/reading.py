"""Steps that read: what single neurons (RQ1) and whole layers (RQ2) tell of two classes of texts, beside their nulls.

Activations are pooled over tokens onto disk once, in a folder beside the record; neurons of all sites form one matrix
[neuron, text]. Beside the trained model stands an untrained one of the same shape, and beside every area the length of
the texts, which alone tells classes apart where toxic texts are longer or shorter.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from microtome.core.seeds import derive, generator
from microtome.data.labelled import LabelledSet
from microtome.engine.pooled import PooledRows, PooledStore, pool
from microtome.measures.clusters import cluster_expert
from microtome.measures.expertise import delong
from microtome.measures.leace_rank import leace_rank
from microtome.measures.placements import areas, layout
from microtome.measures.readouts import halves, length_readout, readouts, words_readout
from microtome.measures.screening import Screen, screen
from microtome.measures.stability import agreement, split_half
from microtome.measures.strata import length_strata
from microtome.models.digest import weights_digest
from microtome.models.model import Model
from microtome.records import Stage, StageOutput, Told
from microtome.studies.toxicity.subject import Subject

__all__ = ["Stacked", "areas_by_site", "describe", "layers", "neuron_sites", "neurons", "texts"]

THRESHOLDS = (0.50, 0.51, 0.52, 0.55)
"""Of Table 3 of the paper."""

BINS = np.linspace(0, 1, 51)
NEURONS, STREAM = "blocks.*.mlp.neurons", "blocks.*.resid_post"


def describe(subject: Subject) -> StageOutput:
    """What is studied: sizes, type, a digest of the weights, whether the head is the embedding."""
    model = subject.model
    head = model.module.get_submodule(model.anatomy.head).weight
    embed = model.module.get_input_embeddings().weight if hasattr(model.module, "get_input_embeddings") else None
    return StageOutput(
        values={
            "model_digest": weights_digest(model.module),
            "blocks": len(model.anatomy.blocks),
            "width": model.anatomy.d_model,
            "vocabulary": head.shape[0],
            "tied": embed is not None and embed.data_ptr() == head.data_ptr(),
            "parameters": sum(p.numel() for p in model.module.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        }
    )


def texts(subject: Subject) -> StageOutput:
    """The texts: how many of each class, what was left out, how long they are, and what length alone tells."""
    rows, unknown = [], getattr(subject.model.tokenizer, "unk_token_id", None)
    for name, found in _sets(subject).items():
        ids = subject.rows(found.texts)
        lengths, labels = np.array([len(row) for row in ids]), found.labels
        alone = delong(lengths, labels)
        rows.append(
            {
                "texts": name,
                "source": found.source,
                "toxic": int(labels.sum()),
                "other": int((labels == 0).sum()),
                "left_out": found.account,
                "tokens_toxic": float(np.median(lengths[labels == 1])),
                "tokens_other": float(np.median(lengths[labels == 0])),
                "length_area": float(alone.area[0]),
                "length_low": float(alone.low[0]),
                "length_high": float(alone.high[0]),
                "unknown": float(np.mean([t == unknown for row in ids for t in row])) if unknown is not None else 0.0,
            }
        )
    return StageOutput(tables={"texts": rows})


def _sets(subject: Subject) -> dict[str, LabelledSet]:
    sources = subject.sources
    return dict(sources.halves) | ({"other": sources.other} if sources.other is not None else {})


@dataclass(frozen=True)
class Stacked:
    """Pooled matrices of several sites as one, [neuron, text], read from disk as it is sliced."""

    parts: tuple[PooledRows, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Neurons and texts."""
        return sum(len(p) for p in self.parts), self.parts[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, units: slice) -> np.ndarray:
        start, stop, step = units.indices(len(self))
        edges = np.cumsum([0, *(len(p) for p in self.parts)])
        held = [
            part[max(start - low, 0) : min(stop, high) - low]
            for part, (low, high) in zip(self.parts, pairwise(edges), strict=True)
            if start < high and stop > low
        ]
        return (np.concatenate(held) if held else self.parts[0][0:0])[::step]


def _pooled(
    subject: Subject, model: Model, found: LabelledSet, sites: str, how: Sequence[str], folder: Path, told: Told
) -> PooledStore:
    """Return the pooled activations of some texts, made or as they are on disk."""
    rows = subject.rows(found.texts)
    batches = subject.batches(rows, model)
    named = f"{weights_digest(model.module)} {sites} {list(how)} {rows}"
    path = folder / hashlib.blake2b(named.encode(), digest_size=8).hexdigest()
    skip = int(all(row[0] == getattr(model.tokenizer, "bos_token_id", None) for row in rows))
    return pool(model, batches, sites, path, how=how, skip=skip, progress=lambda done, _, __: told(done / len(batches)))


def neuron_sites(subject: Subject) -> list[str]:
    """Return the sites of all MLP neurons."""
    return [str(info.site) for info in subject.model.select(NEURONS)]


def _stacked(store: PooledStore, how: str) -> Stacked:
    return Stacked(tuple(store.rows(site, how) for site in store.sites))


def neurons(subject: Subject, folder: Path, told: Told) -> StageOutput:
    """RQ1: every neuron's area, within strata of length and without, and whether the same neurons are found again."""
    config, found = subject.config.neurons, subject.sources.halves["discovery"]
    store = _pooled(subject, subject.model, found, NEURONS, config.poolings, folder, lambda x: told(0.2 * x))
    twin = _pooled(subject, subject.twin, found, NEURONS, config.poolings[:1], folder, lambda x: told(0.2 + 0.1 * x))
    how, labels, lengths = config.poolings[0], found.labels, store.lengths
    matrix, strata = _stacked(store, how), length_strata(store.lengths)
    seen = screen(matrix, labels, lengths=lengths)
    null = screen(_stacked(twin, how), labels, lengths=lengths)
    mixed = _mixed(labels, strata, generator(subject.config.seed, "mixed"))
    shuffled = screen(matrix, mixed, lengths=lengths)
    told(0.5)
    k = max(1, round(config.top * len(matrix)))
    halved = split_half(
        matrix, labels, k=k, rng=generator(subject.config.seed, "split half"), strata=strata, draws=config.draws
    )
    told(0.8)
    agreeing = [_row("other half of the texts", halved.observed, halved.null, halved.p_spearman, halved.p_jaccard)]
    for other in config.poolings[1:]:
        there = areas(_stacked(store, other), layout(labels, strata=strata))
        agreeing.append(_row(f"{other} instead of {how} over tokens", agreement(seen.ranking.area, there, k=k)))
    agreeing += _elsewhere(subject, folder, seen, k)
    told(1.0)
    kinds = {
        "within lengths": seen.ranking,
        "over all texts": seen.unadjusted,
        "labels shuffled": shuffled.ranking,
        "untrained model": null.ranking,
    }
    return StageOutput(
        tables={
            "shares": _shares(kinds),
            "histogram": _histogram(kinds),
            "stability": agreeing,
            "top_neurons": _top(store, seen),
        },
        arrays={"area": seen.ranking.area, "area_unadjusted": seen.unadjusted.area, "q": seen.ranking.q},
        values={
            "neurons": len(matrix),
            "sites": [str(s) for s in store.sites],
            "widths": list(store.sites.values()),
            "top_k": k,
            "strata": seen.strata,
            "screened_toxic": seen.positives,
            "screened_other": seen.negatives,
            "null_maximum": seen.ranking.null_maximum,
            "best_area": float(seen.ranking.strength.max()),
            "untrained_best_area": float(null.ranking.strength.max()),
            "mean_area": float(seen.ranking.area.mean()),
            "mean_area_unadjusted": float(seen.unadjusted.area.mean()),
        },
    )


def areas_by_site(screened: Stage) -> dict[str, np.ndarray]:
    """Return site -> AUROC of each neuron within strata of length."""
    widths = screened.value("widths")
    parts = np.split(screened.array("area"), np.cumsum(widths)[:-1])
    return dict(zip(screened.value("sites"), parts, strict=True))


def _mixed(labels: np.ndarray, strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the labels shuffled within strata."""
    mixed = labels.copy()
    for stratum in np.unique(strata):
        held = np.flatnonzero(strata == stratum)
        mixed[held] = labels[rng.permutation(held)]
    return mixed


def _elsewhere(subject: Subject, folder: Path, seen: Screen, k: int) -> list[dict]:
    """Return how far the areas agree with those of another data set."""
    other, how = subject.sources.other, subject.config.neurons.poolings[:1]
    if other is None:
        return []
    store = _pooled(subject, subject.model, other, NEURONS, how, folder, lambda _: None)
    there = screen(_stacked(store, how[0]), other.labels, lengths=store.lengths)
    return [
        _row("another data set, within lengths", agreement(seen.ranking.area, there.ranking.area, k=k)),
        _row("another data set, over all texts", agreement(seen.unadjusted.area, there.unadjusted.area, k=k)),
    ]


def _row(against, found, null=None, p_spearman=None, p_jaccard=None) -> dict:
    """Return one line of the stability table; `null` holds Spearman and Jaccard under shuffled labels, [draws, 2]."""
    high = [float(x) for x in np.quantile(null, 0.95, axis=0)] if null is not None else [0.0, found.chance]
    return {
        "against": against,
        "spearman": found.spearman,
        "spearman_null": high[0],
        "p_spearman": p_spearman,
        "jaccard": found.jaccard,
        "jaccard_null": high[1],
        "p_jaccard": found.p if p_jaccard is None else p_jaccard,
        "null": "labels shuffled, 95th percentile" if null is not None else "neurons renumbered, mean",
        "k": found.k,
        "n": found.units,
    }


def _shares(kinds: Mapping) -> list[dict]:
    """Return the share of neurons above each of the paper's thresholds, one-sided as there and two-sided, and by q."""
    return [
        {
            "kind": name,
            "threshold": threshold,
            "above": float((ranking.area > threshold).mean()),
            "either_side": float((ranking.strength > threshold - 0.5).mean()),
            "significant": float((ranking.q < 0.05).mean()),
            "n": len(ranking.area),
        }
        for name, ranking in kinds.items()
        for threshold in THRESHOLDS
    ]


def _histogram(kinds: Mapping) -> list[dict]:
    middles = (BINS[1:] + BINS[:-1]) / 2
    return [
        {"kind": name, "area": float(x), "share": float(count / len(ranking.area)), "n": len(ranking.area)}
        for name, ranking in kinds.items()
        for x, count in zip(middles, np.histogram(ranking.area, BINS)[0], strict=True)
    ]


def _top(store: PooledStore, seen: Screen, most: int = 40) -> list[dict]:
    sites = [str(s) for s in store.sites]
    edges = np.cumsum([0, *store.sites.values()])
    rows = []
    for unit in seen.ranking.top(most):
        site = int(np.searchsorted(edges, unit, side="right") - 1)
        rows.append(
            {
                "neuron": f"{sites[site]} {unit - edges[site]}",
                "area": float(seen.ranking.area[unit]),
                "low": float(seen.ranking.low[unit]),
                "high": float(seen.ranking.high[unit]),
                "q": float(seen.ranking.q[unit]),
                "unadjusted": float(seen.unadjusted.area[unit]),
                "precision": float(seen.precision[unit]),
                "n": seen.positives + seen.negatives,
            }
        )
    return rows


def layers(subject: Subject, screened: Stage, folder: Path, told: Told) -> StageOutput:
    """RQ2: what each layer tells: by 2-means as in the paper; held out, by supervised readouts and their baselines."""
    found, seed = subject.sources.halves["discovery"], subject.config.seed
    labels = found.labels
    split = halves(labels, seed=derive(seed, "layer halves") % 2**32)
    rows, lengths, blocks = [], None, len(subject.model.anatomy.blocks)
    for k, (kind, model) in enumerate({"trained": subject.model, "untrained": subject.twin}.items()):
        store = _pooled(subject, model, found, STREAM, ("mean",), folder, lambda _: None)
        lengths = store.lengths
        for i, site in enumerate(store.sites):
            features = store.rows(site)[:].T.astype(np.float64)
            rows += _layer(subject, kind, i, features, labels, lengths, split)
            told((k + (i + 1) / blocks) / 2)
    alone = {
        "length": length_readout(lengths, labels, split),
        "bag of words": words_readout(found.texts, labels, split),
        "bag of characters": words_readout(found.texts, labels, split, characters=True),
    }
    rows += [_read("none", name, -1, x, "") for name, x in alone.items()]
    return StageOutput(
        tables={"layers": rows, "by_depth": [r for r in rows if r["block"] >= 0]},
        values={
            # the paper's neuron baseline: an average over neurons, over all texts
            "average_neuron": float(screened.array("area_unadjusted").mean()),
            "layer_texts": len(labels),
            "scored_texts": len(split.score),
        },
    )


def _layer(subject: Subject, kind: str, block: int, features: np.ndarray, labels, lengths, split) -> list[dict]:
    rows = [_read(kind, name, block, x, "") for name, x in readouts(features, labels, split).items()]
    residual = readouts(features, labels, split, lengths=lengths, names=("probe",))["probe"]
    rows.append(_read(kind, "probe, length taken out", block, residual, ""))
    seed = derive(subject.config.seed, "clusters", block) % 2**32
    two = cluster_expert(features, labels, seed=seed)
    shares = np.array([two.recall, 2 * two.auroc - two.recall])  # sensitivity, specificity
    spread = 1.96 / 2 * np.sqrt((shares * (1 - shares) / [labels.sum(), (labels == 0).sum()]).sum())
    told = f"silhouette {two.silhouette:.2f}, chance {two.chance:.3f}, p {two.p:.3f}, F1 {two.f1:.2f}"
    low, high = max(0.0, two.auroc - spread), min(1.0, two.auroc + spread)
    rows.append({"model": kind, "readout": "2-means (paper)", "block": block, "area": two.auroc, "low": low,
                 "high": high, "n": len(labels), "chance": two.chance, "told": told})  # fmt: skip
    rank = leace_rank(features, labels, rng=generator(subject.config.seed, "leace rank", block), draws=40)
    rows[-1]["told"] += f"; LEACE: canonical correlation {rank.correlations[0]:.2f}, by chance {rank.chance:.2f}"
    return rows


def _read(kind: str, name: str, block: int, found, told: str) -> dict:
    return {"model": kind, "readout": name, "block": block, "area": found.estimate, "low": found.low,
            "high": found.high, "n": found.n, "chance": 0.5, "told": told}  # fmt: skip
