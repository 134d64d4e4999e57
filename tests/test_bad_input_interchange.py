"""Bad input to interchange - tables, pairs, ranks, bases - is answered by one line, and nothing is half-written."""

import json

import pytest
import torch

from microtome.core.errors import DataError, EditError, MeasureError
from microtome.core.site import Site
from microtome.data.ravel import (
    EntityTable,
    Planted,
    draw_pairs,
    gold_instance,
    load_ravel,
    synthetic_table,
    write_folder,
)
from microtome.data.ravel.files import file_names
from microtome.engine.edit import Edit
from microtome.engine.run import run
from microtome.engine.sweep import sweep
from microtome.features.identity import Identity
from microtome.features.interchange import swap
from microtome.features.mask import Mask
from microtome.features.pca import PCAFitter
from microtome.features.rlap import RLAPFitter
from microtome.features.rotation import Rotation, random_axes
from microtome.features.saving import load_featurizer, save_featurizer
from microtome.training.interchange import RotationFit, Schedule, fit_interchange
from microtome.training.swaps import TokenPairs, record_swaps
from test_bad_input import METRIC, ROWS, one_line

# ---- 1. a RAVEL table whose files do not fit together, and pairs that cannot be drawn


def ravel_files(folder, change=None, **texts):
    """Write a good table of cities, change its parsed entities, add templates; return the files' names."""
    planted = [Planted("Color", 3), Planted("Shape", 2)]
    write_folder(synthetic_table(planted, entities=12, templates=4, name="city"), folder)
    rows = {kind: json.loads((folder / name).read_text()) for kind, name in file_names("city").items()}
    if change:
        change(rows["entities"])
    for attribute, text in texts.items():
        rows["templates"][attribute].append(text)
        rows["template_splits"][text] = "train"
    for kind, name in file_names("city").items():
        (folder / name).write_text(json.dumps(rows[kind]))
    return sorted(p.name for p in folder.iterdir())


def first_city(rows):
    return rows[next(iter(rows))]


TABLES = {
    "no place": (None, {"Color": "It is"}, ["Template 'It is' of 'city' has 0 places", "it needs exactly one '%s'"]),
    "two places": (None, {"Color": "%s is %s"}, ["Template '%s is %s' of 'city' has 2 places", "exactly one '%s'"]),
    "no attribute": (lambda c: first_city(c).pop("Shape"), {}, ["of 'city' has no Shape", "give it a value or drop"]),
    "empty value": (lambda c: first_city(c).update(Shape=""), {}, ["of 'city' has an empty Shape", "give it a value"]),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_ravel_table_that_does_not_fit(tmp_path, what):
    change, texts, parts = TABLES[what]
    files = ravel_files(tmp_path, change, **texts)
    with pytest.raises(DataError) as error:
        load_ravel(tmp_path, "city", strict=True)
    one_line(error, DataError, *parts)
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_a_good_ravel_table_loads_strictly_and_an_unknown_type_is_refused(tmp_path):
    ravel_files(tmp_path)
    assert load_ravel(tmp_path, "city", strict=True).table.attributes == ("Color", "Shape")  # the control
    with pytest.raises(DataError) as error:
        load_ravel(tmp_path, "citys")
    one_line(error, DataError, "No entity type 'citys'; there are city, nobel_prize_winner", "Did you mean 'city'?")


def test_no_pair_survives(tmp_path):
    ravel_files(tmp_path, lambda c: [values.update(Color="red") for values in c.values()])
    instance = gold_instance(load_ravel(tmp_path, "city").table)
    assert len(draw_pairs(instance, target="Shape").pairs)  # the control: shapes still differ
    for pools in (("output",), ("causal",)):
        one = EntityTable("city", instance.table.entities, instance.table.templates_in("train", attribute="Color"))
        with pytest.raises(DataError) as error:
            draw_pairs(gold_instance(one), target="Color", pools=pools)
        one_line(error, DataError, "No pair survives on side 'train' for 'Color'", "ask more prompts, or use data")


# ---- 2. a basis wider than the activations, or fitted somewhere else


def narrow(width, rank=2):
    return Rotation(random_axes(width, rank, torch.Generator().manual_seed(0), dtype=torch.float64))


@pytest.mark.parametrize("how", ["rotation", "interchange", "joint", "PCA", "RLAP"])
def test_a_rank_larger_than_the_width(tiny_model, how):
    model, rows = tiny_model("llama"), torch.eye(4, dtype=torch.float64)
    pairs = TokenPairs([ROWS[0]], [ROWS[1]], [[3]])
    swaps = record_swaps(model, pairs, "blocks.0.resid_post")[Site("blocks.0.resid_post")]
    ask, parts = {
        "rotation": (lambda: narrow(32, 33), "rank 33 was asked for in width 32; ask for 0 to 32"),
        "interchange": (lambda: fit_interchange([RotationFit(swaps, 33)], Schedule(epochs=1)), "rank 33 was asked"),
        "joint": (
            lambda: fit_interchange([RotationFit(swaps, {"a": 20, "b": 13})], Schedule(epochs=1)),
            "rank 33 was asked for in width 32",
        ),
        "PCA": (lambda: fitted(PCAFitter(5), rows), "asked for 5 components, found 4 dimensions; ask for fewer"),
        "RLAP": (lambda: fitted(RLAPFitter(5, classes=2), rows), "RLAP of 5 dimensions was asked for, found rows"),
    }[how]
    with pytest.raises(MeasureError) as error:
        ask()
    one_line(error, MeasureError, parts)


def fitted(fitter, rows):
    labels = {"labels": [0, 1, 0, 1]} if isinstance(fitter, RLAPFitter) else {}
    fitter.update(rows, **labels)
    return fitter.finish()


@pytest.mark.parametrize("basis", [narrow(7), Identity(7), Mask(Identity(7), [1])], ids=lambda b: type(b).__name__)
def test_a_featurizer_fitted_at_another_width(tiny_model, basis):
    model = tiny_model("llama")
    batch, edit = model.batch_ids(ROWS), Edit("blocks.0.resid_post", basis=basis)
    for ask in (lambda: run(model, batch, edits=[edit]), lambda: sweep(model, batch, [edit], METRIC)):
        with pytest.raises(EditError) as error:
            ask()
        kind = type(basis).__name__
        one_line(error, EditError, f"Edit at 'blocks.0.resid_post': its basis, {kind}, has width 7", "there have 32")
    x = torch.zeros(2, 32, dtype=torch.float64)
    with pytest.raises(EditError) as error:
        swap(x, x, basis)
    one_line(error, EditError, f"{kind}, of width 7 was asked for, found activations of width 32; fit one on these")


def test_a_featurizer_fitted_at_another_site(tmp_path):
    path = save_featurizer(narrow(32), tmp_path / "basis", site="blocks.1.resid_post")
    for where, part in (
        ({"site": "blocks.2.resid_post"}, "asked for at 'blocks.2.resid_post', found one fitted at 'blocks.1.resid"),
        ({"width": 16}, "asked for at width 16, found one fitted at width 32"),
    ):
        with pytest.raises(EditError) as error:
            load_featurizer(path, **where)
        one_line(error, EditError, str(path), part)
    assert load_featurizer(path, site="blocks.1.resid_post", width=32).width == 32  # the control
    assert [p.name for p in tmp_path.iterdir()] == ["basis"]
