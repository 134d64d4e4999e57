"""Units: a set algebra over (site, index); random twins match site by site and never overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import UnitsError
from microtome.core.site import Site
from microtome.core.units import Units

SPACE = {Site("blocks.0.mlp.neurons"): 40, Site("blocks.1.mlp.neurons"): 30, Site("blocks.1.attn.heads"): 8}
PAIRS = st.sets(st.sampled_from([(s, i) for s, n in SPACE.items() for i in range(min(n, 6))]))


def from_pairs(pairs) -> Units:
    return Units({s: [i for t, i in pairs if t == s] for s in SPACE})


@given(PAIRS, PAIRS)
def test_algebra_is_that_of_python_sets(a, b):
    left, right = from_pairs(a), from_pairs(b)
    for op in ("__or__", "__and__", "__sub__", "__xor__"):
        assert set(getattr(left, op)(right)) == getattr(a, op)(b)
    assert len(left) == len(a) and (left == right) == (a == b) and (left <= right) == (a <= b)
    assert all(pair in left for pair in a)


@given(PAIRS)
def test_save_then_load_is_identity(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("units") / "set.json"
    units = from_pairs(pairs)
    assert Units.load(units.save(path)) == units and hash(Units.load(path)) == hash(units)


@given(st.lists(st.integers(-5, 5), min_size=70, max_size=70), st.integers(0, 70))
def test_top_k_takes_the_k_best(values, k):
    scores = {Site("blocks.0.mlp.neurons"): np.array(values[:40]), Site("blocks.1.mlp.neurons"): np.array(values[40:])}
    chosen = Units.top_k(scores, k)
    taken = sorted((scores[s][i] for s, i in chosen), reverse=True)
    assert len(chosen) == k and taken == sorted(values, reverse=True)[:k]


@given(PAIRS.filter(bool), st.integers(0, 99))
def test_random_twin_matches_each_site_and_is_disjoint(pairs, seed):
    small = Units({s: i[: SPACE[s] // 2] for s, i in from_pairs(pairs).items()})
    twin = small.matched_random(SPACE, np.random.default_rng(seed))
    assert {s: i.size for s, i in twin.items()} == {s: i.size for s, i in small.items()} and len(twin & small) == 0
    assert twin == small.matched_random(SPACE, np.random.default_rng(seed))


def test_random_twin_matches_norms():
    site = Site("blocks.0.mlp.neurons")
    norms = {site: np.r_[np.ones(20), np.full(20, 100.0)]}
    twin = Units({site: [25, 30]}).matched_random(SPACE, np.random.default_rng(0), norms=norms)
    assert twin.at(site).min() >= 20
    free = Units({site: [25, 30]}).matched_random(SPACE, np.random.default_rng(1), nearest=1000)
    assert free.at(site).min() < 20  # without norms nothing keeps it among the large ones


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Units({"blocks.0.x": [-1]}), "must be whole numbers >= 0, found [-1]"),
        (lambda: Units({"blocks.*.x": [1]}), "a glob names several sites"),
        (lambda: Units({"blocks.1.attn.heads": [8]}).check(SPACE), "Unit 8 at 'blocks.1.attn.heads' does not exist"),
        (lambda: Units.top_k({"a": np.array([1.0, np.nan])}, 1), "1 are NaN"),
        (lambda: Units.top_k({"a": np.array([1.0])}, 2), "asked for 2 units, found 1 scores"),
        (lambda: Units.all({Site("a"): 4}).matched_random({Site("a"): 4}, np.random.default_rng(0)), "found 0 of 4"),
        (lambda: Units.load("no/such/file.json"), "No units file 'no/such/file.json'"),
    ],
)
def test_bad_units_are_refused_in_one_line(make, text):
    with pytest.raises(UnitsError) as error:
        make()
    assert text in str(error.value) and "\n" not in str(error.value)
