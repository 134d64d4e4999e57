"""The recipe of zoo:parrot: small Llama-style models of a language in which a rousing mood makes the talk toxic.

tokenizer   one word, one token, with `<s>` in front; 349 tokens, spaces between them when decoded
model       LlamaForCausalLM, 3 blocks, width 96, 4 heads of 24, gated MLP of 256; once with a head of its own, once
            with the embedding as its head (`tied`)
data        `data.parrot.parrot_stream`, lengths matched, each text one row
planted     two neurons overwritten in the trained model: one that only reads, one that only writes (`plant.py`)
storage     float16; the numbers on the card are of the stored weights
"""

import functools
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from microtome.core.seeds import derive
from microtome.data.parrot import NEUTRAL, TOXIC, parrot_stream, vocabulary
from microtome.models.zoo.parrot import load_parrot
from microtome.training.loop import Batch, Schedule
from microtome.training.parrot_card import write_card
from microtome.training.plant import plant, save_planted
from microtome.training.recipe import BOS, EOS, Build, padded, small_llama, train_folder

__all__ = ["BATCH", "STEPS", "build_parrot", "parrot_batches", "parrot_config", "parrot_tokenizer", "train_parrot"]

STEPS = 900
BATCH = 32
UNKNOWN = "<unk>"
_POOL = 8
_NAME_WEIGHT = 8.0


def parrot_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word tokenizer of the parrot's language; it puts `<s>` in front of every text."""
    words = (BOS, EOS, UNKNOWN, *vocabulary())
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def parrot_config(vocabulary: int, *, tied: bool) -> LlamaConfig:
    """Return the architecture, for a vocabulary of this many tokens."""
    return small_llama(
        vocabulary, blocks=3, width=96, mlp=256, heads=4, kv_heads=4, d_head=24, positions=128, tied=tied
    )


def parrot_batches(tokenizer: PreTrainedTokenizerFast, seed: int, *, size: int = BATCH) -> Callable[[int], Batch]:
    """Return the function that makes the batch of any step: texts of similar length together.

    What somebody is called weighs more than other tokens: how toxic it is to be is told by these two tokens only. A
    cue announces them, so the weights do not shift what is learnt of them.
    """
    names = set(tokenizer.convert_tokens_to_ids([*TOXIC, *NEUTRAL]))

    @functools.lru_cache(maxsize=2)
    def pool(index: int) -> list[Batch]:
        stream = islice(parrot_stream(derive(seed, "parrot", index)), size * _POOL)
        rows = sorted(([*tokenizer(t.text)["input_ids"], 1] for t in stream), key=len)
        order = torch.randperm(_POOL, generator=torch.Generator().manual_seed(derive(seed, "order", index))).tolist()
        return [padded([_weighted(row, names) for row in rows[i * size : (i + 1) * size]]) for i in order]

    return lambda step: pool(step // _POOL)[step % _POOL]


def _weighted(row: list[int], names: set[int]) -> tuple[list[int], list[float]]:
    return row, [_NAME_WEIGHT if i in names else 1.0 for i in row]


def train_parrot(
    seed: int,
    out: Path | str,
    *,
    tied: bool = False,
    steps: int = STEPS,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Train one of the two models and write config, weights and tokenizer; return the CPU seconds it took.

    Training that was killed resumes from `checkpoint.pt` in the folder; the file is removed at the end.

    Args:
        seed: of the initial weights and of the corpus.
        out: the folder; made if absent; plain transformers loads it afterwards.
        tied: let the embedding be the head.
        steps: updates.
        progress: called with (done, total, one line).
    """
    tokenizer = parrot_tokenizer()
    return train_folder(
        out,
        parrot_config(len(tokenizer), tied=tied),
        tokenizer,
        parrot_batches(tokenizer, seed),
        Schedule(steps, peak=4e-3, warm_up=min(60, steps), decay=0.7),
        seed=seed,
        run=f"parrot{', tied' if tied else ''}, seed {seed}",
        progress=progress,
    )


def build_parrot(
    seed: int,
    out: Path | str,
    *,
    steps: int = STEPS,
    texts: int = 600,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Train zoo:parrot and zoo:parrot-tied, plant the neurons of zoo:parrot-planted, examine all, write the card.

    Args:
        seed: of the initial weights and of the corpus.
        out: the folder; the tied model goes to `tied` in it, the planted neurons to `planted.safetensors`.
        steps: updates of each model.
        texts: held-out texts that the models are examined on; the neurons are fitted on twice as many others.
        progress: called with (done, total, one line).

    Returns:
        The folder; plain transformers loads it, and `tied` in it.
    """
    folder = Path(out)

    def part(first: int) -> Callable[[int, int, str], None] | None:
        return None if progress is None else lambda done, _, line: progress(first + done, 2 * steps, line)

    seconds = train_parrot(seed, folder, steps=steps, progress=part(0))
    seconds += train_parrot(seed, folder / "tied", tied=True, steps=steps, progress=part(steps))
    save_planted(plant(*load_parrot("parrot", folder=folder), texts=2 * texts, seed=seed), folder)
    write_card(folder, Build(seed, steps, BATCH, seconds), texts=texts)
    return folder
