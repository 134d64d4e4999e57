"""A build: the stages of a recipe in order, each made once, into a store of artefacts.

filter -> dedup -> tokenizer -> tokens -> pretrain -> sft -> dpo
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from microtome.core.errors import ConfigError, did_you_mean
from microtome.training.build import chat, corpus, pretraining, tokens
from microtome.training.build.artefacts import Artefact, Store
from microtome.training.build.corpus import Told
from microtome.training.build.recipe import BuildRecipe
from microtome.training.processes import world

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
        ConfigError: no such stage, tuning by several processes, or a recipe that does not fit together.
        DataError: what its corpus does not hold.
        RecordError: a damaged artefact, a full disk, or another process at the same stage.

    Example:
        made = build(load_recipe("quick"), "artefacts")
        AutoModelForCausalLM.from_pretrained(made["dpo"].path / "model")
    """
    if until not in STAGES:
        raise ConfigError(f"No stage '{until}' in a build; it has {', '.join(STAGES)}.{did_you_mean(until, STAGES)}")
    if world() > 1 and STAGES.index(until) > STAGES.index("pretrain"):
        raise ConfigError(
            f"Stage '{until}' was asked of {world()} processes, tuning runs in one: build until 'pretrain' with them, "
            "then the rest without torchrun."
        )
    job = _Job(recipe, store if isinstance(store, Store) else Store(store), sharded)
    for stage in STAGES[: STAGES.index(until) + 1]:

        def told(line: str, share: float, stage: str = stage) -> None:
            if watch:
                watch(stage, line, share)

        found = _STEPS[stage](job, told)
        if found is not None:
            job.made[stage] = found
    return job.made


@dataclass(frozen=True)
class _Job:
    """A build that is going on: what is to be made, where, and what has been made by stage."""

    recipe: BuildRecipe
    store: Store
    sharded: bool
    made: dict[str, Artefact] = field(default_factory=dict)


def _filter(job: _Job, told: Told) -> Artefact:
    plan, seed = job.recipe.corpus, job.recipe.seed
    about = asdict(plan) | {"seed": seed} | corpus.origins(plan)
    for name in ("similar", "engine", "turns", "test"):  # what comes after
        about.pop(name)
    return job.store.make("filter", about, [], lambda folder: corpus.filtered(plan, seed, folder, told))


def _dedup(job: _Job, told: Told) -> Artefact:
    plan, seed, source = job.recipe.corpus, job.recipe.seed, job.made["filter"]
    about = {"similar": plan.similar, "engine": plan.engine, "turns": plan.turns, "test": plan.test, "seed": seed}
    return job.store.make(
        "dedup", about, [source], lambda folder: corpus.deduplicated(plan, seed, source.path, folder, told)
    )


def _tokenizer(job: _Job, told: Told) -> Artefact:
    plan, seed, source = job.recipe.tokenizer, job.recipe.seed, job.made["dedup"]
    about = asdict(plan) | {"seed": seed}
    return job.store.make(
        "tokenizer", about, [source], lambda folder: tokens.learnt(plan, seed, source.path, folder, told)
    )


def _tokens(job: _Job, told: Told) -> Artefact:
    source, cutter = job.made["dedup"], job.made["tokenizer"]
    return job.store.make(
        "tokens", {}, [source, cutter], lambda folder: tokens.tokenised(source.path, cutter.path, folder, told)
    )


def _pretrain(job: _Job, told: Told) -> Artefact:
    files, cutter = job.made["tokens"], job.made["tokenizer"]
    about = {name: value for name, value in asdict(job.recipe).items() if name in _TRAINED}
    return job.store.make(
        "pretrain",
        about,
        [files, cutter],
        lambda folder: pretraining.pretrained(job.recipe, files, cutter, folder, told, sharded=job.sharded),
        together=True,
    )


def _sft(job: _Job, told: Told) -> Artefact | None:
    texts, base = job.made["dedup"], job.made["pretrain"]
    if not job.recipe.sft.path:
        return None
    about = asdict(job.recipe.sft) | {"seed": job.recipe.seed, "path": corpus.origin(job.recipe.sft.path)}
    return job.store.make(
        "sft", about, [texts, base], lambda folder: chat.tuned(job.recipe, texts.path, base.path, folder, told)
    )


def _dpo(job: _Job, told: Told) -> Artefact | None:
    texts, base = job.made["dedup"], job.made.get("sft", job.made["pretrain"])
    if not job.recipe.dpo.path:
        return None
    about = asdict(job.recipe.dpo) | {"seed": job.recipe.seed, "path": corpus.origin(job.recipe.dpo.path)}
    return job.store.make(
        "dpo", about, [texts, base], lambda folder: chat.aligned(job.recipe, texts.path, base.path, folder, told)
    )


_TRAINED = ("model", "mixing", "pretrain", "seed")
_STEPS: dict[str, Callable[[_Job, Told], Artefact | None]] = {
    "filter": _filter,
    "dedup": _dedup,
    "tokenizer": _tokenizer,
    "tokens": _tokens,
    "pretrain": _pretrain,
    "sft": _sft,
    "dpo": _dpo,
}
