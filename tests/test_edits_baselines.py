"""The methods EigenShift is compared with, by the identities each must obey, hooked and baked."""

import numpy as np
import pytest
import torch

import tiny
from close import EXACT, FLOAT64, largest
from microtome.core.errors import DataError, EditError, MeasureError
from microtome.core.units import Units
from microtome.edits import aura, bake, damp, det_zero, induce
from microtome.edits.affine import Affine, match_moments, transport
from microtome.edits.dexperts import DExperts, combine, dexperts
from microtome.edits.experts import aura_factor, experts, neuron_sites, tune_k
from microtome.edits.prompting import pre_prompted
from microtome.edits.steering import steer
from microtome.engine.edit import Edit, Zero
from microtome.engine.generate import generate
from microtome.engine.run import run
from microtome.features.inlp import InlpFitter
from microtome.features.leace import LeaceFitter
from microtome.features.logistic import fit_logistic
from microtome.features.profs import profs_basis
from microtome.models import Model

ROWS = [[5, 6, 7, 8, 9], [3, 4, 11, 12, 13]]
SITE = "blocks.1.resid_post"
D = 32


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TOXIC, CLEAN = draw(90, 6, seed=1) @ draw(6, 6, seed=2) + draw(6, seed=3), draw(120, 6, seed=4) @ draw(6, 6, seed=5)
X, Y = torch.cat([TOXIC, CLEAN]), torch.cat([torch.ones(90), torch.zeros(120)]).long()


def applied(edit, x):
    at = torch.zeros(len(x), dtype=torch.long)
    return edit.apply(x, at, at)


# ---- single neurons


def test_auras_factor_is_its_formula_and_continuous_at_chance():
    areas = np.array([0.0, 0.3, 0.5, 0.5 + 1e-9, 0.75, 1.0])
    assert aura_factor(areas) == pytest.approx([1, 1, 1, 1, 0.5, 0], abs=1e-8)
    gini = 2 * areas - 1
    assert aura_factor(areas) == pytest.approx(np.where(areas > 0.5, 1 - gini, 1.0))
    with pytest.raises(MeasureError, match="found some outside 0-1"):
        aura_factor(np.array([0.2, np.nan]))


@pytest.mark.parametrize("at", ["pre", "post"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_aura_scales_neurons_and_bakes_into_rows_columns_and_biases(tiny_model, family, at):
    model, rng = tiny_model(family), np.random.default_rng(0)
    batch, sites = model.batch_ids(ROWS), neuron_sites(model, at)
    areas = {s: rng.uniform(0.2, 1, model.space(s)[s]) for s in sites}
    edits = aura(areas)
    clean, hooked = (run(model, batch, edits=e, read=sites[0]) for e in ([], edits))
    factor = torch.from_numpy(np.minimum(1, 2 * (1 - areas[sites[0]])))
    assert largest(hooked[sites[0]], clean[sites[0]] * factor) < FLOAT64
    baked = bake(model, edits)
    assert largest(run(model, batch, edits=baked).logits, hooked.logits) < FLOAT64
    assert largest(hooked.logits, clean.logits) > 1e-3
    changed = {str(e.site).rsplit(".", 1)[1] for e in baked}
    assert changed == ({"weight", "bias"} if (family, at) == ("gpt2", "pre") else {"weight"})
    unscored = aura({s: np.full(model.space(s)[s], 0.5) for s in sites})
    assert largest(run(model, batch, edits=unscored).logits, clean.logits) == EXACT and bake(model, unscored) == []


def test_pre_and_post_are_different_interventions(tiny_model):
    """Half before the nonlinearity is not half after it."""
    model = tiny_model("llama")
    batch = model.batch_ids(ROWS)
    logits = {}
    for at in ("pre", "post"):
        logits[at] = run(
            model, batch, edits=[e for s in neuron_sites(model, at) for e in damp(Units({s: range(24)}))]
        ).logits
    assert largest(logits["pre"], logits["post"]) > 1e-3
    with pytest.raises(EditError, match="choose pre or post"):
        neuron_sites(model, "value")
    with pytest.raises(EditError, match=r"found none .*mixture of experts"):
        neuron_sites(Model.load(tiny.build("mixtral")))


def test_det_zero_damp_and_induce_set_what_they_say(tiny_model):
    model, site = tiny_model("llama"), "blocks.0.mlp.neurons"
    batch, units = model.batch_ids(ROWS), Units({"blocks.0.mlp.neurons": [2, 5]})
    clean = run(model, batch, read=site)[site][..., [2, 5]]
    mean = draw(48)
    for edits, want in [
        (det_zero(units), clean * 0),
        (damp(units, 0.3), clean * 0.3),
        (induce(units, {site: mean}), mean[[2, 5]].expand_as(clean)),
    ]:
        seen = run(model, batch, edits=edits, read=site)[site]
        assert largest(seen[..., [2, 5]], want) < FLOAT64
        assert torch.equal(seen[..., [0, 1]], run(model, batch, read=site)[site][..., [0, 1]])
    gpt2 = tiny_model("gpt2")
    edits = induce(units, {site: draw(gpt2.space(site)[units.sites[0]])})
    assert largest(run(gpt2, batch, edits=bake(gpt2, edits)).logits, run(gpt2, batch, edits=edits).logits) < FLOAT64
    with pytest.raises(EditError, match=r"units at 'blocks\.0\.mlp\.neurons' was asked for, found no means"):
        induce(units, {})


def test_experts_are_the_best_over_all_sites_and_k_is_tuned_on_a_loss():
    scores = {"blocks.0.mlp.neurons": np.array([0.9, 0.5, 0.2]), "blocks.1.mlp.neurons": np.array([0.6, 0.95, 0.5])}
    assert experts(scores, 2) == Units({"blocks.0.mlp.neurons": [0], "blocks.1.mlp.neurons": [1]})
    assert experts(scores) == Units({"blocks.0.mlp.neurons": [0], "blocks.1.mlp.neurons": [0, 1]})

    def loss(edits):  # least with two neurons set
        return abs(sum(len(e.units) for e in edits) - 2)

    best, losses = tune_k(scores, [4, 0, 2, 1], det_zero, loss)
    assert best == 2 and losses == {0: 2, 1: 1, 2: 0, 4: 2}
    assert tune_k(scores, [1, 0], det_zero, lambda edits: 1.0)[0] == 0


# ---- directions and distributions


def test_steering_moves_the_toxic_mean_onto_the_clean_one():
    assert largest(applied(steer(SITE, TOXIC, CLEAN), TOXIC).mean(0), CLEAN.mean(0)) < FLOAT64
    assert largest(applied(steer(SITE, TOXIC, CLEAN, 0.0), TOXIC), TOXIC) == EXACT
    half = applied(steer(SITE, TOXIC, CLEAN, 0.5), TOXIC).mean(0)
    assert largest(half, (TOXIC.mean(0) + CLEAN.mean(0)) / 2) < FLOAT64
    with pytest.raises(MeasureError, match="give rows of one width"):
        steer(SITE, TOXIC, CLEAN[:, :3])


def probe_accuracy(x):
    weight, bias = fit_logistic(x - x.mean(0), Y, 2)
    return ((x - x.mean(0)) @ weight + bias).argmax(1).eq(Y).double().mean().item()


def test_inlp_ends_where_a_probe_says_the_commonest_class_and_projects():
    """Classes apart along two of twelve directions: rounds take those out, and what is left tells nothing."""
    x, y = draw(800, 12, seed=7), torch.arange(800) % 2
    x[y == 1, :2] += 3
    fitted = []
    for rounds in (0, 1, 12):
        fitter = InlpFitter(2, rounds=rounds, tolerance=0.04)
        fitter.update(x, labels=y)
        fitted.append(fitter.finish())
    assert fitted[0].n_features == 0 and fitted[1].n_features == 1 and 1 <= fitted[2].n_features < 12
    edit = Edit(SITE, Zero(), basis=fitted[2])
    left = applied(edit, x)
    assert largest(applied(edit, left), left) < FLOAT64
    weight, bias = fit_logistic(left, y, 2)
    assert (left @ weight + bias).argmax(1).eq(y).double().mean() <= 0.5 + 0.06
    weight, bias = fit_logistic(x, y, 2)
    assert (x @ weight + bias).argmax(1).eq(y).double().mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_leace_leaves_no_covariance_with_the_classes_and_no_probe_beats_the_prior(classes):
    y = Y if classes == 2 else (Y + torch.arange(len(Y)) % 2)
    fitter, shards = LeaceFitter(classes), [LeaceFitter(classes) for _ in range(2)]
    fitter.update(X, labels=y)
    for shard, part in zip(shards, (slice(0, 70), slice(70, None)), strict=True):
        shard.update(X[part], labels=y[part])
    basis = fitter.finish()
    assert basis.n_features == classes - 1
    left = applied(Edit(SITE, Zero(), basis=basis), X)
    one_hot = torch.nn.functional.one_hot(y, classes).double()
    assert ((left - left.mean(0)).T @ (one_hot - one_hot.mean(0))).abs().max() / len(X) < 1e-12
    assert largest(left.mean(0), X.mean(0)) < FLOAT64
    assert largest(applied(Edit(SITE, Zero(), basis=basis), left), left) < FLOAT64
    merged = shards[0].merge(shards[1]).finish()
    assert largest(merged.read @ merged.write, basis.read @ basis.write) < FLOAT64
    if classes == 2:
        share = Y.bincount().max().item() / len(Y)
        prior = -(share * np.log(share) + (1 - share) * np.log(1 - share))
        weight, bias = fit_logistic(left, Y, 2)
        loss = torch.nn.functional.cross_entropy(left @ weight + bias, Y).item()
        assert loss == pytest.approx(prior, abs=1e-6)
        assert probe_accuracy(X) > share + 0.05


def test_leace_changes_less_than_the_orthogonal_projection_that_guards_as_well():
    fitter = LeaceFitter(2)
    fitter.update(X, labels=Y)
    change = applied(Edit(SITE, Zero(), basis=fitter.finish()), X) - X
    gap = TOXIC.mean(0) - CLEAN.mean(0)
    axis, centred = gap / gap.norm(), X - X.mean(0)
    orthogonal = torch.outer(centred @ axis, axis)
    for left in (centred + change, centred - orthogonal):
        assert (left.T @ (Y - Y.double().mean())).abs().max() / len(X) < 1e-12
    assert change.square().sum() < 0.9 * orthogonal.square().sum()


def test_matched_moments_match():
    for covariance in (True, False):
        value = match_moments(TOXIC, CLEAN, covariance=covariance)
        moved = applied(Edit(SITE, value), TOXIC)
        assert largest(moved.mean(0), CLEAN.mean(0)) < FLOAT64
        want = torch.cov((CLEAN if covariance else TOXIC).T)
        assert largest(torch.cov(moved.T), want) < FLOAT64
    assert largest(value.factor.new_ones(6), value.factor) == EXACT  # means alone: steering
    assert largest(value.offset, CLEAN.mean(0) - TOXIC.mean(0)) < FLOAT64
    matrix = match_moments(TOXIC, CLEAN).factor
    assert largest(matrix, matrix.T) < FLOAT64 and torch.linalg.eigvalsh(matrix).min() > 0  # the map of least cost
    with pytest.raises(MeasureError, match="found it singular; give more rows"):
        match_moments(TOXIC[:4], CLEAN)


def test_transport_has_the_closed_form_of_gaussians_and_of_quantiles():
    for by in ("gaussian", "quantiles"):
        value = transport(TOXIC, CLEAN, by=by)
        moved = applied(Edit(SITE, value), TOXIC)
        assert largest(moved.mean(0), CLEAN.mean(0)) < FLOAT64
    gauss = transport(TOXIC, CLEAN)
    assert largest(gauss.factor, CLEAN.std(0) / TOXIC.std(0)) < FLOAT64
    # an increasing affine map of the source is found exactly by both, and least squares is least
    target = TOXIC * torch.tensor([2.0, 0.5, 1, 3, 1, 0.1]) - 4
    for by in ("gaussian", "quantiles"):
        assert (
            largest(applied(Edit(SITE, transport(TOXIC, target[torch.randperm(90)], by=by)), TOXIC), target) < FLOAT64
        )

    def error(value):
        return (applied(Edit(SITE, value), TOXIC).sort(0).values - CLEAN[:90].sort(0).values).square().sum()

    assert error(transport(TOXIC, CLEAN[:90], by="quantiles")) < error(transport(TOXIC, CLEAN[:90]))
    still = Affine(gauss.factor, gauss.offset, 0.0)
    assert largest(applied(Edit(SITE, still), TOXIC), TOXIC) == EXACT
    constant = transport(torch.ones(5, 2), torch.zeros(5, 2) + 3)
    assert constant.factor.tolist() == [1, 1] and constant.offset.tolist() == [2, 2]
    with pytest.raises(MeasureError, match=r"by 'gausian' was asked for; .*Did you mean 'gaussian'"):
        transport(TOXIC, CLEAN, by="gausian")


def test_profs_projects_out_what_pairs_differ_in_but_not_what_they_share(tiny_model):
    model = tiny_model("llama")
    shared, planted = draw(D, seed=11), torch.linalg.qr(draw(D, 2, seed=12)).Q
    clean = draw(60, D, seed=13) * 0.01 + 3 * shared
    toxic = clean + draw(60, 2, seed=14) @ planted.T + draw(60, 1, seed=15) * clean.mean(0)
    basis = profs_basis(toxic, clean, 2)
    mean = clean.mean(0) / clean.mean(0).norm()
    assert (basis.axes.T @ mean).abs().max() < FLOAT64
    inside = planted - torch.outer(mean, mean @ planted)
    want = torch.linalg.qr(inside).Q
    assert largest(basis.axes @ basis.axes.T, want @ want.T) < 1e-6
    batch, site = model.batch_ids(ROWS), "blocks.1.mlp.out"
    edit = Edit(site, Zero(), basis=basis)
    hooked = run(model, batch, edits=[edit], read=site)
    assert (hooked[site] @ basis.axes).abs().max() < FLOAT64
    (baked,) = bake(model, [edit])
    assert str(baked.site).endswith("down_proj.weight")
    assert largest(run(model, batch, edits=[baked]).logits, hooked.logits) < FLOAT64
    empty = Edit(site, Zero(), basis=profs_basis(toxic, clean, 0))
    assert largest(run(model, batch, edits=[empty]).logits, run(model, batch).logits) == EXACT
    with pytest.raises(MeasureError, match="found differences that span 2"):
        profs_basis(toxic, clean, 3)


def test_affine_edits_of_every_kind_bake_where_a_bias_carries_the_shift(tiny_model):
    model, site = tiny_model("gpt2"), "blocks.1.mlp.out"
    batch = model.batch_ids(ROWS)
    toxic, clean = draw(80, D, seed=21), draw(80, D, seed=22) + 1
    fitter = LeaceFitter(2)
    fitter.update(torch.cat([toxic, clean]), labels=torch.arange(160) // 80)
    for value, basis in [
        (match_moments(toxic, clean), None),
        (transport(toxic, clean, strength=0.5), None),
        (steer(site, toxic, clean).value, None),
        (Zero(), fitter.finish()),
    ]:
        edit = Edit(site, value, basis=basis)
        hooked = run(model, batch, edits=[edit]).logits
        assert largest(run(model, batch, edits=bake(model, [edit])).logits, hooked) < FLOAT64
        assert largest(hooked, run(model, batch).logits) > 1e-3
    with pytest.raises(EditError, match="give all units of a site"):
        run(model, batch, edits=[Edit(site, match_moments(toxic, clean), units=[1, 2])])


# ---- other models, other inputs


def test_dexperts_without_voice_or_with_one_voice_is_the_base(tiny_model):
    base, batch = tiny_model("llama"), tiny_model("llama").batch_ids([*ROWS, ROWS[0][:3]])
    good, bad = tiny_model("qwen2"), tiny_model("llama-tied")
    z = run(base, batch).logits
    real = batch.mask
    for edit in (dexperts(good, bad, batch, alpha=0, top_p=1), dexperts(good, good, batch, top_p=1)):
        assert largest(run(base, batch, edits=[edit]).logits[real], z[real]) < FLOAT64
    got = run(base, batch, edits=[dexperts(good, bad, batch, alpha=2.0, top_p=0.9)]).logits
    mixed = z + 2 * (run(good, batch).logits - run(bad, batch).logits)
    kept = got > -torch.inf
    assert largest(got[kept & real[..., None]], mixed[kept & real[..., None]]) < FLOAT64
    p = z.softmax(-1)
    assert ((p * kept).sum(-1)[real] >= 0.9 - 1e-12).all()
    smallest = torch.where(kept, p, torch.inf).amin(-1)
    assert ((p * kept).sum(-1)[real] - smallest[real] < 0.9).all()  # no token less would do
    with pytest.raises(EditError, match="nucleus of 0 was asked for"):
        combine(z, z, z, top_p=0)
    with pytest.raises(EditError, match="use models of one vocabulary"):
        combine(z, z[..., 1:], z)


def test_dexperts_while_generating_is_dexperts_on_what_was_generated(tiny_model):
    base, good, bad = (tiny_model(f) for f in ("llama", "qwen2", "llama-tied"))
    rows = [ROWS[0], ROWS[1][:3]]
    batch = base.batch_ids(rows)
    plain = generate(base, batch, 6)
    assert torch.equal(generate(base, batch, 6, rules=[DExperts(good, bad, alpha=0.0, top_p=1.0)]), plain)
    out = generate(base, batch, 6, rules=[DExperts(good, bad)])
    assert not torch.equal(out, plain)
    for row, new in zip(rows, out, strict=True):
        text = [*row, *new.tolist()]
        stop = text.index(2, len(row)) if 2 in text[len(row) :] else len(text) - 1
        again = base.batch_ids([text])
        said = run(base, again, edits=[dexperts(good, bad, again)]).logits[0].argmax(-1)
        assert said[len(row) - 1 : stop].tolist() == text[len(row) : stop + 1]


def test_a_pre_prompt_is_the_prompt_typed_before(tiny_model):
    model = tiny_model("llama")
    assert torch.equal(pre_prompted(model, ROWS, []).inputs["input_ids"], model.batch_ids(ROWS).inputs["input_ids"])
    got = run(model, pre_prompted(model, [[1, *r] for r in ROWS], [40, 41], after=1), logits="last").logits
    want = run(model, model.batch_ids([[1, 40, 41, *r] for r in ROWS]), logits="last").logits
    assert largest(got, want) == EXACT
    with pytest.raises(DataError, match="found row 0 shorter"):
        pre_prompted(model, ROWS, [4], after=9)
