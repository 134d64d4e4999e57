"""Output metrics: closed forms, bounds, splitting, padding of answers, and what they refuse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import MeasureError
from microtome.core.protocols import Metric
from microtome.engine.edit import Edit, Zero
from microtome.engine.gradients import gradients
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.outputs import JS, KL, Accuracy, LogitDiff, LogProb, Probability, Rank, Stack

ITEMS, VOCAB = 7, 11
ALL = torch.arange(ITEMS)


def logits(seed, n=1, dtype=torch.float64, scale=5.0):
    return scale * torch.randn(ITEMS, n, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def every(seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randint(VOCAB, (ITEMS,), generator=g)
    b = (a + 3) % VOCAB
    ref = logits(seed + 100)
    scores = [LogitDiff(a, b), LogProb(a), Probability(a), Accuracy(a), Rank(a)]
    return [*scores, KL(ref), KL(ref, direction="to_reference"), JS(ref)]


def test_values_by_hand():
    x = torch.tensor([[[math.log(1.0), math.log(2.0), math.log(5.0)]]], dtype=torch.float64)  # p = 1/8, 2/8, 5/8
    row, one, two = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    six = [LogitDiff(two, one), LogProb(one), Probability(two), Accuracy(two), Accuracy(one), Rank(one)]
    values = Stack(six)(x, row)
    hand = [math.log(2.5), math.log(0.25), 0.625, 1.0, 0.0, 2.0]
    assert largest(values, torch.tensor([hand], dtype=torch.float64)) < FLOAT64
    even = torch.zeros_like(x)  # KL(uniform || p) and KL(p || uniform) in nats
    out = sum(math.log((1 / 3) / p) / 3 for p in (0.125, 0.25, 0.625))
    back = sum(p * math.log(3 * p) for p in (0.125, 0.25, 0.625))
    assert KL(even)(x, row).item() == pytest.approx(out, abs=FLOAT64)
    assert KL(even, direction="to_reference")(x, row).item() == pytest.approx(back, abs=FLOAT64)


def test_ties_share_the_credit_so_that_a_dead_network_scores_chance():
    dead = torch.zeros(ITEMS, 1, VOCAB)
    answer = torch.arange(ITEMS)
    assert torch.equal(Accuracy(answer)(dead, ALL), torch.full((ITEMS,), 1 / VOCAB))
    assert torch.equal(Accuracy(answer, among=torch.arange(8))(dead, ALL), torch.full((ITEMS,), 1 / 8))
    assert torch.equal(Rank(answer)(dead, ALL), torch.full((ITEMS,), (VOCAB + 1) / 2))


def test_constrained_decoding_ignores_all_other_tokens():
    x = torch.zeros(1, 1, VOCAB)
    x[0, 0, 9], x[0, 0, 2] = 5.0, 1.0
    row, answer = torch.tensor([0]), torch.tensor([2])
    assert Accuracy(answer)(x, row) == 0
    assert Accuracy(answer, among=torch.tensor([2, 3, 4]))(x, row) == 1


def test_a_full_answer_multiplies_and_padding_adds_nothing():
    x = logits(1, n=3)
    at = torch.tensor([[4, 5, 6]] * ITEMS)
    ids = torch.tensor([[1, 2, 3]] * (ITEMS - 1) + [[1, 2, -1]])
    p = x.softmax(2)
    first = p[:, 0, 1] * p[:, 1, 2]
    expected = torch.cat([(first * p[:, 2, 3])[:-1], first[-1:]])
    assert largest(Probability(ids, at)(x, ALL), expected) < FLOAT64
    assert largest(LogProb(ids, at)(x, ALL), expected.log()) < FLOAT64
    greedy = x.argmax(2)
    assert Accuracy(greedy, at)(x, ALL).tolist() == [1.0] * ITEMS
    wrong = greedy.clone()
    wrong[0, 2] = (wrong[0, 2] + 1) % VOCAB
    assert Accuracy(wrong, at)(x, ALL).tolist() == [0.0] + [1.0] * (ITEMS - 1)
    wrong[0, 2] = -1
    assert Accuracy(wrong, at)(x, ALL).tolist() == [1.0] * ITEMS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 60.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_divergences_keep_their_bounds(dtype, seed, scale):  # V9
    p, q = logits(seed, 2, dtype, scale), logits(seed + 1, 2, dtype, scale)
    at = torch.zeros(ITEMS, 2, dtype=torch.long)
    for direction in ("from_reference", "to_reference"):
        assert largest(KL(p, at, direction)(p, ALL), torch.zeros(ITEMS)) == EXACT
        assert (KL(p, at, direction)(q, ALL) >= 0).all()
    js = JS(p, at)(q, ALL)
    assert (js >= 0).all() and (js <= math.log(2)).all()
    assert largest(js, JS(q, at)(p, ALL)) < FLOAT32
    assert largest(JS(p, at)(p, ALL), torch.zeros(ITEMS)) < FLOAT32


def test_masked_tokens_are_no_trouble_and_disjoint_distributions_reach_ln2():
    p, q = torch.full((1, 1, 4), -torch.inf), torch.full((1, 1, 4), -torch.inf)
    p[..., :2], q[..., 2:] = 0.0, 0.0
    row = torch.tensor([0])
    assert JS(p)(q, row).item() == pytest.approx(math.log(2), abs=1e-6)
    assert KL(p)(p.clone(), row).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(cut=st.integers(1, ITEMS - 1), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_split_order_and_shift_do_not_matter(dtype, cut, seed):
    x = logits(seed, dtype=dtype)
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(seed))
    for metric in every(seed):
        whole = metric(x, ALL)
        assert whole.dtype == dtype
        parts = torch.cat([metric(x[:cut], ALL[:cut]), metric(x[cut:], ALL[cut:])])
        assert largest(whole, parts) < FLOAT32
        assert largest(whole[order], metric(x[order], order)) < FLOAT32
        if dtype == torch.float64:  # a constant added to all logits changes no distribution
            assert largest(whole, metric(x + 3.0, ALL)) < FLOAT64


def test_they_work_in_a_sweep_and_give_gradients(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids([[5, 6, 7, 8], [3, 4, 11, 12]])
    clean = run(model, batch, logits="last").logits
    metrics = [LogitDiff([7, 8], [3, 4]), LogProb([7, 8]), Probability([7, 8]), KL(clean), JS(clean)]
    assert all(isinstance(m, Metric) for m in metrics)
    several = Stack([*metrics, Rank([7, 8])])
    found = sweep(model, batch, [Edit("blocks.1.mlp.neurons", Zero())], several)
    assert largest(found.base, several(clean, torch.arange(2))) < FLOAT32
    assert found.effects.shape == (1, 2, 6) and (found.effects[0, :, 3:5] > 0).all()  # KL and JS moved
    for metric in metrics[:3]:
        assert gradients(model, batch, "embed", metric).grads[next(iter(model.space("embed")))].abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LogitDiff([1, 2], [3]), "2 answers and 1 counterfactual"),
        (lambda: LogitDiff([1, -1], [3, 4]), "holds id -1; ids are >= 0"),
        (lambda: LogProb([[1, -1, 2]], [[0, 1, 2]]), "-1 only behind the last token"),
        (lambda: LogProb([[1, 2]]), "with 2 tokens per answer"),
        (lambda: LogProb([1, 2], torch.tensor([3])), "need \\[2, 1\\]"),
        (lambda: LogProb([0.5]), "whole numbers"),
        (lambda: Rank([], "last"), "pass token ids|give \\[batch\\]"),
        (lambda: Accuracy([1, 5], among=torch.tensor([1, 2])), "answer 5 is not one of them"),
        (lambda: KL(torch.zeros(2, 1, 3), direction="both"), "direction 'both' is not known"),
        (lambda: KL(torch.full((2, 1, 3), torch.nan)), "reference holds NaN"),
        (lambda: JS(torch.zeros(3)), "give logits \\[batch, n, vocab\\]"),
        (lambda: Stack([]), "got no metric"),
        (lambda: Stack([Rank([1]), Rank([1], torch.tensor([2]))]), "metrics 0 and 1 look at different positions"),
        (lambda: Rank([VOCAB] * ITEMS)(logits(0), ALL), f"Token {VOCAB} is outside the vocabulary of {VOCAB}"),
        (lambda: Rank([1] * ITEMS)(logits(0), ALL[:3]), "3 rows need \\[3, 1, vocab\\]"),
        (lambda: Rank([1] * 3)(logits(0), ALL), "asked for item 6; it holds 3 items"),
        (lambda: KL(torch.zeros(ITEMS, 1, 5))(logits(0), ALL), "its reference has 5"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(MeasureError, match=text) as error:
        make()
    assert "\n" not in str(error.value)
