"""The phrasebook: twelve tables that agree, sentences in the right script, and held-out text that stays held out."""

import math
import re
import unicodedata
from collections import Counter
from itertools import islice, pairwise, product

import pytest

from microtome.core.errors import DataError
from microtome.data.phrasebook import (
    HELD_OUT_FRAMES,
    LANGUAGES,
    PARTS,
    TOPICS,
    documents,
    frames,
    held_out,
    parallel,
    sentence,
    slots,
)
from microtome.data.phrasebook.frames import HELD_OUT_SHARE, REMARKS
from microtome.data.phrasebook.tables import sizes, table, variants

SCRIPTS = {"ru": {"CYRILLIC"}, "zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}}
SCRIPTS |= {"ar": {"ARABIC"}, "hi": {"DEVANAGARI"}, "ko": {"HANGUL"}}
ENDS = {"zh": "。？", "ja": "。", "ar": ".؟", "hi": "।?"}


def places(text: str) -> list[tuple[str, str]]:
    return re.findall(r"\{((\w+)(?:\.\w+)?)\}", text)


def texts(language: str, count: int, seed: int = 0) -> list[str]:
    return [d.text for d in documents(language, count, seed=seed)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_table_has_the_frames_slots_and_fillers_of_the_english_one(language):
    english, other = table("en"), table(language)
    assert list(other.frames) == list(english.frames)
    for frame in english.frames:
        wanted = sorted(slot for _, slot in places(english.frames[frame]))
        assert sorted(slot for _, slot in places(other.frames[frame])) == wanted, frame
    for form, fillers in other.forms.items():
        assert len(fillers) == sizes()[form.partition(".")[0]], form
        assert len(set(fillers)) == len(fillers) and all(f == f.strip() != "" for f in fillers), form
    assert set(other.forms) == {form for text in other.frames.values() for form, _ in places(text)}


def test_no_frame_has_a_slot_twice_and_every_frame_has_its_place():
    assert all(len(set(slots(frame))) == len(slots(frame)) for frame in frames())
    said = [frame for topic in TOPICS.values() for frame in topic] + list(REMARKS)
    assert sorted(said + list(HELD_OUT_FRAMES)) == sorted(frames()) and len(set(frames())) == len(frames())
    assert sum(bool(slots(f)) for f in frames()) == 72 and sum(bool(slots(f)) for f in HELD_OUT_FRAMES) == 11
    assert len(frames()) - 72 == 44


def test_there_are_as_many_sentences_as_counted():
    assert variants("remark_1") == 1 and variants("wants_animal") == 14 * 12
    korean = table("ko")
    by_hand = [math.prod(len(korean.forms[form]) for form, _ in places(text)) for text in korean.frames.values()]
    assert sum(map(variants, frames())) == sum(by_hand) > 400_000
    for language in LANGUAGES:
        assert len({sentence(language, "learns_with", f) for f in every("learns_with")}) == 14 * 14 * 12


def every(frame: str):
    for numbers in product(*(range(sizes()[slot]) for slot in slots(frame))):
        yield dict(zip(slots(frame), numbers, strict=True))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_filler_is_said_without_open_places_in_the_right_script(language):
    for frame in frames():
        for number in range(max((sizes()[slot] for slot in slots(frame)), default=1)):
            text = sentence(language, frame, {slot: number % sizes()[slot] for slot in slots(frame)})
            assert not set("{}|") & set(text) and "  " not in text and text == text.strip()
            assert text[-1] in ENDS.get(language, ".?"), text
            assert not text[0].islower(), text
            assert text.count("¿") == text.count("?") * (language == "es"), text
            letters = Counter(unicodedata.name(c).split()[0] for c in text if c.isalpha())
            assert sum(letters[s] for s in SCRIPTS.get(language, {"LATIN"})) == letters.total(), text
            assert unicodedata.is_normalized("NFC", text) or language == "hi", text


@pytest.mark.parametrize(
    ("language", "frame", "fillers", "text"),
    [
        ("en", "met", {"she": 2, "he": 0, "place": 1, "past": 3}, "Sara met Leo in the park last week."),
        ("de", "lost", {"she": 0, "thing": 1, "place": 3, "past": 0},
         "Anna hat gestern am Bahnhof einen Regenschirm verloren."),
        ("fr", "cleaned", {"she": 1, "he": 3}, "Maria a nettoyé la cuisine pendant qu'Ali travaillait dans le jardin."),
        ("es", "likes_food", {"she": 1, "he": 0, "food": 4}, "A María le gustan las manzanas, pero a Leo no."),
        ("ru", "gave", {"he": 0, "she": 0, "thing": 0, "past": 0}, "Лео вчера подарил Анне книгу."),
        ("zh", "put", {"he": 0, "thing": 0, "past": 0}, "利奥昨天把书放在了桌子上。"),
        ("ja", "stays_home", {"she": 0, "weather": 0}, "雨が降っているので、アンナは家にいます。"),
        ("ar", "books_month", {"she": 3, "number": 0, "month": 0}, "قرأت لينا خمسة كتب في يناير."),
        ("hi", "gave", {"he": 0, "she": 2, "thing": 0, "past": 3}, "लियो ने पिछले हफ़्ते सारा को एक किताब दी।"),
        ("tr", "postcard", {"she": 0, "he": 3, "city": 1, "past": 0},
         "Anna dün Londra'dan Ali'ye bir kartpostal gönderdi."),
        ("id", "wants_animal", {"he": 0, "animal": 0}, "Leo ingin memelihara seekor anjing."),
        ("ko", "is_job", {"she": 0, "job": 1, "city": 7}, "안나는 의사이고 서울에서 일해요."),
    ],
)  # fmt: skip
def test_sentences_read_as_written_by_hand(language, frame, fillers, text):
    assert sentence(language, frame, fillers) == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_are_seeded_stream_and_say_what_they_are(language):
    first = list(documents(language, 30))
    assert first == list(documents(language, 30)) == list(islice(documents(language, 10**12), 30))
    assert texts(language, 30) != texts(language, 30, seed=1)
    assert {d.language for d in first} == {language} and {d.source for d in first} == {"phrasebook"}
    assert len({d.id for d in first}) == 30 and {d.meta["topic"] for d in first} <= set(TOPICS)
    assert len(set(texts(language, 2000))) > 1990


def parsed(text: str) -> list[dict[str, str]]:
    """What an English document fills its places with, sentence by sentence, by another way than `say`."""
    forms, found = table("en").forms, []
    for line in re.findall(r".+?[.?](?: |$)", text):
        for frame in table("en").frames.values():
            pattern = re.escape(frame).replace(r"\{", "{").replace(r"\}", "}").replace(r"\.", ".")
            for form, slot in places(frame):
                pattern = pattern.replace(f"{{{form}}}", f"(?P<{slot}>{'|'.join(map(re.escape, forms[form]))})")
            if match := re.fullmatch(pattern, line.strip()):
                found.append(match.groupdict())
                break
        else:
            raise AssertionError(line)
    return found


def test_a_document_keeps_its_people_and_often_its_other_fillers_and_has_two_to_eight_sentences():
    kept = seen = 0
    lengths = Counter()
    for text in texts("en", 150):
        said = parsed(text)
        lengths[len(said)] += 1
        for person in ("she", "he"):
            assert len({s[person] for s in said if person in s}) <= 1
        pasts = [s["past"] for s in said if "past" in s]
        kept += sum(a == b for a, b in pairwise(pasts))
        seen += max(len(pasts) - 1, 0)
    assert set(lengths) == set(range(2, 9))
    assert 0.35 < kept / seen < 0.75  # 1/2 + 1/2 * 1/12 when kept with probability 1/2; by chance it were 1/12


def test_languages_are_drawn_independently():
    english, german = (list(documents(language, 300)) for language in ("en", "de"))
    same = sum(a.meta["topic"] == b.meta["topic"] for a, b in zip(english, german, strict=True))
    assert 25 < same < 80  # 300 / 6 by chance


@pytest.mark.parametrize("part", PARTS)
def test_parallel_lines_mean_the_same_and_are_held_out(part):
    lines = parallel(2000, part=part)
    assert list(lines) == list(LANGUAGES) and {len(said) for said in lines.values()} == {2000}
    assert all(len(set(said)) == 2000 for said in lines.values())
    assert lines == parallel(2000, part=part) and lines["en"] != parallel(2000, part=part, seed=1)["en"]
    assert parallel(100, part=part, languages=["ja"]) == {"ja": lines["ja"][:100]}
    names = {language: table(language).forms["she"][0] for language in ("en", "zh", "ja", "ar", "tr")}
    about = {language: {k for k, s in enumerate(lines[language]) if names[language] in s} for language in names}
    assert len(about["en"]) > 50 and all(found == about["en"] for found in about.values())


def pieces(language: str, text: str) -> list[str]:
    """Sentences of a document, cut at their ends."""
    ends = ENDS.get(language, ".?")
    return [piece.strip() for piece in re.findall(f"[^{ends}]+[{ends}]", text)]


EACH_SLOWLY = [
    pytest.param(language, marks=() if language in ("en", "ja") else pytest.mark.slow) for language in LANGUAGES
]


@pytest.mark.parametrize("language", EACH_SLOWLY)  # two seconds each; two are enough for the fast suite
def test_documents_and_parallel_lines_share_no_sentence(language):
    said = {piece for text in texts(language, 4200) for piece in pieces(language, text)}
    assert len(said) > 10_000
    for part in PARTS:
        assert said.isdisjoint(parallel(4000, languages=[language], part=part)[language])
    assert said & {table(language).frames[remark] for remark in REMARKS}  # pieces are whole sentences


def test_one_combination_in_eight_is_held_out_and_no_remark_by_chance():
    shares = [sum(held_out(f, x) for x in every(f)) / variants(f) for f in ("learns_with", "together", "postcard")]
    assert all(abs(share - 1 / HELD_OUT_SHARE) < 0.02 for share in shares)
    assert not any(held_out(remark, {}) for remark in REMARKS) and held_out("paid", {})


@pytest.mark.slow  # the identifier's model takes seconds to load
def test_a_language_identifier_agrees():
    langid = pytest.importorskip("py3langid.langid")
    judge = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    judge.set_languages(list(LANGUAGES))
    for language in LANGUAGES:
        right = [judge.classify(text)[0] == language for text in texts(language, 300)]
        assert sum(right) / len(right) >= 0.95, language


def test_wrong_requests_name_what_was_asked_and_what_there_is():
    with pytest.raises(DataError, match=r"No language 'enn' in the phrasebook.* Did you mean 'en'\?"):
        documents("enn", 1)
    with pytest.raises(DataError, match=r"No language 'kor' in the phrasebook.* Did you mean 'ko'\?"):
        parallel(1, languages=["en", "kor"])
    with pytest.raises(DataError, match=r"^0 documents .*ask for 1 or more"):
        documents("en", 0)
    with pytest.raises(DataError, match=r"^0 parallel sentences .*ask for 1 to \d+"):
        parallel(0)
    with pytest.raises(DataError, match=r"ask for 1 to \d+"):
        parallel(10**6)
    with pytest.raises(DataError, match="in no language"):
        parallel(1, languages=[])
    with pytest.raises(DataError, match=r"No part 'frame' .* Did you mean 'frames'\?"):
        parallel(1, part="frame")
    with pytest.raises(DataError, match=r"No frame 'mett' .* Did you mean 'met'\?"):
        sentence("en", "mett", {})
    with pytest.raises(DataError, match=r"given fillers for \(she\), it has the slots \(animal, he\)"):
        sentence("en", "wants_animal", {"she": 0})
    with pytest.raises(DataError, match="Filler 12 was asked for, slot 'animal' has 12"):
        sentence("en", "wants_animal", {"he": 0, "animal": 12})
