"""r.learn.deep.predict of rasters that GRASS reads in other ways: virtual ones, and those around the globe."""

from __future__ import annotations

import numpy as np
import pytest
from test_r_learn_deep_predict import CATEGORIES, ROWS, TOOL, arguments, cells, make_scene, models

__all__ = ["models"]  # the fixture


@pytest.mark.parametrize("kind", ["virtual", "reclass", "mask"])
def test_virtual_bands_and_masks_give_the_map_of_ordinary_ones(grass, models, kind):
    make_scene(grass)
    for name in ("red", "nir"):
        grass.ok("r.mapcalc", f"{name} = int({name})", "--overwrite")
    if kind == "mask":
        grass.ok("r.mapcalc", "shown = if(col() % 7, 1, null())")
    names = ["shown"] if kind == "mask" else ["red", "nir"]
    for name in names:
        for number in range(4):
            grass.ok("g.region", f"n={ROWS - 5 * number}", f"s={ROWS - 5 * number - 5}")
            grass.ok("r.mapcalc", f"{name}_{number} = {name}")
        grass.ok("g.region", f"n={ROWS}", "s=0")
        grass.ok("r.buildvrt", f"input={','.join(f'{name}_{number}' for number in range(4))}", f"output={name}_tiles")
        if kind == "reclass":
            rules = "".join(f"{value} = {value}\n" for value in range(-10, 100))
            grass.ok("r.reclass", f"input={name}_tiles", f"output={name}_classes", "rules=-", stdin=rules)
    if kind == "mask":
        grass.ok("r.mask", "raster=shown")
    grass.ok(TOOL, *arguments(models, "context", "expected"), "probabilities=expected", "nprocs=1")
    if kind == "mask":
        grass.ok("r.mask", "raster=shown_tiles", "--overwrite")
    else:
        suffix = {"virtual": "tiles", "reclass": "classes"}[kind]
        for name in ("red", "nir"):
            grass.ok("g.rename", f"raster={name},{name}_plain")
            grass.ok("g.rename", f"raster={name}_{suffix},{name}")
    grass.ok(TOOL, *arguments(models, "context", "map"), "probabilities=score", "confidence=sure", "nprocs=4")
    np.testing.assert_array_equal(cells(grass, "map"), cells(grass, "expected"))
    assert not np.isnan(cells(grass, "map")).all()
    for category in CATEGORIES:
        np.testing.assert_array_equal(cells(grass, f"score_{category}"), cells(grass, f"expected_{category}"))


def make_group(grass):
    """Two bands that differ from cell to cell over the region, as the group ``scene``."""
    grass.ok("r.mapcalc", "red = int(25 * sin(col() * 12.) + 20)")
    grass.ok("r.mapcalc", "nir = float(row() * 2.25 + col() % 3)")
    grass.ok("i.group", "group=scene", "input=red,nir")


@pytest.mark.parametrize(
    ("raster", "region", "turned"),
    [
        ((0, 360), (-180, 180), (-180, 180)),
        ((-180, 180), (160, 200), (0, 360)),
        ((170, 190), (-200, -160), (-190, -170)),
        ((-180, -150), (100, 220), (180, 210)),
    ],
)
def test_around_the_globe_the_map_is_that_of_the_bands_as_other_tools_see_them(
    grass_crs, models, raster, region, turned
):
    grass = grass_crs("EPSG:4326")
    grass.ok("g.region", "n=60", "s=-40", f"w={raster[0]}", f"e={raster[1]}", "res=5")
    make_group(grass)
    grass.ok("g.region", f"w={region[0]}", f"e={region[1]}")
    grass.ok(TOOL, *arguments(models, "context", "map"), "probabilities=map")
    # The same bands as maps that lie where the region is.
    grass.ok("g.region", f"w={turned[0]}", f"e={turned[1]}")
    for band in ("red", "nir"):
        grass.ok("g.rename", f"raster={band},other_{band}")
        grass.ok("r.mapcalc", f"{band} = other_{band}")
    grass.ok("g.region", f"w={region[0]}", f"e={region[1]}")
    grass.ok(TOOL, *arguments(models, "context", "expected"), "probabilities=expected")
    np.testing.assert_array_equal(np.isnan(cells(grass, "map")), np.isnan(cells(grass, "red")))
    for name in ("", *(f"_{category}" for category in CATEGORIES)):
        np.testing.assert_allclose(cells(grass, f"map{name}"), cells(grass, f"expected{name}"), atol=1.1e-3)


def test_context_beyond_the_date_line_makes_a_part_equal_the_whole(grass_crs, models):
    grass = grass_crs("EPSG:4326")
    grass.ok("g.region", "n=60", "s=-40", "w=-180", "e=180", "res=5")
    make_group(grass)
    grass.ok("g.region", "w=140", "e=220")
    grass.ok(TOOL, *arguments(models, "context", "whole"), "probabilities=whole")
    grass.ok("g.region", "w=150", "e=180")
    grass.ok(TOOL, *arguments(models, "context", "part"), "probabilities=part")
    for category in CATEGORIES:
        np.testing.assert_allclose(cells(grass, f"part_{category}"), cells(grass, f"whole_{category}"), atol=1.1e-3)


def test_a_patch_far_outside_the_region_sees_the_bands_where_they_begin_again(grass_crs, models):
    grass = grass_crs("EPSG:4326")
    grass.ok("g.region", "n=40", "s=0", "w=-178", "e=178", "res=1")
    make_group(grass)
    grass.ok("g.region", "w=160", "e=200")
    grass.ok(TOOL, *arguments(models, "patches", "whole"), "probabilities=whole", "stride=40")
    grass.ok("g.region", "w=162", "e=167")
    grass.ok(TOOL, *arguments(models, "patches", "part"), "probabilities=part", "stride=40")
    for category in CATEGORIES:
        np.testing.assert_array_equal(cells(grass, f"part_{category}"), cells(grass, f"whole_{category}"))
