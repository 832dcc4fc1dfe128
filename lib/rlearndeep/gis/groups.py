"""Imagery groups as sources: their rasters in order, with semantic labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import grass.script as gs

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import RasterInfo, raster_info
from rlearndeep.gis.session import libraries
from rlearndeep.scene.bands import Band, listed_bands, match_bands
from rlearndeep.scene.geometry import Region


@dataclass(frozen=True)
class Group:
    """An imagery group.

    Attributes:
        name: as the user gave it.
        rasters: in the group's order, with full names.
        bands: the same rasters as bands.
    """

    name: str
    rasters: tuple[RasterInfo, ...]
    bands: tuple[Band, ...]

    @property
    def names(self) -> list[str]:
        """Full names of the rasters."""
        return [raster.name for raster in self.rasters]


def open_group(name: str) -> Group:
    """Rasters of an imagery group.

    Raises:
        DeepLearningError: no such group, an empty group, or a raster of it is missing.
    """
    found = gs.find_file(name, element="group")
    if not found["file"]:
        raise DeepLearningError(
            f"Imagery group <{name}> must exist; it was not found. Make it with i.group group={name} input=<rasters>."
        )
    # Without its mapset, i.group knows a group of the current one only.
    listing = gs.read_command("i.group", group=found["fullname"], flags="lg", quiet=True)
    members = listing.split()
    if not members:
        raise DeepLearningError(
            f"Imagery group <{name}> must hold at least one raster; it is empty. Add rasters with "
            f"i.group group={name} input=<rasters>."
        )
    rasters = tuple(raster_info(member) for member in members)
    bands = tuple(Band(raster.name.split("@")[0], semantic_label(raster.name)) for raster in rasters)
    return Group(name, rasters, bands)


def open_groups(names: Sequence[str]) -> list[Group]:
    """Groups with the same bands, each in the order of the first: matched by semantic label, else by name.

    Raises:
        DeepLearningError: as :func:`open_distinct_groups`; groups whose bands differ.
    """
    groups = open_distinct_groups(names)
    return [groups[0], *(_in_order_of(groups[0], other) for other in groups[1:])]


def open_distinct_groups(names: Sequence[str]) -> list[Group]:
    """Groups, none of them twice, with and without its mapset.

    Raises:
        DeepLearningError: as :func:`open_group`; a group given twice.
    """
    groups = [open_group(name) for name in names]
    full = [gs.find_file(name, element="group")["fullname"] for name in names]
    twice = next((given for given, name in zip(names, full, strict=True) if full.count(name) > 1), None)
    if twice is not None:
        raise DeepLearningError(f"Every group is named once; <{twice}> stands there twice. Leave one out.")
    return groups


def _in_order_of(first: Group, other: Group) -> Group:
    if len(first.bands) == len(other.bands):
        try:
            order = match_bands(first.bands, other.bands)
        except DeepLearningError:
            order = []
        if order:
            return replace(
                other,
                rasters=tuple(other.rasters[position] for position in order),
                bands=tuple(other.bands[position] for position in order),
            )
    raise DeepLearningError(
        f"Groups of several dates must have the same bands; <{first.name}> has {listed_bands(first.bands)}, "
        f"<{other.name}> has {listed_bands(other.bands)}. "
        "Set semantic labels with r.semantic.label, so that bands are known whatever their maps are called."
    )


def semantic_label(raster: str) -> str | None:
    """Semantic label of a raster, or None."""
    _, libraster, _ = libraries()
    name, where = raster.split("@")
    label = libraster.Rast_read_semantic_label(name, where)
    if not label:
        return None
    return label.decode() if isinstance(label, bytes) else str(label)


def grid_remarks(rasters: Sequence[RasterInfo], region: Region) -> list[str]:
    """One sentence per grid of rasters that differs from the region's; empty when none does."""
    grids: dict[tuple[float, float], list[str]] = {}
    for raster in rasters:
        if not raster.region.is_aligned_with(region):
            grids.setdefault((raster.region.nsres, raster.region.ewres), []).append(f"<{raster.name}>")
    return [
        f"{_counted(names)} cells of {height:g} x {width:g} map units or another alignment; read by nearest "
        f"neighbour into cells of {region.nsres:g} x {region.ewres:g}."
        for (height, width), names in grids.items()
    ]


def _counted(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"Raster map {names[0]} has"
    more = f", {names[1]} and {len(names) - 2} more" if len(names) > 2 else f" and {names[1]}"
    return f"Raster maps {names[0]}{more} have"
