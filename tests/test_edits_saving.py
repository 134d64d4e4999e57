"""Edits come back from their file the same, and `microtome edit export` makes a record's edit a folder of weights."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from typer.testing import CliRunner

import tiny
from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.cli.main import app
from microtome.core.errors import DataError, EditError, MicrotomeError
from microtome.edits import bake, damp_subspace, eigenshift, load_edits, save_edits
from microtome.edits.affine import Affine
from microtome.edits.subspace import head_input
from microtome.engine.edit import Add, Constant, Custom, Edit, From, Scale, Zero
from microtome.engine.run import run
from microtome.features.free_directions import random_basis
from microtome.features.head_basis import head_basis, head_weight
from microtome.features.mask import Mask
from microtome.models import Model
from microtome.records import Record

ROWS = [[5, 6, 7, 8, 9], [3, 4, 11, 12, 13]]
RUN = CliRunner()


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def every_edit(model):
    stream, neurons = "blocks.1.resid_post", "blocks.0.mlp.neurons"
    return [
        eigenshift(model, head_basis(head_weight(model)), [1, 4], 0.25),
        eigenshift(model, head_basis(head_weight(model)), range(25), 0.5),
        Edit(neurons, Zero(), units=[3, 1]),
        Edit(neurons, Scale(draw(48)), positions=[0, -1]),
        Edit(stream, Add(draw(32)), positions=torch.tensor([[0], [2]])),
        Edit(neurons, Constant(draw(48)), units=[2], positions=-1),
        Edit(stream, Affine(draw(32, 32), draw(32), 0.5)),
        Edit(stream, Scale(0.5), basis=Mask(random_basis(32, 4, 0), [0, 2]), units=[1]),
        Edit("blocks.2.mlp.down.weight", Scale(2.0), units=[4]),
    ]


def test_every_kind_comes_back_the_same(tmp_path):
    model = Model.load(tiny.build("llama"))
    edits, batch = every_edit(model), model.batch_ids(ROWS)
    found = load_edits(save_edits(edits, tmp_path / "edits", model), model=model)
    assert (found.model, found.dtype, len(found.edits)) == ("LlamaForCausalLM", "float64", len(edits))
    for own, again in zip(edits, found.edits, strict=True):
        want = run(model, batch, edits=[own]).logits
        assert largest(run(model, batch, edits=[again]).logits, want) < FLOAT64  # tensors may lie otherwise in memory
        assert largest(want, run(model, batch).logits) > 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["edits"]


def test_an_edit_of_a_subspace_is_its_columns_and_not_the_head(tmp_path):
    model = Model.load(tiny.build("llama"))
    path = save_edits([eigenshift(model, head_basis(head_weight(model)), [1, 4])], tmp_path / "edits", model)
    assert path.stat().st_size < 32 * 2 * 8 + 1500


def test_what_cannot_be_saved_or_read_is_named_and_leaves_nothing(tmp_path):
    model, path = Model.load(tiny.build("llama")), tmp_path / "edits"
    for value in (Custom(torch.relu), From(draw(1, 1, 32))):
        with pytest.raises(EditError, match=rf"found a value {type(value).__name__}; known are Zero, Constant"):
            save_edits([Edit("final_norm", Zero()), Edit("final_norm", value)], path, model)
    with pytest.raises(EditError, match="found none; give at least one"):
        save_edits([], path, model)
    assert list(tmp_path.iterdir()) == []
    other = Model.load(tiny.build("llama", seed=1))
    save_edits([Edit("final_norm", Zero())], path, model)
    with pytest.raises(EditError, match=r"asked for on 'LlamaForCausalLM' \(blake2b:.* found them made on"):
        load_edits(path, model=other)
    with pytest.raises(DataError, match="No file of edits"):
        load_edits(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="found no safetensors"):
        load_edits(tmp_path / "text")
    bad = [{"site": "final_norm", "value": "Zeero", "fields": {}, "basis": None, "positions": None}]
    for header, why in [
        ({"format": "microtome.pca", "version": "1"}, "found microtome.pca of version 1"),
        ({"format": "microtome.edits", "version": "1"}, "found it incomplete"),
        ({"format": "microtome.edits", "version": "1", "edits": json.dumps(bad)}, "holds a value 'Zeero'"),
        (
            {
                "format": "microtome.edits",
                "version": "1",
                "edits": json.dumps([bad[0] | {"value": "Zero", "basis": {"kind": "rotaton", "fields": {}}}]),
            },
            r"basis of kind 'rotaton'.*Did you mean 'rotation'",
        ),
    ]:
        save_file({"x": torch.ones(1)}, tmp_path / "x", metadata=header)
        with pytest.raises(DataError, match=why) as caught:
            load_edits(tmp_path / "x")
        assert "\n" not in str(caught.value)


# ---- the command


@pytest.fixture
def kept(tmp_path):
    """A model's folder, and a record that keeps an edit of it and something else."""
    tiny.build("llama-tied", dtype=torch.float32).save_pretrained(tmp_path / "model")
    model = Model.load(str(tmp_path / "model"))
    edit = eigenshift(model, head_basis(head_weight(model)), range(8), 0.0)
    with Record.open(tmp_path / "run", study="toy", config={}, seed=0) as record:
        record.add_artefact("eigenshift.safetensors", lambda path: save_edits([edit], path, model))
        record.add_artefact("notes.txt", lambda path: path.write_text("none"))
    return tmp_path, model, edit


def test_the_command_writes_a_folder_that_plain_transformers_loads(kept):
    folder, model, edit = kept
    out = RUN.invoke(app, ["edit", "export", str(folder / "run"), "--to", str(folder / "out")])
    assert out.exit_code == 0 and "exported: 1 edits of" in out.output, (out.output, out.exception)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder / "out").eval()
    batch = model.batch_ids(ROWS)
    with torch.no_grad():
        logits = loaded(**batch.inputs).logits
    assert largest(logits, run(model, batch, edits=bake(model, [edit])).logits) == EXACT
    assert largest(logits, run(model, batch, edits=[edit]).logits) < 10 * FLOAT32
    assert largest(logits, run(model, batch).logits) > 0.1
    assert torch.equal(loaded.get_input_embeddings().weight, model.module.get_input_embeddings().weight)
    file = folder / "run" / "artefacts" / "eigenshift.safetensors"
    again = RUN.invoke(app, ["edit", "export", str(file), "--to", str(folder / "half"), "--dtype", "float16"])
    assert again.exit_code == 0, (again.output, again.exception)
    assert Model.load(str(folder / "half")).dtype == torch.float16


def test_the_command_says_what_it_lacks_and_writes_nothing(kept):
    folder, model, edit = kept
    small = damp_subspace(head_input(model), random_basis(32, 1, 0).axes, 0.99)
    stream = damp_subspace("blocks.0.resid_post", random_basis(32, 1, 0).axes)
    with Record.open(folder / "several", study="toy", config={}, seed=0) as record:
        for name, kept_edit in (("small", small), ("stream", stream), ("whole", edit)):
            record.add_artefact(name, lambda path, e=kept_edit: save_edits([e], path, model))
    with Record.open(folder / "empty", study="toy", config={}, seed=0):
        pass
    tiny.build("llama-tied", dtype=torch.float32, seed=1).save_pretrained(folder / "other")
    several = str(folder / "several")
    for arguments, why in [
        ([str(folder / "absent")], "absent"),
        ([str(folder / "empty")], "found none among its artefacts (it has none)"),
        ([several], "found small, stream, whole; name one with --edit"),
        ([several, "--edit", "smal"], "Did you mean 'small'?"),
        ([several, "--edit", "stream"], "found no plain projection there"),
        ([several, "--edit", "small", "--dtype", "bfloat16"], "of the edit lost in rounding"),
        ([several, "--edit", "whole", "--dtype", "int8"], "choose float16, bfloat16, float32, float64"),
        ([several, "--edit", "whole", "--model", str(folder / "other")], "found them made on"),
    ]:
        out = RUN.invoke(app, ["edit", "export", *arguments, "--to", str(folder / "out")])
        assert isinstance(out.exception, MicrotomeError) and why in str(out.exception), (arguments, out.exception)
        assert "\n" not in str(out.exception) and not (folder / "out").exists()
    assert "small" in Record.load(several).artefacts
