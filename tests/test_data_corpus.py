"""Corpora: every format read to the same documents, every rule with a text on each side, counts that add up."""

import gzip
import importlib.util
import itertools
import json
import math
import random
import sys
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import ConfigError, DataError
from microtome.data.corpus import (
    KINDS,
    Chain,
    CharacterModel,
    Counts,
    Decontaminate,
    Document,
    Scrub,
    available_filters,
    contamination,
    default_filters,
    find_filter,
    read_corpus,
    read_source,
    sample_documents,
)
from microtome.data.corpus.sampling import Reservoir, priority
from microtome.data.corpus.scripts import gram_length, units, word_count

SHARED = Path(__file__).parents[2] / "shared" / "data" / "corpus"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real corpus is not on this machine")

Length, Symbols, Repetition = map(find_filter, ("length", "symbols", "repetition"))
FlaggedWords, StopWords, Perplexity = map(find_filter, ("flagged_words", "stop_words", "perplexity"))

SENTENCES = {
    "en": "The committee met on Tuesday afternoon to discuss how the old harbour might be repaired before winter.",
    "de": "Der Ausschuss traf sich am Dienstag, um zu beraten, wie der alte Hafen noch vor dem Winter repariert wird.",
    "hi": "समिति मंगलवार की दोपहर को मिली ताकि यह चर्चा हो सके कि पुराने बंदरगाह की मरम्मत सर्दी से पहले कैसे की जाए।",
    "ar": "اجتمعت اللجنة بعد ظهر يوم الثلاثاء لمناقشة كيفية إصلاح الميناء القديم قبل حلول فصل الشتاء القادم في بلادنا.",
    "ko": "위원회는 화요일 오후에 모여 겨울이 오기 전에 낡은 항구를 어떻게 고칠 수 있을지 오래 논의하고 결정했다.",
    "zh": "委员会于星期二下午开会，讨论如何在冬天来临之前修复这座古老的港口，并决定由谁来支付费用。",
    "ja": "委員会は火曜日の午後に集まり、冬が来る前に古い港をどのように修理できるかについて話し合った。",
    "th": "คณะกรรมการประชุมกันในบ่ายวันอังคารเพื่อหารือว่าจะซ่อมแซมท่าเรือเก่าก่อนฤดูหนาวจะมาถึงได้อย่างไรบ้าง",
}


def doc(text, language="en", id="", source=""):
    return Document(text, language, source, id)


def prose(seed, words=60, language="en"):
    """Words of letters drawn by a made-up language: nothing repeats for long."""
    draw = random.Random(f"{language}{seed}")
    return " ".join("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 7))) for _ in range(words))


# Readers


def write(path, texts, **columns):
    """Write texts as a file's ending says."""
    rows = [{"text": t} | {name: values[i] for name, values in columns.items()} for i, t in enumerate(texts)]
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return path
    lines = texts if ".txt" in path.name else [json.dumps(row) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_holds_the_same_documents(tmp_path, ending):
    texts = [*SENTENCES.values(), "line\u2028separator and \x85 stay", "x" * 200_000]
    path = write(tmp_path / f"en{ending}", texts)
    for documents in (read_corpus(path, language="en"), read_corpus(tmp_path)):
        documents = list(documents)
        assert [d.text for d in documents] == texts
        assert {d.language for d in documents} == {"en"} and {d.source for d in documents} == {path.name}
        assert [d.id for d in documents] == [f"{path.name}:{n}" for n in range(1, len(texts) + 1)]


def test_a_folder_is_read_by_the_languages_its_files_are_named_by(tmp_path):
    write(tmp_path / "en.txt", ["one", "", "  ", "two"])
    write(tmp_path / "ntrex.zh-Hant.jsonl", ["三"])
    write(tmp_path / "web.parquet", ["vier", "five"], language=["de", "en"], id=["a", "b"], url=["u", "v"])
    (tmp_path / "LICENSE").write_text("not a document")
    (tmp_path / "parallel").mkdir()
    found = [(d.text, d.language, d.id, dict(d.meta)) for d in read_corpus(tmp_path)]
    assert found == [
        ("one", "en", "en.txt:1", {}),
        ("two", "en", "en.txt:4", {}),
        ("三", "zh-Hant", "ntrex.zh-Hant.jsonl:1", {}),
        ("vier", "de", "a", {"url": "u"}),
        ("five", "en", "b", {"url": "v"}),
    ]


def test_paragraphs_end_at_blank_lines(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n\r\n \t\r\nthree\r\nfour".encode())
    found = [(d.text, d.id) for d in read_corpus(path, language="en", blank_lines=True)]
    assert found == [("one\ntwo", "book.txt:1"), ("three\nfour", "book.txt:5")]
    assert [d.text for d in read_corpus(path, language="en")] == ["one", "two", "three", "four"]


def test_bytes_of_another_encoding_are_named_or_dropped_and_counted(tmp_path):
    path, counts = tmp_path / "zh.txt", Counts()
    path.write_bytes("好的\n".encode() + "汉字\n".encode("gb18030") + "再见\n".encode())
    with pytest.raises(DataError, match=r"^Line 2 of '.*zh.txt' was read as utf-8, found byte 0xba at 7 .*gb18030'"):
        list(read_corpus(path, language="zh"))
    chain = Chain([])
    kept = list(chain(read_corpus(path, language="zh", errors="drop", counts=chain.counts)))
    assert [d.text for d in kept] == ["好的", "再见"]
    assert outcomes(chain.counts) == {("zh", "read", ""): 3, ("zh", "kept", ""): 2, ("zh", "dropped", "not utf-8"): 1}
    path.write_bytes("汉字\n".encode("gb18030"))
    assert [d.text for d in read_corpus(path, language="zh", encoding="gb18030")] == ["汉字"]
    with pytest.raises(DataError, match="no document in it that can be read"):
        list(read_corpus(path, language="zh", errors="drop", counts=counts))
    assert counts.total("dropped").documents == 1


def test_rows_that_are_no_documents_are_dropped_and_counted(tmp_path):
    path, chain = tmp_path / "en.jsonl", Chain([])
    path.write_text('{"text": "a"}\n[1]\n{"text": 5}\n{"text"\n{"text": "\\ud800"}\n\n{"text": "b"}\n')
    kept = list(chain(read_corpus(path, language="en", errors="drop", counts=chain.counts)))
    assert [d.text for d in kept] == ["a", "b"]
    dropped = {reason: n for (_, outcome, reason), n in outcomes(chain.counts).items() if outcome == "dropped"}
    assert dropped == {"not a JSON object": 2, "a text of int": 1, "a text with lone surrogates": 1}
    assert chain.counts.total("read").documents == 6


MISREAD = {
    "nothing there": ("e.txt", {}, r"^No file or folder '.*e.txt' .* Did you mean 'en.txt'"),
    "ending": ("en.csv", {}, r"^'.*en.csv' ends in '.csv', a corpus is read from .txt, .*convert"),
    "no language": ("en.txt", {}, r"^No language for '.*en.txt'; pass language='en'"),
    "blank language": ("en.txt", {"language": " "}, r"^The language ' ' was given for a corpus; give a tag"),
    "no row language": ("en.jsonl", {}, r"^No language for Line 1 of .*; pass language='en' or add a column"),
    "column": ("en.jsonl", {"text": "txt", "language": "en"}, r"^No column 'txt' in Line 1 .*text, x.* mean 'text'"),
    "parquet column": ("en.parquet", {"text": "txt"}, r"^No column 'txt' in '.*en.parquet'; it has text.* 'text'"),
    "parquet": ("bad.parquet", {}, r"bad.parquet' was read as Parquet, found .*Fetch"),
    "gzip": ("bad.jsonl.gz", {"language": "en"}, r"bad.jsonl.gz' was read as gzip, found it damaged .*fetch"),
    "json": ("bad.jsonl", {"language": "en"}, r"^Line 1 of '.*bad.jsonl' should be a JSON object, found 'not json'"),
    "empty": ("none.txt", {"language": "en"}, r"none.txt' was read as a corpus, found no document"),
    "name": ("folder", {}, r"part-0001.txt' should be named by its language"),
    "no files": ("bare", {}, r"^No files of a corpus in '.*bare'; put in"),
    "encoding": ("en.txt", {"encoding": "utf-9", "language": "en"}, r"^No encoding 'utf-9'; .*mean 'utf-8'"),
    "utf-16": ("en.txt", {"encoding": "utf-16", "language": "en"}, r"^Encoding 'utf-16' does not end lines"),
    "errors": ("en.txt", {"errors": "ignore", "language": "en"}, r"^No errors='ignore'; it is strict or drop"),
    "uncounted": ("en.txt", {"errors": "drop", "language": "en"}, r"pass counts=chain.counts"),
    "hub": ("hf:", {}, r"^'hf:' names no data set"),
}


@pytest.mark.parametrize("name, asked, said", MISREAD.values(), ids=MISREAD)
def test_every_defect_of_a_corpus_is_one_line(tmp_path, name, asked, said):
    for file in ("en.txt", "en.parquet", "en.csv"):
        write(tmp_path / file, ["a"])
    write(tmp_path / "en.jsonl", ["a"], x=[1])
    (tmp_path / "none.txt").write_text("\n \n")
    for file in ("bad.parquet", "bad.jsonl"):
        (tmp_path / file).write_text("not json\n")
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    for folder in ("folder", "bare"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "folder" / "part-0001.txt", ["a"])
    with pytest.raises(DataError, match=said) as caught:
        list(read_corpus(name if name.startswith("hf:") else tmp_path / name, **asked))
    assert "\n" not in str(caught.value)


def test_data_sets_of_the_hub_need_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="datasets, which is not installed; pip install datasets"):
        read_corpus("hf:allenai/c4:zh")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
def test_a_data_set_is_streamed(tmp_path):
    write(tmp_path / "train.jsonl", ["one", "two"], language=["en", "de"])
    found = [(d.text, d.language) for d in read_corpus(f"hf:{tmp_path}")]
    assert found == [("one", "en"), ("two", "de")]
    with pytest.raises(DataError, match=r"could not be had, found .*check its name"):
        list(read_corpus(f"hf:{tmp_path}::nosuchsplit"))


def test_source_code_is_read_without_tests_binaries_and_giants(tmp_path):
    for name, data in {
        "a.py": b"x = 1\n", "pkg/b.py": "s = 'é'\n".encode(), "pkg/test_b.py": b"assert x\n", "tests/c.py": b"1\n",
        "pkg/conftest.py": b"1\n", ".hid/d.py": b"1\n", "site-packages/e.py": b"1\n", "f.py": b"\xe9\n",
        "g.py": b"x\0y\n", "h.py": b"# long\n" * 100, "i.py": b" \n", "j.txt": b"x\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "k.py").symlink_to(tmp_path / "a.py")
    chain = Chain([])
    found = list(chain(read_source(tmp_path, "python", longest=500, counts=chain.counts)))
    assert [(d.id, d.language, d.text) for d in found] == [
        ("a.py", "python", "x = 1\n"),
        ("pkg/b.py", "python", "s = 'é'\n"),
    ]
    reasons = Counter(e["reason"] for e in chain.counts.examples())
    assert reasons == {"test code": 2, "not utf-8": 1, "binary": 1, "longer than asked for": 1, "empty": 1}
    with pytest.raises(DataError, match=r"No programming language 'pyton'; .*mean 'python'"):
        read_source(tmp_path, "python".replace("h", ""))
    with pytest.raises(DataError, match="No rust to read under"):
        list(read_source(tmp_path, "rust"))


def test_the_standard_library_passes_the_default_filters():
    chain = Chain([f for f in default_filters() if type(f).__name__ != "LanguageId"])
    kept = sum(1 for _ in chain(read_source(Path(json.__file__).parent, "python")))
    assert kept == chain.counts.total("read").documents >= 4


# Filters

LIST = "\n".join(f"- {prose(i, 4)}" for i in range(12))
TEASERS = "\n".join(f"{prose(i, 6)}{'...' if i % 2 else '.'}" for i in range(12))
RULES = {
    "words": (Length(), "hello there", "hello!!", "too few words"),
    "characters": (Length(), "hello you", "a b c", "too few characters"),
    "characters, too few": (Length(least_characters=20), prose(0, 5), "hello there you", "too few characters"),
    "characters, too many": (Length(most_characters=20), "hello there you", prose(0), "too many characters"),
    "Chinese words": (Length(least_characters=1), "天气很好", "今天好", "too few words"),
    "Thai words": (Length(), "วันนี้อากาศดี", "อากาศดี", "too few words"),
    "symbols": (Symbols(), prose(1), "=> {(a)} [b] <c> | ** && %% $$ ## //", "too many symbols"),
    "digits": (Symbols(), "In 1969 three men went to the moon", "12 34 56 78 total 90 12 sum 33", "too many digits"),
    "letters": (Symbols(), prose(2), "ab 12 cd 34 (e) -- ! 5 fg", "too few letters"),
    "broken": (Symbols(), prose(3), prose(3) + "\ufffd\x00\x08\ufffd\ufffd\ufffd", "broken characters"),
    "joiners": (Symbols(), "نمی‌خواهم به خانه بروم", "\u200b \u200d", "no characters but white space"),
    "bullets": (Symbols(), "Title\n" * 2 + LIST, LIST, "too many bullets"),
    "ellipses": (Symbols(), TEASERS.replace("...", ".", 4), TEASERS, "too many ellipses"),
    "lines": (Repetition(), "\n".join(prose(i, 5) for i in range(9)), "\n".join(prose(i % 4, 5) for i in range(9)),
              "repeated lines"),
    "repeated characters": (Repetition(), prose(4, 3000), "haha" * 30, "repeated characters"),
    "repeated words": (Repetition(most_characters=1), prose(5, 3000), "we sell cheap good shoes " * 3,
                       "repeated words"),
    "repeated Chinese": (Repetition(most_characters=1), SENTENCES["zh"], "我们出售便宜的好鞋子" * 4, "repeated words"),
    "flagged": (FlaggedWords({"en": ["ass", "cheap pills"]}), "a class of classic assets",
                "buy cheap pills here", "flagged words"),
    "flagged Chinese": (FlaggedWords({"en": ["坏蛋"]}, most=0.1), "他是一个好蛋，不坏", "他是坏蛋", "flagged words"),
    "stop words": (StopWords({"en": ["the", "of"]}, least_words=5), "the end of the road", "red car blue car green",
                   "too few stop words"),
}  # fmt: skip


@pytest.mark.parametrize("judge, kept, dropped, reason", RULES.values(), ids=RULES)
def test_every_rule_keeps_one_text_and_drops_another(judge, kept, dropped, reason):
    assert judge(doc(kept)) is None
    assert judge(doc(dropped)) == reason


@pytest.mark.parametrize("language", SENTENCES)
def test_the_default_filters_keep_a_sentence_of_any_script(language):
    chain = Chain(default_filters(), scrub=Scrub())
    assert len(list(chain([doc(SENTENCES[language], language)]))) == 1, chain.counts.examples()
    assert sum(row["replaced"] for row in chain.report()) == 0


def test_repetition_does_not_grow_with_length():
    draw = random.Random(0)
    frequent = [prose(i, 1) for i in range(300)]
    text = " ".join(draw.choices(frequent, weights=[1 / (i + 1) for i in range(300)], k=20_000))
    judge = Repetition(most_characters=0.6)
    assert judge(doc(text[:4096])) is judge(doc(text)) is None
    assert Repetition(most_characters=0.6, words=1)(doc(text)) == "repeated words"


def test_code_is_not_judged_by_its_symbols():
    text = "x = {(a): [b]} # $$ ** && %% |"
    assert Symbols()(doc(text, "en")) == "too many symbols" and Symbols()(doc(text, "python")) is None


def test_languages_without_a_list_are_kept():
    assert FlaggedWords({"de": ["x"]})(doc("x x x")) is None and StopWords({"de": ["x"]})(doc(prose(0))) is None


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Length(9, 5), "Length was given 9 to 5 characters"),
        (lambda: Symbols(most_digits=1.5), r"Symbols was given most_digits=1.5; it is a share"),
        (lambda: Symbols(most_digits=math.nan), r"most_digits=nan; it is a share"),
        (lambda: Repetition(words=0), "n-grams of 10 characters and 0 words"),
        (lambda: FlaggedWords({}), "Word lists were asked for, found none"),
        (lambda: FlaggedWords({"en": []}), r"The words of 'en' are \[\]"),
        (lambda: FlaggedWords({"en": "bad"}), "The words of 'en' are 'bad'; give a collection"),
        (lambda: StopWords({"en": ["!"]}), r"hold '!', which has no letter"),
        (lambda: doc("a", ""), "has the language ''; give a tag"),
        (lambda: doc(b"a"), "has a bytes for a text"),
        (lambda: Scrub(("NAME",)), "Nothing to scrub is called 'NAME'"),
        (lambda: Chain([Length]), "for a filter; give what is called with a document"),
        (lambda: sample_documents([], 1), "found no documents"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(make, said):
    with pytest.raises(DataError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_every_file_of_the_folder_is_a_filter_and_the_defaults_are_in_order():
    folder = Path(importlib.util.find_spec("microtome.data.corpus.filters").origin).parent
    names = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert set(available_filters()) == names >= {"length", "symbols", "repetition", "language_id", "perplexity"}
    ranks = [f.rank for f in default_filters()]
    assert ranks == sorted(ranks) and None not in ranks
    with pytest.raises(ConfigError, match=r"No filter of documents 'lenght'.* Did you mean 'length'"):
        find_filter("lenght")


def test_a_default_filter_without_its_package_is_left_out_and_said_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    assert [type(f).__name__ for f in default_filters()] == ["Length", "Symbols", "Repetition"]
    assert "Left LanguageId out of the default filters: it needs py3langid" in caplog.text
    with pytest.raises(DataError, match="py3langid, which is not installed; pip install"):
        find_filter("language_id")()


@pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="py3langid is not installed")
def test_text_of_another_language_is_dropped():
    LanguageId = find_filter("language_id")
    for language, text in SENTENCES.items():
        assert LanguageId()(doc(text, language)) is None
        other = "en" if language != "en" else "de"
        assert LanguageId()(doc(text, other)) == "another language"
        assert LanguageId(languages=("en", "de"))(doc(text, language)) is None
    assert LanguageId()(doc("kurz", "en")) is LanguageId()(doc(SENTENCES["en"], "python")) is None
    assert LanguageId()(doc(SENTENCES["zh"], "zh-Hans")) is None
    with pytest.raises(DataError, match="py3langid knows no 'xx'"):
        LanguageId(languages=("xx",))
    with pytest.raises(DataError, match="least=2; it is a probability"):
        LanguageId(least=2)


# Units of scripts


def test_units_are_words_or_characters_and_keep_their_marks():
    assert units("Das „Haus“, 2008!") == ("das", "haus", "2008")
    assert units("हिन्दी भाषा।") == ("हिन्दी", "भाषा")
    assert units("我在ＡＢＣ大学") == ("我", "在", "abc", "大", "学")
    assert units(" — … ") == () and word_count("") == 0
    assert word_count("one two three") == 3 and word_count("我在北京") == 2 and word_count("abc 我在") == 2
    assert gram_length("a b c", 13) == 13 and gram_length("我在北京", 13) == 26 and gram_length("กขค", 13) == 52


# Counts

LANGUAGES = ("en", "de", "zh")


def corpus(size, seed=0):
    """Documents of which about half break some rule."""
    draw = random.Random(seed)
    bad = ["hello!!", "ha " * 40, "12 34 56 78 total 90 12 sum 33", "x" * 9]
    for number in range(size):
        text = f"{prose(number % 7, 12)} mail ann@b.org" if draw.random() < 0.5 else draw.choice(bad)
        yield doc(text, draw.choice(LANGUAGES), str(number))


def judged(documents, **options):
    chain = Chain([Length(), Symbols(), Repetition()], scrub=Scrub(), **options)
    return chain, list(chain(documents))


def outcomes(counts):
    return {(r["language"], r["outcome"], r["reason"]): r["documents"] for r in counts.rows()}


def test_kept_and_dropped_add_up_to_read():
    documents = list(corpus(400))
    chain, kept = judged(documents)
    for language in (*LANGUAGES, None):
        read, kept_, dropped = (chain.counts.total(o, language) for o in ("read", "kept", "dropped"))
        own = [d for d in documents if language in (None, d.language)]
        assert kept_.documents + dropped.documents == read.documents == len(own) > 100
        assert kept_.characters + dropped.characters == read.characters == sum(len(d.text) for d in own)
        assert kept_.documents == chain.counts.total("scrubbed", language).replaced
    assert len(kept) == chain.counts.total("kept").documents
    assert all("<EMAIL>" in d.text and "@" not in d.text for d in kept)
    rows = chain.report()
    for language in LANGUAGES:
        shares = [r["share"] for r in rows if r["language"] == language and r["outcome"] in ("kept", "dropped")]
        assert abs(sum(shares) - 1) < FLOAT64
    assert {r["reason"] for r in rows if r["outcome"] == "dropped"} == {
        "too few words", "repeated characters", "too many digits",
    }  # fmt: skip


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_merged_shards_in_any_order_are_one_pass(shards):
    documents = list(corpus(300))
    whole, _ = judged(documents, seed=3)
    random.Random(shards).shuffle(documents)
    merged = Counts(seed=3)
    for at in range(shards):
        merged.merge(judged(documents[at::shards], seed=3)[0].counts)
    assert merged.rows() == whole.report() and merged.examples() == whole.counts.examples()
    assert Counter((e["language"], e["reason"]) for e in merged.examples()).most_common(1)[0][1] == 3
    assert judged(documents, seed=4)[0].counts.examples() != merged.examples()


def test_a_pass_that_is_broken_off_has_counted_what_it_read():
    chain = Chain([Length()])
    list(itertools.islice(chain(corpus(100)), 7))
    kept, dropped, read = (chain.counts.total(o).documents for o in ("kept", "dropped", "read"))
    assert kept == 7 and kept + dropped == read < 100


def test_a_corpus_of_one_document_is_a_corpus():
    chain, kept = judged([doc(SENTENCES["en"])])
    assert len(kept) == 1 and outcomes(chain.counts) == {("en", "read", ""): 1, ("en", "kept", ""): 1}


@given(st.lists(st.text(max_size=3), max_size=40), st.integers(1, 5), st.integers(0, 9))
def test_a_reservoir_holds_the_least_priorities_of_the_different_keys(keys, size, seed):
    reservoir = Reservoir(size, seed)
    for key in keys:
        reservoir.add(key, key)
    assert reservoir.items() == sorted(set(keys), key=lambda key: priority(seed, key))[:size]


def test_a_sample_is_uniform_and_the_same_in_any_order():
    documents = [doc(prose(i, 3), language, str(i)) for i in range(500) for language in ("en", "de")]
    sample = sample_documents(documents, 100, seed=1)
    assert sample == sample_documents(documents[::-1], 100, seed=1)
    assert Counter(d.language for d in sample) == {"en": 100, "de": 100}
    drawn = [int(d.id) for seed in range(20) for d in sample_documents(documents, 100, seed=seed)]
    assert abs(np.mean(drawn) - 249.5) < 4 * 144.3 / math.sqrt(len(drawn))  # 4 standard errors


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    judge = Decontaminate.against({"set": [SENTENCES["en"]]})

    def peak(size):
        path = tmp_path / f"{size}.jsonl"
        with path.open("w") as file:
            for d in corpus(size):
                file.write(json.dumps({"text": d.text, "language": d.language}) + "\n")
        chain = Chain([judge, Length(), Symbols(), Repetition()], scrub=Scrub())
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        assert sum(1 for _ in chain(read_corpus(path))) > size / 4
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(300)  # caches of units and characters fill; they are bounded
        assert peak(3000) < 1.5 * peak(300)
    finally:
        tracemalloc.stop()


# Scrubbing

PRIVATE = {
    "Write to Ann.Lee+x@mail.example.co.uk, please": "Write to <EMAIL>, please",
    "请联系foo@bar.com谢谢": "请联系<EMAIL>谢谢",
    "call +49 (30) 1234-5678 or +8613812345678.": "call <PHONE> or <PHONE>.",
    "call (212) 555-0147 or 1-212-555-0147 today": "call <PHONE> or <PHONE> today",
    '<a href="tel:5550147123">': '<a href="tel:<PHONE>">',
    "server 8.8.8.8:53 and [2001:4860:4860::8888]": "server <IP>:53 and [<IP>]",
    "IBAN DE89 3704 0044 0532 0130 00 UND GB82WEST12345698765432, ok": "IBAN <IBAN> UND <IBAN>, ok",
    "card 4111 1111 1111 1111, 378282246310005 or 5555-5555-5555-4444": "card <CARD>, <CARD> or <CARD>",
}
PUBLIC = [
    "On 2024-05-06 at 12:30:45 it was 3.14159265358979 or 1,234,567.89",
    "from 1914-1918 to 1939-1945, pages 212-555, ISBN 978-3-16-148410-0",
    "version 1.2.3, section 4.5.6.7.8, host 192.168.1.10, 127.0.0.1 and ::1",
    "std::vector<int> a::b; @property user@localhost #1234567890",
    "DE89 3704 0044 0532 0130 01 has a wrong check digit; 4111 1111 1111 1112 too; 0000000000000000",
    "2021 2022 2023 2024 2025 2026",
]


@pytest.mark.parametrize("text, scrubbed", PRIVATE.items())
def test_what_identifies_a_person_is_replaced_and_counted(text, scrubbed):
    found, counts = Scrub().text(text)
    assert found == scrubbed
    assert counts == Counter(kind for kind in KINDS for _ in range(scrubbed.count(f"<{kind}>")))
    document, _ = Scrub()(doc(text, id="7"))
    assert document == doc(scrubbed, id="7")
    assert Scrub(("EMAIL",)).text("a@b.org +8613812345678")[0] == "<EMAIL> +8613812345678"


@pytest.mark.parametrize("text", PUBLIC)
def test_what_could_be_something_else_stays(text):
    document = doc(text)
    assert Scrub()(document) == (document, Counter())
    assert Scrub()(document)[0] is document


PIECES = ["4111 1111 1111 1111", "8.8.8.8", "+49 30 1234567", "a@b.org", "DE89370400440532013000", "2001:4860::8888"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text("0123456789 .:-+@aAE", max_size=12)), max_size=8))
def test_scrubbing_twice_is_scrubbing_once(parts):
    once, _ = Scrub().text("".join(parts))
    assert Scrub().text(once) == (once, Counter())


# Character models


def witten_bell(texts, order):
    """The formula by recursion over dictionaries: another implementation."""
    counts, alphabet = defaultdict(Counter), set("".join(texts))
    for text in texts:
        padded = "\0" * (order - 1) + text
        for at in range(order - 1, len(padded)):
            for length in range(order):
                counts[padded[at - length : at]][padded[at]] += 1

    def probability(context, character):
        if context is None:
            return 1 / (len(alphabet) + 1)
        after = counts.get(context, Counter())
        shorter = probability(context[1:] if context else None, character)
        kinds, total = len(after), after.total()
        return (after[character] + kinds * shorter) / (total + kinds) if total else shorter

    return probability, alphabet


@pytest.mark.parametrize("order", [1, 2, 4])
def test_a_character_model_is_witten_bells_and_sums_to_one(order):
    texts = ["abracadabra", "cab", "汉字 abra", "dad"]
    model, (probability, alphabet) = CharacterModel.fit(texts, order=order), witten_bell(texts, order)
    assert model.characters == len(alphabet)
    for text in ("abra", "dacab汉字", "zzz ab", "x"):
        padded = "\0" * (order - 1) + text
        expected = [probability(padded[at : at + order - 1], c) for at, c in enumerate(text)]
        assert np.allclose(np.exp(model.log_probabilities(text)), expected, rtol=FLOAT64)
        assert math.isclose(model.perplexity(text), math.exp(-np.log(expected).mean()), rel_tol=FLOAT64)
    for context in ("", "ab", "汉", "zz"):
        total = sum(np.exp(model.log_probabilities(context + c)[-1]) for c in [*alphabet, "\uffff"])
        assert abs(total - 1) < FLOAT64


def test_a_character_model_refuses_what_it_cannot_fit():
    for make, said in (
        (lambda: CharacterModel.fit([""]), "found no characters"),
        (lambda: CharacterModel.fit(["a"], order=0), "order 0 was asked for"),
        (lambda: CharacterModel.fit(["a"]).perplexity(""), "empty text"),
    ):
        with pytest.raises(DataError, match=said):
            make()


def test_perplexity_is_calibrated_by_quantile_in_every_language():
    alphabets = {"en": "etaoin shrdlu", "ru": "оеаинт срвлкм"}

    def drawn(language, seed):
        draw = random.Random(f"{language}{seed}")
        return doc("".join(draw.choices(alphabets[language], weights=range(13, 0, -1), k=80)), language, str(seed))

    judge = Perplexity.fit([drawn(language, i) for i in range(1500) for language in alphabets], quantile=0.9, order=3)
    for language in alphabets:
        kept = np.mean([judge(drawn(language, i)) is None for i in range(1500, 3500)])
        assert abs(kept - 0.9) < 0.05  # 300 documents hold the quantile to about 0.017
    other = replace(drawn("ru", 0), language="en")
    assert judge(other) == "high perplexity" and judge(doc("ё", "ru")) is None
    with pytest.raises(DataError, match=r"no model of 'de' \(it has en, ru\); fit one, or"):
        judge(doc(SENTENCES["de"], "de"))
    assert replace(judge, unfitted="keep")(doc(SENTENCES["de"], "de")) is None


def test_a_sample_of_the_same_seed_is_split_like_any_other():
    documents = [doc(prose(i, 8), id=str(i)) for i in range(2000)]
    sample = sample_documents(documents, 200, seed=5)  # the documents of least priority
    found = Perplexity.fit(sample, seed=5)
    assert found.thresholds == Perplexity.fit(sample[::-1], seed=5).thresholds  # of a split, whatever the order
    assert np.mean([found(d) is None for d in sample]) > 0.95


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Perplexity.fit([doc(SENTENCES["en"])]), r"'en' was to be fitted on \d and calibrated on \d documents"),
        (lambda: Perplexity.fit([]), "found no document of 20 characters"),
        (lambda: Perplexity.fit([], quantile=2), "quantile 2 and held_out 0.2; 0 to 1"),
        (lambda: Perplexity({}, {}), "models of no language and thresholds of none"),
    ],
)
def test_perplexity_needs_documents_to_be_fitted_on(make, said):
    with pytest.raises(DataError, match=said):
        make()


# Decontamination


def planted(language):
    """A document of the language with another language's text around the evaluation sentence."""
    return doc(f"{prose(1)}. {SENTENCES[language].upper()} {prose(2)}", language)


@pytest.mark.parametrize("language", SENTENCES)
def test_a_planted_evaluation_sentence_is_found_in_any_language(language):
    judge = Decontaminate.against({"news": [SENTENCES[language]], "other": [prose(9)]})
    assert judge(planted(language)) == "holds evaluation text of 'news'"
    half = SENTENCES[language][: int(len(SENTENCES[language]) * 0.97)]  # an n-gram of it, not its end
    assert judge(doc(half + " " + prose(3), language)) == "holds evaluation text of 'news'"
    for unrelated in (prose(4, 500), *(s for name, s in SENTENCES.items() if name != language)):
        assert judge(doc(unrelated, language)) is None
    assert judge(doc(" ".join(SENTENCES[language].split()[:5])[:20], language)) is None


def test_short_texts_are_found_whole_or_not_looked_for():
    short = "nine words are enough to be looked for here"
    judge = Decontaminate.against({"a": ["too short to look for", short]})
    assert judge(doc(f"well, {short} and more")) == "holds evaluation text of 'a'"
    assert judge(doc(f"well, {short.replace('enough', 'few')}")) is judge(doc("too short to look for " * 5)) is None
    rows = contamination([doc(short), doc(short), doc("x")], {"a": ["too short", short], "b": [prose(0, 20)]})
    assert [(r.name, r.items, r.checked, r.hit, r.documents, r.share) for r in rows] == [
        ("a", 2, 1, 1, 2, 1.0),
        ("b", 1, 1, 0, 0, 0.0),
    ]


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=14)


@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS, min_size=1, max_size=4))
def test_what_is_hit_is_what_sets_of_n_grams_hit(items, documents):
    def grams(words, n):
        return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}

    items = [*items, ["a", "b", "c"]]
    judge = Decontaminate.against({"s": [" ".join(i) for i in items], "t": ["x y z"]}, words=5, shortest=3)
    checked = [i for i in items if len(i) >= 3]
    for words in documents:
        n_of = [min(5, len(i)) for i in checked]
        expected = [at for at, i in enumerate(checked) if grams(i, n_of[at]) & grams(words, n_of[at])]
        assert judge.hits(" ".join(words)).tolist() == expected


@pytest.mark.parametrize(
    "asked, said",
    [
        (({},), "Evaluation sets: none"),
        (({"a": "one string"},), "Evaluation set 'a' is one string"),
        (({"a": ["short"]},), "found none in 1; lower"),
        (({"a": []},), "found none in 0"),
    ],
)
def test_evaluation_sets_that_cannot_be_looked_for_are_refused(asked, said):
    with pytest.raises(DataError, match=said):
        Decontaminate.against(*asked)


# The real corpus


@real
def test_shuffled_characters_are_more_perplexing_than_text():
    draw = random.Random(0)
    for language in ("en", "zh", "hi", "ar"):
        documents = list(itertools.islice(read_corpus(SHARED / f"{language}.txt", language=language), 0, 6000, 3))
        judge = Perplexity.fit(documents[:1500])
        texts = [d.text for d in documents[1500:] if len(d.text) >= 20]
        model = judge.models[language]
        shuffled = ["".join(draw.sample(text, len(text))) for text in texts]
        pairs = [(model.perplexity(t), model.perplexity(s)) for t, s in zip(texts, shuffled, strict=True)]
        assert np.mean([text < mixed for text, mixed in pairs]) > 0.95, language
        dropped = [judge(doc(t, language)) is not None for t in shuffled]
        assert np.mean(dropped) > 2 * np.mean([judge(doc(t, language)) is not None for t in texts]), language


@real
@pytest.mark.slow
def test_how_much_of_the_parallel_text_the_corpus_holds():
    """Reads 41 MB: some 20 s. One item of each language is planted; how many more are hit is a finding, not a law."""
    sets = {p.name.split(".")[1]: p.read_text().splitlines() for p in sorted((SHARED / "parallel").glob("*.txt"))}
    planted = [doc(max(texts, key=len), language) for language, texts in sets.items()]
    rows = contamination(itertools.chain(planted, read_corpus(SHARED)), sets)
    assert len(rows) == 18
    for row in rows:
        assert 1 <= row.hit <= row.checked <= row.items == 1997 and 0 <= row.share <= 1 <= row.documents
