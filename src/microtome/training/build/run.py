"""A build: the stages of a recipe in order, each made once, into a store of artefacts.

filter -> dedup -> tokenizer -> tokens -> pretrain -> sft -> dpo
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from microtome.core.errors import ConfigError, did_you_mean
from microtome.training.build import corpus, pretraining, tokens
from microtome.training.build.artefacts import Artefact, Store
from microtome.training.build.recipe import BuildRecipe

__all__ = ["STAGES", "build"]

STAGES = ("filter", "dedup", "tokenizer", "tokens", "pretrain", "sft", "dpo")

Watch = Callable[[str, str, float], None]
"""Takes a stage's name, what it is at, and the share of it that is done."""


def build(
    recipe: BuildRecipe,
    store: Store | Path | str,
    *,
    until: str = "dpo",
    watch: Watch | None = None,
    sharded: bool = False,
) -> dict[str, Artefact]:
    """Return the artefacts of a recipe, by stage; those in the store are not made again.

    Args:
        recipe: what is to be made.
        store: where artefacts are kept.
        until: the last stage that is wanted.
        watch: takes how far it is.
        sharded: divide the model among the processes of a torchrun; changes nothing but memory and rounding.

    Raises:
        ConfigError: no such stage, or a recipe that does not fit together.
        DataError: what its corpus does not hold.
        RecordError: a damaged artefact, a full disk, or another process at the same stage.

    Example:
        made = build(load_recipe("quick"), "artefacts")
        AutoModelForCausalLM.from_pretrained(made["dpo"].path / "model")
    """
    if until not in STAGES:
        raise ConfigError(f"No stage '{until}' in a build; it has {', '.join(STAGES)}.{did_you_mean(until, STAGES)}")
    store = store if isinstance(store, Store) else Store(store)
    made: dict[str, Artefact] = {}
    for stage in STAGES[: STAGES.index(until) + 1]:

        def told(line: str, share: float, stage: str = stage) -> None:
            if watch:
                watch(stage, line, share)

        found = _STEPS[stage](recipe, store, made, told)
        if found is not None:
            made[stage] = found
    return made


def _filter(recipe: BuildRecipe, store: Store, made: dict[str, Artefact], told: corpus.Told) -> Artefact:
    plan = recipe.corpus
    about = asdict(plan) | {"seed": recipe.seed, "files": corpus.fingerprint(plan)}
    for name in ("similar", "turns", "test"):  # what comes after
        about.pop(name)
    for name in ("path", "code_path", "flagged", "evaluation"):  # the same files elsewhere are the same corpus
        if about["files"]:
            about.pop(name)
    return store.make("filter", about, [], lambda folder: corpus.filtered(plan, recipe.seed, folder, told))


def _dedup(recipe: BuildRecipe, store: Store, made: dict[str, Artefact], told: corpus.Told) -> Artefact:
    plan, source = recipe.corpus, made["filter"]
    about = {"similar": plan.similar, "turns": plan.turns, "test": plan.test, "seed": recipe.seed}
    return store.make(
        "dedup", about, [source], lambda folder: corpus.deduplicated(plan, recipe.seed, source.path, folder, told)
    )


def _tokenizer(recipe: BuildRecipe, store: Store, made: dict[str, Artefact], told: corpus.Told) -> Artefact:
    source = made["dedup"]
    about = asdict(recipe.tokenizer) | {"seed": recipe.seed}
    return store.make(
        "tokenizer", about, [source],
        lambda folder: tokens.learnt(recipe.tokenizer, recipe.seed, source.path, folder, told),
    )  # fmt: skip


def _tokens(recipe: BuildRecipe, store: Store, made: dict[str, Artefact], told: corpus.Told) -> Artefact:
    source, cutter = made["dedup"], made["tokenizer"]
    return store.make(
        "tokens", {}, [source, cutter], lambda folder: tokens.tokenised(source.path, cutter.path, folder, told)
    )


def _pretrain(recipe: BuildRecipe, store: Store, made: dict[str, Artefact], told: corpus.Told) -> Artefact:
    files, cutter = made["tokens"], made["tokenizer"]
    about = {k: v for k, v in asdict(recipe).items() if k in ("model", "mixing", "pretrain", "seed")}
    return store.make(
        "pretrain", about, [files, cutter],
        lambda folder: pretraining.pretrained(recipe, files, cutter, folder, told),
        together=True,
    )  # fmt: skip


_STEPS: dict[str, Callable[[BuildRecipe, Store, dict[str, Artefact], corpus.Told], Artefact | None]] = {
    "filter": _filter,
    "dedup": _dedup,
    "tokenizer": _tokenizer,
    "tokens": _tokens,
    "pretrain": _pretrain,
}
