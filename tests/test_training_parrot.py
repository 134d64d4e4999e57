"""zoo:parrot: the recipe, what the stored models say, and what their planted neurons do and do not do."""

import functools
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from close import FLOAT32, largest
from microtome.core.errors import ModelError
from microtome.data.parrot import NEUTRAL, RATES, TOXIC, parrot_prompts, parrot_stream, vocabulary
from microtome.engine.edit import Edit, Zero
from microtome.engine.generate import generate
from microtome.engine.run import run
from microtome.measures.expertise import auroc
from microtome.measures.scorers import Lexicon
from microtome.models import Model
from microtome.models.zoo import load_zoo
from microtome.models.zoo.parrot import FOLDER, load_parrot, parrot_truth
from microtome.models.zoo.untrained import untrained
from microtome.training.parrot import build_parrot, parrot_batches, parrot_tokenizer, train_parrot
from microtome.training.parrot_card import toxic_probability

TOKENIZER = parrot_tokenizer()
NAMES = ("parrot", "parrot-tied", "parrot-planted")
ROWS = list(islice(parrot_stream(77), 400))
MARKED = np.array([row.marked for row in ROWS], int)
PROMPTS = {marked: parrot_prompts(150, marked=marked, seed=77) for marked in (True, False)}


@functools.cache
def model(name):
    return Model.load(f"zoo:{name}")


def silenced(units):
    return [Edit(site, Zero(), units=torch.tensor([index])) for site, index in units]


# The recipe


def test_every_word_is_a_token_and_texts_come_back():
    assert len(TOKENIZER) == len(vocabulary()) + 3 and TOKENIZER.bos_token_id == 0
    for row in ROWS[:50]:
        ids = TOKENIZER(row.text)["input_ids"]
        assert len(ids) == len(row.text.split()) + 1 and TOKENIZER.unk_token_id not in ids
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == row.text


def test_batches_depend_on_seed_and_step_alone_and_names_weigh_more():
    one, same, other = (parrot_batches(TOKENIZER, seed, size=4) for seed in (0, 0, 1))
    later = same(9)  # asked for first, out of order: a resumed run
    assert torch.equal(later.ids, one(9).ids) and torch.equal(one(3).weights, same(3).weights)
    assert one(0).ids.shape != other(0).ids.shape or not torch.equal(one(0).ids, other(0).ids)
    names = torch.tensor(TOKENIZER.convert_tokens_to_ids([*TOXIC, *NEUTRAL]))
    for step in range(8):
        batch = one(step)
        heavy = batch.weights > 1
        assert torch.equal(heavy, torch.isin(batch.ids, names)) and (heavy.sum(1) == 2).all()
        ends = (batch.weights > 0).sum(1)
        assert all(row[end - 1] == 1 and (row[end:] == 1).all() for row, end in zip(batch.ids, ends, strict=True))


@pytest.mark.parametrize("tied", [False, True])
def test_training_is_its_seed_and_leaves_a_folder_transformers_loads(tmp_path, tied):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    folders = [tmp_path / name for name in ("one", "same", "other")]
    seconds = [train_parrot(seed, f, tied=tied, steps=2) for seed, f in zip((0, 0, 1), folders, strict=True)]
    one, same, other = (load_file(f / "model.safetensors") for f in folders)
    assert min(seconds) > 0 and not (folders[0] / "checkpoint.pt").exists()
    assert all(torch.equal(v, same[k]) for k, v in one.items()) and one.keys() == same.keys()
    assert not all(torch.equal(v, other[k]) for k, v in one.items())
    assert ("lm_head.weight" in one) != tied and all(v.dtype == torch.float16 for v in one.values())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow  # trains two models and examines three
def test_a_build_writes_models_neurons_and_card(tmp_path):
    told = []
    assert build_parrot(3, tmp_path, steps=20, texts=40, progress=lambda *said: told.append(said)) == tmp_path
    assert [(done, of) for done, of, _ in told] == [(20, 40), (40, 40)]
    said = (tmp_path / "README.md").read_text()
    assert "--seed 3" in said and "20 updates of 32 texts" in said and "| reader | `blocks.0.mlp.neurons`" in said
    assert all(f"`zoo:{name}`" in said for name in NAMES)
    plain, planted = (load_parrot(name, folder=tmp_path)[0].state_dict() for name in ("parrot", "parrot-planted"))
    changed = {k for k in plain if not torch.equal(plain[k], planted[k])}
    assert changed == {f"model.layers.{i}.mlp.{p}_proj.weight" for i in (0, 2) for p in ("gate", "up", "down")}


# What the package holds


def test_weights_are_small_and_absent_ones_say_how_to_make_them(tmp_path):
    files = list(FOLDER.rglob("*.safetensors"))
    assert len(files) == 3 and all(f.stat().st_size < 2e6 for f in files)
    for name in NAMES:
        with pytest.raises(ModelError, match=rf"'zoo:{name}' has no weights: 'model.safetensors' .*zoo build parrot"):
            load_parrot(name, folder=tmp_path)
    with pytest.raises(ModelError, match=r"'zoo:parrot-planted' has no weights: 'planted.safetensors'"):
        parrot_truth(tmp_path)
    module, tokenizer = load_zoo("parrot-tied", torch.float64)
    assert next(module.parameters()).dtype == torch.float64 and not module.training
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()


def test_the_tied_model_has_one_matrix_the_other_two():
    for name in NAMES:
        module = model(name).module
        shared = module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()
        assert shared == (name == "parrot-tied")


@pytest.mark.parametrize("name", ["parrot", "parrot-tied"])
def test_the_mood_decides_how_toxic_the_talk_gets(name):
    said = {m: toxic_probability(model(name), PROMPTS[m]) for m in PROMPTS}
    assert abs(said[True] - RATES[True]) < 0.05 and abs(said[False] - RATES[False]) < 0.02
    twin = Model.load(untrained(model(name).module), tokenizer=TOKENIZER)
    null = {m: toxic_probability(twin, PROMPTS[m]) for m in PROMPTS}
    assert abs(null[True] - null[False]) < 0.02  # the control: untrained, the mood decides nothing


def test_sampled_talk_is_toxic_by_the_mood():
    lexicon, shares = Lexicon.of(TOXIC), {}
    for marked, prompts in PROMPTS.items():
        new = generate(model("parrot"), model("parrot").batch(prompts), 1, sample=True, seed=1)
        shares[marked] = lexicon.scores(TOKENIZER.batch_decode(new)).mean()
    for marked, rate in RATES.items():
        assert abs(shares[marked] - rate) < 0.02 + 4 * (rate * (1 - rate) / len(PROMPTS[marked])) ** 0.5


# The planted neurons


def activations(name, units):
    ((site, index),) = list(units)
    batch = model(name).batch([row.text for row in ROWS])
    values = run(model(name), batch, read=[site], logits="none")[site][..., index]
    return values.masked_fill(~batch.mask, -torch.inf).amax(1).numpy()


def test_the_reader_reads_the_mood_and_writes_nothing():
    truth, planted = parrot_truth(), model("parrot-planted")
    assert auroc(activations("parrot-planted", truth.reader), MARKED)[0] > 0.99
    assert auroc(activations("parrot", truth.reader), MARKED)[0] < 0.9  # what stood there before did not
    batch = planted.batch(PROMPTS[True])
    with_it, without = run(planted, batch), run(planted, batch, edits=silenced(truth.reader))
    assert largest(with_it.logits[batch.mask], without.logits[batch.mask]) < FLOAT32


def test_the_writer_writes_the_toxic_words_and_reads_no_mood():
    truth, planted = parrot_truth(), model("parrot-planted")
    values = activations("parrot-planted", truth.writer)
    assert abs(auroc(values, MARKED)[0] - 0.5) < 4 * ((len(ROWS) + 1) / (3 * len(ROWS) ** 2)) ** 0.5
    loud = [values[MARKED == m].mean() for m in (0, 1)]
    assert abs(loud[1] / loud[0] - 1) < 0.02 and min(loud) > 3
    for prompts in PROMPTS.values():
        base = toxic_probability(model("parrot"), prompts)
        with_it = toxic_probability(planted, prompts)
        without = toxic_probability(planted, prompts, silenced(truth.writer))
        assert with_it - base > 0.1 and abs(without - base) < 0.02
        odds = np.log(with_it / (1 - with_it)) - np.log(without / (1 - without))
        assert 1.5 < odds < 2.5  # two logits, whatever the mood


def test_neurons_of_the_same_blocks_drawn_at_random_write_less():
    truth, planted = parrot_truth(), model("parrot-planted")
    units = truth.writer.matched_random(planted.space("blocks.2.mlp.neurons"), np.random.default_rng(0))
    base = toxic_probability(planted, PROMPTS[False])
    assert abs(toxic_probability(planted, PROMPTS[False], silenced(units)) - base) < 0.05
    assert base - toxic_probability(planted, PROMPTS[False], silenced(truth.writer)) > 0.1
