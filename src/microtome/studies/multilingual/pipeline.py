"""The study from top to bottom: build a model by a recipe, score it, look inside one, test the paper's thesis.

Each step is a stage of the record, so a run that is stopped goes on at the first unfinished one; what is built lies in
a store of artefacts, which goes on within a stage. What a configuration does not ask for is left out: any model can be
analysed without building, and a recipe can be counted without running it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from microtome.data.benchmarks import Choice, question_sets
from microtome.data.corpus import Contamination, contamination
from microtome.data.corpus.filters import installed
from microtome.models.model import Model
from microtome.models.zoo.untrained import untrained
from microtome.records import Record, Stage, StageOutput, Steps
from microtome.studies.multilingual import building, thesis
from microtome.studies.multilingual.ablation import ablation
from microtome.studies.multilingual.alikeness import alikeness
from microtome.studies.multilingual.claims import judge
from microtome.studies.multilingual.config import BUILT, MultilingualConfig
from microtome.studies.multilingual.dynamics import dynamics
from microtome.studies.multilingual.evaluation import agreement, bits_by_language, questions
from microtome.studies.multilingual.harness import run_harness
from microtome.studies.multilingual.published import report_arithmetic
from microtome.studies.multilingual.reading import importance
from microtome.studies.multilingual.sets import language_sets
from microtome.studies.multilingual.sources import load_model, parallel_text, questions_of, recipe_of
from microtome.studies.multilingual.tokenizing import tokenization
from microtome.studies.multilingual.views import views
from microtome.training.build.artefacts import Artefact, Store
from microtome.training.build.recipe import BuildRecipe
from microtome.training.build.texts import languages_in
from microtome.training.checkpoints import checkpoint_path

__all__ = ["run"]

# name -> share of the time of the quick run, so that the estimate of the time left is even
SHARES = {"plan": 2, "build": 70, "fidelity": 15, "thesis": 300, "model": 2, "tokens": 4, "bits": 10, "questions": 15,
          "harness": 20, "importance": 30, "sets": 15, "ablation": 40, "alike": 20, "dynamics": 20,
          "published": 1}  # fmt: skip


def run(
    config: MultilingualConfig, record: Record, progress: Callable[[float, float, str], None] | None = None
) -> None:
    """Run the study into an open record.

    Args:
        config: the study's configuration.
        record: takes stages, claims and views; artefacts of a build are kept in a folder beside it.
        progress: called with (done, total, step).

    Raises:
        ConfigError, DataError, ModelError, RecordError: what was asked for does not fit, or is not there.
    """
    wanted = set(_wanted(config))
    step = Steps(record, {name: share for name, share in SHARES.items() if name in wanted}, progress)
    store = Store(config.store or record.path.parent / "artefacts")
    made: Mapping[str, Artefact] = {}
    if config.builds:
        made = _build(config, record, step, store)
    if config.thesis.seeds and not config.plan_only:
        _thesis(config, step, store)
    if config.analyses:
        _analyse(config, record, step, made)
    step("published", lambda told: report_arithmetic())
    for claim, verdict in judge(record):
        record.judge(claim, verdict)
    record.views(views(record, config))


def _wanted(config: MultilingualConfig) -> Iterator[str]:
    """Yield the steps that a configuration asks for."""
    if config.builds:
        yield "plan"
        if not config.plan_only and not _only_thesis(config):
            yield from ("build", *(["fidelity"] if installed("py3langid") else []))
    if config.thesis.seeds and not config.plan_only:
        yield "thesis"
    if config.analyses:
        yield from ("model", "tokens", "bits", "importance", "sets", "ablation", "alike")
        if config.benchmarks or config.evaluation.cloze:
            yield from ("questions", *(["harness"] if config.evaluation.harness else []))
        if config.model == BUILT:
            yield "dynamics"
    yield "published"


def _only_thesis(config: MultilingualConfig) -> bool:
    """Whether models are built for the comparison alone."""
    return bool(config.thesis.seeds) and not config.analyses


def _build(config: MultilingualConfig, record: Record, step: Steps, store: Store) -> Mapping[str, Artefact]:
    """Count what the recipe takes and, unless that is all that was asked, run it; return its artefacts."""
    asked = recipe_of(config)
    plan = step("plan", lambda told: building.planned(asked, config))
    recipe = building.resolved(asked, plan)
    if config.plan_only:
        record.add_artefact("job", lambda path: building.write_job(recipe, path), {"plan": plan})
    if config.plan_only or _only_thesis(config):
        return {}
    built = step("build", lambda told: building.account(building.made_by(recipe, store, told)), plan)
    made = building.made_by(recipe, store)  # nothing is made twice
    if "fidelity" in step.shares:
        step("fidelity", lambda told: building.spoken_languages(made, config, told), built)
    return made


def _thesis(config: MultilingualConfig, step: Steps, store: Store) -> None:
    recipe: BuildRecipe = recipe_of(config)
    parallel = parallel_text(config, config.thesis.sentences)
    step("thesis", lambda told: thesis.compared(recipe, store, parallel, config, told))


def _analyse(config: MultilingualConfig, record: Record, step: Steps, made: Mapping[str, Artefact]) -> None:
    """Score a model and look inside it."""
    name = str(made["pretrain"].path / "model") if config.model == BUILT else config.model
    knobs = replace(config.analysis, seed=config.seed)
    texts = parallel_text(config, max(knobs.sentences, config.evaluation.sentences))
    subject = cache(lambda: load_model(config, name))
    described = step("model", lambda told: _described(subject(), texts))

    scored = {language: lines[: config.evaluation.sentences] for language, lines in texts.items()}
    step("tokens", lambda told: tokenization(subject().tokenizer, scored, config, told), described)
    _score(config, step, subject, scored, made, described)

    read = cache(lambda: _readable(subject(), {name: lines[: knobs.sentences] for name, lines in texts.items()}))
    weights = step("importance", lambda told: importance(subject(), read(), knobs, told), described)
    sets = step("sets", lambda told: language_sets(subject(), read(), knobs, told), described)
    step("ablation", lambda told: ablation(subject(), read(), sets, weights, knobs, told), sets, weights)
    step("alike", lambda told: alikeness(subject(), read(), knobs, told), described)
    if config.model == BUILT:
        folder, trained = made["pretrain"].path / "checkpoints", made["pretrain"].values["checkpoints"]
        steps = [(number, checkpoint_path(folder, number)) for number in trained]
        step(
            "dynamics",
            lambda told: dynamics(steps, read(), knobs, told, tokenizer=subject().tokenizer),
            described,
        )


def _readable(model: Model, texts: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Return the sentences that have two tokens or more in every language; parallel text has lone commas in it."""
    sizes = [[len(ids) for ids in model.tokenizer(list(lines))["input_ids"]] for lines in texts.values()]
    kept = [i for i, row in enumerate(zip(*sizes, strict=True)) if min(row) > 1]
    return {language: [lines[i] for i in kept] for language, lines in texts.items()}


def _described(model: Model, texts: Mapping[str, Sequence[str]]) -> StageOutput:
    blocks = len(model.anatomy.blocks)
    return StageOutput(
        values={
            "model_name": model.name,
            "model_parameters": sum(p.numel() for p in model.module.parameters()),
            "model_blocks": blocks,
            "model_width": model.module.config.hidden_size,
            "model_languages": len(texts),
        }
    )


def _score(
    config: MultilingualConfig,
    step: Steps,
    subject: Callable[[], Model],
    texts: Mapping[str, Sequence[str]],
    made: Mapping[str, Artefact],
    described: Stage,
) -> None:
    """Bits per byte and questions, beside an untrained twin's."""
    twin = cache(lambda: Model.load(untrained(subject().module, config.seed), tokenizer=subject().tokenizer))
    draws = config.evaluation.draws
    step(
        "bits", lambda told: bits_by_language(subject(), twin(), texts, told, draws=draws, seed=config.seed), described
    )
    if "questions" not in step.shares:
        return
    choices = cache(lambda: questions_of(config, texts))

    def asked(told: Callable[[float], None]) -> StageOutput:
        return questions(subject(), twin(), choices(), told, contaminated=_contaminated(choices(), made))

    answered = step("questions", asked, described)
    if "harness" in step.shares:
        step("harness", lambda told: _agreed(subject(), choices(), answered), answered)


def _agreed(model: Model, choices: Sequence[Choice], answered: Stage) -> StageOutput:
    """Ask lm-evaluation-harness the same questions, of the model as a folder."""
    with TemporaryDirectory() as folder:
        model.module.save_pretrained(Path(folder) / "model")
        model.tokenizer.save_pretrained(Path(folder) / "model")
        there = run_harness(Path(folder) / "model", choices, Path(folder) / "tasks", device=str(model.device))
    return agreement(there, answered.rows("options"))


def _contaminated(choices: Sequence[Choice], made: Mapping[str, Artefact]) -> Sequence[Contamination]:
    """Return how much of each set of questions the corpus of a build holds; nothing where none was built."""
    if not made:
        return ()
    documents = (d for texts in languages_in(made["dedup"].path / "train").values() for d in texts.documents())
    return contamination(documents, question_sets(choices))
