"""Language neurons (LAPE) and representations across languages: the rule, planted truths, and the paper's artefact."""

from pathlib import Path

import numpy as np
import pytest

from close import FLOAT64
from microtome.core.errors import DataError, MeasureError
from microtome.measures.language_neurons import firing_bar, language_neurons, overlaps, read_released
from microtome.measures.representations import alike, cka, retrieval

SHARED = Path(__file__).parents[2] / "shared"
RELEASED = SHARED / "data" / "lape" / "LLaMA-2-7B.neuron.pth"
NAMES = ("aa", "bb", "cc", "dd")


def rates(units: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 0.2, (len(NAMES), units))


def test_a_planted_neuron_of_one_language_comes_first_and_belongs_to_it_alone():
    p = rates()
    p[:, 7], p[2, 7] = 0.0, 0.9
    found = language_neurons(p, NAMES)
    assert found.entropy.argmin() == 7 and found.entropy[7] == 0
    assert found.members[:, 7].tolist() == [False, False, True, False] and 7 in found.of("cc")


def test_the_union_is_a_hundredth_of_all_neurons_whatever_the_rates():
    for seed, units in ((0, 2000), (1, 1999), (2, 357)):
        found = language_neurons(rates(units, seed), NAMES)
        assert len(found.chosen) == round(0.01 * units)
        assert (found.members[:, found.chosen].sum(0) >= 1).all()


def test_a_neuron_that_fires_alike_in_all_languages_has_the_entropy_of_their_number():
    p = rates()
    p[:, 3] = 0.9
    assert abs(language_neurons(p, NAMES).entropy[3] - np.log(len(NAMES))) < FLOAT64


def test_rates_that_are_below_the_bar_everywhere_are_no_candidates_however_low_their_entropy():
    p = rates()
    p[:, 5], p[0, 5] = 0.0, 0.01
    found = language_neurons(p, NAMES)
    assert np.isinf(found.entropy[5]) and not found.members[:, 5].any()


def test_languages_can_be_renamed_and_reordered():
    p, order = rates(), [2, 0, 3, 1]
    one, other = language_neurons(p, NAMES), language_neurons(p[order], [NAMES[i] for i in order])
    assert all((one.of(name) == other.of(name)).all() for name in NAMES)
    assert np.allclose(overlaps(one)[np.ix_(order, order)], overlaps(other))


def test_units_by_site_are_the_same_neurons():
    found = language_neurons(rates(), NAMES)
    units = found.units("aa", {"blocks.0.mlp.neurons": 1500, "blocks.1.mlp.neurons": 500})
    flat = [*units.at("blocks.0.mlp.neurons"), *(units.at("blocks.1.mlp.neurons") + 1500)]
    assert flat == found.of("aa").tolist()


@pytest.mark.skipif(not RELEASED.is_file(), reason="no shared data")
def test_the_released_file_follows_the_rule():
    """LLaMA-2-7B: 32 layers of 11,008 neurons; the union of the sets is exactly round(0.01 N)."""
    sets = read_released(RELEASED)
    assert len(sets) == 7 and {len(s) for s in sets} == {32}
    union = {(layer, i) for s in sets for layer, found in enumerate(s) for i in found.tolist()}
    assert len(union) == round(0.01 * 32 * 11008) == 3523
    assert sum(map(len, sets[0])) == 95


def test_the_bar_is_a_rate_that_is_there():
    assert firing_bar([0.4, 0.1, 0.3, 0.2], 0.5) == 0.2 and firing_bar([0.7], 0.05) == 0.7
    assert firing_bar(np.r_[np.zeros(90), np.ones(10)]) == 1


def test_bad_rates_and_files_are_named(tmp_path):
    for wrong in (rates() * 10, -rates(), np.full((4, 10), np.nan), rates()[:2]):
        with pytest.raises(MeasureError):
            language_neurons(wrong, NAMES)
    with pytest.raises(MeasureError, match="0 neurons of 10"):
        language_neurons(rates(10), NAMES)
    with pytest.raises(MeasureError, match=r"found 0 that fire above 1 in some language"):
        language_neurons(np.ones((4, 200)), NAMES)
    with pytest.raises(MeasureError, match=r"The 1\.5 quantile"):
        firing_bar([0.1, 0.2], 1.5)
    with pytest.raises(DataError, match="nowhere"):
        read_released(tmp_path / "nowhere.pth")
    (tmp_path / "broken.pth").write_bytes(b"not a file of tensors")
    with pytest.raises(DataError, match=r"broken\.pth"):
        read_released(tmp_path / "broken.pth")


def states(seed: int, n: int = 60, d: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_a_direction_that_all_share_makes_any_raw_cosine_one_and_no_centred_one():
    """The artefact of arXiv 2408.06273's similarity: independent states, one shared mean."""
    mean = 50 * states(9, 1)[0]
    x, y, z = (states(i) + mean for i in range(3))
    centre = np.concatenate([x, y, z]).mean(0)
    found = alike(x, y, centre, rng=np.random.default_rng(0))
    assert found.raw.estimate > 0.99 and abs(found.parallel.estimate) < 0.1
    assert abs(found.parallel.estimate - found.other.estimate) < 0.15
    assert found.retrieval.estimate < 0.1


def test_the_same_states_are_alike_in_every_way():
    x = states(0)
    found = alike(x, x, x.mean(0), rng=np.random.default_rng(0))
    for name in ("raw", "parallel", "cka", "retrieval"):
        assert abs(getattr(found, name).estimate - 1) < FLOAT64, name
    assert abs(found.other.estimate) < 0.2


def test_translations_are_told_from_other_sentences():
    x = states(0)
    y = x + 0.5 * states(1)
    found = alike(x, y, (x + y).mean(0) / 2, rng=np.random.default_rng(0))
    assert found.parallel.low > found.other.high and found.retrieval.low > 0.8
    assert found.parallel.low <= found.parallel.estimate <= found.parallel.high


def test_cka_knows_no_rotation_and_no_scale_and_equals_the_kernel_formula():
    x, y = states(0), states(1, d=10)
    turn = np.linalg.qr(states(2, 24))[0]
    assert abs(cka(x, y) - cka(3 * x @ turn, y)) < FLOAT64
    k, m = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))
    assert abs(cka(x, y) - (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())) < FLOAT64


def test_retrieval_counts_by_hand():
    x = np.eye(4)
    assert retrieval(x, x) == 1 and retrieval(x, x[[1, 0, 2, 3]]) == 0.5
    with pytest.raises(MeasureError):
        retrieval(x, x[:3])
