"""Mixing: policies as laws, UniMax against a level found by bisection, and a stream whose item k depends on k alone."""

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from close import FLOAT64
from microtome.core.errors import DataError
from microtome.data.mixing import POLICIES, Sampler, fuxitranyu_shares, mix
from microtome.data.mixing.permutation import permuted

COUNTS = st.dictionaries(st.sampled_from("en de hi ta sw zh".split()), st.integers(1, 10**9), min_size=1)
SIZES = {"en": 50, "de": 7, "hi": 31, "sw": 2}
SHARES = {"en": 0.4, "de": 0.25, "hi": 0.3, "sw": 0.05}


@given(COUNTS)
def test_exponent_one_is_proportional_and_zero_uniform(counts):
    plain = mix(counts, "proportional")
    assert mix(counts, "temperature", alpha=1).shares == pytest.approx(plain.shares, rel=FLOAT64)
    even = dict.fromkeys(counts, 1 / len(counts))
    assert mix(counts, "temperature", alpha=0).shares == pytest.approx(even, rel=FLOAT64)
    assert all(e == pytest.approx(1) for e in plain.epochs.values())


@given(COUNTS, st.floats(0, 1), st.floats(0, 1))
def test_shares_sum_to_one_and_a_lower_exponent_raises_the_smallest(counts, a, b):
    low, high = sorted((a, b))
    shares = [mix(counts, "temperature", alpha=x).shares for x in (low, high)]
    assert all(math.fsum(s.values()) == pytest.approx(1) for s in shares)
    smallest = min(counts, key=counts.get)
    assert shares[0][smallest] >= shares[1][smallest] - FLOAT64
    order = sorted(counts, key=counts.get)
    assert sorted(order, key=lambda name: (shares[0][name], counts[name])) == order or low < 1e-9


@given(COUNTS, st.floats(0.1, 20), st.floats(0.01, 1))
def test_unimax_is_the_highest_level_that_no_language_goes_over(counts, epochs, part):
    budget = part * epochs * sum(counts.values())
    found = mix(counts, "unimax", max_epochs=epochs, budget=budget)
    assert max(found.epochs.values()) <= epochs * (1 + 1e-9)
    low, high = 0.0, budget
    for _ in range(200):  # tokens(level) = sum of min(level, cap) rises with the level; find where it is the budget
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(middle, epochs * c) for c in counts.values()) < budget else (low, middle)
    expected = {name: min(high, epochs * c) / budget for name, c in counts.items()}
    assert found.shares == pytest.approx(expected, rel=1e-6)


def test_unimax_by_hand():
    found = mix({"en": 1000, "hi": 50, "sw": 10}, "unimax", max_epochs=2, budget=600)
    assert found.shares == pytest.approx({"en": 480 / 600, "hi": 100 / 600, "sw": 20 / 600})
    assert found.epochs == pytest.approx({"en": 0.48, "hi": 2, "sw": 2})
    row = found.rows()[1]
    assert (row["language"], row["count"], row["epochs"]) == ("hi", 50, pytest.approx(2))


def test_a_table_is_taken_as_it_is_and_the_papers_is_renormalised():
    found = mix({"en": 10, "hi": 10, "xx": 5}, "fixed", table={"en": 0.75, "hi": 0.25, "xx": 0})
    assert found.shares == {"en": 0.75, "hi": 0.25, "xx": 0} and found.epochs["xx"] == 0
    paper = fuxitranyu_shares(["en", "zh", "hi", "ta"])
    assert math.fsum(paper.values()) == pytest.approx(1) and paper["en"] / paper["zh"] == pytest.approx(28.8 / 10.4)
    assert paper["hi"] == paper["ta"] == pytest.approx(0.37 / (28.8 + 10.4 + 2 * 0.37))


def test_shares_of_items_give_the_shares_of_tokens():
    tokens, items = {"en": 9000, "hi": 1000}, {"en": 100, "hi": 200}  # 90 and 5 tokens an item
    shares = mix(tokens, "temperature", alpha=0).by_items(items)
    seen = {name: shares[name] * tokens[name] / items[name] for name in tokens}
    assert seen["en"] == pytest.approx(seen["hi"]) and shares["hi"] / shares["en"] == pytest.approx(18)


@pytest.mark.parametrize(
    ("counts", "asked", "said"),
    [
        ({"en": 1}, {"policy": "temprature"}, "No mixing policy 'temprature'.* Did you mean 'temperature'"),
        ({"en": 1, "hi": 0}, {}, "Language 'hi' has a count of 0; leave it out"),
        ({"en": float("nan")}, {}, "Language 'en' has a count of nan"),
        ({}, {}, "A mix of languages was asked for, found none"),
        ({"en": 1}, {"alpha": -1}, "with alpha -1; give 0"),
        ({"en": 1}, {"budget": 0}, "A budget of 0 was asked for"),
        ({"en": 1}, {"policy": "unimax", "max_epochs": 0}, "at most 0 epochs"),
        ({"en": 10, "hi": 5}, {"policy": "unimax", "max_epochs": 2, "budget": 31}, "31 at .* 2 epochs, found 30 "),
        ({"en": 1}, {"policy": "fixed"}, "found no table; give table="),
        ({"en": 1, "hi": 1}, {"policy": "fixed", "table": {"en": 0.5, "hi": 0.4}}, "sum to 1, found a sum of 0.9"),
        ({"en": 1, "hi": 1}, {"policy": "fixed", "table": {"en": 1.5, "hi": -0.5}}, "found -0.5 for 'hi'"),
        ({"eng": 1}, {"policy": "fixed", "table": {"en": 1}}, "'en' has no entry in the counts.* Did you mean 'eng'"),
        ({"en": 1, "hi": 1}, {"policy": "fixed", "table": {"en": 1}}, "'hi' has no entry in the table"),
    ],
)
def test_policies_say_what_is_wrong(counts, asked, said):
    with pytest.raises(DataError, match=said) as caught:
        mix(counts, **asked)
    assert "\n" not in str(caught.value) and len(POLICIES) == 4
    with pytest.raises(DataError, match=r"No number of items for 'en'; found eng; .* Did you mean 'eng'"):
        mix({"en": 1}).by_items({"eng": 3})


@given(st.integers(1, 700), st.integers(0, 2**63))
def test_a_permutation_hits_every_place_once(size, key):
    assert sorted(permuted(np.arange(size), size, np.uint64(key)).tolist()) == [*range(size)]


def test_permutations_differ_by_key_and_favour_no_place():
    keys = np.arange(6000, dtype=np.uint64)
    for size in (3, 5, 100):
        landed = np.bincount(permuted(np.zeros(len(keys), int), size, keys), minlength=size)
        assert chi2.sf(((landed - 6000 / size) ** 2 / (6000 / size)).sum(), size - 1) > 1e-3
    mixed = permuted([3, 3, 0], [10, 1000, 1], np.array([5, 5, 5], np.uint64))
    assert mixed[2] == 0 and mixed[0] < 10  # each entry has its own size
    assert np.corrcoef(np.arange(10_000), permuted(np.arange(10_000), 10_000, 7))[0, 1] < 0.05


def sampler(**knobs):
    return Sampler(SIZES, SHARES, **({"seed": 1, "block": 1000} | knobs))


def test_shares_are_met_in_the_long_run_and_as_chance_would_in_the_short():
    whole = Counter(item.language for item in islice(sampler(), 5000))
    assert whole == {name: 5000 * share for name, share in SHARES.items()}
    for seed in range(5):
        found = sampler(seed=seed, block=65_536).take(4000)
        expected = 4000 * np.array([*SHARES.values()])
        statistic = ((np.bincount(found.language) - expected) ** 2 / expected).sum()
        assert 1e-4 < chi2.sf(statistic, 3) < 1 - 1e-4


@settings(max_examples=30)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1),
    st.integers(1, 300),
    st.integers(0, 9),
)
def test_no_item_comes_twice_in_an_epoch_and_epochs_come_one_after_another(drawn, count, seed):
    total = sum(weight for _, weight in drawn.values())
    sizes = {name: size for name, (size, _) in drawn.items()}
    stream = Sampler(sizes, {name: w / total for name, (_, w) in drawn.items()}, seed=seed, block=64)
    seen = {name: [] for name in sizes}
    for item in islice(stream, count):
        seen[item.language].append(item)
    for name, items in seen.items():
        size = sizes[name]
        assert [item.epoch for item in items] == [i // size for i in range(len(items))]
        for start in range(0, len(items), size):
            part = [item.index for item in items[start : start + size]]
            assert len(set(part)) == len(part) and set(part) <= set(range(size))
    for row in stream.report():
        assert row.drawn == len(seen[row.language]) and row.repeats == max(0, row.drawn - sizes[row.language])


def test_epochs_are_ordered_anew():
    items = [i.index for i in islice(sampler(), 4000) if i.language == "en"]
    assert items[:50] != items[50:100] and sorted(items[:50]) == sorted(items[50:100])


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_are_one_rank(world):
    whole = [*islice(sampler(), 2520)]
    parts = [[*islice(sampler(rank=rank, world=world), 2520 // world)] for rank in range(world)]
    assert [item for row in zip(*parts, strict=True) for item in row] == whole
    taken = [sampler(rank=rank, world=world).take(2520 // world) for rank in range(world)]
    assert [sampler().languages[c] for c in np.stack([t.language for t in taken], 1).ravel()] == [
        item.language for item in whole
    ]


@given(st.integers(0, 2500), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=25)
def test_a_stream_goes_on_where_it_stopped_on_any_number_of_ranks(stop, before, after):
    whole = [*islice(sampler(), 2500 * before + 60)]
    ranks = [sampler(rank=rank, world=before) for rank in range(before)]
    for own in ranks:
        own.take(stop)
    state = ranks[0].state()
    assert all(own.state() == state for own in ranks) and all(isinstance(v, int) for v in state.values())
    resumed = [sampler(rank=rank, world=after) for rank in range(after)]
    for own in resumed:
        own.load(state)
    found = [item for row in zip(*(islice(own, 20) for own in resumed), strict=True) for item in row]
    assert found == whole[before * stop : before * stop + len(found)]


def test_stopping_within_an_iteration_counts_only_what_was_given():
    stream, other = sampler(), sampler()
    first = [*islice(stream, 137)]
    other.load(stream.state())
    assert [*islice(other, 300)] == [*islice(sampler(), 437)][137:] and len(first) == 137
    looped = []
    for item in sampler_taking(looped):
        looped.append(item)
        if len(looped) == 40:
            break
    assert looped == [*islice(sampler(), 20), *[*islice(sampler(), 50)][30:]]


def sampler_taking(done):
    """A stream of which somebody takes ten items between the twentieth and the next."""
    stream = sampler()
    for item in stream:
        yield item
        if len(done) == 20:
            stream.take(10)


def test_languages_too_small_for_a_block_still_come_and_those_of_no_share_never():
    shares = {"en": 0.9999, "sw": 0.0001, "xx": 0.0}
    found = Sampler({"en": 10, "sw": 3, "xx": 0}, shares, block=100).take(1000)
    assert np.bincount(found.language, minlength=3).tolist() == [990, 10, 0]
    names = [f"l{i}" for i in range(60)]
    many = Sampler(dict.fromkeys(names, 2), {name: 0.5 / 59 for name in names} | {"l0": 0.5}, block=64)
    assert many.quota.sum() == 64 and many.quota.min() == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Sampler({"en": 1}, {"en": 0.9}), "sum to 1, found .* in all 0.9; mend"),
        (lambda: Sampler({"en": 1, "hi": 2}, {"en": 1.5, "hi": -0.5}), "Shares are 0 or more"),
        (lambda: Sampler({"en": 1, "hi": 0}, {"en": 0.5, "hi": 0.5}), "Language 'hi' has 0 items and a share of 0.5"),
        (lambda: Sampler({"en": 1}, {"eng": 1.0}), "'en' is not in the shares.* Did you mean 'eng'"),
        (lambda: Sampler({}, {}), "sum to 1"),
        (lambda: Sampler({"en": 1}, {"en": 1}, rank=2, world=2), "Rank 2 of 2 was asked for; ranks are 0 to 1"),
        (lambda: Sampler({"a": 1, "b": 1}, {"a": 0.5, "b": 0.5}, block=1), "A block of 1 items cannot hold 2"),
        (lambda: sampler().load(sampler(seed=2).state()), "A state with seed 2 was given to a sampler with 1"),
        (lambda: sampler().load(sampler(block=500).state()), "fingerprint of sizes, shares and block"),
        (lambda: sampler().load(sampler().state() | {"position": -1}), "position -1 was given"),
    ],
)
def test_the_sampler_says_what_is_wrong(call, said):
    with pytest.raises(DataError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
