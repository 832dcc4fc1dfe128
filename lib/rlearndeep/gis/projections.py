"""Where on Earth a region lies."""

from __future__ import annotations

import subprocess
from typing import Any

import grass.script as gs

from rlearndeep.gis.session import cell_head, libraries
from rlearndeep.scene.geometry import Region
from rlearndeep.scene.units import Units, of_degrees

_XY = 0


def projection() -> dict[str, Any]:
    """Name, EPSG code and well-known text of the project's coordinate system; values may be None."""
    values = gs.parse_command("g.proj", flags="g", quiet=True, stderr=subprocess.DEVNULL)
    name = values.get("name")
    if not name or name == "xy_location_unprojected":
        return {"name": "XY", "epsg": None, "wkt": None}
    code = str(values.get("srid") or values.get("epsg") or "").rpartition(":")[2]
    text = gs.read_command("g.proj", flags="wf", quiet=True, stderr=subprocess.DEVNULL).strip()
    return {"name": name, "epsg": int(code) if code.isdigit() else None, "wkt": text or None}


def ground_units(region: Region) -> Units | None:
    """Metres of a map unit in the middle of a region of the project; None in one without coordinate system."""
    libgis, *_ = libraries()
    if cell_head(region).proj == _XY:
        return None
    if libgis.G_projection() == libgis.PROJECTION_LL:
        return of_degrees((region.north + region.south) / 2)
    length = float(libgis.G_database_units_to_meters_factor())
    return (length, length) if length > 0 else None


def extent_degrees(region: Region) -> tuple[float, float, float, float] | None:
    """West, south, east and north of a region in degrees.

    None in a project without coordinate system, and where a corner is no place on Earth: so are those of a picture of
    the whole disk, and of the outer tiles of a sinusoidal grid.
    """
    libraries()
    if cell_head(region).proj == _XY:
        return None
    edges = {side: getattr(region, side) for side in ("north", "south", "east", "west")}
    listing = gs.parse_command(
        "g.region",
        flags="bgu",
        n=edges["north"],
        s=edges["south"],
        e=edges["east"],
        w=edges["west"],
        rows=region.rows,
        cols=region.cols,
        quiet=True,
        stderr=subprocess.DEVNULL,
        errors="ignore",
    )
    if "ll_w" not in listing:
        return None
    west, south, east, north = (float(listing[key]) for key in ("ll_w", "ll_s", "ll_e", "ll_n"))
    return west, south, east, north
