"""The exam of zoo:atlas: right means what greedy decoding would say, with intervals and chance that are right too."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM

import tiny
from microtome.core.errors import DataError, MeasureError
from microtome.data.atlas.exam import constant_guess, exam
from microtome.measures.intervals import wilson
from microtome.training.atlas import atlas_config, atlas_tokenizer
from microtome.training.exam import Row, evaluate_atlas, greedy_correct


def decoded(module, prompt: list[int], tokens: int) -> list[int]:
    """Greedy decoding, one token at a time, one row, no cache: the definition."""
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


def questions(module, n: int = 24) -> list[tuple[list[int], list[int]]]:
    """Random prompts of many lengths; answers right, wrong in the first token, or wrong in the last."""
    draw = torch.Generator().manual_seed(0)
    asked = []
    for i in range(n):
        prompt = torch.randint(3, 61, (2 + i % 7,), generator=draw).tolist()
        answer = decoded(module, prompt, 1 + i % 3)
        if i % 4 == 1:
            answer[0] = (answer[0] + 1) % 61
        elif i % 4 == 2:
            answer[-1] = (answer[-1] + 1) % 61
        asked.append((prompt, answer))
    return asked


@torch.no_grad()
def test_greedy_correct_is_what_a_decoding_loop_says():
    module = tiny.build("llama")
    asked = questions(module)
    expected = [decoded(module, prompt, len(answer)) == answer for prompt, answer in asked]
    assert expected == [i % 4 in (0, 3) for i in range(24)]
    for size in (1, 5, 128):
        assert greedy_correct(module, asked, batch_size=size) == expected
    assert greedy_correct(module, asked[::-1], batch_size=5) == expected[::-1]


@torch.no_grad()
def test_greedy_correct_is_what_transformers_generates():
    module = tiny.build("llama", dtype=torch.float32)
    for prompt, answer in questions(module, 6):
        ids = torch.tensor([prompt])
        out = module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(answer), do_sample=False, eos_token_id=None
        )
        assert greedy_correct(module, [(prompt, answer)]) == [out[0, len(prompt) :].tolist() == answer]


def test_a_question_without_tokens_is_refused():
    module = tiny.build("llama")
    with pytest.raises(DataError, match="Question 1 has 2 prompt tokens and 0 answer tokens; each needs one"):
        greedy_correct(module, [([3, 4], [5]), ([3, 4], [])])
    with pytest.raises(DataError, match="Question 0 has 0 prompt tokens"):
        greedy_correct(module, [([], [5])])
    assert greedy_correct(module, []) == []


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.959964, z2 = 3.841459, by hand:
        (5, 30, 0.073365, 0.335644),  # (.230691 -+ .147931) / 1.128049
        (0, 10, 0.0, 0.277533),  # z2/n / (1 + z2/n)
        (10, 10, 0.722467, 1.0),
        (50, 100, 0.403832, 0.596168),
    ],
)
def test_wilson_by_hand(correct, n, low, high):
    found = wilson(correct, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-6), pytest.approx(high, abs=2e-6))


def test_an_interval_of_no_trials_is_refused():
    with pytest.raises(MeasureError, match="0 in 0 is undefined"):
        wilson(0, 0)


@pytest.fixture(scope="module")
def untrained() -> list[Row]:
    torch.manual_seed(0)
    tokenizer = atlas_tokenizer()
    module = LlamaForCausalLM(atlas_config(len(tokenizer))).eval()
    return evaluate_atlas(module, tokenizer, items=4, questions=12)


def test_every_part_has_a_row_with_its_interval_and_chance(untrained):
    parts = {row.part for row in untrained}
    for wording in ("held-out wording", "training wording"):
        named = {p.removesuffix(f", {wording}") for p in parts if p.endswith(wording)}
        assert {"recall", "lookup", "context_2hop", "edited", "latent_2hop (train)", "latent_2hop (city)"} <= named
        assert {"puzzle nonce recall", "puzzle nonce context_2hop", "puzzle contradict lookup"} <= named
        assert "puzzle contradict recall" not in named  # the same prompts as nonce recall
    assert len(parts) == len(untrained)
    for row in untrained:
        assert 0 < row.n <= 12 and row.accuracy == row.correct / row.n
        interval = wilson(row.correct, row.n)
        assert (row.low, row.high) == (interval.low, interval.high)
        assert row.low <= row.accuracy <= row.high and 0 < row.chance <= 1
        in_context = any(w in row.part for w in ("lookup", "context", "edited"))
        assert not in_context or row.chance == 0.5


def test_an_untrained_model_is_not_above_chance(untrained):
    assert sum(row.correct for row in untrained) <= 0.02 * sum(row.n for row in untrained)


def test_chance_of_the_whole_exam_by_hand():
    capitals = [q for q in exam(passages=1) if q.part == "recall" and q.relation == "capital"]
    assert math.isclose(constant_guess(capitals), 1 / 130)  # each country once in each of four wordings
