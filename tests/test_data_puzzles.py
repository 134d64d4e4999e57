"""Puzzles: four cells alike in all but the task, minimal counterfactuals, exact positions, for two tokenizers."""

import re
from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from microtome.core.errors import DataError
from microtome.data.atlas import RELATIONS, TWO_HOP_RELATIONS, load_facts, nonce_names, templates
from microtome.data.puzzles import SKELETONS, Cell, Variant, make_puzzles, pairs_of, paper_pairs, split_puzzles
from microtome.data.puzzles.paper import CONFOUNDS, PAPER_PAIRS
from microtome.data.puzzles.tokens import Vocabulary
from microtome.training.atlas import atlas_tokenizer

FACTS = load_facts()


def other_tokenizer(end: bool = False) -> PreTrainedTokenizerFast:
    """A smaller BPE learnt on running text, no space before the first word, `<bos>` in front (and perhaps `<eos>`)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<bos>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    facts = [f"{c.name} {c.capital} {c.continent} {c.language} {c.currency}" for c in FACTS.countries]
    core.train_from_iterator([*facts, *(t.text for r in RELATIONS for t in templates(r))], trainer)
    single = "<bos> $A <eos>" if end else "<bos> $A"
    core.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<bos>", 0), ("<eos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core)


TOKENIZERS = {"atlas": atlas_tokenizer(), "other": other_tokenizer()}
both = pytest.mark.parametrize("name", TOKENIZERS)


def encoder(name: str):
    return lambda text: TOKENIZERS[name](text)["input_ids"]


def groups(puzzles):
    """The puzzles of each item and skeleton."""
    return [list(g) for _, g in groupby(puzzles, key=lambda p: (p.item, p.skeleton))]


def check_laws(puzzles, name: str) -> None:
    """What is true of every set of puzzles with all four cells."""
    tokenizer = TOKENIZERS[name]
    for cells in groups(puzzles):
        assert [p.cell for p in cells] == list(Cell)
        # In `contradict` reading gives what recalling would give of the other entity.
        assert len({frozenset((p.answer, p.cf_answer)) for p in cells}) == 1
        swapped = cells[0].variant is Variant.CONTRADICT
        assert {p.answer for p in cells if p.cell.in_context} == {cells[0].cf_answer if swapped else cells[0].answer}
        assert len({len(ids) for p in cells for ids in (p.ids, p.cf_ids)}) == 1
        assert len({(p.skeleton, p.relation, p.pair, p.held_out_wording) for p in cells}) == 1
    for p in puzzles:
        assert list(p.ids) == tokenizer(p.prompt)["input_ids"]
        assert list(p.cf_ids) == tokenizer(p.counterfactual)["input_ids"]
        assert [*p.ids, *p.answer_ids] == tokenizer(f"{p.prompt} {p.answer}")["input_ids"]
        assert [*p.cf_ids, *p.cf_answer_ids] == tokenizer(f"{p.counterfactual} {p.cf_answer}")["input_ids"]
        assert p.answer_ids[0] != p.cf_answer_ids[0]
        changed = tuple(i for i, (a, b) in enumerate(zip(p.ids, p.cf_ids, strict=True)) if a != b)
        assert p.changed == changed and changed and set(changed) <= set(p.positions["entity"])
        assert p.prompt.rpartition(". ")[2].replace(p.entity, p.cf_entity) == p.counterfactual.rpartition(". ")[2]


def spoken(p, role: str, name: str) -> str:
    """The text at the positions of a class."""
    return TOKENIZERS[name].decode([p.ids[i] for i in p.positions[role]]).strip()


@both
@pytest.mark.parametrize("variant", list(Variant))
def test_the_four_cells_share_answers_skeleton_and_token_count(name, variant):
    puzzles = make_puzzles(encoder(name), items=6, variant=variant)
    assert len(puzzles) == 6 * len(SKELETONS) * len(Cell)
    check_laws(puzzles, name)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), variant=st.sampled_from(list(Variant)), name=st.sampled_from(list(TOKENIZERS)))
def test_the_laws_hold_for_any_seed(seed, variant, name):
    puzzles = make_puzzles(encoder(name), items=4, skeletons=SKELETONS[6:10], variant=variant, seed=seed)
    check_laws(puzzles, name)
    if variant is not Variant.SHARED:
        assert all(p.answer_in_prompt == p.cell.in_context for p in puzzles)


def test_the_tokenizers_of_these_tests_differ():
    text = "Shops in Kyoto take the yen"
    pieces = [t.convert_ids_to_tokens(t(text)["input_ids"]) for t in TOKENIZERS.values()]
    assert pieces[0][1] != pieces[1][1] and len(pieces[0]) < len(pieces[1])


@both
def test_an_item_asks_about_the_right_entity_in_every_cell(name):
    for p in make_puzzles(encoder(name), items=12, skeletons=SKELETONS[:2]):
        country, cf_country = (c.replace("_", " ") for c in p.item.split("/")[0].split("-"))
        assert (FACTS.answer(country, p.relation), FACTS.answer(cf_country, p.relation)) == (p.answer, p.cf_answer)
        if p.cell is Cell.RECALL:
            assert (p.entity, p.cf_entity) == (country, cf_country)
        elif p.cell is Cell.LATENT_2HOP:
            assert (FACTS.country_of[p.entity], FACTS.country_of[p.cf_entity]) == (country, cf_country)
            assert p.two_hop in ("train", "pair", "city")
        else:
            assert {p.entity, p.cf_entity} <= set(nonce_names()) and p.recalled is None


@both
@pytest.mark.parametrize("variant", list(Variant))
def test_positions_are_where_the_words_are(name, variant):
    for p in make_puzzles(encoder(name), items=5, variant=variant):
        wording = next(s for s in SKELETONS if s.name == p.skeleton).question(p.relation)
        assert spoken(p, "entity", name) == p.entity
        assert spoken(p, "relation", name) == wording.key
        assert p.positions["entity_last"] == p.positions["entity"][-1:]
        assert p.positions["last"] == (len(p.ids) - 1,)
        if p.cell.in_context:
            assert spoken(p, "fact_answer", name) == p.answer
            assert {spoken(p, "fact_answer", name), spoken(p, "cf_fact_answer", name)} == {p.answer, p.cf_answer}
        elif variant is not Variant.SHARED:
            assert set(p.positions) == {"entity", "entity_last", "relation", "last"}
        if p.cell is Cell.CONTEXT_2HOP:
            assert spoken(p, "link_entity", name) == p.entity
            assert spoken(p, "link_answer", name) == spoken(p, "fact_entity", name)
            assert spoken(p, "cf_link_entity", name) == p.cf_entity
        elif p.cell is Cell.LOOKUP:
            assert spoken(p, "fact_entity", name) == p.entity and spoken(p, "cf_fact_entity", name) == p.cf_entity


@both
def test_what_a_reader_says_follows_from_the_passage_alone(name):
    for variant in (Variant.NONCE, Variant.REAL, Variant.CONTRADICT):
        for p in make_puzzles(encoder(name), items=4, cells=["lookup", "context_2hop"], variant=variant):
            for entity, answer in ((p.entity, p.answer), (p.cf_entity, p.cf_answer)):
                assert read(p.prompt, entity, p.relation) == answer


def read(prompt: str, entity: str, relation: str) -> str:
    """Answer from the passage by its sentences, hop by hop; an independent reader."""
    passage = prompt.rpartition(". ")[0] + "."

    def look_up(about: str, what: str) -> str | None:
        cues = (re.escape(t.cue(about)) for t in templates(what))
        found = [m for cue in cues for m in re.findall(rf"(?:^|\. ){cue} ([^.]+)\.", passage)]
        return found[0] if found else None

    return look_up(entity, relation) or look_up(look_up(entity, "country"), relation)


def test_contradict_swaps_what_is_read_and_keeps_what_is_recalled():
    options = dict(items=6, skeletons=SKELETONS[:3])
    real = make_puzzles(encoder("atlas"), variant="real", **options)
    swapped = make_puzzles(encoder("atlas"), variant="contradict", **options)
    for a, b in zip(real, swapped, strict=True):
        assert (a.item, a.cell, a.entity) == (b.item, b.cell, b.entity)
        assert a.recalled == b.recalled == FACTS.answer(b.entity, b.relation)
        if b.cell.in_context:
            assert (b.answer, b.cf_answer) == (a.cf_answer, a.answer) and b.answer != b.recalled
        else:
            assert (b.answer, b.cf_answer) == (a.answer, a.cf_answer) and b.answer == b.recalled


def test_shared_shows_the_whole_passage_in_every_cell():
    for cells in groups(make_puzzles(encoder("atlas"), items=4, variant="shared")):
        assert len({p.prompt.rpartition(". ")[0] for p in cells}) == 1
        assert all(p.answer_in_prompt for p in cells)


def test_no_answer_stands_inside_a_name():
    puzzles = make_puzzles(encoder("atlas"), items=None, skeletons=SKELETONS[:1], relations=["continent"])
    countries = {country for p in puzzles for country in p.pair.split("-")}
    assert "South_Africa" not in countries and len(countries) > 70  # "South Africa" says "Africa"
    capitals = make_puzzles(encoder("atlas"), items=None, skeletons=SKELETONS[:1], relations=["capital"])
    assert "South_Africa" in {country for p in capitals for country in p.pair.split("-")}


def test_same_seed_same_puzzles_and_the_choice_of_cells_changes_nothing_else():
    first = make_puzzles(encoder("atlas"), items=5, seed=7)
    assert first == make_puzzles(encoder("atlas"), items=5, seed=7)
    assert first != make_puzzles(encoder("atlas"), items=5, seed=8)
    assert first[: len(first) * 3 // 5] == make_puzzles(encoder("atlas"), items=3, seed=7)
    lookups = make_puzzles(encoder("atlas"), items=5, cells=["lookup"], seed=7)
    assert [p for p in first if p.cell is Cell.LOOKUP] == lookups


def test_a_split_keeps_pairs_whole_and_skeletons_apart():
    puzzles = make_puzzles(encoder("atlas"), items=60, skeletons=SKELETONS[6:10])
    split = split_puzzles(puzzles)
    pairs = [{p.pair for p in side} for side in split]
    assert pairs[0].isdisjoint(pairs[1]) and pairs[2] == pairs[1]
    skeletons = [{p.skeleton for p in side} for side in split]
    assert skeletons == [{"s06", "s07"}, {"s06", "s07"}, {"s08", "s09"}]
    assert all(p.held_out_wording for p in split.unseen)
    countries = [{c for p in side for c in p.pair.split("-")} for side in split]
    assert countries[0].isdisjoint(countries[1])
    assert split == split_puzzles(puzzles) != split_puzzles(puzzles, seed=1)
    assert {p.skeleton for p in split_puzzles(puzzles, unseen=["s07"]).unseen} == {"s07"}


def test_a_split_that_cannot_be_is_refused():
    one = make_puzzles(encoder("atlas"), items=1)
    with pytest.raises(DataError, match=r"split 1 pairs of countries with share 0\.5; one side would have none"):
        split_puzzles(one)
    some = make_puzzles(encoder("atlas"), items=4, skeletons=SKELETONS[:2])
    with pytest.raises(DataError, match=r"No skeleton 's99' in these puzzles; they have s00, s01\."):
        split_puzzles(some, unseen=["s99"])
    with pytest.raises(DataError, match="no skeleton is left for discovery"):
        split_puzzles(some, unseen=["s00", "s01"])


def test_too_few_items_say_how_many_fit_and_why_others_do_not():
    with pytest.raises(DataError) as raised:
        make_puzzles(encoder("atlas"), items=1000, skeletons=SKELETONS[:1])
    said = str(raised.value)
    found = re.match(r"Asked for 1000 puzzle items, found (\d+) that fit this tokenizer \((\d+) pairs of", said)
    fit, pairs = int(found.group(1)), int(found.group(2))
    assert f"x 4 relations x 2 directions = {8 * pairs} candidates" in said
    refused = re.search(r"refused: (.*)\);", said).group(1)
    assert fit + sum(int(n) for n in re.findall(r"\d+", refused)) == 8 * pairs
    assert "same answer" in refused and said.endswith(f"ask for at most {fit}.") and "\n" not in said
    assert len(make_puzzles(encoder("atlas"), items=fit, skeletons=SKELETONS[:1])) == 4 * fit


def test_a_tokenizer_that_ends_texts_and_unknown_names_are_refused():
    ending = other_tokenizer(end=True)
    with pytest.raises(DataError, match="pass an `encode` that adds no token at the end"):
        make_puzzles(lambda text: ending(text)["input_ids"], items=1)
    with pytest.raises(DataError, match=r"No puzzle relation 'curency'.*Did you mean 'currency'\?"):
        make_puzzles(encoder("atlas"), relations=["curency"])
    with pytest.raises(DataError, match=r"No puzzle cell 'recal'.*Did you mean 'recall'\?"):
        make_puzzles(encoder("atlas"), cells=["recal"])
    with pytest.raises(DataError, match="No puzzle variant 'fake'; there are nonce, shared, real, contradict"):
        make_puzzles(encoder("atlas"), variant="fake")


@both
def test_spans_and_lengths_of_a_vocabulary_are_those_of_the_whole_text(name):
    vocabulary = Vocabulary(encoder(name))
    text = "Shops in Costa Rica take the colon."
    for first in (True, False):
        start, end = vocabulary.span(text, 9, 19, first=first)
        assert TOKENIZERS[name].decode(vocabulary.sentence(text, first)[start:end]).strip() == "Costa Rica"
    # Inside a word no token boundary falls: no span rather than a wrong one.
    assert vocabulary.span(text, 1, 3) is None


def test_puzzles_as_pairs_keep_prompts_labels_and_groups():
    puzzles = make_puzzles(encoder("other"), items=3)
    pairs = pairs_of(puzzles).require_equal_length(encoder("other"))
    assert len(pairs) == len(puzzles)
    for pair, p in zip(pairs, puzzles, strict=True):
        assert (pair.base, pair.source, pair.kind) == (p.prompt, p.counterfactual, "cause")
        assert (pair.base_label, pair.cf_label, pair.gap) == (p.answer, p.cf_answer, " ")
        assert pair.groups == {"entity": p.pair, "template": p.skeleton, "cell": str(p.cell)}
    with pytest.raises(DataError, match="found none"):
        pairs_of([])


def test_the_papers_prompts_are_thirty_true_seeded_triples():
    pairs = paper_pairs()
    assert len(pairs) == PAPER_PAIRS == 30 and len({p.country for p in pairs}) == 30
    assert pairs == paper_pairs() != paper_pairs(seed=1)
    for p in pairs:
        assert (FACTS.answer(p.country, "capital"), FACTS.answer(p.country, "continent")) == (p.capital, p.continent)
    france = next(p for p in paper_pairs(130) if p.country == "France")
    assert france.recall == "What is the capital of France?"
    assert france.reasoning == "If X is the capital of France and France is in Europe, what continent is X in?"
    with pytest.raises(DataError, match="Asked for 131 pairs of prompts; the table has 130 countries"):
        paper_pairs(131)


def test_the_papers_prompts_have_every_confound_that_is_named():
    pairs = paper_pairs()
    assert len(CONFOUNDS) == 4
    assert len({p.recall.replace(p.country, "") for p in pairs}) == 1  # task is template
    assert all(p.continent in p.reasoning and p.capital not in p.reasoning for p in pairs)  # the answer is copied
    assert not {p.capital for p in pairs} & {p.continent for p in pairs} and len({p.continent for p in pairs}) <= 6
    for encode in (encoder("atlas"), encoder("other")):
        assert all(len(encode(p.reasoning)) > 2 * len(encode(p.recall)) for p in pairs)


def test_our_factorial_has_none_of_these_confounds():
    puzzles = make_puzzles(encoder("atlas"), items=8)
    by_cell = {cell: [p for p in puzzles if p.cell is cell] for cell in Cell}
    assert len({tuple(sorted((p.skeleton, len(p.ids)) for p in some)) for some in by_cell.values()}) == 1
    assert len({tuple(sorted(p.answer for p in some)) for some in by_cell.values()}) == 1
    assert {p.relation for p in puzzles} == set(TWO_HOP_RELATIONS)
