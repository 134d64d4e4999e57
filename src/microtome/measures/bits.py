"""Bits per byte: what a model needs to write a text down, in a unit that no tokenizer changes.

    bits per byte = - sum over tokens of log2 p(token | those before) / UTF-8 bytes of the text

A model that knows nothing needs log2(vocabulary) bits a token; raw bytes need 8. Languages differ in bytes a character
(Hindi 3, English 1), so compare models within a language, and languages through parallel text and their own baselines.

Every token of a text is predicted, the first one from the token that begins texts: the tokenizer's BOS, else the
config's, else EOS; where there is none the first token costs log2(vocabulary). A text over the model's length is cut
into windows: side by side (`overlap=0`, as lm-evaluation-harness rolls), or so that each window but the first sees
`overlap` tokens again, which are not scored twice. Sums are kept in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import DataError, MeasureError
from microtome.engine.run import run
from microtome.measures.intervals import Interval, percentile_interval
from microtome.measures.resampling import bootstrap_weights
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = [
    "TextBits",
    "bits_per_byte",
    "context_length",
    "pad_right",
    "pass_size",
    "start_token",
    "target_losses",
    "text_bits",
    "unigram_bits",
    "vocabulary_size",
]

_LOGITS = 1 << 27
"""Most logits in one pass, half a GiB in float32."""


@dataclass(frozen=True, eq=False)
class TextBits:
    """What texts cost.

    Attributes:
        bits: of each text, [texts], float64.
        bytes: UTF-8 bytes of each, [texts].
        tokens: of each, the beginning one not counted, [texts].
    """

    bits: Float[np.ndarray, " texts"]
    bytes: Int[np.ndarray, " texts"]
    tokens: Int[np.ndarray, " texts"]

    @property
    def per_byte(self) -> float:
        """Bits per byte of all texts together: long texts weigh more."""
        return float(self.bits.sum() / self.bytes.sum())

    def resampled(self, weights: Float[np.ndarray, "draws texts"]) -> Float[np.ndarray, " draws"]:
        """Return the bits per byte of each resample.

        Args:
            weights: how often each text occurs in it, as `bootstrap_weights` gives; the same for all languages of
                parallel text keeps them paired.
        """
        return (weights @ self.bits) / (weights @ self.bytes)


def bits_per_byte(found: TextBits, *, rng: np.random.Generator, draws: int = 2000, level: float = 0.95) -> Interval:
    """Return the bits per byte of all texts with a percentile interval over resampled texts.

    Args:
        found: from `text_bits`, at least two texts.
        rng: of the bootstrap.
        draws: resamples.
        level: of the interval.

    Raises:
        MeasureError: a single text.
    """
    weights = bootstrap_weights((), len(found.bits), draws=draws, rng=rng)
    return percentile_interval(found.per_byte, found.resampled(weights), len(found.bits), level=level)


def text_bits(
    model: Model,
    texts: Sequence[str],
    *,
    overlap: int = 0,
    batch: int | None = None,
    told: Callable[[float], None] | None = None,
) -> TextBits:
    """Return what each text costs a model.

    Args:
        model: a causal language model with a tokenizer.
        texts: none of them empty.
        overlap: tokens that a window of a long text sees again.
        batch: most tokens in one pass, padding included; None for what suits the device.
        told: takes the share that is done.

    Raises:
        DataError: no texts, an empty one, no tokenizer, or an overlap that leaves no room.
        MeasureError: NaN logits.

    Example:
        found = text_bits(model, sentences)
        found.per_byte, bits_per_byte(found, rng=generator(0, "bits"))
    """
    ids = _token_ids(model, texts)
    start, vocabulary = start_token(model), vocabulary_size(model)
    begun = [row if start is None else [start, *row] for row in ids]
    windows = [(n, *w) for n, row in enumerate(begun) for w in _windows(row, context_length(model), overlap)]
    bits = np.full(len(texts), 0.0 if start is not None else math.log2(vocabulary))
    done = 0
    for group in _by_length([len(row) for _, row, _ in windows], pass_size(model, batch)):
        part = [windows[i] for i in group]
        losses = _losses(model, [row for _, row, _ in part], [scored for _, _, scored in part])
        np.add.at(bits, [n for n, _, _ in part], losses / math.log(2))
        done += len(part)
        if told:
            told(done / len(windows))
    if not np.isfinite(bits).all():
        broken = int((~np.isfinite(bits)).sum())
        raise MeasureError(f"Bits of {len(texts)} texts were asked for, {broken} are not finite; mend the model.")
    return TextBits(bits, np.array([len(t.encode()) for t in texts]), np.array([len(row) for row in ids]))


def unigram_bits(model: Model, texts: Sequence[str]) -> float:
    """Return the bits per byte of the best unigram model of these very texts: the entropy of their own token counts.

    No model that ignores order can need fewer, so one that needs more has learnt less than frequencies.

    Args:
        model: whose tokenizer cuts the texts.
        texts: none of them empty.

    Raises:
        DataError: no texts, an empty one, or no tokenizer.
    """
    counts = np.unique([t for row in _token_ids(model, texts) for t in row], return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / sum(len(t.encode()) for t in texts))


def start_token(model: Model) -> int | None:
    """Return the token that begins a text: BOS of the tokenizer or the config, else EOS of either; None for none."""
    config, size = getattr(model.module, "config", None), vocabulary_size(model)
    for name in ("bos_token_id", "eos_token_id"):
        for holder in (model.tokenizer, config):
            token = getattr(holder, name, None)
            if isinstance(token, int) and 0 <= token < size:  # GPT-2's default 50256 stands in configs of any size
                return token
    return None


def context_length(model: Model) -> int | None:
    """Return how many tokens a model takes at once; None where its config sets no limit."""
    config = getattr(model.module, "config", None)
    return getattr(getattr(config, "text_config", config), "max_position_embeddings", None)


def vocabulary_size(model: Model) -> int:
    """Return how many tokens a model chooses among: the rows of its output head.

    Raises:
        DataError: it has none.
    """
    if model.anatomy.head is None:
        raise DataError(f"'{model.name}' has no output head over tokens, so it predicts none; give a language model.")
    return model.module.get_submodule(model.anatomy.head).weight.shape[0]


def pass_size(model: Model, batch: int | None) -> int:
    """Return how many tokens to run in one pass: as many as asked for, fewer where their logits would fill memory.

    Args:
        model: whose vocabulary and device count.
        batch: tokens asked for; None for 1,024 on a CPU, where padding costs more than calls, and 16,384 elsewhere.
    """
    batch = (1024 if model.device.type == "cpu" else 16_384) if batch is None else batch
    return max(1, min(batch, _LOGITS // vocabulary_size(model)))


def pad_right(model: Model, rows: Sequence[Sequence[int]], *, before: int = 0) -> Batch:
    """Return rows as a batch aligned at their beginnings, where no position sees padding alone.

    Args:
        model: that reads them.
        rows: of token ids, none empty.
        before: how many tokens of each row the model holds in a cache.

    Raises:
        DataError: a token that the model has no embedding of.
    """
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.as_tensor(row), True
    model.refuse_unknown(ids)
    inputs = {"input_ids": ids}
    if "attention_mask" in model.accepts:
        inputs["attention_mask"] = torch.cat([torch.ones(len(rows), before, dtype=torch.long), mask.long()], 1)
    if "position_ids" in model.accepts:
        inputs["position_ids"] = (before + torch.arange(ids.shape[1])).expand(ids.shape)
    return Batch({name: x.to(model.device) for name, x in inputs.items()}, mask.to(model.device))


def target_losses(logits: Float[Tensor, "places vocab"], targets: Int[Tensor, " places"]) -> Float[Tensor, " places"]:
    """Return -log p of a token at each place, on the CPU, float64; half precision is widened before the softmax.

    Args:
        logits: of the places.
        targets: the token that comes next.
    """
    x = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return torch.nn.functional.cross_entropy(x, targets.to(x.device), reduction="none").double().cpu()


def _by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield the numbers of rows in batches of like length, longest first; padding counts, a long row stands alone."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > most:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _token_ids(model: Model, texts: Sequence[str]) -> list[list[int]]:
    if model.tokenizer is None:
        raise DataError(f"Model '{model.name}' has no tokenizer, so bits of text cannot be counted; load it with one.")
    if isinstance(texts, str) or not len(texts):
        raise DataError(f"Bits of {'one string' if texts else 'no texts'} were asked for; give a list of texts.")
    ids = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    empty = next((i for i, row in enumerate(ids) if not len(row)), None)
    if empty is not None:
        raise DataError(f"Text {empty} has no tokens ({texts[empty]!r}); leave empty texts out.")
    return ids


def _windows(row: list[int], length: int | None, overlap: int) -> Iterator[tuple[list[int], int]]:
    """Yield (tokens, how many of the last of them are scored); what a window reads is all but its last token."""
    length = length or max(1, len(row) - 1)
    if not 0 <= overlap < length:
        raise DataError(f"Windows of {length} tokens were asked to overlap by {overlap}; give 0 to {length - 1}.")
    scored = 0  # tokens after the first that have been scored
    for first in range(0, max(0, len(row) - 1), length - overlap):
        window = row[first : first + length + 1]
        fresh = first + len(window) - 1 - scored
        if fresh > 0:
            yield window, fresh
            scored += fresh


@torch.no_grad()
def _losses(model: Model, rows: list[list[int]], scored: list[int]) -> np.ndarray:
    """Return the summed -log p of the last tokens of each row, [rows], nats."""
    batch = pad_right(model, [row[:-1] for row in rows])
    logits = run(model, batch).logits
    lengths = batch.mask.sum(1, keepdim=True)
    places = torch.arange(batch.seq, device=batch.mask.device)
    counted = batch.mask & (places >= lengths - torch.tensor(scored, device=batch.mask.device)[:, None])
    targets = torch.tensor([t for row, n in zip(rows, scored, strict=True) for t in row[-n:]])
    losses = target_losses(logits[counted.to(logits.device)], targets)
    return torch.zeros(len(rows), dtype=torch.float64).index_add(0, counted.nonzero()[:, 0].cpu(), losses).numpy()
