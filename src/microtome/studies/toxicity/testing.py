"""The confirmatory step: every intervention once on the test half, at every budget, beside the no-op arm.

Completions are scored by evaluators that chose nothing. All arms draw from the same random numbers, so they are
compared prompt by prompt; the no-op arm is an edit that changes nothing, sent through the same pipeline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.seeds import derive, generator
from microtome.data.spans import masked
from microtome.engine.edit import Edit, Scale
from microtome.measures.perplexity import perplexity
from microtome.measures.scorers.agreement import agreement
from microtome.measures.toxicity import by_prompt, toxicity, toxicity_change
from microtome.measures.tph import Arm as Outcome
from microtome.measures.tph import trade_off
from microtome.measures.variety import variety
from microtome.records import Missing, StageOutput, Told
from microtome.studies.toxicity.arm import Arm, Cost, completions, costs, decoded, scores
from microtome.studies.toxicity.matching import Tried
from microtome.studies.toxicity.subject import Subject
from microtome.studies.toxicity.writing import Asked

__all__ = ["COMPARED", "STRATUM", "test"]

NOOP = "no-op"
RUDE = 15
STRATUM = "rate: "
COMPARED = (
    # better, worse: differences of the toxic rate at the headline budget
    ("eigenshift", "random"),
    ("eigenshift", "shuffled"),
    ("eigenshift", "aura"),
    ("eigenshift", "det_zero"),
    ("eigenshift", "damp"),
    ("eigenshift", "difference"),
    ("eigenshift", "eigenshift_signed"),
    ("writers", "det_zero"),
    ("writers", "random_neurons"),
    ("difference", "random"),
)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one arm did on the test half."""

    said: list[list[list[int]]]
    scores: Mapping[str, np.ndarray]
    cost: Cost
    generation: float
    asked: float | Missing


def test(subject: Subject, tried: Sequence[Tried], budgets: Sequence[Mapping], told: Told) -> StageOutput:
    """Measure every chosen arm at every budget on the test half, and compare arms prompt by prompt."""
    named = {(t.family.name, t.setting): t for t in tried}
    runner = _Runner(subject)
    arms = [named[r["family"], r["setting"]].arm(r["strength"]) for r in budgets]
    base, noop, *found = runner(
        [Arm(subject.model), Arm(subject.model, (Edit(subject.head, Scale(1.0)),)), *arms], told
    )
    rows = [_row(subject, runner, _noop_row(), noop, noop)]
    rows += [_row(subject, runner, row, each, noop) for row, each in zip(budgets, found, strict=True)]
    seen = {(row["family"], row["budget"]): each for row, each in zip(budgets, found, strict=True)}
    headline = {name: found for (name, budget), found in seen.items() if budget == subject.config.arms.headline}
    labels = {r["family"]: r["label"] for r in rows}
    texts = [t for found in (noop, *headline.values()) for t in decoded(Arm(subject.model), found.said)]
    return StageOutput(
        tables={
            "arms": rows,
            "headline": _headline(rows, subject.config.arms.headline),
            "pareto": _pareto(rows),
            "differences": _differences(subject, headline, labels),
            "examples": _examples(subject, noop, headline),
            "scorers": _scorers(subject, texts),
        },
        values={
            "noop_identical": noop.said == base.said,
            "noop_kl": noop.cost.divergence.kl,
            "noop_rate": rows[0]["rate"],
            "test_prompts": len(runner.prompts),
            "evaluator": runner.main,
        },
    )


def _noop_row() -> dict:
    return {"family": NOOP, "label": "no-op", "place": "", "control": True, "setting": "", "budget": 0.0,
            "strength": 0.0, "kl": 0.0, "state": "changes nothing", "source": ""}  # fmt: skip


class _Runner:
    """Runs arms on the test half."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.prompts = subject.sources.prompts["test"]
        self.strata = [p.stratum for p in self.prompts]
        self.clean = subject.batches(subject.rows(list(subject.sources.clean["test"])))
        self.asked = Asked(subject)
        self.evaluators = dict(subject.sources.evaluators) | {"selector": subject.sources.selector}
        self.main = next(iter(subject.sources.evaluators))

    def __call__(self, arms: Sequence[Arm], told: Told) -> list[_Seen]:
        """Return what every arm did; the first is the unedited model."""
        generation = self.asked.generation(arms).mean(1)
        told(0.1)
        asked = self.asked.detection(arms)
        told(0.2)
        paid = costs(arms, self.clean)
        told(0.3)
        seen = []
        for i, arm in enumerate(arms):
            said = self._completed(arm)
            texts, n = decoded(arm, said), self.subject.config.generating.completions
            found = {name: scores(e, texts).reshape(-1, n) for name, e in self.evaluators.items()}
            seen.append(_Seen(said, found, paid[i], float(generation[i]), asked[i]))
            told(0.3 + 0.7 * (i + 1) / len(arms))
        return seen

    def _completed(self, arm: Arm) -> list[list[list[int]]]:
        config = self.subject.config
        seed = derive(config.seed, "test completions")
        return completions(arm, [p.text for p in self.prompts], config.generating, seed)


def _row(subject: Subject, runner: _Runner, told: Mapping, seen: _Seen, noop: _Seen) -> dict:
    """Return one line of the table of arms: all measures of one arm, with intervals over prompts or texts."""
    config, rng = subject.config, generator(subject.config.seed, "test", told["family"], str(told["budget"]))
    options = {"threshold": config.generating.threshold, "draws": config.arms.draws}
    own, reference = seen.scores[runner.main], noop.scores[runner.main]
    levels = toxicity(own, rng=rng, strata=runner.strata, **options)
    change = toxicity_change(own, reference, rng=rng, **options)["all"]
    fluent = perplexity(seen.cost.losses.numpy(), seen.cost.tokens.numpy(), rng=rng, draws=config.arms.draws)
    varied = variety([ids for part in seen.said for ids in part])
    traded = _traded(seen, noop, runner.main, config.generating.threshold, rng, config.arms.draws)
    apart = seen.cost.divergence
    whole = levels["all"]
    return {
        **told,
        "rate": whole.rate.estimate,
        "rate_low": whole.rate.low,
        "rate_high": whole.rate.high,
        "cut": -change.rate.estimate,
        "cut_low": -change.rate.high,
        "cut_high": -change.rate.low,
        "any": whole.any.estimate,
        "maximum": whole.maximum.estimate,
        **{f"{STRATUM}{name}": x.rate.estimate for name, x in levels.items() if name != "all"},
        "second_rate": float((seen.scores["selector"] >= config.generating.threshold).mean()),
        "clean_kl": apart.kl,
        "kl_bound": apart.bound,
        "perplexity": fluent.tokens.estimate,
        "perplexity_low": fluent.tokens.low,
        "perplexity_high": fluent.tokens.high,
        "sentence_perplexity": fluent.sentence_mean,
        **traded,
        "generation": seen.generation,
        "asked": seen.asked,
        "distinct": varied.distinct[2],
        "repetition": varied.repetition,
        "empty": varied.empty,
        "length": varied.length,
        "n": len(runner.prompts),
        "completions": len(runner.prompts) * config.generating.completions,
        "clean_texts": len(seen.cost.losses),
    }


def _traded(seen: _Seen, noop: _Seen, main: str, threshold: float, rng, draws: int) -> dict:
    """Return TPH as in the paper and clamped, against the no-op arm; missing where too little was toxic before."""

    def outcome(found: _Seen) -> Outcome:
        rates = by_prompt(found.scores[main], threshold=threshold)[:, 1]
        return Outcome(rates, found.cost.losses.numpy(), found.cost.tokens.numpy())

    rude = int((by_prompt(noop.scores[main], threshold=threshold)[:, 1] > 0).sum())
    if rude < RUDE:
        why = Missing(f"only {rude} prompts have a toxic completion unedited: resamples could hold none")
        return dict.fromkeys(("tph", "tph_low", "tph_high", "tph_clamped"), why)
    found = trade_off(outcome(seen), outcome(noop), rng=rng, draws=draws).edit
    return {"tph": found.tph.estimate, "tph_low": found.tph.low, "tph_high": found.tph.high,
            "tph_clamped": found.clamped.estimate}  # fmt: skip


def _headline(rows: Sequence[Mapping], budget: float) -> list[dict]:
    """Return the arms at the headline budget, least toxic first, the no-op arm's rate beside each."""
    held = [r | {"noop": rows[0]["rate"]} for r in rows if r["budget"] in (0.0, budget)]
    return sorted(held, key=lambda r: r["rate"])


def _pareto(rows: Sequence[Mapping]) -> list[dict]:
    """Return every arm's cost and rate, the no-op arm first in each line."""
    columns = ("label", "place", "clean_kl", "rate", "rate_low", "rate_high", "n")
    first = {(r["label"], "controls" if r["control"] else r["place"]): None for r in rows[1:]}
    begins = [rows[0] | {"label": label, "place": place} for label, place in first]
    shown = [r if not r["control"] else r | {"place": "controls"} for r in rows[1:]]
    return [{c: r[c] for c in columns} for r in (*begins, *shown)]


def _differences(subject: Subject, headline: Mapping[str, _Seen], labels: Mapping[str, str]) -> list[dict]:
    """Return the toxic rate of one arm less another's, by prompt, at the headline budget."""
    config, main = subject.config, next(iter(subject.sources.evaluators))
    rows = []
    for better, worse in COMPARED:
        if better in headline and worse in headline:
            change = toxicity_change(
                headline[better].scores[main],
                headline[worse].scores[main],
                rng=generator(config.seed, "difference", better, worse),
                threshold=config.generating.threshold,
                draws=config.arms.draws,
            )["all"].rate
            rows.append(
                {"better": better, "worse": worse, "better_label": labels[better], "worse_label": labels[worse],
                 "difference": change.estimate, "low": change.low, "high": change.high, "n": change.n}
            )  # fmt: skip
    return rows


def _examples(subject: Subject, noop: _Seen, headline: Mapping[str, _Seen]) -> list[dict]:
    """Return the first completion of some prompts, unedited and edited; flagged words are masked unless asked for."""
    shown = [n for n in ("eigenshift", "difference", "aura", "writers") if n in headline]
    prompts, rows = subject.sources.prompts["test"], []
    rng = generator(subject.config.seed, "examples")
    for i in sorted(rng.permutation(len(prompts))[: subject.config.arms.examples]):
        row = {"prompt": _shown(subject, prompts[i].text), "unedited": _said(subject, noop, i)}
        rows.append(row | {name: _said(subject, headline[name], i) for name in shown})
    return rows


def _said(subject: Subject, seen: _Seen, prompt: int) -> str:
    return _shown(subject, subject.model.tokenizer.decode(seen.said[prompt][0], skip_special_tokens=True))


def _shown(subject: Subject, text: str) -> str:
    return text if subject.config.show_words else masked(text, subject.sources.selector.spans(text))


def _scorers(subject: Subject, texts: Sequence[str]) -> list[dict]:
    """Return how far evaluators agree with the selector, on all completions of all headline arms."""
    chosen = scores(subject.sources.selector, texts)
    rows = []
    for name, evaluator in subject.sources.evaluators.items():
        found = agreement(scores(evaluator, texts), chosen)
        kappa = found.kappa
        rows.append(
            {
                "scorer": name,
                "origin": str(evaluator.origin),
                "kappa": kappa.estimate if kappa is not None else Missing("both say the same of every text"),
                "low": kappa.low if kappa is not None else Missing("both say the same of every text"),
                "high": kappa.high if kappa is not None else Missing("both say the same of every text"),
                "observed": found.observed,
                "rate": found.rates[0],
                "selector_rate": found.rates[1],
                "n": found.n,
            }
        )
    return rows
