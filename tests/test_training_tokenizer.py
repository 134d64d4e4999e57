"""Tokenizers: every byte comes back, numbers equal counts by hand, and vowel signs no longer cut Hindi words."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from microtome.core.errors import DataError, MeasureError
from microtome.measures.tokenization import compare_tokenizers, renyi_efficiency, report_tokenizer
from microtome.measures.vocabulary import Vocabulary, script_of
from microtome.training.tokenizer import CHATML, SPECIAL, flat_sample, save_tokenizer, train_tokenizer

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "corpus"
on_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")

TEXTS = {
    "en": ["the river runs to the sea", "they don't run, they're walking 1234 miles", "the sea, the river!"],
    "hi": ["नदी समुद्र की ओर बहती है", "हिन्दी में किताबें पढ़ना अच्छा है", "किताबें और नदी"],
    "ar": ["يجري النهر إلى البحر", "كَتَبَ الوَلَدُ الدَّرْسَ", "النهر والبحر"],
    "zh": ["河流奔向大海", "我喜欢在海边读书", "大海和河流"],
}
SCRIPTS = [
    "Ελλάδα и Россия", "שָׁלוֹם עולם", "தமிழ் மொழி", "สวัสดีชาวโลก", "မြန်မာစာ", "ភាសាខ្មែរ", "ქართული ენა", "አማርኛ",
    "한국어 배우기",     "ひらがなとカタカナ、漢字", "Việt Nam tiếng",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "क्\u200dष", "🏳️‍🌈 👩🏽‍💻 ❤️", "a\u0301\u0323 é",
    "  two  spaces\t\ttabs\r\n\n end ", "\x00\x07\x1b[31m", "𒀀𒁀 𝔘𝔫𝔦 \U000e0041", "0123 ٣٤٥ ½ Ⅷ", "<s> <|im_start|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    return {pattern: train_tokenizer(TEXTS, size=420, pattern=pattern) for pattern in ("marks", "gpt2")}


def back(tokenizer, text):
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("pattern", ["marks", "gpt2"])
def test_every_script_comes_back(trained, pattern):
    for text in [*SCRIPTS, *(text for own in TEXTS.values() for text in own)]:
        assert back(trained[pattern], text) == text


@given(st.binary(max_size=40), st.text(max_size=20))
def test_random_bytes_and_characters_come_back(trained, data, text):
    for own in (data.decode("latin-1"), data.decode("utf-8", "replace"), text.encode("utf-8", "replace").decode()):
        assert back(trained["marks"], own) == own


def test_what_a_vocabulary_holds(trained):
    for tokenizer in trained.values():
        assert len(tokenizer) % 128 == 0 and len(tokenizer) == tokenizer.vocab_size == 512
        assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4] == sorted(tokenizer.all_special_ids)
        assert sorted(tokenizer.get_vocab().values()) == [*range(512)]
        dummies = [i for token, i in tokenizer.get_vocab().items() if token.startswith("<|dummy_")]
        assert sorted(dummies) == [*range(420, 512)]
        said = tokenizer(" ".join(f"<|dummy_{i}|>" for i in range(92)), add_special_tokens=False)["input_ids"]
        assert not set(said) & set(dummies)
        assert tokenizer("the sea")["input_ids"] == tokenizer("the sea", add_special_tokens=False)["input_ids"]


def test_words_keep_their_marks_and_joiners(trained):
    def cut(pattern, text):
        return [text[a:b] for _, (a, b) in trained[pattern].backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    assert cut("marks", "किताबें और") == ["किताबें", " और"] and len(cut("gpt2", "किताबें और")) > 4
    assert cut("marks", "क्\u200dष می\u200cخواهم") == ["क्\u200dष", " می\u200cخواهم"]
    assert cut("marks", "❤️ they're 1234!") == ["❤️", " they", "'re", " 1234", "!"]
    for text in ["they're  walking,\n 1234 miles (don't)!", " a  b\t\n", "naïve café’s"]:
        assert cut("marks", text) == cut("gpt2", text)


def test_plain_transformers_loads_the_folder(trained, tmp_path):
    again = AutoTokenizer.from_pretrained(save_tokenizer(trained["marks"], tmp_path / "tokenizer"))
    assert (len(again), again.bos_token, again.eos_token, again.pad_token) == (512, "<s>", "</s>", "<pad>")
    assert again("नदी the") == trained["marks"]("नदी the") and again.chat_template == CHATML
    for text in SCRIPTS:
        assert back(again, text) == text
    padded = again(["the", "the river runs"], padding=True)
    assert padded["input_ids"][0][-1] == 2 and padded["attention_mask"][0][-1] == 0


def test_chat_is_chatml_and_marks_what_the_assistant_says(trained):
    talk = [{"role": "user", "content": "the sea"}, {"role": "assistant", "content": "the river"}]
    tokenizer = trained["marks"]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == (
        "<|im_start|>user\nthe sea<|im_end|>\n<|im_start|>assistant\nthe river<|im_end|>\n"
    )
    asked = tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<|im_end|>\n<|im_start|>assistant\n")
    done = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    own = [i for i, m in zip(done["input_ids"], done["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(own) == "the river<|im_end|>"


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    def written(folder, **knobs):
        save_tokenizer(train_tokenizer(TEXTS, size=300, documents=2, **knobs), tmp_path / folder)
        return (tmp_path / folder / "tokenizer.json").read_bytes()

    assert written("a", seed=1) == written("b", seed=1)
    assert len({written(str(seed), seed=seed) for seed in range(4)}) > 1
    code = (
        "import sys, json; from microtome.training.tokenizer import *;"
        "save_tokenizer(train_tokenizer(json.loads(sys.argv[1]), size=300, documents=2, seed=1), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(TEXTS), str(tmp_path / "c")], check=True)
    assert (tmp_path / "c" / "tokenizer.json").read_bytes() == written("d", seed=1)


def test_the_sample_is_flat_across_languages():
    texts = {"big": [f"text {i}" for i in range(100)], "small": ["one", "two"], "long": ["x" * 50] * 9}
    drawn = [*flat_sample(texts, documents=5, seed=2)]
    assert len(drawn) == 5 + 2 + 5 and len(set(drawn[:5])) == 5 and sorted(drawn[5:7]) == ["one", "two"]
    assert drawn[:5] != [*flat_sample(texts, documents=5, seed=3)][:5]
    held = [*flat_sample(texts, each=60)]
    assert held.count("x" * 50) == 2 and 60 <= sum(len(t) for t in held if t.startswith("text")) < 68


@pytest.fixture(scope="module")
def bytewise():
    """A tokenizer that has learnt nothing: every token is a byte."""
    return train_tokenizer({"en": ["a"]}, size=261)


def test_numbers_equal_counts_by_hand(bytewise):
    texts = {"en": ["ab cd", "é f"], "de": ["ab cd ef", "gh"]}  # 5 + 4 bytes in 4 words; 8 + 2 in 4
    report = report_tokenizer(bytewise, texts, parallel=texts)
    en, de = report["en"], report["de"]
    assert (en.texts, en.words, en.tokens, en.size) == (2, 4, 9, 9) and report.vocabulary == 384
    assert en.fertility.estimate == 9 / 4 and en.fertility.n == 2 and en.bytes_per_token.estimate == 1
    assert de.parity.estimate == 10 / 9 and en.parity.estimate == 1 and en.parity.low == en.parity.high == 1
    assert en.fallback.estimate == 2 / 9 and en.round_trip.estimate == 1 and de.fallback.estimate == 0
    # two texts: resamples are both of one (tokens per word 5/2 or 4/2) or one of each
    assert (en.fertility.low, en.fertility.high) == (2, 2.5)
    counts = np.array([1, 1, 2, 1, 1, 1, 1, 1])  # a b space c d, two bytes of é, f
    assert en.renyi == pytest.approx(math.log(((counts / 9) ** 2.5).sum()) / -1.5 / math.log(8))
    assert report.scripts == pytest.approx(
        {"part of a character": 128 / 256, "other": (128 - 62) / 256, "Latin": 52 / 256, "digits": 10 / 256}
    )
    row = report.rows()[0]
    assert row["fertility"] == 9 / 4 and row["parity_n"] == 2 and row["spaced"] is True


def test_words_of_scripts_without_spaces_are_flagged(bytewise):
    texts = {"zh": TEXTS["zh"], "th": ["สวัสดีชาวโลก", "ขอบคุณ ครับ"], "hi": TEXTS["hi"], "ko": ["한국어 배우기", "오늘"]}
    report = report_tokenizer(bytewise, texts)
    assert [own.spaced for own in report.languages] == [False, False, True, True]
    assert report["zh"].parity is None and report.rows()[0]["parity_low"] is None
    assert report["zh"].fallback.estimate == 1


def test_renyi_efficiency_is_that_of_the_published_scorer():
    assert renyi_efficiency([3, 2, 1, 1], 3) == pytest.approx(0.8031528501359657)  # its README; the order is 3 there
    assert renyi_efficiency([3, 3, 2, 2, 1], 3) == pytest.approx(0.9105681923824472)
    assert renyi_efficiency([5, 5, 0, 5]) == pytest.approx(1) and renyi_efficiency([7]) is None
    assert renyi_efficiency([3, 1], 1) == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


def test_two_tokenizers_side_by_side(trained, bytewise):
    found = compare_tokenizers(bytewise, trained["marks"], TEXTS, parallel=TEXTS, draws=200)
    for own in found.first.languages:
        other = found.second[own.language]
        assert found.ratio[own.language].estimate == other.tokens / own.tokens < 1
        assert other.bytes_per_token.estimate > own.bytes_per_token.estimate
    row = found.rows()[1]
    assert row["tokens_2"] / row["tokens_1"] == row["ratio"] and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    same = compare_tokenizers(bytewise, bytewise, TEXTS, draws=50)
    assert {(r.estimate, r.low, r.high) for r in same.ratio.values()} == {(1, 1, 1)}


def words_only(vocabulary):
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=vocabulary[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=vocabulary[0])


def test_a_tokenizer_that_loses_text_is_told(bytewise):
    lossy = words_only(["[UNK]", "the", "sea", "река", "##море", "12"])
    report = report_tokenizer(lossy, {"en": ["the sea", "the river", "sea"]})
    assert report["en"].round_trip.estimate == pytest.approx(2 / 3) and report["en"].fertility.estimate == 1
    assert report.scripts == {"Latin": 0.4, "Cyrillic": 0.4, "digits": 0.2}


def test_pieces_spelt_as_sentencepiece_spells_them():
    found = Vocabulary(words_only(["<unk>", "<0x00>", "<0xE4>", "▁река", "é", "<|im_end|>"]))
    assert found.pieces == [None, b"\0", b"\xe4", " река".encode(), "é".encode(), None]
    assert found.lone.tolist() == [False, False, True, False, False, False]
    assert [script_of(c) for c in "aиकी漢のカ한ａ!5\u0301々"] == [
        "Latin", "Cyrillic", "Devanagari", "Devanagari", "Han", "Hiragana", "Katakana", "Hangul", "Latin", None, None,
        None, "Han",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda t: train_tokenizer(TEXTS, pattern="gpt-2"), DataError, "No pattern 'gpt-2'.* Did you mean 'gpt2'"),
        (lambda t: train_tokenizer(TEXTS, size=260), DataError, "A vocabulary of 260 .* 256 bytes and 5 special"),
        (lambda t: train_tokenizer({"en": ["a"], "hi": [" "]}), DataError, "Language 'hi' has 1 documents and no text"),
        (lambda t: train_tokenizer({"hi": []}), DataError, "Language 'hi' has 0 documents"),
        (lambda t: train_tokenizer({}), DataError, "of each of 0 languages"),
        (lambda t: train_tokenizer(TEXTS, documents=0), DataError, "A sample of 0 documents"),
        (lambda t: report_tokenizer(t, {}), MeasureError, "found no languages"),
        (lambda t: report_tokenizer(t, {"en": ["one"]}), MeasureError, "'en' needs two texts or more.*found 1;"),
        (lambda t: report_tokenizer(t, {"en": ["a", " "]}), MeasureError, "found text 1 ' '; mend"),
        (lambda t: report_tokenizer(t, {"en": ["a", "\ud800"]}), MeasureError, r"found text 1 '.ud800'; mend"),
        (lambda t: train_tokenizer({"en": ["a", "b\udc00"]}), DataError, "Document 1 of 'en' has a lone surrogate"),
        (lambda t: report_tokenizer(t, TEXTS, parallel={"eng": ["a", "b"]}), MeasureError, "Did you mean"),
        (
            lambda t: report_tokenizer(t, TEXTS, parallel={"en": ["a", "b"], "hi": ["a", "b", "c"]}), MeasureError,
            "'hi' are 3 and of 'en' 2; they must pair up",
        ),
        (lambda t: report_tokenizer(t, TEXTS)["hin"], MeasureError, "No language 'hin'.* Did you mean 'hi'"),
        (lambda t: renyi_efficiency([0, 0]), MeasureError, "over 0 types"),
    ],
)  # fmt: skip
def test_refusals(bytewise, call, error, said):
    with pytest.raises(error, match=said) as caught:
        call(bytewise)
    assert "\n" not in str(caught.value)


def lines(name):
    return (CORPUS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@on_corpus
def test_marks_bring_hindi_words_together_on_the_real_corpus():
    texts = {name: lines(name) for name in ("en", "hi", "ar")}
    parallel = {name: lines(f"parallel/ntrex.{name}")[:300] for name in texts}
    plain, marks = (train_tokenizer(texts, size=4096, pattern=name, each=150_000) for name in ("gpt2", "marks"))
    found = compare_tokenizers(plain, marks, parallel, parallel=parallel, draws=200)
    assert found.ratio["hi"].high < 0.8 and found.second["hi"].parity.high < found.first["hi"].parity.low
    assert found.ratio["en"].high < 1.08  # what words of Hindi and Arabic take up of a vocabulary this small
    assert all(own.round_trip.estimate == 1 for own in (*found.first.languages, *found.second.languages))


@pytest.mark.slow  # trains on a megabyte of each of twelve languages, twice
@on_corpus
def test_the_specifications_numbers():
    names = "en de es fr ru zh ja ar hi tr id ko".split()
    texts = {name: lines(name) for name in names}
    parallel = {name: lines(f"parallel/ntrex.{name}") for name in names}
    plain, marks = (train_tokenizer(texts, size=16_384, pattern=name, each=1_000_000) for name in ("gpt2", "marks"))
    found = compare_tokenizers(plain, marks, parallel, parallel=parallel)
    measured = [(own["hi"].fertility.estimate, own["hi"].parity.estimate) for own in (found.first, found.second)]
    assert measured == [pytest.approx((3.48, 2.31), abs=0.1), pytest.approx((2.21, 1.44), abs=0.1)]
    assert all(abs(found.ratio[name].estimate - 1) < 0.03 for name in names if name != "hi")
    assert [own.language for own in found.second.languages if not own.spaced] == ["zh", "ja"]
