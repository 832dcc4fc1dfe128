"""Label rasters, and scenes of imagery and labels as sampling reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.groups import Group
from rlearndeep.gis.rasters import CELL_NULL, RasterStack, raster_info, raster_units
from rlearndeep.gis.references import class_table
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import MOST_CLASSES, ClassTable
from rlearndeep.scene.codes import FIRST_CODE, NOTHING, Plane, ValuePlane
from rlearndeep.scene.geometry import Region, Window
from rlearndeep.scene.tasks import Quantity

_WIDEST_RANGE = 10_000_000

# Resolutions that differ by a smaller share are the same.
_SAME = 1e-6

# Few enough that their cells are looked at while still near the processor.
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class LabelRaster:
    """A CELL raster of labels.

    Attributes:
        name: of the raster.
        first, last: range of its values.
        codes: its codes in the region, (rows, cols), where they were kept when they were read first.
    """

    name: str
    first: int
    last: int
    codes: NDArray | None = None


@dataclass(frozen=True)
class ValueRaster:
    """An FCELL or DCELL raster whose values are the labels."""

    name: str


def raster_classes(name: str, region: Region, keep: int = 0) -> tuple[ClassTable, LabelRaster]:
    """Classes of the values that an integer raster has in the region, with their labels and colours.

    Args:
        keep: megabytes; codes that fit are kept, and the raster is not read again.

    Raises:
        DeepLearningError: a raster with too many values, or with none but nulls.
    """
    info = raster_info(name)
    first, last = int(info.minimum), int(info.maximum)
    if last - first >= _WIDEST_RANGE:
        raise DeepLearningError(
            f"A label raster holds classes; the values of <{info.name}> range from {first} to {last}. "
            "Give its classes smaller numbers with r.reclass, or make it floating point for regression."
        )
    present, kept = np.zeros(last - first + 1 + FIRST_CODE, dtype=bool), None
    smallest = np.min_scalar_type(len(present) - 1)
    if region.rows * region.cols * smallest.itemsize <= keep * 1e6:
        kept = np.empty(region.shape, dtype=smallest)
    with RasterStack([info.name], region, dtype="int32") as stack:
        for row in range(0, region.rows, _ROWS_AT_ONCE):
            cells = stack.read(Window(row, min(row + _ROWS_AT_ONCE, region.rows), 0, region.cols))[0]
            codes = _codes(cells, info.name, first, last)
            present[codes] = True
            if kept is not None:
                kept[row : row + len(codes)] = codes
    values = np.flatnonzero(present[FIRST_CODE:]) + first
    if not len(values):
        raise DeepLearningError(
            f"The region needs labelled cells; <{info.name}> is null in all of it. "
            f"Set the region with g.region raster={name}."
        )
    if len(values) > MOST_CLASSES:
        raise DeepLearningError(
            f"A label raster holds at most {MOST_CLASSES} classes; <{info.name}> has {len(values)} values in the "
            "region. Is it a raster of classes?"
        )
    return class_table(info.name, values), LabelRaster(info.name, first, last, kept)


def _codes(cells: NDArray[np.int32], name: str, first: int, last: int) -> NDArray[np.int32]:
    """Codes of values, of which ``first`` has the first code."""
    null, good = cells == CELL_NULL, (cells >= first) & (cells <= last)
    if not (null | good).all():
        raise DeepLearningError(
            f"Values of a raster must lie in the range that GRASS keeps for it; <{name}> holds others than "
            f"{first} to {last}. Bring its range up to date with r.support -s map={name}."
        )
    # In two steps: a category near the limits of the type, less a code, would be beyond them.
    return np.where(good, cells - np.int32(first) + np.int32(FIRST_CODE), np.int32(NOTHING))


def holds_values(name: str) -> bool:
    """True for a floating point raster.

    Raises:
        DeepLearningError: there is no such raster.
    """
    return raster_info(name).type != "CELL"


def raster_values(name: str) -> tuple[Quantity, ValueRaster]:
    """What the values of a floating point raster are, and the raster."""
    full = raster_info(name).name
    return Quantity(full.split("@")[0], raster_units(full)), ValueRaster(full)


@dataclass(frozen=True)
class IgnoredCells:
    """A raster of cells whose label is not to be used.

    Attributes:
        name: of the raster.
        values: the values that say so; all cells that are not null where empty.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class _CodePlane:
    """Codes of an integer raster: value ``first`` has the first code."""

    stack: RasterStack
    first: int

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        values = self.stack.read(window)[0]
        null = values == CELL_NULL
        values -= self.first
        values += FIRST_CODE
        values[null] = NOTHING
        return values


@dataclass(frozen=True)
class _KeptPlane:
    """Codes of a region's cells, (rows, cols), in memory."""

    codes: NDArray

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        plane = np.full(window.shape, NOTHING, dtype=np.int32)
        part = window.intersection(Window(0, self.codes.shape[0], 0, self.codes.shape[1]))
        if not part.is_empty:
            plane[part.relative_to(window).slices] = self.codes[part.slices]
        return plane


@dataclass(frozen=True)
class _NumberPlane:
    """Values of a floating point raster; every cell that has one has the first code."""

    stack: RasterStack

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        return np.where(np.isnan(self.read_values(window)), NOTHING, FIRST_CODE).astype(np.int32)

    def read_values(self, window: Window) -> NDArray[np.float32]:
        """Values of a window, (rows, cols)."""
        return self.stack.read(window)[0]


class SceneFiles:
    """The rasters of all acquisitions, of label sources and of ignored cells, open together in one region.

    Args:
        groups: one per acquisition, with the same bands in the same order.
        region: the grid.
        labels: rasters, or planes that need no raster.
        ignored: per acquisition, cells whose label is not to be used, or None.
        readers: threads that read bands side by side.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        region: Region,
        labels: Sequence[LabelRaster | ValueRaster | Plane],
        ignored: Sequence[IgnoredCells | None],
        readers: int = 1,
    ) -> None:
        self.region, self.groups = region, tuple(groups)
        self.dtype = np.result_type(*(raster.dtype for group in groups for raster in group.rasters))
        rasters = [
            source.name
            for source in (*labels, *ignored)
            if isinstance(source, ValueRaster | IgnoredCells)
            or (isinstance(source, LabelRaster) and source.codes is None)
        ]
        self._beside = [*(name for group in groups for name in group.names), *rasters]
        self._stacks: list[RasterStack] = []
        read_as = "int32" if self.dtype.kind in "iu" else self.dtype.name
        self._bands = [self._open(group.names, read_as, readers) for group in groups]
        self.planes = tuple(self._plane(source) for source in labels)
        self._ignored = [None if cells is None else (self._open([cells.name], "int32"), cells) for cells in ignored]

    def __enter__(self) -> SceneFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the rasters, so that others may be opened in another region."""
        while self._stacks:
            self._stacks.pop().close()

    def scenes(self, plane: Plane) -> tuple[GroupScene, ...]:
        """One scene per acquisition, with the labels of a plane."""
        return tuple(
            GroupScene(self.region, group.bands, self.dtype, bands, plane, ignored, _repeats(group, self.region))
            for group, bands, ignored in zip(self.groups, self._bands, self._ignored, strict=True)
        )

    def _open(self, names: list[str], dtype: str, readers: int = 1) -> RasterStack:
        self._stacks.append(RasterStack(names, self.region, dtype=dtype, beside=self._beside, readers=readers))
        return self._stacks[-1]

    def _plane(self, source: LabelRaster | ValueRaster | Plane) -> Plane:
        if isinstance(source, LabelRaster) and source.codes is not None:
            return _KeptPlane(source.codes)
        if isinstance(source, LabelRaster):
            return _CodePlane(self._open([source.name], "int32"), source.first)
        if isinstance(source, ValueRaster):
            return _NumberPlane(self._open([source.name], "float32"))
        return source


def _repeats(group: Group, region: Region) -> bool:
    """True where all rasters of the group have larger cells than the region."""
    own = region.nsres * (1 + _SAME), region.ewres * (1 + _SAME)
    return all(raster.region.nsres > own[0] or raster.region.ewres > own[1] for raster in group.rasters)


@dataclass(frozen=True)
class GroupScene:
    """The imagery of one acquisition and a label plane; only one thread may read at a time."""

    region: Region
    bands: tuple[Band, ...]
    dtype: np.dtype
    stack: RasterStack
    plane: Plane
    ignored: tuple[RasterStack, IgnoredCells] | None
    repeats: bool

    @property
    def null(self) -> float | int:
        """The value of :meth:`read` that means null."""
        return self.stack.null

    def read(self, window: Window) -> NDArray:
        """Values of the bands, (bands, rows, cols)."""
        return self.stack.read(window)

    def read_nulls(self, window: Window) -> NDArray[np.bool_]:
        """True where any band is null, (rows, cols)."""
        return self.stack.read_nulls(window)

    def read_codes(self, window: Window) -> NDArray[np.int32]:
        """Codes of the label plane, (rows, cols)."""
        return self.plane.read(window)

    def read_values(self, window: Window) -> NDArray[np.float32]:
        """Values of a plane that has them, (rows, cols)."""
        plane: ValuePlane = self.plane  # type: ignore[assignment]
        return plane.read_values(window)

    def read_ignored(self, window: Window) -> NDArray[np.bool_] | None:
        """True for cells whose label is not to be used, (rows, cols); None where all are used."""
        if self.ignored is None:
            return None
        stack, cells = self.ignored
        return np.isin(stack.read(window)[0], cells.values) if cells.values else ~stack.read_nulls(window)
