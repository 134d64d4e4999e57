"""TRL's trainers made to behave: nothing printed, reported or sent, one device, no state of the process changed.

What `tuning` (token ids in memory) and `chat` (folders, conversations) have in common.
"""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from microtome.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, TrainingArguments

__all__ = ["IGNORED", "QUIET", "on_one_device", "one_word_tokenizer", "undisturbed", "unmasked"]

IGNORED = -100
"""The label of a token that no loss is taken at."""

QUIET = {
    "lr_scheduler_type": "cosine",
    "max_length": None,
    "router_aux_loss_coef": 0.0,
    "dataloader_pin_memory": False,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "log_level": "error",
    "report_to": "none",
    "disable_tqdm": True,
}
"""What every trainer is told: half a cosine, rows as they are, nothing said."""


def unmasked(collate: Callable[[list], dict[str, Tensor]]) -> Callable[[list], dict[str, Tensor]]:
    """Let padding be seen: it is on the right, where causal attention does not look.

    Masked out, it leaves rows of attention with nothing to look at (a sliding window), and their gradient is NaN.
    """

    def collated(rows: list) -> dict[str, Tensor]:
        made = collate(rows)
        return {**made, "attention_mask": torch.ones_like(made["attention_mask"])}

    return collated


def on_one_device(settings: "TrainingArguments") -> "TrainingArguments":
    """Keep the trainer from spreading the model over all GPUs that it sees."""
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings


def one_word_tokenizer() -> "PreTrainedTokenizerFast":
    """Return what the trainers insist on: of a tokenizer only the padding is used, any id will do."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<pad>")


@contextmanager
def undisturbed(name: str, device: torch.device) -> Iterator[None]:
    """Put back, afterwards, all that trainers set for the whole process.

    Args:
        name: of the model, for errors.
        device: where it is trained.

    Raises:
        ModelError: TRL is not installed.
    """
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"Tuning '{name}' was asked for, found no TRL ({error}); install it: pip install 'microtome[train]'."
        ) from None
    from huggingface_hub import constants
    from transformers.utils import logging

    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.callback(logging.set_verbosity, logging.get_verbosity())
        stack.callback(setattr, constants, "HF_HUB_DISABLE_TELEMETRY", constants.HF_HUB_DISABLE_TELEMETRY)
        constants.HF_HUB_DISABLE_TELEMETRY = True
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)  # of TRL to transformers: what it will have to rename
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
