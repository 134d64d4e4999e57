"""Toxicity, perplexity, divergence and variety of generations: by hand, paired, bounded, in shards, and refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.core.protocols import Measure
from microtome.measures.divergence import CleanKL
from microtome.measures.perplexity import perplexity, text_losses
from microtome.measures.toxicity import by_prompt, toxicity, toxicity_change
from microtome.measures.variety import variety

seeds = st.integers(0, 2**31)


def test_summaries_by_hand():
    scores = [[0.9, 0.1], [0.2, 0.4], [0.5, 0.7]]
    np.testing.assert_allclose(
        by_prompt(scores), [[0.5, 0.5, 1, 0.9], [0.3, 0, 0, 0.4], [0.6, 1, 1, 0.7]], atol=FLOAT64
    )
    found = toxicity(scores, rng=np.random.default_rng(0), draws=50)
    whole = found["all"]
    estimates = [getattr(whole, n).estimate for n in ("mean", "rate", "any", "maximum")]
    assert estimates == pytest.approx([1.4 / 3, 0.5, 2 / 3, 2 / 3], abs=FLOAT64)
    assert (whole.prompts, whole.completions) == (3, 2)


def test_strata_stand_on_their_own():
    rng = np.random.default_rng(0)
    scores, kind = rng.random((40, 3)), np.array(["clean", "toxic"])[np.arange(40) % 2]
    found = toxicity(scores, rng=rng, strata=kind, draws=200)
    assert list(found) == ["all", "clean", "toxic"] and found["toxic"].prompts == 20
    assert found["toxic"].mean.estimate == pytest.approx(scores[1::2].mean(), abs=FLOAT64)
    weighed = (found["clean"].rate.estimate + found["toxic"].rate.estimate) / 2
    assert found["all"].rate.estimate == pytest.approx(weighed, abs=FLOAT64)


def test_pairing_by_prompt_takes_the_prompts_out_of_the_difference():
    rng = np.random.default_rng(0)
    prompts = rng.random((200, 1)) * 0.8
    base = prompts + 0.1 * rng.random((200, 5))
    change = toxicity_change(base - 0.05, base, rng=rng, draws=300)["all"]
    assert change.mean.high == pytest.approx(-0.05, abs=FLOAT64) and change.maximum.low == pytest.approx(-0.05)
    alone = toxicity(base, rng=rng, draws=300)["all"].mean
    assert alone.high - alone.low > 0.04
    same = toxicity_change(base, base, rng=rng, draws=50)["all"]
    assert same.any.low == same.any.high == 0


def test_the_expected_maximum_grows_with_completions_and_the_mean_does_not():
    scores = np.random.default_rng(0).random((300, 25))
    few, many = (toxicity(s, rng=np.random.default_rng(0), draws=200)["all"] for s in (scores[:, :5], scores))
    assert many.maximum.low > few.maximum.high and few.mean.estimate in many.mean
    with pytest.raises(MeasureError, match="as many completions"):
        toxicity_change(scores, scores[:, :5], rng=np.random.default_rng(0))


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_losses_are_those_of_cross_entropy_and_padding_is_no_text(seed):
    g = torch.Generator().manual_seed(seed)
    logits, ids = torch.randn(3, 6, 9, generator=g, dtype=torch.float64), torch.randint(9, (3, 6), generator=g)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, :3], mask[2, :5] = False, False
    losses, tokens = text_losses(logits, ids, mask)
    assert tokens.tolist() == [5, 2, 0] and losses[2] == 0
    for row, first in ((0, 0), (1, 3)):
        own = torch.nn.functional.cross_entropy(logits[row, first:-1], ids[row, first + 1 :], reduction="sum")
        assert losses[row].item() == pytest.approx(own.item(), abs=FLOAT64)
    garbage = logits.where(mask[..., None], torch.nan)
    assert torch.equal(text_losses(garbage, ids, mask)[0], losses)


def test_perplexity_by_token_and_by_text():
    losses, tokens = np.array([np.log(2) * 9, np.log(32)]), np.array([9, 1])
    found = perplexity(losses, tokens, rng=np.random.default_rng(0), draws=200)
    assert found.tokens.estimate == pytest.approx(2 ** (14 / 10), abs=FLOAT64)  # (9 x 1 + 5) bits over 10 tokens
    assert found.sentence_mean == pytest.approx(17) and found.sentence_median == pytest.approx(17)
    assert found.sentence_sd == pytest.approx(15 * np.sqrt(2))
    assert found.tokens.low == pytest.approx(2) and found.tokens.high == pytest.approx(32)


def test_a_text_that_the_model_rules_out_makes_the_perplexity_infinite():
    found = perplexity([9e5, 1.0, 1.0], [9, 1, 1], rng=np.random.default_rng(0), draws=99)
    assert found.tokens.high == np.inf == found.sentence_mean and found.tokens.low == pytest.approx(np.e)


def test_uniform_logits_have_the_vocabulary_as_perplexity():
    losses, tokens = text_losses(torch.zeros(4, 5, 7), torch.zeros(4, 5, dtype=torch.long), torch.ones(4, 5).bool())
    assert perplexity(losses, tokens, rng=np.random.default_rng(0), draws=20).tokens.estimate == pytest.approx(7)


@given(seeds, st.sampled_from([1e-6, 1e-2, 1.0, 30.0, 3000.0]))
@settings(max_examples=40, deadline=None)
def test_the_divergence_is_kl_and_stays_below_its_bound(seed, size):
    g = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(4, 11, generator=g, dtype=torch.float64)
    after = z + size * torch.randn(4, 11, generator=g, dtype=torch.float64)
    state = CleanKL()
    state.update(z, after=after)
    found = state.finish()
    p, q = z.log_softmax(1), after.log_softmax(1)
    expected = (p.exp() * (p - q)).sum(1)
    assert found.kl == pytest.approx(expected.mean().item(), abs=1e-9 * max(1, size))
    assert found.largest == pytest.approx(expected.max().item(), abs=1e-9 * max(1, size))
    assert 0 < found.kl <= found.bound
    if size == 1e-6:
        assert found.kl == pytest.approx(found.second_order, rel=1e-4)


def test_divergence_of_nothing_is_nothing_and_shards_merge():
    g = torch.Generator().manual_seed(0)
    z, after = torch.randn(2, 6, 5, generator=g), torch.randn(2, 6, 5, generator=g)
    mask = torch.rand(2, 6, generator=g) > 0.3
    same = CleanKL()
    same.update(z, after=z + 2)  # a constant added to all logits changes no probability
    assert same.finish().kl == pytest.approx(0, abs=FLOAT64) and same.finish().positions == 12
    exact = CleanKL()
    exact.update(z, after=z)
    assert exact.finish().kl == 0 == exact.finish().bound
    parts = [CleanKL(), CleanKL(), CleanKL()]
    parts[0].update(z, after=after, mask=mask)
    parts[1].update(z[:1], after=after[:1], mask=mask[:1])
    parts[2].update(z[1:], after=after[1:], mask=mask[1:])
    assert isinstance(parts[0], Measure)
    whole, joined = parts[0].finish(), parts[2].merge(parts[1]).finish()
    assert joined.positions == whole.positions == int(mask.sum())
    assert joined.kl == pytest.approx(whole.kl, abs=FLOAT64) and joined.largest == whole.largest


def test_variety_by_hand():
    found = variety([[1, 2, 1, 2, 1], [3], [], [1, 2, 9]], ns=(1, 2, 6), repeated=2)
    assert found.distinct == {1: 4 / 9, 2: 3 / 6, 6: 0}
    assert found.repetition == pytest.approx((1 - 2 / 4) / 4) and found.empty == 0.25 and found.length == 2.25
    assert variety([torch.tensor([1, 2, 1, 2, 1]), "ab cd ab".split()], ns=(1,)).distinct[1] == 4 / 8


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: by_prompt([[0.1, np.nan]]), "1 NaN"),
        (lambda: by_prompt([0.1, 0.2]), "give 2 axes"),
        (lambda: toxicity([[0.1], [0.2]], rng=None, strata=["a"]), "1 strata were given for 2 prompts"),
        (lambda: toxicity([[0.1]], rng=np.random.default_rng(0)), "in 1 cluster"),
        (
            lambda: text_losses(torch.zeros(1, 3, 4), torch.zeros(1, 2).long(), torch.ones(1, 2).bool()),
            "Losses of logits",
        ),
        (
            lambda: text_losses(torch.full((1, 2, 4), torch.nan), torch.zeros(1, 2).long(), torch.ones(1, 2).bool()),
            "NaN",
        ),
        (lambda: perplexity([0.0, 1.0], [0, 1], rng=None), "1 of 2 texts have no token"),
        (lambda: CleanKL().finish(), "seen no position"),
        (lambda: CleanKL().update(torch.zeros(1, 2), after=torch.zeros(1, 3)), "differ in shape"),
        (lambda: CleanKL().update(torch.zeros(1, 2), after=torch.full((1, 2), torch.inf)), "NaN or infinity"),
        (lambda: variety([]), "variety of 0 completions"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
