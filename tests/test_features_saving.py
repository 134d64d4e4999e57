"""Every kind of basis comes back from its file the same, and a file for another place is refused."""

import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import save_file

from close import EXACT, FLOAT64, largest
from microtome.core.errors import DataError, EditError, MeasureError
from microtome.features.head_basis import head_basis
from microtome.features.identity import Identity
from microtome.features.joint_rotation import JointRotation
from microtome.features.mask import Mask
from microtome.features.oblique import Oblique
from microtome.features.outside import Outside
from microtome.features.pca import PCA, PCAFitter
from microtome.features.probe import Probe
from microtome.features.rotation import Rotation, random_axes
from microtome.features.sae import SAE
from microtome.features.saving import featurizers, load_featurizer, save_featurizer

D = 6
SITE = "blocks.3.resid_post"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def axes(k):
    return random_axes(D, k, torch.Generator().manual_seed(1), dtype=torch.float64)


def pca(standardise):
    fitter = PCAFitter(3, standardise=standardise)
    fitter.update(draw(20, D))
    return fitter.finish()


def every_kind():
    sae = SAE(draw(D, 9), draw(9), draw(9, D), draw(D), k=4)
    return {
        "identity": Identity(D),
        "head_basis": head_basis(draw(20, D)),
        "oblique": Oblique(axes(2) @ draw(2, 2), torch.linalg.inv(draw(2, 2)) @ axes(2).T, draw(D)),
        "outside": Outside(axes(2)),
        "rotation": Rotation(axes(3)),
        "joint_rotation": JointRotation(axes(4), ("featurizer", "größe"), (3, 1)),
        "pca": pca(False),
        "pca standardised": pca(True),
        "probe": Probe.of(draw(D, 3), draw(3)),
        "sae": sae,
        "sae jumprelu": SAE(draw(D, 9), draw(9), draw(9, D), draw(D), threshold=draw(9).abs(), subtract=False),
        "mask": Mask(sae, [0, 5]),
        "mask of nothing": Mask(Rotation(axes(3)), []),
        "mask of a mask": Mask(Mask(Rotation(axes(4)), [0, 2, 3]), [2]),
    }


def test_the_list_above_is_complete():
    assert {name.split()[0] for name in every_kind()} == set(featurizers())


@pytest.mark.parametrize("name", list(every_kind()))
def test_it_comes_back_the_same(name, tmp_path):
    basis, x = every_kind()[name], draw(4, D, seed=3)
    found = load_featurizer(save_featurizer(basis, tmp_path / "f.safetensors", site=SITE), site=SITE, width=D)
    assert type(found) is type(basis)
    f = basis.encode(x)
    assert found.encode(x).shape == f.shape
    assert torch.allclose(found.encode(x), f, rtol=0, atol=FLOAT64)
    assert largest(found.decode(f), basis.decode(f)) < FLOAT64
    for field in fields(basis):
        if isinstance(getattr(basis, field.name), torch.Tensor):
            assert torch.equal(getattr(found, field.name), getattr(basis, field.name))
    assert [p.name for p in tmp_path.iterdir()] == ["f.safetensors"]


def test_one_basis_is_one_file_bit_by_bit(tmp_path):
    """Records are compared by their bytes; the library alone writes metadata in any order."""
    basis = every_kind()["joint_rotation"]
    written = {save_featurizer(basis, tmp_path / f"{i}.st", site=SITE).read_bytes() for i in range(12)}
    assert len(written) == 1


def test_another_site_or_width_is_refused_in_one_line(tmp_path):
    path = save_featurizer(Rotation(axes(2)), tmp_path / "r.safetensors", site=SITE)
    with pytest.raises(EditError, match=r"at 'blocks\.4\.resid_post', found one fitted at 'blocks\.3\.resid_post'"):
        load_featurizer(path, site="blocks.4.resid_post")
    with pytest.raises(EditError, match="at width 7, found one fitted at width 6"):
        load_featurizer(path, width=7)
    anywhere = save_featurizer(Rotation(axes(2)), tmp_path / "a.safetensors")
    assert load_featurizer(anywhere, site=SITE).width == D


def test_what_is_no_featurizer_is_named_with_its_file(tmp_path):
    with pytest.raises(DataError, match=r"No featurizer file '.*absent'"):
        load_featurizer(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="text' was asked for as a featurizer, found no safetensors"):
        load_featurizer(tmp_path / "text")
    for header, why in [
        ({}, "found format 'none'; known are microtome"),
        ({"format": "microtome.rotaton", "version": "1"}, r"'microtome\.rotaton'.*Did you mean 'microtome\.rotation'"),
        ({"format": "pca", "version": "1"}, "found format 'pca'"),
        ({"format": "microtome.rotation", "version": "9"}, r"version 1 of microtome\.rotation, found 9"),
        ({"format": "microtome.rotation", "version": "1", "fields": json.dumps({})}, "found no 'axes' in it"),
    ]:
        save_file({"other": draw(2)}, tmp_path / "x.safetensors", metadata=header)
        with pytest.raises(DataError, match=why) as caught:
            load_featurizer(tmp_path / "x.safetensors")
        assert "x.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_class_is_not_written(tmp_path):
    class Odd:
        width = D

    with pytest.raises(DataError, match="type Odd was asked for, found no such kind"):
        save_featurizer(Odd(), tmp_path / "odd")
    assert not list(tmp_path.iterdir())


def test_a_pca_written_before_sites_were_stored_still_loads_and_another_kind_is_refused(tmp_path):
    old = pca(False)
    tensors = {"mean": old.mean, "components": old.components.contiguous(), "variance": old.variance}
    save_file(tensors, tmp_path / "old", metadata={"format": "microtome.pca", "version": "1"})
    assert largest(PCA.load(tmp_path / "old").components, old.components) == EXACT
    assert largest(PCA.load(old.save(tmp_path / "new", site=SITE)).variance, old.variance) == EXACT
    save_featurizer(Identity(D), tmp_path / "identity")
    with pytest.raises(MeasureError, match="is not a saved PCA, found a Identity"):
        PCA.load(tmp_path / "identity")
