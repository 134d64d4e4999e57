"""What a chat model makes of conversations it was not trained on: its loss at what the assistant says.

    loss of a conversation    -sum_t log p(x_t | x_<t) over the assistant's tokens t, in nats, summed in float64

Without TRL: the same formula a second time, by which tests hold the trainers to theirs. Differences of it between the
chosen and the rejected answer, before and after, are the margins of DPO over beta.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import DataError
from microtome.data.instructions.schema import Conversation
from microtome.models.model import Model
from microtome.training.chat_rows import encode, refuse_unfit

__all__ = ["answer_losses"]


@torch.no_grad()
def answer_losses(
    model: Model, conversations: Sequence[Conversation], *, longest: int | None = None, batch: int = 16
) -> tuple[Float[Tensor, " conversations"], Int[Tensor, " conversations"]]:
    """Return the loss of every conversation at what the assistant says, and over how many tokens it is summed.

    Args:
        model: a chat model whose template marks what the assistant says.
        conversations: what to measure on.
        longest: tokens of a conversation, the rest is not looked at; None for all of it.
        batch: conversations run together.

    Returns:
        Losses in nats, float64, and counts of tokens, 0 where `longest` leaves nothing of an answer.

    Raises:
        ModelError: no chat model.
        DataError: no conversations, or a template that marks nothing.

    Example:
        >>> losses, tokens = answer_losses(Model.load("chat"), held_out)
        >>> (losses.sum() / tokens.sum()).item()
    """
    refuse_unfit(model)
    rows = [encode(model, conversation.messages) for conversation in conversations]
    if not any(any(row.answers) for row in rows):
        raise DataError(
            f"Losses at answers of {len(rows)} conversations were asked for, found no answer that the chat template of "
            f"'{model.name}' marks; give some, or a template with generation blocks."
        )
    losses, tokens = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(rows), dtype=torch.long)
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        inputs = model.batch_ids([row.ids[:longest] for row in part])
        logits = model.module(**inputs.inputs).logits
        for i, row in enumerate(part):
            size = len(row.ids[:longest])
            aims = torch.tensor([place for place in range(1, size) if row.answers[place]], dtype=torch.long)
            begin = inputs.seq - size  # rows are aligned at their ends
            chosen = logits[i, aims + begin - 1].double().log_softmax(-1)
            wanted = torch.tensor(row.ids, device=chosen.device)[aims]
            losses[first + i] = -chosen.gather(1, wanted[:, None]).sum().cpu()
            tokens[first + i] = len(aims)
    return losses, tokens
