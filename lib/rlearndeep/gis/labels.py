"""Label rasters, and a scene of imagery and labels as sampling reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grass.script as gs
import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.groups import Group
from rlearndeep.gis.rasters import CELL_NULL, RasterStack, raster_info
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable, Color, MapClass
from rlearndeep.scene.geometry import Region, Window

# A raster with more values than this holds numbers of objects, not classes.
_MOST_CLASSES = 10_000
_WIDEST_RANGE = 10_000_000

_ROWS_AT_ONCE = 256


def raster_classes(name: str, region: Region) -> tuple[ClassTable, LabelRaster]:
    """Classes of the values that a label raster has in the region, with their labels and colours.

    Raises:
        DeepLearningError: a floating point raster, one with too many values, or none but nulls.
    """
    info = raster_info(name)
    if info.type != "CELL":
        raise DeepLearningError(
            f"A label raster holds classes in integers (CELL); <{info.name}> is of type {info.type}. "
            "Make classes of it with r.recode or r.mapcalc."
        )
    first, last = int(info.minimum), int(info.maximum)
    if last - first >= _WIDEST_RANGE:
        raise DeepLearningError(
            f"A label raster holds classes; the values of <{info.name}> range from {first} to {last}. "
            "Give its classes smaller numbers with r.reclass."
        )
    present = np.zeros(last - first + 1, dtype=bool)
    with RasterStack([info.name], region, dtype="int32") as stack:
        for row in range(0, region.rows, _ROWS_AT_ONCE):
            cells = stack.read(Window(row, min(row + _ROWS_AT_ONCE, region.rows), 0, region.cols))[0]
            cells = _checked(cells[cells != CELL_NULL], info.name, first, last)
            present |= np.bincount(cells - first, minlength=len(present)) > 0
    values = (np.flatnonzero(present) + first).tolist()
    if not values:
        raise DeepLearningError(
            f"The region needs labelled cells; <{info.name}> is null in all of it. "
            f"Set the region with g.region raster={name}."
        )
    if len(values) > _MOST_CLASSES:
        raise DeepLearningError(
            f"A label raster holds at most {_MOST_CLASSES} classes; <{info.name}> has {len(values)} values in the "
            "region. Is it a raster of classes?"
        )
    labels, colors = _category_labels(info.name), _category_colors(info.name, values)
    classes = ClassTable(tuple(MapClass(value, labels.get(value, ""), colors.get(value)) for value in values))
    return classes, LabelRaster(info.name, values[0], values[-1])


def _checked(values: NDArray, name: str, first: int, last: int) -> NDArray:
    if values.size and (values.min() < first or values.max() > last):
        raise DeepLearningError(
            f"Values of a raster must lie in the range that GRASS keeps for it; <{name}> holds others than "
            f"{first} to {last}. Bring its range up to date with r.support -s map={name}."
        )
    return values


def _category_labels(name: str) -> dict[int, str]:
    listing = gs.read_command("r.category", map=name, separator="tab", quiet=True)
    pairs = (line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    return {int(value): label.strip() for value, label in pairs if value.strip().lstrip("-").isdigit()}


def _category_colors(name: str, values: Sequence[int]) -> dict[int, Color]:
    """Colours of values; none when the raster has no colour table of its own."""
    plain, where = name.split("@")
    has_table = gs.find_file(plain, element="colr", mapset=where)["file"]
    if not has_table and not gs.find_file(plain, element=f"colr2/{where}")["file"]:
        return {}
    wanted = "".join(f"{value}\n" for value in values)
    process = gs.feed_command("r.what.color", flags="i", input=name, stdout=gs.PIPE, quiet=True)
    listing = gs.decode(process.communicate(gs.encode(wanted))[0])
    colors: dict[int, Color] = {}
    for line in listing.splitlines():
        value, _, color = line.partition(":")
        parts = color.strip().split(":")
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            colors[int(value)] = (int(parts[0]), int(parts[1]), int(parts[2]))
    return colors


class Plane(Protocol):
    """A plane of label codes."""

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""


@dataclass(frozen=True)
class LabelRaster:
    """A CELL raster of labels whose values in the region range from ``first`` to ``last``."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class IgnoredCells:
    """A raster of cells whose label is not to be used.

    Attributes:
        name: of the raster.
        values: the values that say so; all cells that are not null where empty.
        code: the code such cells get.
    """

    name: str
    values: tuple[int, ...]
    code: int


class GroupScene:
    """A group's imagery and a label plane in one region, as sampling reads them.

    Only one thread may read at a time.

    Args:
        group: reference source.
        region: the grid.
        labels: a raster, or a plane of codes.
        nothing: code of cells without label; a raster's value ``first`` has the code ``nothing + 2``, because
            ignored cells have a code of their own.
        ignored: cells whose label is not to be used, or None.
    """

    def __init__(
        self,
        group: Group,
        region: Region,
        labels: LabelRaster | Plane,
        nothing: int,
        ignored: IgnoredCells | None = None,
    ) -> None:
        self.region = region
        self.bands: tuple[Band, ...] = group.bands
        self.dtype = np.result_type(*(raster.dtype for raster in group.rasters))
        self._labels, self._ignored, self._nothing = labels, ignored, nothing
        others = [source.name for source in (labels, ignored) if isinstance(source, LabelRaster | IgnoredCells)]
        beside = [*group.names, *others]
        read_as = "int32" if self.dtype.kind in "iu" else self.dtype.name
        self._stack = RasterStack(group.names, region, dtype=read_as, beside=beside)
        self._others = {name: RasterStack([name], region, dtype="int32", beside=beside) for name in others}

    @property
    def null(self) -> float | int:
        """The value of :meth:`read` that means null."""
        return self._stack.null

    def read(self, window: Window) -> NDArray:
        """Values of the bands, (bands, rows, cols)."""
        return self._stack.read(window)

    def read_nulls(self, window: Window) -> NDArray[np.bool_]:
        """True where any band is null, (rows, cols)."""
        return self._stack.read_nulls(window)

    def read_codes(self, window: Window) -> NDArray[np.int32]:
        """Codes of the label plane, (rows, cols)."""
        if isinstance(self._labels, LabelRaster):
            codes = self._raster_codes(self._labels, window)
        else:
            codes = self._labels.read(window)
        if self._ignored is not None:
            codes[self._is_ignored(self._ignored, window)] = self._ignored.code
        return codes

    def _raster_codes(self, raster: LabelRaster, window: Window) -> NDArray[np.int32]:
        values = self._others[raster.name].read(window)[0]
        null = values == CELL_NULL
        values += self._nothing + 2 - raster.first
        values[null] = self._nothing
        return values

    def _is_ignored(self, cells: IgnoredCells, window: Window) -> NDArray[np.bool_]:
        stack = self._others[cells.name]
        return np.isin(stack.read(window)[0], cells.values) if cells.values else ~stack.read_nulls(window)
