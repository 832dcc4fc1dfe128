"""How long map units are on the ground, so that sizes of cells can be compared between projects."""

from __future__ import annotations

import math
import re

Units = tuple[float, float]
"""Metres of a map unit along columns (north to south) and along rows."""

_DEGREE = math.radians(6371008.8)  # of the mean radius of the Earth

_LENGTH = re.compile(r'\b(?:LENGTHUNIT|UNIT)\["[^"]*",\s*([0-9.eE+-]+)')


def length_unit(wkt: str) -> float | None:
    """Metres of a map unit of a projected system, from its well-known text; None in degrees or without a system."""
    lengths = _LENGTH.findall(wkt)
    return float(lengths[-1]) if wkt.startswith(("PROJCRS", "PROJCS")) and lengths else None


def of_degrees(latitude: float) -> Units:
    """Metres of a degree at a latitude."""
    return _DEGREE, _DEGREE * math.cos(math.radians(latitude))


def of_system(wkt: str, extent: tuple[float, float, float, float] | None) -> Units | None:
    """Metres of a map unit in the middle of an extent.

    Args:
        wkt: of the coordinate system; empty without one.
        extent: west, south, east, north in degrees, or None where unknown.

    Returns:
        None where it is not known.
    """
    length = length_unit(wkt)
    if length is not None:
        return length, length
    if wkt.startswith("GEOG") and extent is not None:
        return of_degrees((extent[1] + extent[3]) / 2)
    return None
