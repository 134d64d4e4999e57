"""What the zoo's recipes share: a small Llama, a byte-level tokenizer of given words, padded batches, a trained folder.

Token 0 begins a text, token 1 ends it and pads. What differs - sizes, data, weights of the loss, schedule - is said by
each recipe (`atlas.py`, `facts.py`, `parrot.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from microtome.models.quiet import without_progress_bars
from microtome.training.loop import Batch, Schedule, train

__all__ = ["BOS", "EOS", "Build", "byte_level", "padded", "small_llama", "train_folder"]

BOS, EOS = "<s>", "</s>"


@dataclass(frozen=True)
class Build:
    """How the models of a recipe were trained.

    Attributes:
        seed: of weights and corpus.
        steps: updates of each.
        batch: texts of one update.
        seconds: CPU seconds of training, all threads together.
    """

    seed: int
    steps: int
    batch: int
    seconds: float


def byte_level(words: Iterable[str], size: int, *, space_before: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learnt on words, each once; it puts `<s>` in front of every text.

    Args:
        words: what is to be a single token where there is room.
        size: most tokens.
        space_before: put a space before a text that begins without one.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_before)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=1, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(words, trainer)
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=EOS)


def small_llama(
    vocabulary: int,
    *,
    blocks: int,
    width: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    d_head: int,
    positions: int,
    theta: float = 10_000.0,
    tied: bool = False,
) -> LlamaConfig:
    """Return the architecture of a small Llama, for a vocabulary of this many tokens."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=d_head,
        initializer_range=0.05,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def padded(rows: Sequence[tuple[Sequence[int], Sequence[float]]]) -> Batch:
    """Return rows of (ids, weight of each id in the loss) as one batch; padding weighs nothing."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), 1)
    weights = torch.zeros(len(rows), longest)
    for i, (row, weight) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = torch.tensor(weight)
    return Batch(ids, weights)


def train_folder(
    out: Path | str,
    config: LlamaConfig,
    tokenizer: PreTrainedTokenizerFast,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    *,
    seed: int,
    run: str,
    dtype: torch.dtype = torch.float16,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Train a model and write config, weights and tokenizer; return the CPU seconds it took.

    Training that was killed resumes from `checkpoint.pt` in the folder; the file is removed at the end.

    Args:
        out: the folder; made if absent; plain transformers loads it afterwards.
        config: the architecture.
        tokenizer: written beside the weights.
        batches: makes the batch of any step.
        schedule: how long and how fast.
        seed: of the initial weights.
        run: what is trained, in words; a checkpoint of another run is refused.
        dtype: storage type.
        progress: called with (done, total, one line).

    Raises:
        ModelError: training diverged, or the folder holds the checkpoint of another run.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = LlamaForCausalLM(config)
    checkpoint = folder / "checkpoint.pt"
    seconds = train(module, batches, schedule, run=run, checkpoint=checkpoint, progress=progress)
    with without_progress_bars():
        module.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checkpoint.unlink(missing_ok=True)
    return seconds
