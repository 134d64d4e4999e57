"""Generation with edits: the model's own `generate` (cache, sampling, stopping), run under this engine's hooks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.core.errors import EditError, ModelError
from microtome.engine.edit import Edit
from microtome.engine.run import Bound, Session
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["generate"]


def generate(
    model: Model,
    batch: Batch,
    max_new_tokens: int,
    *,
    edits: Sequence[Edit] = (),
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return the token ids that follow each prompt, [batch, new tokens].

    Args:
        model: a causal language model.
        batch: left-padded prompts.
        max_new_tokens: at most this many new tokens.
        edits: changes made throughout. Positions count from the start of the (padded) prompt, negative ones from its
            end; without positions an edit acts on the prompt and on every new token.
        sample: draw from the distribution instead of taking the most likely token.
        temperature: softmax temperature when sampling.
        seed: of the draw; the global random state is left as it was.

    Raises:
        EditError: weight edits (export the edited model instead).
        ModelError: the module cannot generate.
    """
    if not hasattr(model.module, "generate"):
        raise ModelError(f"Model '{model.name}' is a {type(model.module).__name__}, which has no generate; use run.")
    weights = [e.site for e in edits if e.site in model.weights]
    if weights:
        raise EditError(
            f"generate cannot edit the weight '{weights[0]}'; export the edited model and generate with it."
        )
    session = Session(model, batch, [], [Bound(e, 0, len(batch)) for e in edits], False, None)
    session.prompt = batch.seq
    inputs = {k: v for k, v in batch.inputs.items() if k in ("input_ids", "attention_mask")}
    options = {"do_sample": sample, "max_new_tokens": max_new_tokens}
    if sample:
        options["temperature"] = temperature
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        out = session.forward({**inputs, **options}, {}, model.module.generate)
    return out[:, batch.seq :]
