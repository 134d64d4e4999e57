"""Likelihoods of texts and options: numbers by hand; batches, caches and order of questions change none of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tiny
from close import FLOAT32, FLOAT64
from microtome.core.errors import DataError, MeasureError
from microtome.core.seeds import generator
from microtome.data.benchmarks import Choice
from microtome.engine.run import run
from microtome.measures.bits import TextBits, bits_per_byte, start_token, text_bits, unigram_bits
from microtome.measures.choices import accuracy, chance, encode_pair, score_choices
from microtome.models import Model
from microtome.models.zoo.hand import hand_items
from microtome.models.zoo.hand.world import VOCAB

WORDS = [f"w{i}" for i in range(58)]
LENGTH = 64  # of the tiny models


def tokenizer(*, begins: bool = True):
    """A word tokenizer of 61 tokens, as many as the tiny models know."""
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<s>", "<unk>", *WORDS])}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>"} if begins else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>", **special)


@pytest.fixture(scope="module")
def worded(tiny_model):
    def make(family="llama"):
        single = family in ("gemma2", "bloom")  # their masks overflow in float64
        model = Model.load(tiny.build(family, dtype=torch.float32)) if single else tiny_model(family)
        return Model(model.module, tokenizer(), model.anatomy, family)

    return make


def log_p(model, ids):
    """log p of each token after the first, by one plain forward of the row alone."""
    z = run(model, model.batch_ids([ids])).logits[0].double().log_softmax(-1)
    return np.array([z[i, ids[i + 1]].item() for i in range(len(ids) - 1)])


def close(model):
    return FLOAT64 if model.dtype == torch.float64 else FLOAT32


def sentence(rng, n):
    return " ".join(rng.choice(WORDS, n))


def uniform():
    """A model whose logits are all 0, of 61 tokens."""
    module = tiny.build("llama")
    with torch.no_grad():
        module.lm_head.weight.zero_()
    return Model.load(module, tokenizer=tokenizer())


# -- bits per byte


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bloom"])
def test_bits_are_the_sum_over_tokens_in_base_two(worded, family):
    model, texts = worded(family), ["w5 w6 w7", "w1", "w9 w9 w2 w30 w4 w11"]
    found = text_bits(model, texts)
    for i, text in enumerate(texts):
        row = [1, *model.tokenizer(text)["input_ids"]]
        assert found.bits[i] == pytest.approx(-log_p(model, row).sum() / math.log(2), rel=close(model))
    assert found.tokens.tolist() == [3, 1, 6] and found.bytes.tolist() == [8, 2, 19]
    assert found.per_byte == pytest.approx(found.bits.sum() / 29)


@given(st.integers(0, 63), st.lists(st.integers(1, 150), min_size=1, max_size=4))
def test_a_uniform_model_pays_its_vocabulary_for_every_token_once(overlap, sizes):
    texts = [" ".join(["w7"] * n) for n in sizes]
    found = text_bits(UNIFORM, texts, overlap=overlap)
    assert found.bits == pytest.approx(math.log2(61) * np.array(sizes), rel=1e-6)
    assert found.tokens.tolist() == sizes


UNIFORM = uniform()


def test_bytes_count_not_characters():
    model = uniform()
    found = text_bits(model, ["é é"])
    assert found.bytes.tolist() == [5] and found.per_byte == pytest.approx(math.log2(61) * 2 / 5)


def test_windows_of_a_long_text_see_what_they_are_said_to_see(worded):
    model, text = worded(), sentence(generator(0), 150)
    row = [1, *model.tokenizer(text)["input_ids"]]
    apart = sum(log_p(model, row[i : i + LENGTH + 1]).sum() for i in range(0, 150, LENGTH))
    assert text_bits(model, [text]).bits[0] == pytest.approx(-apart / math.log(2), rel=FLOAT64)
    sliding = log_p(model, row[: LENGTH + 1]).sum()
    sliding += sum(log_p(model, row[i - LENGTH : i + 1])[-1] for i in range(LENGTH + 1, 151))
    most = text_bits(model, [text], overlap=LENGTH - 1).bits[0]
    assert most == pytest.approx(-sliding / math.log(2), rel=FLOAT64)


def test_batches_and_order_change_nothing(worded):
    model, rng = worded(), generator(1)
    texts = [sentence(rng, n) for n in (3, 70, 1, 12, 150, 5)]
    whole = text_bits(model, texts).bits
    assert text_bits(model, texts, batch=1).bits == pytest.approx(whole, rel=FLOAT64)
    assert text_bits(model, texts[::-1]).bits[::-1] == pytest.approx(whole, rel=FLOAT64)


def test_the_token_that_begins_texts():
    module = tiny.build("gpt2")  # its config says 50256, of a vocabulary of 61
    assert start_token(Model.load(module, tokenizer=tokenizer())) == 1
    without = Model.load(module, tokenizer=tokenizer(begins=False))
    assert start_token(without) is None
    found = text_bits(without, ["w4 w5", "w6"])
    row = without.tokenizer("w4 w5")["input_ids"]
    assert found.bits == pytest.approx([math.log2(61) - log_p(without, row).sum() / math.log(2), math.log2(61)])
    assert start_token(Model.load(tiny.build("llama"), tokenizer=tokenizer(begins=False))) == 1  # of the config


def test_unigram_bits_are_the_entropy_of_the_texts_own_tokens(worded):
    # w1 three times, w22 once: 4 tokens of 0.811 bits over 9 bytes
    entropy = 4 * (0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert unigram_bits(worded(), ["w1 w22", "w1", "w1"]) == pytest.approx(entropy / 10)


def test_the_interval_holds_the_value_and_narrows_with_texts():
    rng = np.random.default_rng(0)

    def interval(n):
        sizes = rng.integers(5, 50, n)
        return bits_per_byte(TextBits(sizes * rng.gamma(4, 0.5, n), sizes, sizes), rng=generator(0), draws=500)

    few, many = interval(40), interval(4000)
    assert few.n == 40 and few.estimate in few and 2.0 in many
    assert many.high - many.low < (few.high - few.low) / 5


def test_texts_that_cannot_be_counted_are_refused(worded):
    model = worded()
    with pytest.raises(DataError, match="Text 1 has no tokens"):
        text_bits(model, ["w1", ""])
    with pytest.raises(DataError, match="no texts were asked for"):
        text_bits(model, [])
    with pytest.raises(DataError, match="one string were asked for"):
        text_bits(model, "w1")
    with pytest.raises(DataError, match="overlap by 64; give 0 to 63"):
        text_bits(model, ["w1"], overlap=LENGTH)
    with pytest.raises(DataError, match="no tokenizer"):
        text_bits(Model(model.module, None, model.anatomy, "bare"), ["w1"])
    with pytest.raises(DataError, match="no output head over tokens"):
        text_bits(Model(model.module, model.tokenizer, replace(model.anatomy, head=None), "headless"), ["w1"])
    with pytest.raises(MeasureError, match="1 cluster"):
        bits_per_byte(text_bits(model, ["w1 w2"]), rng=generator(0))


# -- questions


def question(contexts, endings, answer=0, **kwargs):
    return Choice("toy", "en", kwargs.pop("id", "1"), tuple(contexts), tuple(endings), answer, **kwargs)


def by_hand(model, choice):
    found = []
    for context, ending in choice.pairs:
        ids = model.tokenizer(context + ending)["input_ids"]
        found.append(log_p(model, ids)[len(model.tokenizer(context)["input_ids"]) - 1 :].sum())
    return np.array(found)


QUESTIONS = [
    question(["w1 w2 w3 w4"], ["w5 w6", "w7", "w5 w8 w9"], 2),
    question(["w1 w2 w9", "w1 w2 w8 w7"], ["w5 w6"], 1),
    question(["w3"], ["w5 w6", "w7"]),
    question(["w3 w4", "w30 w4"], ["w5"]),
    question(["w1 w2 w3 w4 w5 w6 w7 w8"], ["w9", "w10"], 1),
    question(["w1 w2"], ["w5 w6", "w5 w6"]),
    question(["w1 w2 w3"], ["w5 w6 w7 w8 w9 w10 w11", "w5"]),
]


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_log_likelihoods_are_those_of_plain_forwards(worded, family):
    model = worded(family)
    for found, choice in zip(score_choices(model, QUESTIONS), QUESTIONS, strict=True):
        assert found.choice is choice
        assert found.log_likelihoods == pytest.approx(by_hand(model, choice), rel=close(model))
        assert found.chosen == int(np.argmax(found.log_likelihoods))
        assert found.acc == (found.chosen == choice.answer)


def test_batches_order_and_caches_change_nothing(worded):
    model, rng = worded(), generator(2)
    choices = [question([sentence(rng, n)], [sentence(rng, m) for m in (1, 4, 2)]) for n in (1, 2, 30, 31, 5, 6, 60)]
    whole = [s.log_likelihoods for s in score_choices(model, choices)]
    without = Model(model.module, model.tokenizer, model.anatomy, "no cache")
    without.__dict__["accepts"] = model.accepts - {"past_key_values"}
    for other in (
        score_choices(model, choices, batch=1),
        score_choices(model, choices[::-1])[::-1],
        score_choices(without, choices),
    ):
        assert all(o.log_likelihoods == pytest.approx(w, rel=FLOAT64) for o, w in zip(other, whole, strict=True))


def test_what_options_begin_with_is_run_once(worded):
    model, seen = worded(), []
    choices = [question(["w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"], [f"w{i}" for i in range(20, 30)])]
    hook = model.module.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    try:
        score_choices(model, choices)
    finally:
        hook.remove()
    assert seen == [8, 20]  # most of the context, then its last two words for each of ten options


def test_an_empty_context_is_the_beginning_of_a_text(worded):
    model = worded()
    with pytest.raises(DataError, match="blank context"):
        question([""], ["w5", "w6"])
    empty = question(["x"], ["w5 w6", "w7"])
    object.__setattr__(empty, "contexts", (" ",))
    (found,) = score_choices(model, [empty])
    expected = [log_p(model, [1, *model.tokenizer(e)["input_ids"]]).sum() for e in empty.endings]
    assert found.log_likelihoods == pytest.approx(expected, rel=FLOAT64)


def test_white_space_at_the_end_of_a_context_belongs_to_the_ending():
    core = Tokenizer(models.WordLevel({"a": 0, " b": 1, "b": 2, " ": 3, "?": 4}, "?"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    words = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    assert encode_pair(words, "a ", "b") == encode_pair(words, "a", " b") == ([0], [1])
    assert encode_pair(words, "a", " b b") == ([0], [1, 1])


def test_what_is_too_long_loses_its_beginning(worded):
    model, rng = worded(), generator(3)
    context, endings = sentence(rng, 80), ["w5 w6", "w7 w8 w9"]
    (found,) = score_choices(model, [question([context], endings)])
    ids = model.tokenizer(context)["input_ids"]
    expected = []
    for ending in endings:
        tokens = model.tokenizer(ending)["input_ids"]
        expected.append(log_p(model, (ids + tokens)[-(LENGTH + 1) :])[-len(tokens) :].sum())
    assert found.log_likelihoods == pytest.approx(expected, rel=FLOAT64)
    with pytest.raises(DataError, match="an ending of 65 tokens, the model takes 1 to 64"):
        score_choices(model, [question(["w1"], [sentence(rng, 65), "w2"])])


def test_long_endings_lose_less_by_length():
    model = uniform()  # every token costs the same
    same = question(["w1"], ["w2 w3", "w4444444444 w5"], 1)
    (found,) = score_choices(model, [same])
    assert found.log_likelihoods[0] == pytest.approx(-2 * math.log(61)) and found.chosen == 0
    assert not found.acc and found.acc_norm and found.acc_bytes
    accents = question(["w1"], ["wwww", "éééé"], 1)
    (found,) = score_choices(model, [accents])
    assert not found.acc_norm and found.acc_bytes  # four characters each, but eight bytes


def test_the_hand_built_model_answers_its_own_questions():
    model = Model.load("zoo:hand")
    items = hand_items("recall", 24, seed=1)
    choices = [
        Choice("hand", "en", str(i), (item.prompt,), tuple(VOCAB[o] for o in item.options),
               item.options.index(item.answer)) for i, item in enumerate(items)
    ]  # fmt: skip
    scored = score_choices(model, choices)
    assert all(s.acc for s in scored)
    logits = run(model, model.batch([items[0].prompt])).logits[0, -1].double().log_softmax(-1)
    assert scored[0].log_likelihoods == pytest.approx(logits[list(items[0].options)].numpy(), abs=FLOAT32)


def test_a_random_model_is_at_chance(worded):
    rng = generator(4)
    choices = [
        question([sentence(rng, 6)], [sentence(rng, 3) for _ in range(4)], int(rng.integers(4)), id=str(i))
        for i in range(600)
    ]
    found = accuracy([s.acc for s in score_choices(worded(), choices)])
    assert chance(choices) == 0.25 and 0.25 in found and found.n == 600


def test_chance_is_the_mean_over_questions():
    assert chance(QUESTIONS[:2]) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_questions_that_cannot_be_scored_are_refused(worded):
    model = worded()
    with pytest.raises(DataError, match="no questions"):
        score_choices(model, [])
    with pytest.raises(DataError, match="no tokenizer"):
        score_choices(Model(model.module, None, model.anatomy, "bare"), QUESTIONS)
    module = LlamaForCausalLM(LlamaConfig(vocab_size=61, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                          num_attention_heads=2, bos_token_id=1, eos_token_id=2))  # fmt: skip
    broken = Model.load(module, tokenizer=tokenizer())
    with torch.no_grad():
        module.lm_head.weight.fill_(float("nan"))
    with pytest.raises(MeasureError, match="Question 1 of toy"):
        score_choices(broken, QUESTIONS[:1])
    with pytest.raises(MeasureError, match="are not finite"):
        text_bits(broken, ["w1 w2"])
