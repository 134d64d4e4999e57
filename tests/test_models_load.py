"""Loading real folders: round trip with save_pretrained; what is unsafe or damaged is refused in one line."""

import pickle

import pytest
import torch

import tiny
from close import EXACT, largest
from microtome.core.errors import DataError, ModelError
from microtome.engine.run import run
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


def test_empty_batches_are_refused(tiny_model):
    with pytest.raises(DataError, match="found none"):
        tiny_model("llama").batch_ids([])
    with pytest.raises(DataError, match="row 1 with no tokens"):
        tiny_model("llama").batch_ids([[1], []])
