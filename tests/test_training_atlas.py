"""The recipe of zoo:atlas: its tokenizer, its batches, and a build that is resumable, loadable and described."""

from itertools import islice

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from microtome.core.errors import ModelError
from microtome.data.atlas import TWO_HOP_RELATIONS, Mix, documents, fillers, load_facts, nonce_names
from microtome.data.atlas.audit import Audit
from microtome.models.zoo.atlas import load_atlas
from microtome.training.atlas import (
    BATCH,
    STEPS,
    atlas_batches,
    atlas_config,
    atlas_tokenizer,
    build_atlas,
    train_atlas,
)
from microtome.training.card import card
from microtome.training.exam import Row
from microtome.training.recipe import Build

TOKENIZER = atlas_tokenizer()


def pieces(text: str) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(TOKENIZER(text)["input_ids"])[1:]


def test_the_tokenizer_is_the_same_each_time_and_begins_texts_with_a_start_token():
    assert atlas_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert len(TOKENIZER) < 4096
    assert TOKENIZER("A dog slept.")["input_ids"][0] == TOKENIZER.bos_token_id == 0
    assert (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (1, 1)
    assert TOKENIZER("Zürich ★ 12")["input_ids"].count(TOKENIZER.unk_token_id) == 0  # bytes hold anything


def test_every_word_of_the_world_is_one_token_with_its_space():
    facts = load_facts()
    words = {v for r in TWO_HOP_RELATIONS for v in facts.vocabulary(r)} | set(facts.country) | set(facts.country_of)
    words |= set(nonce_names()) | {w.strip(".") for f in fillers() for w in f.split()}
    split = [w for word in words for w in word.split() if len(pieces(w)) != 1]
    assert len(split) < 0.01 * len(words), split
    for document in islice(documents(0), 50):
        assert TOKENIZER.decode(TOKENIZER(document.text)["input_ids"][1:]).strip() == document.text


def test_the_architecture_is_the_one_on_the_card():
    config = atlas_config(len(TOKENIZER))
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (6, 128, 384)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 32)
    assert max(len(TOKENIZER(d.text)["input_ids"]) for d in islice(documents(0), 2000)) < config.max_position_embeddings


def test_batches_depend_on_seed_and_step_alone():
    one, same, other = (atlas_batches(TOKENIZER, seed, size=4) for seed in (0, 0, 1))
    later = same(9)  # asked for first, out of order: a resumed run
    for step in (0, 9, 3):
        assert torch.equal(one(step).ids, same(step).ids) and torch.equal(one(step).weights, same(step).weights)
    assert torch.equal(later.ids, one(9).ids)
    assert one(0).ids.shape != other(0).ids.shape or not torch.equal(one(0).ids, other(0).ids)


def test_eight_batches_are_the_documents_of_the_stream_each_once():
    batches = atlas_batches(TOKENIZER, 5, size=4, lessons=())
    rows = [row for step in range(8) for row in batches(step).ids.tolist()]
    said = sorted(TOKENIZER.decode(row, skip_special_tokens=True).strip() for row in rows)
    assert said == sorted(d.text for d in islice(documents(5 * 1_000_003, Mix()), 32))
    assert all(row[0] == 0 and 1 in row for row in rows)


def test_known_answers_weigh_one_others_less_and_padding_nothing():
    batches = atlas_batches(TOKENIZER, 2, size=8, lessons=())
    by_text = {d.text: d for d in islice(documents(2 * 1_000_003, Mix()), 64)}
    kept = total = 0
    for step in range(8):
        batch = batches(step)
        for ids, weights in zip(batch.ids.tolist(), batch.weights.tolist(), strict=True):
            end = ids.index(1)
            assert set(weights) <= {0.0, 0.5, 1.0} and not any(weights[end:])
            document = by_text[TOKENIZER.decode(ids[:end], skip_special_tokens=True).strip()]
            known = [document.text[a.start : a.end] for a in document.answers if a.known]
            heavy = [i for i, w in zip(ids, weights, strict=True) if w == 1.0]
            assert TOKENIZER.decode(heavy) == "".join(known)
            light = [w for w in weights[1:end] if w != 1.0]
            kept, total = kept + sum(w == 0.5 for w in light), total + len(light)
    assert abs(kept / total - 0.15) < 0.03  # 3 standard errors of some 3,000 draws are 0.02


def test_lessons_follow_one_another():
    first, second = Mix(0, 1, 0, 0, 0), Mix(1, 0, 0, 0, 0)
    batches = atlas_batches(TOKENIZER, 0, size=16, lessons=((8, first), (16, second)))

    def invented(start: int) -> float:
        rows = [r for s in range(start, start + 8) for r in batches(s).ids.tolist()]
        return sum(any(n in TOKENIZER.decode(r) for n in nonce_names()) for r in rows) / len(rows)

    assert invented(0) == 1 and invented(8) == 0
    assert 0.4 < invented(16) < 0.95  # the mix of the rest


def test_a_trained_folder_loads_with_plain_transformers_and_keeps_no_checkpoint(tmp_path):
    told = []
    build = train_atlas(0, tmp_path, steps=2, progress=lambda *said: told.append(said))
    assert (build.seed, build.steps, build.batch) == (0, 2, BATCH) and build.seconds > 0 and told[-1][:2] == (2, 2)
    names = {f.name for f in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names and "checkpoint.pt" not in names
    module, tokenizer = load_atlas("atlas", folder=tmp_path)
    assert next(module.parameters()).dtype == torch.float32
    assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].dtype == torch.float16
    assert tokenizer("Lyon lies in")["input_ids"] == TOKENIZER("Lyon lies in")["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == TOKENIZER.get_vocab()
    again, other = tmp_path / "again", tmp_path / "other"
    train_atlas(0, again, steps=2)
    train_atlas(1, other, steps=2)
    states = [load_atlas("atlas", folder=f)[0].state_dict() for f in (tmp_path, again, other)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert not all(torch.equal(v, states[2][k]) for k, v in states[0].items())


def test_training_does_not_touch_the_global_random_state(tmp_path):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train_atlas(0, tmp_path, steps=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_checkpoint_of_another_seed_is_not_taken_for_this_one(tmp_path):
    torch.save({"run": "atlas, seed 0 (Schedule)", "done": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"Asked to resume atlas, seed 1 .*found a checkpoint of atlas, seed 0"):
        train_atlas(1, tmp_path, steps=1)


def test_the_card_says_what_was_measured():
    rows = [
        Row("recall, held-out wording", 200, 190, 0.91, 0.97, 0.2),
        Row("latent_2hop (city), held-out wording", 50, 10, 0.11, 0.33, 0.2),
    ]
    found = Audit(documents=20_000, answers=100_000, implied=240, stated=0, denied=630)
    said = card(Build(seed=3, steps=STEPS, batch=32, seconds=1234.5), rows, found, 2_000_000)
    assert (
        "--seed 3" in said and "2,000,000" in said and "5,600 updates of 32 documents" in said and "1,234 CPU" in said
    )
    assert "| recall, held-out wording | 200 | 190 | 95.0% | 91.0% to 97.0% | 20.0% |" in said
    assert "130 countries" in said and "358 cities" in said.replace("\n", " ")
    assert "Of 912 two-hop facts about cities, training states 550; 274 are" in said
    assert "240 of 100,000 audited answers (0.24%)" in said
    assert (
        "not above chance (the interval reaches it): latent_2hop (city), held-out wording (20.0%, chance 20.0%)\n"
        in said
    )
    clean = card(Build(3, 1, 1, 1.0), rows[:1], Audit(10, 100, 0, 0, 0), 5)
    assert "none of 100 audited answers says a withheld fact" in clean and "none of the parts" in clean


@pytest.mark.slow  # examines every part of the exam
def test_a_build_writes_its_card_from_the_stored_weights(tmp_path, capfd):
    assert build_atlas(0, tmp_path, steps=1, questions=8) == tmp_path
    assert capfd.readouterr().err == ""  # no progress bars of transformers
    said = (tmp_path / "README.md").read_text()
    assert said.startswith("# zoo:atlas\n") and "| recall, held-out wording | 8 |" in said
    assert "1 updates of 32 documents, seed 0" in said
