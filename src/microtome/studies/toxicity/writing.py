"""Steps that write (RQ3): is what detects what generates? Every neuron and direction gets both scores.

    detection    |AUROC - 1/2| over texts, within strata of length                    (of a direction: over places)
    generation   fall of P(flagged word) where one comes next, with the neuron at 0     (of a direction: its benefit)

A neuron's generation score is exact, from a sweep that sets one neuron after the other to 0; where a model has more
than `swept`, activation times gradient names the ones to sweep, random ones beside them, and stands in for the rest.

The double dissociation sets the best detectors, the best generators and random neurons to 0, set by set, and asks on
the test half what that costs: detection (the model asked in words, and a probe of its last block) or generation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from microtome.core.protocols import Metric
from microtome.core.seeds import derive, generator
from microtome.core.site import Site
from microtome.core.units import Units
from microtome.edits.make import ablate
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.features.free_directions import difference_basis
from microtome.features.head_basis import head_weight
from microtome.measures.expertise import auroc
from microtome.measures.head_scores import relative_gaps, selection_frequency
from microtome.measures.resampling import bootstrap_weights, weighted_means
from microtome.measures.token_sets import SetOdds, SetProbability
from microtome.models.batch import Batch
from microtome.records import Missing, Stage, StageOutput, Told
from microtome.studies.toxicity.arm import Arm, values
from microtome.studies.toxicity.config import ToxicityConfig
from microtome.studies.toxicity.methods.family import Found
from microtome.studies.toxicity.methods.head import contexts_of, direction_scores
from microtome.studies.toxicity.reading import areas_by_site
from microtome.studies.toxicity.subject import Places, Subject

__all__ = ["Asked", "directions", "dissociate", "found_of", "generators"]

DETECTORS, GENERATORS = "best detectors", "best generators"


def generators(subject: Subject, screened: Stage, told: Told) -> StageOutput:
    """Every neuron's generation score beside its detection score, and how far the quick score agrees with the exact."""
    config, places = subject.config, _some(subject.places["discovery"], subject.config)
    areas = areas_by_site(screened)
    metric = SetProbability(subject.flagged)
    batches = subject.batches(places.toxic)
    quick = _quick(subject, batches, list(areas), metric, lambda x: told(0.2 * x))
    chosen = _to_sweep(quick, areas, config.neurons.swept, generator(config.seed, "swept"))
    exact, base = _exact(subject, batches, chosen, metric, lambda x: told(0.2 + 0.8 * x))
    falls, low, high = _falls(base - exact, places.texts, generator(config.seed, "falls"))
    writes = {site: values.copy() for site, values in quick.items()}
    rows = []
    for at, (site, unit) in enumerate((s, u) for s, index in chosen.items() for u in index.tolist()):
        area = float(areas[str(site)][unit])
        writes[str(site)][unit] = falls[at]
        rows.append(
            {
                "neuron": f"{site} {unit}",
                "detection": abs(area - 0.5),
                "area": area,
                "generation": float(falls[at]),
                "low": float(low[at]),
                "high": float(high[at]),
                "quick": float(quick[str(site)][unit]),
                "n": len(places),
                "block": f"block {site.block}",
            }
        )
    rows.sort(key=lambda r: -abs(r["generation"]))
    return StageOutput(
        tables={"generation": rows},
        arrays={"writes": np.concatenate(list(writes.values()))},
        values={
            "flagged_probability": float(base.mean()),
            "flagged_tokens": len(subject.flagged),
            "places": len(places),
            "swept": len(rows),
            "all_swept": len(rows) == screened.value("neurons"),
        },
    )


def _some(places: Places, config: ToxicityConfig) -> Places:
    """Return as many places as neurons are ablated at, drawn at random."""
    rng = generator(config.seed, "swept places")
    kept = sorted(rng.permutation(len(places))[: config.neurons.places].tolist())
    return Places(*([part[i] for i in kept] for part in (places.toxic, places.words, places.texts, places.clean)))


def _falls(
    falls: np.ndarray, texts: Sequence[int], rng: np.random.Generator, draws: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each neuron's mean fall and its 95 % bounds, texts resampled, from [neurons, places]."""
    weights = bootstrap_weights([texts], falls.shape[1], draws=draws, rng=rng)
    low, high = np.quantile(weighted_means(weights, falls.T), [0.025, 0.975], axis=0)
    return falls.mean(1), low, high


def found_of(screened: Stage, written: Stage) -> Found:
    """Return what interventions on neurons are made from."""
    areas = areas_by_site(screened)
    parts = np.split(written.array("writes"), np.cumsum(screened.value("widths"))[:-1])
    return Found(areas, dict(zip(areas, parts, strict=True)))


def _quick(
    subject: Subject, batches: Sequence[Batch], sites: Sequence[str], metric: SetProbability, told: Told
) -> dict[str, np.ndarray]:
    """Return activation times gradient, summed over tokens and averaged over places: site -> [neurons]."""
    sums = {site: 0.0 for site in sites}
    count = sum(len(b) for b in batches)
    for i, batch in enumerate(batches):
        found = gradients(subject.model, batch, sites, metric)
        for site in sites:
            product = found.values[Site.parse(site)] * found.grads[Site.parse(site)]
            held = batch.mask.to(product.device)[..., None]
            sums[site] = sums[site] + (product * held).double().sum((0, 1)).cpu()
        told((i + 1) / len(batches))
    return {site: (total / count).numpy() for site, total in sums.items()}


def _to_sweep(quick: dict, areas: dict, most: int, rng: np.random.Generator) -> Units:
    """Return the neurons to ablate one by one: all, or those of most quick score and detection, and random ones."""
    total = sum(len(x) for x in quick.values())
    if total <= most:
        return Units({site: np.arange(len(x)) for site, x in quick.items()})
    third = most // 3
    chosen = Units.top_k({s: np.abs(x) for s, x in quick.items()}, third)
    chosen = chosen | Units.top_k({s: np.abs(x - 0.5) for s, x in areas.items()}, third)
    drawn = {s: rng.random(len(x)) for s, x in quick.items()}
    return chosen | Units.top_k(drawn, most - 2 * third)


def _exact(
    subject: Subject, batches: Sequence[Batch], units: Units, metric: SetProbability, told: Told
) -> tuple[np.ndarray, np.ndarray]:
    """Return P(flagged word) with each neuron at 0, [neurons, places], and with none, [places]."""
    cells = [ablate(Units({site: [unit]})) for site, index in units.items() for unit in index]
    effects, base = [], []
    for i, batch in enumerate(batches):
        found = sweep(subject.model, batch, cells, metric, memory_budget=subject.config.memory_budget)
        effects.append(found.effects.double().cpu())
        base.append(found.base.double().cpu())
        told((i + 1) / len(batches))
    return torch.cat(effects, 1).numpy(), torch.cat(base).numpy()


def directions(subject: Subject) -> StageOutput:
    """The directions of the head: both scores, singular values and gaps, what they vote for, how stably chosen."""
    contexts, weight = contexts_of(subject), head_weight(subject.model)
    basis = subject.basis
    scores = direction_scores(subject, contexts, basis.axes)
    free = difference_basis(*subject.states(subject.head)).axes
    lone = direction_scores(subject, contexts, free)
    k = max(subject.config.arms.ks[0], min(12, basis.width // 4))
    often = selection_frequency(
        lambda c: direction_scores(subject, c, basis.axes)["benefit"], contexts, k, draws=40,
        seed=derive(subject.config.seed, "selection"),
    )  # fmt: skip
    gaps, n = relative_gaps(basis.singular), len(contexts.toxic)
    rows = [
        {
            "direction": f"v{i}",
            "kind": "singular vectors of the head",
            "singular": float(basis.singular[i]),
            "gap": float(gaps[i]),
            "detection": float(scores["auroc"][i]),
            "generation": float(scores["benefit"][i]),
            "contribution": float(scores["contribution"][i]),
            "cost": float(scores["benefit"][i] / scores["benefit_cost"][i]) if scores["benefit_cost"][i] else 0.0,
            "chosen": float(often[i]),
            "votes": _votes(subject, weight, basis.axes[:, i]),
            "n": n,
        }
        for i in range(basis.width)
    ]
    rows.append(
        {
            "direction": "means",
            "kind": "difference of means",
            "singular": Missing("no singular vector"),
            "gap": Missing("no singular vector"),
            "detection": float(lone["auroc"][0]),
            "generation": float(lone["benefit"][0]),
            "contribution": float(lone["contribution"][0]),
            "cost": float(lone["benefit"][0] / lone["benefit_cost"][0]) if lone["benefit_cost"][0] else 0.0,
            "chosen": Missing("not chosen among others"),
            "votes": _votes(subject, weight, free[:, 0]),
            "n": n,
        }
    )
    rows.sort(key=lambda r: -r["generation"])
    return StageOutput(tables={"directions": rows}, values={"chosen_k": k, "head_route": basis.route})


def _votes(subject: Subject, weight: Tensor, axis: Tensor, most: int = 5) -> str:
    """Return the tokens at either end of a direction, flagged ones masked."""
    scores = weight.double() @ axis.to(weight.device)
    order = scores.argsort(descending=True).tolist()
    ends = [order[:most], order[-most:][::-1]]
    return " … ".join(", ".join(_shown(subject, i) for i in end) for end in ends)


def _shown(subject: Subject, token: int) -> str:
    word = subject.model.tokenizer.decode([token]).strip() or "␣"
    hide = not subject.config.show_words and token in set(subject.flagged.tolist())
    return f"{word[:1]}{'*' * (len(word) - 1)}" if hide else word


class Asked:
    """Detection and generation of an arm on the test half: what every intervention is asked besides its completions.

    Args:
        subject: the model and its sources.
    """

    def __init__(self, subject: Subject):
        found, places = subject.sources.halves["test"], subject.places["test"]
        tokenizer, question = subject.model.tokenizer, subject.sources.question
        self.subject, self.labels = subject, found.labels
        self.places, self.texts = subject.batches(places.toxic), places.texts
        self.metric = SetProbability(subject.flagged)
        cut = [tokenizer.decode(r, skip_special_tokens=True) for r in subject.rows(found.texts, room=_room(subject))]
        asked = [question.replace("{text}", text) for text in cut]
        self.asked = subject.batches([tokenizer(t)["input_ids"] for t in asked]) if question else []
        ids = {side: _first_tokens(subject, words) for side, words in (("yes", subject.sources.yes),
                                                                      ("no", subject.sources.no))}  # fmt: skip
        self.odds = SetOdds(ids["yes"] if ids["yes"] is not None else subject.flagged, ids["no"])

    def generation(self, arms: Sequence[Arm]) -> np.ndarray:
        """Return P(flagged word) at every place where one comes next, [arms, places]; the first arm is unedited."""
        return self._values(arms, self.places, self.metric)

    def detection(self, arms: Sequence[Arm]) -> list[float] | list[Missing]:
        """Return the AUROC of each arm's answer to whether a test text is toxic; the first arm is unedited."""
        if not self.asked:
            return [Missing("no question was given")] * len(arms)
        return auroc(self._values(arms, self.asked, self.odds).T, self.labels).tolist()

    def _values(self, arms: Sequence[Arm], batches: Sequence[Batch], metric: Metric) -> np.ndarray:
        parts = [(batch, metric) for batch in batches]
        return values(arms, parts, memory_budget=self.subject.config.memory_budget).numpy()


def _room(subject: Subject) -> int:
    question = subject.sources.question.replace("{text}", "")
    return min(len(subject.model.tokenizer(question)["input_ids"]), subject.config.texts.longest // 2)


def _first_tokens(subject: Subject, words: Sequence[str]) -> Tensor | None:
    if not words:
        return None
    tokenizer = subject.model.tokenizer
    return torch.tensor(sorted({tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words}))


def dissociate(subject: Subject, screened: Stage, written: Stage, told: Told) -> StageOutput:
    """Set detectors, generators and random neurons to 0, set by set; what does each cost on the test half?"""
    config, found = subject.config, found_of(screened, written)
    sets = _sets(subject, found)
    base = Arm(subject.model)
    arms = [base, *(Arm(subject.model, tuple(ablate(units))) for _, units in sets)]
    asked, probed = Asked(subject), _Probe(subject)
    before, *after = asked.generation(arms)
    told(0.2)
    area, *areas = asked.detection(arms)
    told(0.4)
    told_apart = probed.area(base)
    means, low, high = _falls(before - np.stack(after), asked.texts, generator(config.seed, "dissociate"))
    rows = []
    for i, ((name, units), arm) in enumerate(zip(sets, arms[1:], strict=True)):
        rows.append(
            {
                "set": name,
                "neurons": len(units),
                "generation": float(means[i]),
                "generation_low": float(low[i]),
                "generation_high": float(high[i]),
                "places": len(before),
                "asked": area - areas[i] if asked.asked else area,
                "probe": told_apart - probed.area(arm),
                "texts": len(asked.labels),
            }
        )
        told(0.4 + 0.6 * (i + 1) / len(sets))
    return StageOutput(
        tables={"dissociation": rows[:2], "random_sets": rows[2:]},
        values={
            "asked_area": area,
            "probe_area": told_apart,
            "generation_before": float(before.mean()),
            "overlap": len(sets[0][1] & sets[1][1]),
        },
    )


def _sets(subject: Subject, found: Found) -> list[tuple[str, Units]]:
    """Return the best detectors, the best generators, and random twins of each: as many neurons at each site."""
    config, rng = subject.config.neurons, generator(subject.config.seed, "random sets")
    space = {Site.parse(s): len(a) for s, a in found.areas.items()}
    best = {
        DETECTORS: Units.top_k({s: np.abs(a - 0.5) for s, a in found.areas.items()}, config.sets),
        GENERATORS: Units.top_k(found.writes, config.sets),
    }
    twins = [(f"random twin of {name}", u.matched_random(space, rng)) for name, u in best.items() for _ in
             range(config.random)]  # fmt: skip
    return [*best.items(), *twins]


class _Probe:
    """A linear probe of the last block's stream, averaged over a text, fitted on the unedited discovery half."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.site = f"blocks.{len(subject.model.anatomy.blocks) - 1}.resid_post"
        halves = subject.sources.halves
        self.labels = halves["test"].labels
        self.batches = subject.batches(subject.rows(halves["test"].texts))
        self.fitted = self._fit(subject.batches(subject.rows(halves["discovery"].texts)), halves["discovery"].labels)

    def area(self, arm: Arm) -> float:
        """Return the probe's AUROC on the test half under an arm's edits."""
        return float(auroc(self.fitted.decision_function(self._features(arm, self.batches)), self.labels)[0])

    def _fit(self, batches: Sequence[Batch], labels: np.ndarray):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        return probe.fit(self._features(Arm(self.subject.model), batches), labels)

    def _features(self, arm: Arm, batches: Sequence[Batch]) -> np.ndarray:
        found = []
        for batch in batches:
            x = run(arm.model, batch, read=self.site, edits=arm.edits, logits="none")[self.site]
            found.append(
                (x * batch.mask[..., None].to(x)).sum(1).double().cpu() / batch.mask.sum(1, keepdim=True).cpu()
            )
        return torch.cat(found).numpy()
