"""Show 3: on a head with a planted concept, choosing by benefit beats size, size beats sign, sign beats chance.

And the free direction, the difference of means, beats them all at k = 1. Toy evidence, of what singular vectors can do
where a concept does not lie along them; means over 8 seeds, judged on contexts that chose nothing.
"""

from statistics import fmean

import pytest
import torch

from microtome.edits import damp_subspace
from microtome.features.free_directions import difference_basis, random_basis
from microtome.features.head_basis import head_basis
from microtome.measures.head_damage import damage
from microtome.measures.head_scores import Contexts, head_scores, vocabulary_scores
from planted_head import WIDTH, planted_head, toxic_mass

K, SEEDS = 6, range(8)


def outcome(planted, axes):
    """The cut of the set's probability on held-out toxic contexts, and the KL on held-out clean ones."""
    edit = damp_subspace("final_norm", axes, 0.0)
    at = torch.zeros(len(planted.held_toxic), dtype=torch.long)
    toxic, clean = (edit.apply(x, at, at) for x in (planted.held_toxic, planted.held_clean))
    cut = 1 - toxic_mass(planted, toxic) / toxic_mass(planted, planted.held_toxic)
    return cut, damage(planted.held_clean, clean, planted.weight).kl


@pytest.fixture(scope="module")
def outcomes():
    """Method -> (cut, KL) for each seed."""
    found: dict[str, list] = {}
    for seed in SEEDS:
        planted = planted_head(seed)
        basis, contexts = head_basis(planted.weight), Contexts(planted.toxic, planted.clean)
        scores = head_scores(contexts, basis.axes)
        scores |= vocabulary_scores(contexts, planted.weight, planted.tokens, basis.axes)
        scores["chance"] = torch.rand(WIDTH, generator=torch.Generator().manual_seed(seed))
        for name, score in scores.items():
            found.setdefault(name, []).append(outcome(planted, basis.axes[:, score.topk(K).indices]))
        found.setdefault("random", []).append(outcome(planted, random_basis(WIDTH, K, seed).axes))
        free = difference_basis(planted.toxic, planted.clean).axes
        found.setdefault("difference in means", []).append(outcome(planted, free))
    return found


def cut(outcomes, name):
    return fmean(o[0] for o in outcomes[name])


def test_benefit_beats_size_beats_sign_beats_chance(outcomes):
    order = [cut(outcomes, n) for n in ("benefit", "abs", "signed", "random")]
    assert order == sorted(order, reverse=True)
    assert order[1] > 1.5 * order[2] > 3 * max(order[3], cut(outcomes, "chance"))


def test_the_difference_of_means_is_best_with_one_direction(outcomes):
    best, kl = cut(outcomes, "difference in means"), fmean(o[1] for o in outcomes["difference in means"])
    others = {n: cut(outcomes, n) for n in outcomes if n != "difference in means"}
    assert best > max(others.values()) + 0.2
    assert kl < min(fmean(o[1] for o in outcomes[n]) for n in others)


def test_the_released_codes_axis_is_near_chance(outcomes):
    assert cut(outcomes, "code_axis") < 0.5 * cut(outcomes, "signed")


def test_scores_of_size_agree_where_nothing_tells_them_apart(outcomes):
    sizes = [cut(outcomes, n) for n in ("abs", "std", "auroc", "contribution")]
    assert max(sizes) - min(sizes) < 0.1 and min(sizes) > 3 * cut(outcomes, "random")
