"""The recipe of zoo:babel, in a tiny size: two models of one corpus, what is stored, what the card says."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from microtome.models.zoo.babel import ENTRY, FOLDER, load_babel
from microtome.training import babel
from microtome.training.babel import VARIANTS, babel_recipe, build_babel
from test_training_build import recipe, write_corpus


@pytest.fixture
def tiny_recipe(monkeypatch):
    monkeypatch.setattr(babel, "load_recipe", lambda name: recipe("corpus", "model.context=64", "pretrain.rows=4"))


@pytest.mark.slow  # builds two models and examines them
def test_two_models_of_one_corpus_and_their_card(tmp_path, tiny_recipe):
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus/parallel").mkdir()
    for language in ("en", "de"):
        lines = [f"sentence {i} of {language} says what it says in every language" for i in range(20)]
        (tmp_path / f"corpus/parallel/held.{language}.txt").write_text("\n".join(lines))
    done = []
    out = build_babel(0, tmp_path / "babel", data=tmp_path / "corpus", progress=lambda *told: done.append(told[0]))
    assert sorted(done) == done and done[-1] <= 200
    assert not (tmp_path / "babel.artefacts").exists()
    balanced, english = (load_babel(name, folder=out) for name in ("babel", "babel-en"))
    assert balanced[0].dtype == torch.float32 and balanced[1]("x").input_ids == english[1]("x").input_ids
    stored = AutoModelForCausalLM.from_pretrained(out)
    assert stored.dtype == torch.float16 and torch.equal(stored.float().lm_head.weight, balanced[0].lm_head.weight)
    assert not torch.equal(balanced[0].lm_head.weight, english[0].lm_head.weight)
    card = (out / "README.md").read_text()
    assert "60.0%" in card and "4,096 tokens each in 16 updates" in card
    assert card.count("| en |") == 3 and "Parallel text, the same sentences" in card


def test_variants_differ_in_their_mixture_alone(tmp_path):
    one, two = (babel_recipe(variant, tmp_path, seed=3) for variant in VARIANTS)
    assert one.mixing != two.mixing and one.pretrain == two.pretrain and one.corpus == two.corpus and one.seed == 3


def test_the_models_of_the_package():
    if not (FOLDER / "model.safetensors").is_file():
        pytest.skip("zoo:babel has no weights in this checkout")
    for name in ENTRY.names:
        module, cutter = load_babel(name)
        assert 4e6 < sum(p.numel() for p in module.parameters()) < 5e6 and len(cutter) == module.config.vocab_size
        text = cutter("The weather is good today.", return_tensors="pt").input_ids
        with torch.no_grad():
            loss = module(text, labels=text).loss
        assert loss < torch.log(torch.tensor(float(len(cutter)))) - 1
    assert max(p.stat().st_size for p in FOLDER.rglob("*.safetensors")) <= 10e6
