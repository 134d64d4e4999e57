"""Autoencoders compute what their formula says, train, and read the SAELens layout or refuse it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import DataError, EditError, MeasureError
from microtome.features.sae import SAE, SAEModule, load_saelens

D, M = 5, 12


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weights(dtype=torch.float64):
    return [draw(*s, seed=i, dtype=dtype) for i, s in enumerate([(D, M), (M,), (M, D), (D,)])]


def by_hand(x, *, k=None, threshold=None, subtract=True):
    w_enc, b_enc, w_dec, b_dec = weights()
    out = torch.zeros(M, dtype=torch.float64)
    for j in range(M):
        pre = sum((x[i] - (b_dec[i] if subtract else 0)) * w_enc[i, j] for i in range(D)) + b_enc[j]
        out[j] = pre if pre > (0 if threshold is None else max(0.0, threshold[j].item())) else 0
    if k is not None:
        out[out.argsort(descending=True)[k:]] = 0
    return out, sum(out[j] * w_dec[j] for j in range(M)) + b_dec


@pytest.mark.parametrize("knobs", [{}, {"k": 3}, {"k": M}, {"threshold": draw(M, seed=8).abs()}, {"subtract": False}])
def test_features_and_reconstruction_are_the_formula(knobs):
    x = draw(4, D, seed=9)
    sae = SAE(*weights(), **knobs)
    f = sae.encode(x)
    for row, features in zip(x, f, strict=True):
        expected, reconstruction = by_hand(row, **knobs)
        assert largest(features, expected) < FLOAT64
        assert largest(sae.decode(features), reconstruction) < FLOAT64
    if "k" in knobs:
        assert ((f > 0).sum(1) <= knobs["k"]).all()


@pytest.mark.parametrize("k", [None, 2])
def test_the_module_freezes_to_what_it_computes_and_training_explains_more(k):
    module = SAEModule(D, M, torch.Generator().manual_seed(0), k=k, mean=torch.ones(D))
    x = SAE(*weights(torch.float32)).decoder[:6][torch.arange(60) % 6] + 1
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss = module.loss(x, penalty=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        module.normalise()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert largest(module.decoder.detach().norm(dim=1), torch.ones(M)) < FLOAT32
    frozen, (reconstruction, f) = module.freeze(), module(x)
    assert largest(frozen.encode(x), f.detach()) < FLOAT32
    assert largest(frozen.decode(frozen.encode(x)), reconstruction.detach()) < FLOAT32


def test_the_loss_is_squared_error_plus_the_mean_feature():
    module, x = SAEModule(D, M, torch.Generator().manual_seed(0)), draw(7, D, dtype=torch.float32)
    reconstruction, f = module(x)
    assert abs(module.loss(x, penalty=0.8) - ((reconstruction - x) ** 2).mean() - 0.8 * f.abs().mean()) < FLOAT32
    assert (module.loss(x, penalty=0.0) - ((reconstruction - x) ** 2).mean()).abs() < FLOAT32


def write(folder, config, *, drop=(), **more):
    names = dict(zip(("W_enc", "b_enc", "W_dec", "b_dec"), weights(torch.float32), strict=True)) | more
    save_file({n: t for n, t in names.items() if n not in drop}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D, "d_sae": M} | config))
    return folder


@pytest.mark.parametrize(
    ("config", "knobs"),
    [
        ({"architecture": "standard", "activation_fn_str": "relu", "apply_b_dec_to_input": True}, {}),
        ({"architecture": "standard", "apply_b_dec_to_input": False}, {"subtract": False}),
        ({"architecture": "topk", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}, {"k": 3}),
        ({"architecture": "topk", "k": 4, "apply_b_dec_to_input": False}, {"k": 4, "subtract": False}),
    ],
)
def test_the_saelens_layout_is_read(tmp_path, config, knobs):
    x = draw(4, D, seed=9, dtype=torch.float32)
    sae, same = load_saelens(write(tmp_path, config)), SAE(*weights(torch.float32), **knobs)
    assert largest(sae.encode(x), same.encode(x)) == EXACT
    assert largest(sae.decode(sae.encode(x)), same.decode(same.encode(x))) == EXACT


def test_a_threshold_and_a_rescaling_by_decoder_length_are_read(tmp_path):
    x, threshold = draw(4, D, seed=9, dtype=torch.float32), draw(M, seed=8, dtype=torch.float32).abs()
    jump = load_saelens(write(tmp_path, {"architecture": "jumprelu"}, threshold=threshold))
    assert largest(jump.encode(x), SAE(*weights(torch.float32), threshold=threshold).encode(x)) == EXACT
    scaled = load_saelens(write(tmp_path, {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True}))
    w_enc, b_enc, w_dec, b_dec = weights(torch.float32)
    length = w_dec.norm(dim=1)
    pre = (((x - b_dec) @ w_enc + b_enc) * length).relu()  # chosen by weighted size, then divided out again
    kept = torch.where(pre >= pre.topk(3).values[:, -1:], pre, 0)
    assert largest(scaled.decode(scaled.encode(x)), (kept / length) @ w_dec + b_dec) < FLOAT32 * 10


def test_a_layout_that_would_be_computed_wrongly_is_refused(tmp_path):
    for config, why in [
        ({"architecture": "gated"}, "architecture 'gated'; known are standard, topk, jumprelu"),
        ({"architecture": "topk"}, "a TopK without a k"),
        ({"architecture": "jumprelu"}, "JumpReLU without a threshold"),
        ({"normalize_activations": "layer_norm"}, "normalised by 'layer_norm'"),
        ({"activation_fn_str": "tanh-relu"}, "activates by 'tanh-relu'"),
    ]:
        with pytest.raises(DataError, match=why):
            load_saelens(write(tmp_path, config))
    with pytest.raises(DataError, match=r"found no \['b_enc'\]"):
        load_saelens(write(tmp_path, {}, drop=("b_enc",)))
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_saelens(tmp_path)
    with pytest.raises(DataError, match=r"found no cfg\.json"):
        load_saelens(tmp_path / "absent")


def test_another_site_or_width_is_refused(tmp_path):
    folder = write(tmp_path, {"metadata": {"hook_name": "blocks.3.hook_mlp_out"}})
    assert load_saelens(folder, site="blocks.3.mlp.write", width=D).width == D
    assert load_saelens(folder, site="blocks.3.mlp.out").width == D
    with pytest.raises(EditError, match=r"'blocks\.2\.mlp\.out', found one trained at 'blocks\.3\.mlp\.out'"):
        load_saelens(folder, site="blocks.2.mlp.out")
    with pytest.raises(EditError, match="at width 6, found one of 5"):
        load_saelens(folder, width=6)


def test_shapes_that_do_not_fit_are_refused():
    w_enc, b_enc, w_dec, b_dec = weights()
    with pytest.raises(MeasureError, match="12 features over width 5 was asked for"):
        SAE(w_enc, b_enc, w_dec.T, b_dec)
    with pytest.raises(MeasureError, match="k = 13 was asked for over 12"):
        SAEModule(D, M, torch.Generator(), k=13)
