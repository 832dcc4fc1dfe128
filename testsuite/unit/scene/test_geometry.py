"""Laws of windows, regions and tiles."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.geometry import Region, Tiling, Window

numbers = st.integers(-30, 30)


@st.composite
def windows(draw) -> Window:
    return Window(draw(numbers), draw(numbers), draw(numbers), draw(numbers))


@st.composite
def regions(draw) -> Region:
    rows, cols = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    height, width = draw(st.sampled_from((1.0, 10.0, 0.3, 28.5, 1 / 3600))), draw(st.sampled_from((1.0, 30.0, 0.3)))
    # Grids are anchored anywhere, half a cell off the origin included.
    row = draw(st.integers(-10_000, 10_000)) + draw(st.sampled_from((0, 0.5, 0.25)))
    col = draw(st.integers(-10_000, 10_000)) + draw(st.sampled_from((0, 0.5, 0.25)))
    north, west = -row * height, col * width
    return Region(north, north - rows * height, west + cols * width, west, rows, cols)


@st.composite
def tilings(draw) -> Tiling:
    sizes = draw(st.tuples(st.integers(1, 16), st.integers(1, 16)))
    return Tiling(sizes, (draw(st.integers(0, sizes[0] // 2)), draw(st.integers(0, sizes[1] // 2))))


def cells_of(window: Window) -> set[tuple[int, int]]:
    return {
        (row, col)
        for row in range(window.row_start, window.row_stop)
        for col in range(window.col_start, window.col_stop)
    }


@given(windows(), windows())
def test_windows_are_sets_of_cells(first, second):
    common = cells_of(first) & cells_of(second)
    assert cells_of(first.intersection(second)) == common
    assert first.overlaps(second) == bool(common)
    assert first.is_empty == (not cells_of(first))
    if not second.is_empty:
        assert first.contains(second) == (cells_of(second) <= cells_of(first))


@given(windows(), windows(), numbers, numbers)
def test_shifting_and_counting_from_elsewhere_are_inverse(window, other, rows, cols):
    assert window.shifted(rows, cols).shifted(-rows, -cols) == window
    assert window.relative_to(other).shifted(other.row_start, other.col_start) == window
    assert window.shifted(rows, cols).shape == window.shape
    assert window.expanded(3, 4).expanded(-3, -4) == window


@given(windows(), st.integers(0, 9), st.integers(0, 9))
def test_slices_of_an_intersection_take_exactly_its_cells(window, rows, cols):
    inside = window.intersection(Window(0, rows, 0, cols))
    assert np.ones((rows, cols))[inside.slices].sum() == len(cells_of(inside))


def test_slices_index_an_array_that_begins_at_the_first_cell():
    array = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(array[Window(1, 3, 2, 5).slices], [[7, 8, 9], [12, 13, 14]])


@given(regions(), st.data())
def test_the_centre_of_a_cell_lies_in_that_cell(region, data):
    row = data.draw(st.integers(-5, region.rows + 5))
    col = data.draw(st.integers(-5, region.cols + 5))
    found = region.cell_at(*region.centre(row, col))
    assert (int(found[0]), int(found[1])) == (row, col)


def test_a_point_on_a_border_belongs_to_the_cell_south_or_east():
    region = Region(10, 0, 10, 0, 10, 10)
    assert [int(value) for value in region.cell_at(3.0, 7.0)] == [3, 3]


@given(regions(), st.integers(-20, 20), st.integers(-20, 20))
def test_moving_a_region_moves_its_anchor_by_as_many_cells(region, rows, cols):
    moved = region.moved(rows, cols)
    assert moved.shape == region.shape
    assert moved.anchor == (region.anchor[0] + rows, region.anchor[1] + cols)
    assert moved.is_aligned_with(region)


@given(regions(), st.integers(-9, 20), st.integers(1, 20), st.integers(-9, 20), st.integers(1, 20))
def test_a_subregion_counts_the_same_cells(region, row, rows, col, cols):
    window = Window(row, row + rows, col, col + cols)
    part = region.subregion(window)
    assert part.shape == window.shape
    assert part.anchor == (region.anchor[0] + row, region.anchor[1] + col)
    np.testing.assert_allclose(part.centre(0, 0), region.centre(row, col))
    assert part.is_aligned_with(region)


@given(regions())
def test_regions_survive_json(region):
    assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region


def test_alignment_sees_other_resolutions_and_shifted_grids():
    region = Region(10, 0, 10, 0, 10, 10)
    assert region.is_aligned_with(Region(12, 3, 9, -4, 9, 13))
    assert not region.is_aligned_with(Region(10, 0, 10, 0, 5, 5))
    assert not region.is_aligned_with(Region(10.5, 0.5, 10, 0, 10, 10))
    assert not region.is_aligned_with(Region(10, 0, 10.4, 0.4, 10, 10))


@pytest.mark.parametrize("edges", [(0, 0, 1, 0, 1, 1), (1, 0, 0, 1, 1, 1), (1, 0, 1, 0, 0, 1)])
def test_a_region_without_cells_is_refused(edges):
    with pytest.raises(DeepLearningError, match=r"g\.region"):
        Region(*edges)


@given(tilings(), regions())
def test_the_steps_of_tiles_cover_every_cell_exactly_once(tiling, region):
    count = np.zeros(region.shape, dtype=int)
    for tile in tiling.tiles(region):
        start = tile.window
        step = Window(
            start.row_start, start.row_start + tiling.step[0], start.col_start, start.col_start + tiling.step[1]
        )
        count[step.intersection(region.window).slices] += 1
    assert (count == 1).all()


@given(tilings(), regions())
def test_every_tile_touches_the_region_and_a_cell_is_in_at_most_two_per_axis(tiling, region):
    count = np.zeros(region.shape, dtype=int)
    for tile in tiling.tiles(region):
        inside = tile.window.intersection(region.window)
        assert not inside.is_empty
        assert tile.window.shape == tiling.size
        assert tiling.reading_window(region).contains(tile.window)
        count[inside.slices] += 1
    assert count.min() >= 1
    assert count.max() <= 4


@given(tilings(), regions(), st.data())
def test_tiles_are_tied_to_the_map_not_to_the_region(tiling, region, data):
    row = data.draw(st.integers(0, region.rows - 1))
    col = data.draw(st.integers(0, region.cols - 1))
    window = Window(
        row, data.draw(st.integers(row + 1, region.rows)), col, data.draw(st.integers(col + 1, region.cols))
    )
    whole = {tile.window for tile in tiling.tiles(region) if tile.window.overlaps(window)}
    part = {tile.window.shifted(row, col) for tile in tiling.tiles(region.subregion(window))}
    assert part == whole


def test_tiles_come_in_rows_from_the_top_left():
    tiles = list(Tiling((4, 4), (1, 1)).tiles(Region(5, 0, 5, 0, 5, 5)))
    starts = [(tile.window.row_start, tile.window.col_start) for tile in tiles]
    assert starts == sorted(starts)
    # The grid is anchored at the map's origin, here the south-west corner: no tile shares but one cell with the region.
    assert starts == [(-1, -1), (-1, 2), (2, -1), (2, 2)]
    assert [(tile.row, tile.col) for tile in tiles] == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(("size", "overlap"), [(4, 3), (4, -1), (0, 0)])
def test_an_overlap_beyond_half_a_tile_is_refused(size, overlap):
    with pytest.raises(DeepLearningError, match="half the tile size"):
        Tiling((size, size), (overlap, overlap))
