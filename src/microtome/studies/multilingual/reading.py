"""What each part of the model matters to the loss in each language: |h dL/dh| by layer and component, beside its nulls.

The report (arXiv 2408.06273, section 6.1) sums over all tokens and neurons; here over neurons, a mean over tokens, so
that languages compare, and each layer's share of a language's sum, so that losses of different size compare. Intervals
resample sentences. Beside the trained model stands an untrained one: its shares are what the architecture alone gives.
Whether the first-order estimate is right is asked of neurons drawn at random, set to 0 one by one.
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
from microtome.engine.gradients import gradients
from microtome.engine.sweep import sweep
from microtome.measures.importance import TextLoss, importance_by_group
from microtome.models.model import Model
from microtome.records import StageOutput, Told
from microtome.studies.multilingual.analysis import COMPONENTS, THIRDS, Analysis, thirds
from microtome.studies.multilingual.sentences import Reading, Sentences, resampled, spread, tokenised, twin_of

__all__ = ["NEURONS", "Weighed", "importance", "weigh"]

NEURONS = "blocks.*.mlp.neurons"


@dataclass(frozen=True, eq=False)
class Weighed:
    """What the parts of a model matter.

    Attributes:
        places: (block, component) of each site, in the order of the columns.
        sums: over a sentence's tokens and a site's units, [languages, sentences, sites].
        losses: summed loss, [languages, sentences].
        tokens: that have a loss, [languages, sentences].
        neurons: mean over tokens for each MLP neuron of all blocks, [languages, neurons].
        widths: site -> units, of every site.
    """

    places: Sequence[tuple[int, str]]
    sums: np.ndarray
    losses: np.ndarray
    tokens: np.ndarray
    neurons: np.ndarray
    widths: Mapping[Site, int]

    def means(self, counts: np.ndarray) -> np.ndarray:
        """Return each site's importance per token under every resample, [languages, 1 + draws, sites]."""
        return (counts @ self.sums) / (counts @ self.tokens[..., None])

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """Return each site's share of its language's whole under every resample, [languages, 1 + draws, sites]."""
        found = self.means(counts)
        return found / found.sum(-1, keepdims=True)


def importance(model: Model, texts: Mapping[str, Sequence[str]], knobs: Analysis, told: Told) -> StageOutput:
    """Weigh the parts of a model in every language, on the discovery half.

    Args:
        model: a causal language model with a tokenizer.
        texts: language -> parallel sentences.
        knobs: of the analysis.
        told: takes the share done.

    Raises:
        DataError: sentences that cannot be used (see `tokenised`), or none of the components is there.
        SiteError: no such component, or a model without single neurons.
        MeasureError: a loss that is not finite.
    """
    found = tokenised(model, texts, knobs)
    names, absent = _components(model, knobs)
    trained = weigh(model, found.read("discovery"), names, lambda x: told(0.3 * x))
    null = weigh(twin_of(model, knobs), found.read("discovery"), names, lambda x: told(0.3 + 0.3 * x))
    checks, agreeing = _check(model, found, trained, knobs, lambda x: told(0.6 + 0.4 * x))
    sites = [s for s in trained.widths if s.kind == "mlp.neurons"]
    return StageOutput(
        tables={
            **_tables(trained, null, found.languages, knobs),
            "importance_contrasts": _depth(trained, null, knobs),
            "importance_languages": _languages(trained, found.languages, knobs),
            "importance_check": checks,
            "importance_agreement": agreeing,
        },
        arrays={"importance_neurons": trained.neurons},
        values={
            "languages": list(found.languages),
            "components": list(names),
            "absent_components": absent,
            "importance_sentences": trained.sums.shape[1],
            "importance_tokens": int(trained.tokens.sum()),
            "neuron_sites": [str(s) for s in sites],
            "neuron_widths": [trained.widths[s] for s in sites],
        },
    )


def weigh(model: Model, reading: Reading, components: Sequence[str], told: Told) -> Weighed:
    """Return what the named parts of every block matter in each language, and every MLP neuron beside them."""
    languages = int(reading.language.max()) + 1
    groups = torch.eye(languages)[torch.from_numpy(reading.language)]
    wanted = [f"blocks.*.{c}" for c in dict.fromkeys([*components, "mlp.neurons"])]
    batches = len(reading.parts)
    found = importance_by_group(model, reading.batches(model), wanted, groups, told=lambda done: told(done / batches))
    kept = [s for s in found.texts if s.kind in components]
    kept.sort(key=lambda s: (s.block, list(components).index(s.kind)))
    stacked = np.stack([found.texts[s].numpy() for s in kept], 1)
    neurons = [found.sites[s].numpy() for s in sorted(found.sites) if s.kind == "mlp.neurons"]
    return Weighed(
        [(s.block, s.kind) for s in kept],
        reading.square(stacked, languages),
        reading.square(found.losses.numpy(), languages),
        reading.square(found.tokens.numpy().astype(np.float64), languages),
        np.concatenate(neurons, 1),
        {s: found.sites[s].shape[1] for s in sorted(found.sites)},
    )


def _depth(trained: Weighed, null: Weighed, knobs: Analysis) -> list[dict]:
    """Return what the report says of depth, each mean over languages, with the twin's.

    Args:
        trained: the model.
        null: its untrained twin.
        knobs: of the analysis.
    """
    values = {"untrained": _contrasts(null, knobs), "trained": _contrasts(trained, knobs)}
    n = trained.sums.shape[1]
    return [
        {"contrast": name, **spread(x, n), "untrained": float(values["untrained"][name][0])}
        for name, x in values["trained"].items()
    ]


def _contrasts(weighed: Weighed, knobs: Analysis) -> dict[str, np.ndarray]:
    n = weighed.sums.shape[1]
    shares = weighed.shares(resampled(n, knobs.draws, "importance", seed=knobs.seed)).mean(0)
    blocks = np.array([b for b, _ in weighed.places])
    depth = thirds(blocks.max() + 1)[blocks]
    of = np.array([c.split(".")[0] for _, c in weighed.places])
    by_third = {name: shares[:, depth == k].sum(1) for k, name in enumerate(THIRDS)}
    found = {f"{name} of the depth": x for name, x in by_third.items()}
    if len(np.unique(depth)) < 3:
        return found
    found["last third less first"] = by_third[THIRDS[2]] - by_third[THIRDS[0]]
    if {"attn", "mlp"} <= set(of):
        inside = [
            shares[:, (depth == k) & (of == "mlp")].sum(1) / np.maximum(by_third[name], 1e-300)
            for k, name in enumerate(THIRDS)
        ]
        found["MLP's part, first third less last"] = inside[0] - inside[2]
    return found


def _components(model: Model, knobs: Analysis) -> tuple[list[str], list[str]]:
    """Return the components that the model has, and those of the usual eight that it lacks."""
    here = {s.kind for s in model.sites}
    absent = [c for c in knobs.components if c in COMPONENTS and c not in here]
    named = [c for c in dict.fromkeys(knobs.components) if c not in absent]
    for name in named:
        model.select(f"blocks.*.{name}")
    if not named:
        raise DataError(f"Components {', '.join(absent)} were asked for, '{model.name}' has none of them; name others.")
    return named, absent


def _tables(trained: Weighed, null: Weighed, languages: Sequence[str], knobs: Analysis) -> dict[str, list[dict]]:
    """Return importance by layer, component and language; by layer and language; by layer and component."""
    n = trained.sums.shape[1]
    counts = resampled(n, knobs.draws, "importance", seed=knobs.seed)
    means, shares = trained.means(counts), trained.shares(counts)
    empty = null.shares(counts[:1])[:, 0]
    whole, by_layer, by_part = [], [], []
    for i, (block, component) in enumerate(trained.places):
        for a, language in enumerate(languages):
            own = {"layer": block, "component": component, "language": language}
            share = {"share": float(shares[a, 0, i]), "untrained_share": float(empty[a, i])}
            whole.append(own | spread(means[a, :, i], n, "importance") | share)
        row = {"layer": block, "component": component, **spread(shares[..., i].mean(0), n, "share")}
        by_part.append(row | {"untrained": float(empty[:, i].mean())})
    blocks = np.array([b for b, _ in trained.places])
    for block in np.unique(blocks):
        here = blocks == block
        for a, language in enumerate(languages):
            row = {"layer": int(block), "language": language, **spread(shares[a][:, here].sum(1), n, "share")}
            row |= {"importance": float(means[a, 0, here].sum()), "untrained": float(empty[a, here].sum())}
            by_layer.append(row | {"average_untrained": float(empty[:, here].sum(1).mean())})
    return {"importance": whole, "importance_layers": by_layer, "importance_parts": by_part}


def _languages(trained: Weighed, languages: Sequence[str], knobs: Analysis) -> list[dict]:
    """Return each language's whole importance beside its loss and how many tokens a sentence takes."""
    n = trained.sums.shape[1]
    counts = resampled(n, knobs.draws, "importance", seed=knobs.seed)
    means = trained.means(counts).sum(-1)
    return [
        {
            "language": language,
            **spread(means[a], n, "importance"),
            "loss": float(trained.losses[a].sum() / trained.tokens[a].sum()),
            "tokens_a_sentence": float(trained.tokens[a].mean()),
        }
        for a, language in enumerate(languages)
    ]


def _check(
    model: Model, found: Sentences, trained: Weighed, knobs: Analysis, told: Told
) -> tuple[list[dict], list[dict]]:
    """Return random neurons with their importance, first-order effect and exact effect of 0; and how far they agree."""
    rng = generator(knobs.seed, "checked neurons")
    space = {s: w for s, w in trained.widths.items() if s.kind == "mlp.neurons"}
    edges = np.cumsum([0, *space.values()])
    chosen = np.sort(rng.permutation(edges[-1])[: knobs.checked])
    owner = np.searchsorted(edges, chosen, side="right") - 1
    named = [(list(space)[o], int(c - edges[o])) for o, c in zip(owner, chosen, strict=True)]
    reading = _few(found.read("discovery"), knobs.check_sentences, rng)
    cells = [ablate(Units({site: [unit]})) for site, unit in named]
    exact, linear, count = [], [], len(reading.parts)
    for done, batch in enumerate(reading.batches(model), 1):
        metric = TextLoss(batch)
        swept = sweep(model, batch, cells, metric, memory_budget=knobs.memory_budget)
        exact.append((swept.effects - swept.base).double().cpu().numpy())
        slopes = gradients(model, batch, NEURONS, metric)
        product = {s: -(slopes.values[s] * slopes.grads[s]).sum(1).double().cpu().numpy() for s in space}
        linear.append(np.stack([product[site][:, unit] for site, unit in named]))
        told(done / count)
    sizes = np.abs(np.concatenate(exact, 1)).mean(1), np.abs(np.concatenate(linear, 1)).mean(1)
    weight = trained.neurons.mean(0)[chosen]
    n = len(reading.rows)
    rows = [
        {"neuron": f"{s} {u}", "layer": s.block, "importance": float(weight[i]), "first_order": float(sizes[1][i]),
         "exact": float(sizes[0][i]), "n": n}
        for i, (s, u) in enumerate(named)
    ]  # fmt: skip
    return rows, _agreement(rows, knobs)


def _few(reading: Reading, most: int, rng: np.random.Generator) -> Reading:
    """Return some texts of all languages, drawn at random."""
    kept = np.sort(rng.permutation(len(reading.rows))[:most])
    rows = [reading.rows[i] for i in kept]
    return Reading(rows, reading.language[kept], reading.sentence[kept], reading.sentences, reading.limit)


def _agreement(rows: list[dict], knobs: Analysis) -> list[dict]:
    """Return the rank correlation of each estimate with the exact effect: neurons resampled, and shuffled."""
    from scipy.stats import rankdata

    rng, out, n = generator(knobs.seed, "agreement"), [], len(rows)
    exact = np.array([r["exact"] for r in rows])
    draws = [np.arange(n), *rng.integers(0, n, (knobs.draws, n))]
    for name in ("importance", "first_order"):
        x = np.array([r[name] for r in rows])
        found = np.array([_correlation(rankdata(x[d]), rankdata(exact[d])) for d in draws])
        ranks = rankdata(x), rankdata(exact)
        null = [abs(_correlation(ranks[0], rng.permutation(ranks[1]))) for _ in range(knobs.draws)]
        out.append({"estimate": name, **spread(found, n, "spearman"), "shuffled": float(np.quantile(null, 0.95))})
    return out


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of two samples; 0 where one does not vary."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / size) if size > 0 else 0.0
