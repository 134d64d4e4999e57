"""The projection onto a span: a projection, the same as through an orthonormal basis, with its gradients."""

import pytest
import torch

from close import FLOAT64, largest
from microtome.features.orthogonal import parametrise
from microtome.features.projection import project
from microtome.features.rotation import random_axes

D, K, N = 9, 4, 5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_a_projection_onto_the_span():
    x, weight = drawn(N, D), drawn(D, K, seed=1)
    weight[:, 0] *= 30  # lopsided
    once = project(x, weight)
    assert largest(project(once, weight), once) < FLOAT64
    assert largest((x - once) @ weight, torch.zeros(N, K)) < FLOAT64
    assert largest(project(drawn(N, K) @ weight.T, weight), drawn(N, K) @ weight.T) < FLOAT64
    assert largest(once, x) > 0.1


def test_its_gradients_are_those_of_differences():
    x, weight = drawn(N, D).requires_grad_(), drawn(D, K, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(project, (x, weight))


@pytest.mark.parametrize("kind", ["gram", "qr", "householder"])
def test_every_way_to_keep_a_rotation_projects_as_its_axes_do(kind):
    module = parametrise(kind, random_axes(D, K, torch.Generator().manual_seed(3), dtype=torch.float64))
    x, slope = drawn(N, D), drawn(N, D, seed=2)
    found = []
    for projected in (module.project(x), x @ module() @ module().mT):
        found.append((projected, *torch.autograd.grad((projected * slope).sum(), tuple(module.parameters()))))
    for one, other in zip(*found, strict=True):
        assert largest(one, other) < FLOAT64
