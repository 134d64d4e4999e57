"""A pre-prompt: the same tokens before every prompt. No edit of a tensor: it changes the input, so it makes a batch.

With no prefix the batch is that of the prompts alone. Tokens that a tokenizer puts at the very beginning (BOS) belong
before the prefix, so `after` says how many of each row stay in front.
"""

from collections.abc import Sequence

from microtome.core.errors import DataError
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["pre_prompted"]


def pre_prompted(model: Model, rows: Sequence[Sequence[int]], prefix: Sequence[int], *, after: int = 0) -> Batch:
    """Return the batch of prompts with a prefix.

    Args:
        model: the model.
        rows: token ids of each prompt.
        prefix: token ids to put before each.
        after: how many tokens of each prompt stay before the prefix (1 where rows begin with BOS).

    Raises:
        DataError: a prompt is empty or shorter than `after`.
    """
    short = next((i for i, row in enumerate(rows) if len(row) < after), None)
    if after < 0 or short is not None:
        raise DataError(
            f"A prefix after {after} tokens was asked for, found row {short} shorter; give a smaller `after`."
        )
    return model.batch_ids([[*row[:after], *prefix, *row[after:]] for row in rows])
