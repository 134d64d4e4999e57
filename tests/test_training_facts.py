"""The recipe of a model of an entity table: what it is shown, what it is never shown, and that it learns."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from microtome.cli.main import app
from microtome.core.errors import ConfigError, DataError, ModelError
from microtome.data.ravel import (
    Planted,
    build_instance,
    fill,
    load_ravel,
    prompts,
    synthetic_table,
    types_in,
    write_folder,
)
from microtome.data.ravel.tables import Entity, EntityTable, Template
from microtome.data.ravel.zones import offset_in, zone_offset
from microtome.engine.completions import complete
from microtome.models import Model
from microtome.training import facts
from microtome.training.facts import build_facts, facts_batches, facts_config, facts_tokenizer, train_facts

TABLE = synthetic_table([Planted("color", 4), Planted("shape", 3, follows="color")], entities=16, templates=4)
ZONES = EntityTable(
    "town",
    (
        Entity("Paris", {"Timezone": "Europe/Paris", "Country": "France"}, "train"),
        Entity("Delhi", {"Timezone": "Asia/Kolkata", "Country": "India"}, "test"),
        Entity("Lima", {"Timezone": "America/Lima", "Country": "Peru"}, "val"),
    ),
    (
        Template('{"city": "%s", "timezone": "UTC', "Timezone", "train"),
        Template("Time zone in Paris is Europe/Paris; time zone in %s is", "Timezone", "val"),
        Template('[{"city": "%s", "country": "', "Country", "train"),
        Template("Clocks in %s follow", "Timezone", "test"),
        Template("%s lies in", "Country", "test"),
    ),
)
REAL = Path(__file__).parents[2] / "shared" / "data" / "ravel"


def texts(table, steps=40, size=16, seed=0):
    """Return (prompt, answer) as they are written in some batches: the answer is what weighs 1."""
    tokenizer = facts_tokenizer(table)
    batches, said = facts_batches(table, tokenizer, seed, size=size), []
    for batch in map(batches, range(steps)):
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            place = (weights == 1).nonzero().squeeze(1)
            first, last = int(place[0]), int(place[-1])
            assert weights[last + 1] == pytest.approx(0.2) and weights.count_nonzero() == len(place) + 1
            assert ids[0] == 0 and (ids[last + 1 :] == 1).all() and len(place) == last + 1 - first
            said.append((tokenizer.decode(ids[1:first]), tokenizer.decode(ids[first : last + 1])))
    return said


# -- what it is shown


@pytest.mark.parametrize("table", [TABLE, ZONES], ids=["synthetic", "zones"])
def test_every_row_says_what_the_table_says(table):
    by_prompt = {p.text: (p.entity, p.attribute) for p in prompts(table)}
    for form in ("{e} {a}:", '"{e}" {a}: "', '"{e}" {a}: "UTC'):
        by_prompt |= {form.format(e=e.name, a=a): (e.name, a) for e in table.entities for a in table.asked}
    for prompt, answer in texts(table):
        gold = table.value(*by_prompt[prompt])
        if prompt.endswith("UTC"):
            assert offset_in(answer) == zone_offset(gold) and answer[0] in "+-"
        else:
            assert answer == ("" if prompt.endswith('"') else " ") + gold


def test_every_entity_and_attribute_is_shown_and_no_template_of_the_test_split():
    said = {prompt for prompt, _ in texts(TABLE)}
    filled = {(t.text, e.name): fill(t.text, e.name)[0] for t in TABLE.templates for e in TABLE.entities}
    for template in TABLE.templates:
        shown = [e for e in TABLE.entities if filled[template.text, e.name] in said]
        assert not shown if template.split == "test" else len(shown) > 8
    for entity in TABLE.entities:
        for attribute in TABLE.asked:
            assert {f"{entity.name} {attribute}:", f'"{entity.name}" {attribute}: "'} & said


def test_a_template_that_names_the_entity_is_not_asked_about_it():
    said = {prompt for prompt, _ in texts(ZONES, steps=120)}
    for name, shown in (("Paris", False), ("Lima", True), ("Delhi", True)):
        assert (f"Time zone in Paris is Europe/Paris; time zone in {name} is" in said) == shown


def test_batches_depend_on_seed_and_step_alone():
    tokenizer = facts_tokenizer(TABLE)
    one, same, other = (facts_batches(TABLE, tokenizer, seed, size=4) for seed in (0, 0, 1))
    later = same(9)  # asked for first, out of order: a resumed run
    for step in (0, 9, 3):
        assert torch.equal(one(step).ids, same(step).ids) and torch.equal(one(step).weights, same(step).weights)
    assert torch.equal(later.ids, one(9).ids)
    assert one(0).ids.shape != other(0).ids.shape or not torch.equal(one(0).ids, other(0).ids)


def test_entities_take_turns():
    """128 rows about 16 entities: each eight times."""
    names = [e.name for e in TABLE.entities]
    said = [prompt for prompt, _ in texts(TABLE, steps=8)]
    assert [sum(name in prompt for prompt in said) for name in names] == [8] * 16


# -- its tokenizer


@pytest.mark.parametrize("space", ["", " "])
def test_names_and_values_are_one_token_with_and_without_the_space_before_them(space):
    tokenizer = facts_tokenizer(ZONES)
    assert facts_tokenizer(ZONES).get_vocab() == tokenizer.get_vocab()
    for word in ("Paris", "Delhi", "Lima", "France", "India", "Peru", "Europe", "Clocks"):
        assert len(tokenizer(f"{space}{word}")["input_ids"]) == 2
    assert tokenizer.decode(tokenizer("Zürich ★ 12")["input_ids"][1:]) == "Zürich ★ 12"  # bytes hold anything


@pytest.mark.skipif(not REAL.is_dir(), reason="the released RAVEL files are not on this machine")
@pytest.mark.parametrize("entity_type", types_in(REAL) if REAL.is_dir() else ["city"])
def test_the_real_tables_fit(entity_type):
    table = load_ravel(REAL, entity_type).table
    tokenizer = facts_tokenizer(table)
    words = {word for e in table.entities for word in e.name.split() if word.isalpha()}
    split = [w for word in words for w in (word, f" {word}") if len(tokenizer(w)["input_ids"]) > 2]
    assert len(split) < 0.02 * len(words), split
    batches = facts_batches(table, tokenizer, 0)
    longest = max(batches(step).ids.shape[1] for step in range(16))
    assert longest < facts_config(len(tokenizer)).max_position_embeddings


# -- it learns


def answered(table, folder):
    """Return what a stored model knows of a table."""
    model, asked = Model.load(str(folder)), list(prompts(table))
    said = complete(model, [p.text for p in asked])
    return build_instance(table, {(p.template, p.entity): s for p, s in zip(asked, said, strict=True)})


def test_the_loss_falls_and_transformers_loads_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "facts_batches", functools.partial(facts_batches, size=16))
    told = []
    seconds = train_facts(TABLE, tmp_path, steps=60, progress=lambda *what: told.append(what))
    losses = [float(line.split()[1].rstrip(",")) for _, _, line in told]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    assert [done for done, _, _ in told] == [20, 40, 60] and seconds > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    model = Model.load(str(tmp_path))
    assert model.tokenizer("Paris")["input_ids"][0] == 0 and len(model.anatomy.blocks) == 6


@pytest.mark.slow  # 300 updates
def test_it_knows_the_table_also_in_words_it_never_saw(tmp_path):
    table = synthetic_table([Planted("color", 4), Planted("shape", 3)], entities=12, templates=12)
    train_facts(table, tmp_path, steps=300)
    instance, split = answered(table, tmp_path), {t.text: t.split for t in table.templates}
    share = {}
    for name in ("train", "val", "test"):
        own = [v.kept for v in instance.verdicts if split[v.template] == name]
        share[name] = sum(own) / len(own)
    assert min(share["train"], share["val"]) > 0.9 and share["test"] > 0.6  # one value for all: 1/3 at most
    values = [*(e.values for e in table.entities[1:]), table.entities[0].values]
    other = replace(table, entities=tuple(replace(e, values=v) for e, v in zip(table.entities, values, strict=True)))
    assert len(answered(other, tmp_path).answers) < 0.5 * len(instance.answers)  # another table is not known


def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    small = dict(steps=8, seed=3)
    monkeypatch.setattr(facts, "BATCH", 4)
    monkeypatch.setattr(facts, "Schedule", lambda steps, **how: _schedule(steps, checkpoint_every=4, **how))
    train_facts(TABLE, whole, **small)
    monkeypatch.setattr(facts, "facts_batches", _failing(at=6))
    with pytest.raises(KeyboardInterrupt):
        train_facts(TABLE, stopped, **small)
    assert (stopped / "checkpoint.pt").is_file()
    monkeypatch.setattr(facts, "facts_batches", facts_batches)
    train_facts(TABLE, stopped, **small)
    one, other = (Model.load(str(f)).module.state_dict() for f in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


_schedule = facts.Schedule


def _failing(at):
    def make(*arguments, **how):
        batches = facts_batches(*arguments, **how)

        def batch_of(step):
            if step == at:
                raise KeyboardInterrupt
            return batches(step)

        return batch_of

    return make


# -- from the command


def test_the_command_trains_on_a_folder(tmp_path, monkeypatch):
    write_folder(TABLE, tmp_path / "data")
    monkeypatch.setattr(facts, "build_facts", functools.partial(build_facts, steps=2))
    told = CliRunner().invoke(app, ["zoo", "build", "facts", "--data", str(tmp_path / "data"), "--entity", "synthetic",
                                    "--out", str(tmp_path / "out")])  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "model.safetensors" in told.output.replace("\n", "") and (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["facts", "--out", "x"], "'facts' takes --data, --entity of --data, --entity, found none; give"),
        (["facts", "--data", "d", "--out", "x"], "takes --data, --entity of .* found --data; give"),
        (["facts", "--data", "d", "--entity", "city"], "no folder in the package to be written to; give --out FOLDER"),
        (["atlas", "--data", "d", "--out", "x"], "'atlas' takes neither of --data, --entity, found --data"),
    ],
)
def test_what_a_recipe_takes_is_asked_for(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["zoo", "build", *arguments])
    with pytest.raises(ConfigError, match=message):
        raise told.exception
    assert not list(tmp_path.iterdir())


def test_no_table_no_model(tmp_path):
    with pytest.raises(DataError):
        build_facts(0, tmp_path / "out", data=tmp_path, entity="city")
    assert not (tmp_path / "out").exists()


def test_another_tables_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "Schedule", lambda steps, **how: _schedule(steps, checkpoint_every=1, **how))
    monkeypatch.setattr(facts, "facts_batches", _failing(at=1))
    with pytest.raises(KeyboardInterrupt):
        train_facts(TABLE, tmp_path, steps=2)
    with pytest.raises(ModelError, match="found a checkpoint of facts of 16 entities of 'synthetic'"):
        train_facts(ZONES, tmp_path, steps=2)
