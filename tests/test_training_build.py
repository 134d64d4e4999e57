"""A build from raw text: artefacts that are made once, stages that go on after a kill, recipes that do not fit.

This file is also a script, `python test_training_build.py FOLDER WHERE`, which kills itself with SIGKILL at a place.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from microtome.core.config import from_toml, to_toml, with_settings
from microtome.core.errors import ConfigError, DataError, RecordError
from microtome.data.corpus import Document
from microtome.training.build import corpus as corpus_stage
from microtome.training.build import pretraining as pretrain_stage
from microtome.training.build.artefacts import Store, opened
from microtome.training.build.cluster import job, needs
from microtome.training.build.pretraining import shares, updates
from microtome.training.build.recipe import PRESETS, BuildRecipe, Mixing, Pretraining, load_recipe
from microtome.training.build.run import build
from microtome.training.build.texts import Texts, TextsWriter, languages_in
from microtome.training.build.tokens import TokenFiles

WORDS = {
    "en": "the a small old river house dog bird sees holds near under bright stone every morning garden road".split(),
    "de": "der ein kleiner alter fluss haus hund vogel sieht haelt neben unter heller stein jeden tag garten".split(),
}  # fmt: skip
TINY = [
    "tokenizer.size=512", "model.layers=2", "model.width=16", "model.mlp=32", "model.heads=2", "model.context=32",
    "pretrain.tokens=4096", "pretrain.batch_tokens=256", "pretrain.rows=8", "pretrain.checkpoints=2",
    "pretrain.save_every=4", "pretrain.bf16=false", "corpus.test=0.1", 'corpus.filters=["length"]',
    "sft.path=", "dpo.path=",
]  # fmt: skip


def write_corpus(folder: Path, documents: int = 120) -> Path:
    """Write a corpus of random sentences, each fifth one a copy of the one before with a word changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, words in WORDS.items():
        draw, lines = np.random.default_rng(len(language) + ord(language[0])), []
        for number in range(documents):
            line = draw.choice(words, 60).tolist()
            if number % 5 == 4:
                line = [*lines[-1].split()[:-1], "again"]
            lines.append(" ".join(line))
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n")
    return folder


def recipe(folder: Path, *settings: str) -> BuildRecipe:
    return with_settings(load_recipe("laptop"), [f"corpus.path={folder}", "corpus.languages=", *TINY, *settings])


def main(folder: Path, where: str) -> None:
    """Build, and be killed in the middle of a stage if its name is given."""
    torch.set_num_threads(1)
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    if where == "dedup":
        one = corpus_stage._one_language
        corpus_stage._one_language = lambda plan, seed, language, *rest: (
            die() if language == "en" else one(plan, seed, language, *rest)
        )
    watch = lambda stage, line, share: die() if stage == where == "pretrain" and share > 0.6 else None  # noqa: E731
    if where == "pretrain":
        inner = pretrain_stage.pretrain
        pretrain_stage.pretrain = lambda *a, **k: inner(*a, **k, report_every=1)
    build(recipe(folder / "corpus"), folder / "store", until="pretrain", watch=watch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder, and what was built in it."""
    home = tmp_path_factory.mktemp("build")
    write_corpus(home / "corpus")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = build(recipe(home / "corpus"), home / "store", until="pretrain")
    torch.set_num_threads(before)
    return home, found


def test_every_stage_leaves_an_artefact_that_says_what_made_it(made):
    home, found = made
    assert list(found) == ["filter", "dedup", "tokenizer", "tokens", "pretrain"]
    assert sorted(p.name for p in (home / "store").iterdir()) == sorted(a.path.name for a in found.values())
    manifest = json.loads((found["pretrain"].path / "manifest.json").read_text())
    assert manifest["inputs"] == {"tokens": found["tokens"].key, "tokenizer": found["tokenizer"].key}
    assert manifest["told"]["model"]["width"] == 16
    assert all((found["pretrain"].path / name).stat().st_size == size for name, size in manifest["files"].items())


def test_the_corpus_is_accounted_for_and_its_duplicates_are_gone(made):
    _, found = made
    rows = {r["language"]: r for r in found["dedup"].values["languages"]}
    for row in rows.values():
        assert row["documents"] == 120 and row["near"] == 24  # each fifth
        assert row["train"] + row["test"] == 96 and row["test"] > 0
    train, test = (languages_in(found["dedup"].path / part)["en"] for part in ("train", "test"))
    assert not set(train) & set(test) and len(set(train)) == len(train)
    outcomes = {r["outcome"]: r["documents"] for r in found["filter"].values["account"] if r["language"] == "de"}
    assert outcomes == {"read": 120, "kept": 120}


def test_tokens_on_disk_are_the_texts(made):
    _, found = made
    cutter = AutoTokenizer.from_pretrained(found["tokenizer"].path)
    files, texts = TokenFiles(found["tokens"].path, len(cutter)), languages_in(found["dedup"].path / "train")
    assert files.documents == {name: len(own) for name, own in texts.items()}
    for language, own in texts.items():
        for number in (0, 7, len(own) - 1):
            assert cutter.decode(files.ids(language, number)) == own[number]
    rows = {r["language"]: r for r in found["tokens"].values["languages"]}
    assert rows["en"]["tokens"] == files.tokens["en"] and rows["en"]["bytes"] == sum(
        len(t.encode()) for t in texts["en"]
    )


def test_the_model_is_one_that_plain_transformers_loads(made):
    _, found = made
    values, home = found["pretrain"].values, found["pretrain"].path
    module, cutter = AutoModelForCausalLM.from_pretrained(home / "model"), AutoTokenizer.from_pretrained(home / "model")
    assert module.config.vocab_size == len(cutter) and module.num_parameters() == values["parameters"]
    assert values["checkpoints"] == [0, 8, 16] and values["tokens"] == 4096
    curve = pq.read_table(home / "curve.parquet").to_pydict()
    assert (
        curve["update"] == list(range(1, 17)) and curve["tokens"][-1] == 4096 and curve["loss"][-1] < curve["loss"][0]
    )
    drawn = {r["language"]: r for r in values["realised"]}
    assert sum(r["drawn"] for r in drawn.values()) > 50 and abs(drawn["en"]["target"] - 0.5) < 0.1
    assert set(pq.read_table(home / "languages.parquet").column("language").to_pylist()) == {"en", "de"}


def test_what_is_there_is_not_made_again(made, monkeypatch):
    home, found = made
    monkeypatch.setattr(corpus_stage, "filtered", lambda *_: pytest.fail("filtered again"))
    monkeypatch.setattr(pretrain_stage, "pretrained", lambda *_: pytest.fail("trained again"))
    again = build(recipe(home / "corpus"), home / "store", until="pretrain")
    assert {n: a.key for n, a in again.items()} == {n: a.key for n, a in found.items()}


def test_a_recipe_that_differs_late_shares_what_comes_before(made):
    home, found = made
    other = build(
        recipe(home / "corpus", "pretrain.tokens=512", "mixing.policy=favoured"), home / "store", until="pretrain"
    )
    assert other["tokens"].key == found["tokens"].key and other["pretrain"].key != found["pretrain"].key
    assert next(r["share"] for r in other["pretrain"].values["mix"] if r["language"] == "en") == pytest.approx(0.6)


def test_the_same_files_elsewhere_are_the_same_corpus(made, tmp_path):
    home, found = made
    write_corpus(tmp_path / "moved")
    assert build(recipe(tmp_path / "moved"), home / "store", until="filter")["filter"].key == found["filter"].key
    (tmp_path / "moved/en.txt").write_text("another text that is long enough to be kept, with words of its own\n" * 3)
    assert build(recipe(tmp_path / "moved"), home / "store", until="filter")["filter"].key != found["filter"].key


@pytest.mark.slow  # new processes
@pytest.mark.parametrize("where", ["dedup", "pretrain"])
def test_kill_9_in_a_stage_changes_nothing_that_comes_out(where, made, tmp_path):
    _, found = made
    write_corpus(tmp_path / "corpus")
    command = [sys.executable, __file__, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*command, where], env=env, capture_output=True).returncode == -signal.SIGKILL
    left = Store(tmp_path / "store").unfinished()
    assert [p.name.split("-")[0] for p in left] == [where]
    done = subprocess.run([*command, "nowhere"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = build(recipe(tmp_path / "corpus"), tmp_path / "store", until="pretrain")
    for part in ("train", "test"):
        ids = lambda a, part=part: [  # noqa: E731
            d.id for texts in languages_in(a["dedup"].path / part).values() for d in texts.documents()
        ]
        assert ids(again) == ids(found)
    curves = [pq.read_table(a["pretrain"].path / "curve.parquet") for a in (again, found)]
    assert curves[0].equals(curves[1])
    assert (again["pretrain"].path / "model/model.safetensors").read_bytes() == (
        found["pretrain"].path / "model/model.safetensors"
    ).read_bytes()


# artefacts


def test_a_stage_that_was_stopped_gets_its_folder_back(tmp_path):
    store, seen = Store(tmp_path), []

    def stopped(folder):
        (folder / "half").write_text("done so far")
        raise KeyboardInterrupt

    def rest(folder):
        seen.append((folder / "half").read_text())
        return {"answer": 42}

    with pytest.raises(KeyboardInterrupt):
        store.make("cook", {"heat": 1}, [], stopped)
    assert len(store.unfinished()) == 1
    artefact = store.make("cook", {"heat": 1}, [], rest)
    assert seen == ["done so far"] and artefact.values == {"answer": 42} and not store.unfinished()
    assert store.make("cook", {"heat": 1}, [], lambda folder: pytest.fail("made twice")).key == artefact.key
    next_one = store.make("eat", {}, [artefact], lambda folder: {})
    other = store.make("eat", {}, [store.make("cook", {"heat": 2}, [], lambda folder: {})], lambda folder: {})
    assert next_one.key != other.key


def test_a_kill_between_the_manifest_and_the_name_does_no_harm(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "rename", stop)
        store.make("cook", {}, [], lambda folder: (folder / "meal").write_text("soup") and {"taste": "good"})
    assert (store.unfinished()[0] / "manifest.json").is_file()
    artefact = store.make("cook", {}, [], lambda folder: {"taste": "better, and told at some length"})
    assert opened(artefact.path).values == {"taste": "better, and told at some length"}


def test_a_damaged_artefact_is_refused(tmp_path):
    store = Store(tmp_path)
    artefact = store.make("cook", {}, [], lambda folder: (folder / "meal").write_text("soup") and {})
    (artefact.path / "meal").write_text("so")
    with pytest.raises(RecordError, match=r"damaged: 'meal' has 2 bytes, 4 were written; remove the folder"):
        store.make("cook", {}, [], lambda folder: {})
    (artefact.path / "meal").unlink()
    with pytest.raises(RecordError, match="'meal' is missing"):
        opened(artefact.path)
    (artefact.path / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="found no whole manifest"):
        opened(artefact.path)


def test_two_at_one_stage_are_one_too_many(tmp_path):
    store = Store(tmp_path)

    def fill(folder):
        with pytest.raises(RecordError, match="is being written by another process"):
            store.make("cook", {}, [], lambda folder: {})
        return {}

    store.make("cook", {}, [], fill)


def test_texts_are_read_by_number_as_they_were_written(tmp_path):
    documents = [Document(f"text {i} \n\u0928\u093f", "hi", "made", str(i)) for i in range(9001)]
    with TextsWriter(tmp_path) as writer:
        for document in documents:
            writer.add(document)
    texts = Texts(tmp_path / "hi.parquet")
    assert len(texts) == 9001 and list(texts) == [d.text for d in documents] and list(texts.documents()) == documents
    assert [texts[i] for i in (0, 4095, 4096, 9000, -1)] == [documents[i].text for i in (0, 4095, 4096, 9000, -1)]
    assert texts[4094:4098] == [d.text for d in documents[4094:4098]]
    with pytest.raises(IndexError):
        texts[9001]
    (tmp_path / "hi.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="found no whole Parquet file"):
        Texts(tmp_path / "hi.parquet")


# corpora that do not do


def test_a_language_that_is_not_there_is_named(tmp_path):
    write_corpus(tmp_path / "corpus")
    with pytest.raises(DataError, match=r"Language 'fr' was asked for of .*, which has de, en; leave it out"):
        build(recipe(tmp_path / "corpus", 'corpus.languages=["en", "fr"]'), tmp_path / "store", until="filter")


def test_a_language_of_which_nothing_is_kept_is_named_with_the_reason(tmp_path):
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus/ta.txt").write_text("ab\n" * 7)
    with pytest.raises(DataError, match=r"Of language 'ta' no document was kept: 7 were dropped, most \(7\) as 'too"):
        build(recipe(tmp_path / "corpus"), tmp_path / "store", until="filter")


def test_a_corpus_of_one_document_is_too_little(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/en.txt").write_text(" ".join(WORDS["en"] * 4) + "\n")
    with pytest.raises(DataError, match=r"Language 'en' has 1 documents after deduplication, too few"):
        build(recipe(tmp_path / "corpus"), tmp_path / "store", until="dedup")


def test_bytes_that_are_not_text_are_counted_and_left_out(tmp_path):
    write_corpus(tmp_path / "corpus")
    with (tmp_path / "corpus/en.txt").open("ab") as file:
        file.write("caf\u00e9 ".encode("latin-1") * 30 + b"\n")
    made = build(recipe(tmp_path / "corpus"), tmp_path / "store", until="filter")["filter"]
    dropped = [r for r in made.values["account"] if r["language"] == "en" and r["outcome"] == "dropped"]
    assert [(r["reason"], r["documents"]) for r in dropped] == [("not utf-8", 1)]


def test_corpora_that_are_not_on_this_disk_are_told_apart_by_name(tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held/en.txt").write_text("evaluation text\n")
    plans = (replace(recipe(path).corpus, evaluation=(str(tmp_path / "held"),)) for path in ("hf:one", "hf:two"))
    one, two = map(corpus_stage.origins, plans)
    assert one["path"] != two["path"] and one["evaluation"] == two["evaluation"] != [str(tmp_path / "held")]


def test_evaluation_text_is_not_trained_on(tmp_path):
    write_corpus(tmp_path / "corpus")
    held = (tmp_path / "corpus/en.txt").read_text().splitlines()[3]
    (tmp_path / "held").mkdir()
    (tmp_path / "held/en.txt").write_text(held + "\n")
    made = build(
        recipe(tmp_path / "corpus", f'corpus.evaluation=["{tmp_path}/held"]'), tmp_path / "store", until="filter"
    )
    rows = [r for r in made["filter"].values["account"] if r["outcome"] == "dropped"]
    assert [(r["language"], r["documents"]) for r in rows] == [("en", 2)]  # itself and its near copy
    assert "evaluation text of 'held'" in rows[0]["reason"]


# recipes


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_and_come_back_from_toml(name):
    found = load_recipe(name)
    assert found.name == name and from_toml(BuildRecipe, to_toml(found)) == found


def test_no_such_recipe_or_stage(tmp_path):
    with pytest.raises(
        ConfigError, match=r"No recipe 'laptob'; there are quick, small, laptop, fuxitranyu-8b.* Did you mean"
    ):
        load_recipe("laptob")
    with pytest.raises(ConfigError, match="found no such file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="No stage 'pretraining' in a build; it has filter"):
        build(load_recipe("quick"), tmp_path, until="pretraining")


def test_the_published_model_is_8_095_billion_parameters_and_its_mix_sums_to_one():
    found = load_recipe("fuxitranyu-8b")
    told = needs(found, devices=32)
    assert told.vocabulary == 250_752 and told.parameters / 1e9 == pytest.approx(8.095, abs=5e-4)
    assert told.flops == pytest.approx(6 * (told.parameters - 250_752 * 4096) * 606e9, rel=0.2)
    assert told.bytes_each == 16 * told.parameters / 32
    assert len(found.corpus.languages) == 43 and len(found.corpus.code) == 16
    table = dict(found.mixing.table)
    assert sum(table.values()) == pytest.approx(1) and table["en"] == pytest.approx(0.288, abs=1e-5)
    assert set(table) == {*found.corpus.languages, *found.corpus.code}
    assert (
        found.sft.rate == 2e-5
        and found.dpo.beta == 0.01
        and found.dpo.rate == 5e-7
        and found.pretrain.checkpoints == 58
    )
    script = job(found, nodes=4, devices=8)
    assert "--nnodes=4" in script and "microtome.training.build recipe.toml" in script


def test_updates_of_a_growing_batch_see_the_tokens_asked_for():
    plan = Pretraining(tokens=1000, batch_tokens=100, growth=((300, 200),), warm_up=0.0)
    loop = updates(plan, 0)
    assert loop.growth == ((3, 200),) and loop.steps == 3 + 3  # 300 tokens in 3, 600 of the other 700 in 3
    with pytest.raises(ConfigError, match="50 tokens were asked for in updates of 100"):
        updates(replace(plan, tokens=50), 0)


def test_a_favoured_language_gets_its_share_and_the_others_the_rest():
    found = shares(Mixing(policy="favoured", favoured="en", share=0.6, alpha=0.0), {"en": 10, "de": 90, "hi": 5}, 100)
    assert found.shares == pytest.approx({"en": 0.6, "de": 0.2, "hi": 0.2})
    with pytest.raises(ConfigError, match="for 'xx' was asked for, found languages en, de"):
        shares(Mixing(policy="favoured", favoured="xx"), {"en": 1, "de": 1}, 10)


def test_tuning_is_not_asked_of_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"Stage 'dpo' was asked of 2 processes, tuning runs in one"):
        build(recipe(tmp_path), tmp_path / "store")


@pytest.mark.slow  # two new processes
def test_two_processes_build_the_model_that_one_builds(made, tmp_path):
    home, found = made
    plan = tmp_path / "tiny.toml"
    plan.write_text(to_toml(recipe(home / "corpus")))
    command = "-m torch.distributed.run --standalone --nproc_per_node=2 -m microtome.training.build".split()
    command = [sys.executable, *command, str(plan), "--store", str(tmp_path / "store"), "--until", "pretrain"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = opened(next((tmp_path / "store").glob("pretrain-*")))
    assert again.key == found["pretrain"].key
    losses = [pq.read_table(a.path / "curve.parquet").column("loss").to_numpy() for a in (again, found["pretrain"])]
    assert np.abs(losses[0] - losses[1]).max() < 1e-5


def test_rows_must_make_up_an_update(made):
    home, _ = made
    with pytest.raises(ConfigError, match=r"make pretrain\.batch_tokens a multiple of 256"):
        build(recipe(home / "corpus", "pretrain.batch_tokens=300"), home / "store", until="pretrain")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
