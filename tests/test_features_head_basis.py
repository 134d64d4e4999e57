"""The factorised head against an SVD in double precision, within stated memory; and bases that are free of it."""

import subprocess
import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from close import EXACT, FLOAT32, FLOAT64, largest
from microtome.core.errors import DataError, EditError, MeasureError
from microtome.features.free_directions import difference_basis, random_basis, whitened_basis
from microtome.features.head_basis import _by_gram, head_basis, head_weight
from microtome.features.rotation import Rotation
from microtome.features.saving import save_featurizer
from microtome.models import Model


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def lopsided(condition, rows=300, d=24):
    """A matrix of given condition number, with its singular values."""
    u, v = torch.linalg.qr(draw(rows, d)).Q, torch.linalg.qr(draw(d, d, seed=1)).Q
    s = torch.logspace(0, -torch.log10(torch.tensor(float(condition))), d, dtype=torch.float64)
    return u * s @ v.T, s


HEAD = draw(70, 12, seed=3) + draw(12, seed=4)  # rows with a mean


def test_it_is_the_svd_of_the_centred_head_and_the_head_is_left_alone():
    before = HEAD.clone()
    basis = head_basis(HEAD)
    assert largest(HEAD, before) == EXACT and basis.route == "gram" and basis.centred
    centred = HEAD - HEAD.mean(0)
    assert largest(basis.singular, torch.linalg.svdvals(centred)) < FLOAT64
    assert largest((centred @ basis.axes).square().sum(0), basis.singular.square()) < FLOAT64
    plain = head_basis(HEAD, centre=False)
    assert largest(plain.singular, torch.linalg.svdvals(HEAD)) < FLOAT64
    assert largest(plain.singular, basis.singular) > 0.1


def test_centring_changes_no_probability_and_spends_no_direction_on_the_common_logit():
    hidden, centred, basis = draw(5, 12, seed=7), HEAD - HEAD.mean(0), head_basis(HEAD)
    assert largest((hidden @ HEAD.T).softmax(1), (hidden @ centred.T).softmax(1)) < FLOAT64
    u = centred @ basis.axes / basis.singular
    assert u.sum(0).abs().max() < FLOAT64
    raw = head_basis(HEAD, centre=False)
    assert (HEAD @ raw.axes / raw.singular).sum(0).abs().max() > 1


@pytest.mark.parametrize(("condition", "bound"), [(1e2, 1e-11), (1e3, 1e-9), (1e4, 1e-7), (1e5, 1e-5)])
def test_the_gram_route_is_as_exact_as_stated(condition, bound):
    weight, s = lopsided(condition)
    values, axes = _by_gram(weight, None, 64)
    assert ((values.clamp(min=0).sqrt() - s) / s).abs().max() < bound
    half = axes[:, :12]
    want = torch.linalg.svd(weight).Vh[:12].T
    assert largest(half @ half.T, want @ want.T) < 1e-7


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4, 1e5, 1e6])
def test_a_lopsided_head_is_factorised_by_qr_and_says_so(condition):
    weight, s = lopsided(condition)
    basis = head_basis(weight, centre=False, chunk=50)
    assert basis.route == ("gram" if 1 / condition**2 > 1e-12 * 24 else "qr")
    assert ((basis.singular - s) / s).abs().max() < 1e-6
    assert largest(basis.axes.T @ basis.axes, torch.eye(24, dtype=torch.float64)) < FLOAT64


def test_a_single_precision_gram_matrix_would_be_wrong():
    """The control of the two tests above: what they guard against does happen."""
    weight, s = lopsided(1e4)
    gram = weight.float().T @ weight.float()
    values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt().double()
    assert ((values - s) / s).abs().max() > 0.1


@pytest.mark.parametrize("rows", [300, 10])
def test_chunks_change_nothing(rows):
    weight = draw(rows, 24)
    whole, parts = head_basis(weight, chunk=1000), head_basis(weight, chunk=7)
    assert largest(whole.singular, parts.singular) < 1e-7
    k = min(rows - 1, 24)  # beyond the rank, vectors are any of the rest
    a, b = whole.axes[:, :k], parts.axes[:, :k]
    assert largest(a @ a.T, b @ b.T) < 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_types_are_raised_not_rounded(dtype):
    weight = draw(90, 16).to(dtype)
    got, want = head_basis(weight), head_basis(weight.double())
    assert largest(got.singular, want.singular) < FLOAT64 and got.axes.dtype == torch.float64


class Peak(TorchDispatchMode):
    """The most bytes of tensors alive at once, of those made within (views of what is given count nothing)."""

    def __init__(self, given):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet([given.untyped_storage()])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return out

    def _gone(self, size):
        self.now -= size


def test_memory_beside_the_head_stays_below_its_bound():
    weight = draw(32000, 256, dtype=torch.float32)
    with Peak(weight) as peak:
        head_basis(weight)
    assert 0 < peak.peak < 0.6 * weight.nbytes
    with Peak(weight) as whole:
        weight.double()
    assert whole.peak == 2 * weight.nbytes  # the meter sees what it should


RESIDENT = """
import torch
from microtome.features.head_basis import head_basis
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
head_basis(torch.randn(3000, 64))  # libraries are loaded before the measurement
weight = torch.randn(32000, 1024)
held = peak()
head_basis(weight)
print((peak() - held) / weight.nbytes)
"""


@pytest.mark.slow  # a process of its own, so that the most memory it ever held is this alone; 131 MB of weights
@pytest.mark.skipif(sys.platform != "linux", reason="the system keeps no /proc/self/status")
def test_a_real_sized_head_asks_for_less_than_its_bound_beside_itself():
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 0.6


def test_a_cached_basis_is_found_by_the_weight_and_not_by_another(tmp_path):
    first = head_basis(HEAD, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    assert largest(head_basis(HEAD, cache=tmp_path).axes, first.axes) == EXACT
    assert file.stat().st_mtime_ns == stamp and len(list(tmp_path.iterdir())) == 1
    other = HEAD.clone()
    other[3, 4] += 1e-12
    head_basis(other, cache=tmp_path)
    head_basis(HEAD, centre=False, cache=tmp_path)
    head_basis(HEAD.float(), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    save_featurizer(Rotation(torch.eye(12)[:, :2]), file, site="head.weight")
    with pytest.raises(DataError, match="was asked for as a head basis, found a Rotation"):
        head_basis(HEAD, cache=tmp_path)


def test_what_cannot_be_factorised_is_refused_in_one_line():
    with pytest.raises(
        MeasureError, match=r"\[vocab, d\] of floating numbers was asked for, found \[3, 2\] of torch.int8"
    ):
        head_basis(torch.ones(3, 2, dtype=torch.int8))
    with pytest.raises(MeasureError, match="values that are not finite"):
        head_basis(torch.full((5, 3), torch.nan))
    headless = Model.load(tiny.build("llama").model, anatomy=False)
    with pytest.raises(EditError, match="output head of 'LlamaModel' was asked for, found none in its anatomy"):
        head_weight(headless)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2"])
def test_the_head_of_a_model_is_its_own_weight(tiny_model, family):
    model = tiny_model(family)
    assert head_weight(model).data_ptr() == model.module.get_output_embeddings().weight.data_ptr()


def test_free_bases_are_what_their_names_say():
    toxic, clean = draw(30, 12, seed=5) + 1, draw(40, 12, seed=6)
    axis = difference_basis(toxic, clean).axes[:, 0]
    gap = toxic.mean(0) - clean.mean(0)
    assert largest(axis * gap.norm(), gap) < FLOAT64
    assert largest(random_basis(12, 4, 0).axes, random_basis(12, 4, 0).axes) == EXACT
    assert largest(random_basis(12, 4, 0).axes, random_basis(12, 4, 1).axes) > 0.1
    with pytest.raises(MeasureError, match="found equal means"):
        difference_basis(clean, clean)


def test_whitened_features_are_uncorrelated_and_move_logits_apart_by_falling_amounts():
    basis = head_basis(HEAD)
    hidden = draw(500, 12, seed=8) @ draw(12, 12, seed=9)
    covariance = torch.cov(hidden.T)
    found = whitened_basis(basis, covariance)
    f = found.encode(hidden)
    assert largest(torch.cov(f.T), torch.eye(12, dtype=torch.float64)) < FLOAT64
    effects = (HEAD - HEAD.mean(0)) @ found.write.T
    products = effects.T @ effects
    assert largest(products - products.diagonal().diag(), torch.zeros(12, 12, dtype=torch.float64)) < FLOAT64 * 1e3
    assert (products.diagonal().diff() <= 0).all()
    assert largest(found.decode(f), hidden) < FLOAT64
    sphere = whitened_basis(basis, torch.eye(12, dtype=torch.float64))
    assert largest((sphere.read.T @ basis.axes).abs(), torch.eye(12, dtype=torch.float64)) < FLOAT32
    with pytest.raises(MeasureError, match=r"singular covariance.*give a shrinkage above 0"):
        whitened_basis(basis, torch.ones(12, 12, dtype=torch.float64))
    assert whitened_basis(basis, torch.ones(12, 12, dtype=torch.float64), shrinkage=0.1).n_features == 12
