"""The recipe run as a stage: what it takes, what its artefacts measured, and the languages that its models answer in.

The artefacts stay in their store, where the next run with the same recipe finds them; the record holds the account of
them: what the filters dropped, duplicates, the tokenizer, shares asked for and met, and losses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from microtome.core.config import to_toml
from microtome.core.errors import DataError
from microtome.data.instructions import Conversation, generated
from microtome.measures.fidelity import Fidelity, fidelity, responses
from microtome.measures.language_judges import Identifier
from microtome.records import Missing, Stage, StageOutput, Told
from microtome.studies.multilingual.config import MultilingualConfig
from microtome.studies.multilingual.sources import load_model
from microtome.training.build.artefacts import Artefact, Store
from microtome.training.build.chat import spoken
from microtome.training.build.cluster import job, needs
from microtome.training.build.pretraining import measured_speed
from microtome.training.build.recipe import BuildRecipe
from microtome.training.build.run import STAGES, build

__all__ = ["CHAT", "account", "made_by", "planned", "resolved", "spoken_languages", "within", "write_job"]

CHAT = ("pretrain", "sft", "dpo")
"""Stages that leave a model, in order."""

_TRAINING = 0.5  # of the minutes given, spent on pretraining; corpus, evaluation and analysis take what tuning leaves
# Tokens of tuning for one of pretraining in its share of the minutes: in float32, padded, and for DPO with a reference.
_TUNED, _PREFERRED = 0.12 / 2, 0.1 / 8
_EXAMPLE = 128  # tokens of a conversation, about
_FREE = ("continue", "write")  # tasks whose answers are text enough to judge
_SHARES = {"filter": 4, "dedup": 2, "tokenizer": 2, "tokens": 2, "pretrain": 30, "sft": 6, "dpo": 4}
_POINTS = 400  # of a loss curve


def planned(recipe: BuildRecipe, config: MultilingualConfig) -> StageOutput:
    """Count what a recipe takes; where minutes were given, measure how many tokens they are.

    Args:
        recipe: what is to be built.
        config: the study's configuration.
    """
    speed = measured_speed(recipe) if config.minutes else None
    if speed:
        recipe = within(recipe, config.minutes * 60 * speed)
    values = {f"plan_{name}": value for name, value in vars(needs(recipe)).items()}
    return StageOutput(
        values=values
        | {
            "plan_tokens": recipe.pretrain.tokens,
            "plan_conversations": recipe.sft.examples,
            "plan_pairs": recipe.dpo.examples,
            "plan_recipe": recipe.name,
            "plan_speed": speed or Missing("no minutes were given, so no speed was measured"),
            "plan_toml": to_toml(recipe),
        },
    )


def within(recipe: BuildRecipe, tokens: float) -> BuildRecipe:
    """Return the recipe cut to what can be trained in the time that so many tokens of pretraining take.

    Args:
        recipe: the whole.
        tokens: that this machine could pretrain on in the time there is.
    """
    size = recipe.pretrain.batch_tokens
    each = min(recipe.model.context, _EXAMPLE)
    conversations, pairs = _TUNED * tokens / each / recipe.sft.epochs, _PREFERRED * tokens / each / recipe.dpo.epochs
    return replace(
        recipe,
        pretrain=replace(recipe.pretrain, tokens=max(1, int(_TRAINING * tokens) // size) * size),
        sft=replace(recipe.sft, examples=_fewer(recipe.sft.examples, conversations, recipe.sft.batch)),
        dpo=replace(recipe.dpo, examples=_fewer(recipe.dpo.examples, pairs, recipe.dpo.batch)),
    )


def _fewer(asked: int, fit: float, batch: int) -> int:
    """Return as many examples as were asked for (0: any number), or as fit, in whole batches."""
    return min(asked or batch * 1000, max(1, int(fit) // batch) * batch)


def resolved(recipe: BuildRecipe, plan: Stage) -> BuildRecipe:
    """Return the recipe as it was planned.

    Args:
        recipe: as it was asked for.
        plan: the stage of `planned`.
    """
    return replace(
        recipe,
        pretrain=replace(recipe.pretrain, tokens=plan.value("plan_tokens")),
        sft=replace(recipe.sft, examples=plan.value("plan_conversations")),
        dpo=replace(recipe.dpo, examples=plan.value("plan_pairs")),
    )


def write_job(recipe: BuildRecipe, path: Path) -> None:
    """Write the folder of a cluster's job: the recipe and the script that runs it."""
    path.mkdir()
    (path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    (path / "job.sh").write_text(job(recipe), encoding="utf-8")


def made_by(
    recipe: BuildRecipe, store: Store, told: Told = lambda _: None, *, until: str = "dpo"
) -> dict[str, Artefact]:
    """Return the artefacts of a recipe, made where they are not there yet.

    Args:
        recipe: what is built.
        store: where artefacts are.
        told: takes the share that is done.
        until: the last stage that is wanted.
    """
    stages = STAGES[: STAGES.index(until) + 1]
    total = sum(_SHARES[name] for name in stages)

    def watch(stage: str, _: str, share: float) -> None:
        before = sum(_SHARES[name] for name in stages[: stages.index(stage)])
        told((before + share * _SHARES[stage]) / total)

    return build(recipe, store, until=until, watch=watch)


def account(made: Mapping[str, Artefact]) -> StageOutput:
    """Put what the artefacts of a build measured into tables.

    Args:
        made: of all stages.
    """
    values = {f"built_{stage}": artefact.key for stage, artefact in made.items()}
    trained = made["pretrain"].values
    values |= {f"built_{name}": trained[name] for name in ("parameters", "tokens", "updates", "loss", "seconds")}
    values |= {
        "built_speed": trained["tokens_per_second"] or Missing("no update was timed"),
        "built_vocabulary": made["tokenizer"].values["size"],
        "built_rollbacks": len(trained["rollbacks"]),
        "built_recall": made["dedup"].values["expected_recall"] or Missing("near-duplicates were not looked for"),
    }
    curve = pq.read_table(made["pretrain"].path / "curve.parquet").to_pylist()
    every = max(1, len(curve) // _POINTS)
    tables = {
        "corpus": [_corpus_row(r) for r in made["filter"].values["account"]],
        "dropped": made["filter"].values["examples"],
        "duplicates": made["dedup"].values["languages"],
        "mixture": _mixture(made),
        "curve": [row for i, row in enumerate(curve) if i % every == 0 or i == len(curve) - 1],
        "tuning": _tuning(made),
    }
    tokenizer = made["tokenizer"].values["languages"]
    if tokenizer:
        tables["tokenizer"] = tokenizer
    return StageOutput(tables={name: rows for name, rows in tables.items() if rows}, values=values)


def _corpus_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "reason": row["reason"] or "-"}


def _mixture(made: Mapping[str, Artefact]) -> list[dict[str, Any]]:
    """Return how much of each language there is, was asked for and was met, in tokens and in documents."""
    asked = {row["language"]: row for row in made["pretrain"].values["mix"]}
    held = {row["language"]: row for row in made["tokens"].values["languages"]}
    return [
        {
            "language": row["language"],
            "documents": row["items"],
            "tokens": held[row["language"]]["tokens"],
            "bytes": held[row["language"]]["bytes"],
            "share_of_tokens": asked[row["language"]]["share"],
            "of_corpus": asked[row["language"]]["of_corpus"],
            "target": row["target"],
            "realised": row["realised"],
            "drawn": row["drawn"],
            "epochs": row["epochs"],
            "repeats": row["repeats"],
        }
        for row in made["pretrain"].values["realised"]
    ]


def _tuning(made: Mapping[str, Artefact]) -> list[dict[str, Any]]:
    rows = []
    for stage in ("sft", "dpo"):
        if stage not in made:
            continue
        found = made[stage].values
        accuracies = found.get("accuracies") or [None] * len(found["losses"])
        rows += [
            {"stage": stage, "update": i + 1, "loss": loss, "accuracy": accuracies[i]}
            for i, loss in enumerate(found["losses"])
        ]
    return rows


def spoken_languages(made: Mapping[str, Artefact], config: MultilingualConfig, told: Told) -> StageOutput:
    """Judge in which languages the models of a build answer, before and after tuning, to prompts held out from it.

    Args:
        made: of all stages.
        config: the study's configuration.
        told: takes the share that is done.

    Returns:
        Tables `fidelity`, a row a model and language, and `answers`, a few of each.
    """
    stages = [stage for stage in CHAT if stage in made]
    asked = _prompts(made, config)
    judge = Identifier(tuple(dict.fromkeys(c.language for c in asked)))
    rows, shown, values = [], [], {}
    for number, stage in enumerate(stages):
        model = load_model(config, str(made[stage].path / "model"))
        texts = responses(model, [c.prompt for c in asked], max_new_tokens=config.evaluation.new_tokens)
        found = fidelity(texts, [c.language for c in asked], judge, draws=config.evaluation.draws, seed=config.seed)
        rows += _fidelity_rows(stage, found)
        shown += [
            {"model": stage, "wanted": c.language, "task": _task(c), "prompt": c.asked, "answer": text}
            for c, text in list(zip(asked, texts, strict=True))[:: max(1, len(asked) // 12)]
        ]
        values |= _fidelity_values(stage, found)
        told((number + 1) / len(stages))
    none = Missing("no answer was long enough to be judged")
    told_values = {name: none if value is None else value for name, value in values.items()}
    return StageOutput(tables={"fidelity": rows, "answers": shown}, values=told_values)


def _prompts(made: Mapping[str, Artefact], config: MultilingualConfig) -> Sequence[Conversation]:
    """Return conversations of tasks that are answered in text, made of passages that no tuning saw."""
    texts = spoken(made["dedup"].path, 40 * config.evaluation.prompts * len(made))
    count = 2 * config.evaluation.prompts * len(texts) * 2
    found = generated(texts, count, config.seed, part="held_out", held_out=0.05)
    cutter = AutoTokenizer.from_pretrained(made["tokenizer"].path, local_files_only=True)
    room = made["pretrain"].manifest["told"]["model"]["context"] - config.evaluation.new_tokens
    free = [c for c in found if _task(c) in _FREE and _tokens(cutter, c) <= room]
    if not free:
        raise DataError(
            f"Prompts of {room} tokens and answers of {config.evaluation.new_tokens} were to be asked, found none that "
            "short; give fewer evaluation.new_tokens or a longer model.context."
        )
    taken: dict[str, list[Conversation]] = {}
    for each in free:
        taken.setdefault(each.language, []).append(each)
    return [c for own in taken.values() for c in own[: config.evaluation.prompts]]


def _tokens(cutter: PreTrainedTokenizerBase, conversation: Conversation) -> int:
    turns = [{"role": role, "content": content} for role, content in conversation.prompt]
    return len(cutter.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


def _task(conversation: Conversation) -> str:
    return conversation.source.rpartition("/")[2]


def _fidelity_rows(stage: str, found: Fidelity) -> list[dict[str, Any]]:
    rows = []
    for own in found.languages:
        passed = own.passed
        rows.append(
            {
                "model": stage,
                "language": own.language,
                "passed": passed.estimate if passed else None,
                "low": passed.low if passed else None,
                "high": passed.high if passed else None,
                "n": passed.n if passed else 0,
                "undecided": own.undecided,
                "instead": ", ".join(list(own.instead)[:3]) or "-",
            }
        )
    return [row for row in rows if row["n"]]


def _fidelity_values(stage: str, found: Fidelity) -> dict[str, Any]:
    macro, null = found.macro, found.null
    return {
        f"fidelity_{stage}": macro.estimate if macro else None,
        f"fidelity_{stage}_low": macro.low if macro else None,
        f"fidelity_{stage}_high": macro.high if macro else None,
        f"fidelity_{stage}_n": macro.n if macro else 0,
        f"fidelity_{stage}_null": null.estimate if null else None,
        f"fidelity_{stage}_p": found.p,
    }
