"""Regions in map coordinates, windows in cells, and the tiles of a raster.

Rows come before columns, windows are half-open, and a cell belongs to the window that holds its
centre. Everything here is an immutable value or a pure function.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlearndeep.errors import DeepLearningError

# Grids are often shifted by exactly half a cell against the coordinate origin. Rounding such a
# position would be decided by the last bit, so the anchor is cut at a fraction no survey uses.
_ANCHOR_FRACTION = 0.3

# Positions this much (of a cell) below a half count as a half.
_ROUNDING = 1e-6

# Share of a cell by which two grids may differ and still count as the same grid.
_ALIGNMENT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Window:
    """Rectangle of cells: rows ``row_start`` to ``row_stop`` (exclusive), likewise columns.

    Negative starts are allowed: they lie above or left of the region the window refers to.
    """

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def rows(self) -> int:
        """Number of rows, never negative."""
        return max(0, self.row_stop - self.row_start)

    @property
    def cols(self) -> int:
        """Number of columns, never negative."""
        return max(0, self.col_stop - self.col_start)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.cols

    @property
    def is_empty(self) -> bool:
        """True when the window holds no cell."""
        return self.rows == 0 or self.cols == 0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index into an array whose first cell is cell (0, 0); an empty window takes nothing."""
        # An empty intersection may stop before 0, which as an index would count from the end.
        rows = slice(self.row_start, max(self.row_start, self.row_stop))
        return rows, slice(self.col_start, max(self.col_start, self.col_stop))

    def shifted(self, rows: int, cols: int) -> Window:
        """The same rectangle moved down by ``rows`` and right by ``cols``."""
        return Window(self.row_start + rows, self.row_stop + rows, self.col_start + cols, self.col_stop + cols)

    def expanded(self, rows: int, cols: int) -> Window:
        """The rectangle grown by ``rows`` above and below and by ``cols`` left and right."""
        return Window(self.row_start - rows, self.row_stop + rows, self.col_start - cols, self.col_stop + cols)

    def intersection(self, other: Window) -> Window:
        """Cells in both windows; empty when they share none."""
        return Window(
            max(self.row_start, other.row_start),
            min(self.row_stop, other.row_stop),
            max(self.col_start, other.col_start),
            min(self.col_stop, other.col_stop),
        )

    def overlaps(self, other: Window) -> bool:
        """True when the windows share a cell."""
        return not self.intersection(other).is_empty

    def contains(self, other: Window) -> bool:
        """True when every cell of ``other`` is in this window."""
        return self.intersection(other) == other

    def relative_to(self, other: Window) -> Window:
        """The same rectangle counted from the first cell of ``other``."""
        return self.shifted(-other.row_start, -other.col_start)


@dataclass(frozen=True)
class Region:
    """GRASS's computational region: edges in map units, rows and columns."""

    north: float
    south: float
    east: float
    west: float
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1 or self.north <= self.south or self.east <= self.west:
            raise DeepLearningError(
                f"A region needs at least one cell and north > south, east > west; got {asdict(self)}. "
                "Set the region with g.region."
            )

    @property
    def nsres(self) -> float:
        """Height of a cell in map units."""
        return (self.north - self.south) / self.rows

    @property
    def ewres(self) -> float:
        """Width of a cell in map units."""
        return (self.east - self.west) / self.cols

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.cols

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.rows * self.cols

    @property
    def window(self) -> Window:
        """All cells of the region."""
        return Window(0, self.rows, 0, self.cols)

    @property
    def anchor(self) -> tuple[int, int]:
        """Row and column of the first cell in the endless grid that is tied to the map's origin.

        Two regions with the same resolution and alignment count the same cell alike, which is what
        makes the prediction of a part equal that part of the whole.
        """
        return (
            math.floor(-self.north / self.nsres + _ANCHOR_FRACTION),
            math.floor(self.west / self.ewres + _ANCHOR_FRACTION),
        )

    def subregion(self, window: Window) -> Region:
        """Region of a window of this region's cells; the window may reach beyond the region."""
        return Region(
            north=self.north - window.row_start * self.nsres,
            south=self.north - window.row_stop * self.nsres,
            west=self.west + window.col_start * self.ewres,
            east=self.west + window.col_stop * self.ewres,
            rows=window.rows,
            cols=window.cols,
        )

    def centre(self, row: ArrayLike, col: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East and north of the centres of cells (``row``, ``col``), scalars or arrays."""
        east = self.west + (np.asarray(col, dtype=np.float64) + 0.5) * self.ewres
        north = self.north - (np.asarray(row, dtype=np.float64) + 0.5) * self.nsres
        return east, north

    def cell_at(self, east: ArrayLike, north: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the cells that hold the points, which may lie outside the region.

        A point on a border between cells belongs to the cell south or east of it.
        """
        row = np.floor((self.north - np.asarray(north, dtype=np.float64)) / self.nsres)
        col = np.floor((np.asarray(east, dtype=np.float64) - self.west) / self.ewres)
        return row.astype(np.int64), col.astype(np.int64)

    def window_starts(
        self, east: ArrayLike, north: ArrayLike, shape: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row and column of the windows of ``shape`` whose centres lie nearest to points.

        A centre that can lie in two places equally near is put south or east of the point. Windows may
        reach beyond the region. This is how a place is cut out of a source with another grid.
        """
        row = (self.north - np.asarray(north, dtype=np.float64)) / self.nsres - shape[0] / 2
        col = (np.asarray(east, dtype=np.float64) - self.west) / self.ewres - shape[1] / 2
        return tuple(np.floor(start + 0.5 + _ROUNDING).astype(np.int64) for start in (row, col))  # type: ignore[return-value]

    def is_aligned_with(self, other: Region) -> bool:
        """True when the cells of both regions are cells of one grid (1 % of a cell is forgiven)."""
        same_resolution = math.isclose(self.nsres, other.nsres, rel_tol=1e-6) and math.isclose(
            self.ewres, other.ewres, rel_tol=1e-6
        )
        rows = (self.north - other.north) / self.nsres
        cols = (self.west - other.west) / self.ewres
        return (
            same_resolution
            and abs(rows - round(rows)) <= _ALIGNMENT_TOLERANCE
            and abs(cols - round(cols)) <= _ALIGNMENT_TOLERANCE
        )

    def to_json(self) -> dict[str, float | int]:
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> Region:
        """Inverse of :meth:`to_json`."""
        return cls(**{key: values[key] for key in ("north", "south", "east", "west", "rows", "cols")})

    def moved(self, rows: int, cols: int) -> Region:
        """The region moved down by ``rows`` and right by ``cols`` whole cells."""
        return replace(
            self,
            north=self.north - rows * self.nsres,
            south=self.south - rows * self.nsres,
            west=self.west + cols * self.ewres,
            east=self.east + cols * self.ewres,
        )


@dataclass(frozen=True)
class Windows:
    """N windows of one shape in a grid.

    Attributes:
        region: the grid.
        row, col: first cells, N each; windows may reach beyond the region.
        shape: rows and columns of each.
    """

    region: Region
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    shape: tuple[int, int]

    @property
    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East and north of the middle of each."""
        row, col = self.row.astype(np.float64), self.col.astype(np.float64)
        east = self.region.west + (col + self.shape[1] / 2) * self.region.ewres
        north = self.region.north - (row + self.shape[0] / 2) * self.region.nsres
        return east, north

    @classmethod
    def around(cls, east: ArrayLike, north: ArrayLike, region: Region, shape: tuple[int, int]) -> Windows:
        """Windows of ``shape`` in a grid whose centres lie nearest to points; see ``Region.window_starts``."""
        return cls(region, *region.window_starts(east, north, shape), shape)


@dataclass(frozen=True)
class Tile:
    """A window to read, and the cells that no later tile of the same axis order will change.

    Attributes:
        window: cells read and predicted, in cells of the region; may reach beyond it.
        row: number of the tile's row, counted from the region's first.
        col: number of the tile's column, counted from the region's first.
    """

    window: Window
    row: int
    col: int


@dataclass(frozen=True)
class Tiling:
    """Endless grid of overlapping square-step tiles, tied to map coordinates.

    Of rows, tile k covers ``k * step`` to ``k * step + size`` of the endless grid, where ``step = size - overlap``; of
    columns ``k * step - overlap`` to ``(k + 1) * step``: a scene whose south-west corner is the origin needs no tile
    that hardly touches it. With an overlap of at most half the size a cell lies in at most two tiles per axis.

    Attributes:
        size: rows and columns of a tile.
        overlap: rows and columns that neighbouring tiles share.
    """

    size: tuple[int, int]
    overlap: tuple[int, int]

    def __post_init__(self) -> None:
        for size, overlap in zip(self.size, self.overlap, strict=True):
            if size < 1 or overlap < 0 or 2 * overlap > size:
                raise DeepLearningError(
                    f"The overlap of tiles must lie between 0 and half the tile size; got {overlap} for "
                    f"tiles of {size} cells. Choose a smaller overlap."
                )

    @property
    def step(self) -> tuple[int, int]:
        """Distance between the starts of neighbouring tiles, rows and columns."""
        return self.size[0] - self.overlap[0], self.size[1] - self.overlap[1]

    def tile_rows(self, region: Region) -> list[int]:
        """First rows, in cells of the region, of all tile rows that touch the region."""
        return self._starts(0, region.anchor[0], region.rows)

    def tile_cols(self, region: Region) -> list[int]:
        """First columns, in cells of the region, of all tile columns that touch the region."""
        return self._starts(1, region.anchor[1], region.cols)

    def tiles(self, region: Region) -> Iterator[Tile]:
        """All tiles that touch the region, rows before columns."""
        cols = self.tile_cols(region)
        for row, row_start in enumerate(self.tile_rows(region)):
            for col, col_start in enumerate(cols):
                window = Window(row_start, row_start + self.size[0], col_start, col_start + self.size[1])
                yield Tile(window, row, col)

    def reading_window(self, region: Region) -> Window:
        """The cells that the tiles of a region read: the region and the context around it."""
        rows, cols = self.tile_rows(region), self.tile_cols(region)
        return Window(rows[0], rows[-1] + self.size[0], cols[0], cols[-1] + self.size[1])

    def _starts(self, axis: int, anchor: int, length: int) -> list[int]:
        size, step = self.size[axis], self.step[axis]
        anchor += axis * self.overlap[axis]
        first = (anchor - size) // step + 1
        last = (anchor + length - 1) // step
        return [number * step - anchor for number in range(first, last + 1)]
