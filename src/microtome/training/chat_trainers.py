"""TRL's trainers on one folder's model, told what to do and made to go on where a killed run was.

The trainers see token ids, take no part in how conversations become them, and work on copies: what is kept of them is
weights and the log. They resume from their own checkpoints, the whole ones (`chat_folders`), with the batches and
random numbers that an unbroken run would have had, and so with its losses: to the last bit where the arithmetic is
repeatable.
"""

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from microtome.core.errors import DataError, ModelError
from microtome.core.files import replace_with
from microtome.core.seeds import derive
from microtome.models.digest import weights_digest
from microtome.models.model import Model
from microtome.models.quiet import without_progress_bars
from microtome.records.keys import content_key
from microtome.training.chat_folders import Tuned, begin, finished, load_tuned, mark_whole, work_folder, write_tuned
from microtome.training.chat_rows import TokenRows
from microtome.training.trl_settings import QUIET, on_one_device, one_word_tokenizer, undisturbed, unmasked

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["Asked", "Progress", "tune"]

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Asked:
    """What is asked of a trainer, whichever it is.

    Attributes:
        kind: `sft` or `dpo`.
        steps: updates.
        lr: highest learning rate.
        warm_up: share of the updates in which the rate rises.
        batch: rows of an update.
        micro: rows of a forward pass; divides the batch.
        seed: of order, dropout and noise.
        save_every: updates from one checkpoint to the next.
        recompute: keep no activations between forward and backward pass.
        own: settings of the trainer's own, by TRL's names.

    Raises:
        DataError: a number out of range.
    """

    kind: str
    steps: int
    lr: float
    warm_up: float
    batch: int
    micro: int
    seed: int
    save_every: int
    recompute: bool = False
    own: dict[str, object] = field(default_factory=dict)

    def __post_init__(self):
        whole = min(self.steps, self.batch, self.micro, self.save_every) >= 1
        if not whole or self.batch % max(self.micro, 1) or not 0 < self.lr < math.inf or not 0 <= self.warm_up <= 1:
            raise DataError(
                f"Tuning with steps {self.steps}, batch {self.batch} in parts of {self.micro}, lr {self.lr}, warm_up "
                f"{self.warm_up} and save_every {self.save_every} was asked for; give whole numbers of 1 or more, "
                "parts that divide the batch, a rate above 0 and a share from 0 to 1."
            )

    def settings(self) -> dict[str, object]:
        """Return what the trainer is told."""
        gpu = torch.cuda.is_available()
        return {
            "max_steps": self.steps,
            "learning_rate": self.lr,
            "warmup_steps": math.ceil(self.warm_up * self.steps),
            "per_device_train_batch_size": self.micro,
            "gradient_accumulation_steps": self.batch // self.micro,
            "seed": derive(self.seed, "chat", self.kind) % 2**32,
            "save_strategy": "steps",
            "save_steps": self.save_every,
            "save_total_limit": 2,  # the newer of them may be half written
            "gradient_checkpointing": self.recompute,
            "bf16": gpu,
            "use_cpu": not gpu,
            "logging_strategy": "steps",
            **QUIET,
            **self.own,
        }


def tune(
    model: Model,
    rows: TokenRows,
    asked: Asked,
    out: Path,
    *,
    progress: Progress | None,
    on_resume: Callable[[int], object] | None,
) -> Tuned:
    """Train a copy of a model and write it to a folder; or return what is there, if it is that.

    Args:
        model: from a folder, with its tokenizer.
        rows: what to train on.
        asked: how.
        out: the folder to write.
        progress: called after each update with (updates done, updates in all, one line).
        on_resume: called with the updates already done, when a run that was killed goes on.

    Raises:
        ModelError: `out`, or its work folder, is of something else; training diverged; TRL is not installed.
    """
    settings = {name: value for name, value in asdict(asked).items() if name != "save_every"}  # changes nothing
    key = content_key(settings=settings, rows=rows.digest, weights=weights_digest(model.module), type=str(model.dtype))
    work = work_folder(out)
    if out.exists():
        found = finished(out, key)
        shutil.rmtree(work, ignore_errors=True)
        return found
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with undisturbed(model.name, device), without_progress_bars():
        done = begin(work, key)
        trainer = _trainer(model, rows, asked, work)
        _watch(trainer, progress)
        if done is not None and on_resume is not None:
            on_resume(int(done.name.rpartition("-")[2]))
        trainer.train(resume_from_checkpoint=str(done) if done is not None else None)
        log = _log(asked, rows, trainer.state.log_history)
        _take_weights(model, trainer, log["losses"], asked.lr)
        _end_turns(model, rows.end)
        replace_with(out, lambda part: write_tuned(part, model, key, log))
    shutil.rmtree(work, ignore_errors=True)
    return load_tuned(out)


def _trainer(model: Model, rows: TokenRows, asked: Asked, work: Path) -> "Trainer":
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    data, tokenizer = Dataset.from_list(rows.rows), one_word_tokenizer()
    if asked.kind == "sft":
        told = SFTConfig(str(work), dataset_kwargs={"skip_prepare_dataset": True}, **asked.settings())
        models = {"model": _trainable(model)}
    else:
        told = DPOConfig(str(work), **asked.settings())
        models = {"model": _trainable(model), "ref_model": _trainable(model).requires_grad_(False)}

    class OfTokens(SFTTrainer if asked.kind == "sft" else DPOTrainer):
        """TRL's trainer, which would make token ids out of text, ours being there; and a card for every checkpoint."""

        def _prepare_dataset(self, dataset, *args):
            return dataset

        def create_model_card(self, *args, **settings):
            return None

    trainer = OfTokens(**models, args=on_one_device(told), train_dataset=data, processing_class=tokenizer)
    trainer.data_collator = unmasked(trainer.data_collator)
    return trainer


def _trainable(model: Model) -> nn.Module:
    """Return a copy to be trained: half precision would be too coarse for small updates."""
    return copy.deepcopy(model.module).to(torch.promote_types(model.dtype, torch.float32)).requires_grad_(True)


def _watch(trainer: "Trainer", progress: Progress | None) -> None:
    """Let a trainer say how it goes, and only so, and mark its checkpoints once they are whole."""
    from transformers import PrinterCallback, TrainerCallback

    class Watching(TrainerCallback):
        def on_save(self, args, state, control, **rest):
            mark_whole(Path(args.output_dir), state.global_step)

        def on_log(self, args, state, control, logs=None, **rest):
            if progress is not None and "loss" in logs:
                margin = f", margin {logs['rewards/margins']:+.4f}" if "rewards/margins" in logs else ""
                progress(state.global_step, state.max_steps, f"loss {logs['loss']:.4f}{margin}")

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watching)


def _log(asked: Asked, rows: TokenRows, history: list[dict]) -> dict[str, object]:
    """Return what is told of a training, as JSON."""
    updates = [entry for entry in history if "loss" in entry]

    def column(name: str) -> list[float]:
        return [float(entry[name]) for entry in updates if name in entry]

    return {
        "kind": asked.kind,
        "losses": column("loss"),
        "rates": column("learning_rate"),
        "norms": column("grad_norm"),
        "margins": column("rewards/margins"),
        "accuracies": column("rewards/accuracies"),
        "counts": rows.counts,
        "settings": {k: v for k, v in asdict(asked).items() if k not in ("kind", "own")} | asked.own,
    }


@torch.no_grad()
def _take_weights(model: Model, trainer: "Trainer", losses: list[float], lr: float) -> None:
    """Put the weights found into the module that was loaded (the trainer's has other things changed)."""
    found = dict(trainer.model.named_parameters())
    if not all(map(math.isfinite, losses)) or not all(bool(w.isfinite().all()) for w in found.values()):
        raise ModelError(f"Tuning '{model.name}' diverged at a learning rate of {lr}; give a lower one.")
    for name, parameter in model.module.named_parameters():
        parameter.copy_(found[name])


def _end_turns(model: Model, end: int | None) -> None:
    """Let generation stop where an answer ends, and pad as the tokenizer does."""
    settings = model.module.generation_config
    before = settings.eos_token_id
    known = [] if before is None else [before] if isinstance(before, int) else list(before)
    if end is not None and end not in known:
        settings.eos_token_id = [end, *known]
    if settings.pad_token_id is None:
        settings.pad_token_id = model.tokenizer.pad_token_id
