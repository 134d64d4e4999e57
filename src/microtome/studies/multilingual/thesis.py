"""The paper's thesis, put to the test: balanced data against data that favours one language, at equal tokens.

The two kinds of model share architecture, corpus, tokenizer, schedule and number of tokens; models of one number share
their initial weights too. They differ in how much of each language is seen. The thesis (arXiv 2408.06273, sections 1
and 3.1) is that balance helps the languages that a skewed mix neglects; what it costs the favoured one is shown beside.

    gain = bits per byte (skewed) - bits per byte (balanced)      of one language, or the worst, or the mean

Intervals are Student's over models (pairs of one number), so they hold for another training run, not another corpus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from microtome.measures.bits import text_bits
from microtome.records import StageOutput, Told
from microtome.studies.multilingual.building import made_by
from microtome.studies.multilingual.config import MultilingualConfig
from microtome.studies.multilingual.sources import load_model
from microtome.training.build.artefacts import Store
from microtome.training.build.recipe import BuildRecipe, Mixing

__all__ = ["KINDS", "compared"]

KINDS = ("balanced", "skewed")


def compared(
    recipe: BuildRecipe, store: Store, parallel: Mapping[str, Sequence[str]], config: MultilingualConfig, told: Told
) -> StageOutput:
    """Train models of both kinds and score them on the same sentences.

    Args:
        recipe: of the balanced models; the others differ in their mixture alone.
        store: where artefacts are.
        parallel: language -> its sentences.
        config: the study's configuration.
        told: takes the share that is done.

    Returns:
        Tables `thesis`, a row a language, the mean and the worst; `thesis_models`, bits per byte of every model.
    """
    plan, rows = config.thesis, []
    total = plan.seeds * len(KINDS)
    for number in range(plan.seeds):
        for kind in KINDS:
            begun = len(rows)
            made = made_by(
                _of_kind(recipe, kind, number, config),
                store,
                lambda x, n=begun: told((n + x) / total),
                until="pretrain",
            )
            model = load_model(config, str(made["pretrain"].path / "model"))
            bits = {name: text_bits(model, lines).per_byte for name, lines in parallel.items() if name in _seen(made)}
            rows.append({"kind": kind, "replicate": number, "tokens": made["pretrain"].values["tokens"], "bits": bits})
    languages = list(rows[0]["bits"])
    scores = {kind: np.array([[r["bits"][n] for n in languages] for r in rows if r["kind"] == kind]) for kind in KINDS}
    return StageOutput(
        tables={
            "thesis": _gains(scores, languages, config),
            "thesis_models": [
                {"kind": r["kind"], "replicate": r["replicate"], "language": name, "bits_per_byte": value}
                for r in rows for name, value in r["bits"].items()
            ],
        },
        values={
            "thesis_seeds": plan.seeds,
            "thesis_tokens": rows[0]["tokens"],
            "thesis_sentences": len(next(iter(parallel.values()))),
            "thesis_parameters": made["pretrain"].values["parameters"],
        },
    )  # fmt: skip


def _of_kind(recipe: BuildRecipe, kind: str, number: int, config: MultilingualConfig) -> BuildRecipe:
    """Return the recipe of one model."""
    plan = config.thesis
    mixing = recipe.mixing
    if kind == "skewed":
        mixing = Mixing(policy="favoured", alpha=mixing.alpha, favoured=plan.favoured, share=plan.share)
    return replace(recipe, mixing=mixing, pretrain=replace(recipe.pretrain, replicate=number))


def _seen(made: Mapping) -> set[str]:
    return {row["language"] for row in made["tokens"].values["languages"]}


def _gains(scores: Mapping[str, np.ndarray], languages: Sequence[str], config: MultilingualConfig) -> list[dict]:
    """Return what balance gains, by language, on average, in the worst language, and in the neglected ones."""
    favoured = np.array([name == config.thesis.favoured for name in languages])
    parts = {name: (lambda x, i=i: x[:, i]) for i, name in enumerate(languages)}
    parts |= {
        "mean": lambda x: x.mean(1),
        "worst": lambda x: x.max(1),
        "neglected": lambda x: x[:, ~favoured].mean(1),
    }
    rows = []
    for name, part in parts.items():
        balanced, skewed = part(scores["balanced"]), part(scores["skewed"])
        gains = skewed - balanced
        low, high = _student(gains)
        rows.append(
            {
                "of": name,
                "favoured": name == config.thesis.favoured,
                "balanced": float(balanced.mean()),
                "skewed": float(skewed.mean()),
                "gain": float(gains.mean()),
                "low": low,
                "high": high,
                "n": len(gains),
            }
        )
    return rows


def _student(values: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a mean, or None for a single value."""
    if len(values) < 2:
        return None, None
    spread = stats.sem(values)
    if spread == 0:
        return float(values.mean()), float(values.mean())
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=spread)
    return float(low), float(high)
