"""RAVEL's tables: defects found and mended, what entails what, answers matched, pairs drawn without leaks."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64
from microtome.core.errors import DataError
from microtome.data.atlas import load_facts, templates
from microtome.data.ravel import (
    POOLS,
    SIDES,
    Entity,
    EntityTable,
    Planted,
    Rule,
    Template,
    WikiPrompt,
    atlas_tables,
    build_instance,
    cap,
    cleaned,
    draw_pairs,
    entailment,
    fill,
    find_defects,
    gold_instance,
    keep_best,
    last_token,
    match,
    pairs_from_ravel,
    prompts,
    retarget,
    rules_for,
    spans,
    synthetic_table,
)
from microtome.data.ravel.synthetic import assign_splits
from microtome.data.ravel.zones import offset_in, zone_offset

WORLD = [Planted("Color", 4), Planted("Shape", 3), Planted("Tone", 2, follows="Color")]


def world(**sizes) -> EntityTable:
    return synthetic_table(WORLD, **({"entities": 48, "templates": 6, "wikipedia": 12} | sizes))


def spoilt() -> EntityTable:
    """A table with one defect of every kind."""
    made = world(entities=90)
    named = [e.name for e in made.entities]
    entities = [replace(e, values=dict(e.values) | {"Kind": "thing", "Rank": "1"}) for e in made.entities]
    entities[0].values["Kind"] = ""
    entities[1].values["Kind"] = "things"
    entities[2].values["Kind"] = "Thing "
    entities.append(replace(entities[3], name=named[3].upper()))
    extra = (
        Template('"dimond": "thing"; "%s": "', "Kind", "train"),
        Template('"diamond": "thing"; "%s": "', "Kind", "test"),
        Template(f"{named[5]} is a thing, {named[5]}s are not; %s is a", "Kind", "test"),
        Template("The gender of %s is", "Gender", "train"),
    )
    lost = WikiPrompt("Nobody met %s there", "Nobody", "train")
    return EntityTable("city", tuple(entities), (*made.templates, *extra), (*made.wikipedia, lost))


# Defects and views


def test_every_defect_is_found_and_mended_once():
    made = spoilt()
    report, mended = find_defects(made), cleaned(made)
    assert report.counts == {
        "empty value": 1,
        "variant value": 2,
        "twin entity": 1,
        "typo": 1,
        "repeated template": 1,
        "no values": 1,
        "no templates": 1,
        "lost prompt": 1,
        "exemplar": 1,
        "imbalance": len(report.of("imbalance")),
    }
    assert {"Kind", "Rank"} <= {d.where for d in report.of("imbalance")}
    assert report.of("exemplar")[0].found == made.entities[5].name
    assert set(find_defects(mended).counts) == {"no templates", "exemplar", "imbalance"}
    assert len(mended.entities) == len(made.entities) - 2 and set(mended.column("Kind")) == {"thing"}
    assert cleaned(mended) == mended


def test_a_clean_table_has_no_defects_and_is_left_alone():
    assert find_defects(world()).counts == {} and cleaned(world()) == world()


def test_balance_is_the_majority_and_the_chance_of_a_coincidence():
    made = EntityTable(
        "t",
        tuple(Entity(n, {"A": v}, "train") for n, v in zip("abcd", "xxxy", strict=True)),
        (Template("%s is", "A", "train"),),
    )
    (spread,) = find_defects(made).balance
    assert (spread.distinct, spread.majority, spread.share, spread.collision) == (2, "x", 0.75, 0.625)


def test_plurals_are_one_value_among_classes_only():
    values = ["hill"] * 3 + ["hills"] * 2
    few = tuple(Entity(f"e{i}", {"A": v}, "train") for i, v in enumerate(values))
    made = EntityTable("t", few, (Template("%s is", "A", "train"),))
    assert set(cleaned(made).column("A")) == {"hill", "hills"}
    many = tuple(Entity(f"e{i}", {"A": v}, "train") for i, v in enumerate(values * 10))
    assert set(cleaned(replace(made, entities=many)).column("A")) == {"hill"}


# Entailment


@pytest.mark.parametrize("seed", range(3))
def test_planted_dependence_is_measured(seed):
    attributes = [
        Planted("A", 4),
        Planted("free", 4),
        Planted("loose", 4, follows="A", strength=0.6),
        Planted("fixed", 2, follows="A"),
    ]
    found = entailment(synthetic_table(attributes, entities=800, seed=seed))
    assert found.of("A", "fixed").ratio < FLOAT64 and found.of("A", "fixed").verdict == "determined"
    assert found.of("A", "fixed").held == 0 and not found.of("A", "fixed").possible
    assert found.of("fixed", "A").verdict == "free" and found.of("fixed", "A").possible
    assert abs(found.of("fixed", "A").ratio - 0.5) < 0.05  # two of A's four equal values to each of fixed's
    assert found.of("A", "free").ratio > 0.95 and found.of("A", "free").possible
    assert 0.3 < found.of("A", "loose").ratio < 0.9
    assert abs(found.collision["A"] - 0.25) < FLOAT64
    for pair in found:
        assert pair.null > 0.95


def test_an_attribute_that_names_the_entity_leaves_the_question_open():
    found = entailment(synthetic_table([Planted("name", 60), Planted("A", 2)], entities=60))
    assert found.of("name", "A").verdict == "unresolved" and not found.of("name", "A").possible
    assert found.of("A", "name").verdict == "free"
    made = world()
    same = tuple(replace(e, values=dict(e.values) | {"Shape": "one"}) for e in made.entities)
    assert entailment(replace(made, entities=same)).of("Color", "Shape").verdict == "constant"
    with pytest.raises(DataError, match="No pair of attributes 'A', 'A'; use two different ones of name, A"):
        found.of("A", "A")


# Matching

COUNTRY = Rule(values=("Niger", "Nigeria", "South Korea", "South Africa", "United States", "Côte d'Ivoire", "Denmark"))
LANGUAGE = Rule(values=("English", "English,Maori", "Spanish"))
DEGREES, ZONE = Rule("degrees", 2.0), Rule("zone", 1.0)


@pytest.mark.parametrize(
    ("rule", "completion", "label", "reason", "said"),
    [
        (COUNTRY, ' Denmark", "x', "Denmark", "exact", "Denmark"),
        (COUNTRY, ' "denmark"', "Denmark", "exact", "denmark"),
        (COUNTRY, " Denmark. It has", "Denmark", "begins", "Denmark"),
        (COUNTRY, " Cote d'Ivoire,", "Côte d'Ivoire", "begins", "Cote d'Ivoire"),
        (COUNTRY, " Den", "Denmark", "cut off", "Den"),
        (COUNTRY, " the United States of", "United States", "alias", "the United States"),
        (COUNTRY, " USA\n", "United States", "alias", "USA"),
        (LANGUAGE, "Maori", "English,Maori", "one of several", "Maori"),
        (LANGUAGE, "English, Maori", "English,Maori", "exact", "English, Maori"),
        (DEGREES, "57.05° N", "57", "within degrees", "57.05° N"),
        (DEGREES, "33.9° S", "-34", "within degrees", "33.9° S"),
        (DEGREES, "-179", "180", "within degrees", "-179"),
        (DEGREES, "45 west", "-44", "within degrees", "45 west"),
        (ZONE, "Europe/Copenhagen", "Europe/Copenhagen", "exact", "Europe/Copenhagen"),
        (ZONE, "UTC+02:00", "Europe/Copenhagen", "offset", "UTC+02:00"),
        (ZONE, "+05:30", "Asia/Kolkata", "offset", "+05:30"),
        (ZONE, "CET", "Europe/Copenhagen", "offset", "CET"),
    ],
)
def test_answers_that_say_the_label_are_kept(rule, completion, label, reason, said):
    assert match(rule, completion, label) == (True, reason, said)


@pytest.mark.parametrize(
    ("rule", "completion", "label", "reason"),
    [
        (COUNTRY, " Nigeria", "Niger", "different"),
        (COUNTRY, ' Niger"', "Nigeria", "different"),
        (COUNTRY, " Niger", "Nigeria", "ambiguous"),
        (COUNTRY, " South", "South Korea", "ambiguous"),
        (COUNTRY, " De", "Denmark", "different"),
        (COUNTRY, ' Den"', "Denmark", "different"),
        (COUNTRY, ' "\n', "Denmark", "empty"),
        (COUNTRY, " Denmark", "", "no label"),
        (COUNTRY, " Guinea-Bissau", "Guinea", "different"),
        (LANGUAGE, "Spanish", "English,Maori", "different"),
        (DEGREES, "54.9", "57", "different"),
        (DEGREES, "33.9° N", "-34", "different"),
        (DEGREES, "unknown", "57", "no number"),
        (ZONE, "UTC+3", "Europe/Copenhagen", "different"),
        (ZONE, "Europe/Paris", "Europe/Copenhagen", "different"),
    ],
)
def test_answers_that_do_not_are_not(rule, completion, label, reason):
    found = match(rule, completion, label)
    assert (found.kept, found.reason) == (False, reason)


@given(st.text(max_size=12), st.text(min_size=1, max_size=8))
def test_matching_never_fails_and_says_a_part_of_the_completion(completion, label):
    for rule in (COUNTRY, DEGREES):
        found = match(rule, completion, label)
        assert found.said in completion and (found.said or not found.kept)


def test_offsets_are_those_of_one_fixed_day():
    # New York keeps summer time: whatever today is, the offset is January's.
    assert (zone_offset("America/New_York"), zone_offset("Asia/Kolkata"), zone_offset("UTC")) == (-5.0, 5.5, 0.0)
    assert [offset_in(t) for t in ("UTC+7", "−03:30", "GMT -3", "Z", "ESTONIA", "7")] == [7, -3.5, -3, 0, None, None]
    with pytest.raises(DataError, match="No time zone 'Mars/Base' on this machine; use a name of the tz database"):
        zone_offset("Mars/Base")


def test_rules_follow_the_names_of_attributes():
    values = {"Latitude": "1", "Longitude": "2", "Timezone": "UTC", "Country": "Chad"}
    made = EntityTable("city", (Entity("x", values, "train"),), (Template("%s", "Country", "train"),))
    assert [rules_for(made)[a].kind for a in values] == ["degrees", "degrees", "zone", "text"]


# Prompts


@given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=10))
def test_the_span_is_where_the_entity_stands(before, after, entity):
    if "%s" not in (before + "x" + after) and not before.endswith("%"):
        text, (start, end) = fill(f"{before}%s{after}", entity)
        assert text == before + entity + after and text[start:end] == entity == text[len(before) : end]


def test_the_last_token_holds_the_entitys_last_character():
    _, span = fill("In %s, yes", "Oslo")  # characters 3 to 6
    assert last_token([(0, 0), (0, 2), (2, 5), (5, 7), (7, 8), (8, 12)], span) == 3
    assert last_token([(0, 2), (2, 8), (8, 12)], span) == 1  # a token that goes on past the name
    with pytest.raises(DataError, match="No token holds character 6 of the prompt"):
        last_token([(0, 2), (2, 5)], span)


def test_prompts_are_every_template_about_every_entity_or_a_seeded_draw():
    made = world()
    everything = list(prompts(made))
    assert len(everything) == len({p.text for p in everything}) == 18 * 48
    assert all(p.text[slice(*p.span)] == p.entity for p in everything)
    some = list(prompts(made, attribute="Color", splits=("train",), per_template=3))
    assert len(some) == 3 * len(made.templates_in("train", attribute="Color"))
    assert some == list(prompts(made, attribute="Color", splits=("train",), per_template=3))
    assert some != list(prompts(made, attribute="Color", splits=("train",), per_template=3, seed=1))
    with pytest.raises(DataError, match=r"No attribute 'Colour' in 'synthetic', .* Did you mean 'Color'\?"):
        list(prompts(made, attribute="Colour"))


# Instances


def said(made: EntityTable, known=lambda p: True) -> dict:
    """Completions by a model that knows what `known` says, and else says something else."""
    return {
        (p.template, p.entity): f" {made.value(p.entity, p.attribute)}." if known(p) else " nothing"
        for p in prompts(made)
    }


def test_an_instance_keeps_what_the_model_knows_and_says_why():
    made = world()
    ignorant = {e.name for e in made.entities[:10]}
    instance = build_instance(made, said(made, lambda p: p.entity not in ignorant))
    assert instance.reasons == {"different": 18 * 10, "begins": 18 * 38}
    template = made.templates[0]
    assert instance.answer(template, made.entities[0].name) is None
    answer = instance.answer(template, made.entities[20].name)
    assert (answer.gap, answer.label) == (" ", made.entities[20].values["Color"]) and answer.gold == answer.label
    for verdict in instance.verdicts:
        assert verdict.kept == (verdict.entity not in ignorant)


def test_the_models_words_become_the_label_with_what_stands_before_them():
    made = EntityTable(
        "city",
        (Entity("Aalborg", {"Country": "United States"}, "train"), Entity("Bergen", {"Country": "Norway"}, "train")),
        (Template("city: %s, country:", "Country", "train"), Template("Bergen, Norway; %s,", "Country", "train")),
    )
    (first, second), (a, b) = made.templates, ("Aalborg", "Bergen")
    asked = {
        (first.text, a): ' "USA", ',
        (first.text, b): " Norway",
        (second.text, a): " US",
        (second.text, b): " Norway",
    }
    instance = build_instance(made, asked)
    assert vars(instance.answer(first, a)) == {"label": "USA", "gap": ' "', "gold": "United States"}
    # The second template names Bergen among its examples: its answer could be copied.
    assert instance.answer(second, b) is None and instance.reasons["exemplar"] == 1
    assert gold_instance(made).answer(second, b) is None and gold_instance(made).answer(second, a) is not None


def test_instances_that_cannot_be_are_refused():
    made = world()
    with pytest.raises(DataError, match=r"None of 864 prompts about 'synthetic' is answered .*864 different"):
        build_instance(made, said(made, lambda p: False))
    with pytest.raises(DataError, match=r"None of 0 prompts .*nothing asked"):
        build_instance(made, {})
    with pytest.raises(DataError, match="A completion is for the entity 'Oslo', which 'synthetic' has not"):
        build_instance(made, {(made.templates[0].text, "Oslo"): "x"})
    with pytest.raises(DataError, match="A completion is for the template 'The %s'"):
        build_instance(made, {("The %s", made.entities[0].name): "x"})
    twice = replace(made, templates=(*made.templates, replace(made.templates[0], attribute="Shape")))
    with pytest.raises(DataError, match="stands twice, so a completion could be to either; use the cleaned view"):
        build_instance(twice, said(made))


def test_the_best_known_are_kept_in_every_split():
    made = world()
    ignorant = {e.name for split in ("train", "val", "test") for e in made.entities_in(split)[:6]}
    instance = build_instance(made, said(made, lambda p: p.entity not in ignorant))
    best = keep_best(instance, entities=24, templates=9)
    assert len(best.dropped) == 24 + 10  # of 12, 3 and 3 templates 6, 1 and 1 stay
    kept = [e for e in made.entities if e.name not in best.dropped]
    assert Counter(e.split for e in kept) == {"train": 12, "val": 6, "test": 6}
    assert not ignorant & {e.name for e in kept}
    assert all(best.answer(t, e.name) is None for t in made.templates if t.text in best.dropped for e in kept)
    with pytest.raises(DataError, match="build an instance first"):
        keep_best(gold_instance(made))


# Pairs


@pytest.mark.parametrize("side", SIDES)
def test_pairs_keep_to_their_side_and_say_what_the_table_says(side):
    made = world()
    drawn, power = draw_pairs(gold_instance(made), target="Color", side=side, bases=4, controls=1)
    where = side.split("-")
    t_split = where[1] if where[0] == "context" else "train"
    e_split = where[1] if where[0] == "entity" else "train"
    entities = {e.name for e in made.entities_in(e_split)}
    asked = {t.text: t.attribute for t in made.templates_in(t_split)}
    neutral = {w.text: w.entity for w in made.wikipedia_in(where[-1])}
    for p in drawn:
        g, attribute = p.groups, asked[p.groups["template"]]
        assert {g["entity"], g["source_entity"]} <= entities and g["cell"] == attribute
        assert p.base_label == made.value(g["entity"], attribute)
        assert p.cf_label == made.value(g["source_entity"], attribute)
        source = asked.get(g["source_template"])
        if g["pool"] == "other":
            assert neutral[g["source_template"]] in (None, g["source_entity"])
        else:
            assert g["pool"] != "output" or source == attribute
            assert g["pool"] != "causal" or source not in (None, attribute)
        if g["pool"] == "same":
            assert p.kind == "control" and p.base_label == p.cf_label and p.base != p.source
        else:
            assert p.kind == ("cause" if attribute == "Color" else "isolate") and p.base_label != p.cf_label
        (start, end), (s, e) = spans(p)
        assert p.base[start:end] == g["entity"] and p.source[s:e] == g["source_entity"]
    assert {p.groups["pool"] for p in drawn} == {*POOLS, "same"} and power.empty_pools == ()
    assert len({(p.base, p.source) for p in drawn}) == len(drawn) == sum(r.pairs for r in power.rows)


def test_no_entity_and_no_template_crosses_from_training_to_its_test():
    drawn = {side: draw_pairs(gold_instance(world()), target="Color", side=side).pairs for side in SIDES}

    def names(side: str, kind: str) -> set:
        return {p.groups[key] for p in drawn[side] for key in (kind, f"source_{kind}")}

    for side in ("entity-val", "entity-test"):
        assert not names("train", "entity") & names(side, "entity")
    for side in ("context-val", "context-test"):
        assert not names("train", "template") & names(side, "template")
    assert not names("entity-val", "entity") & names("entity-test", "entity")


def test_the_draw_is_seeded_and_does_not_depend_on_the_target():
    instance = gold_instance(world())
    color, shape = (draw_pairs(instance, target=t).pairs for t in ("Color", "Shape"))
    assert color == draw_pairs(instance, target="Color").pairs != draw_pairs(instance, target="Color", seed=1).pairs
    assert retarget(color, "Shape") == shape and retarget(shape, "Color") == color
    with pytest.raises(DataError, match=r"No pair asks for 'Shap'; .* Did you mean 'Shape'\?"):
        retarget(color, "Shap")


def test_rare_answers_are_drawn_more_often_than_they_occur():
    entities = tuple(Entity(f"n{i:03d}", {"A": "often" if i % 10 else "rare"}, "train") for i in range(400))
    made = EntityTable("t", entities, (Template("%s is", "A", "train"),))
    drawn = draw_pairs(gold_instance(made), target="A", bases=60, pools=("output",)).pairs
    share = sum(p.base_label == "rare" for p in drawn) / len(drawn)
    # By 1/(10 + count), one rare draw has the weight of (10 + 360)/(10 + 40) frequent ones: about 45 % against 10 %.
    assert 0.3 < share < 0.6


def test_coincidences_are_counted_and_never_drawn():
    # Two values, twelve entities each: a base meets 23 others, of which 11 agree with it.
    entities = tuple(Entity(f"n{i:02d}", {"A": "xy"[i % 2]}, "train") for i in range(24))
    made = EntityTable("t", entities, (Template("%s is", "A", "train"), Template("%s has", "A", "train")))
    pairs, power = draw_pairs(gold_instance(made), target="A", pools=("output",), bases=10)
    assert [(d.candidates, d.coincidences, d.known, d.bare) for d in power.drawings] == [(230, 110, 24, 0)] * 2
    assert power.coincidences == 220 and abs(power.rows[0].coincidences - 11 / 23) < FLOAT64
    assert all(p.base_label != p.cf_label for p in pairs) and len(pairs) == 20


def test_answers_that_say_the_same_or_mean_the_same_are_not_contrasted():
    entities = tuple(Entity(n, {"A": v}, "train") for n, v in zip("abcd", ("m", "m", "km", "cm"), strict=True))
    template = Template("%s measures", "A", "train")
    made = EntityTable("t", entities, (template,))
    completions = dict(zip("abcd", (" m", " meter", " km", " cm"), strict=True))
    instance = build_instance(made, {(template.text, e): c for e, c in completions.items()})
    drawn = draw_pairs(instance, target="A", pools=("output",), sources=30).pairs
    assert {(p.base_label, p.cf_label) for p in drawn} == {
        (a, b) for a, b in itertools.permutations(("m", "meter", "km", "cm"), 2) if {a, b} != {"m", "meter"}
    }


def test_power_says_how_narrow_an_interval_can_get():
    _, power = draw_pairs(gold_instance(world()), target="Color", side="entity-test", controls=2)
    for row in power.rows:
        # Half of 4 sqrt(.25/n) at the normal quantile 1.96.
        assert abs(row.narrowest - 0.98 / row.pairs**0.5) < FLOAT64 and row.widest >= row.narrowest
        assert 1 / row.answers <= row.majority <= 1
        assert (row.coincidences is None) == (row.kind == "control")
    assert all(row.known == 1 for row in power.rows if row.known is not None)


def test_a_cap_holds_for_every_attribute_and_keeps_controls():
    drawn = draw_pairs(gold_instance(world()), target="Color", controls=3).pairs
    capped = cap(drawn, cause=20, isolate=7)
    counts = Counter((p.kind, p.groups["cell"]) for p in capped)
    assert (counts["cause", "Color"], counts["isolate", "Shape"], counts["isolate", "Tone"]) == (20, 7, 7)
    assert sum(p.kind == "control" for p in capped) == sum(p.kind == "control" for p in drawn)
    assert capped == cap(drawn, cause=20, isolate=7) != cap(drawn, cause=20, isolate=7, seed=1)
    assert cap(drawn) == drawn


def test_pairs_that_cannot_be_drawn_are_refused():
    made = world()
    for asked, said_ in [
        (dict(target="Colr"), r"No attribute 'Colr' in 'synthetic'"),
        (dict(target="Color", side="entity"), r"No side 'entity'; there are train, entity-val"),
        (dict(target="Color", pools=("outputs",)), r"No pool 'outputs'; .* Did you mean 'output'\?"),
    ]:
        with pytest.raises(DataError, match=said_):
            draw_pairs(gold_instance(made), **asked)
    same = replace(made, entities=tuple(replace(e, values={"Color": "one"}) for e in made.entities))
    with pytest.raises(DataError, match=r"No pair survives on side 'train' for 'Color': .* of them with equal answers"):
        draw_pairs(gold_instance(same), target="Color")
    bare, power = draw_pairs(gold_instance(world(wikipedia=0)), target="Color")
    assert set(power.empty_pools) == {f"{a}/other" for a in made.attributes}
    assert {p.groups["pool"] for p in bare} == {"output", "causal"}
    with pytest.raises(DataError, match="The groups template and entity do not make up"):
        spans(replace(bare.pairs[0], base="else"))


# Synthetic tables


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 300), st.integers(4, 12), st.integers(0, 9))
def test_synthetic_tables_have_every_split_and_every_value(entities, wordings, seed):
    made = synthetic_table(
        [Planted("A", 4), Planted("B", 2, follows="A")], entities=entities, templates=wordings, seed=seed
    )
    assert len(made.entities) == len(made.entity) == entities and set(made.column("A")) == {f"A00{i}" for i in range(4)}
    assert len({(e.values["A"], e.values["B"]) for e in made.entities}) == 4
    for split in ("train", "val", "test"):
        assert made.entities_in(split) and made.templates_in(split, attribute="A")
    assert find_defects(made).of("exemplar") == ()


@pytest.mark.parametrize(
    ("attributes", "sizes", "said_"),
    [
        ([Planted("A", 2, follows="B")], {}, "Attribute 'A' follows 'B', which stands not before it; earlier are none"),
        ([Planted("A", 2), Planted("B", 3, follows="A")], {}, "Attribute 'B' has 3 values .* 2 to 2 values"),
        ([Planted("A", 1)], {}, "Attribute 'A' has 1 values"),
        ([Planted("A", 2, strength=2)], {}, "a strength in 0..1"),
        ([Planted("A", 2), Planted("A", 2)], {}, "give a name of its own"),
        ([], {}, "Asked for 20 entities, 0 attributes"),
        ([Planted("A", 2)], {"templates": 3}, "3 templates each; give 4 to"),
    ],
)
def test_impossible_worlds_are_refused(attributes, sizes, said_):
    with pytest.raises(DataError, match=said_):
        synthetic_table(attributes, **({"entities": 20} | sizes))
    with pytest.raises(DataError, match="Asked to split 2 names"):
        assign_splits(["a", "b"])


# The atlas's own facts


def test_the_atlas_is_two_tables_of_its_facts_in_its_own_wording():
    made, facts = atlas_tables(), load_facts()
    country, city = made["atlas_country"], made["atlas_city"]
    assert len(country.entities) == len(facts.countries) and len(city.entities) == len(facts.cities)
    assert country.asked == ("capital", "continent", "language", "currency")
    assert city.asked == ("country", *country.asked)
    assert country.value("France", "capital") == "Paris" and city.value("Lyon", "currency") == "euro"
    for table in made.values():
        for relation in table.asked:
            held_out = {t.text.replace("{e}", "%s") for t in templates(relation, held_out=True)}
            training = {t.text.replace("{e}", "%s") for t in templates(relation, held_out=False)}
            assert {t.text for t in table.templates_in("test", attribute=relation)} == held_out
            assert {t.text for t in table.templates_in(("train", "val"), attribute=relation)} == training
            assert len(table.templates_in("val", attribute=relation)) == 2
        assert find_defects(table).counts == {} and cleaned(table) == table
    assert atlas_tables(1)["atlas_city"] != city and atlas_tables(0)["atlas_city"] == city


def test_a_citys_country_tells_the_rest_and_a_continent_does_not():
    found = entailment(atlas_tables()["atlas_city"])
    for b in ("continent", "language", "currency"):
        assert found.of("country", b).verdict == "determined" and not found.of("country", b).possible
        assert found.of(b, "country").possible


def test_neutral_sentences_of_the_atlas_ask_for_nothing_and_do_not_cross():
    table = atlas_tables()["atlas_city"]
    cues = {t.text for t in table.templates}
    assert not cues & {w.text for w in table.wikipedia} and {w.split for w in table.wikipedia} == {
        "train",
        "val",
        "test",
    }
    beginnings = {s: {w.text.rpartition(". ")[2] for w in table.wikipedia_in(s)} for s in ("train", "val", "test")}
    for a, b in itertools.combinations(beginnings.values(), 2):
        assert a.isdisjoint(b)
    for side in SIDES:
        _, power = draw_pairs(gold_instance(table), target="language", side=side, bases=3)
        assert power.empty_pools == ()


# Records made by others

RECORD = dict(
    input="Paris is in France. Rome is in",
    label=" Italy",
    source_input="Oslo is a city in",
    source_label=" Norway",
    inv_label=" Norway",
    split="train",
    source_split="test",
    entity="Rome",
    source_entity="Oslo",
)


def test_a_ravel_record_is_a_pair_with_its_entity_and_template():
    made = pairs_from_ravel([RECORD, RECORD | {"inv_label": "Italy"}])
    (only,) = made.pairs
    assert made.same_answer == 1
    assert (only.base, only.source) == (RECORD["input"], RECORD["source_input"])
    assert (only.base_label, only.cf_label, only.gap) == ("Italy", "Norway", " ")
    assert only.groups["entity"] == "Rome" and only.groups["template"] == "Paris is in France. %s is in"
    assert (only.kind, only.groups["cell"], only.groups["source_entity"]) == ("cause", "recall", "Oslo")
    assert (only.groups["split"], only.groups["source_split"]) == ("train", "test")
    (isolate,) = pairs_from_ravel([RECORD], kind="isolate", cell="isolate").pairs
    assert (isolate.kind, isolate.groups["cell"]) == ("isolate", "isolate")


def test_the_last_mention_of_the_entity_is_the_question():
    record = RECORD | {"input": "Rome: Italy. Oslo: Norway. Rome:"}
    (only,) = pairs_from_ravel([record]).pairs
    assert only.groups["template"] == "Rome: Italy. Oslo: Norway. %s:"


@pytest.mark.parametrize(
    ("records", "said_"),
    [
        ([], "found none"),
        ([RECORD, RECORD | {"inv_label": None}], "Record 2 is not RAVEL-style: inv_label absent, empty or not a text"),
        ([{}], "Record 1 is not RAVEL-style: input, label, .* absent.*found no fields"),
        ([RECORD | {"label": 3}], "Record 1 is not RAVEL-style: label absent, empty or not a text"),
        ([RECORD | {"entity": "Milan"}], "Record 1 asks about 'Milan', which its input does not name"),
        ([RECORD | {"inv_label": " Italy"}], "All 1 records have label equal to inv_label"),
    ],
)
def test_records_that_are_not_ravel_style_are_refused(records, said_):
    with pytest.raises(DataError, match=said_):
        pairs_from_ravel(json.loads(json.dumps(records)))
