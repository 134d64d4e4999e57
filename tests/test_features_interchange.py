"""The interchange obeys its identities (E1-E9, E11 of the spec) in every basis, in double and single precision."""

import pytest
import torch

from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import EditError, MeasureError
from microtome.engine.edit import Edit, From
from microtome.features.identity import Identity
from microtome.features.interchange import soft_swap, swap, swap_subspace
from microtome.features.joint_rotation import JointRotation
from microtome.features.mask import Mask
from microtome.features.pca import PCAFitter
from microtome.features.probe import Probe
from microtome.features.rotation import Rotation, random_axes
from microtome.features.sae import SAE

D, K, M = 7, 3, 11
PRECISION = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
CLOSE = {torch.float64: FLOAT64 / 10, torch.float32: FLOAT32}


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def axes(k, dtype, seed=1):
    return random_axes(D, k, torch.Generator().manual_seed(seed), dtype=dtype)


def pca(k, *, standardise, seed=2):
    fitter = PCAFitter(k, standardise=standardise)
    fitter.update(draw(30, D, seed=seed) * torch.arange(1, D + 1) + 5)
    return fitter.finish()


def sae(dtype, k=None):
    return SAE(*(draw(*s, dtype=dtype, seed=9) for s in [(D, M), (M,), (M, D), (D,)]), k=k)


def linear(dtype):
    """Bases whose features are linear coordinates: encode undoes decode."""
    whole, part = Rotation(axes(D, dtype)), Rotation(axes(K, dtype))
    return {
        "identity": Identity(D),
        "rotation": part,
        "joint": JointRotation(axes(5, dtype), ("country", "language"), (3, 2)),
        "pca": pca(K, standardise=False),
        "standardised": pca(K, standardise=True),
        "probe": Probe.of(draw(D, 4, dtype=dtype), draw(4, dtype=dtype)),
        "mask": Mask(whole, [1, 4]),
        "mask of standardised": Mask(pca(D, standardise=True), [0, 5]),
    }


def lossy(dtype):
    return {"relu": sae(dtype), "topk": sae(dtype, 4), "mask of sae": Mask(sae(dtype), [0, 3, 10])}


def pair(dtype):
    return draw(2, 5, D, dtype=dtype, seed=20), draw(2, 5, D, dtype=dtype, seed=21)


BASES = [*linear(torch.float64), *lossy(torch.float64)]


@PRECISION
@pytest.mark.parametrize("name", BASES)
def test_swapping_with_itself_or_swapping_nothing_is_bit_exact(name, dtype):
    basis = (linear(dtype) | lossy(dtype))[name]
    base, source = pair(dtype)
    assert largest(swap(base, base, basis), base) == EXACT
    assert largest(swap(base, source, basis, []), base) == EXACT
    assert largest(soft_swap(base, source, basis, torch.zeros(basis.n_features)), base) == EXACT
    assert largest(swap(base, source, basis), base) > 0.1  # control: swapping all of it does something


@PRECISION
@pytest.mark.parametrize("name", list(linear(torch.float64)))
def test_swapping_twice_is_swapping_once_and_swapping_back_undoes(name, dtype):
    basis = linear(dtype)[name]
    base, source = pair(dtype)
    once = swap(base, source, basis)
    assert largest(swap(once, source, basis), once) < CLOSE[dtype] * 10
    assert largest(swap(once, base, basis), base) < CLOSE[dtype] * 10
    assert largest(basis.encode(once), basis.encode(source)) < CLOSE[dtype] * 10


def test_a_lossy_overcomplete_basis_is_the_control_that_is_not_idempotent():
    base, source = pair(torch.float64)
    once = swap(base, source, sae(torch.float64))
    assert largest(swap(once, source, sae(torch.float64)), once) > 0.1


@PRECISION
def test_swapping_all_of_a_full_basis_is_a_full_patch(dtype):
    base, source = pair(dtype)
    full = {
        "rotation": Rotation(axes(D, dtype)),
        "joint": JointRotation(axes(D, dtype), ("a", "b"), (D - 2, 2)),
        "pca": pca(D, standardise=False),
        "standardised": pca(D, standardise=True),
        "mask": Mask(Identity(D), list(range(D))),
    }
    for basis in full.values():
        assert largest(swap(base, source, basis), source) < CLOSE[dtype] * 10
    assert largest(swap(base, source), source) == EXACT
    assert largest(swap(base, source, Rotation(axes(D - 1, dtype))), source) > 0.1  # control: one direction short


@PRECISION
def test_swapping_a_subspace_is_swapping_the_complement_the_other_way(dtype):
    base, source = pair(dtype)
    basis = Rotation(axes(K, dtype))
    assert basis.complement().n_features == D - K
    assert largest(swap(base, source, basis), swap(source, base, basis.complement())) < CLOSE[dtype]


@PRECISION
def test_turning_the_axes_inside_the_subspace_changes_nothing(dtype):
    base, source = pair(dtype)
    r, turn = axes(K, dtype), random_axes(K, K, torch.Generator().manual_seed(5), dtype=dtype)
    assert largest(swap(base, source, Rotation(r)), swap(base, source, Rotation(r @ turn))) < CLOSE[dtype]
    one = swap(base, source, Rotation(r), [0])
    assert largest(one, swap(base, source, Rotation(r @ turn), [0])) > 0.01  # control: single axes do depend on it


@PRECISION
def test_blocks_add_up_and_do_not_touch_each_other(dtype):
    base, source = pair(dtype)
    joint = JointRotation(axes(5, dtype), ("country", "language"), (3, 2))
    country, language = joint.block("country"), joint.block("language")
    one_after_other = swap(swap(base, source, country), source, language)
    assert largest(one_after_other, swap(base, source, joint)) < CLOSE[dtype]
    assert largest(swap(base, source, country), swap(base, source, joint, joint.units("country"))) < CLOSE[dtype]
    assert largest(language.encode(swap(base, source, country)), language.encode(base)) < CLOSE[dtype]
    assert joint.units("language").tolist() == [3, 4]


@PRECISION
@pytest.mark.parametrize("name", list(lossy(torch.float64)))
def test_what_a_lossy_basis_does_not_explain_stays(name, dtype):
    basis = lossy(dtype)[name]
    base, source = pair(dtype)
    error = base - basis.decode(basis.encode(base))
    assert largest(basis.decode(basis.encode(base)) + error, base) < CLOSE[dtype]
    whole = basis.decode(basis.encode(source)) + error
    assert largest(swap(base, source, basis), whole) < CLOSE[dtype] * 100
    dropped = swap(base, source, basis, [], keep_error=False)
    assert largest(dropped, basis.decode(basis.encode(base))) == EXACT
    assert largest(dropped, base) > 0.1  # the defect that keeping the error avoids


@PRECISION
def test_standardised_pca_swaps_in_z_and_comes_back_exactly(dtype):
    base, source = (x * 3 + 4 for x in pair(dtype))
    basis = pca(K, standardise=True)
    mean, scale, v = (t.to(dtype) for t in (basis.mean, basis.scale, basis.components))
    z_base, z_source = (base - mean) / scale, (source - mean) / scale
    by_hand = scale * (z_base + (z_source - z_base) @ v @ v.T) + mean
    assert largest(swap(base, source, basis), by_hand) < CLOSE[dtype] * 100
    assert largest(swap(base, base, basis), base) == EXACT


@PRECISION
def test_the_quick_form_for_fitting_is_the_same_swap(dtype):
    base, source = pair(dtype)
    assert (
        largest(swap_subspace(base, source, axes(K, dtype)), swap(base, source, Rotation(axes(K, dtype))))
        < CLOSE[dtype]
    )


@pytest.mark.parametrize("name", BASES)
def test_an_edit_in_a_run_does_the_same(name):
    basis = (linear(torch.float64) | lossy(torch.float64))[name]
    base, source = pair(torch.float64)
    rows, positions = torch.arange(2).repeat_interleave(5), torch.arange(5).repeat(2)
    for units in (None, [1], []):
        edit = Edit("blocks.0.resid_pre", From(source), basis=basis, units=units)
        edited = edit.apply(base.reshape(-1, D), rows, positions).reshape(base.shape)
        assert largest(edited, swap(base, source, basis, units)) < FLOAT64


def test_half_precision_activations_meet_single_precision_axes():
    base, source = (x.bfloat16() for x in pair(torch.float64))
    basis = Rotation(axes(D, torch.float32))
    swapped = swap(base, source, basis)
    assert swapped.dtype == torch.bfloat16 and largest(swapped, source) < 0.05
    assert largest(swap(base, base, basis), base) == EXACT
    assert largest(swap_subspace(base, source, basis.axes), source) < 0.05


def test_a_soft_swap_is_between_and_its_gate_learns():
    base, source = pair(torch.float64)
    basis, gate = Rotation(axes(K, torch.float64)), torch.full((K,), 0.25, dtype=torch.float64, requires_grad=True)
    quarter = base + 0.25 * (swap(base, source, basis) - base)
    assert largest(soft_swap(base, source, basis, gate), quarter) < FLOAT64
    soft_swap(base, source, basis, gate).square().sum().backward()
    assert (gate.grad != 0).all()
    ones = torch.ones(D, dtype=torch.float64)
    assert largest(soft_swap(base, source, None, ones), source) < FLOAT64


def test_what_does_not_fit_is_refused_in_one_line():
    base, source = pair(torch.float64)
    with pytest.raises(EditError, match=r"\[2, 5, 7\] was asked for, found a source \[2, 4, 7\]"):
        swap(base, source[:, :4], Identity(D))
    with pytest.raises(EditError, match=r"units 1..3 was asked for, found 3 features \(0-2\)"):
        swap(base, source, Rotation(axes(K, torch.float64)), [1, 3])
    with pytest.raises(EditError, match="A gate of 2 was asked for over 3 features"):
        soft_swap(base, source, Rotation(axes(K, torch.float64)), torch.ones(2))
    with pytest.raises(MeasureError, match="rank 8 was asked for in width 7"):
        random_axes(D, 8, torch.Generator())
    with pytest.raises(MeasureError, match=r"found \[7, 8\]; ask for a rank of at most"):
        Rotation(draw(D, 8))
    with pytest.raises(MeasureError, match="Orthonormal axes were asked for"):
        Rotation(draw(D, 2))
    with pytest.raises(MeasureError, match=r"sizes \[1, 1\] were asked for, found 3 axes"):
        JointRotation(axes(3, torch.float64), ("a", "b"), (1, 1))
    with pytest.raises(MeasureError, match=r"Block 'contry' was asked for.*Did you mean 'country'"):
        JointRotation(axes(3, torch.float64), ("country",), (3,)).block("contry")
    with pytest.raises(MeasureError, match="one name of its own"):
        JointRotation(axes(2, torch.float64), ("a", "a"), (1, 1))
