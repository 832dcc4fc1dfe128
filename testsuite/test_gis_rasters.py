"""Rasters that GRASS reads in other ways: virtual ones beside other threads, and those around the globe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import Grass
from numpy.typing import NDArray
from test_gis import inside

COLS = 200


def cells(grass: Grass, name: str) -> NDArray:
    """Values of a raster as GRASS's own tools see them in the current region, NaN is null."""
    text = grass.ok("r.out.ascii", "-h", f"input={name}", "output=-", "null_value=nan")
    return np.array([line.split() for line in text.splitlines()], dtype=float)


@contextmanager
def masked(grass: Grass, mask: str) -> Iterator[None]:
    """With a mask in the ``with`` block; without one where its name is empty."""
    if mask:
        grass.ok("r.mask", f"raster={mask}")
    try:
        yield
    finally:
        if mask:
            grass.ok("r.mask", "-r")


@pytest.fixture(scope="module")
def virtual(new_project) -> Grass:
    """Rasters ``whole``, of which every cell differs, ``tiles`` of the same cells by r.buildvrt, and reclasses."""
    grass = new_project()
    region = ["w=0", f"e={COLS}", "res=1"]
    names = []
    for number in range(4):
        grass.ok("g.region", f"n={COLS - 50 * number}", f"s={COLS - 50 * (number + 1)}", *region)
        names.append(f"tile{number}")
        grass.ok("r.mapcalc", f"{names[-1]} = if(col() == 7, null(), int(y()) * {COLS} + col())")
    grass.ok("g.region", f"n={COLS}", "s=0", *region)
    grass.ok("r.buildvrt", f"input={','.join(names)}", "output=tiles")
    grass.ok("r.mapcalc", "whole = tiles + 0")
    grass.ok("r.reclass", "input=tiles", "output=classes", "rules=-", stdin="0 thru 20000 = 1\n* = 2\n")
    grass.ok("r.reclass", "input=whole", "output=half", "rules=-", stdin="0 thru 20000 = 1\n* = NULL\n")
    grass.ok("r.mapcalc", "halves = classes + 0")
    return grass


def test_virtual_rasters_are_known_also_behind_a_reclass(virtual: Grass) -> None:
    code = "answer = [raster_info(name).virtual for name in ('tiles', 'classes', 'whole', 'halves')]"
    assert inside(virtual, code) == [True, True, False, False]


@pytest.mark.parametrize(
    ("names", "alike", "mask"),
    [
        (["tiles", "tiles", "tiles", "classes"], ["whole", "whole", "whole", "halves"], ""),
        (["whole"] * 4, ["whole"] * 4, "tiles"),
        (["whole"] * 4, ["whole"] * 4, "classes"),
    ],
    ids=["bands", "mask", "reclassed mask"],
)
def test_virtual_rasters_are_read_ahead_while_others_are_read_and_written(
    virtual: Grass, names: list[str], alike: list[str], mask: str
) -> None:
    # Threads that met in GRASS's table of open files ended the process, or gave cells of other rows.
    with masked(virtual, mask):
        answer = inside(
            virtual,
            f"""
            from concurrent.futures import ThreadPoolExecutor
            strips = [Window(row, row + 10, 0, region.cols) for row in range(0, region.rows, 10)] * 2
            with RasterStack({alike}, region) as stack:
                expected = stack.read(region.window)
            with (
                RasterStack({names}, region, beside=["whole"], readers=4) as bands,
                RasterStack(["whole"], region, dtype="int32", beside={names}) as other,
                ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(3) as clerks,
            ):
                writers = [RasterWriter(f"copy{{number}}", region.subregion(Window(0, 400, 0, {COLS})), "float32")
                           for number in range(3)]
                reading, same = ahead.submit(bands.read, strips[0]), []
                for number, strip in enumerate(strips):
                    values = reading.result()
                    reading = ahead.submit(bands.read, strips[(number + 1) % len(strips)])
                    writing = [clerks.submit(writer.write, values[0]) for writer in writers]
                    other.read(strip)
                    [one.result() for one in writing]
                    same.append(np.array_equal(values, expected[:, strip.slices[0]], equal_nan=True))
                reading.result()
                for writer in writers:
                    writer.discard()
            answer = same
            """,
        )
    assert answer == [True] * 40


@pytest.mark.parametrize(
    ("name", "mask", "waits"),
    [
        ("whole", "", False),
        ("whole", "halves", False),
        ("tiles", "", True),
        ("classes", "", True),
        ("whole", "tiles", True),
        ("whole", "classes", True),
    ],
)
def test_rows_are_written_beside_reading_unless_a_virtual_raster_is_read(virtual: Grass, name, mask, waits) -> None:
    with masked(virtual, mask):
        answer = inside(
            virtual,
            f"""
            from concurrent.futures import ThreadPoolExecutor, wait
            from rlearndeep.gis import rasters
            with RasterStack(["{name}"], region), ThreadPoolExecutor(1) as clerk:
                writer = RasterWriter("copy", region)
                with rasters._reading:
                    writing = clerk.submit(writer.write, np.ones((1, region.cols)))
                    answer = not wait([writing], timeout={0.3 if waits else 30}).done
                writing.result()
                writer.discard()
            """,
        )
    assert answer == waits


@pytest.mark.parametrize("mask", ["", "tiles", "half"])
@pytest.mark.parametrize("name", ["whole", "tiles", "classes", "half"])
def test_nulls_are_found_in_all_kinds_of_rasters(virtual: Grass, name: str, mask: str) -> None:
    with masked(virtual, mask):
        answer = inside(
            virtual,
            f"""
            with RasterStack(["{name}"], region) as stack:
                nulls, values = stack.read_nulls(region.window), stack.read(region.window)[0]
            answer = [np.array_equal(nulls, np.isnan(values)), int(nulls.sum())]
            """,
        )
    half = COLS // 2 * (COLS + 1)
    assert answer == [True, half if "half" in (name, mask) else COLS]


def seen(grass: Grass, name: str, window: str = "region.window") -> tuple[NDArray, list]:
    """Cells of a window as they are read, and the window of the region's endless grid that has cells at all."""
    values, extent = inside(
        grass,
        f"""
        from rlearndeep.gis.rasters import extent_window
        window = {window}
        with RasterStack(["{name}"], region, window, dtype="float64") as stack:
            values = stack.read(window)[0]
            parts = [Window(window.row_start, window.row_stop, col, col + 3)
                     for col in range(window.col_start, window.col_stop, 3)]
            again = np.concatenate([stack.read(part)[0] for part in parts], axis=1)[:, : window.cols]
        assert np.array_equal(values, again, equal_nan=True)
        extent = extent_window(region, [raster_info("{name}").region])
        answer = [[[None if value != value else value for value in row] for row in values.tolist()],
                  [extent.col_start, extent.col_stop]]
        """,
    )
    return np.array(values, dtype=float), extent


@pytest.fixture(scope="module")
def globe(new_project) -> Grass:
    """A project in latitude-longitude; see :func:`turned`."""
    return new_project("EPSG:4326")


def turned(grass: Grass, raster: tuple[int, int], region: tuple[int, int], step: int = 10) -> None:
    """Make ``source`` between two meridians, and set a region between two others."""
    grass.ok("g.region", "n=40", "s=0", f"w={raster[0]}", f"e={raster[1]}", "res=10")
    grass.ok("r.mapcalc", "source = 100 * row() + col()", "--overwrite")
    grass.ok("g.region", "n=40", "s=0", f"w={region[0]}", f"e={region[1]}", f"ewres={step}", "nsres=10")


@pytest.mark.parametrize(
    ("raster", "region", "step"),
    [
        ((0, 360), (-180, 180), 10),
        ((-180, 180), (0, 360), 10),
        ((-180, 180), (160, 200), 10),
        ((-180, 180), (-200, -160), 5),
        ((170, 190), (-180, -150), 10),
        ((-190, -170), (150, 190), 10),
        ((170, 190), (-180, 180), 10),
        ((-170, 170), (150, 210), 20),
        ((0, 360), (-100, -30), 7),
        ((20, 60), (100, 140), 10),
    ],
)
def test_rasters_of_other_turns_are_seen_as_other_tools_see_them(globe: Grass, raster, region, step) -> None:
    turned(globe, raster, region, step)
    values, _ = seen(globe, "source")
    globe.ok("r.mapcalc", "expected = source + 0", "--overwrite")
    np.testing.assert_array_equal(values, cells(globe, "expected"))
    assert np.isnan(values).all() == (raster == (20, 60))


def test_context_is_read_across_the_date_line(globe: Grass) -> None:
    turned(globe, (-180, 180), (160, 180))
    values, extent = seen(globe, "source", "region.window.expanded(0, 3)")
    assert values[0].tolist() == [132, 133, 134, 135, 136, 101, 102, 103]
    assert extent[0] <= -3 and extent[1] >= 5


def test_context_goes_around_the_globe_as_often_as_it_is_asked_to(globe: Grass) -> None:
    turned(globe, (0, 360), (-180, 180))
    values, extent = seen(globe, "source", "region.window.expanded(1, 50)")
    east = np.arange(-50, 86)
    np.testing.assert_array_equal(
        values[1:-1], [[100 * row + (col + 18) % 36 + 1 for col in east] for row in range(1, 5)]
    )
    assert np.isnan(values[[0, -1]]).all()
    assert extent[0] <= -50 and extent[1] >= 86


def test_a_grid_that_does_not_close_has_the_nearest_cells_behind_the_turn(globe: Grass) -> None:
    turned(globe, (0, 360), (0, 350), 50)
    values, _ = seen(globe, "source", "region.window.expanded(0, 1)")
    # Columns of 50 degrees, 7.2 to the turn: those of the region are exact, the others the nearest of them.
    assert values[0].tolist() == [133, 103, 108, 113, 118, 123, 128, 133, 103]


def test_a_raster_far_from_the_region_in_every_turn_does_not_widen_what_is_read(globe: Grass) -> None:
    turned(globe, (20, 60), (0, 80))
    assert seen(globe, "source")[1] == [2, 6]
    turned(globe, (20, 60), (380, 400))
    assert seen(globe, "source")[1] == [0, 4]
