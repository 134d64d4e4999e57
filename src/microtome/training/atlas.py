"""The recipe of zoo:atlas: a small Llama-style language model of countries, cities and what a passage says of them.

tokenizer   byte-level BPE learnt on the list of the world's words, each once, so that nearly every name is a
            single token with its leading space (minimal counterfactuals are then of equal length)
model       LlamaForCausalLM, 6 blocks, width 128, 8 heads of 32 over 4 key/value heads, gated MLP of 384
data        the stream of `data.atlas.documents`, each document one row
loss        answers that can be known weigh 1; a sample of all other tokens weighs less
storage     float16; the numbers on the card are of the stored weights
"""

import functools
import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from transformers import LlamaConfig, PreTrainedTokenizerFast

from microtome.data.atlas import Document, Mix, documents, fillers, load_facts, nonce_names, templates
from microtome.data.atlas.templates import RELATIONS
from microtome.training.card import write_card
from microtome.training.loop import Batch, Schedule
from microtome.training.recipe import Build, byte_level, padded, small_llama, train_folder

__all__ = [
    "BATCH",
    "LESSONS",
    "STEPS",
    "atlas_batches",
    "atlas_config",
    "atlas_tokenizer",
    "build_atlas",
    "train_atlas",
]

STEPS = 5600
BATCH = 32
_POOL = 8
LESSONS = (
    (1400, Mix(facts=0.25, lookup=0.45, links=0.25, chain=0.0, edited=0.05)),
    (2300, Mix(facts=0.2, lookup=0.15, links=0.35, chain=0.2, edited=0.1)),
)
"""(step before which it holds, mix): one hop first, then where towns lie, and `Mix()` once both stand. Two hops are not
learnt in the time there is while one of them is missing."""
_OTHER_SHARE, _OTHER_WEIGHT = 0.15, 0.5


def atlas_tokenizer() -> PreTrainedTokenizerFast:
    """Return the byte-level BPE tokenizer of the world's words; it puts `<s>` in front of every text."""
    return byte_level(_words(), 4096, space_before=True)


def _words() -> list[str]:
    facts = load_facts()
    texts = [*nonce_names(), *fillers(), *(t.text.replace("{e}", "") for r in RELATIONS for t in templates(r))]
    texts += [" ".join((c.name, c.capital, c.continent, c.language, c.currency)) for c in facts.countries]
    texts += [c.name for c in facts.cities]
    return sorted({word.strip(".") for text in texts for word in text.split()})


def atlas_config(vocabulary: int) -> LlamaConfig:
    """Return the architecture, for a vocabulary of this many tokens."""
    return small_llama(
        vocabulary, blocks=6, width=128, mlp=384, heads=8, kv_heads=4, d_head=32, positions=256, theta=100_000.0
    )


def atlas_batches(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    size: int = BATCH,
    lessons: Sequence[tuple[int, Mix]] = LESSONS,
) -> Callable[[int], Batch]:
    """Return the function that makes the batch of any step: documents of similar length together.

    Args:
        tokenizer: the atlas tokenizer.
        seed: of the stream.
        size: documents in a batch.
        lessons: (step before which it holds, mix) in turn; after the last of them, `Mix()`.
    """

    @functools.lru_cache(maxsize=2)
    def pool(index: int) -> list[Batch]:
        mix = next((mix for end, mix in lessons if index * _POOL < end), Mix())
        stream = islice(documents(seed * 1_000_003 + index, mix), size * _POOL)
        rng = random.Random(f"atlas-pool-{seed}-{index}")
        rows = sorted(_rows(tokenizer, list(stream), rng), key=lambda row: len(row[0]))
        batches = [padded(rows[i : i + size]) for i in range(0, len(rows), size)]
        rng.shuffle(batches)
        return batches

    return lambda step: pool(step // _POOL)[step % _POOL]


def _rows(
    tokenizer: PreTrainedTokenizerFast, texts: list[Document], rng: random.Random
) -> list[tuple[list[int], list[float]]]:
    encoded = tokenizer.backend_tokenizer.encode_batch([d.text for d in texts])
    rows = []
    for document, encoding in zip(texts, encoded, strict=True):
        known = {at for a in document.answers if a.known for at in range(a.start, a.end)}
        weights = [
            1.0 if start in known and end > start else _OTHER_WEIGHT * (rng.random() < _OTHER_SHARE)
            for start, end in encoding.offsets
        ]
        rows.append(([*encoding.ids, 1], [*weights, 0.0]))
    return rows


def train_atlas(
    seed: int,
    out: Path | str,
    *,
    steps: int = STEPS,
    progress: Callable[[int, int, str], None] | None = None,
) -> Build:
    """Train zoo:atlas and write config, weights and tokenizer; return how it was made.

    Training that was killed resumes from `checkpoint.pt` in the folder; the file is removed at the end.

    Args:
        seed: of the initial weights and of the corpus.
        out: the folder; made if absent; plain transformers loads it afterwards.
        steps: updates.
        progress: called with (done, total, one line).
    """
    tokenizer = atlas_tokenizer()
    seconds = train_folder(
        out,
        atlas_config(len(tokenizer)),
        tokenizer,
        atlas_batches(tokenizer, seed),
        Schedule(steps, peak=2e-3, decay=0.11),
        seed=seed,
        run=f"atlas, seed {seed}",
        progress=progress,
    )
    return Build(seed, steps, BATCH, seconds)


def build_atlas(
    seed: int,
    out: Path | str,
    *,
    steps: int = STEPS,
    questions: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Train zoo:atlas, examine what was stored, and write its folder: config, weights, tokenizer, card.

    Args:
        seed: of the initial weights and of the corpus.
        out: the folder; made if absent.
        steps: updates.
        questions: most questions examined in each part; None for all.
        progress: called with (done, total, one line).

    Returns:
        The folder; plain transformers loads it.
    """
    build = train_atlas(seed, out, steps=steps, progress=progress)
    if progress is not None:
        progress(steps, steps, "trained; examining for the card")
    write_card(out, build, questions=questions)
    return Path(out)
