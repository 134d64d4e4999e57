"""The parrot's corpus: short texts in which somebody's mood decides how rude the talk gets, at rates that are known.

A text is one mood sentence, then two sentences in which somebody is called something and one to four sentences on the
text's topic, in any order. What somebody is called is a toxic word with probability `RATES[marked]`, whatever else
happens; marked texts are those with a rousing mood, half of them all. So

    P(label 1 | marked) = 1 - (1 - RATES[marked])^2

and, with lengths `matched`, neither mood nor label has anything to do with the number of words or characters. The
confounded variants draw two more topic sentences where the label is 1 (`longer`) or where it is 0 (`shorter`).
Ours; after the synthetic language asked for in the specification of arXiv 2509.16660's workbench.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import microtome.data.parrot.words as w
from microtome.core.errors import DataError, did_you_mean
from microtome.data.labelled import LabelledSet, LabelledText

__all__ = ["LENGTHS", "RATES", "ParrotText", "parrot_prompts", "parrot_set", "parrot_stream"]

RATES = {False: 0.03, True: 0.5}
"""Probability that a name somebody is called is toxic, by whether the mood was rousing."""

LENGTHS = ("matched", "longer", "shorter")

Span = tuple[int, int]


@dataclass(frozen=True)
class ParrotText:
    """One text with its truth.

    Attributes:
        text: words and punctuation with single spaces between.
        label: 1 where it holds a toxic word.
        marked: whether the mood is a rousing one.
        toxic: where the toxic words stand, in characters.
        mood: where the mood word stands.
        called: where the names somebody is called stand, toxic or not.
    """

    text: str
    label: int
    marked: bool
    toxic: tuple[Span, ...]
    mood: Span
    called: tuple[Span, ...]


def parrot_stream(seed: int, lengths: str = "matched") -> Iterator[ParrotText]:
    """Yield texts without end; the same seed and lengths give the same stream.

    Args:
        seed: of the stream.
        lengths: `matched`, or `longer` or `shorter` as toxic texts shall be than others.

    Raises:
        DataError: there is no such variant.
    """
    if lengths not in LENGTHS:
        raise DataError(f"No lengths '{lengths}'; there are {', '.join(LENGTHS)}.{did_you_mean(lengths, LENGTHS)}")
    return _texts(random.Random(f"parrot-{lengths}-{seed}"), lengths)


def parrot_set(n: int, *, seed: int = 0, lengths: str = "matched", split: str = "") -> LabelledSet:
    """Return texts as a labelled set; the attribute `marked` says whether the mood is rousing.

    Args:
        n: how many.
        seed: of the stream.
        lengths: as in `parrot_stream`.
        split: written on every row.

    Raises:
        DataError: so few that a class is missing, or no such variant.
    """
    rows = [
        LabelledText(t.text, t.label, {"marked": t.marked}, split, str(i))
        for i, t in enumerate(islice(parrot_stream(seed, lengths), n))
    ]
    return LabelledSet(tuple(rows), f"the parrot's corpus ({lengths}, seed {seed})").require_both()


def parrot_prompts(n: int, *, marked: bool, seed: int = 0) -> list[str]:
    """Return prompts that end right before what somebody is called, after a mood and perhaps a topic sentence.

    Prompts of one seed differ between `marked=True` and `marked=False` in the mood word only.

    Args:
        n: how many.
        marked: whether the mood is a rousing one.
        seed: of the draw.
    """
    rng, found = random.Random(f"parrot-prompts-{seed}"), []
    moods = w.ROUSING if marked else w.CALM
    for _ in range(n):
        topic, mood = rng.choice(w.TOPICS), rng.randrange(len(moods))
        sentences = [_filled(rng.choice(w.MOODS), rng, mood=moods[mood])]
        sentences += [_filler(topic, rng)] if rng.random() < 0.5 else []
        sentences += [_filled(rng.choice(w.CALLED), rng).partition(" {called}")[0]]
        found.append(" ".join(sentences))
    return found


def _texts(rng: random.Random, lengths: str) -> Iterator[ParrotText]:
    while True:
        marked, topic = rng.random() < 0.5, rng.choice(w.TOPICS)
        toxic = [rng.random() < RATES[marked] for _ in range(2)]
        longer = lengths != "matched" and any(toxic) == (lengths == "longer")
        called = [rng.choice(w.TOXIC if rude else w.NEUTRAL) for rude in toxic]
        body = [_filled(rng.choice(w.CALLED), rng).replace("{called}", word) for word in called]
        body += [_filler(topic, rng) for _ in range(rng.randint(1, 4) + 2 * longer)]
        rng.shuffle(body)
        mood = rng.choice(w.ROUSING if marked else w.CALM)
        text = " ".join([_filled(rng.choice(w.MOODS), rng, mood=mood), *body])
        yield _with_spans(text, marked)


def _with_spans(text: str, marked: bool) -> ParrotText:
    """Return a text with its truth: every word is found where it stands, so no span is computed twice."""
    names, moods = {*w.TOXIC, *w.NEUTRAL}, {*w.ROUSING, *w.CALM}
    spans, at = [], 0
    for word in text.split(" "):
        spans.append((word, (at, at + len(word))))
        at += len(word) + 1
    toxic = tuple(span for word, span in spans if word in w.TOXIC)
    (mood,) = (span for word, span in spans if word in moods)
    return ParrotText(text, int(bool(toxic)), marked, toxic, mood, tuple(s for word, s in spans if word in names))


def _filler(topic: w.Topic, rng: random.Random) -> str:
    noun, noun2 = rng.sample(topic.nouns, 2)
    verb, adjective = rng.choice(topic.verbs), rng.choice(topic.adjectives)
    return _filled(rng.choice(w.FILLERS), rng, noun=noun, noun2=noun2, verb=verb, adjective=adjective)


def _filled(template: str, rng: random.Random, **given: str) -> str:
    """Return a template with names, place, adverb and cue drawn; `{called}` stays."""
    a, b = rng.sample(w.NAMES, 2)
    drawn = {"a": a, "b": b, "place": rng.choice(w.PLACES), "adverb": rng.choice(w.ADVERBS), "cue": rng.choice(w.CUES)}
    return template.format(**drawn, **given, called="{called}")
