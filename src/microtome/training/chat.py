"""Chat models: instruction tuning and preferences on a folder's model, as FuxiTranyu's (arXiv 2408.06273, section 4).

    sft    -mean_t log p(x_t | x_<t)  over the tokens t of what the assistant says, and its end; AdamW, warm-up for a
           tenth of the updates, then half a cosine; noise on the embeddings (NEFTune, arXiv 2310.05914)
    dpo    -log sigmoid(beta ((log p(chosen) - log q(chosen)) - (log p(rejected) - log q(rejected))))
           (arXiv 2305.18290), p the copy, q the model as it was given, frozen; ln 2 before the first update

The paper: learning rates 2e-5 and 5e-7, 2 epochs and 1, 320 rows an update, 4096 tokens, beta 0.01 - the defaults here
but for rows and tokens. It says neither how much noise NEFTune had (5 here, the smallest of its authors' settings) nor
whether prompts counted (here they do not). TRL's trainers do the work; they see token ids, so that tokens are masked,
cut and counted in `chat_rows`. bfloat16 products on CUDA, float32 on CPUs, the same code; one device. What is written
and how a killed run resumes is in `chat_folders`; nothing is printed, reported or sent.

    tuned = sft("base", conversations, "chat", batch=32)
    aligned = dpo(tuned.folder, pairs, "chat-dpo", batch=32)
"""

from collections.abc import Callable, Sequence
from math import ceil, inf
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.instructions.schema import Conversation, PreferencePair
from microtome.models.model import Model
from microtome.training.chat_folders import Tuned, load_tuned
from microtome.training.chat_rows import conversation_rows, pair_rows, refuse_unfit
from microtome.training.chat_trainers import Asked, Progress, tune

__all__ = ["Tuned", "dpo", "load_tuned", "sft"]


def sft(
    folder: Path | str,
    conversations: Sequence[Conversation],
    out: Path | str,
    *,
    epochs: float = 2.0,
    steps: int | None = None,
    lr: float = 2e-5,
    warm_up: float = 0.1,
    batch: int = 16,
    micro: int | None = None,
    longest: int | None = None,
    neftune: float | None = 5.0,
    assistant_only: bool = True,
    recompute: bool = False,
    seed: int = 0,
    save_every: int | None = None,
    progress: Progress | None = None,
    on_resume: Callable[[int], object] | None = None,
) -> Tuned:
    """Train a folder's model to answer as in some conversations, and write the result to another folder.

    Args:
        folder: a causal language model with a tokenizer that has a chat template.
        conversations: what to train on.
        out: folder to write; what is there already is returned if it was made of the same.
        epochs: times each conversation is seen.
        steps: updates, whatever the epochs; None goes by these.
        lr: highest learning rate.
        warm_up: share of the updates in which the rate rises.
        batch: conversations of an update.
        micro: conversations of a forward pass, a divisor of the batch; None for all of them.
        longest: tokens of a conversation, the rest is cut off; None for as many as the model takes.
        neftune: noise on the embeddings while training; None for none.
        assistant_only: take the loss at what the assistant says alone.
        recompute: save memory by running each block again in the backward pass.
        seed: of the order and the noise.
        save_every: updates from one checkpoint to the next; None for ten in all.
        progress: called after each update with (updates done, updates in all, one line).
        on_resume: called with the updates already done, when a run that was killed goes on.

    Raises:
        DataError: a conversation without an answer, none that fits, or a setting out of range.
        ModelError: no chat model can be made of the folder's, training diverged, or `out` is something else.

    Example:
        >>> tuned = sft("base", conversations, "chat", steps=200, batch=32, lr=1e-4)
        >>> tuned.losses[0], tuned.counts["truncated"]
    """
    model = _load(folder)
    if neftune is not None and not 0 < neftune < inf:
        raise DataError(f"NEFTune with noise {neftune} was asked for; give a number above 0, or None.")
    rows = conversation_rows(model, conversations, longest=_longest(model, longest), assistant_only=assistant_only)
    count = _steps(len(rows.rows), batch, micro or batch, epochs, steps)
    own = {"neftune_noise_alpha": neftune}
    every = save_every if save_every is not None else max(1, ceil(count / 10))
    asked = Asked("sft", count, lr, warm_up, batch, micro or batch, seed, every, recompute, own)
    return tune(model, rows, asked, Path(out), progress=progress, on_resume=on_resume)


def dpo(
    folder: Path | str,
    pairs: Sequence[PreferencePair],
    out: Path | str,
    *,
    epochs: float = 1.0,
    steps: int | None = None,
    beta: float = 0.01,
    lr: float = 5e-7,
    warm_up: float = 0.1,
    batch: int = 16,
    micro: int | None = None,
    longest: int | None = None,
    recompute: bool = False,
    seed: int = 0,
    save_every: int | None = None,
    progress: Progress | None = None,
    on_resume: Callable[[int], object] | None = None,
) -> Tuned:
    """Train a folder's model to prefer some answers to others, and write the result to another folder.

    Args:
        folder: a chat model, which is the reference too.
        pairs: what is preferred to what.
        out: folder to write; what is there already is returned if it was made of the same.
        epochs: times each pair is seen.
        steps: updates, whatever the epochs; None goes by these.
        beta: how much it costs to leave the reference.
        lr: highest learning rate.
        warm_up: share of the updates in which the rate rises.
        batch: pairs of an update.
        micro: pairs of a forward pass, a divisor of the batch; None for all of them.
        longest: tokens of prompt and answer, the rest is cut off; None for as many as the model takes.
        recompute: save memory by running each block again in the backward pass.
        seed: of the order.
        save_every: updates from one checkpoint to the next; None for ten in all.
        progress: called after each update with (updates done, updates in all, one line).
        on_resume: called with the updates already done, when a run that was killed goes on.

    Raises:
        DataError: no pair that fits, or a setting out of range.
        ModelError: as for `sft`.

    Example:
        >>> aligned = dpo("chat", pairs, "chat-dpo", steps=100, batch=32)
        >>> aligned.margins[-1]
    """
    model = _load(folder)
    if not 0 < beta < inf:
        raise DataError(f"DPO with beta {beta} was asked for; give a number above 0.")
    rows = pair_rows(model, pairs, longest=_longest(model, longest))
    count = _steps(len(rows.rows), batch, micro or batch, epochs, steps)
    every = save_every if save_every is not None else max(1, ceil(count / 10))
    asked = Asked("dpo", count, lr, warm_up, batch, micro or batch, seed, every, recompute, {"beta": beta})
    return tune(model, rows, asked, Path(out), progress=progress, on_resume=on_resume)


def _load(folder: Path | str) -> Model:
    model = Model.load(str(folder), anatomy=False)
    refuse_unfit(model)
    return model


def _longest(model: Model, asked: int | None) -> int:
    """Return how many tokens a row may have."""
    limit = getattr(model.module.config, "max_position_embeddings", None)
    if asked is None:
        return limit or 4096
    if asked < 2 or (limit and asked > limit):
        raise DataError(f"Rows of {asked} tokens were asked for, '{model.name}' takes 2 to {limit or 'any number'}.")
    return asked


def _steps(rows: int, batch: int, micro: int, epochs: float, steps: int | None) -> int:
    """Return the number of updates: an epoch's last one may be of fewer rows."""
    if steps is not None:
        return steps
    if not 0 < epochs < inf or min(batch, micro) < 1:
        raise DataError(
            f"Tuning for {epochs} epochs with batch {batch} in parts of {micro} was asked for; give numbers above 0."
        )
    return max(1, round(epochs * ceil(ceil(rows / micro) / max(1, batch // micro))))
