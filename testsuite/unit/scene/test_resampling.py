"""Cells of one grid brought into another, by arithmetic that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlearndeep.scene.geometry import Region, Windows
from rlearndeep.scene.resampling import positions, resampled


def windows(region: Region, row: int, col: int, shape: tuple[int, int]) -> Windows:
    return Windows(region, np.array([row]), np.array([col]), shape)


def grid(cell: float, north: float = 100.0, west: float = 0.0, cells: int = 10) -> Region:
    return Region(north, north - cell * cells, west + cell * cells, west, cells, cells)


def test_a_cell_twice_as_large_gives_its_value_to_four() -> None:
    values = np.arange(4.0).reshape(1, 1, 2, 2)
    valid = np.array([[[True, False], [True, True]]])
    rows, cols = positions(windows(grid(20), 0, 0, (2, 2)), windows(grid(10), 0, 0, (4, 4)))
    found, known = resampled(values, valid, rows, cols, "nearest")
    assert found[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert known[0].tolist() == [[True, True, False, False]] * 2 + [[True] * 4] * 2


def test_a_centre_on_a_border_takes_the_cell_south_east_of_it() -> None:
    values = np.arange(16.0).reshape(1, 1, 4, 4)
    rows, cols = positions(windows(grid(5), 0, 0, (4, 4)), windows(grid(10), 0, 0, (2, 2)))
    found, _ = resampled(values, np.ones((1, 4, 4), dtype=bool), rows, cols, "nearest")
    assert found[0, 0].tolist() == [[5, 7], [13, 15]]


@settings(max_examples=60)
@given(
    st.sampled_from([4.0, 5.0, 10.0, 15.0, 37.5]),
    st.floats(-20, 20),
    st.floats(-20, 20),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_a_plane_stays_a_plane_and_what_lies_outside_is_not_known(cell, north, west, row, col) -> None:
    own, reference = grid(cell, 100 + north, west, 40), grid(10)
    there = windows(reference, row, col, (3, 4))
    here = Windows.around(*there.centres, own, (9, 9))
    east, ground = own.centre(here.row[0] + np.arange(9)[:, None], here.col[0] + np.arange(9)[None])
    values = np.stack([np.broadcast_to(east, (9, 9)), np.broadcast_to(ground, (9, 9))])[None]
    rows, cols = positions(here, there)
    wanted = np.broadcast_arrays(*reference.centre(row + np.arange(3)[:, None], col + np.arange(4)[None]))
    smooth, known = resampled(values, np.ones((1, 9, 9), dtype=bool), rows, cols, "bilinear")
    near, also = resampled(values, np.ones((1, 9, 9), dtype=bool), rows, cols, "nearest")
    inner = known[0] & (rows[0][:, None] > 0.5) & (rows[0][:, None] < 8.5) & (cols[0] > 0.5) & (cols[0] < 8.5)
    assert np.array_equal(known, also)
    for band in range(2):
        assert np.abs(smooth[0, band] - wanted[band])[inner].max(initial=0) < 1e-3
        assert np.abs(near[0, band] - wanted[band])[known[0]].max(initial=0) <= cell / 2 + 1e-3
    assert np.array_equal(known[0], ((rows[0] >= 0) & (rows[0] < 9))[:, None] & ((cols[0] >= 0) & (cols[0] < 9)))


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_a_part_of_the_ground_gives_that_part_of_the_answer(method: str) -> None:
    random = np.random.default_rng(0)
    values, valid = random.random((1, 2, 20, 20)), random.random((1, 20, 20)) > 0.2
    own, reference = grid(7.5, 103, -4, 20), grid(10)
    rows, cols = positions(windows(own, 0, 0, (20, 20)), windows(reference, 0, 0, (9, 9)))
    whole, known = resampled(values, valid, rows, cols, method)
    rows, cols = positions(windows(own, 2, 1, (15, 16)), windows(reference, 3, 2, (4, 5)))
    part, also = resampled(values[:, :, 2:17, 1:17], valid[:, 2:17, 1:17], rows, cols, method)
    assert np.array_equal(known[:, 3:7, 2:7], also)
    assert np.allclose(np.where(also, part, 0), np.where(known, whole, 0)[..., 3:7, 2:7])
