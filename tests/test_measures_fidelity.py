"""Language fidelity: rates by hand, what is not judged, the null, and answers through the chat template."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import DataError, MeasureError
from microtome.engine import Edit, Scale
from microtome.measures.fidelity import Identifier, fidelity, judged_lines, responses
from microtome.measures.intervals import wilson
from microtome.models import Model
from microtome.training.architectures import fuxi, initialised
from microtome.training.tokenizer import train_tokenizer

WORDS = 5


@dataclass(frozen=True)
class FirstLetter:
    """Says a line's first letter for its language, and nothing of lines that begin with x."""

    languages: tuple[str, ...] = ("a", "b", "c")

    def __call__(self, lines):
        return [None if line[0] == "x" else line[0] for line in lines]


def line(letter, words=WORDS):
    return " ".join([letter] * words)


def said(*letters):
    return "\n".join(line(letter) for letter in letters)


def test_rates_are_those_counted_by_hand():
    answers = [said("a"), said("a", "b"), said("b"), said("a", "a", "x"), "a a", said("b"), said("b", "b", "b", "a")]
    found = fidelity(answers, ["a", "a", "a", "a", "a", "b", "b"], FirstLetter(), draws=400)
    a, b = found.languages
    assert (a.language, a.responses, a.undecided, a.lines, a.short) == ("a", 5, 1, 7, 1)
    assert a.passed == wilson(1, 4) and a.line_accuracy == pytest.approx((1 + 1 / 2 + 0 + 2 / 3) / 4)
    assert dict(a.instead) == {"b": 2, "unknown": 1} and list(a.instead) == ["b", "unknown"]
    assert b.passed == wilson(1, 2) and b.line_accuracy == pytest.approx((1 + 3 / 4) / 2)
    assert found.macro.estimate == pytest.approx((1 / 4 + 1 / 2) / 2) and found.macro.n == 6
    assert found.line_accuracy == pytest.approx((a.line_accuracy + b.line_accuracy) / 2)
    assert [row["pass_rate"] for row in found.rows] == [1 / 4, 1 / 2] and found.rows[0]["instead"] == "b"


def test_short_lines_are_not_judged_and_blank_ones_are_not_lines():
    text = f"{line('a', 4)}\n\n  {line('b')}  \n ... \n"
    assert judged_lines(text) == ([line("b")], 2)
    assert judged_lines(text, shortest=4) == ([line("a", 4), line("b")], 1)
    assert judged_lines("红色红色红色红色红") == ([], 1)  # two characters are a word
    assert judged_lines("红色红色红色红色红色") == (["红色红色红色红色红色"], 0)
    assert judged_lines("") == ([], 0)
    assert judged_lines("1 2 3 4 5 6 a") == ([], 1)  # numbers are of no language


def test_where_nothing_is_decided_there_is_no_rate():
    found = fidelity(["", "a a"], ["a", "b"], FirstLetter())
    assert found.macro is None and found.null is None and found.p is None and found.line_accuracy is None
    assert [own.passed for own in found.languages] == [None, None]
    assert [own.undecided for own in found.languages] == [1, 1]
    half = fidelity(["", said("b")], ["a", "b"], FirstLetter())
    assert half.macro.estimate == 1 and half.macro.n == 1 and half.null is None
    assert half.rows[0]["pass_rate"] is None


def test_the_null_is_what_a_model_gets_that_answers_in_languages_at_random():
    rng = np.random.default_rng(0)
    wanted = [*"ab"] * 100
    right = fidelity([said(w) for w in wanted], wanted, FirstLetter())
    assert right.macro.estimate == 1 and right.p == pytest.approx(1 / 2001)
    assert right.null.estimate == pytest.approx(0.5, abs=0.01) and 1 not in right.null
    blind = fidelity([said(rng.choice([*"ab"])) for _ in wanted], wanted, FirstLetter())
    assert blind.macro.estimate in blind.null and blind.p > 0.05
    always = fidelity([said("a") for _ in wanted], wanted, FirstLetter())
    assert always.macro.estimate == 0.5 and always.p == 1 and always.null.low == always.null.high == 0.5


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from("abx"), max_size=3)), min_size=1, max_size=20)
)
def test_rates_agree_with_a_plain_count(made):
    found = fidelity([said(*letters) for _, letters in made], [w for w, _ in made], FirstLetter(), draws=20)
    for own in found.languages:
        decided = [letters for w, letters in made if w == own.language and letters]
        passed = sum(set(letters) == {own.language} for letters in decided)
        assert own.passed == (wilson(passed, len(decided)) if decided else None)
    if found.macro is not None:
        assert found.macro.low <= found.macro.estimate <= found.macro.high


def test_a_seed_is_kept_and_the_interval_of_the_macro_rate_is_the_bootstraps():
    rng = np.random.default_rng(1)
    wanted = [*"aaab"] * 50
    answers = [said(w if rng.random() < 0.7 else "c") for w in wanted]
    one, same, other = (fidelity(answers, wanted, FirstLetter(), seed=s) for s in (0, 0, 1))
    assert one == same and one.macro.low != other.macro.low
    passed = {w: np.array([a == said(w) for a, own in zip(answers, wanted, strict=True) if own == w]) for w in "ab"}
    drawn = np.mean([rng.choice(x, (4000, len(x))).mean(1) for x in passed.values()], 0)
    assert [one.macro.low, one.macro.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fidelity([], [], FirstLetter()), "of 0 responses to 0 wanted"),
        (lambda: fidelity(["a"], ["a", "b"], FirstLetter()), "of 1 responses to 2 wanted"),
        (lambda: fidelity("a", ["a"], FirstLetter()), "give a list of responses"),
        (lambda: fidelity(["a"], ["d"], FirstLetter()), "Responses in 'd' were wanted, the judge answers with a, b, c"),
        (lambda: Identifier(("en",)), "told apart among 1"),
        (lambda: Identifier(("en", "xx")), "py3langid knows no 'xx'"),
        (lambda: Identifier(("en", "de"), least=2), "from 2; give"),
    ],
)
def test_bad_input_is_one_line(call, match):
    if "Identifier" in call.__code__.co_names:
        pytest.importorskip("py3langid")
    with pytest.raises(MeasureError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_identifier_knows_its_languages_and_says_when_it_is_not_sure():
    pytest.importorskip("py3langid")
    lines = ["Das ist ein kurzer deutscher Satz.", "This is a short sentence in English.", "यह हिन्दी का एक वाक्य है।"]
    judge = Identifier(("en", "de", "hi"))
    assert judge(lines) == ["de", "en", "hi"]
    assert judge(["12 34 56"])[0] in judge.languages  # a third each: likely enough
    assert Identifier(("en", "de", "hi"), least=0.5)(["12 34 56"]) == [None]
    assert Identifier(("en", "hi"))(lines[1:]) == ["en", "hi"]  # another set of languages does not see this one's
    found = fidelity([lines[0], lines[1], lines[1]], ["de", "en", "de"], judge)
    assert [own.passed.estimate for own in found.languages] == [0.5, 1]


# -- answers


@pytest.fixture(scope="module")
def chat():
    """A random chat model, and one that always writes the same."""
    tokenizer = train_tokenizer({"en": ["red blue green small large house"] * 20}, size=300)
    module = initialised(fuxi(len(tokenizer), layers=1, width=16, mlp=32, heads=2, context=64, spread=0.2), 0)
    module.generation_config.pad_token_id = tokenizer.pad_token_id
    return Model.load(module, tokenizer=tokenizer)


def prompts(count):
    return [(("user", "red " * (1 + i % 5)),) for i in range(count)]


def test_answers_are_what_the_model_writes_after_the_template_alone_or_in_batches(chat):
    want = []
    for ((_, content),) in prompts(7):
        ids = chat.tokenizer(f"<|im_start|>user\n{content.strip()}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        for _ in range(6):
            ids.append(int(chat.module(torch.tensor([ids])).logits[0, -1].argmax()))
        want.append(chat.tokenizer.decode(ids[-6:], skip_special_tokens=True).strip())
    told = []
    assert responses(chat, prompts(7), max_new_tokens=6, batch=3, progress=lambda *at: told.append(at)) == want
    assert [at[:2] for at in told] == [(3, 7), (6, 7), (7, 7)]


def test_answers_end_where_the_model_ends_them(chat):
    ids = chat.tokenizer("<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    end = int(chat.module(torch.tensor([ids])).logits[0, -1].argmax())
    before = chat.module.generation_config.eos_token_id
    chat.module.generation_config.eos_token_id = [end, 1]
    try:
        assert responses(chat, prompts(1), max_new_tokens=4) == [""]
    finally:
        chat.module.generation_config.eos_token_id = before
    assert responses(chat, prompts(1), max_new_tokens=4) != [""]


def test_edits_act_throughout(chat):
    plain = responses(chat, prompts(4), max_new_tokens=6)
    same = responses(chat, prompts(4), max_new_tokens=6, edits=[Edit("blocks.0.mlp.neurons", Scale(1.0))])
    other = responses(chat, prompts(4), max_new_tokens=6, edits=[Edit("blocks.0.resid_post", Scale(-1.0))])
    assert plain == same and all(a != b for a, b in zip(plain, other, strict=True))


def test_prompts_that_cannot_be_answered_are_one_line(chat):
    with pytest.raises(DataError, match="Answers to no prompts were asked for"):
        responses(chat, [])
    with pytest.raises(DataError, match=r"Prompt 0 has \d+ tokens and is to get 60 new ones; .* takes 64"):
        responses(chat, prompts(1), max_new_tokens=60)
    bare = Model.load(chat.module)
    with pytest.raises(DataError, match="found no chat template"):
        responses(bare, prompts(1))
