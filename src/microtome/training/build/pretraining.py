"""The pretraining stage: shares of languages, a model of random weights, the loop, and the model at its end.

pretrain   model/          weights and tokenizer, as plain transformers loads them
checkpoints/    the same after so many updates, for what is looked at over training
curve.parquet   loss, gradient and tokens of every update
languages.parquet  loss of every language at the updates in which it occurred
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, PreTrainedConfig

from microtome.core.errors import ConfigError
from microtome.core.files import replace_with
from microtome.core.seeds import derive
from microtome.data.mixing import Mix, Sampler, mix
from microtome.training import architectures, checkpoints
from microtome.training.build.artefacts import Artefact
from microtome.training.build.corpus import Told
from microtome.training.build.recipe import Architecture, BuildRecipe, Mixing, Pretraining
from microtome.training.build.tokens import TokenFiles
from microtome.training.packing import Document, Drawn, Rows, packing
from microtome.training.pretraining import Pretrained, pretrain
from microtome.training.pretraining_recipe import Checkpoints, Recipe, checkpoint_steps, tokens_at
from microtome.training.processes import rank

__all__ = ["architecture", "measured_speed", "pretrained", "shares", "updates"]


def architecture(plan: Architecture, vocabulary: int, bos: int | None = 0, eos: int | None = 1) -> PreTrainedConfig:
    """Return the config of a recipe's model.

    Args:
        plan: the recipe's.
        vocabulary: tokens.
        bos: id of the token that begins a text.
        eos: id of the token that ends it.
    """
    make = getattr(architectures, plan.block)
    return make(
        vocabulary, layers=plan.layers, width=plan.width, mlp=plan.mlp, heads=plan.heads, context=plan.context,
        bos=bos, eos=eos,
    )  # fmt: skip


def shares(plan: Mixing, tokens: Mapping[str, int], budget: int) -> Mix:
    """Return how much of each language is seen.

    Args:
        plan: the recipe's.
        tokens: how many there are of each.
        budget: how many are seen in all.

    Raises:
        ConfigError: the favoured language is not there, or its share is none.
        DataError: a policy that does not fit the languages.
    """
    if plan.policy != "favoured":
        table = dict(plan.table) if plan.table else None
        return mix(tokens, plan.policy, budget=budget, alpha=plan.alpha, max_epochs=plan.max_epochs, table=table)
    others = {name: count for name, count in tokens.items() if name != plan.favoured}
    if plan.favoured not in tokens or not others or not 0 < plan.share < 1:
        raise ConfigError(
            f"A share of {plan.share} for '{plan.favoured}' was asked for, found languages {', '.join(tokens)}; favour "
            "one of two or more, with a share between 0 and 1."
        )
    rest = mix(others, "temperature", alpha=plan.alpha).shares
    table = {plan.favoured: plan.share} | {name: (1 - plan.share) * share for name, share in rest.items()}
    return mix(tokens, "fixed", budget=budget, table={name: table[name] for name in tokens})


def updates(plan: Pretraining, seed: int) -> Recipe:
    """Return the loop's recipe: as many updates as the tokens make.

    Args:
        plan: the recipe's.
        seed: of what is drawn in training.

    Raises:
        ConfigError: fewer tokens than one update has.
    """
    steps, growth = _steps(plan)
    return Recipe(
        steps, plan.batch_tokens, growth=growth, peak=plan.peak, floor=plan.floor,
        warm_up=max(1, round(plan.warm_up * steps)), decay=plan.decay, fall=plan.fall, weight_decay=plan.weight_decay,
        clip=plan.clip, z_loss=plan.z_loss, bf16=plan.bf16, seed=seed,
    )  # fmt: skip


def _steps(plan: Pretraining) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the number of updates, and from which update on each larger size holds."""
    step = seen = 0
    size, growth = plan.batch_tokens, []
    for begins, larger in plan.growth:
        if begins >= plan.tokens:
            break
        more = max(0, math.ceil((begins - seen) / size))
        step, seen, size = step + more, seen + more * size, larger
        growth.append((step, larger))
    step += max(0, plan.tokens - seen) // size
    if step < 1:
        raise ConfigError(
            f"{plan.tokens:,} tokens were asked for in updates of {plan.batch_tokens:,}; give tokens for one or more."
        )
    return step, tuple(growth)


def pretrained(
    recipe: BuildRecipe, tokens: Artefact, tokenizer: Artefact, folder: Path, told: Told, *, sharded: bool = False
) -> dict[str, Any]:
    """Train the model of a recipe; a killed run goes on from its newest checkpoint.

    Args:
        recipe: the whole.
        tokens: the `tokens` stage.
        tokenizer: the `tokenizer` stage.
        folder: of the stage.
        told: takes how far it is.
        sharded: divide the model among the processes.

    Raises:
        ConfigError: rows that do not make up an update.
    """
    plan, context = recipe.pretrain, recipe.model.context
    if plan.batch_tokens % (plan.rows * context):
        raise ConfigError(
            f"Updates of {plan.batch_tokens} tokens were asked for in batches of {plan.rows} rows of {context}; make "
            f"pretrain.batch_tokens a multiple of {plan.rows * context}."
        )
    cutter = AutoTokenizer.from_pretrained(tokenizer.path, local_files_only=True)
    files = TokenFiles(tokens.path, len(cutter))
    mixed = shares(recipe.mixing, files.tokens, plan.tokens)
    config = architecture(recipe.model, len(cutter), cutter.bos_token_id, cutter.eos_token_id)
    seed = derive(recipe.seed, "replicate", plan.replicate) if plan.replicate else recipe.seed
    module = architectures.initialised(config, seed)

    def sampler(state: Mapping[str, int] | None) -> Sampler:
        made = Sampler(files.documents, mixed.by_items(files.documents), seed=seed)
        if state is not None:
            made.load(state)
        return made

    def source(state: Mapping[str, int] | None) -> Drawn:
        return Drawn(sampler(state), lambda item: Document(files.ids(item.language, item.index), item.language))

    batches = packing(source, seq=context, batch=plan.rows, bos=cutter.bos_token_id, eos=cutter.eos_token_id)
    loop = updates(plan, seed)
    found = pretrain(
        module, batches, loop, run=f"{tokens.key} {tokenizer.key} seed {seed}", folder=folder / "checkpoints",
        checkpoints=Checkpoints(every=plan.save_every, evenly=plan.checkpoints, resumable=1),
        progress=lambda done, total, line: told(line, done / total), sharded=sharded,
    )  # fmt: skip
    if rank():
        return {}
    _thin(folder / "checkpoints", plan, loop.steps)
    last = checkpoints.checkpoint_path(folder / "checkpoints", loop.steps)
    drawn = checkpoints.read(folder / "checkpoints", loop.steps).journal["data"]["source"]
    replace_with(folder / "model", lambda part: _model(last, cutter, part))
    _curves(loop, found, folder)
    return {
        "parameters": module.num_parameters(),
        "tokens": found.tokens,
        "updates": loop.steps,
        "loss": found.losses[-1],
        "seconds": found.seconds,
        "tokens_per_second": found.tokens / found.seconds if found.seconds else None,
        "mfu": found.mfu,
        "rollbacks": found.rollbacks,
        "mix": mixed.rows(),
        "realised": [row._asdict() for row in sampler(drawn).report()],
        "checkpoints": checkpoints.checkpoints_in(folder / "checkpoints"),
    }


def measured_speed(recipe: BuildRecipe, updates: int = 3) -> float:
    """Return how many tokens a second this machine trains on: the best of a few updates on random tokens.

    Args:
        recipe: the whole; of its corpus nothing is read.
        updates: taken.
    """
    plan, context = recipe.pretrain, recipe.model.context
    module = architectures.initialised(architecture(recipe.model, recipe.tokenizer.size), recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)

    class Random:
        def __next__(self) -> Rows:
            return Rows(torch.randint(0, recipe.tokenizer.size, (plan.rows, context), generator=draw))

        def state(self) -> int:
            return 0

    speeds = []
    for _ in range(updates):
        found = pretrain(module, lambda _: Random(), _loop(plan), peak_flops=1.0)
        speeds.append(found.tokens / found.seconds)
    return max(speeds)


def _loop(plan: Pretraining) -> Recipe:
    """Return the loop's recipe of one update."""
    return Recipe(1, plan.batch_tokens, warm_up=1, bf16=plan.bf16, z_loss=plan.z_loss)


def _thin(folder: Path, plan: Pretraining, steps: int) -> None:
    """Leave the checkpoints that the recipe asks for; those between were for a killed run."""
    wanted = set(checkpoint_steps(Checkpoints(evenly=plan.checkpoints), steps))
    for step in checkpoints.checkpoints_in(folder):
        if step not in wanted:
            shutil.rmtree(checkpoints.checkpoint_path(folder, step))


def _model(checkpoint: Path, cutter: Any, part: Path) -> None:
    part.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, part / name)
    cutter.save_pretrained(part)


def _curves(loop: Recipe, found: Pretrained, folder: Path) -> None:
    steps = np.arange(len(found.losses))
    seen = np.cumsum([tokens_at(loop, step) for step in steps.tolist()])
    curve = {"update": steps + 1, "tokens": seen, "loss": found.losses, "norm": found.norms}
    pq.write_table(pa.table(curve), folder / "curve.parquet")
    rows = [(n, step + 1, x) for n, (at, losses) in found.languages.items() for step, x in zip(at, losses, strict=True)]
    columns = dict(zip(("language", "update", "loss"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "languages.parquet")
