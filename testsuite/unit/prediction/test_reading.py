"""Reading from the top, and sources of other grids stacked behind the reference."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prediction_scenes import BoxPredictor, PatchPredictor, Scene, job_of, make_card, member, random_values, region_at
from rlearndeep.prediction import planning, reading
from rlearndeep.prediction.planning import make_plan
from rlearndeep.prediction.reading import Layer, Reader, Stacked, finite
from rlearndeep.prediction.stream import strips
from rlearndeep.scene.geometry import Region, Window, Windows
from rlearndeep.scene.resampling import METHODS, positions, resampled

REGION = region_at(3, 4, 24, 20)


def grid(res: float, down: float, right: float, side: int = 40) -> Region:
    """A grid of cells of ``res`` that begins near the north-west corner of the reference's."""
    north, west = REGION.north + 5 + down, REGION.west - 5 + right
    return Region(north, north - side * res, west + side * res, west, side, side)


def as_in_training(scene: Scene, places: Windows, shape: tuple[int, int], method: str) -> tuple[NDArray, NDArray]:
    """What training makes of the stored windows around some places."""
    own = Windows.around(*places.centres, scene.region, shape)
    starts = list(zip(own.row.tolist(), own.col.tolist(), strict=True))
    cut = [scene.read(Window(row, row + shape[0], col, col + shape[1])) for row, col in starts]
    values = np.stack(cut)
    valid = ~np.isnan(values).any(axis=1)
    return resampled(np.where(valid[:, None], values, 0), valid, *positions(own, places), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("res", [0.5, 1.0, 2.0, 2.7])
@pytest.mark.parametrize("shift", [0.0, 0.5, -0.35])
def test_stacked_bands_are_those_of_training_cell_by_cell(method, res, shift):
    own = grid(res, shift, -shift, 90)
    scene = Scene(random_values(3, own.shape, 2), own)
    reference = Scene(random_values(1, REGION.shape, 1), REGION)
    stacked = Stacked(reference, REGION, [Layer(scene, own, method)])
    whole = stacked.read(REGION.window)
    np.testing.assert_array_equal(whole[:1], reference.values)
    places = Windows(REGION, np.array([0, 3, 9]), np.array([2, 0, 7]), (6, 8))
    # Windows larger than the ground, so that neighbours beyond the patch are known to both.
    shape = int(np.ceil(6 / res)) + 4, int(np.ceil(8 / res)) + 4
    values, known = as_in_training(scene, places, shape, method)
    for place in range(3):
        row, col = int(places.row[place]), int(places.col[place])
        here = whole[1:, row : row + 6, col : col + 8]
        np.testing.assert_array_equal(~np.isnan(here).any(axis=0), known[place])
        np.testing.assert_allclose(here[:, known[place]], values[place][:, known[place]], rtol=1e-5, atol=1e-6)
    assert known.any() and not known.all()


@settings(max_examples=40)
@given(st.data(), st.sampled_from(METHODS), st.sampled_from([0.5, 1.0, 2.5]), st.floats(-2, 2), st.integers(1, 400))
def test_a_window_of_a_stack_is_that_part_of_the_whole_in_bounded_pieces(data, method, res, shift, held):
    own = grid(res, shift, shift)
    scene = Scene(random_values(3, own.shape, 1), own)
    stacked = Stacked(Scene(random_values(1, REGION.shape, 1), REGION), REGION, [Layer(scene, own, method)])
    around = REGION.window.expanded(4, 4)
    whole = stacked.read(around)
    rows, cols = (sorted(data.draw(st.tuples(st.integers(-4, 23), st.integers(-4, 19)))) for _ in range(2))
    part = Window(rows[0], rows[1] + 1, cols[0], cols[1] + 1)
    scene.read_cells.clear()
    before, reading._CELLS_AT_ONCE = reading._CELLS_AT_ONCE, held
    try:
        found = stacked.read(part)
    finally:
        reading._CELLS_AT_ONCE = before
    inside = part.relative_to(around).slices
    np.testing.assert_allclose(found, whole[:, inside[0], inside[1]], atol=1e-5)
    widest = int(part.cols / res) + 4
    assert all(window.rows * window.cols <= 3 * held + widest * (2 + 3 / res) for window in scene.read_cells)


def test_a_cell_without_the_stacked_source_is_null_in_the_map():
    own = grid(2.0, 0, 0)
    scene = Scene(random_values(3, own.shape, 1, 0.3), own)
    reference = Scene(random_values(1, REGION.shape, 2), REGION)
    stacked = Stacked(reference, REGION, [Layer(scene, own, "nearest")])
    card = make_card(bands=3, reach=1)
    job = job_of(reference, REGION, [member(BoxPredictor(1), card)], make_plan([card], overlap=4), source=stacked)
    valid = np.zeros(REGION.shape, dtype=bool)
    for strip in strips(job):
        rows, cols = strip.window.slices
        valid[rows, cols] = strip.valid
    np.testing.assert_array_equal(valid, ~np.isnan(stacked.read(REGION.window)).any(axis=0))
    assert (valid != ~np.isnan(reference.values).any(axis=0)).any()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=8))
def test_a_reader_gives_what_the_source_gives(windows):
    source = Scene(random_values(0, (24, 20)), REGION)
    reader = Reader(source)
    top = 0
    for step, rows, col in windows:
        top += step
        window = Window(top, top + rows, col // 3, 8)
        np.testing.assert_array_equal(reader.read(window), Scene(source.values, REGION).read(window))


def test_a_reader_does_not_read_shared_rows_again():
    source = Scene(random_values(0, (24, 20)), REGION)
    reader = Reader(source)
    for top in (0, 4, 8, 8):
        reader.read(Window(top, top + 8, 0, 20))
    assert [(window.row_start, window.row_stop) for window in source.read_cells] == [(0, 8), (8, 12), (12, 16)]


def test_a_cell_is_finite_where_every_band_is():
    values = np.array([[[1, np.nan, 3]], [[np.inf, 2, 3]]])
    assert finite(values).tolist() == [[False, False, True]]


class Slow:
    """A source that notes what is read, and by which thread."""

    def __init__(self, inner: Scene) -> None:
        self._inner = inner
        self.windows: list[Window] = []
        self.threads: set[int] = set()

    def read(self, window: Window) -> NDArray:
        self.windows.append(window)
        self.threads.add(threading.get_ident())
        return self._inner.read(window)


def test_the_next_window_is_read_by_another_thread_and_once() -> None:
    slow = Slow(Scene(random_values(2, REGION.shape, 1), REGION))
    reader = Reader(slow)
    first, second = Window(0, 8, 0, 20), Window(5, 13, 0, 20)
    reader.read(first)
    reader.expect(second)
    np.testing.assert_array_equal(reader.read(second), slow._inner.read(second))
    assert slow.windows == [first, Window(8, 13, 0, 20)]
    assert len(slow.threads) == 2


def test_what_was_expected_in_vain_does_no_harm() -> None:
    scene = Scene(random_values(2, REGION.shape, 1), REGION)
    reader = Reader(scene)
    reader.read(Window(0, 8, 0, 20))
    reader.expect(Window(5, 13, 0, 20))
    np.testing.assert_array_equal(reader.read(Window(2, 9, 3, 20)), scene.read(Window(2, 9, 3, 20)))


def test_an_error_of_the_other_thread_comes_to_the_reader() -> None:
    class Broken:
        def read(self, window: Window) -> NDArray:
            if window.row_start:
                raise OSError("no such row")
            return np.zeros((1, *window.shape))

    reader = Reader(Broken())
    reader.read(Window(0, 4, 0, 4))
    reader.expect(Window(4, 8, 0, 4))
    with pytest.raises(OSError, match="no such row"):
        reader.read(Window(4, 8, 0, 4))


@pytest.mark.parametrize("unit", ["cell", "patch"])
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_stream_expects_exactly_the_windows_it_reads(unit, chunk, monkeypatch) -> None:
    monkeypatch.setattr(planning, "_SMALL_TILE", 8)
    monkeypatch.setattr(planning, "_BLOCK_STRIP", 8)
    scene = Scene(random_values(2, REGION.shape, 2), REGION)
    card = make_card(unit)
    predictor = BoxPredictor(3) if unit == "cell" else PatchPredictor()
    job = job_of(scene, REGION, [member(predictor, card)], make_plan([card]), chunk)
    expected, read = [], []
    wait, join = Reader.expect, Reader.read
    monkeypatch.setattr(Reader, "expect", lambda self, window: (expected.append(window), wait(self, window))[1])
    monkeypatch.setattr(Reader, "read", lambda self, window: (read.append(window), join(self, window))[1])
    assert list(strips(job))
    assert expected == read[1:] and len(expected) > 1
