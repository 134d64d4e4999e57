"""EigenShift as an edit: the paper's head by a hook, by weights, in an exported folder; and what stays untouched."""

import pytest
import torch
import transformers

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import EditError, MeasureError
from microtome.edits import bake, damp_subspace, eigenshift, export_edited
from microtome.edits.subspace import head_input
from microtome.engine.edit import Custom, Edit, From, Scale
from microtome.engine.generate import generate
from microtome.engine.run import run
from microtome.features.free_directions import random_basis
from microtome.features.head_basis import head_basis, head_weight
from microtome.models import Model

ROWS = [[5, 6, 7, 8, 9], [3, 4, 11, 12, 13]]
D = 32


def factorised(model):
    return head_basis(head_weight(model), centre=False)


def papers_weight(weight, units, a):
    """U S' V' by a full SVD, as the paper writes it."""
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    s[units] *= a
    return (u * s) @ vh


@pytest.mark.parametrize("k", [3, 20])
@pytest.mark.parametrize("a", [0.0, 0.3, -1.0])
@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "bloom", "qwen3"])
def test_hook_weights_and_the_papers_svd_give_the_same_logits(tiny_model, family, a, k):
    model, units = tiny_model(family), torch.arange(1, 1 + k)
    batch = model.batch_ids(ROWS)
    edit = eigenshift(model, factorised(model), units, a)
    hooked = run(model, batch, edits=[edit], read=head_input(model))
    (baked,) = bake(model, [edit])
    want = papers_weight(head_weight(model), units, a)
    assert largest(run(model, batch, edits=[baked]).logits, hooked.logits) < FLOAT64
    assert largest(baked.value.value, want) < FLOAT64
    clean = run(model, batch).logits
    assert largest(hooked.logits, clean) > 0.1
    # the change of logits, its size, and the Frobenius norm and spectrum of the new head
    weight, basis = head_weight(model), factorised(model)
    change = hooked.logits - clean
    h = run(model, batch, read=head_input(model))[head_input(model)]
    size = ((1 - a) ** 2 * (basis.singular[units] * (h @ basis.axes[:, units])).square()).sum(-1)
    assert largest(change.square().sum(-1), size) < FLOAT64
    assert (want - weight).square().sum() == pytest.approx(
        float((1 - a) ** 2 * basis.singular[units].square().sum()), rel=1e-9
    )
    scaled = basis.singular.clone()
    scaled[units] *= abs(a)
    assert largest(torch.linalg.svdvals(baked.value.value), scaled.sort(descending=True).values) < FLOAT64


def test_damping_twice_is_damping_by_the_product_and_a_reflection_keeps_lengths():
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes, at = random_basis(D, 5, 0).axes, torch.zeros(6, dtype=torch.long)

    def damped(x, a):
        return damp_subspace("blocks.0.resid_post", axes, a).apply(x, at, at)

    assert largest(damped(damped(x, 0.3), -0.7), damped(x, -0.21)) < FLOAT64
    assert largest(damped(damped(x, 0), 0), damped(x, 0)) < FLOAT64
    assert largest(damped(x, -1).norm(dim=1), x.norm(dim=1)) < FLOAT64
    assert largest(damped(damped(x, -1), -1), x) < FLOAT64
    assert largest(damped(x, 1), x) == EXACT
    # more than half of the directions: through the complement, the same map
    wide = random_basis(D, 27, 1).axes
    got = damp_subspace("blocks.0.resid_post", wide, 0.4).apply(x, at, at)
    assert largest(got, x - 0.6 * x @ wide @ wide.T) < FLOAT64


@pytest.mark.parametrize("k", [2, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_leaving_all_of_it_leaves_every_bit_of_a_generation(dtype, k):
    model = Model.load(tiny.build("llama", dtype=dtype))
    batch, edit = model.batch_ids(ROWS), eigenshift(model, factorised(model), range(k), 1.0)
    assert largest(run(model, batch, edits=[edit]).logits, run(model, batch).logits) == EXACT
    plain = generate(model, batch, 12, sample=True, seed=3)
    assert torch.equal(generate(model, batch, 12, edits=[edit], sample=True, seed=3), plain)
    other = eigenshift(model, factorised(model), range(k), -1.0)
    assert not torch.equal(generate(model, batch, 12, edits=[other], sample=True, seed=3), plain)
    assert bake(model, [edit]) == []


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_tied_embeddings_keep_their_bytes(tmp_path, family):
    model = Model.load(tiny.build(family, dtype=torch.float32))
    embedding = model.module.get_input_embeddings().weight
    assert embedding.data_ptr() == head_weight(model).data_ptr()
    before, batch = embedding.detach().clone(), model.batch_ids(ROWS)
    clean = run(model, batch, read="blocks.*.resid_post")
    edit = eigenshift(model, factorised(model), range(6), 0.0)
    hooked = run(model, batch, edits=[edit], read="blocks.*.resid_post")
    assert all(torch.equal(hooked[s], clean[s]) for s in clean)  # what is read inside is not what the edit touches
    baked = bake(model, [edit])
    export_edited(model, baked, tmp_path / "out")
    assert torch.equal(embedding, before)
    assert torch.equal(run(model, batch).logits, clean.logits)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(loaded.get_input_embeddings().weight, before) and not loaded.config.tie_word_embeddings
    with torch.no_grad():
        assert largest(loaded(**batch.inputs).logits, run(model, batch, edits=baked).logits) == EXACT
    assert largest(run(model, batch, edits=baked).logits, hooked.logits) < 1e-4
    assert largest(hooked.logits, clean.logits) > 0.1


def test_a_small_edit_is_not_baked_into_a_type_that_would_lose_it():
    """In bfloat16, damping one singular value by 0.9 is lost to a part; all of many is kept; float32 keeps both."""
    module = tiny.build("llama", dtype=torch.float32)
    model = Model.load(module)
    small, large = (eigenshift(model, factorised(model), range(n), a) for n, a in ((1, 0.9), (16, 0.0)))
    assert len(bake(model, [small])) == len(bake(model, [large])) == 1
    half = Model.load(module.to(torch.bfloat16))
    assert len(bake(half, [large])) == 1
    with pytest.raises(
        EditError, match=r"into 'lm_head.weight' in bfloat16 .* found \d+% of the edit lost in rounding"
    ):
        bake(half, [small])
    (anyway,) = bake(half, [small], lost=1.0)
    exact = papers_weight(head_weight(half), [0], 0.9)
    gone = (anyway.value.value.double() - exact).norm() / (exact - head_weight(half).double()).norm()
    assert 0.05 < gone < 1


def test_what_weights_cannot_do_is_refused_in_one_line(tiny_model):
    model, axes = tiny_model("llama"), random_basis(D, 3, 0).axes
    batch = model.batch_ids(ROWS)
    seen = run(model, batch, read="blocks.0.mlp.neurons")["blocks.0.mlp.neurons"]
    for edit, why in [
        (damp_subspace("blocks.0.resid_post", axes), r"no plain projection there \(LlamaDecoderLayer, output\)"),
        (damp_subspace(head_input(model), axes, positions=-1), "found chosen positions"),
        (Edit("blocks.0.mlp.neurons", From(seen)), "found From, which varies by token"),
        (Edit("blocks.0.mlp.neurons", Custom(torch.tanh)), "found it not affine"),
        (Edit("blocks.0.mlp.neurons", Custom(lambda f: f + 1)), r"no bias to carry|has no bias"),
    ]:
        with pytest.raises(EditError, match=why) as caught:
            bake(model, [edit])
        assert "\n" not in str(caught.value)


def test_a_shift_goes_into_a_bias_where_there_is_one(tiny_model):
    model = tiny_model("gpt2")
    batch = model.batch_ids(ROWS)
    edits = [
        Edit("blocks.1.mlp.neurons", Custom(lambda f: 0.5 * f + 1)),
        Edit("blocks.0.attn.heads", Scale(0.2), units=[1]),
    ]
    edits += [Edit("blocks.1.mlp.out", Custom(lambda f: f.flip(1) - 2)), Edit("blocks.2.mlp.up", Scale(3.0), units=[4])]
    hooked = run(model, batch, edits=edits).logits
    assert largest(run(model, batch, edits=bake(model, edits)).logits, hooked) < FLOAT64
    assert largest(hooked, run(model, batch).logits) > 0.1


def test_edits_of_one_tensor_bake_in_order_and_weight_edits_pass_through(tiny_model):
    model = tiny_model("llama")
    batch, axes = model.batch_ids(ROWS), [random_basis(D, 3, i).axes for i in range(2)]
    both = [damp_subspace(head_input(model), q, 0.0) for q in axes]
    own = Edit("blocks.0.mlp.down.weight", Scale(0.5))
    hooked = run(model, batch, edits=[*both, own]).logits
    assert largest(run(model, batch, edits=bake(model, [*both, own])).logits, hooked) < FLOAT64
    assert largest(run(model, batch, edits=bake(model, [*both[::-1], own])).logits, hooked) > 1e-3


def test_names_of_one_tensor_bake_together(tiny_model):
    """`final_norm` is what the head reads, heads are what the output projection reads, by another name and shape."""
    model = tiny_model("llama")
    batch, path = model.batch_ids(ROWS), model.anatomy.blocks[1].o
    first, second = (damp_subspace(head_input(model), random_basis(D, 3, i).axes) for i in range(2))
    norm = Edit("final_norm", second.value, basis=second.basis)
    flat = damp_subspace(f"{path}.input", random_basis(D, 5, 2).axes, 0.5)
    edits = [first, norm, flat, Edit("blocks.1.attn.heads", Scale(0.1), units=[0])]
    hooked = run(model, batch, edits=edits).logits
    assert largest(run(model, batch, edits=bake(model, edits)).logits, hooked) < FLOAT64
    assert largest(hooked, run(model, batch).logits) > 1e-3


def test_edits_that_undo_each_other_are_not_taken_for_lost_ones():
    model = Model.load(tiny.build("llama", dtype=torch.float32))
    turn = damp_subspace(head_input(model), random_basis(D, 3, 0).axes, -1.0)
    assert bake(model, [turn, turn]) == []
    assert len(bake(model, [turn])) == 1


def test_bad_choices_are_refused_in_one_line(tiny_model):
    model = tiny_model("llama")
    basis = factorised(model)
    for make, kind, why in [
        (
            lambda: eigenshift(model, basis, range(40)),
            EditError,
            r"40 vectors from 0 to 39 was asked for, found 32 \(0-31\)",
        ),
        (lambda: eigenshift(model, basis, [-1]), EditError, "1 vectors from -1 to -1"),
        (lambda: eigenshift(model, basis, [1], float("nan")), EditError, "by nan was asked for; give a finite number"),
        (lambda: eigenshift(model, head_basis(torch.randn(50, 9)), [1]), EditError, "a basis of width 9 for a head"),
        (lambda: damp_subspace("final_norm", torch.ones(4, 8)), MeasureError, "rank of at most the width"),
        (lambda: damp_subspace("final_norm", torch.ones(8, 2)), MeasureError, "off by"),
    ]:
        with pytest.raises(kind, match=why) as caught:
            make()
        assert "\n" not in str(caught.value)
    headless = Model.load(tiny.build("llama").model, anatomy=False)
    with pytest.raises(EditError, match="output head of 'LlamaModel' was asked for, found none"):
        eigenshift(headless, basis, [1])


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = Model.load(tiny.build("llama", dtype=torch.float32))
    edits = bake(model, [eigenshift(model, factorised(model), range(4), 0.0)])

    def failing(self, folder, **kwargs):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(type(model.module), "save_pretrained", failing)
    with pytest.raises(OSError, match="no space"):
        export_edited(model, edits, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(EditError, match="found something there; give another"):
        export_edited(model, edits, tmp_path / "used")
    assert (tmp_path / "used" / "notes.txt").read_text() == "mine"


def test_generation_is_the_same_hooked_and_exported(tmp_path):
    model = Model.load(tiny.build("llama-tied"))
    batch, edit = model.batch_ids(ROWS), eigenshift(model, factorised(model), range(8), 0.0)
    export_edited(model, bake(model, [edit]), tmp_path / "out")
    loaded = Model.load(str(tmp_path / "out"))
    hooked = generate(model, batch, 10, edits=[edit])
    assert torch.equal(generate(loaded, batch, 10), hooked)
    assert not torch.equal(generate(model, batch, 10), hooked)
