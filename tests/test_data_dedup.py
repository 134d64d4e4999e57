"""Deduplication: shingles against sets of tuples, recall against the curve, turns against one pass, kill -9."""

import importlib.util
import subprocess
import sys
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import DataError
from microtome.data.dedup import (
    MinHash,
    Shingling,
    SignatureStore,
    canonical,
    exact_duplicates,
    jaccard,
    multi_turn,
    near_duplicates,
    recall,
    write_signatures,
)
from microtome.data.dedup.canonical import bare_words, without_spaces
from microtome.data.dedup.clusters import join
from microtome.data.dedup.datatrove_engine import datatrove_duplicates

DATATROVE = importlib.util.find_spec("datatrove") is not None
CORPUS = Path(__file__).parents[2] / "shared" / "data" / "corpus"


def planted(pairs, similarity, tag):
    """Pairs of texts whose sets of 5-word shingles have a union of 100 and a Jaccard similarity of `similarity`."""
    common, tail = round(100 * similarity), round(50 * (1 - similarity))
    for i in range(pairs):
        shared = [f"{tag}x{i}x{j}" for j in range(common + 4)]
        for side in "ab":
            yield " ".join([*shared, *(f"{tag}{side}{i}x{j}" for j in range(tail))])


def corpus(texts=1500, copies=400, seed=0):
    """Random texts of 30 words, and near-copies of some of them with another last word."""
    rng = np.random.default_rng(seed)
    own = [[f"w{w}" for w in rng.integers(0, 5000, 30)] for _ in range(texts)]
    near = [[*own[i][:-1], f"other{k}"] for k, i in enumerate(rng.integers(0, texts, copies))]
    return [" ".join(words) for words in rng.permutation(np.array([*own, *near]))]


def partition(clusters, names):
    """The clusters as sets of names."""
    return {frozenset(names[i] for i in group.tolist()) for group in clusters.groups()}


@pytest.mark.parametrize("similarity", [0.9, 0.8, 0.6, 0.3])
def test_recall_of_planted_pairs_follows_the_curve_and_nothing_else_is_joined(similarity):
    texts = list(planted(400, similarity, "p"))
    sets = Shingling().cut(texts[:20]).sets()
    assert [jaccard(sets[i], sets[i + 1]) for i in range(0, 20, 2)] == pytest.approx([similarity] * 10)
    found = partition(near_duplicates(texts), range(len(texts)))
    assert found <= {frozenset((i, i + 1)) for i in range(0, len(texts), 2)}
    expected = recall(similarity)
    assert abs(len(found) / 400 - expected) < 4 * np.sqrt(expected * (1 - expected) / 400) + 1 / 400


def test_the_curve_itself():
    assert recall(0.8) == pytest.approx(1 - (1 - 0.8**8) ** 14) and recall(0.5, 2, 1) == 0.75
    assert recall(np.array([0.0, 1.0])).tolist() == [0, 1]


def test_equal_entries_of_signatures_estimate_jaccard():
    texts = list(planted(40, 0.6, "q"))
    signatures = MinHash(bands=64, rows=8).signatures(texts)
    shares = (signatures[::2] == signatures[1::2]).mean(1)
    assert abs(shares.mean() - 0.6) < 4 * np.sqrt(0.6 * 0.4 / (512 * 40)) and shares.std() < 0.05


WORDS = st.lists(st.sampled_from("ab c ç हि नदी 5 naïve मे".split()), min_size=1, max_size=12)


@given(WORDS, WORDS, st.integers(1, 4))
def test_shingles_are_the_sets_of_word_tuples(a, b, n):
    def tuples(words):
        own = min(n, len(words))
        return {tuple(words[i : i + own]) for i in range(len(words) - own + 1)}

    one, two = Shingling(words=n).cut([" ".join(a), " ".join(b)]).sets()
    assert len(one) == len(tuples(a)) and len(two) == len(tuples(b))
    assert jaccard(one, two) == len(tuples(a) & tuples(b)) / len(tuples(a) | tuples(b))


def test_scripts_without_spaces_are_cut_by_characters():
    chinese, thai, korean = "后来信众捐资兴建宫庙落成", "สวัสดีชาวโลกทุกคน", "오늘 날씨가 정말 좋다"
    assert [without_spaces(t) for t in (chinese, thai, korean, "हिन्दी में", "plain", "")] == [1, 1, 0, 0, 0, 0]
    assert Shingling(characters=4).cut([chinese, korean]).counts.tolist() == [12 - 3, 1]
    assert Shingling(characters=4, by="characters").cut(["ab cd e"]).counts.tolist() == [2]
    spaced = Shingling().cut([chinese, " ".join(chinese)]).sets()
    assert np.array_equal(*spaced)  # so a space put between characters changes nothing


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_is_signed_and_alone_it_is_signed_alike(texts):
    minhash = MinHash(bands=3, rows=2)
    whole = minhash.keys(texts)
    assert np.array_equal(whole, np.concatenate([minhash.keys([text]) for text in texts]))
    same = [exact_duplicates([a, b]).removed for a, b in combinations(texts, 2)]
    near = [bool(len(np.intersect1d(a, b))) for a, b in combinations(whole, 2)]
    assert all(n for n, s in zip(near, same, strict=True) if s)


def test_runs_of_many_texts_are_signed_as_single_ones():
    texts = corpus(1200, 0)
    keys = MinHash().keys(texts)
    for i in (0, 1023, 1024, 1199):
        assert np.array_equal(keys[i], MinHash().keys([texts[i]])[0])


def test_what_counts_as_the_same_text():
    same = [("One,  TWO\n", "one, two"), ("Ｔｅｎ ﬁsh", "ten fish"), ("zero\u200bwidth\x07", "zerowidth"),
            ("كَتَبَ", "كتب"), ("שָׁלוֹם", "שלום"), ("Straße", "STRASSE")]  # fmt: skip
    other = [("má", "ma"), ("one two", "one, two"), ("की", "का"), ("が", "か")]
    assert all(canonical(a) == canonical(b) for a, b in same)
    assert not any(canonical(a) == canonical(b) for a, b in other)
    assert bare_words("«Don't», he said… 5%!") == "don t he said 5" and bare_words("!?") == ""


def test_exact_duplicates_keep_the_first():
    found = exact_duplicates(["b", "a", "B ", "c", "A", "b"])
    assert found.first.tolist() == [0, 1, 0, 3, 1, 0] and found.kept.tolist() == [0, 1, 3]
    assert (found.removed, found.share, len(found)) == (3, 0.5, 6)
    assert [g.tolist() for g in found.groups()] == [[0, 2, 5], [1, 4]]
    assert len(exact_duplicates([])) == 0 and exact_duplicates(["x"]).kept.tolist() == [0]


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=14))
def test_joining_finds_the_connected_components(rows):
    keys = np.array(rows, np.uint64).reshape(-1, 3) + np.arange(3, dtype=np.uint64) * np.uint64(100)
    expected = list(range(len(rows)))
    for _ in rows:  # as often as there are texts, the least number spreads along shared keys
        for i, j in combinations(range(len(rows)), 2):
            if (keys[i] == keys[j]).any():
                expected[i] = expected[j] = min(expected[i], expected[j])
    assert join(keys.T, len(rows)).first.tolist() == expected
    always = join(keys.T, len(rows), lambda a, b: np.ones(len(a), bool))
    assert always.first.tolist() == expected
    assert join(keys.T, len(rows), lambda a, b: np.zeros(len(a), bool)).removed == 0


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.sampled_from([None, 0.7]))
def test_the_order_of_texts_changes_no_cluster(random, verify):
    texts = corpus(60, 30)
    order = random.sample(range(len(texts)), len(texts))
    found = near_duplicates([texts[i] for i in order], verify=verify)
    assert partition(found, order) == partition(near_duplicates(texts, verify=verify), range(len(texts)))


def test_verification_joins_what_is_alike_and_nothing_less():
    texts = [*planted(40, 0.9, "p"), *planted(200, 0.6, "q")]
    loose = partition(near_duplicates(texts), range(len(texts)))
    strict = partition(near_duplicates(texts, verify=0.8), range(len(texts)))
    assert strict == {c for c in loose if min(c) < 80} and len(strict) < len(loose)
    many = ["the same old words as before " * 3] * 100 + ["something else here that is not the same"]
    assert near_duplicates(many, verify=0.9).kept.tolist() == [0, 100]


@pytest.mark.parametrize("texts", [[], ["alone"], ["", " "], ["!!", "??"]])
def test_few_texts(texts):
    assert near_duplicates(texts).kept.tolist() == ([0] if texts in (["alone"], ["", " "]) else [*range(len(texts))])


def test_a_store_says_what_memory_says_and_is_whole(tmp_path):
    texts = corpus()
    store = write_signatures(iter(texts), tmp_path / "s", part=500)
    assert len(store) == len(texts) == 1900 and len(store.manifest["parts"]) == 4 and store.minhash == MinHash()
    assert np.array_equal(store.near().first, near_duplicates(texts).first)
    assert np.array_equal(store.exact().first, exact_duplicates(texts).first)
    assert np.array_equal(store.near(texts, verify=0.8).first, near_duplicates(texts, verify=0.8).first)
    some = np.array([1899, 0, 500, 499])
    assert np.array_equal(store.keys(some), MinHash().keys([texts[i] for i in some]))
    data = bytearray((tmp_path / "s" / "part-00001.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "s" / "part-00001.npy").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"part-00001.npy' are damaged"):
        SignatureStore.open(tmp_path / "s")


def test_a_store_that_was_cut_short_goes_on(tmp_path):
    texts = corpus(300, 50)
    whole = write_signatures(texts, tmp_path / "whole", part=100)

    def cut():
        yield from texts[:250]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_signatures(cut(), tmp_path / "cut", part=100)
    with pytest.raises(DataError, match=r"unfinished \(200 texts\)"):
        SignatureStore.open(tmp_path / "cut")
    (tmp_path / "cut" / ".part-part-00002.npy").write_bytes(b"half")
    with pytest.raises(DataError, match=r"holds 100 texts that are not those given now"):
        write_signatures([*reversed(texts)], tmp_path / "cut", part=100)
    again = write_signatures(iter(texts), tmp_path / "cut", part=100)
    assert again.fingerprint == whole.fingerprint and not list((tmp_path / "cut").glob(".part-*"))
    more = write_signatures([*texts, *texts[:10]], tmp_path / "cut", part=100)
    assert more.exact().removed == again.exact().removed + 10


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(texts):
        rng = np.random.default_rng(0)
        stream = (" ".join(map(str, row)) for _ in range(texts) for row in rng.integers(0, 9999, (1, 20)).tolist())
        tracemalloc.start()
        write_signatures(stream, tmp_path / str(texts), part=500)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    first = peak(1000)  # fills tables that stay
    assert peak(4000) < 1.2 * first


def test_turns_end_where_one_pass_does(tmp_path):
    texts = corpus()
    store = write_signatures(texts, tmp_path / "s", part=700)
    once = store.near().kept
    found = multi_turn(store, tmp_path / "left", chunk=200, draw=4, stop="left")
    assert len(found.kept) - len(once) == pytest.approx(found.left, abs=0.01 * len(texts)) and found.left > 0
    assert 0 <= len(found.kept) - len(once) <= 0.01 * len(texts) and set(once) <= set(found.kept)
    assert sum(t.removed for t in found.turns) == len(texts) - len(found.kept)
    papers = multi_turn(store, tmp_path / "paper", chunk=200, draw=4)
    shares = [t.removed / t.drawn for t in papers.turns]
    assert shares[-1] < 0.01 <= min(shares[:-1]) and len(papers.turns) < len(found.turns)
    assert len(papers.kept) - len(once) > 0.02 * len(texts)  # the paper's rule alone may stop long before that
    assert papers.left == pytest.approx(len(papers.kept) - len(once), rel=0.3)
    single = multi_turn(store, tmp_path / "one", chunk=5000, draw=2)
    assert np.array_equal(single.kept, once) and len(single.turns) == 1 and single.left == 0


def test_a_corpus_of_one_text_and_one_of_none(tmp_path):
    store = write_signatures(["alone"], tmp_path / "s")
    assert multi_turn(store, tmp_path / "t").kept.tolist() == [0]
    with pytest.raises(DataError, match="found no texts in it"):
        write_signatures([], tmp_path / "none")


DYING = """
import os, signal, sys
from microtome.data.dedup import SignatureStore, multi_turn
store, folder, left = sys.argv[1], sys.argv[2], [int(sys.argv[3])]
store = SignatureStore.open(store)
def watch(event, args):
    if event in ("os.rename", "os.remove", "open") and str(args[0]).startswith(folder) and args[1] != "r":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
multi_turn(store, folder, chunk=200, draw=4, stop="left", seed=3)
"""


def test_killed_at_any_instant_and_resumed_the_same_texts_survive(tmp_path):
    store = write_signatures(corpus(), tmp_path / "s")
    whole = multi_turn(store, tmp_path / "whole", chunk=200, draw=4, stop="left", seed=3)
    for count in (7, 30, 11, 14, 16, 40):  # in the first split, then in turns: chunks, state, sweep
        done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "s"), str(tmp_path / "cut"), str(count)])
        assert done.returncode == -9
    again = multi_turn(store, tmp_path / "cut", chunk=200, draw=4, stop="left", seed=3)
    assert np.array_equal(again.kept, whole.kept) and again.turns == whole.turns
    other = multi_turn(store, tmp_path / "other", chunk=200, draw=4, stop="left", seed=4)
    assert other.turns != whole.turns
    with pytest.raises(DataError, match="holds turns with seed 3, asked for 4; choose another folder"):
        multi_turn(store, tmp_path / "cut", chunk=200, draw=4, stop="left", seed=4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: Shingling(by="word"), "No shingles by 'word'; choose auto, words, characters. Did you mean 'words'"),
        (lambda p: Shingling(words=0), "Shingles of 0 words or 8 characters"),
        (lambda p: MinHash(bands=0), "MinHash was asked for 0 bands of 8 rows"),
        (lambda p: near_duplicates(["a"], verify=80), "A least similarity of 80 was asked for; give .* in \\(0, 1\\]"),
        (lambda p: SignatureStore.open(p), "No signatures in .*manifest.json is missing"),
        (lambda p: write_signatures(["a"], p).near(verify=0.8), "needs the 1 texts of .*, found none; give texts="),
        (lambda p: [write_signatures(["a"], p, part=n) for n in (1, 2)], "were made with part 1, asked for 2"),
        (lambda p: [write_signatures(t, p, part=1) for t in ("ab", "a")], "holds 1 texts that are not those given now"),
        (lambda p: multi_turn(write_signatures(["a"], p), p / "t", stop="lef"), "No rule 'lef' .* Did you mean 'left'"),
        (lambda p: multi_turn(write_signatures(["a"], p), p / "t", draw=1), "Turns were asked for with .*draw 1"),
        (lambda p: ((p / "manifest.json").write_text("{"), SignatureStore.open(p)), "The manifest of .* is damaged"),
        (lambda p: ((p / "manifest.json").write_text("{}"), SignatureStore.open(p)), "is None None, this reads"),
    ],
)
def test_refusals(tmp_path, call, said):
    with pytest.raises(DataError, match=said) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not DATATROVE, reason="datatrove is not installed")
@pytest.mark.filterwarnings("default")
def test_datatrove_finds_as_much(tmp_path):
    texts = [*planted(100, 0.9, "p"), *planted(200, 0.6, "q")]
    found = datatrove_duplicates(texts, tmp_path / "d", tasks=3)
    pairs = partition(found, range(len(texts)))
    assert pairs <= {frozenset((i, i + 1)) for i in range(0, len(texts), 2)} and (found.first <= range(600)).all()
    assert sum(min(c) < 200 for c in pairs) >= 99 and abs(sum(min(c) >= 200 for c in pairs) - 200 * recall(0.6)) < 24
    assert np.array_equal(datatrove_duplicates(texts, tmp_path / "d", tasks=3).first, found.first)
    with pytest.raises(DataError, match="datatrove was asked for 1 texts in 2 tasks"):
        datatrove_duplicates(["a"], tmp_path / "e", tasks=2)


@pytest.mark.skipif(DATATROVE, reason="datatrove is installed")
def test_without_datatrove_it_says_so(tmp_path):
    with pytest.raises(DataError, match=r"found it not installed; pip install datatrove, or use near_duplicates"):
        datatrove_duplicates(["a"], tmp_path)


@pytest.mark.slow  # tens of thousands of real sentences
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")
@pytest.mark.parametrize("language", ["en", "hi", "zh"])
def test_real_sentences(tmp_path, language):
    texts = (CORPUS / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    store = write_signatures(texts, tmp_path / "s")
    loose, strict = store.near(), store.near(texts, verify=0.7)
    assert 0 < strict.removed <= loose.removed < 0.2 * len(texts)
    for group in [*strict.groups()][:50]:
        sets = Shingling().cut([texts[i] for i in group.tolist()]).sets()
        assert all(max(jaccard(a, b) for b in sets if b is not a) >= 0.7 for a in sets)
    turns = multi_turn(store, tmp_path / "t", chunk=2000, draw=8, stop="left")
    assert 0 <= len(turns.kept) - len(loose.kept) <= 0.01 * len(texts)
