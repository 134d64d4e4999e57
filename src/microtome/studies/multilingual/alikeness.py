"""Does the model hold the same sentence alike in two languages, layer by layer - and the language itself?

At each depth (0 the embedding, i + 1 after block i) a sentence is its mean state over tokens, and its last token's. The
report (arXiv 2408.06273, section 6.2) shows the cosine of languages' mean last-token states: near 1 for any text, as it
is here for other sentences and for an untrained twin (`measures/representations.py`). Beside it stand centred cosine,
CKA and retrieval, and a linear probe of the language with its control task (`probing.py`). States of all depths are
kept for `similar` sentences: (depths x 2 x languages x sentences x width) float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from microtome.core.errors import DataError
from microtome.core.seeds import generator
from microtome.engine.run import run
from microtome.measures.representations import MEASURES, alike_pairs
from microtome.models.model import Model
from microtome.records import StageOutput, Told
from microtome.studies.multilingual.analysis import Analysis, thirds
from microtome.studies.multilingual.probing import probe_rows
from microtome.studies.multilingual.sentences import Reading, resampled, spread, tokenised, twin_of

__all__ = ["POOLINGS", "States", "alike_layers", "alikeness", "states_of"]

POOLINGS = ("mean", "last token")


@dataclass(frozen=True, eq=False)
class States:
    """Sentences as a model holds them.

    Attributes:
        pooled: by pooling, depth, language and sentence, [2, depths, languages, sentences, d_model], float32.
    """

    pooled: np.ndarray

    @property
    def depths(self) -> int:
        """The embedding and every block."""
        return self.pooled.shape[1]


def alikeness(model: Model, texts: Mapping[str, Sequence[str]], knobs: Analysis, told: Told) -> StageOutput:
    """Compare languages' states at every depth, and read the language from them.

    Args:
        model: a transformer with a tokenizer.
        texts: language -> parallel sentences.
        knobs: of the analysis.
        told: takes the share done.

    Raises:
        DataError: sentences that cannot be used (see `tokenised`), or a depth that the model does not have.
    """
    sentences = tokenised(model, texts, knobs)
    reading = sentences.read("both", knobs.similar)
    shown = _shown(model, knobs)
    layers, pairs, probes, contrasts = [], [], [], []
    for k, (kind, one) in enumerate({"trained": model, "untrained": twin_of(model, knobs)}.items()):
        states = states_of(one, reading)
        told((k + 0.3) / 2)
        trained = one is model
        rows, values, matrices = alike_layers(
            states, knobs, shown if trained else (), poolings=POOLINGS if trained else POOLINGS[:1]
        )
        told((k + 0.7) / 2)
        tested, accuracy = probe_rows(states.pooled[0], knobs)
        layers += [{"model": kind} | r for r in rows]
        probes += [{"model": kind} | r for r in tested]
        # the last second first, so that a heat map without its diagonal has the languages in order on both axes
        matrices.sort(key=lambda r: (r["first"], -r["second"]))
        pairs += [_named(r, sentences.languages) for r in matrices]
        contrasts += [{"model": kind} | r for r in _contrasts(values, accuracy, reading.sentences)]
        told((k + 1) / 2)
    return StageOutput(
        tables={"alike_layers": layers, "alike_pairs": pairs, "probe": probes, "alike_contrasts": contrasts},
        values={
            "alike_sentences": reading.sentences,
            "alike_depths": len(model.anatomy.blocks) + 1,
            "alike_shown": list(shown),
            "alike_languages": len(sentences.languages),
        },
    )


@torch.no_grad()
def states_of(model: Model, reading: Reading) -> States:
    """Return the pooled states of some texts at the embedding and behind every block."""
    sites = ["embed", *(f"blocks.{i}.resid_post" for i in range(len(model.anatomy.blocks)))]
    skip = _opening(model, reading)
    parts: list[np.ndarray] = []
    for batch in reading.batches(model):
        first = batch.seq - batch.mask.sum(1, keepdim=True)
        counted = batch.mask & (torch.arange(batch.seq, device=batch.mask.device) >= first + skip)
        result = run(model, batch, read=sites, logits="none")
        share = counted / counted.sum(1, keepdim=True)
        means = [torch.einsum("bsd,bs->bd", result[s], share.to(result[s])) for s in sites]
        both = [torch.stack(means), torch.stack([result[s][:, -1] for s in sites])]
        parts.append(torch.stack(both).float().cpu().numpy())
    texts = np.moveaxis(np.concatenate(parts, 2), 2, 0)
    return States(np.moveaxis(reading.square(texts, int(reading.language.max()) + 1), (0, 1), (2, 3)))


def _opening(model: Model, reading: Reading) -> int:
    """Return 1 where every text opens with the same special token, which says nothing of it and is often huge."""
    opening = getattr(model.tokenizer, "bos_token_id", None)
    return int(opening is not None and all(row[0] == opening and len(row) > 1 for row in reading.rows))


def alike_layers(
    states: States, knobs: Analysis, shown: Sequence[int] = (), poolings: Sequence[str] = POOLINGS
) -> tuple[list[dict], dict[str, np.ndarray], list[dict]]:
    """Return how alike languages are at each depth, mean over pairs of languages.

    Args:
        states: of parallel sentences.
        knobs: of the analysis.
        shown: depths of which every pair is told.
        poolings: which.

    Returns:
        Rows by pooling, depth and measure; each measure of mean states under every resample, [depths, 1 + draws];
        rows by pair of languages (numbers) at the depths shown.
    """
    n = states.pooled.shape[3]
    counts = resampled(n, knobs.draws, "alike", seed=knobs.seed)
    rows, pairs, kept = [], [], {m: [] for m in MEASURES}
    for k, pooling in enumerate(POOLINGS):
        if pooling not in poolings:
            continue
        for depth in range(states.depths):
            rng = generator(knobs.seed, "other sentences")
            found = dict(alike_pairs(states.pooled[k, depth], counts, rng=rng))
            mean = {m: np.mean([v[m] for v in found.values()], axis=0) for m in MEASURES}
            chance = {"retrieval": 1 / n}
            rows += [
                {"pooling": pooling, "depth": depth, "measure": m, **spread(x, n), "chance": chance.get(m)}
                for m, x in mean.items()
            ]
            if pooling == POOLINGS[0]:
                for m in MEASURES:
                    kept[m].append(mean[m])
            if depth in shown:
                pairs += [row for pair, v in found.items() for row in _pair_rows(pooling, depth, pair, v, n)]
    return rows, {m: np.array(x) for m, x in kept.items()}, pairs


def _pair_rows(pooling: str, depth: int, pair: tuple[int, int], values: Mapping[str, np.ndarray], n: int) -> list[dict]:
    measures = ("raw", "parallel", "retrieval")
    return [
        {"pooling": pooling, "depth": depth, "measure": m, "first": a, "second": b, **spread(values[m], n)}
        for a, b in (pair, pair[::-1])
        for m in measures
    ]


def _named(row: dict, languages: Sequence[str]) -> dict:
    return row | {"first": languages[row["first"]], "second": languages[row["second"]]}


def _contrasts(values: Mapping[str, np.ndarray], accuracy: np.ndarray, n: int) -> list[dict]:
    """Return what claims rest on: at the middle third of the blocks, and there against both ends."""
    depths = len(accuracy)
    middle = np.flatnonzero(np.r_[False, thirds(depths - 1) == 1]) if depths > 3 else np.array([depths // 2])
    ends = [0, depths - 1]
    told = {
        "raw, middle": values["raw"][middle].mean(0),
        "raw of other sentences, middle": values["raw_other"][middle].mean(0),
        "raw less other sentences, middle": (values["raw"] - values["raw_other"])[middle].mean(0),
        "raw, last layer": values["raw"][-1],
        "translations less others, middle": (values["parallel"] - values["other"])[middle].mean(0),
        "retrieval, middle": values["retrieval"][middle].mean(0),
        "retrieval, last layer": values["retrieval"][-1],
        "retrieval, middle less last": values["retrieval"][middle].mean(0) - values["retrieval"][-1],
        "cka less wrongly paired, middle": (values["cka"] - values["cka_other"])[middle].mean(0),
    }
    rows = [{"contrast": name, **spread(x, n)} for name, x in told.items()]
    less = accuracy[ends].mean(0) - accuracy[middle].mean(0)
    return [*rows, {"contrast": "probe, ends less middle", **spread(less, (n + 1) // 2)}]


def _shown(model: Model, knobs: Analysis) -> tuple[int, ...]:
    blocks = len(model.anatomy.blocks)
    shown = knobs.depths or tuple(dict.fromkeys((0, (blocks + 1) // 2, blocks)))
    wrong = [d for d in shown if not 0 <= d <= blocks]
    if wrong:
        raise DataError(f"Depth {wrong[0]} was asked for, '{model.name}' has 0 (the embedding) to {blocks}; mend it.")
    return tuple(shown)
