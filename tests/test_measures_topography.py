"""Maps over a plane: they are the model's own predictions, and pass through it at every real row."""

import numpy as np
import pytest
import torch

from close import FLOAT64
from microtome.core.errors import MeasureError
from microtome.measures.principal import principal
from microtome.measures.topography import plane_of_components, plane_of_items, topography


def world(seed=0, items=25, width=10):
    rng = np.random.default_rng(seed)
    table, first, last = rng.normal(size=(items, width)), rng.normal(size=(width, 16)), rng.normal(size=(16, 3))
    return table, lambda e: np.tanh(e @ first) @ last


def test_every_place_is_the_models_prediction_there():
    table, model = world()
    axes = principal(table)
    found = topography(table, plane_of_components(axes, 0, 2), model, points=7, chunk=5)
    assert found.values.shape == (7, 7, 3) and found.plane.names == ("PC1", "PC3")
    for row, column in ((0, 0), (3, 6), (6, 2)):
        embedding = axes.mean + found.x[column] * axes.components[0] + found.y[row] * axes.components[2]
        np.testing.assert_allclose(found.values[row, column], model(embedding[None])[0], atol=FLOAT64)


def test_the_map_spans_the_rows_and_a_margin():
    table, model = world()
    found = topography(table, plane_of_components(principal(table)), model, points=5, margin=0.25)
    spread = np.ptp(found.items, axis=0)
    np.testing.assert_allclose(
        found.x[[0, -1]], [found.items[:, 0].min(), found.items[:, 0].max()] + spread[0] * np.array([-0.25, 0.25])
    )
    np.testing.assert_allclose(
        found.y[[0, -1]], [found.items[:, 1].min(), found.items[:, 1].max()] + spread[1] * np.array([-0.25, 0.25])
    )


def test_with_the_nearest_rest_the_map_is_the_model_at_real_rows():
    table, model = world()
    for plane in (plane_of_components(principal(table)), plane_of_items(table, 3, 5, 8)):
        found = topography(table, plane, model, rest="nearest", points=4)
        np.testing.assert_allclose(found.on_map, found.predicted, atol=FLOAT64)
        np.testing.assert_allclose(found.predicted, model(table), atol=FLOAT64)
        bare = topography(table, plane, model, points=4)
        assert np.abs(bare.on_map - bare.predicted).max() > 0.1


def test_a_flat_table_needs_no_rest():
    table, model = world()
    axes = principal(table)
    flat = axes.restore(axes.scores(table)[:, :2])
    found = topography(flat, plane_of_components(principal(flat)), model, points=4)
    np.testing.assert_allclose(found.on_map, found.predicted, atol=FLOAT64)


def test_a_grid_place_at_a_row_says_what_the_model_says_of_the_row():
    table, model = world()
    plane = plane_of_items(table[:3], 0, 1, 2)
    found = topography(table[:3], plane, model, rest="nearest", points=3, margin=0)
    np.testing.assert_allclose(found.items, [[0, 0], [1, 0], [0, 1]], atol=FLOAT64)
    np.testing.assert_allclose(found.values[[0, 0, 2], [0, 2, 0]], model(table[:3]), atol=FLOAT64)
    assert found.nearest[[0, 0, 2], [0, 2, 0]].tolist() == [0, 1, 2]


def test_the_rest_of_one_row_everywhere():
    table, model = world()
    plane = plane_of_components(principal(table))
    found = topography(table, plane, model, rest=4, points=3)
    off = table[4] - plane.points(plane.coordinates(table[4]))
    corner = plane.points(np.array([found.x[0], found.y[0]])) + off
    np.testing.assert_allclose(found.values[0, 0], model(corner[None])[0], atol=FLOAT64)
    np.testing.assert_allclose(found.on_map[4], found.predicted[4], atol=FLOAT64)


def test_gradients_and_regions_of_a_linear_model():
    table, _ = world()
    axes = principal(table)
    slope = axes.components[0] * 2 - axes.components[1] * 3
    found = topography(table, plane_of_components(axes), lambda e: torch.tensor(e @ slope)[:, None], points=6)
    assert found.values.shape == (6, 6)
    np.testing.assert_allclose(found.gradient, np.stack([np.full((6, 6), 2.0), np.full((6, 6), -3.0)]), atol=1e-7)
    two = topography(table, plane_of_components(axes), lambda e: np.stack([e @ slope, -e @ slope], 1), points=6)
    np.testing.assert_array_equal(two.regions == 0, found.values > 0)
    assert two.gradient.shape == (2, 6, 6, 2)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x, f: plane_of_components(principal(x), 1, 1), "two different"),
        (lambda x, f: plane_of_components(principal(x), 0, 10), "0 to 9"),
        (lambda x, f: plane_of_items(x, 0, 1, 25), "0 to 24"),
        (lambda x, f: plane_of_items(x, 0, 1, 1), "on one line"),
        (lambda x, f: topography(x[:, :5], plane_of_components(principal(x)), f), "10 dimensions"),
        (lambda x, f: topography(x, plane_of_components(principal(x)), f, rest="near"), "row 'near'"),
        (lambda x, f: topography(x, plane_of_components(principal(x)), f, rest=-1), "row -1"),
        (lambda x, f: topography(x, plane_of_components(principal(x)), lambda e: e[:3, 0]), "Predictions"),
        (lambda x, f: topography(x, plane_of_components(principal(x)), lambda e: e[:, :, None]), "return"),
        (lambda x, f: topography(x, plane_of_components(principal(x)), lambda e: e[:, 0] * np.inf), "NaN"),
        (
            lambda x, f: topography(x, plane_of_components(principal(x)), lambda e: e[:, 0], points=4).regions,
            "one output",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(MeasureError, match=text) as error:
        call(*world())
    assert "\n" not in str(error.value)
