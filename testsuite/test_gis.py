"""The rooms that know GRASS: rasters, groups and the session, in a project of coordinate-valued rasters."""

from __future__ import annotations

import json
import os
import sys
import textwrap

import pytest
from conftest import ROOT, Grass

PREAMBLE = """
import json
import numpy as np
from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.groups import grid_remarks, open_group
from rlearndeep.gis.rasters import CELL_NULL, RasterStack, RasterWriter, check_new_raster, raster_info
from rlearndeep.gis.session import at_end, current_region, libraries
from rlearndeep.scene.geometry import Region, Window
region = current_region()
"""


def inside(grass: Grass, code: str, **env: str) -> object:
    """Run code in a GRASS session of its own and return what it puts into ``answer``."""
    program = f"{PREAMBLE}\n{textwrap.dedent(code)}\nprint('ANSWER' + json.dumps(answer))"
    path = os.pathsep.join([str(ROOT / "lib"), grass.env["PYTHONPATH"]])
    done = grass.run(sys.executable, "-c", program, PYTHONPATH=path, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("ANSWER")[-1])


@pytest.fixture
def coordinates(grass: Grass) -> Grass:
    """4 x 6 cells of 10 map units; the value of a cell is 100 * row + column, counted from 1."""
    grass.ok("g.region", "n=40", "s=0", "w=0", "e=60", "res=10")
    grass.ok("r.mapcalc", "coordinate = 100 * row() + col()")
    grass.ok("r.mapcalc", "holes = if(row() == 2 && col() == 3, null(), 0.5 * col())")
    return grass


def test_a_window_is_read_exactly_and_is_null_beyond_the_raster(coordinates: Grass) -> None:
    values = inside(
        coordinates,
        """
        window = region.window.expanded(2, 3)
        with RasterStack(["coordinate"], region, window, dtype="int32") as stack:
            whole = stack.read(window)[0]
            part = stack.read(Window(1, 3, 2, 5))[0]
        answer = [whole.shape, part.tolist(), int((whole == CELL_NULL).sum()), int(whole[2, 3]), int(whole[5, 8])]
        """,
    )
    assert values == [[8, 12], [[203, 204, 205], [303, 304, 305]], 96 - 24, 101, 406]


def test_context_beyond_the_region_is_read_where_the_raster_has_data(coordinates: Grass) -> None:
    coordinates.ok("g.region", "n=30", "s=10", "w=20", "e=40")
    values = inside(
        coordinates,
        """
        window = region.window.expanded(1, 1)
        with RasterStack(["coordinate"], region, window, dtype="int32") as stack:
            answer = stack.read(window)[0].tolist()
        """,
    )
    assert values == [[100 * row + col for col in range(2, 6)] for row in range(1, 5)]


def test_nulls_of_any_band_are_found_without_reading_values(coordinates: Grass) -> None:
    values = inside(
        coordinates,
        """
        with RasterStack(["coordinate", "holes"], region) as stack:
            nulls = stack.read_nulls(region.window)
            cells = stack.read(region.window)
        answer = [np.argwhere(nulls).tolist(), np.argwhere(np.isnan(cells).any(axis=0)).tolist()]
        """,
    )
    assert values == [[[1, 2]], [[1, 2]]]


def test_the_mask_is_applied_on_reading(coordinates: Grass) -> None:
    coordinates.ok("r.mapcalc", "MASK = if(col() <= 3, 1, null())")
    values = inside(
        coordinates,
        """
        with RasterStack(["coordinate"], region) as stack:
            answer = [np.isnan(stack.read(region.window)[0]).sum(axis=0).tolist(),
                      stack.read_nulls(region.window).sum(axis=0).tolist()]
        """,
    )
    assert values == [[0, 0, 0, 4, 4, 4]] * 2


def test_a_written_raster_reads_back_alike_with_its_nulls(coordinates: Grass) -> None:
    coordinates.ok("r.mapcalc", "wide = 100000 * row()")
    values = inside(
        coordinates,
        """
        rows = np.arange(24, dtype=np.int32).reshape(4, 6)
        rows[2, 4] = CELL_NULL
        with RasterWriter("written", region) as writer:
            writer.write(rows[:3])
            writer.write(rows[3:])
        with RasterStack(["written"], region, dtype="int32") as stack:
            answer = [np.array_equal(stack.read(region.window)[0], rows), str(raster_info("written").dtype),
                      str(raster_info("wide").dtype), raster_info("holes").type]
        """,
    )
    assert values == [True, "uint8", "int32", "DCELL"]


def test_a_failed_writing_leaves_the_older_map_untouched(coordinates: Grass) -> None:
    values = inside(
        coordinates,
        """
        try:
            with RasterWriter("coordinate", region) as writer:
                writer.write(np.zeros((2, 6), dtype=np.int32))
                raise ValueError("on the way")
        except ValueError:
            pass
        with RasterStack(["coordinate"], region) as stack:
            answer = stack.read(region.window)[0][0].tolist()
        """,
    )
    assert values == [101, 102, 103, 104, 105, 106]


def test_an_existing_map_is_replaced_only_when_asked(coordinates: Grass) -> None:
    message = inside(
        coordinates,
        """
        check_new_raster("coordinate", overwrite=True)
        check_new_raster("new", overwrite=False)
        try:
            check_new_raster("coordinate", overwrite=False)
        except DeepLearningError as error:
            answer = str(error)
        """,
    )
    assert "<coordinate>" in message and "--overwrite" in message


def test_groups_keep_their_order_and_tell_semantic_labels(coordinates: Grass) -> None:
    coordinates.ok("r.semantic.label", "map=holes", "semantic_label=S2_8")
    coordinates.ok("r.mapcalc", "nir = 1")
    coordinates.ok("r.semantic.label", "map=nir", "semantic_label=nir")
    coordinates.ok("i.group", "group=both", "input=holes,coordinate,nir")
    coordinates.ok("g.region", "res=20")
    names, labels, remarks = inside(
        coordinates,
        """
        group = open_group("both")
        remarks = grid_remarks(group.rasters, region)
        answer = [[b.name for b in group.bands], [b.semantic_label for b in group.bands], remarks]
        """,
    )
    assert names == ["holes", "coordinate", "nir"]
    assert labels == ["S2_8", None, "nir"]
    assert len(remarks) == 1 and "10 x 10" in remarks[0] and "20 x 20" in remarks[0] and "1 more" in remarks[0]


@pytest.mark.parametrize(("name", "rule"), [("absent", "must exist"), ("empty", "is empty")])
def test_absent_and_empty_groups_are_named(coordinates: Grass, name: str, rule: str) -> None:
    coordinates.ok("i.group", "group=empty", "input=coordinate")
    coordinates.ok("i.group", "-r", "group=empty", "input=coordinate")
    message = inside(
        coordinates,
        f"""
        try:
            open_group("{name}")
            answer = "accepted"
        except DeepLearningError as error:
            answer = str(error)
        """,
    )
    assert rule in message and "i.group" in message


def test_a_fatal_error_of_the_c_library_is_one_line_and_runs_the_cleaning(coordinates: Grass) -> None:
    program = f"""{PREAMBLE}
at_end(lambda: print("cleaned"))
libraries()[1].Rast_open_old("absent", "PERMANENT")
print("went on")
"""
    path = os.pathsep.join([str(ROOT / "lib"), coordinates.env["PYTHONPATH"]])
    done = coordinates.run(sys.executable, "-c", program, PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stdout == "cleaned\n"
    assert " ".join(done.stderr.split()).count("ERROR:") == 1
