"""The catalogue finds what the folder holds; untrained twins keep structure and lose everything learnt."""

import pytest
import torch
from torch import nn

from microtome.core.errors import ModelError
from microtome.models import Model
from microtome.models.zoo import list_zoo, load_zoo
from microtome.models.zoo.atlas import load_atlas
from microtome.models.zoo.hand import hand, hand_items
from microtome.models.zoo.hand.scoring import expected_accuracy
from microtome.models.zoo.hand.tokens import hand_tokenizer
from microtome.models.zoo.untrained import untrained
from tiny import build


def test_the_folder_scan_finds_every_entry():
    names = {name for entry in list_zoo() for name in entry.names}
    assert names >= {"hand", "hand-redundant", "hand-shared", "hand-correlated", "atlas"}
    assert all(entry.summary for entry in list_zoo())


@pytest.mark.parametrize("name", ["hand", "hand-shared", "zoo:hand-redundant"])
def test_load_zoo_gives_the_variant_in_the_dtype_asked_for(name):
    module, tokenizer = load_zoo(name, torch.float64)
    variant = name.removeprefix("zoo:").partition("-")[2] or "plain"
    made = hand(variant, torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), made.module.parameters(), strict=True))
    assert tokenizer.decode(tokenizer("Arden amber")["input_ids"]) == "<bos> Arden amber"
    assert Model.load(f"zoo:{name.removeprefix('zoo:')}").dtype == torch.float32


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ModelError, match=r"No zoo model 'zoo:hand-sharde'; the zoo has .*Did you mean 'hand-shared'\?"):
        load_zoo("hand-sharde")


def test_atlas_without_weights_says_how_to_make_them(tmp_path):
    with pytest.raises(ModelError, match=r"'zoo:atlas' has no weights: 'model.safetensors' .*zoo build atlas"):
        load_atlas("atlas", folder=tmp_path)


def test_atlas_loads_a_saved_folder_unchanged(tmp_path):
    module = build("llama", dtype=torch.float32)
    module.save_pretrained(tmp_path)
    hand_tokenizer().save_pretrained(tmp_path)
    loaded, tokenizer = load_atlas("atlas", torch.float64, folder=tmp_path)
    assert next(loaded.parameters()).dtype == torch.float64 and not loaded.training
    assert tokenizer("Arden")["input_ids"] == hand_tokenizer()("Arden")["input_ids"]
    for a, b in zip(module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a.double(), b)


@pytest.mark.parametrize(
    "make", [lambda: build("llama"), lambda: build("llama-tied"), lambda: hand().module], ids=["llama", "tied", "hand"]
)
def test_untrained_twin_is_seeded_and_keeps_structure_type_and_the_global_random_state(make):
    module = make()
    before, state = [p.clone() for p in module.parameters()], torch.get_rng_state()
    one, again, other = untrained(module, 0), untrained(module, 0), untrained(module, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    shapes = [(n, p.shape, p.dtype) for n, p in module.named_parameters()]
    assert [(n, p.shape, p.dtype) for n, p in one.named_parameters()] == shapes
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    matrices = [n for n, p in module.named_parameters() if p.ndim == 2]
    for name in matrices:
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
        assert not torch.equal(one.get_parameter(name), module.get_parameter(name))
    assert not one.training and Model.load(one).anatomy == Model.load(module).anatomy


def test_untrained_llama_has_the_spread_of_its_own_initialisation():
    module = build("llama")
    fresh = untrained(module)
    weight = fresh.model.layers[0].mlp.up_proj.weight  # 48 x 32 draws: 5 standard errors of the spread are 9 %
    assert weight.std().item() == pytest.approx(module.config.initializer_range, rel=0.09)
    assert torch.equal(fresh.model.norm.weight, torch.ones_like(fresh.model.norm.weight))


def test_untrained_hand_forgets_everything():
    model = hand()
    fresh = untrained(model.module)
    for task in ("recall", "lookup"):
        items = hand_items(task, 240)
        inputs = dict(model.tokenizer([i.prompt for i in items], padding=True, return_tensors="pt"))
        with torch.no_grad():
            score = expected_accuracy(fresh(**inputs).logits[:, -1], items).mean()
        assert abs(score - 0.25) < 0.15  # 5 standard errors of 240 draws at 1/4


def test_a_part_without_an_initialisation_of_its_own_keeps_mean_and_spread():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(3 + 0.5 * torch.randn(200, 50, generator=torch.Generator().manual_seed(0)))

    module = Scaled()
    fresh = untrained(module, 3)
    assert not torch.equal(fresh.table, module.table)
    assert fresh.table.mean().item() == pytest.approx(3, abs=0.025)  # 5 standard errors of 10,000 draws
    assert fresh.table.std().item() == pytest.approx(0.5, rel=0.04)
