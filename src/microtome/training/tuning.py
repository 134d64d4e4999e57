"""Fine-tuned copies of a model: on texts, on preferences, and anything between a copy and the model.

- `fine_tuned`: next-token prediction, ``-mean_t log p(x_t | x_<t)``.
- `preferred`: DPO (Rafailov et al. 2023, arXiv 2305.18290; against toxicity Lee et al. 2024, arXiv 2401.01967),

      loss = -log sigmoid(beta ((log p(chosen) - log q(chosen)) - (log p(rejected) - log q(rejected))))

  p the copy, q the model as it was given, both after the pair's prompt; ln 2 before the first update.
- `blended`: weights ``(1 - share) * model + share * tuned``, so that a tuned model has a strength too.

TRL's trainers do the work: AdamW, warm-up for a tenth of the updates, then half a cosine, in float32 or finer. The rate
that is good for Adam falls with the width (arXiv 2203.03466), so the default one does. Rows are token ids, so no
tokenizer takes part. The model is never changed. Nothing is printed, reported, sent or left on disk, and the global
random state is afterwards what it was.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from microtome.core.errors import DataError, ModelError
from microtome.core.seeds import derive
from microtome.models.model import Model
from microtome.training.trl_settings import IGNORED, QUIET, on_one_device, one_word_tokenizer, undisturbed, unmasked

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["Preference", "blended", "fine_tuned", "preferred"]

_RATE = 0.03

Watch = Callable[[int, float], None]


class Preference(NamedTuple):
    """Two ways to go on after a prompt, as token ids.

    Attributes:
        prompt: what comes before.
        chosen: the better way to go on.
        rejected: the worse one.
    """

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


def fine_tuned(
    model: Model,
    rows: Sequence[Sequence[int]],
    *,
    steps: int,
    lr: float | None = None,
    batch: int = 16,
    seed: int,
    watch: Watch | None = None,
) -> Model:
    """Return a copy of a causal language model, trained to predict the tokens of some rows.

    Args:
        model: the model; it stays as it is.
        rows: token ids; a row of a single token has nothing to predict and is left out.
        steps: updates.
        lr: highest learning rate; None is 0.03 over the width of the model.
        batch: rows of one update.
        seed: of the order of the rows.
        watch: called after each update with (updates done, loss of its rows before it).

    Raises:
        DataError: no row with something to predict, or a setting out of range.
        ModelError: the model cannot be trained, training diverged, or TRL is not installed.

    Example:
        >>> tuned = fine_tuned(model, [model.tokenizer(t)["input_ids"] for t in texts], steps=60, seed=0)
    """
    settings = _settings(model, steps, lr, batch, seed, watch)
    data = [{"input_ids": list(row), "labels": [IGNORED, *row[1:]]} for row in rows if len(row) > 1]
    if not data:
        raise DataError(f"Fine-tuning on {len(rows)} rows was asked for, found none of two tokens or more; give texts.")
    with undisturbed(model.name, model.device), TemporaryDirectory() as folder:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        trainer = SFTTrainer(
            _trainable(model),
            on_one_device(SFTConfig(folder, dataset_kwargs={"skip_prepare_dataset": True}, **settings)),
            train_dataset=Dataset.from_list(data),
            processing_class=one_word_tokenizer(),
        )
        return _outcome(model, trainer, watch)


def preferred(
    model: Model,
    pairs: Sequence[Preference],
    *,
    steps: int,
    beta: float = 0.1,
    lr: float | None = None,
    batch: int = 16,
    seed: int,
    watch: Watch | None = None,
) -> Model:
    """Return a copy of a causal language model, trained by DPO to go on as preferred.

    Args:
        model: the model, which is the reference too; it stays as it is.
        pairs: what is preferred to what, after which prompt. Nothing is appended: where an end of text is meant, it is
            the last token.
        steps: updates.
        beta: how much it costs to leave the reference.
        lr: highest learning rate; None is 0.03 over the width of the model.
        batch: pairs of one update.
        seed: of the order of the pairs.
        watch: called after each update with (updates done, loss of its pairs before it).

    Raises:
        DataError: no pairs, one with an empty part, or a setting out of range.
        ModelError: the model cannot be trained, training diverged, or TRL is not installed.

    Example:
        >>> tuned = preferred(model, [Preference(prompt, [good], [bad])], steps=60, seed=0)
    """
    settings = _settings(model, steps, lr, batch, seed, watch)
    _check_pairs(pairs, beta)
    with undisturbed(model.name, model.device), TemporaryDirectory() as folder:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class OfTokens(DPOTrainer):
            """TRL's trainer, which would make token ids out of text; ours are there."""

            def _prepare_dataset(self, dataset, *args):
                return dataset

        trainer = OfTokens(
            _trainable(model),
            _trainable(model).requires_grad_(False),
            on_one_device(DPOConfig(folder, beta=beta, **settings)),
            train_dataset=Dataset.from_list([_columns(p) for p in pairs]),
            processing_class=one_word_tokenizer(),
        )
        return _outcome(model, trainer, watch)


def blended(model: Model, tuned: Model, share: float) -> Model:
    """Return a copy of a model whose weights lie on the line from its own to those of a tuned copy.

    Args:
        model: where share 0 is.
        tuned: where share 1 is.
        share: any number; past 1 the line goes on.

    Raises:
        ModelError: their weights are not of the same names and shapes.
        DataError: the share is not finite.
    """
    if not math.isfinite(share):
        raise DataError(f"A blend with share {share} was asked for; give a finite number.")
    own, other = (dict(m.module.named_parameters()) for m in (model, tuned))
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in other.items()}:
        raise ModelError(
            f"A blend of '{model.name}' and '{tuned.name}' was asked for, found weights of other names or shapes; "
            "blend a model with its tuned copy."
        )
    return _with_weights(model, {n: _between(p.detach(), other[n].detach(), share) for n, p in own.items()})


def _between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return (1 - share) a + share b, exactly a at 0 and b at 1, computed in float32 or finer."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return torch.lerp(a.to(wide), b.to(a.device, wide), share)


def _settings(
    model: Model, steps: int, lr: float | None, batch: int, seed: int, watch: Watch | None
) -> dict[str, object]:
    """Return what both trainers are told, checked."""
    if not hasattr(model.module, "generate") or any(p.device.type == "meta" for p in model.module.parameters()):
        raise ModelError(
            f"Tuning '{model.name}' was asked for, found a {type(model.module).__name__} that is no causal language "
            "model of transformers, or is partly offloaded; load such a model onto one device."
        )
    rate = _RATE / max(model.anatomy.d_model, 1) if lr is None else lr
    if steps < 1 or batch < 1 or not 0 < rate < math.inf:
        raise DataError(
            f"Tuning with steps {steps}, batch {batch} and lr {rate} was asked for; give 1 or more of the first two "
            "and a rate above 0."
        )
    return {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "learning_rate": rate,
        "warmup_steps": steps // 10,
        "seed": derive(seed, "tuning") % 2**32,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": model.device.type == "cpu",
        "logging_strategy": "no" if watch is None else "steps",
        "save_strategy": "no",
        **QUIET,
    }


def _check_pairs(pairs: Sequence[Preference], beta: float) -> None:
    if not pairs or not 0 < beta < math.inf:
        raise DataError(f"DPO on {len(pairs)} pairs with beta {beta} was asked for; give a pair and a beta above 0.")
    for i, pair in enumerate(pairs):
        if empty := [name for name, part in zip(Preference._fields, pair, strict=True) if not len(part)]:
            raise DataError(
                f"DPO on {len(pairs)} pairs was asked for, found pair {i} with an empty {empty[0]}; give each part a "
                "token."
            )


def _columns(pair: Preference) -> dict[str, list[int]]:
    return {f"{name}_ids": [int(i) for i in part] for name, part in zip(Preference._fields, pair, strict=True)}


def _trainable(model: Model) -> nn.Module:
    """Return a copy of the module to be trained and thrown away.

    Half precision would be too coarse for small updates. Whatever mode a trainer puts it into, nothing drops out.
    """
    module = copy.deepcopy(model.module).to(torch.promote_types(model.dtype, torch.float32)).requires_grad_(True)
    module.register_forward_pre_hook(_without_dropout)
    return module


def _without_dropout(module: nn.Module, _: tuple) -> None:
    for part in module.children():
        part.eval()


def _outcome(model: Model, trainer: "Trainer", watch: Watch | None) -> Model:
    """Train, and return a copy of the model with the weights found (the trainer's copy has other things changed)."""
    from transformers import PrinterCallback, TrainerCallback

    class Watching(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **rest):
            if watch is not None and "loss" in logs:
                watch(state.global_step, logs["loss"])

    trainer.data_collator = unmasked(trainer.data_collator)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watching)
    trainer.train()
    weights = dict(trainer.model.named_parameters())
    if not all(bool(w.isfinite().all()) for w in weights.values()):
        raise ModelError(
            f"Tuning '{model.name}' diverged at a learning rate of {trainer.args.learning_rate}; give a lower one."
        )
    return _with_weights(model, weights)


@torch.no_grad()
def _with_weights(model: Model, weights: Mapping[str, Tensor]) -> Model:
    module = copy.deepcopy(model.module)
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])
    return replace(model, module=module.eval())
