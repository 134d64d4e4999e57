"""The atlas world: true and consistent facts, wording split cleanly, a corpus that says what it may and no more."""

from itertools import islice

import pytest

from microtome.core.errors import DataError
from microtome.data.atlas import (
    RELATIONS,
    TWO_HOP_RELATIONS,
    Mix,
    documents,
    fillers,
    load_facts,
    nonce_names,
    templates,
    two_hop_split,
)
from microtome.data.atlas.audit import audit
from microtome.data.atlas.corpus import Answer, Document
from microtome.data.atlas.exam import Question, constant_guess, exam
from microtome.data.atlas.facts import City, Country, _check
from microtome.data.atlas.templates import HELD_OUT_WORDINGS, TRAIN_WORDINGS

FACTS = load_facts()


def names() -> list[str]:
    return [n for c in FACTS.countries for n in (c.name, c.capital)] + [c.name for c in FACTS.cities]


def test_the_world_has_its_size_and_no_name_twice():
    assert len(FACTS.countries) == 130 and len(FACTS.cities) == 228
    assert len(names()) == len(set(names()))
    assert {c.country for c in FACTS.cities} <= set(FACTS.country)
    assert all(n == n.strip() and n.isascii() for n in names())


@pytest.mark.parametrize(
    ("entity", "relation", "answer"),
    [
        ("France", "capital", "Paris"),
        ("Australia", "capital", "Canberra"),
        ("Brazil", "language", "Portuguese"),
        ("Croatia", "currency", "euro"),
        ("Egypt", "continent", "Africa"),
        ("Canada", "continent", "North America"),
        ("Peru", "currency", "sol"),
        ("Kyoto", "country", "Japan"),
        ("Paris", "country", "France"),
        ("Lyon", "capital", "Paris"),
        ("Karachi", "language", "Urdu"),
        ("Mombasa", "currency", "shilling"),
        ("Auckland", "continent", "Oceania"),
    ],
)
def test_facts_are_true(entity, relation, answer):
    assert FACTS.answer(entity, relation) == answer


def test_a_two_hop_fact_is_its_countrys_and_vocabularies_hold_every_answer():
    for city in FACTS.cities:
        for relation in TWO_HOP_RELATIONS:
            assert FACTS.answer(city.name, relation) == FACTS.answer(city.country, relation)
    sizes = {r: len(FACTS.vocabulary(r)) for r in TWO_HOP_RELATIONS}
    assert sizes == {r: len({getattr(c, r) for c in FACTS.countries}) for r in TWO_HOP_RELATIONS}
    assert sizes["capital"] == 130 and sizes["continent"] == 6


def test_wrong_questions_name_what_was_asked_and_the_nearest_name():
    with pytest.raises(DataError, match=r"No entity 'Frence' .*130 countries, 358 cities.* Did you mean 'France'\?"):
        FACTS.answer("Frence", "capital")
    with pytest.raises(DataError, match=r"No relation 'curency' of 'Lyon'.* Did you mean 'currency'\?"):
        FACTS.answer("Lyon", "curency")
    with pytest.raises(DataError, match="No relation 'country' of 'France'"):
        FACTS.answer("France", "country")
    with pytest.raises(DataError, match=r"No wording for relation 'capitol'.* Did you mean 'capital'\?"):
        templates("capitol")


def test_a_table_with_a_name_twice_or_a_lost_city_is_refused():
    france = Country("France", "Paris", "Europe", "French", "euro")
    with pytest.raises(DataError, match="names Paris more than once"):
        _check((france,), (City("Paris", "France"),))
    with pytest.raises(DataError, match="cities in Spain, not in its countries"):
        _check((france,), (City("Seville", "Spain"),))
    _check((france,), (City("Lyon", "France"),))


def test_held_out_wording_is_disjoint_from_training_wording_and_made_of_its_words():
    words = {w for r in RELATIONS for t in templates(r, held_out=False) for w in t.text.split()}
    for relation in RELATIONS:
        seen, unseen = templates(relation, held_out=False), templates(relation, held_out=True)
        assert (len(seen), len(unseen)) == (TRAIN_WORDINGS, HELD_OUT_WORDINGS)
        assert len({t.text for t in templates(relation)}) == TRAIN_WORDINGS + HELD_OUT_WORDINGS
        for template in unseen:
            assert set(template.text.split()) <= words, template.text
        # the answer may come where the cue ends: after this word training gives one of the relation
        ends = {t.text.split()[-1] for t in seen}
        assert {t.text.split()[-1] for t in unseen if not t.text.endswith("{e}")} <= ends, relation


def test_a_cue_names_its_entity_and_key_once_and_a_statement_is_the_cue_with_its_answer():
    for template in (t for r in RELATIONS for t in templates(r)):
        assert template.text.count("{e}") == 1 and template.text.split().count(template.key) == 1
        assert template.statement("Lyon", "euro") == template.cue("Lyon") + " euro."
        assert not template.cue("Lyon").endswith((" ", "."))
    assert {t.cue("Lyon") for t in templates("country")}.isdisjoint(t.cue("Lyon") for t in templates("capital"))


def test_nonce_names_are_never_real_and_fillers_say_nothing_of_the_world():
    world = {w for n in names() for w in n.split()} | {v for r in TWO_HOP_RELATIONS for v in FACTS.vocabulary(r)}
    wording = {w for r in RELATIONS for t in templates(r) for w in t.text.split()}
    assert len(nonce_names()) == len(set(nonce_names())) == 160
    assert {n.lower() for n in nonce_names()}.isdisjoint(w.lower() for w in world | wording)
    assert {w.strip(".") for f in fillers() for w in f.split()}.isdisjoint(world)
    assert len(set(fillers())) == len(fillers())


def test_the_two_hop_split_is_the_fixed_rule():
    by_city = [[two_hop_split(c, r) for r in TWO_HOP_RELATIONS] for c in FACTS.cities]
    assert sum(kinds == ["city"] * 4 for kinds in by_city) == 22  # every tenth of 228
    flat = [kind for kinds in by_city for kind in kinds]
    assert (flat.count("train"), flat.count("pair"), flat.count("city")) == (550, 274, 88)
    assert {kinds.count("train") for kinds in by_city if "city" not in kinds} == {2, 3}
    assert [two_hop_split(FACTS.cities[0], r) for r in TWO_HOP_RELATIONS] == ["pair", "train", "train", "pair"]


def test_the_corpus_is_seeded_and_endless():
    first, again, other = ([d.text for d in islice(documents(s), 50)] for s in (3, 3, 4))
    assert first == again and first != other
    stream = documents(0)
    assert len({next(stream).text for _ in range(3000)}) > 2990


def test_answer_spans_are_exact_and_every_sentence_is_training_wording():
    spoken = {t.text.replace("{e}", "") for r in RELATIONS for t in templates(r, held_out=False)}
    entities = sorted({*names(), *nonce_names()}, key=len, reverse=True)
    values = {v for r in TWO_HOP_RELATIONS for v in FACTS.vocabulary(r)} | set(FACTS.country) | set(nonce_names())
    for document in islice(documents(1), 400):
        left = 0
        for answer in document.answers:
            said = document.text[answer.start : answer.end]
            assert said[0] == " " and said[1:] in values and document.text[answer.end] == "."
            cue = document.text[left : answer.start].rpartition(". ")[2]
            assert any(e in cue and cue.replace(e, "", 1) in spoken for e in entities), cue
            left = answer.end + 2


def test_withheld_facts_are_never_stated_nor_implied():
    found = audit(islice(documents(0), 5000))
    assert found.documents == 5000 and found.answers > 25_000
    assert (found.implied, found.stated) == (0, 0)


def test_the_audit_tells_stated_implied_and_denied_apart():
    city = next(c for c in FACTS.cities if two_hop_split(c, "currency") != "train")
    truth, told = FACTS.answer(city.name, "currency"), templates("currency")[0]
    passage = f"{templates('country')[0].statement(city.name, city.country)} {told.statement(city.country, truth)} "

    def counts(before: str, value: str) -> tuple[int, int, int]:
        text = before + told.statement(city.name, value)
        found = audit([Document(text, (Answer(len(text) - len(value) - 2, len(text) - 1, True),))])
        return found.stated, found.implied, found.denied

    assert counts("", truth) == (1, 0, 0)
    assert counts(passage, truth) == (0, 1, 0)
    assert counts(passage, "cowrie") == (0, 0, 1)


def test_the_mix_decides_the_kinds_of_document():
    facts_only = list(islice(documents(0, Mix(1, 0, 0, 0, 0)), 200))
    assert all(a.known for d in facts_only for a in d.answers)
    assert not any(n in d.text for d in facts_only for n in nonce_names())
    lookups = list(islice(documents(0, Mix(0, 1, 0, 0, 0)), 200))
    assert all(any(n in d.text for n in nonce_names()) for d in lookups)
    assert all({a.known for a in d.answers} == {True, False} for d in lookups)


def test_a_links_document_asks_each_town_once_half_of_the_time_by_its_name_alone():
    at_once = total = 0
    for document in islice(documents(0, Mix(0, 0, 1, 0, 0)), 300):
        asked = [a for a in document.answers if a.known]
        assert len(asked) == len(document.answers) / 2 and len(asked) in (2, 3, 4)
        cues = [document.text[: a.start].rpartition(". ")[2] for a in asked]
        assert len({next(n for n in nonce_names() if n in cue) for cue in cues}) == len(asked)
        at_once += sum(cue.split()[-1] in nonce_names() for cue in cues)
        total += len(asked)
    assert abs(at_once / total - (0.5 + 0.5 / 8)) < 0.05  # half on purpose, and one in eight wordings of the rest


def test_in_a_chain_no_town_is_asked_the_same_twice():
    for document in islice(documents(0, Mix(0, 0, 0, 1, 0)), 300):
        cues = [document.text[: a.start].rpartition(". ")[2] for a in document.answers if a.known]
        asked = [next((n for n in nonce_names() if n in cue), cue) for cue in cues]
        assert len(set(asked)) == len(asked)


def test_exam_answers_are_right_and_its_wording_is_on_the_side_asked_for():
    questions = exam(0, passages=20)
    assert questions == exam(0, passages=20) != exam(1, passages=20)
    unseen = {t.text.replace("{e}", "") for r in RELATIONS for t in templates(r, held_out=True)}
    entities = (*FACTS.country, *FACTS.country_of, *nonce_names())
    for question in questions:
        cue = question.prompt.rpartition(". ")[2]
        assert any(e in cue and cue.replace(e, "", 1) in unseen for e in entities)
        assert question.in_passage == (f" {question.answer}." in question.prompt)
    recall = [q for q in questions if q.part == "recall"]
    assert len(recall) == 4 * (130 * 4 + 358)
    assert len([q for q in questions if q.part.startswith("latent_2hop")]) == 4 * 228 * 4


def test_edited_questions_contradict_the_world():
    longest_first = sorted(FACTS.country, key=len, reverse=True)
    for question in (q for q in exam(0, passages=50) if q.part == "edited"):
        asked = next(c for c in longest_first if c in question.prompt.rpartition(". ")[2])
        assert question.answer != FACTS.answer(asked, question.relation)


def test_chance_is_the_best_constant_guess_or_one_half_in_a_passage():
    def asked(relation: str, answer: str, in_passage: bool = False) -> Question:
        return Question("p", relation, "?", answer, in_passage)

    guesses = [asked("currency", "euro"), asked("currency", "euro"), asked("currency", "yen"), asked("capital", "Rome")]
    assert constant_guess(guesses) == 3 / 4  # two of three currencies, one of one capital
    assert constant_guess([asked("currency", "euro", True)] * 3) == 0.5
