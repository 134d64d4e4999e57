"""Generation with edits: the model's own `generate` (cache, sampling, stopping), run under this engine's hooks.

An edit changes a tensor of this model. What other models have to say about the next token (DExperts) is a rule instead:
a function from what is written so far and the logits to new logits, applied before sampling.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from microtome.core.errors import EditError, ModelError
from microtome.engine.edit import Edit
from microtome.engine.run import Bound, Session
from microtome.models.batch import Batch
from microtome.models.model import Model

__all__ = ["Rule", "generate"]

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From token ids and mask so far, both [batch, seq], and the next token's logits [batch, vocab], to new logits."""


def generate(
    model: Model,
    batch: Batch,
    max_new_tokens: int,
    *,
    edits: Sequence[Edit] = (),
    rules: Sequence[Rule] = (),
    sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return the token ids that follow each prompt, [batch, new tokens].

    Args:
        model: a causal language model.
        batch: left-padded prompts.
        max_new_tokens: at most this many new tokens.
        edits: changes made throughout. Positions count from the start of the (padded) prompt, negative ones from its
            end; without positions an edit acts on the prompt and on every new token.
        rules: changes of the next token's logits, in order, after the edits and before temperature and sampling.
        sample: draw from the distribution instead of taking the most likely token. From all of it: transformers by
            itself would cut it to the 50 likeliest tokens.
        temperature: softmax temperature when sampling.
        top_p: mass of the nucleus that is drawn from; 1 cuts nothing.
        seed: of the draw; the global random state is left as it was. Arms of one seed and one batch draw from the same
            random numbers, step by step.

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
    if rules:
        options["logits_processor"] = LogitsProcessorList([_Ruled(rule, batch.mask) for rule in rules])
    if sample:
        options |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        out = session.forward({**inputs, **options}, {}, model.module.generate)
    return out[:, batch.seq :]


class _Ruled(LogitsProcessor):
    """A rule as transformers takes it: with the mask of the prompt, every new token being real."""

    def __init__(self, rule: Rule, mask: Tensor):
        self.rule, self.mask = rule, mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = self.mask.new_ones(len(input_ids), input_ids.shape[1] - self.mask.shape[1])
        return self.rule(input_ids, torch.cat([self.mask, new], 1), scores)
