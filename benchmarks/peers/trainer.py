"""transformers' Trainer, which stands in our environment, on the same batches as a `Training`: one row an item."""

import time

import transformers
from torch import Tensor, tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.candidates import Candidate
from benchmarks.peers.plain_multilingual import MicroBatch, Trained, Training

__all__ = ["NAME", "trainer"]

NAME = f"transformers {transformers.__version__}, Trainer"


def trainer(task: Training, metric: str) -> Candidate:
    """Return the Trainer's way of a run."""
    rows = [row for parts in task.updates for part in parts for row in _rows(part)]
    return Candidate(NAME, metric, lambda: _trained(task, rows))


class _Clock(TrainerCallback):
    """Reads the clock before the first update and after the last."""

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.begun = time.perf_counter()

    def on_train_end(self, *_: object, **__: object) -> None:
        self.seconds = time.perf_counter() - self.begun


def _trained(task: Training, rows: list[dict[str, Tensor]]) -> Trained:
    sizes, cpu = task.sizes, task.work.device == "cpu"
    told = TrainingArguments(
        output_dir=str(task.work.scratch / "trainer"),
        max_steps=len(task.updates),
        per_device_train_batch_size=sizes.rows,
        gradient_accumulation_steps=sizes.parts,
        train_sampling_strategy="sequential",
        learning_rate=task.rate,
        lr_scheduler_type="constant",
        weight_decay=task.decay,
        adam_beta1=task.betas[0],
        adam_beta2=task.betas[1],
        adam_epsilon=task.eps,
        max_grad_norm=task.clip,
        optim="adamw_torch_fused",
        bf16=sizes.bf16,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    clock = _Clock()
    made = Trainer(task.fresh(), told, train_dataset=rows, callbacks=[clock])
    made.remove_callback(PrinterCallback)
    made.train()
    losses = tensor([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    return Trained(losses, clock.seconds)


def _rows(part: MicroBatch) -> list[dict[str, Tensor]]:
    """Return rows with labels that the model shifts by itself."""
    labels = part.wanted.roll(1, 1)
    labels[:, 0] = -100
    columns = {"input_ids": part.ids, "labels": labels}
    if part.positions is not None:
        columns["position_ids"] = part.positions
    return [{name: column[i] for name, column in columns.items()} for i in range(len(part.ids))]
