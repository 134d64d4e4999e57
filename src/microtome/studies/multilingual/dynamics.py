"""The same numbers along training: where importance lies, language neurons, likeness of translations, the language.

For each checkpoint and third of the depth: the share of importance (mean over languages), the share of neurons above
the bar in one language only, how much more alike translations are than other sentences, how many translations are
found, and how well a probe reads the language. The null is an untrained network of the same shape; sentences and
resamples are the same at every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from microtome.core.errors import DataError
from microtome.measures.language_neurons import firing_bar
from microtome.models.model import Model
from microtome.records import StageOutput, Told
from microtome.studies.multilingual.alikeness import POOLINGS, alike_layers, states_of
from microtome.studies.multilingual.analysis import THIRDS, Analysis, thirds
from microtome.studies.multilingual.probing import probe_rows
from microtome.studies.multilingual.rates import Fired, fired
from microtome.studies.multilingual.reading import weigh
from microtome.studies.multilingual.sentences import resampled, spread, tokenised, twin_of

__all__ = ["dynamics"]


def dynamics(
    checkpoints: Sequence[tuple[int, Path]],
    texts: Mapping[str, Sequence[str]],
    knobs: Analysis,
    told: Told,
    *,
    tokenizer: object | None = None,
) -> StageOutput:
    """Read every checkpoint of a training run on the same sentences.

    Args:
        checkpoints: step and folder of each.
        texts: language -> parallel sentences.
        knobs: of the analysis; `dynamics_sentences` of the sentences are read.
        told: takes the share done.
        tokenizer: for folders that hold none.

    Raises:
        DataError: no checkpoints, a step given twice, or sentences that cannot be used (see `tokenised`).
        ModelError: a folder holds no model.
    """
    steps = [int(step) for step, _ in checkpoints]
    if not steps or len(set(steps)) != len(steps):
        raise DataError(f"Checkpoints of distinct steps were asked for, found {steps or 'none'}; give each once.")
    null: dict[tuple[str, str], float] = {}
    rows, losses = [], []
    for k, (step, folder) in enumerate(sorted(checkpoints, key=lambda c: int(c[0]))):
        model = Model.load(str(folder), tokenizer=tokenizer)
        if not null:
            null = {(r["measure"], r["part"]): r["value"] for r in _headline(twin_of(model, knobs), texts, knobs)[0]}
        found, loss = _headline(model, texts, knobs)
        rows += [{"step": int(step), **r, "untrained": null[r["measure"], r["part"]]} for r in found]
        losses.append({"step": int(step), "loss": loss})
        told((k + 1) / len(checkpoints))
    return StageOutput(
        tables={"dynamics": rows, "dynamics_losses": losses},
        values={"dynamics_steps": sorted(steps), "dynamics_sentences": rows[0]["n"]},
    )


def _headline(model: Model, texts: Mapping[str, Sequence[str]], knobs: Analysis) -> tuple[list[dict], float]:
    """Return the headline numbers of one model by third of the depth, and its loss per token."""
    small = replace(knobs, shuffles=1, sentences=min(knobs.sentences, knobs.dynamics_sentences))
    sentences = tokenised(model, texts, small)
    reading = sentences.read("both")
    part, n = thirds(len(model.anatomy.blocks)), reading.sentences
    weighed = weigh(model, reading, ["mlp.neurons"], lambda _: None)
    seen = fired(model, reading, small, lambda _: None)
    states = states_of(model, reading)
    _, values, _ = alike_layers(states, small, poolings=POOLINGS[:1])
    _, accuracy = probe_rows(states.pooled[0], small)
    counts = resampled(n, small.draws, "importance", seed=small.seed)
    shares = weighed.shares(counts).mean(0)
    specific = _specific(seen, small)
    rows = []
    for k, name in enumerate(THIRDS):
        here = part == k
        if not here.any():
            continue
        behind = np.r_[False, here]
        of_layer = here[seen.layer]
        found = {
            "share of importance": spread(shares[:, here].sum(1), n),
            "specific neurons": _about([float(s[of_layer].mean()) for s in specific], n),
            "translations less others": spread((values["parallel"] - values["other"])[behind].mean(0), n),
            "retrieval": spread(values["retrieval"][behind].mean(0), n),
            "language probe": spread(accuracy[behind].mean(0), n),
        }
        rows += [{"measure": m, "part": name, **x} for m, x in found.items()]
    return rows, float(weighed.losses.sum() / weighed.tokens.sum())


def _specific(seen: Fired, knobs: Analysis) -> list[np.ndarray]:
    """Return which neurons are above the bar in one language only, on the whole and in each resample.

    Nothing is chosen of them: early in training many fire always, the bar is 1, and there is nothing to choose from.
    """
    return [(p > firing_bar(p, knobs.quantile)).sum(0) == 1 for p in [seen.rates, *seen.resampled]]


def _about(shares: Sequence[float], n: int) -> dict:
    """Return a share (the first) and the resamples' spread about it."""
    half = 1.96 * float(np.std(shares[1:], ddof=1))
    return {"value": shares[0], "low": max(0.0, shares[0] - half), "high": shares[0] + half, "n": n}
