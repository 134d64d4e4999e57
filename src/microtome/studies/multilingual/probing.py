"""Which language is it? A linear probe at each depth, held out by sentence, beside its control task.

Multinomial logistic regression on standardised mean states of half of the sentences, scored on the other half. The
control task (Hewitt & Liang 2019) gives the translations of each sentence their languages in random order: what the
probe fits of that, it memorises (`control_fit`), and on held-out sentences it can only guess. Selectivity is accuracy
less the control's. Where accuracy is 1 at every depth, the held-out loss still tells depths apart.
"""

import numpy as np
import torch

from microtome.core.seeds import generator
from microtome.features.logistic import fit_logistic
from microtome.studies.multilingual.analysis import Analysis
from microtome.studies.multilingual.sentences import resampled, spread

__all__ = ["probe_rows"]

STEPS = 60


def probe_rows(states: np.ndarray, knobs: Analysis) -> tuple[list[dict], np.ndarray]:
    """Return what a probe of the language reads at each depth.

    Args:
        states: [depths, languages, sentences, d_model].
        knobs: of the analysis.

    Returns:
        Rows by depth, and the accuracy under every resample of the held-out sentences, [depths, 1 + draws].
    """
    _, languages, n, _ = states.shape
    rng = generator(knobs.seed, "probe")
    order = rng.permutation(n)
    fit, score = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    own = np.tile(np.arange(languages)[:, None], (1, n))
    mixed = rng.permuted(own, axis=0)
    counts = resampled(len(score), knobs.draws, "probe", seed=knobs.seed)
    rows, kept = [], []
    for depth, x in enumerate(states.astype(np.float64)):
        x = _standardised(x, fit)
        hits, loss, _ = _probed(x, own, fit, score, knobs.probe_strength)
        control, _, memorised = _probed(x, mixed, fit, score, knobs.probe_strength)
        drawn, guessed = ((counts @ h.mean(0)) / counts.sum(1) for h in (hits, control))
        kept.append(drawn)
        rows.append(
            {
                "depth": depth,
                **spread(drawn, len(score), "accuracy"),
                "control": float(guessed[0]),
                "control_fit": memorised,
                "selectivity": float(drawn[0] - guessed[0]),
                "loss": loss,
                "chance": 1 / languages,
                "texts": languages * len(score),
            }
        )
    return rows, np.array(kept)


def _standardised(x: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and spread 1 on the sentences that fit; those that do not vary become 0."""
    mean, sd = x[:, fit].mean((0, 1)), x[:, fit].std((0, 1))
    return np.divide(x - mean, sd, out=np.zeros_like(x), where=sd > 1e-12 * max(float(sd.max()), 1e-300))


def _probed(
    x: np.ndarray, labels: np.ndarray, fit: np.ndarray, score: np.ndarray, strength: float
) -> tuple[np.ndarray, float, float]:
    """Return whether each held-out text was told right [languages, sentences], the loss there, accuracy in the fit."""
    classes, width = len(x), x.shape[2]
    trained = torch.from_numpy(x[:, fit].reshape(-1, width)), torch.from_numpy(labels[:, fit].ravel())
    held = torch.from_numpy(x[:, score].reshape(-1, width)), torch.from_numpy(labels[:, score].ravel())
    readout = fit_logistic(*trained, classes, strength=strength, steps=STEPS)
    logits = [features @ readout.weight + readout.bias for features, _ in (held, trained)]
    hits = (logits[0].argmax(1) == held[1]).double().numpy().reshape(classes, len(score))
    loss = float(torch.nn.functional.cross_entropy(logits[0], held[1]))
    return hits, loss, float((logits[1].argmax(1) == trained[1]).double().mean())
