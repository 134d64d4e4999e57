"""Tokens and characters: no flagged character is lost, no token too many, whether or not the tokenizer gives offsets.

The tokenizers are built here, one of each kind: bytes, word pieces, unigrams, words, characters. The alignment without
offsets is checked against the offsets of the same tokenizers, computed by the tokenizers library on its own.
"""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from close import FLOAT64
from microtome.core.errors import DataError
from microtome.data.folding import fold, folded
from microtome.data.parrot import parrot_set, vocabulary
from microtome.data.spans import align, covered, flagged, masked, spread, tokenized

TEXTS = [*parrot_set(40).texts, "You GRUBNAK! naïve café 汉字 déjà-vu… 100%"]
SPECIAL = ["<s>", "</s>", "<unk>"]


def wrapped(core, trainer, **options):
    core.train_from_iterator(TEXTS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(s, core.token_to_id(s)) for s in SPECIAL[:2]]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token=options.get("unk", "<unk>")
    )


@functools.cache
def byte_level():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    quiet = dict(special_tokens=SPECIAL, show_progress=False)
    return wrapped(core, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, **quiet))


@functools.cache
def word_pieces():
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    return wrapped(core, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False))


@functools.cache
def unigrams():
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return wrapped(
        core, trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )


@functools.cache
def words():
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *vocabulary()))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrapped(core, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))


KINDS = {"bytes": byte_level, "word pieces": word_pieces, "unigrams": unigrams, "words": words}


class WithoutOffsets:
    """A tokenizer that can do all but tell where its tokens stand, as those written in Python."""

    is_fast = False

    def __init__(self, fast):
        self.fast = fast
        self.all_special_ids, self.unk_token_id = fast.all_special_ids, fast.unk_token_id
        self.convert_ids_to_tokens = fast.convert_ids_to_tokens

    def __call__(self, text, add_special_tokens):
        return {"input_ids": self.fast(text, add_special_tokens=add_special_tokens)["input_ids"]}

    def decode(self, ids, skip_special_tokens):
        return self.fast.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)


def solid(text, offsets):
    """Offsets without the white space that tokens begin or end with: tokenizers differ in what they count in."""
    found = []
    for a, b in offsets:
        while a < b and text[a].isspace():
            a += 1
        while a < b and text[b - 1].isspace():
            b -= 1
        found.append((a, b) if a < b else None)
    return found


some_text = st.lists(
    st.sampled_from(
        [*vocabulary()[::7], "grubnak", "GRUBNAK", "café", "汉字", "😀", "e\u0301", "!", "…", "7", "  ", "\n"]
    ),
    min_size=1,
    max_size=12,
).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@given(text=some_text, data=st.data())
def test_flagged_tokens_are_those_that_hold_a_flagged_character(kind, text, data):
    tokens = tokenized(KINDS[kind](), text)
    start = data.draw(st.integers(0, len(text) - 1))
    span = (start, data.draw(st.integers(start + 1, len(text))))
    flags = flagged(tokens.offsets, [span])
    for (a, b), flag in zip(tokens.offsets, flags, strict=True):
        assert flag == bool(set(range(a, b)) & set(range(*span)))
    held = {c for (a, b), flag in zip(tokens.offsets, flags, strict=True) if flag for c in range(a, b)}
    somewhere = {c for a, b in tokens.offsets for c in range(a, b)}
    assert set(range(*span)) & somewhere <= held  # every character of the span that any token holds
    assert not any(flagged(tokens.offsets, []))


@pytest.mark.parametrize("kind", KINDS)
@given(text=some_text)
def test_every_letter_stands_in_a_token_and_back(kind, text):
    offsets = tokenized(KINDS[kind](), text).offsets
    held = {c for a, b in offsets for c in range(a, b)}
    assert {i for i, c in enumerate(text) if c.isalnum()} <= held
    for i, (a, b) in enumerate(offsets):
        if a < b:
            assert covered(offsets, [i]) == (a, b)
            assert flagged(offsets, [(a, b)])[i]


@pytest.mark.parametrize("kind", ["bytes", "word pieces", "unigrams"])
@given(text=st.text(st.sampled_from("abcdeghknorstu vzGRUBNAKé汉😀!,.\n\t"), min_size=1, max_size=40))
def test_alignment_without_offsets_agrees_with_the_offsets(kind, text):
    fast = KINDS[kind]()
    given_by = tokenized(fast, text)
    if fast.unk_token_id in given_by.ids:
        return  # where an unknown token ends is a guess; see below
    found = tokenized(WithoutOffsets(fast), text)
    assert found.ids == given_by.ids
    for token, ours, theirs in zip(found.ids, solid(text, found.offsets), solid(text, given_by.offsets), strict=True):
        # The library counts a bare mark of white space before the text as its first character.
        if token not in fast.all_special_ids and fast.convert_ids_to_tokens(token) != "▁":
            assert ours == theirs, (text, fast.convert_ids_to_tokens(token))


@given(text=st.lists(st.sampled_from(["cat", "dog", "grubnak", "zebra", "."]), min_size=1, max_size=8).map(" ".join))
def test_unknown_words_hold_what_lies_before_the_next_known_one(text):
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, "grubnak", "."))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    known = fast.convert_tokens_to_ids("grubnak")
    spans = [(i, i + 7) for i in range(len(text)) if text.startswith("grubnak", i)]
    found = tokenized(WithoutOffsets(fast), text)
    assert [o for i, o in zip(*found, strict=True) if i == known] == spans
    flags = flagged(found.offsets, spans)
    assert [i == known for i in found.ids] == flags


@pytest.mark.parametrize("tokenizer", [ByT5Tokenizer(), CanineTokenizer()], ids=["bytes", "characters"])
def test_tokenizers_written_in_python_are_aligned_to_the_character(tokenizer):
    assert not tokenizer.is_fast
    text = "Oh you grübnak 😀 !"
    tokens = tokenized(tokenizer, text)
    flags = flagged(tokens.offsets, [(7, 14)])
    ids = [i for i, flag in zip(tokens.ids, flags, strict=True) if flag]
    assert tokenizer.decode(ids) == "grübnak"
    assert not flags[0] and not flags[-1]


def test_special_tokens_spelt_out_in_a_text_do_not_derail_the_alignment():
    fast = byte_level()
    for text in ("kate </s> total grubnak", "<s> grubnak", "grubnak </s>", "a <s><s> grubnak"):
        at = text.index("grubnak")
        found = tokenized(WithoutOffsets(fast), text)
        flags = flagged(found.offsets, [(at, at + 7)])
        assert fast.decode([i for i, flag in zip(found.ids, flags, strict=True) if flag]).strip() == "grubnak"


def test_tokens_that_do_not_spell_the_text_are_refused():
    other = tokenized(words(), "kate felt furious").ids
    with pytest.raises(
        DataError, match=r"Token 1 \('kate'\) of a tokenizer without offsets does not .* 0 \('mary felt"
    ):
        align(WithoutOffsets(words()), other, "mary felt furious")
    with pytest.raises(DataError, match=r"tokens that hold none \(of 2\)"):
        covered([(0, 0), (3, 3)], [0, 1])


@given(text=some_text, seed=st.integers(0, 99))
def test_values_of_characters_are_shared_among_tokens_without_loss(text, seed):
    values = np.random.default_rng(seed).normal(size=len(text))
    for make in KINDS.values():
        offsets = tokenized(make(), text).offsets
        per_token, rest = spread(values, offsets)
        assert abs(per_token.sum() + rest - values.sum()) < FLOAT64
        assert all(v == 0 for v, (a, b) in zip(per_token, offsets, strict=True) if a == b)
    assert spread(np.array([3.0, 4.0]), [(0, 1), (0, 1), (1, 2)])[0].tolist() == [
        1.5,
        1.5,
        4.0,
    ]  # bytes of one character


def test_masks_hide_all_but_the_first_character():
    assert masked("you grubnak !", [(4, 11)]) == "you g****** !"
    assert masked("汉 ab", [(0, 1), (2, 99)]) == "* a*" and masked("as it is", []) == "as it is"


@given(st.text(max_size=30))
def test_folding_keeps_track_of_where_letters_come_from(text):
    letters, places = folded(text)
    assert letters == fold(text) == "".join(fold(text[p]) for p in dict.fromkeys(places))
    assert places == sorted(places) and len(letters) == len(places)


def test_folding_undoes_what_hides_a_word_and_keeps_letters_apart():
    assert fold("GRÜB\u200bN\u00adÀK") == fold("ｇｒｕｂｎａｋ") == fold("gru\u0308bnak") == "grubnak"
    assert fold("が") != fold("か") and fold("क़") != fold("क")
    assert fold("\t\u3000\n") == "   " and fold("\x00\x1b") == ""
