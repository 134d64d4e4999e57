"""What the study reads: parallel text, questions, the recipe as it is to be run, and the model under analysis."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from microtome.core.errors import DataError
from microtome.data import phrasebook
from microtome.data.benchmarks import Choice, find_benchmark, read_choices
from microtome.data.benchmarks.cloze import cloze
from microtome.data.parallel import parallel_files, read_parallel
from microtome.models.model import Model
from microtome.studies.multilingual.config import BUILT, MultilingualConfig
from microtome.training.build.recipe import SAMPLE, BuildRecipe, load_recipe

__all__ = ["load_model", "parallel_source", "parallel_text", "questions_of", "recipe_of"]

_PARALLEL = "parallel"  # folder in a corpus: aligned texts, never trained on
_EMBEDDED = 2000  # parallel sentences of the embedded sample
_TO_CUT = 12  # sentences for each that is cut in two: it must be long enough in all languages
_FILES = {"xcopa": "xcopa", "winograd": "crosslingual_winograd.tsv"}


def parallel_source(config: MultilingualConfig) -> tuple[str, Sequence[str]]:
    """Return the folder of the aligned texts, empty for the embedded ones, and their languages, none for all.

    What was built of a corpus folder is read on its `parallel/`, where that has two of the languages or more and no
    other was asked for.

    Args:
        config: the study's configuration.
    """
    beside = Path(config.corpus) / _PARALLEL
    of_corpus = config.corpus and (config.model == BUILT or config.thesis.seeds)
    if not config.parallel and of_corpus and beside.is_dir():
        files = parallel_files(beside)
        asked = config.languages or load_recipe(config.builds).corpus.languages or tuple(files)
        there = [language for language in asked if language in files]
        if len(there) > 1 and set(config.languages) <= set(there):
            return str(beside), there
    return config.parallel, config.languages


def parallel_text(config: MultilingualConfig, most: int) -> Mapping[str, Sequence[str]]:
    """Return language -> its sentences, aligned; as many in each.

    Args:
        config: the study's configuration.
        most: sentences.

    Raises:
        DataError: no such folder or language, fewer than two languages, or files that are not aligned.
    """
    folder, languages = parallel_source(config)
    if folder:
        found = read_parallel(folder, languages or None, sentences=most)
    else:
        spoken = languages or phrasebook.LANGUAGES
        found = phrasebook.parallel(min(most, _EMBEDDED), seed=config.seed, languages=spoken)
    if len(found) < 2:
        raise DataError(f"Languages are compared, found {len(found)} in the parallel text; give two or more.")
    return found


def questions_of(config: MultilingualConfig, languages: Container[str]) -> list[Choice]:
    """Return the questions that models are asked: benchmarks at hand, and gaps made of the parallel text.

    Args:
        config: the study's configuration.
        languages: those analysed.

    Raises:
        DataError: a folder in which there is no benchmark, or one that is damaged.
    """
    most = config.evaluation.questions or None
    found: list[Choice] = []
    if config.benchmarks:
        home = Path(config.benchmarks)
        there = {name: home / file for name, file in _FILES.items() if (home / file).exists()}
        if not there:
            raise DataError(f"Benchmarks were to be read from '{home}', found none of {', '.join(_FILES.values())}.")
        for name, path in there.items():
            spoken = [c for c in find_benchmark(name).read(path, None) if c.language in languages]
            there_in = list(dict.fromkeys(c.language for c in spoken))
            if there_in:
                found += read_choices(name, path, there_in, most=most, seed=config.seed)
    if config.evaluation.cloze:
        text = parallel_text(config, _TO_CUT * config.evaluation.cloze)
        found += cloze(text, count=config.evaluation.cloze, seed=config.seed)
    return found


def recipe_of(config: MultilingualConfig) -> BuildRecipe:
    """Return the recipe that is built, with the study's corpus, seed and held-out texts in it.

    Args:
        config: the study's configuration; it builds.

    Raises:
        ConfigError: no such recipe.
        DataError: it reads a corpus, and none was given.
    """
    found = load_recipe(config.builds)
    corpus = found.corpus
    if config.corpus:
        corpus = replace(corpus, path=config.corpus)
    if corpus.path != SAMPLE and not corpus.path.startswith("hf:") and not config.plan_only:
        if not Path(corpus.path).exists():
            raise DataError(
                f"Recipe '{found.name}' reads a corpus, found none at '{corpus.path}'; give --corpus FOLDER."
            )
        held = Path(corpus.path) / _PARALLEL
        evaluation = [config.parallel] if config.parallel else [str(held)] if held.is_dir() else []
        corpus = replace(corpus, evaluation=tuple(dict.fromkeys([*corpus.evaluation, *evaluation])))
    return replace(found, corpus=corpus, seed=found.seed + config.seed)


def load_model(config: MultilingualConfig, name: str) -> Model:
    """Return a model, ready to be analysed.

    Args:
        config: says where and how.
        name: Hub id, folder or zoo:NAME.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model.load(name, dtype=getattr(torch, config.dtype), device=device)
