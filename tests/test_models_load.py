"""Loading real folders: round trip with save_pretrained; what is unsafe or damaged is refused in one line."""

import pickle

import pytest
import torch
from transformers.utils import logging

import tiny
from close import EXACT, FLOAT32, largest
from microtome.core.errors import DataError, EditError, ModelError
from microtome.core.site import Site
from microtome.edits import export_edited
from microtome.engine.edit import Edit, Scale
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.measures.attribution import attribution_patching, edge_attribution
from microtome.measures.lenses import direct_logit_attribution, logit_lens
from microtome.measures.outputs import LogitDiff
from microtome.models import Model

ROWS = [[5, 6, 7, 8]]


def test_a_saved_folder_loads_with_equal_logits(tmp_path):
    module = tiny.build("llama", dtype=torch.float32)
    module.save_pretrained(tmp_path)
    model, own = Model.load(str(tmp_path)), Model.load(module)
    assert largest(run(model, model.batch_ids(ROWS)).logits, run(own, own.batch_ids(ROWS)).logits) == EXACT
    assert model.tokenizer is None


def test_vision_folder_keeps_its_class(tmp_path):
    tiny.build("resnet", dtype=torch.float32).save_pretrained(tmp_path)
    assert type(Model.load(str(tmp_path)).module).__name__ == "ResNetForImageClassification"


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"No model folder '.*nowhere'; give a folder with config\.json"):
        Model.load(str(tmp_path / "nowhere"))


def test_folder_without_config(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"holds no config.json \(found \['notes.txt'\]\)"):
        Model.load(str(tmp_path))


def test_a_lone_checkpoint_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="is a file, not a folder"):
        Model.load(str(path))


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    tiny.build("llama").config.save_pretrained(tmp_path)
    torch.save({"weight": Hostile()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        Model.load(str(tmp_path))
    assert "executed" not in capsys.readouterr().out


def test_nan_in_weights_names_the_tensor():
    module = tiny.build("llama")
    module.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"1 non-finite values in 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        Model.load(module)


def test_text_without_a_tokenizer_is_refused(tiny_model):
    with pytest.raises(DataError, match="has no tokenizer"):
        tiny_model("llama").batch(["hello"])


def test_tokens_that_the_model_does_not_know_are_named(tiny_model):
    model = tiny_model("llama")
    entries = model.module.get_input_embeddings().weight.shape[0]
    for wrong in (entries, -1):
        with pytest.raises(DataError, match=rf"Token {wrong} in row 1 .* has {entries} rows; give the tokenizer"):
            model.batch_ids([[1, 2, 3], [1, wrong]])
    assert model.batch_ids([[1, entries - 1], [0]]).seq == 2


def test_empty_batches_are_refused(tiny_model):
    with pytest.raises(DataError, match="found none"):
        tiny_model("llama").batch_ids([])
    with pytest.raises(DataError, match="row 1 with no tokens"):
        tiny_model("llama").batch_ids([[1], []])


def bars(capfd) -> list[str]:
    said = capfd.readouterr().err
    return [name for name in ("Loading weights", "Writing model shards") if name in said]


def test_local_folders_are_read_and_written_without_progress_bars_and_the_users_setting_stands(tmp_path, capfd):
    module = tiny.build("llama", dtype=torch.float32)
    seen = []
    earlier = logging.set_tqdm_hook(
        lambda factory, args, kwargs: seen.append(kwargs["desc"]) or factory(*args, **kwargs)
    )
    try:
        module.save_pretrained(tmp_path / "plain")
        assert bars(capfd) == ["Writing model shards"]  # the control: transformers' own way shows it
        model = Model.load(str(tmp_path / "plain"))
        export_edited(model, [Edit("head.weight", Scale(2.0))], tmp_path / "edited")
        with pytest.raises(ModelError, match="holds a pickle"):
            Model.load(str(pickled(tmp_path / "pickle")))
        assert bars(capfd) == [] and seen == ["Writing model shards"] and logging.is_progress_bar_enabled()
        type(module).from_pretrained(tmp_path / "edited")
        assert bars(capfd) == ["Loading weights"] and seen[1:] == ["Loading weights"]  # even after a load that failed
    finally:
        logging.set_tqdm_hook(earlier)


def pickled(folder):
    """A folder whose checkpoint runs code when it is read."""
    tiny.build("llama").config.save_pretrained(folder)
    torch.save(Hostile(), folder / "pytorch_model.bin")
    return folder


PLACES = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "model.rotary_emb")


def placed(folder, offloaded) -> Model:
    """The model of a folder with some parts offloaded to disk."""
    where = {p: "disk" if p in offloaded else "cpu" for p in (*PLACES, "lm_head")} if offloaded else {"": "cpu"}
    return Model.load(str(folder), device_map=where)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder and its model, loaded plainly."""
    folder = tmp_path_factory.mktemp("saved")
    tiny.build("llama", dtype=torch.float32).save_pretrained(folder)
    return folder, Model.load(str(folder))


@pytest.mark.parametrize("offloaded", [(), ("model.layers.1",), ("model.embed_tokens", "lm_head")], ids=str)
def test_a_model_placed_by_accelerate_runs_sweeps_and_attributes_as_one_on_a_single_device(saved, offloaded):
    folder, own = saved
    model = placed(folder, offloaded)
    assert (next(iter(model.module.model.layers[1].parameters())).device.type == "meta") == (
        "model.layers.1" in offloaded
    )
    assert model.device.type == "cpu" and len(model.anatomy.blocks) == 3
    clean, corrupt = model.batch_ids([[5, 6, 7, 8]]), model.batch_ids([[5, 9, 7, 8]])
    metric = LogitDiff(torch.tensor([1]), torch.tensor([3]))
    cells = [
        Edit("blocks.0.attn.heads", units=[1]),
        Edit("blocks.1.mlp.neurons", units=[1]),
        Edit("blocks.2.resid_pre"),
    ]
    for measure in (
        lambda m: run(m, clean, edits=[Edit("blocks.1.attn.pattern", units=[0])]).logits,
        lambda m: sweep(m, clean, cells, metric).effects,
        lambda m: attribution_patching(m, clean, corrupt, "blocks.1.mlp.neurons", metric)[Site("blocks.1.mlp.neurons")],
        lambda m: edge_attribution(m, clean, corrupt, metric, steps=2).scores,
        lambda m: logit_lens(m, clean)[Site("blocks.1.resid_post")],
        lambda m: direct_logit_attribution(m, clean, torch.tensor([1]), torch.tensor([3])).parts[
            Site("blocks.1.mlp.out")
        ],
    ):
        assert largest(measure(model), measure(own)) < FLOAT32
    assert sweep(model, clean, cells, metric).plan.mode == "replay"


def test_an_offloaded_weight_cannot_be_edited_and_the_others_can(saved):
    folder, own = saved
    model = placed(folder, ("model.layers.1",))
    batch = model.batch_ids(ROWS)
    with pytest.raises(EditError, match=r"Cannot edit 'blocks\.1\.mlp\.down\.weight': the weight is offloaded"):
        run(model, batch, edits=[Edit("blocks.1.mlp.down.weight", Scale(0.5))])
    double = [Edit("head.weight", Scale(2.0))]
    assert largest(run(model, batch, edits=double).logits, run(own, batch, edits=double).logits) < FLOAT32
    with pytest.raises(EditError, match="offloaded"):
        export_edited(model, double, folder / "out")
