"""What tells that a raster, or the mask, changed since it was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Grass
from test_gis import inside


@pytest.fixture(autouse=True)
def small_region(grass: Grass) -> None:
    """A region of few cells."""
    grass.ok("g.region", "n=2", "s=0", "w=0", "e=3", "res=1")


def stamp(grass: Grass, name: str) -> object:
    code = f"from rlearndeep.gis.stamps import mask_stamp, raster_stamp\nanswer = {name}"
    return inside(grass, code)


CHANGES = {
    "its cells": ("red", "r.mapcalc", "red = 2", "--overwrite"),
    "its nulls": ("red", "r.null", "map=red", "setnull=1"),
    "its null file": ("holes", "r.null", "-r", "map=holes"),
    "the base of a reclass": ("classes", "r.mapcalc", "red = 2", "--overwrite"),
    "a tile of a virtual raster": ("both", "r.mapcalc", "right = 4", "--overwrite"),
    "the base of a tile": ("both", "r.mapcalc", "red = 2", "--overwrite"),
    "a linked file": ("linked", "r.out.gdal", "input=holes", "output=red.tif", "format=GTiff", "--overwrite"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_stamp_of_a_raster_changes_with(grass: Grass, what: str) -> None:
    grass.ok("r.mapcalc", "red = 1")
    grass.ok("r.mapcalc", "holes = if(col() == 2, null(), 3)")
    grass.ok("r.mapcalc", "right = 3")
    grass.ok("r.reclass", "input=red", "output=classes", "rules=-", stdin="1 2 = 5\n")
    if what in ("a tile of a virtual raster", "the base of a tile"):
        grass.ok("r.buildvrt", "input=classes,right", "output=both")
    if what == "a linked file":
        grass.ok("r.out.gdal", "input=red", "output=red.tif", "format=GTiff")
        grass.ok("r.external", "-o", "input=red.tif", "output=linked")
    name, *change = CHANGES[what]
    full = f"raster_stamp('{name}@PERMANENT')"
    before = stamp(grass, full)
    assert before == stamp(grass, full)
    grass.ok(*change)
    assert before != stamp(grass, full)


def test_the_stamp_of_a_mask_changes_with_its_base_and_its_name(grass: Grass) -> None:
    grass.ok("r.mapcalc", "base = 1")
    grass.ok("r.mapcalc", "other = 1")
    grass.ok("r.mask", "raster=base")
    before = stamp(grass, "mask_stamp()")
    grass.ok("r.mapcalc", "base = if(col() == 1, null(), 1)", "--overwrite")
    assert before != stamp(grass, "mask_stamp()")
    grass.ok("r.mask", "-r")
    none = stamp(grass, "mask_stamp()")
    grass.env["GRASS_MASK"] = "other"
    named = stamp(grass, "mask_stamp()")
    assert named != none
    grass.ok("r.mapcalc", "other = 2", "--overwrite")
    assert stamp(grass, "mask_stamp()") != named


def test_files_that_links_name_are_found(grass: Grass, tmp_path: Path) -> None:
    for name in ("a.nc", "b.zip", "c.tif"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.vrt").write_text('<SourceFilename relativeToVRT="1">c.tif</SourceFilename>')
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "hdr.adf").write_text("")
    place = str(tmp_path)
    links = [f'NETCDF:"{place}/a.nc":band', f"/vsizip/{place}/b.zip/in/it.tif", f"{place}/d.vrt", f"{place}/e"]
    found = inside(
        grass,
        f"""
        from rlearndeep.gis.stamps import _linked_files
        answer = [[file.name for file in _linked_files(f"file: {{link}}\\nband: 1\\n")] for link in {links!r}]
        """,
    )
    assert found == [["a.nc"], ["b.zip"], ["d.vrt", "c.tif"], ["hdr.adf"]]
