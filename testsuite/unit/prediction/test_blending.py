"""Laws of blending: the weights of all tiles over a cell sum to 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.blending import BLENDS, Blending, axis_weights, ramp
from rlearndeep.scene.geometry import Region, Tiling, Window


@st.composite
def tilings(draw) -> tuple[Tiling, str]:
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    blend = draw(st.sampled_from(BLENDS))
    overlaps = [0 if blend == "none" else draw(st.integers(0, size // 2)) for size in sizes]
    return Tiling(sizes, (overlaps[0], overlaps[1])), blend


@given(
    tilings(), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(-50, 50), st.integers(-9, 9))
)
def test_weights_of_all_tiles_sum_to_one_in_every_cell(tiling_and_blend, shape, origin):
    blending = Blending(*tiling_and_blend)
    region = Region(origin[0] + shape[0], origin[0], origin[1] + shape[1], origin[1], *shape)
    total = np.zeros(shape)
    for tile in blending.tiling.tiles(region):
        inside = tile.window.intersection(region.window)
        total[inside.slices] += blending.weights[inside.relative_to(tile.window).slices]
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(st.integers(0, 50), st.sampled_from(BLENDS[:3]))
def test_a_ramp_rises_and_mirrors_its_neighbour(overlap, blend):
    weights = ramp(overlap, blend)
    assert weights.shape == (overlap,)
    assert (np.diff(weights) >= 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    if blend != "crop":
        np.testing.assert_allclose(weights, 1 - weights[::-1], atol=1e-6)


def test_ramps_have_the_documented_shape():
    np.testing.assert_allclose(ramp(4, "linear"), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(ramp(2, "cosine"), [0.5 - np.sqrt(0.125), 0.5 + np.sqrt(0.125)], atol=1e-7)
    np.testing.assert_array_equal(ramp(5, "crop"), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(axis_weights(5, 2, "linear"), [0.25, 0.75, 1, 0.75, 0.25])


def test_only_cropping_leaves_cells_of_a_tile_without_weight():
    tiling = Tiling((10, 8), (4, 2))
    assert Blending(tiling, "linear").core == Window(0, 10, 0, 8)
    assert Blending(tiling, "crop").core == Window(2, 8, 1, 7)


def test_no_blending_needs_tiles_that_do_not_overlap():
    with pytest.raises(DeepLearningError, match="overlap=0"):
        Blending(Tiling((10, 10), (2, 2)), "none")
    with pytest.raises(DeepLearningError, match="linear, cosine, crop, none"):
        Blending(Tiling((10, 10), (2, 2)), "feather")
