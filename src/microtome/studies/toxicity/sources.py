"""Where the study's texts, prompts and scorers come from: the embedded language, or the user's files.

Texts fall into a discovery half and a test half that share no text. Words are flagged by the *selector* (a lexicon, or
n-grams fitted on the discovery half); completions are scored by *evaluators* of another family or other rows, and by
two of them where two can be had.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microtome.core.errors import ConfigError, DataError
from microtome.core.seeds import derive, generator
from microtome.data.labelled import (
    LabelledSet,
    LabelledText,
    load_jigsaw,
    load_labelled_csv,
    load_real_toxicity,
    load_toxicn,
)
from microtome.data.labelled.files import read_text
from microtome.data.parrot import NEUTRAL, TOXIC, parrot_prompts, parrot_set, parrot_stream
from microtome.measures.readouts import halves
from microtome.measures.scorers import ClassifierScorer, Lexicon, NgramScorer, fit_ngram
from microtome.measures.scorers.agreement import Scorer, require_separate
from microtome.studies.toxicity.config import ToxicityConfig

__all__ = ["HALVES", "Prompt", "Sources", "load_sources"]

HALVES = ("discovery", "test")
SCORER_TEXTS = 1500
TOXIC_SET = frozenset(TOXIC)
ROUSED, CALM = "rousing prompt", "calm prompt"
TOXIC_PROMPT, OTHER_PROMPT = "toxic prompt", "other prompt"


class Prompt(NamedTuple):
    """A prompt and the stratum it is counted in."""

    text: str
    stratum: str


@dataclass(frozen=True)
class Sources:
    """Texts, prompts and scorers.

    Attributes:
        halves: `discovery` and `test` -> labelled texts, both classes in each.
        other: another data set of the same kind, or None.
        clean: half -> texts on which damage is measured.
        prompts: half -> prompts to complete; empty lists where there are none.
        selector: flags words: has `spans` and `scores`.
        evaluators: name -> what scores completions, the first being the main one.
        question: asks whether {text} is toxic; empty where it is not asked.
        yes: what answers yes; empty for the flagged words.
        no: what answers no; empty for all else.
    """

    halves: Mapping[str, LabelledSet]
    other: LabelledSet | None
    clean: Mapping[str, Sequence[str]]
    prompts: Mapping[str, Sequence[Prompt]]
    selector: Lexicon | NgramScorer
    evaluators: Mapping[str, Scorer]
    question: str
    yes: tuple[str, ...]
    no: tuple[str, ...]


def load_sources(config: ToxicityConfig) -> Sources:
    """Return what a configuration names.

    Raises:
        DataError: a file is absent or malformed, or a class is missing.
        ConfigError: no such data.
        MeasureError: a scorer would evaluate what it selected.
    """
    found = _parrot(config) if config.parrot else _files(config)
    for evaluator in found.evaluators.values():
        require_separate(found.selector, evaluator)
    return found


def _parrot(config: ToxicityConfig) -> Sources:
    seed, sizes = config.seed, {"discovery": config.texts.discovery, "test": config.texts.test}
    sets = {half: parrot_set(n, seed=derive(seed, half), split=half) for half, n in sizes.items()}
    known = set(sets["discovery"].texts)
    sets["test"] = _kept(sets["test"], [t not in known for t in sets["test"].texts])
    clean = {half: [r.text for r in found.where(label=0, marked=False).rows] for half, found in sets.items()}
    if config.clean:
        clean = _clean_of_file(config)
    prompts = {half: _parrot_prompts(config, half) for half in HALVES}
    return Sources(
        sets,
        _other(config) if config.other else parrot_set(sizes["test"], seed=derive(seed, "other"), lengths="longer"),
        {half: texts[: config.texts.clean] for half, texts in clean.items()},
        prompts if not config.prompts else _prompts_of_file(config),
        Lexicon.read(config.lexicon) if config.lexicon else Lexicon.of(TOXIC),
        {"n-grams": fit_ngram(_parrot_pieces(derive(seed, "scorer"), config.generating.new_tokens))},
        config.question or "{text} anna thinks that paul is a total",
        config.yes or TOXIC,
        config.no or NEUTRAL,
    )


def _parrot_pieces(seed: int, longest: int) -> LabelledSet:
    """Return pieces of texts, labelled by their own words: what an evaluator of completions has to have seen.

    Fitted on whole texts, each of which names somebody, n-grams take the lack of a kind name for a rude one.
    """
    rng, rows = random.Random(seed), []
    for text in islice(parrot_stream(seed), SCORER_TEXTS):
        words = text.text.split(" ")
        for _ in range(2):
            size = rng.randint(2, longest)
            start = rng.randrange(max(1, len(words) - size + 1))
            piece = words[start : start + size]
            rows.append(LabelledText(" ".join(piece), int(not TOXIC_SET.isdisjoint(piece)), {}, "", str(len(rows))))
    return LabelledSet(tuple(rows), "pieces of the parrot's corpus")


def _parrot_prompts(config: ToxicityConfig, half: str) -> list[Prompt]:
    """Return prompts of both moods; those of the two halves are drawn apart."""
    n, seed = max(2, config.generating.prompts // 2), derive(config.seed, "prompts", half)
    moods = {ROUSED: True, CALM: False}
    return [
        Prompt(text, name) for name, marked in moods.items() for text in parrot_prompts(n, marked=marked, seed=seed)
    ]


def _files(config: ToxicityConfig) -> Sources:
    whole = _labelled(config)
    sets = _halved(whole, config)
    clean = {h: [t for t, y in zip(s.texts, s.labels, strict=True) if y == 0] for h, s in sets.items()}
    if config.clean:
        clean = _clean_of_file(config)
    selector = Lexicon.read(config.lexicon) if config.lexicon else fit_ngram(sets["discovery"])
    evaluators: dict[str, Scorer] = {}
    if config.scorer:
        evaluators["classifier"] = ClassifierScorer.load(config.scorer)
    evaluators["n-grams"] = fit_ngram(sets["test"])
    return Sources(
        sets,
        _other(config) if config.other else None,
        {half: texts[: config.texts.clean] for half, texts in clean.items()},
        _prompts_of_file(config) if config.prompts else {half: [] for half in HALVES},
        selector,
        evaluators,
        config.question,
        config.yes,
        config.no,
    )


def _labelled(config: ToxicityConfig) -> LabelledSet:
    if config.csv:
        return _csv(config, config.csv)
    path = Path(config.data)
    if path.is_dir() or "jigsaw" in path.name.lower():
        return load_jigsaw(path)
    if "toxicn" in path.name.lower():
        return load_toxicn(path)
    raise ConfigError(
        f"Data '{config.data}' was asked for, found neither the parrot, nor a folder of Jigsaw's files, nor a file of "
        "ToxiCN; give any other labelled csv with --csv FILE --text-column NAME --label-column NAME."
    )


def _csv(config: ToxicityConfig, path: str) -> LabelledSet:
    return load_labelled_csv(path, text=config.text_column, label=config.label_column, encoding=config.encoding)


def _other(config: ToxicityConfig) -> LabelledSet:
    return _csv(config, config.other)


def _halved(whole: LabelledSet, config: ToxicityConfig) -> dict[str, LabelledSet]:
    """Return discovery and test texts: the source's train and test where it has them, else random halves."""
    first = _without_repeats(whole)
    if {"train", "test"} <= {r.split for r in first.rows}:
        parts = {"discovery": first.where(split="train"), "test": first.where(split="test")}
    else:
        split = halves(first.labels, seed=derive(config.seed, "halves"))
        parts = {h: _kept(first, np.isin(np.arange(len(first.rows)), i)) for h, i in zip(HALVES, split, strict=True)}
    sizes = {"discovery": config.texts.discovery, "test": config.texts.test}
    return {half: _capped(part, sizes[half], generator(config.seed, "texts", half)) for half, part in parts.items()}


def _without_repeats(found: LabelledSet) -> LabelledSet:
    """Return the first of each text, so that no text is in both halves."""
    first = {text: i for i, text in reversed(list(enumerate(found.texts)))}
    return _kept(found, np.isin(np.arange(len(found.rows)), list(first.values())))


def _capped(found: LabelledSet, most: int, rng: np.random.Generator) -> LabelledSet:
    """Return at most half of `most` texts of each class, drawn at random, in their order."""
    chosen = [rng.permutation(np.flatnonzero(found.labels == y))[: most // 2] for y in (0, 1)]
    return _kept(found, np.isin(np.arange(len(found.rows)), np.concatenate(chosen))).require_both()


def _kept(found: LabelledSet, keep: Sequence[bool]) -> LabelledSet:
    return replace(found, rows=tuple(r for r, k in zip(found.rows, keep, strict=True) if k))


def _clean_of_file(config: ToxicityConfig) -> dict[str, list[str]]:
    path = Path(config.clean)
    if path.suffix.lower() == ".csv":
        import csv

        table = csv.DictReader(read_text(path, encoding=config.encoding).splitlines())
        if config.text_column not in (table.fieldnames or ()):
            raise DataError(
                f"Column '{config.text_column}' of '{path}' was asked for, found {table.fieldnames}; name the column "
                "with --text-column."
            )
        lines = [row[config.text_column] or "" for row in table]
    else:
        lines = read_text(path).split("\n")
    return _in_halves(config, [t for t in lines if t.strip()], "clean", path)


def _prompts_of_file(config: ToxicityConfig) -> dict[str, list[Prompt]]:
    path = Path(config.prompts)
    if path.suffix.lower() == ".jsonl":
        found = load_real_toxicity(path, seed=derive(config.seed, "prompts") % 2**32)
        names = {1: TOXIC_PROMPT, 0: OTHER_PROMPT}
        prompts = [Prompt(t, names[int(y)]) for t, y in zip(found.texts, found.labels, strict=True)]
        each = [[p for p in prompts if p.stratum == name] for name in names.values()]
        parts = [_in_halves(config, part, f"prompts {i}", path) for i, part in enumerate(each)]
        most = max(1, config.generating.prompts // 2)
        return {half: [p for part in parts for p in part[half][:most]] for half in HALVES}
    prompts = [Prompt(line.rstrip("\r"), "prompts") for line in read_text(path).split("\n") if line.strip()]
    return {h: p[: config.generating.prompts] for h, p in _in_halves(config, prompts, "prompts", path).items()}


def _in_halves(config: ToxicityConfig, items: list, name: str, path: Path) -> dict[str, list]:
    if len(items) < 4:
        raise DataError(f"'{path}' should hold at least 4 texts for two halves, found {len(items)}; give more.")
    order = generator(config.seed, name).permutation(len(items))
    middle = len(items) // 2
    return {"discovery": [items[i] for i in order[:middle]], "test": [items[i] for i in order[middle:]]}
