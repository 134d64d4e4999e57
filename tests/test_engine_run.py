"""run: nothing edited is bit-exact; an edit does exactly what was asked; the model and foreign hooks are unharmed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import EditError, SiteError
from microtome.engine.edit import Add, Constant, Custom, Edit, From, Scale, Zero
from microtome.engine.generate import generate
from microtome.engine.run import run
from microtome.models import Model

CLEAN = [[5, 6, 7, 8, 9, 10], [3, 4, 11, 12, 13, 14]]
CORRUPT = [[5, 6, 17, 8, 9, 10], [3, 4, 21, 12, 13, 14]]
SAMPLE = ("gpt2", "llama", "gemma3", "neox", "falcon", "bloom", "mixtral", "bert")


class Halves:
    """An orthogonal basis: sum and difference of neighbouring coordinates."""

    def encode(self, x):
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.cat([a + b, a - b], -1) / 2**0.5

    def decode(self, f):
        s, d = f.chunk(2, -1)
        return torch.stack([s + d, s - d], -1).flatten(-2) / 2**0.5


class Lossy:
    """A basis that keeps the first four coordinates only."""

    def encode(self, x):
        return x[..., :4]

    def decode(self, f):
        return torch.nn.functional.pad(f, (0, 28))


@pytest.mark.parametrize("family", SAMPLE)
def test_editing_nothing_is_bit_exact(tiny_model, family):
    model = tiny_model(family)
    batch = model.batch_ids(CLEAN)
    own = run(model, batch).logits
    for site in model.sites:
        assert largest(run(model, batch, edits=[Edit(site, Scale(1.0))]).logits, own) == EXACT, site
        assert largest(run(model, batch, edits=[Edit(site, Zero(), units=[])]).logits, own) == EXACT, site
    for basis in (Halves(), Lossy()):
        edit = Edit("blocks.1.resid_pre", Scale(1.0), basis=basis)
        assert largest(run(model, batch, edits=[edit]).logits, own) == EXACT


@pytest.mark.parametrize("family", SAMPLE)
def test_every_site_matters_and_patching_from_itself_does_nothing(tiny_model, family):  # V6
    model = tiny_model(family)
    batch = model.batch_ids(CLEAN)
    seen = run(model, batch, read=list(model.sites))
    for site in model.sites:
        own = seen[site].transpose(1, 2) if site.kind == "attn.pattern" else seen[site]
        assert largest(run(model, batch, edits=[Edit(site, From(own))]).logits, seen.logits) < FLOAT64, site
        assert largest(run(model, batch, edits=[Edit(site)]).logits, seen.logits) > 1e-3, site


@pytest.mark.parametrize("family", SAMPLE)
def test_whole_residual_from_another_run_gives_its_logits(tiny_model, family):  # V1, V2
    model = tiny_model(family)
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    source = run(model, clean, read="blocks.*.resid_*")
    for site in source:
        patched = run(model, corrupt, edits=[Edit(site, From(source[site]))]).logits
        assert largest(patched, source.logits) < FLOAT64, site
    assert largest(run(model, corrupt).logits, source.logits) > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "falcon"])
def test_a_head_is_its_slice_of_the_output_projection_and_its_pattern(tiny_model, family):  # V5
    model = tiny_model(family)
    batch = model.batch_ids(CLEAN)
    heads = run(model, batch, edits=[Edit("blocks.1.attn.heads", units=[2])]).logits
    pattern = run(model, batch, edits=[Edit("blocks.1.attn.pattern", units=[2])]).logits
    assert largest(heads, pattern) < FLOAT64
    block = model.anatomy.blocks[1]
    module = model.module.get_submodule(block.o)
    columns = slice(2 * block.d_head, 3 * block.d_head)
    weight = module.weight.detach().clone()
    weight[(columns, slice(None)) if type(module).__name__ == "Conv1D" else (slice(None), columns)] = 0
    zeroed = run(model, batch, edits=[Edit("blocks.1.attn.o.weight", Constant(weight))]).logits
    assert largest(heads, zeroed) < FLOAT64


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_ablating_a_shared_key_value_head_ablates_all_its_query_heads(tiny_model, family):  # V15
    model = tiny_model(family)
    batch = model.batch_ids(CLEAN)
    shared = run(model, batch, edits=[Edit("blocks.0.attn.v", units=[1])]).logits
    queries = run(model, batch, edits=[Edit("blocks.0.attn.heads", units=[2, 3])]).logits
    assert largest(shared, queries) < FLOAT64


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_nothing_before_the_edited_position_moves(tiny_model, family):  # V8
    model = tiny_model(family)
    batch = model.batch_ids(CLEAN)
    own = run(model, batch).logits
    moved = run(model, batch, edits=[Edit("blocks.1.resid_pre", Add(torch.arange(32.0)), positions=3)]).logits
    assert largest(moved[:, :3], own[:, :3]) < FLOAT64 and largest(moved[:, 3:], own[:, 3:]) > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 47)), st.integers(0, 2))
def test_denoising_a_set_is_noising_its_complement(tiny_model, units, block):  # V7
    model = tiny_model("llama")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    cut = [f"blocks.{block}.resid_mid", f"blocks.{block}.mlp.out"]
    a, b = (run(model, x, read=[*cut, f"blocks.{block}.mlp.neurons"]) for x in (clean, corrupt))
    site, rest = f"blocks.{block}.mlp.neurons", sorted(set(range(48)) - units)
    carry = lambda to: Edit(f"blocks.{block}.resid_mid", From(to[cut[0]]))  # noqa: E731 - the rest of the cut
    denoise = run(model, corrupt, edits=[carry(a), Edit(site, From(a[site])), Edit(site, From(b[site]), units=rest)])
    noise = run(model, clean, edits=[carry(a), Edit(site, From(b[site]), units=rest)])
    assert largest(denoise.logits, noise.logits) < FLOAT64


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)))
def test_order_of_edits_of_different_units_does_not_matter(tiny_model, order):
    model = tiny_model("llama")
    batch = model.batch_ids(CLEAN)
    edits = [
        Edit("blocks.0.attn.heads", units=[0]),
        Edit("blocks.0.mlp.neurons", Scale(2.0), units=[3]),
        Edit("blocks.2.mlp.neurons", Add(0.5), units=[1]),
        Edit("blocks.0.attn.heads", Constant(0.3), units=[3]),
    ]
    one = run(model, batch, edits=edits).logits
    assert largest(run(model, batch, edits=[edits[i] for i in order]).logits, one) == EXACT


def test_edits_at_one_unit_happen_in_the_order_given(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(CLEAN)
    site = "blocks.0.mlp.neurons"
    edits = [Edit(site, Constant(1.0), units=[3]), Edit(site, Scale(3.0), units=[3])]
    seen = run(model, batch, read=site, edits=edits)[site]
    assert (seen[..., 3] == 3.0).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5))
def test_splitting_the_batch_changes_nothing(tiny_model, size):
    model = tiny_model("qwen2")
    rows = [[7 * i % 60, i, 3 + i, 9, 2 * i] for i in range(5)]
    batch = model.batch_ids(rows)
    edits = [Edit("blocks.1.resid_mid", Add(0.2), positions=[2])]
    whole = run(model, batch, edits=edits).logits
    parts = torch.cat([run(model, part, edits=edits).logits for part in batch.split(size)])
    assert largest(parts, whole) < FLOAT64


def test_orthogonal_basis_swapped_whole_is_a_full_patch_and_a_lossy_one_keeps_the_rest(tiny_model):
    model = tiny_model("llama")
    clean, corrupt = model.batch_ids(CLEAN), model.batch_ids(CORRUPT)
    site = "blocks.1.resid_pre"
    source, own = (run(model, b, read=site)[site] for b in (clean, corrupt))
    full = run(model, corrupt, edits=[Edit(site, From(source), basis=Halves())], read=site)
    assert largest(full[site], source) < FLOAT64
    part = run(model, corrupt, edits=[Edit(site, From(source), basis=Lossy())], read=site)[site]
    assert largest(part[..., :4], source[..., :4]) < FLOAT64 and largest(part[..., 4:], own[..., 4:]) == EXACT


def test_positions_per_row(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(CLEAN)
    edits = [Edit("blocks.0.resid_pre", Constant(7.0), positions=torch.tensor([1, 4]))]
    seen = run(model, batch, read="blocks.0.resid_pre", edits=edits)["blocks.0.resid_pre"]
    hit = (seen == 7.0).all(-1)
    assert hit.nonzero().tolist() == [[0, 1], [1, 4]]


def test_weight_edits_leave_the_model_and_its_tied_embedding_alone(tiny_model):
    model = tiny_model("llama-tied")
    batch = model.batch_ids(CLEAN)
    own, before = run(model, batch), model.module.lm_head.weight.detach().clone()
    edited = run(model, batch, edits=[Edit("head.weight", Scale(2.0))], read="embed")
    assert largest(edited.logits, 2 * own.logits) < FLOAT64
    assert largest(edited["embed"], run(model, batch, read="embed")["embed"]) == EXACT
    assert largest(model.module.lm_head.weight.detach(), before) == EXACT


def test_foreign_hooks_and_hidden_states_survive(tiny_model):
    model = Model.load(tiny.build("llama"))
    calls = []
    model.module.model.layers[0].register_forward_hook(lambda *a: calls.append(1))
    batch = model.batch_ids(CLEAN)
    run(model, batch, read="**", edits=[Edit("blocks.0.attn.pattern", units=[0])])
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()) == 1
    out = model.module(**batch.inputs, output_hidden_states=True)
    assert len(calls) == 2 and len(out.hidden_states) == 4


def test_works_under_inference_mode(tiny_model):
    model = tiny_model("llama")
    batch = model.batch_ids(CLEAN)
    edits = [Edit("blocks.1.mlp.neurons", units=[1])]
    with torch.inference_mode():
        inside = run(model, batch, edits=edits, read="blocks.2.attn.pattern").logits
    assert largest(inside.clone(), run(model, batch, edits=edits).logits) == EXACT


def test_a_run_without_logits_stops_after_the_last_read(tiny_model):
    model = Model.load(tiny.build("llama"))
    reached = []
    model.module.model.layers[2].register_forward_hook(lambda *a: reached.append(1))
    seen = run(model, model.batch_ids(CLEAN), read="blocks.{0,1}.mlp.neurons", logits="none")
    assert seen.logits is None and len(seen) == 2 and not reached


def test_a_sink_sees_every_site_once_and_nothing_is_kept(tiny_model):
    model, got = tiny_model("llama"), []
    kept = run(model, model.batch_ids(CLEAN), read="blocks.*.resid_post", sink=lambda s, x: got.append(str(s)))
    assert len(kept) == 0 and got == [f"blocks.{i}.resid_post" for i in range(3)]


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (dict(site="blocks.0.mlp.neurons", units=[48]), "unit 48 does not exist, it has 48 (0-47)"),
        (dict(site="blocks.0.resid_pre", positions=9), "positions 9..9 asked for, the sequence has 6 (0-5)"),
        (dict(site="blocks.0.mlp.neurons", value=Constant(torch.zeros(5))), "Constant does not fit features"),
        (dict(site="blocks.0.mlp.neurons", units=[-1, 3]), "unit -1 does not exist, units count from 0"),
        (dict(site="blocks.*.mlp.neurons"), "found the glob 'blocks.*.mlp.neurons'"),
    ],
)
def test_edits_that_do_not_fit_are_refused(tiny_model, edit, text):
    model = tiny_model("llama")
    with pytest.raises(EditError) as error:
        run(model, model.batch_ids(CLEAN), edits=[Edit(**edit)])
    assert text in str(error.value) and "\n" not in str(error.value)


def test_unread_sites_are_refused(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(SiteError, match="This run did not read 'embed'"):
        run(model, model.batch_ids(CLEAN), read="blocks.0.mlp.out")["embed"]


def test_custom_values_see_only_the_chosen_units(tiny_model):
    model, shapes = tiny_model("llama"), []
    watch = Custom(lambda f: shapes.append(f.shape) or f)
    edit = Edit("blocks.0.mlp.neurons", watch, units=[1, 2, 5], positions=[0, 3])
    run(model, model.batch_ids(CLEAN), edits=[edit])
    assert shapes == [(4, 3)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("place", ["head", "logits"])
def test_edits_at_the_head_know_their_positions_where_only_the_last_logits_are_computed(tiny_model, family, place):
    model = tiny_model(family)
    batch = model.batch_ids([[5, 6, 7, 8, 9], [3, 4, 11]])
    site = f"{model.anatomy.head}.input" if place == "head" else "logits"
    whole = run(model, batch, read=site)[site]
    source = torch.randn(whole.shape, dtype=whole.dtype, generator=torch.Generator().manual_seed(0))
    for edit in (Edit(site, From(source)), Edit(site, Add(1.0), positions=-1), Edit(site, Add(1.0), positions=1)):
        last = run(model, batch, edits=[edit], logits="last").logits[:, -1]
        assert largest(last, run(model, batch, edits=[edit]).logits[:, -1]) < FLOAT64


def test_while_generating_positions_at_the_head_count_from_the_prompt(tiny_model):
    """The prompt's last position is edited at the head as in a plain run; its first never gets there, so it is not."""
    model = tiny_model("llama")
    batch = model.batch_ids([[5, 6, 7, 8, 9]])
    site = f"{model.anatomy.head}.input"
    plain = generate(model, batch, 1)
    pushed = Edit(site, Constant(torch.randn(32, dtype=torch.float64)), positions=-1)
    wanted = run(model, batch, edits=[pushed], logits="last").logits[:, -1].argmax(-1)
    assert generate(model, batch, 1, edits=[pushed])[:, 0].tolist() == wanted.tolist()
    early = Edit(site, pushed.value, positions=0)
    assert torch.equal(generate(model, batch, 1, edits=[early]), plain)
