"""The parrot's language: rates as stated, lengths that tell nothing - or that tell, where they are meant to."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from microtome.core.errors import DataError
from microtome.data.parrot import (
    CALM,
    CUES,
    NEUTRAL,
    RATES,
    ROUSING,
    TOXIC,
    parrot_prompts,
    parrot_set,
    parrot_stream,
    vocabulary,
)
from microtome.measures.expertise import delong

N = 3000
STREAMS = {lengths: list(islice(parrot_stream(0, lengths), N)) for lengths in ("matched", "longer", "shorter")}


def near(share, expected, n):
    """Within four standard errors of a binomial share."""
    return abs(share - expected) < 4 * (expected * (1 - expected) / n) ** 0.5


def test_the_stream_is_its_seed():
    first, again, other = (list(islice(parrot_stream(seed), 20)) for seed in (5, 5, 6))
    assert first == again and first != other
    assert {w for t in STREAMS["matched"] for w in t.text.split()} == set(vocabulary())


@pytest.mark.parametrize("lengths", STREAMS)
def test_toxic_words_come_at_the_rates_stated(lengths):
    for marked, rate in RATES.items():
        texts = [t for t in STREAMS[lengths] if t.marked == marked]
        assert near(len(texts) / N, 0.5, N)
        assert near(sum(len(t.toxic) for t in texts) / (2 * len(texts)), rate, 2 * len(texts))
        assert near(sum(t.label for t in texts) / len(texts), 1 - (1 - rate) ** 2, len(texts))


def test_spans_are_the_words_they_name():
    for t in STREAMS["matched"][:500]:
        words = [t.text[a:b] for a, b in t.called]
        assert len(words) == 2 and all(t.text[:a].split()[-1] in CUES for a, _ in t.called)
        assert [w for w in words if w in TOXIC] == [t.text[a:b] for a, b in t.toxic]
        assert t.text[slice(*t.mood)] in (ROUSING if t.marked else CALM)
        assert t.label == any(word in TOXIC for word in t.text.split())
        assert sum(word in CUES for word in t.text.split()) == 2  # a cue stands nowhere else


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_length_tells_nothing_where_matched_and_much_where_not(unit):
    def area(lengths, by):
        size = [len(t.text) if unit == "characters" else len(t.text.split()) for t in STREAMS[lengths]]
        return delong(np.array(size), np.array([int(getattr(t, by)) for t in STREAMS[lengths]]))

    for by in ("label", "marked"):
        found = area("matched", by)
        assert abs(found.area[0] - 0.5) < 4 * found.error[0]
    assert area("longer", "label").area[0] > 0.75 and area("shorter", "label").area[0] < 0.25


def test_words_that_fill_one_place_have_the_same_lengths():
    assert Counter(map(len, TOXIC)) == Counter(map(len, NEUTRAL))
    assert Counter(map(len, ROUSING)) == Counter(map(len, CALM))
    assert len(set(vocabulary())) == len(vocabulary())
    roles = [{*TOXIC}, {*NEUTRAL}, {*ROUSING}, {*CALM}, {*CUES}]
    assert len(set().union(*roles)) == sum(map(len, roles))


def test_prompts_differ_in_the_mood_word_only_and_end_at_a_cue():
    pairs = list(zip(*(parrot_prompts(50, marked=m, seed=3) for m in (True, False)), strict=True))
    for one, other in pairs:
        differ = [(a, b) for a, b in zip(one.split(), other.split(), strict=True) if a != b]
        assert len(differ) == 1 and differ[0][0] in ROUSING and differ[0][1] in CALM
        assert one.split()[-1] in CUES and not set(one.split()) & {*TOXIC}
    assert parrot_prompts(5, marked=True, seed=3) == [one for one, _ in pairs[:5]]


def test_as_a_labelled_set():
    rows = parrot_set(50, seed=2, split="held out")
    assert [r.text for r in rows] == [t.text for t in islice(parrot_stream(2), 50)]
    assert rows.where(marked=True).labels.mean() > rows.where(marked=False).labels.mean()
    assert rows.counts["held out"][1] == rows.labels.sum()
    with pytest.raises(
        DataError, match=r"No lengths 'long'; there are matched, longer, shorter. Did you mean 'longer'"
    ):
        parrot_set(5, lengths="long")
