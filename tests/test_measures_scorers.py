"""Scorers: where a word stands, what each character adds, and that no scorer judges its own choice."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from close import FLOAT32, FLOAT64
from microtome.core.errors import DataError, MeasureError
from microtome.data.labelled import LabelledSet, LabelledText
from microtome.data.parrot import NEUTRAL, TOXIC, parrot_set, vocabulary
from microtome.data.spans import tokenized
from microtome.measures.expertise import auroc
from microtome.measures.scorers import (
    ClassifierScorer,
    Lexicon,
    Scorer,
    agreement,
    fit_ngram,
    load_ngram,
    require_separate,
    save_ngram,
)
from microtome.measures.scorers.ngram import _platt

TRAIN, HELD = parrot_set(600, seed=0), parrot_set(300, seed=1)
LEXICON = Lexicon.of(TOXIC)
SCORER = fit_ngram(TRAIN, buckets=1 << 15)

# Lexicon


def found(text, *terms, **options):
    return [text[a:b] for a, b in Lexicon.of(terms, **options).spans(text)]


@pytest.mark.parametrize(
    "text, said",
    [
        ("you grubnak!", ["grubnak"]),
        ("GRUBNAK Grübnak ｇｒｕｂｎａｋ", ["GRUBNAK", "Grübnak", "ｇｒｕｂｎａｋ"]),
        ("gru\u200bb\u00adnak", ["gru\u200bb\u00adnak"]),
        ("grubn4k 9ru8n@k", ["grubn4k", "9ru8n@k"]),
        ("<b>grubnak</b>, grubnak's (grubnak)", ["grubnak"] * 3),
        ("grubnaks agrubnak grubnak2 grub nak", []),
        ("", []),
    ],
)
def test_a_word_is_found_whatever_hides_it_and_only_as_a_word(text, said):
    assert found(text, "grubnak") == said


def test_leet_needs_a_letter_that_stands_as_it_is():
    assert found("505 s0s 5o5 sos", "sos") == ["s0s", "5o5", "sos"]
    assert found("l0l 101 1ol", "lol") == ["l0l", "1ol"]
    assert found("call 88 8b", "88") == ["88"]  # a term of digits as it is
    assert found("grubn4k grubnak", "grubnak", leet=False) == ["grubnak"]
    assert found("lick 1ick |ick", "lick") == ["lick", "1ick", "|ick"]


def test_scripts_without_spaces_have_no_boundaries_and_do_not_hide_latin_words():
    assert found("你这坏蛋啊", "坏蛋") == ["坏蛋"]
    assert found("你grubnak了", "grubnak") == ["grubnak"]
    assert found("это слово словом", "слово") == ["слово"]


def test_the_longest_term_wins_and_terms_of_several_words_take_any_space():
    assert found("a plain grubnak here", "grubnak", "plain grubnak") == ["plain grubnak"]
    assert found("plain \t\n grubnak", "plain grubnak") == ["plain \t\n grubnak"]
    weighted = Lexicon({"grubnak": 0.9, "drat": 0.2})
    assert weighted.scores(["oh drat", "drat grubnak", "oh"]).tolist() == [0.2, 0.9, 0.0]
    assert [f.term for f in weighted.flags("DRAT grubn4k")] == ["drat", "grubnak"]


@given(st.lists(st.sampled_from([*TOXIC, *NEUTRAL, "a", "."]), max_size=30))
def test_every_listed_word_of_a_text_is_found_and_no_other(words):
    assert found(" ".join(words), *TOXIC) == [w for w in words if w in TOXIC]


@given(st.text(max_size=60))
def test_any_text_can_be_searched(text):
    for flag in LEXICON.flags(text + " vrok " + text):
        assert 0 <= flag.start < flag.end <= 2 * len(text) + 6 and flag.term in TOXIC


def test_the_lexicon_is_an_exact_scorer_of_the_parrot():
    assert (LEXICON.scores(HELD.texts) == HELD.labels).all()
    assert len(LEXICON.flags("<p>\x00grubnak " * 20_000)) == 20_000


def test_lexicons_are_read_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("# mine\ngrubnak\n\n  two words \n", encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"grubnak": [1], "two words": [2]}))
    one, other = Lexicon.read(tmp_path / "a.txt"), Lexicon.read(tmp_path / "b.json")
    assert set(one.weights) == {"grubnak", "two words"} and one.origin == other.origin
    assert one.origin != Lexicon.of(["grubnak"]).origin
    (tmp_path / "b.json").write_text("3")
    with pytest.raises(DataError, match=r"b.json' should hold a list of terms, found int"):
        Lexicon.read(tmp_path / "b.json")
    with pytest.raises(DataError, match=r"found none; mend the list"):
        Lexicon.of([])
    with pytest.raises(DataError, match=r"found '' of weight 1.0"):
        Lexicon.of([" \u200b"])
    with pytest.raises(DataError, match=r"found 'grubnak' of weight 2.0"):
        Lexicon({"grubnak": 2.0})
    with pytest.raises(MeasureError, match=r"a list of texts, found one string"):
        LEXICON.scores("grubnak")


# Linear n-grams


def test_held_out_texts_are_told_apart_and_shuffled_labels_teach_nothing():
    assert auroc(SCORER.scores(HELD.texts), HELD.labels)[0] > 0.99
    mixed = np.random.default_rng(0).permutation(TRAIN.labels)
    null = fit_ngram(
        LabelledSet(tuple(LabelledText(t, int(y)) for t, y in zip(TRAIN.texts, mixed, strict=True)), "shuffled"),
        buckets=1 << 12,
    )
    area = auroc(null.logits(HELD.texts), HELD.labels)[0]
    assert abs(area - 0.5) < 4 * (301 / (12 * HELD.labels.sum() * (1 - HELD.labels).sum())) ** 0.5 or area == 0.5


some_text = st.one_of(
    st.text(max_size=60),
    st.sampled_from(HELD.texts),
    st.lists(st.sampled_from(["ab", "汉字", "GRÜB", "x", "!"])).map(" ".join),
)


@given(some_text)
def test_what_the_characters_add_is_the_logit(text):
    given_to = SCORER.attribute(text)
    assert len(given_to.characters) == len(text)
    assert abs(given_to.logit - SCORER.logits([text])[0]) < FLOAT64
    silent = [not c.isalnum() and not c.isspace() and c.isascii() and c != "_" for c in text]
    # Signs inside of two words' gram carry their share of it; signs of a text without words carry nothing.
    assert any(c.isalnum() or c == "_" for c in text) or not given_to.characters[silent].any()


def test_what_the_tokens_add_is_the_logit_too():
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<unk>", *vocabulary()))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    toxic = 0
    for row in HELD.rows[:100]:
        tokens, given_to = tokenized(tokenizer, row.text), SCORER.attribute(row.text)
        per_token, rest = given_to.per_token(tokens.offsets)
        assert abs(per_token.sum() + rest + given_to.bias - SCORER.logits([row.text])[0]) < FLOAT64
        if row.label:
            a, b = tokens.offsets[int(per_token.argmax())]
            toxic += row.text[a:b] in TOXIC
    assert toxic > 0.9 * HELD.labels[:100].sum()  # the token that adds most is the toxic word


def test_a_feature_counts_by_its_weight_alone():
    """Planted: all weights 0 but those of one word's features; the logit is their sum over sqrt(all features)."""
    blank = type(SCORER)(np.zeros(1 << 15, np.float32), -1.0, (1, 1), (3, 2), "made here", (1, 1))
    (bucket,) = blank._grams("grubnak").buckets
    weights = np.zeros(1 << 15, np.float32)
    weights[bucket] = 6.0
    planted = type(SCORER)(weights, -1.0, (1, 1), (3, 2), "made here", (1, 1))
    texts = ["grubnak", "one two grubnak four", "grubnak and GRUBNAK!", "nothing here", ""]
    expected = [6.0, 6.0 / 2, 6.0 / 2**0.5, 0.0, 0.0]  # features are distinct words
    assert np.abs(planted.logits(texts) + 1 - expected).max() < FLOAT64
    twice = planted.attribute(texts[2]).characters
    assert (
        np.abs(
            twice - np.where([c.isalpha() for c in texts[2]], 3 / 2**0.5 / 7, 0) * [*[1] * 8, *[0] * 4, *[1] * 8]
        ).max()
        < FLOAT64
    )
    assert planted.spans(texts[2]) == [(0, 7), (12, 19)] and planted.spans(texts[3]) == []


def test_character_grams_are_those_of_padded_words():
    """Counted by hand: ` ab ` has 2 grams of three and 1 of four; ` c ` has one of three; none crosses the words."""
    made = type(SCORER)(np.zeros(1 << 15, np.float32), 0.0, (1, 2), (3, 5), "", (1, 1))
    assert len(made._grams("ab c").buckets) == 3 + 2 + 1 + 1  # three word grams, then these
    joined = made._grams("AB, c")
    assert sorted(joined.buckets) == sorted(made._grams("ab c").buckets)
    assert (joined.starts >= 0).all() and (joined.starts + joined.lengths <= 5).all()
    assert len(set(made._grams("abcdefgh").buckets)) == 1 + 8 + 7 + 6  # of ten characters with the spaces


def noisy(rows, seed):
    flip = np.random.default_rng(seed).random(len(rows)) < 0.2
    labels = np.where(flip, 1 - rows.labels, rows.labels)
    return LabelledSet(tuple(LabelledText(t, int(y)) for t, y in zip(rows.texts, labels, strict=True)), "noisy")


def test_scores_are_probabilities_on_held_out_texts_with_noisy_labels():
    fitted, held = fit_ngram(noisy(parrot_set(800, seed=3), 0), buckets=1 << 14), noisy(parrot_set(900, seed=4), 1)
    scores = fitted.scores(held.texts)
    for part in np.array_split(np.argsort(scores), 3):
        expected = scores[part].mean()
        assert abs(held.labels[part].mean() - expected) < 4 * (expected * (1 - expected) / len(part)) ** 0.5
    assert scores.std() > 0.1  # it does tell texts apart


def test_platt_scaling_is_the_logistic_fit_of_its_targets():
    rng = np.random.default_rng(1)
    labels = (rng.random(400) < 0.3).astype(int)
    logits = 3 * labels + rng.normal(size=400) * 2
    slope, shift = _platt(logits, labels)
    n1, n0 = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    twice, both = np.concatenate([logits, logits])[:, None], np.repeat([1, 0], 400)
    oracle = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        twice, both, sample_weight=np.concatenate([target, 1 - target])
    )
    assert abs(slope - oracle.coef_[0, 0]) < 1e-4 and abs(shift - oracle.intercept_[0]) < 1e-4
    assert _platt(-logits, labels)[0] == 0.0  # held-out logits that point the wrong way are worth nothing


def test_a_scorer_is_its_rows_and_comes_back_from_its_file(tmp_path):
    again = fit_ngram(TRAIN, buckets=1 << 15)
    assert (again.weights == SCORER.weights).all() and again.bias == SCORER.bias and again.origin == SCORER.origin
    path = save_ngram(SCORER, tmp_path / "scorer.safetensors")
    back = load_ngram(path)
    assert (back.logits(HELD.texts) == SCORER.logits(HELD.texts)).all()
    assert (back.origin, back.rows, back.words, back.characters) == (SCORER.origin, SCORER.rows, (1, 2), (3, 5))
    assert sum(back.rows) == len(TRAIN)
    path.write_bytes(b"not this")
    with pytest.raises(DataError, match=r"was asked for as a scorer, found none in it"):
        load_ngram(path)
    from safetensors.numpy import save_file

    save_file({"weights": SCORER.weights}, path, metadata={"format": "other"})
    with pytest.raises(DataError, match=r"asked for as microtome.scorer.ngram 1, found other"):
        load_ngram(path)
    with pytest.raises(DataError, match=r"No scorer file"):
        load_ngram(tmp_path / "none")


def test_too_few_rows_and_lone_strings_are_refused():
    few = LabelledSet((LabelledText("good", 0), LabelledText("bad", 1), LabelledText("fine", 0)), "few")
    with pytest.raises(MeasureError, match=r"rows of one class \(of 3 rows, 1 with label 1\); give more rows or fewer"):
        fit_ngram(few, buckets=64)
    with pytest.raises(MeasureError, match=r"takes a list of texts, found one string"):
        SCORER.scores("grubnak")


# Classifiers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a maker of folders with a tiny classifier, as save_pretrained writes them."""

    def make(labels=("fine", "toxic"), tokenizer=True, **options):
        home = tmp_path_factory.mktemp("classifier")
        torch.manual_seed(0)
        names = dict(enumerate(labels))
        config = BertConfig(
            vocab_size=len(vocabulary()) + 2, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=24, id2label=names,
            label2id={n: i for i, n in names.items()}, **options,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(home)
        if tokenizer:
            words = ("<pad>", "<unk>", *vocabulary())
            core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
            core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>").save_pretrained(home)
        return str(home)

    return make


def logits(scorer, text):
    ids = torch.tensor([scorer.model.tokenizer(text)["input_ids"][: scorer.longest]])
    with torch.no_grad():
        return scorer.model.module(ids).logits[0].double()


TEXTS = ["kate felt furious", "paul", "you are a total grubnak and a proper hero , said kate", "kate " * 500]


@pytest.mark.parametrize(
    "labels, options, expected",
    [
        (("fine", "toxic"), {}, lambda z: z.softmax(0)[1]),
        (("toxic", "b", "c"), {"problem_type": "multi_label_classification"}, lambda z: z.sigmoid()[0]),
        (("only",), {}, lambda z: z.sigmoid()[0]),
    ],
    ids=["softmax", "several", "one"],
)
def test_a_classifier_scores_each_text_as_alone(folder, labels, options, expected, caplog):
    scorer = ClassifierScorer.load(folder(labels, **options), batch_size=3)
    scores = scorer.scores(TEXTS)
    assert isinstance(scorer, Scorer) and scorer.longest == 24
    assert np.abs(scores - [expected(logits(scorer, t)).item() for t in TEXTS]).max() < FLOAT32
    assert "1 of 1 texts are longer than 24 tokens and were cut" in caplog.text


def test_which_class_is_asked_for_and_what_is_no_classifier(folder, tiny_model):
    home = folder(("harmless", "hateful"))
    with pytest.raises(MeasureError, match=r"has classes harmless, hateful; say which is toxic"):
        ClassifierScorer.load(home)
    with pytest.raises(MeasureError, match=r"no class 'hatefull'; it has harmless, hateful. Did you mean 'hateful'"):
        ClassifierScorer.load(home, label="hatefull")
    named, numbered = (ClassifierScorer.load(home, label=label) for label in ("hateful", 0))
    assert np.abs(named.scores(TEXTS) + numbered.scores(TEXTS) - 1).max() < FLOAT32
    assert named.origin != numbered.origin
    with pytest.raises(MeasureError, match=r"has no tokenizer beside its weights"):
        ClassifierScorer.load(folder(tokenizer=False))
    with pytest.raises(MeasureError, match=r"is a LlamaForCausalLM; give a checkpoint"):
        ClassifierScorer.of(tiny_model("llama"))
    with pytest.raises(MeasureError, match=r"takes a list of texts, found 'one'"):
        named.scores("one")


# Agreement


def test_kappa_is_sklearns_with_an_interval_that_bootstrap_confirms():
    rng = np.random.default_rng(0)
    truth = rng.random(800) < 0.3
    a, b = (np.where(rng.random(800) < 0.15, ~truth, truth).astype(float) for _ in range(2))
    result = agreement(a, b)
    assert abs(result.kappa.estimate - cohen_kappa_score(a, b)) < FLOAT64
    assert result.rates == (a.mean(), b.mean()) and result.n == 800 and abs(result.observed - (a == b).mean()) < FLOAT64
    draws = [cohen_kappa_score(a[i], b[i]) for i in rng.integers(0, 800, (300, 800))]
    assert abs((result.kappa.high - result.kappa.low) / (2 * 1.96) / np.std(draws) - 1) < 0.2
    chance = agreement(rng.random(800), rng.random(800)).kappa
    assert 0 in chance and abs(chance.estimate) < 0.15


def test_agreement_of_like_and_unlike_scorers():
    assert agreement([0.1, 0.9, 0.5], [0.2, 0.7, 1.0]).kappa.estimate == 1.0
    assert agreement([0.0, 1.0], [1.0, 0.0]).kappa.estimate == -1.0
    flat = agreement([0.1, 0.2], [0.3, 0.0])
    assert flat.kappa is None and flat.observed == 1.0  # undefined, and said so
    with pytest.raises(MeasureError, match=r"second scorer has shape \[3\]"):
        agreement([0.1, 0.2], [0.3, 0.0, 1.0])
    assert agreement(SCORER.scores(HELD.texts), LEXICON.scores(HELD.texts)).kappa.low > 0.8


def test_who_selects_does_not_evaluate():
    assert isinstance(LEXICON, Scorer) and isinstance(SCORER, Scorer)
    require_separate(SCORER, LEXICON)
    require_separate(SCORER, fit_ngram(HELD, buckets=1 << 12))  # other data
    with pytest.raises(MeasureError, match=r"The lexicon scorer of origin '.*' would select and evaluate; give"):
        require_separate(LEXICON, Lexicon.of(reversed(TOXIC)))
    with pytest.raises(MeasureError, match=r"The ngram scorer"):
        require_separate(SCORER, fit_ngram(TRAIN, buckets=1 << 12))
