"""Instructions made of any corpus, for where no instruction data can be had: four tasks, in twelve languages.

    continue    a text's beginning; the answer is its rest
    cloze       a text with a gap; the answer is the word that stood there
    identify    a text; the answer is the name of its language, in the language of the instruction
    write       asks, in another language, for a text in this one with a given word; the answer is such a text

Instructions are worded in the language of the text, or for the last two in another one of the corpora's; a language
that `phrases` does not have is asked for, and about, in English. `Conversation.language` is that of the answer. Tasks
and languages come in turn, so each has its share of any count. These are exercises in doing what is asked, in the
language asked for, and no substitute for human instructions: nothing is explained, reasoned or looked up in them.

A pair of answers has the same prompt and the answer of that conversation; what it is preferred to is, in turn, text in
a wrong language ("language") or text of the right language that does not do the task ("task"): the text or the
instruction said again, or another text without the word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.core.errors import DataError, did_you_mean
from microtome.core.seeds import generator
from microtome.data.instructions.passages import PARTS, Passage, passages
from microtome.data.instructions.phrases import GAP, PHRASES, Phrases
from microtome.data.instructions.schema import Conversation, PreferencePair
from microtome.data.instructions.tags import ENGLISH_NAMES

__all__ = ["TASKS", "generated", "preferences"]

TASKS = ("continue", "cloze", "identify", "write")

Source = Mapping[str, Iterator[Passage]]


@dataclass(frozen=True)
class _Made:
    """A conversation, and an answer to its prompt that is in the right language and no answer."""

    prompt: str
    answer: str
    language: str
    beside: str


def generated(
    corpora: Mapping[str, Sequence[str]],
    count: int,
    seed: int,
    *,
    part: str = "train",
    held_out: float = 0.05,
    longest: int = 24,
) -> list[Conversation]:
    """Return conversations made of a corpus.

    Args:
        corpora: tag -> texts; sentences or documents, of which the beginning is used.
        count: how many; they go through languages, then tasks, in turn.
        seed: of the draw. Same seed, same conversations.
        part: `train` or `held_out`; no passage of the corpus is in both, whatever the seeds.
        held_out: share of passages held out.
        longest: words of a passage; where words are not written apart, half the characters.

    Returns:
        The conversations; `source` is `generated/<task>`.

    Raises:
        DataError: a number out of range, no language, or a language without text that is long enough.

    Example:
        talks = generated({"en": english, "hi": hindi}, 5000, seed=0)
        measured = generated({"en": english, "hi": hindi}, 500, seed=0, part="held_out")
    """
    drawn = _passages(corpora, count, seed, part, held_out, longest)
    made = []
    for number, language, task in _turns(corpora, count):
        rng = generator(seed, "instruction", part, number)
        own = _MAKERS[task](language, list(corpora), drawn, rng)
        messages = (("user", own.prompt), ("assistant", own.answer))
        made.append(Conversation(messages, own.language, f"generated/{task}", f"{part}/{number}"))
    return made


def preferences(
    corpora: Mapping[str, Sequence[str]],
    count: int,
    seed: int,
    *,
    part: str = "train",
    held_out: float = 0.05,
    longest: int = 24,
) -> list[PreferencePair]:
    """Return pairs of answers made of a corpus: what was asked for, and what was not.

    Args:
        corpora: tag -> texts, of two languages or more.
        count: how many.
        seed: of the draw; with the same seed the prompts are those of `generated`, as long as no corpus runs out.
        part: `train` or `held_out`.
        held_out: share of passages held out.
        longest: words of a passage.

    Returns:
        The pairs; `source` is `generated/<task>/<what is wrong with the rejected one>`.

    Raises:
        DataError: as for `generated`, or a single language.

    Example:
        pairs = preferences({"en": english, "hi": hindi}, 2000, seed=0)
    """
    if len(corpora) < 2:
        raise DataError(f"Preferences between languages were asked for, found {len(corpora)}; give two or more.")
    drawn = _passages(corpora, count, seed, part, held_out, longest)
    others = _passages(corpora, count, seed + 1, part, held_out, longest)
    made = []
    for number, language, task in _turns(corpora, count):
        rng = generator(seed, "instruction", part, number)
        own = _MAKERS[task](language, list(corpora), drawn, rng)
        turn = number // len(corpora)
        if (turn + turn // len(TASKS)) % 2 == 0:
            wrong, rejected = "language", _elsewhere(own, list(corpora), others, rng)
        else:
            wrong, rejected = "task", own.beside
        prompt = (("user", own.prompt),)
        source = f"generated/{task}/{wrong}"
        made.append(PreferencePair(prompt, own.answer, rejected, own.language, source, f"{part}/{number}"))
    return made


def _passages(
    corpora: Mapping[str, Sequence[str]], count: int, seed: int, part: str, held_out: float, longest: int
) -> Source:
    """Return a stream of passages for every language, after checking what was asked for."""
    if part not in PARTS:
        raise DataError(f"No part '{part}' of instructions; it is {' or '.join(PARTS)}.{did_you_mean(part, PARTS)}")
    if count < 1 or not corpora or not 0 < held_out < 1 or longest < 8:
        raise DataError(
            f"{count} instructions of {len(corpora)} languages, passages of {longest} words and a share of {held_out} "
            "held out were asked for; give 1 or more, a language, 8 words or more and a share between 0 and 1."
        )
    return {
        language: passages(
            texts, language, part=part, held_out=held_out, longest=longest,
            rng=generator(seed, "passages", part, language),
        )
        for language, texts in corpora.items()
    }  # fmt: skip


def _turns(corpora: Mapping[str, object], count: int) -> Iterator[tuple[int, str, str]]:
    names = list(corpora)
    for number in range(count):
        yield number, names[number % len(names)], TASKS[number // len(names) % len(TASKS)]


def _asking(language: str, languages: Sequence[str], rng: np.random.Generator) -> str:
    """Return a language to ask in for, or about, another: one that has words for both."""
    known = [one for one in languages if one in PHRASES and one != language]
    if language not in PHRASES or not known:
        return "en"
    return known[int(rng.integers(len(known)))]


def _names(asking: str, language: str) -> tuple[str, str]:
    """Return what a language calls another, alone and as it stands in an instruction."""
    phrases = PHRASES[asking]
    if language in phrases.names:
        return phrases.names[language], phrases.within[language]
    name = ENGLISH_NAMES.get(language, language)
    return name, f"in {name}"


def _worded(language: str, task: str, rng: np.random.Generator) -> str:
    phrases: Phrases = PHRASES.get(language, PHRASES["en"])
    wordings = getattr(phrases, "continuing" if task == "continue" else task)
    return wordings[int(rng.integers(len(wordings)))]


def _continue(language: str, languages: Sequence[str], drawn: Source, rng: np.random.Generator) -> _Made:
    begun, rest = next(drawn[language]).halves(rng)
    return _Made(f"{_worded(language, 'continue', rng)}\n\n{begun}", rest, language, begun)


def _cloze(language: str, languages: Sequence[str], drawn: Source, rng: np.random.Generator) -> _Made:
    passage = next(drawn[language])
    first, last = passage.span(rng)
    gapped = passage.text[:first] + GAP + passage.text[last:]
    return _Made(f"{_worded(language, 'cloze', rng)}\n\n{gapped}", passage.text[first:last], language, gapped)


def _identify(language: str, languages: Sequence[str], drawn: Source, rng: np.random.Generator) -> _Made:
    asking = _asking(language, languages, rng)
    instruction = _worded(asking, "identify", rng)
    name, _ = _names(asking, language)
    return _Made(f"{instruction}\n\n{next(drawn[language]).text}", name, asking, instruction)


def _write(language: str, languages: Sequence[str], drawn: Source, rng: np.random.Generator) -> _Made:
    passage, asking = next(drawn[language]), _asking(language, languages, rng)
    first, last = passage.span(rng)
    word = passage.text[first:last]
    instruction = _worded(asking, "write", rng).format(within=_names(asking, language)[1], word=word)
    beside = next((p for p in (next(drawn[language]) for _ in range(8)) if word not in p.text), None)
    return _Made(instruction, passage.text, language, beside.text if beside else f"{word} {word}")


_MAKERS = {"continue": _continue, "cloze": _cloze, "identify": _identify, "write": _write}


def _elsewhere(own: _Made, languages: Sequence[str], drawn: Source, rng: np.random.Generator) -> str:
    """Return text of another language than the answer's, about as long."""
    known = [one for one in languages if one != own.language]
    passage = next(drawn[known[int(rng.integers(len(known)))]])
    size = max(len(own.answer), 8)
    if len(passage.text) <= size:
        return passage.text
    at = passage.text.find(" ", size) if passage.spaced else size
    return passage.text if at < 0 else passage.text[:at]
