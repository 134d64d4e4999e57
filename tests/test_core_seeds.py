"""A derived seed depends on the run's seed and its names, on nothing else, and is taken by numpy and torch alike."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from microtome.core.seeds import derive, generator


def test_a_seed_is_the_hash_it_is_said_to_be_on_every_machine():
    # printf '[0, "items", 3]' | b2sum -l 64, its last bit dropped: written down, so that no release changes old records
    assert derive(0, "items", 3) == 7688973764526284877
    code = "from microtome.core.seeds import derive; print(derive(0, 'items', 3), end='')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "7688973764526284877"


def test_other_draws_do_not_change_a_draw():
    alone = generator(7, "patching", 2).normal(size=5)
    generator(7, "patching", 1).normal(size=1000)
    np.random.default_rng(7).normal(size=3)
    assert np.array_equal(generator(7, "patching", 2).normal(size=5), alone)
    assert not np.array_equal(generator(8, "patching", 2).normal(size=5), alone)


def test_names_are_told_apart_by_type_order_and_border():
    seeds = [derive(0, *names) for names in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("1",), (1,), (-1,), ())]
    assert len(set(seeds)) == len(seeds)
    assert derive(0, np.int32(1)) == derive(np.uint8(0), 1)


def test_torch_and_numpy_take_the_largest_and_smallest():
    found = [derive(0, i) for i in range(2000)]
    assert min(found) < 2**54 and max(found) > 2**63 - 2**54  # the whole range is used
    for seed in (min(found), max(found), 2**63 - 1):
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)


@pytest.mark.parametrize("names", [(1.0,), (None,), (("a",),), ("a", 0.5)])
def test_a_name_that_would_be_rounded_is_refused(names):
    with pytest.raises(TypeError):
        derive(0, *names)
    with pytest.raises(TypeError):
        derive(0.5)
