"""The chat stages: a pretrained model tuned on conversations, then on preferences.

    sft   model/      the tuned model; training.json in it says how it went
    dpo   model/      the same after it, with the sft model as its reference

Where a recipe names no data, they are made of the corpus itself: going on with a text, filling a gap, naming the
language, answering in the language asked for; and pairs of an answer in the right language and one in a wrong one.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from microtome.data.corpus import PROGRAMMING
from microtome.data.instructions import (
    Conversation,
    PreferencePair,
    generated,
    preferences,
    read_conversations,
    read_preferences,
    select,
)
from microtome.training import chat
from microtome.training.build.corpus import Told
from microtome.training.build.recipe import BuildRecipe
from microtome.training.build.texts import languages_in

__all__ = ["OWN", "aligned", "spoken", "tuned"]

OWN = "corpus"
"""As a path of conversations or preferences: made of the corpus itself."""

_MADE = 5000  # conversations or pairs made of the corpus where a recipe does not say how many
_MICRO = 32  # rows of a forward pass, at most


def spoken(corpus: Path, examples: int) -> Mapping[str, list[str]]:
    """Return texts of every natural language of a corpus, enough to make examples of.

    Args:
        corpus: the folder of the `dedup` stage.
        examples: how many are to be made of all languages together.
    """
    found = {name: texts for name, texts in languages_in(corpus / "train").items() if name not in PROGRAMMING}
    each = max(100, 4 * examples // max(1, len(found)))
    return {name: list(islice(texts, each)) for name, texts in found.items()}


def tuned(recipe: BuildRecipe, corpus: Path, base: Path, folder: Path, told: Told) -> dict[str, Any]:
    """Write a model tuned on conversations; a killed run goes on from its newest checkpoint.

    Args:
        recipe: the whole.
        corpus: the folder of the `dedup` stage.
        base: the folder of the `pretrain` stage.
        folder: of the stage.
        told: takes how far it is.

    Raises:
        DataError: no conversations that can be trained on.
    """
    plan = recipe.sft
    found = chat.sft(
        base / "model", _conversations(recipe, corpus), folder / "model", epochs=plan.epochs, lr=plan.rate,
        warm_up=plan.warm_up, batch=plan.batch, micro=_micro(plan.batch), longest=plan.longest or None,
        neftune=plan.neftune or None, seed=recipe.seed, progress=lambda done, total, line: told(line, done / total),
    )  # fmt: skip
    return _told(found)


def aligned(recipe: BuildRecipe, corpus: Path, base: Path, folder: Path, told: Told) -> dict[str, Any]:
    """Write a model tuned on preferences by DPO; a killed run goes on from its newest checkpoint.

    Args:
        recipe: the whole.
        corpus: the folder of the `dedup` stage.
        base: the folder of the stage before, `sft` or `pretrain`; its model is the reference.
        folder: of the stage.
        told: takes how far it is.

    Raises:
        DataError: no pairs that can be trained on.
    """
    plan = recipe.dpo
    found = chat.dpo(
        base / "model", _pairs(recipe, corpus), folder / "model", epochs=plan.epochs, beta=plan.beta, lr=plan.rate,
        warm_up=plan.warm_up, batch=plan.batch, micro=_micro(plan.batch), longest=plan.longest or None,
        seed=recipe.seed, progress=lambda done, total, line: told(line, done / total),
    )  # fmt: skip
    return _told(found) | {"margins": found.margins, "accuracies": found.accuracies}


def _conversations(recipe: BuildRecipe, corpus: Path) -> list[Conversation]:
    plan = recipe.sft
    if plan.path == OWN:
        count = plan.examples or _MADE
        return generated(spoken(corpus, count), count, recipe.seed)
    kept = select(read_conversations(plan.path), languages=plan.languages or recipe.corpus.languages or None).kept
    return list(kept[: plan.examples or None])


def _pairs(recipe: BuildRecipe, corpus: Path) -> list[PreferencePair]:
    plan = recipe.dpo
    if plan.path == OWN:
        count = plan.examples or _MADE
        return preferences(spoken(corpus, count), count, recipe.seed)
    return list(select(read_preferences(plan.path)).kept[: plan.examples or None])


def _micro(batch: int) -> int:
    """Return the largest divisor of a batch that is no more than `_MICRO`."""
    return next(size for size in range(min(batch, _MICRO), 0, -1) if batch % size == 0)


def _told(found: chat.Tuned) -> dict[str, Any]:
    return {"updates": len(found.losses), "losses": found.losses, "counts": found.counts}
