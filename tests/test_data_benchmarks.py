"""Benchmarks: each file comes down to questions with one right option; the real files are read to the last row."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from microtome.core.errors import ConfigError, DataError
from microtome.core.seeds import generator
from microtome.data.benchmarks import Choice, available_benchmarks, find_benchmark, question_sets, read_choices
from microtome.data.benchmarks.cloze import cloze
from microtome.data.benchmarks.winograd import read_winograd
from microtome.data.benchmarks.xcopa import CONNECTORS, read_xcopa
from microtome.data.corpus.decontaminate import contamination
from microtome.data.corpus.documents import Document

DATA = Path(__file__).parents[2] / "shared" / "data"
XCOPA, WINOGRAD = DATA / "benchmarks" / "xcopa", DATA / "benchmarks" / "crosslingual_winograd.tsv"
PARALLEL = DATA / "corpus" / "parallel"
on_data = pytest.mark.skipif(not XCOPA.is_dir(), reason="the benchmarks are not on this machine")


def refusal(call, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- the schema


def test_a_question_has_one_context_and_endings_or_contexts_and_one_ending():
    endings = Choice("b", "en", "1", ("it was",), ("red", "blue"), 1)
    assert endings.pairs == (("it was", " red"), ("it was", " blue")) and endings.text == "it was blue"
    contexts = Choice("b", "ja", "2", ("猫", "犬", "鳥"), ("が鳴く",), 0, "")
    assert contexts.options == 3 and contexts.pairs[2] == ("鳥", "が鳴く") and contexts.text == "猫が鳴く"


@pytest.mark.parametrize(
    ("contexts", "endings", "answer", "message"),
    [
        (("a", "b"), ("c", "d"), 0, "2 contexts and 2 endings"),
        (("a",), ("c",), 0, "1 contexts and 1 endings"),
        ((), ("c", "d"), 0, "0 contexts"),
        (("a",), ("c", " "), 0, "blank context or ending"),
        (("a",), ("c", "d"), 2, "answer 2, its options are 0 to 1"),
    ],
)
def test_a_question_that_is_none_is_refused(contexts, endings, answer, message):
    assert message in refusal(Choice, "b", "en", "7", contexts, endings, answer)


def test_benchmarks_are_the_files_of_the_folder():
    assert {"cloze", "winograd", "xcopa"} <= set(available_benchmarks())
    assert all(find_benchmark(name).name == name for name in available_benchmarks())
    with pytest.raises(ConfigError, match=r"No benchmark 'xkopa'; there are: .*xcopa.*Did you mean 'xcopa'"):
        find_benchmark("xkopa")


# -- XCOPA


def rows_of(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


GOOD = {"premise": "It rained.", "choice1": "He got wet.", "choice2": "He ate.", "question": "effect", "label": 0}


def test_xcopa_asks_as_the_harness_does(tmp_path):
    cause = GOOD | {"premise": "He was wet!", "choice1": "It Rained.", "question": "cause", "label": 1}
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "test.en.jsonl").write_text(rows_of(GOOD, cause), encoding="utf-8")
    (tmp_path / "test.th.jsonl").write_text(rows_of(GOOD | {"premise": "ฝนตก"}) + "\n", encoding="utf-8")
    found = read_xcopa(tmp_path)
    assert found[0] == Choice("xcopa", "en", "1", ("It rained therefore",), ("he got wet.", "he ate."), 0)
    assert found[1].pairs[0] == ("He was wet because", " it Rained.") and found[1].answer == 1
    assert found[2].contexts == ("ฝนตก " + CONNECTORS["th"][1],)  # no full stop to take away, and no letter lost
    assert [c.language for c in read_xcopa(tmp_path, ["th"])] == ["th"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "should be JSON"),
        ("[1]", "should be JSON"),
        (rows_of({k: v for k, v in GOOD.items() if k != "label"}), "found KeyError('label')"),
        (rows_of(GOOD | {"label": 2}), "label 2"),
        (rows_of(GOOD | {"question": "why"}), "question 'why'"),
        (rows_of(GOOD | {"premise": " "}), "nothing blank"),
        (b"\xff", "should be JSON"),
    ],
)
def test_a_bad_row_of_xcopa_is_named(tmp_path, row, message):
    data = rows_of(GOOD).encode() + (row if isinstance(row, bytes) else row.encode())
    (tmp_path / "val.it.jsonl").write_bytes(data)
    found = refusal(read_xcopa, tmp_path, split="val")
    assert message in found and "Line 2 of" in found and "val.it.jsonl" in found


def test_files_of_xcopa_that_are_wrong_are_named(tmp_path):
    assert "No test.*.jsonl of XCOPA" in refusal(read_xcopa, tmp_path)
    assert "No split 'train'" in refusal(read_xcopa, tmp_path, split="train")
    (tmp_path / "test.it.jsonl").write_text(rows_of(GOOD), encoding="utf-8")
    assert "there are it." in refusal(read_xcopa, tmp_path, ["et"])
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "test.it.jsonl").write_text(rows_of(GOOD), encoding="utf-8")
    assert "are both XCOPA in 'it'" in refusal(read_xcopa, tmp_path)
    (tmp_path / "it" / "test.it.jsonl").unlink()
    (tmp_path / "test.xx.jsonl").write_text(rows_of(GOOD), encoding="utf-8")
    assert "'xx', whose words for because and therefore are not known" in refusal(read_xcopa, tmp_path)


# -- Winograd


def winograd_row(sentence, tokens, pronoun, options, language="en"):
    first, end = pronoun
    text = tokens[first]
    candidates = [[option, [0, 1], [option], right] for option, right in options]
    cells = [language, "original", "?", sentence, json.dumps(tokens), json.dumps([text, [first, end], [text]])]
    return "\t".join([*cells, json.dumps(candidates)]) + "\n"


OPTIONS = [("The dog", False), ("the cat", True)]
SIMPLE = winograd_row("The dog saw the cat as it ran.", ["The", "dog", "saw", "the", "cat", "as", "it", "ran", "."],
                      (6, 7), OPTIONS)  # fmt: skip


def test_candidates_take_the_pronouns_place_and_what_follows_is_the_ending(tmp_path):
    quoted = winograd_row('"Hi" said Tom as it "sat".', ["``", "Hi", "''", "said", "Tom", "as", "it", "``", "sat",
                                                         "''", "."], (6, 7), OPTIONS)  # fmt: skip
    joined = winograd_row(
        "猫は犬を見た。それは走った。", ["猫", "は犬を見た。", "それ", "は走った。"], (2, 3), OPTIONS, "jp"
    )
    stopped = winograd_row("Он видел его.", ["Он", "видел", "его."], (2, 3), OPTIONS, "ru")
    path = tmp_path / "dataset.tsv"
    path.write_text(SIMPLE + quoted + joined + stopped, encoding="utf-8")
    simple, with_quotes, japanese, russian = read_winograd(path)
    assert simple.pairs == (
        ("The dog saw the cat as The dog", " ran."),
        ("The dog saw the cat as the cat", " ran."),
    )
    assert simple.answer == 1 and simple.id == "1"
    assert with_quotes.pairs[1] == ('"Hi" said Tom as the cat', ' "sat".')
    assert japanese.language == "ja" and japanese.pairs[1] == ("猫は犬を見た。the cat", "は走った。")
    assert russian.pairs[1] == ("Он видел the cat", ".")
    assert [c.language for c in read_winograd(path, ["ru", "ja"])] == ["ja", "ru"]
    assert "No questions in 'fr'" in refusal(read_winograd, path, ["fr"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("en\ta\tb\n", "should have 7 columns"),
        (SIMPLE.replace('"ran"', '"walks"'), "no 'walks' at 'ran.'"),
        (SIMPLE.replace("[6, 7]", "[16, 17]"), "should have 7 columns"),
        (SIMPLE.replace("true", "false"), "should have one right candidate, found 0"),
        (winograd_row("He saw it", ["He", "saw", "it"], (2, 3), OPTIONS), "found its end"),
    ],
)
def test_a_bad_row_of_winograd_is_named(tmp_path, row, message):
    path = tmp_path / "dataset.tsv"
    path.write_text(SIMPLE + row, encoding="utf-8")
    found = refusal(read_winograd, path)
    assert message in found and f"Line 2 of '{path}'" in found


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "No file" in refusal(read_winograd, tmp_path / "none.tsv")


# -- cloze


def parallel_text(n=60, seed=0):
    """Sentences of numbered words, apart in `en`, joined in `ja` (kana)."""
    rng = generator(seed, "text")
    sizes = rng.integers(6, 14, n)
    english = tuple(" ".join(f"w{i}x{j}" for j in range(size)) + "." for i, size in enumerate(sizes))
    kana = "あいうえおかきくけこ"
    japanese = tuple("".join(kana[int(d)] for d in str(10**12 + i * 7919**2)) * 2 + "。" for i in range(n))
    return {"en": english, "ja": japanese}


def test_cloze_cuts_sentences_in_two_and_asks_for_the_rest():
    text = parallel_text()
    found = cloze(text, count=20, seed=3)
    for choice in found:
        whole = text[choice.language][int(choice.id) - 1]
        assert choice.text == whole
        assert 0.35 < len(choice.contexts[0]) / len(whole) < 0.8
        assert len(set(choice.endings)) == 4
        others = [e for i, e in enumerate(choice.endings) if i != choice.answer]
        assert all(any(s.endswith(e) for s in text[choice.language] if s != whole) for e in others)
    assert {c.delimiter for c in found if c.language == "en"} == {" "}
    assert {c.delimiter for c in found if c.language == "ja"} == {""}


def test_cloze_asks_the_same_sentences_in_every_language_and_the_same_again():
    text = parallel_text()
    found = cloze(text, count=20, seed=3)
    asked = {language: [c.id for c in found if c.language == language] for language in text}
    assert asked["en"] == asked["ja"] and len(set(asked["en"])) == 20
    assert cloze(text, count=20, seed=3) == found != cloze(text, count=20, seed=4)
    assert cloze(text, "ja", count=20, seed=3) == [c for c in found if c.language == "ja"]


def test_the_right_ending_stands_anywhere_and_length_tells_little():
    found = cloze(parallel_text(400), "en", count=400)
    places = np.bincount([c.answer for c in found], minlength=4)
    assert ((places - 100) ** 2 / 100).sum() < 16.3  # chi-square of 3 degrees, p = 0.001
    longest = np.mean([max(c.endings, key=len) == c.endings[c.answer] for c in found])
    assert longest < 0.45


def test_cloze_without_enough_sentences_is_refused():
    text = parallel_text(10)
    assert "11 cloze questions of 4 options were asked for, found 10 sentences" in refusal(cloze, text, count=11)
    assert "0 cloze questions" in refusal(cloze, text, count=0)
    assert "No 'jp' in the text; it has en, ja." in refusal(cloze, text, "jp", count=2)
    same = {"en": ("the same words over and over again here",) * 9}
    assert "0 other endings" in refusal(cloze, same, count=2)


# -- all of them


def test_a_draw_of_each_language_is_part_of_the_whole(tmp_path):
    (tmp_path / "test.it.jsonl").write_text(rows_of(*[GOOD] * 9), encoding="utf-8")
    (tmp_path / "test.et.jsonl").write_text(rows_of(*[GOOD] * 3), encoding="utf-8")
    whole, drawn = read_choices("xcopa", tmp_path), read_choices("xcopa", tmp_path, most=4, seed=1)
    assert Counter(c.language for c in drawn) == {"it": 4, "et": 3} and set(drawn) <= set(whole)
    assert drawn == read_choices("xcopa", tmp_path, most=4, seed=1) != read_choices("xcopa", tmp_path, most=4, seed=2)
    assert "At most 0 questions" in refusal(read_choices, "xcopa", tmp_path, most=0)


def test_questions_planted_in_a_corpus_are_found():
    choices = cloze(parallel_text(), "en", count=30)
    documents = [Document("before " + c.text + " after", "en") for c in choices[:10]] + [
        Document("nothing of it", "en")
    ]
    (found,) = contamination(documents, question_sets(choices), shortest=6)
    assert found.name == "cloze.en" and found.items == 30 and found.hit == 10 and found.documents == 10


@on_data
def test_the_real_files_are_read_to_the_last_row():
    winograd = Counter(c.language for c in read_choices("winograd", WINOGRAD))
    assert winograd == {"en": 2325, "fr": 83, "ja": 959, "pt": 263, "ru": 315, "zh": 16}
    xcopa = read_choices("xcopa", XCOPA)
    assert Counter(c.language for c in xcopa) == dict.fromkeys(("et", "id", "it", "sw", "th", "tr", "vi", "zh"), 500)
    assert Counter(c.language for c in read_xcopa(XCOPA, split="val")) == dict.fromkeys(
        ("et", "id", "it", "sw", "th", "tr", "vi", "zh"), 100
    )
    assert abs(np.mean([c.answer for c in xcopa]) - 0.5) < 0.05  # the labels are balanced


@on_data
@pytest.mark.parametrize("language", ["et", "id", "it", "sw", "tr", "vi", "zh"])  # Thai: there a letter is cut off
def test_xcopa_is_put_as_lm_eval_puts_it(language):
    found = importlib.util.find_spec("lm_eval")
    if found is None:
        pytest.skip("lm-eval is not installed")
    path = Path(found.origin).parent / "tasks" / "xcopa" / "utils.py"
    spec = importlib.util.spec_from_file_location("lm_eval_xcopa", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    lines = (XCOPA / f"test.{language}.jsonl").read_text(encoding="utf-8").splitlines()
    for line, choice in zip(lines, read_xcopa(XCOPA, [language]), strict=True):
        row = json.loads(line)
        assert choice.contexts == (getattr(theirs, f"doc_to_text_{language}")(row),)
        assert choice.endings == tuple(x.strip() for x in theirs.doc_to_choice(row))
        assert choice.answer == row["label"]


@on_data
def test_real_parallel_text_gives_cloze_questions_in_every_script():
    found = read_choices("cloze", PARALLEL, ["en", "hi", "zh", "ar"], most=50)
    assert Counter(c.language for c in found) == dict.fromkeys(("en", "hi", "zh", "ar"), 50)
    assert {c.language for c in found if c.delimiter == ""} == {"zh"}
