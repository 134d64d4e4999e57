"""Show 7: bad input is answered by one line that says what was asked, what was found, and what to do."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import tiny
from microtome.cli.main import app
from microtome.core.config import from_dict, from_toml, with_settings
from microtome.core.errors import (
    AnatomyError,
    ConfigError,
    DataError,
    EditError,
    MeasureError,
    MicrotomeError,
    ModelError,
    SiteError,
    StoreError,
    UnitsError,
)
from microtome.core.units import Units
from microtome.data.pairs import Pair, PairSet
from microtome.edits import ablate
from microtome.engine.edit import Edit
from microtome.engine.run import run
from microtome.engine.store import ActivationStore, capture
from microtome.engine.sweep import sweep
from microtome.measures.atp_star import atp_star
from microtome.measures.attribution import attribution_patching, edge_attribution
from microtome.measures.outputs import LogitDiff
from microtome.models import Model

ROWS = [[5, 6, 7, 8], [3, 4, 11, 12]]
METRIC = LogitDiff(torch.tensor([1, 2]), torch.tensor([3, 4]))


def one_line(error, kind, *parts):
    """Check class and text; the text is one line."""
    assert type(error.value) is kind and isinstance(error.value, MicrotomeError)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value), str(error.value)


# ---- 1. an unknown site


@pytest.mark.parametrize(
    ("site", "parts"),
    [
        ("blocks.9.mlp.neurons", ["(this model has blocks 0-2)", "Did you mean 'blocks.2.mlp.neurons'?"]),
        ("blocks.1.mlp.neuron", ["Did you mean 'blocks.1.mlp.neurons'?"]),
        ("blocks.*.mlp.nerons", ["No site 'blocks.*.mlp.nerons'"]),
        ("blocks..x", ["'blocks..x' is not a site", "'blocks.3.mlp.neurons'"]),
    ],
)
@pytest.mark.parametrize("how", ["read", "edit", "sweep", "attribution", "capture"])
def test_unknown_site(tiny_model, tmp_path, how, site, parts):
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    ask = {
        "read": lambda: run(model, batch, read=site),
        "edit": lambda: run(model, batch, edits=[Edit(site)]),
        "sweep": lambda: sweep(model, batch, [Edit(site)], METRIC),
        "attribution": lambda: attribution_patching(model, batch, batch, site, METRIC),
        "capture": lambda: capture(model, [batch], site, tmp_path),
    }[how]
    if "*" in site and how in ("edit", "sweep"):
        with pytest.raises(EditError) as error:
            ask()
        return one_line(error, EditError, "found the glob", "make one edit for each site")
    with pytest.raises(SiteError) as error:
        ask()
    one_line(error, SiteError, *parts)


# ---- 2. a unit out of range


@pytest.mark.parametrize(("units", "text"), [([48], "unit 48 does not exist, it has 48 (0-47)"), ([-1, 2], "unit -1")])
@pytest.mark.parametrize("how", ["run", "sweep"])
def test_unit_out_of_range(tiny_model, how, units, text):
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    with pytest.raises(EditError) as error:
        edit = Edit("blocks.0.mlp.neurons", units=units)
        run(model, batch, edits=[edit]) if how == "run" else sweep(model, batch, [edit], METRIC)
    one_line(error, EditError, "Edit at 'blocks.0.mlp.neurons'", text)


def test_unit_sets_out_of_range(tiny_model):
    model = tiny_model("llama")
    chosen = Units({"blocks.1.attn.heads": [1, 4]})
    with pytest.raises(UnitsError) as error:
        chosen.check(model.space("blocks.*.attn.heads"))
    one_line(error, UnitsError, "Unit 4 at 'blocks.1.attn.heads' does not exist: it has 4 units (0-3).")
    with pytest.raises(EditError) as error:
        run(model, model.batch_ids(ROWS), edits=ablate(chosen))
    one_line(error, EditError, "unit 4 does not exist, it has 4 (0-3)")


# ---- 3. an unknown configuration key


@dataclass(frozen=True)
class Config:
    """Some settings."""

    seed: int = 0
    batch_size: int = 8


@pytest.mark.parametrize(
    "ask",
    [
        lambda: from_dict(Config, {"batchsize": 3}),
        lambda: from_toml(Config, "batchsize = 3"),
        lambda: with_settings(Config(), ["batchsize=3"]),
    ],
    ids=["dict", "toml", "--set"],
)
def test_unknown_config_key(ask):
    with pytest.raises(ConfigError) as error:
        ask()
    one_line(
        error, ConfigError, "No key 'batchsize' in Config", "it has seed, batch_size", "Did you mean 'batch_size'?"
    )


# ---- 4, 5. a model folder that is not there; a checkpoint that is a pickle


def test_missing_model_folder(tmp_path):
    with pytest.raises(ModelError) as error:
        Model.load(str(tmp_path / "nowhere"))
    one_line(error, ModelError, "No model folder", "nowhere", "give a folder with config.json, a Hub id, or zoo:NAME")
    done = CliRunner().invoke(app, ["inspect", "./nowhere"])
    assert done.exit_code != 0


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [Hostile(), {"lm_head.weight": Hostile()}], ids=["bare", "in a state dict"])
def test_pickle_checkpoint(tmp_path, content, capsys):
    lone = tmp_path / "model.pt"
    lone.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError) as error:
        Model.load(str(lone))
    one_line(error, ModelError, "is a file, not a folder", "perhaps a pickle", "model.safetensors")
    tiny.build("llama").config.save_pretrained(tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        Model.load(str(tmp_path))
    one_line(error, ModelError, "holds a pickle that runs code; convert it to safetensors first")
    assert "executed" not in capsys.readouterr().out


def test_a_plain_pickled_state_dict_is_data_and_loads(tmp_path):
    """The control: weights alone, read with `weights_only`, run no code."""
    module = tiny.build("llama", dtype=torch.float32)
    module.config.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    assert len(Model.load(str(tmp_path)).anatomy.blocks) == 3


# ---- 6. a corrupted shard of the store


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "gone", "header"])
def test_corrupted_shard(tiny_model, tmp_path, damage):
    model = tiny_model("llama")
    capture(model, [model.batch_ids(ROWS)], "blocks.0.mlp.neurons", tmp_path)
    shard = tmp_path / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    else:
        data[0 if damage == "header" else -1] ^= 1
        shard.write_bytes(data[:-7] if damage == "cut short" else data)
    store = ActivationStore.open(tmp_path)
    for ask in (lambda: store.tokens("blocks.0.mlp.neurons", [0]), lambda: list(store.stream("blocks.0.mlp.neurons"))):
        with pytest.raises(StoreError) as error:
            ask()
        found = "is missing" if damage == "gone" else "is damaged (checksum differs from the manifest)"
        one_line(error, StoreError, "shard-00000.safetensors", found, "capture")


# ---- 7. an empty data set


def test_empty_data_set(tiny_model, tmp_path):
    model = tiny_model("llama")
    with pytest.raises(DataError) as error:
        model.batch_ids([])
    one_line(error, DataError, "needs at least one non-empty prompt, found none")
    with pytest.raises(DataError) as error:
        Model.load("zoo:hand").batch([])
    one_line(error, DataError, "needs at least one non-empty prompt, found none")
    with pytest.raises(DataError) as error:
        PairSet(())
    one_line(error, DataError, "found none; check the filter or file that should supply them")
    with pytest.raises(StoreError) as error:
        capture(model, [], "blocks.0.mlp.out", tmp_path)
    one_line(error, StoreError, "the batches held no token; give at least one prompt")


# ---- 8. a pair of unequal token length


GROUPS = {g: "x" for g in ("item", "entity", "template", "skeleton", "relation", "cell")}


@pytest.mark.parametrize("measure", [attribution_patching, edge_attribution, atp_star])
def test_prompts_of_unequal_length_do_not_pair(tiny_model, measure):
    model = tiny_model("llama")
    sites = () if measure is edge_attribution else ("blocks.*.mlp.neurons",)
    longer = model.batch_ids([[*ROWS[0], 9], ROWS[1]])
    for other in (longer, model.batch_ids([ROWS[0], ROWS[1][:3]])):  # another length, or the same by padding
        with pytest.raises(MeasureError) as error:
            measure(model, model.batch_ids(ROWS), other, *sites, METRIC)
        one_line(error, MeasureError, "must pair token by token: found (2, 4) and", "use pairs of equal token length")


def test_a_pair_of_unequal_length_is_named():
    pairs = PairSet((Pair("a b c", "a b", "x", "y", "cause", GROUPS),))
    with pytest.raises(DataError) as error:
        pairs.require_equal_length(str.split)
    one_line(error, DataError, "Pair 0 ('a b c' / 'a b') needs prompts of equal token length; found 3 and 2")


# ---- 9. NaN in weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("from_disk", [False, True])
def test_non_finite_weights(tmp_path, value, from_disk):
    module = tiny.build("llama", dtype=torch.float32)
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight[0, :2] = value
    if from_disk:
        module.save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        Model.load(str(tmp_path) if from_disk else module)
    one_line(error, ModelError, "has 2 non-finite values in 'model.layers.1.mlp.down_proj.weight'", "load another")


# ---- 10. anatomy not found


class Bag(nn.Module):
    """A bag of words: no blocks, no attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, input_ids):
        return self.out(self.embed(input_ids).mean(1))


class Deaf(Bag):
    """A module that takes neither tokens nor images."""

    def forward(self, waves):
        return self.out(waves)


def test_anatomy_not_found():
    with pytest.raises(AnatomyError) as error:
        Model.load(Bag())
    one_line(
        error,
        AnatomyError,
        "No blocks found in Bag: looked for a ModuleList whose elements each run once and attend once",
        "found lists none and 0 attention operations",
        "Load it with anatomy=False",
    )
    with pytest.raises(AnatomyError) as error:
        Model.load(Deaf())
    one_line(error, AnatomyError, "Deaf.forward takes ['waves']", "neither 'input_ids' nor 'pixel_values'", "example=")
    model = Model.load(Bag(), anatomy=False)  # the way out that the message names
    assert run(model, model.batch_ids([[1, 2]]), read="embed")["embed"].shape == (1, 2, 4)
