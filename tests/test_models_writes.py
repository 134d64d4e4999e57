"""Writing weights: what a unit adds to the stream is its value times them, in every family and weight layout."""

import pytest
import torch

from close import FLOAT64, largest
from microtome.core.errors import SiteError
from microtome.core.site import Site
from microtome.engine.run import run
from microtome.models.writes import unit_writes, write_norms

ROWS = [[5, 9, 7, 8, 11], [3, 4, 6, 2, 10]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "opt", "bloom"])
def test_values_times_weights_and_the_bias_are_the_output(tiny_model, family):
    model = tiny_model(family)
    seen = run(model, model.batch_ids(ROWS), read=["blocks.1.attn.*", "blocks.1.mlp.*"], logits="none")
    heads, neurons = seen["blocks.1.attn.heads"], seen["blocks.1.mlp.neurons"]
    by_head = torch.einsum("bshw,hwd->bsd", heads, unit_writes(model, "blocks.1.attn.heads", range(heads.shape[2])))
    by_neuron = torch.einsum(
        "bsn,nd->bsd", neurons, unit_writes(model, "blocks.1.mlp.neurons", range(neurons.shape[2]))[:, 0]
    )
    for made, out in ((by_head, seen["blocks.1.attn.out"]), (by_neuron, seen["blocks.1.mlp.out"])):
        bias = out - made  # the same at every token, and nothing else
        assert largest(bias, bias[:1, :1].expand_as(bias)) < FLOAT64


def test_norms_of_a_square_conv1d_projection_are_of_its_rows(tiny_model):
    model = tiny_model("gpt2")  # its heads' projection is square and stored the other way round than a Linear's
    weight = model.module.transformer.h[0].attn.c_proj.weight.detach()
    norms = write_norms(model, "blocks.0.attn.heads")
    assert largest(norms, weight.unflatten(0, (4, 8)).flatten(1).norm(dim=1)) < FLOAT64
    assert largest(norms, weight.T.unflatten(0, (4, 8)).flatten(1).norm(dim=1)) > 1e-3


def test_some_units_are_those_of_all(tiny_model):
    model = tiny_model("llama")
    whole = unit_writes(model, "blocks.2.mlp.neurons", range(48))
    assert largest(unit_writes(model, "blocks.2.mlp.neurons", [7, 3]), whole[[7, 3]]) == 0
    assert write_norms(model, Site("blocks.2.mlp.neurons")).shape == (48,)


def test_other_sites_are_refused(tiny_model):
    with pytest.raises(SiteError, match=r"'blocks\.0\.resid_pre' writes through no one projection"):
        unit_writes(tiny_model("llama"), "blocks.0.resid_pre", [0])
