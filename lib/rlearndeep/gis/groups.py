"""Imagery groups as sources: their rasters in order, with semantic labels."""

from __future__ import annotations

from dataclasses import dataclass

import grass.script as gs

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import RasterInfo, raster_info
from rlearndeep.gis.session import libraries
from rlearndeep.scene.bands import Band
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
    if not gs.find_file(name, element="group")["file"]:
        raise DeepLearningError(
            f"Imagery group <{name}> must exist; it was not found. Make it with i.group group={name} input=<rasters>."
        )
    listing = gs.read_command("i.group", group=name, flags="lg", quiet=True)
    members = listing.split()
    if not members:
        raise DeepLearningError(
            f"Imagery group <{name}> must hold at least one raster; it is empty. Add rasters with "
            f"i.group group={name} input=<rasters>."
        )
    rasters = tuple(raster_info(member) for member in members)
    bands = tuple(Band(raster.name.split("@")[0], semantic_label(raster.name)) for raster in rasters)
    return Group(name, rasters, bands)


def semantic_label(raster: str) -> str | None:
    """Semantic label of a raster, or None."""
    _, libraster, _ = libraries()
    name, where = raster.split("@")
    label = libraster.Rast_read_semantic_label(name, where)
    if not label:
        return None
    return label.decode() if isinstance(label, bytes) else str(label)


def grid_remarks(group: Group, region: Region) -> list[str]:
    """One sentence per way in which a group's grid differs from the region's; empty when it does not."""
    remarks = []
    for raster in group.rasters:
        if raster.region.is_aligned_with(region):
            continue
        remarks.append(
            f"Raster map <{raster.name}> has cells of {raster.region.nsres:g} x {raster.region.ewres:g} map units or "
            f"another alignment; it is read by nearest neighbour into cells of {region.nsres:g} x {region.ewres:g}."
        )
    return remarks
