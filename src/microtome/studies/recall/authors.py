"""The authors' statistics on the authors' prompts (arXiv 2510.03366, public code), beside an untrained network.

30 recall and 30 reasoning prompts, read at the last token. Neurons: `measures.paper_statistics.paper_criteria`. Heads:
entropy, largest weight, self weight, spread and Gini of one attention row. Layers: six scalars, each tested between the
prompt sets (Mann-Whitney, BH at 0.01 over layers) and voting where |d| > 0.8; two votes name a layer by the majority
of their signs. Entropy and 1 / (1 + entropy) vote against each other by construction; kept, since it is theirs.

The prompt sets differ in wording, length and kind of answer (`data.puzzles.paper.CONFOUNDS`), so these counts say that
templates differ. The untrained row says how much of them learning has to explain.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from microtome.core.errors import SiteError
from microtome.core.site import Site
from microtome.data.puzzles.paper import paper_pairs
from microtome.engine.run import run
from microtome.measures.expertise import cohens_d
from microtome.measures.intervals import wilson
from microtome.measures.multiplicity import benjamini_hochberg
from microtome.measures.paper_statistics import mann_whitney, paper_criteria, paper_head_criteria
from microtome.models.model import Model
from microtome.studies.recall.ablations import NEURONS

__all__ = ["authors_rows"]

LABELS = np.repeat([0, 1], 30)


def authors_rows(networks: Mapping[str, Model], *, size: int, whole: bool) -> list[dict]:
    """Return how many neurons (and, `whole`, heads and layers) each network's statistics flag.

    Args:
        networks: name -> model, one of them untrained.
        size: prompts in a forward pass.
        whole: the head and layer statistics too.
    """
    pairs = paper_pairs()
    texts = [p.recall for p in pairs] + [p.reasoning for p in pairs]
    rows = []
    for name, model in networks.items():
        levels = {"neurons": _neurons(model, texts, size)}
        if whole:
            patterns = _last_rows(model, texts, size)
            levels |= {"heads": _heads(patterns), "layers": _layers(model, texts, patterns, size)}
        rows += [
            {"network": name, "level": level, "n": len(texts), **_counts(side)}
            for level, side in levels.items()
            if side is not None
        ]
    return rows


def _counts(side: np.ndarray) -> dict:
    """Counts of a labelling: -1 recall, 1 reasoning, 2 mixed, 0 none."""
    flagged = int((side != 0).sum())
    share = wilson(flagged, len(side))
    return {
        "total": len(side),
        "flagged": flagged,
        "share": share.estimate,
        "low": share.low,
        "high": share.high,
        **{word: int((side == code).sum()) for word, code in (("recall", -1), ("reasoning", 1), ("mixed", 2))},
    }


def _read(model: Model, texts: Sequence[str], sites: str, size: int):
    """Yield (batch, run) for the prompts, a chunk at a time."""
    for start in range(0, len(texts), size):
        batch = model.batch(texts[start : start + size])
        yield batch, run(model, batch, read=sites, logits="none")


def _neurons(model: Model, texts: Sequence[str], size: int) -> np.ndarray | None:
    gates = _gates(model, texts, size)
    if gates is None:
        return None
    found = paper_criteria(np.concatenate(gates, 1), LABELS)
    return np.where(found.flagged, np.sign(found.d), 0).astype(int)


def _gates(model: Model, texts: Sequence[str], size: int) -> list[np.ndarray] | None:
    """Gate values before the nonlinearity at the last token, by layer (neurons where there is no gate)."""
    sites = "blocks.*.mlp.gate" if Site("blocks.0.mlp.gate") in model.sites else NEURONS
    try:
        parts = [[x[:, -1].float().cpu() for x in found.values()] for _, found in _read(model, texts, sites, size)]
    except SiteError:  # experts: no neurons to look at
        return None
    return [torch.cat(layer).numpy() for layer in zip(*parts, strict=True)]


def _last_rows(model: Model, texts: Sequence[str], size: int) -> list[list[np.ndarray]]:
    """The last token's attention row over real tokens, [prompts][layers] of [heads, tokens]."""
    rows = []
    for batch, found in _read(model, texts, "blocks.*.attn.pattern", size):
        for i, mask in enumerate(batch.mask):
            rows.append([x[i, :, -1, mask].double().cpu().numpy() for x in found.values()])
    return rows


def _heads(patterns: list[list[np.ndarray]]) -> np.ndarray:
    statistics = {
        "entropy": _entropy,
        "largest": lambda a: a.max(-1),
        "self": lambda a: a[:, -1],
        "spread": lambda a: a.std(-1),
        "gini": _gini,
    }
    values = {
        name: np.stack([np.concatenate([f(a) for a in layers]) for layers in patterns])
        for name, f in statistics.items()
    }
    found = paper_head_criteria(values, LABELS)
    return np.where(found.flagged & (found.side == 0), 2, found.side)


def _entropy(a: np.ndarray) -> np.ndarray:
    return -(a * np.log(np.where(a > 0, a, 1.0))).sum(-1)


def _gini(a: np.ndarray) -> np.ndarray:
    n = a.shape[-1]
    return (2 * np.arange(1, n + 1) - n - 1) @ np.sort(a, -1).T / (n * a.sum(-1))


def _layers(model: Model, texts: Sequence[str], patterns: list[list[np.ndarray]], size: int) -> np.ndarray:
    """Label every layer by the vote of six scalars."""
    streams = [
        [x[:, -1].float().cpu() for x in found.values()]
        for _, found in _read(model, texts, "blocks.*.resid_post", size)
    ]
    hidden = [torch.cat(layer).numpy() for layer in zip(*streams, strict=True)]
    entropy = np.array([[_entropy(a).mean() for a in layers] for layers in patterns])
    scalars = [
        np.stack([np.linalg.norm(x, axis=1) for x in hidden], 1),
        np.stack([x.mean(1) for x in hidden], 1),
        entropy,
        1 / (1 + entropy),
    ]
    gates = _gates(model, texts, size)
    if gates is not None:
        scalars.append(np.stack([np.abs(x).mean(1) for x in gates], 1))
        scalars.append(np.stack([(np.abs(x) < 0.01).mean(1) for x in gates], 1))
    votes = np.stack([_vote(x) for x in scalars])
    counted, signs = (votes != 0).sum(0), votes.sum(0)
    return np.where(counted < 2, 0, np.where(signs == 0, 2, np.sign(signs))).astype(int)


def _vote(values: np.ndarray) -> np.ndarray:
    """The sign of d where a scalar separates the prompt sets at a layer, else 0."""
    d = cohens_d(values, LABELS)
    return np.where((benjamini_hochberg(mann_whitney(values, LABELS)) <= 0.01) & (np.abs(d) > 0.8), np.sign(d), 0)
