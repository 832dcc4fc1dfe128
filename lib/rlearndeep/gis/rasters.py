"""Rasters read in strips and written in rows, straight between GRASS's library and NumPy arrays."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.session import MASK_VARIABLE, cell_head, libraries, mapset, region_of
from rlearndeep.scene.geometry import Region, Window

CELL_NULL = np.iinfo(np.int32).min
"""GRASS's null in integer rasters; floating point rasters use NaN."""

_GET = {"int32": "Rast_get_c_row", "float32": "Rast_get_f_row", "float64": "Rast_get_d_row"}
_PUT = {"int32": "Rast_put_c_row", "float32": "Rast_put_f_row", "float64": "Rast_put_d_row"}
_SLIVER = 0.01
_ROUNDING = 1e-6
_CIRCLE = 360.0
_ENDLESS = 10_000  # turns around the globe; more than any window spans
_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True)
class RasterInfo:
    """What GRASS knows of a raster before its cells are read.

    Attributes:
        reclassed: whether its cells are those of another raster with other values (r.reclass).
        virtual: whether its cells are those of other rasters, which GRASS opens at each row (r.buildvrt).
    """

    name: str
    type: str
    region: Region
    minimum: float
    maximum: float
    reclassed: bool = False
    virtual: bool = False

    @cached_property
    def dtype(self) -> np.dtype:
        """Smallest NumPy type that holds the raster's values exactly."""
        if self.type != "CELL":
            return np.dtype(np.float32 if self.type == "FCELL" else np.float64)
        for candidate in _INTEGERS:
            limits = np.iinfo(candidate)
            if limits.min <= self.minimum and self.maximum <= limits.max:
                return np.dtype(candidate)
        return np.dtype(np.int32)


def find_raster(name: str) -> str:
    """``name@mapset`` of a raster.

    Raises:
        DeepLearningError: there is no such raster.
    """
    libgis, _, _ = libraries()
    where = libgis.G_find_raster2(name, "")
    if not where:
        raise DeepLearningError(
            f"Raster map <{name}> must exist; it was not found in the search path. Check the name with g.list raster."
        )
    return f"{name.split('@', maxsplit=1)[0]}@{_text(where)}"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def raster_info(name: str) -> RasterInfo:
    """Type, region and range of an existing raster; the range of an all-null raster is 0 to 0."""
    libgis, libraster, _ = libraries()
    full = find_raster(name)
    plain, where = full.split("@")
    head = libgis.Cell_head()
    libraster.Rast_get_cellhd(plain, where, ctypes.byref(head))
    kind = libraster.Rast_map_type(plain, where)
    low, high = ctypes.c_double(), ctypes.c_double()
    extremes = libraster.FPRange()
    libraster.Rast_init_fp_range(ctypes.byref(extremes))
    if libraster.Rast_read_fp_range(plain, where, ctypes.byref(extremes)) > 0:
        libraster.Rast_get_fp_range_min_max(ctypes.byref(extremes), ctypes.byref(low), ctypes.byref(high))
    limits = [0.0 if np.isnan(value.value) else value.value for value in (low, high)]
    type_name = {0: "CELL", 1: "FCELL", 2: "DCELL"}[kind]
    return RasterInfo(full, type_name, region_of(head), limits[0], limits[1], *_made_of_others(plain, where))


def _made_of_others(name: str, where: str) -> tuple[bool, bool]:
    """Whether a raster is a reclass, and whether it, or what it is a reclass of, is virtual."""
    libgis, libraster, _ = libraries()
    base, its_mapset = (ctypes.create_string_buffer(libgis.GNAME_MAX) for _ in range(2))
    reclassed = libraster.Rast_is_reclass(name, where, base, its_mapset) > 0
    if reclassed:
        name, where = _text(base.value), _text(its_mapset.value)
    return reclassed, bool(libgis.G_find_file2_misc("cell_misc", "vrt", name, where))


def possible_masks() -> list[str]:
    """Full names of what GRASS takes for the mask, if it exists; which of them, depends on the version of GRASS."""
    names = dict.fromkeys((os.environ.get(MASK_VARIABLE) or "MASK", "MASK"))
    return [name if "@" in name else f"{name}@{mapset()}" for name in names]


def _mask_is_virtual() -> bool:
    libgis, _, _ = libraries()
    return any(raster_info(name).virtual for name in possible_masks() if libgis.G_find_raster2(name, ""))


def raster_units(name: str) -> str:
    """Units of a raster's values, ``name@mapset``; empty where it has none."""
    _, libraster, _ = libraries()
    units = libraster.Rast_read_units(*name.split("@"))
    return _text(units).strip() if units else ""


class RasterStack:
    """Rasters with the same grid, read in strips of rows.

    Rows and columns count in ``region``; they may reach beyond it, and beyond the rasters, where
    everything is null. GRASS's MASK is applied, resampling is by nearest neighbour. In latitude-longitude
    rasters repeat every 360 degrees, as for all tools of GRASS.

    GRASS has one input window per process and refuses to change it while maps are open. Stacks that are read in turn
    should therefore have the same ``region`` and ``window`` and know of each other's rasters by ``beside``; those that
    have not, close their files while another is read, and open them again.

    Args:
        names: rasters that exist.
        region: the grid.
        window: cells that will be read; default the region. It may reach beyond the region.
        dtype: type of the arrays returned: int32, float32 (exact for integers below 2**24) or float64.
        beside: the rasters of other stacks that will be open at the same time.
        readers: threads that read bands side by side; one where a mask is set, which GRASS reads from a single file,
            and for virtual rasters.
    """

    def __init__(
        self,
        names: Sequence[str],
        region: Region,
        window: Window | None = None,
        dtype: str = "float32",
        beside: Sequence[str] = (),
        readers: int = 1,
    ):
        _, libraster, direct = libraries()
        self.region = region
        self.dtype = np.dtype(dtype)
        self._get_row = getattr(direct, _GET[dtype])
        self._get_nulls = direct.Rast_get_null_value_row
        self._files: list[int] = []
        with _reading:
            self.names = [find_raster(name) for name in names]
            infos = [raster_info(name) for name in (*self.names, *beside)]
            self._readable = _readable(region, window or region.window, [info.region for info in infos])
            self._turn = _CIRCLE / region.ewres if _on_globe() else math.inf
            self._asked = _one_turn(self._readable, self._turn)
            self._window = region.subregion(self._asked)
            masked = libraster.Rast_maskfd() >= 0
            # GRASS keeps nulls apart only for rasters with cells of their own.
            self._null_rows = not any(info.reclassed or info.virtual for info in infos)
            self.virtual = any(info.virtual for info in infos) or (masked and _mask_is_virtual())
            self._open()
        readers = 1 if masked or self.virtual else min(readers, len(self._files))
        self._readers = ThreadPoolExecutor(readers) if readers > 1 else None

    def __enter__(self) -> RasterStack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the rasters, when a thread that reads them has finished."""
        with _reading:
            if self._readers is not None:
                self._readers.shutdown()
            self._close_files()
            if self in _open_stacks:
                _open_stacks.remove(self)

    @property
    def null(self) -> float | int:
        """The value that means null in arrays of this stack."""
        return CELL_NULL if self.dtype == np.int32 else float("nan")

    def read(self, window: Window) -> NDArray:
        """Values of a window, (bands, rows, cols), with ``null`` where there are none."""
        with _reading:
            return self._read_rows(window, self.dtype, self.null, self._get_row)

    def read_nulls(self, window: Window) -> NDArray[np.bool_]:
        """True where any of the rasters is null, (rows, cols); much faster than reading the values."""
        if not self._null_rows:
            values = self.read(window)
            return ((values == CELL_NULL) if self.dtype == np.int32 else np.isnan(values)).any(axis=0)
        with _reading:
            nulls = self._read_rows(window, np.dtype(np.int8), 1, self._get_nulls)
        return np.bitwise_or.reduce(nulls, axis=0) != 0

    def _open(self) -> None:
        """Open the files in their window, unless they are open; those of stacks with another window are closed."""
        global _input_window
        _, libraster, _ = libraries()
        if _input_window != self._window or not _open_stacks:  # the same window may be one of another project
            for stack in _open_stacks:
                stack._close_files()
            libraster.Rast_set_input_window(ctypes.byref(cell_head(self._window)))
            _input_window = self._window
        if not self._files:
            self._files = [libraster.Rast_open_old(*name.split("@")) for name in self.names]
            if self not in _open_stacks:
                _open_stacks.append(self)

    def _close_files(self) -> None:
        _, libraster, _ = libraries()
        while self._files:
            libraster.Rast_close(self._files.pop())

    def _read_rows(self, window: Window, dtype: np.dtype, outside: float, get_row: Callable) -> NDArray:
        self._open()
        part = window.intersection(self._readable)
        shape = (len(self._files), *window.shape)
        # A buffer that is filled by the reading alone is not touched twice.
        result = np.empty(shape, dtype=dtype) if part == window else np.full(shape, outside, dtype=dtype)
        if part.is_empty:
            return result
        whole_rows = part.col_start == self._asked.col_start and part.cols == self._asked.cols
        inside = part.relative_to(window)
        source = part.relative_to(self._asked)
        columns = self._columns(source.col_start, source.col_stop)
        direct = whole_rows and result.shape[2] == part.cols

        def read_band(band: int) -> None:
            file, target = self._files[band], result[band, inside.row_start : inside.row_stop]
            if direct:
                first, size = target.ctypes.data, target.strides[0]
                for row in range(part.rows):
                    get_row(file, first + row * size, source.row_start + row)
                return
            row_buffer = np.empty(self._asked.cols, dtype=result.dtype)
            for row in range(part.rows):
                get_row(file, row_buffer.ctypes.data, source.row_start + row)
                target[row, inside.col_start : inside.col_stop] = row_buffer[columns]

        list((self._readers.map if self._readers else map)(read_band, range(len(self._files))))
        return result

    def _columns(self, start: int, stop: int) -> slice | NDArray[np.int64]:
        """Where columns are in a row of GRASS, which goes around the globe once at most."""
        if start >= 0 and stop <= self._asked.cols:
            return slice(start, stop)
        turned = ((np.arange(start, stop) + 0.5) % self._turn).astype(np.int64)
        return np.minimum(turned, self._asked.cols - 1)


# Held while rasters are read: a change of the input window concerns all open maps. It is held, too, while others are
# opened or closed, and while rows are written beside virtual rasters: GRASS's table of open files is for one thread.
_reading = threading.RLock()
_input_window: Region | None = None
_open_stacks: list[RasterStack] = []


def extent_window(region: Region, extents: Sequence[Region], reach: int = 0) -> Window:
    """The cells of a region's endless grid in which any of several rasters has cells.

    In latitude-longitude a raster repeats every 360 degrees. One that goes around the globe has cells in all columns;
    of others only those turns count that the region meets, or the cells around it.

    Args:
        region: the grid.
        extents: of the rasters.
        reach: columns beyond the region that matter.
    """
    extents = _turned(extents, region.west - reach * region.ewres, region.east + reach * region.ewres)
    if not extents:
        return Window(0, 0, 0, 0)
    # A raster that covers less than 1 % of a cell does not give it a value; without this the last bit would decide.
    first_row = min((region.north - extent.north) / region.nsres for extent in extents)
    last_row = max((region.north - extent.south) / region.nsres for extent in extents)
    first_col = min((extent.west - region.west) / region.ewres for extent in extents)
    last_col = max((extent.east - region.west) / region.ewres for extent in extents)
    return Window(
        math.floor(first_row + _SLIVER),
        math.ceil(last_row - _SLIVER),
        math.floor(first_col + _SLIVER),
        math.ceil(last_col - _SLIVER),
    )


def _on_globe() -> bool:
    libgis, _, _ = libraries()
    return libgis.G_projection() == libgis.PROJECTION_LL


def around_the_globe() -> float | None:
    """Map units after which places are the same again from west to east; None where they never are."""
    return _CIRCLE if _on_globe() else None


def turned_into(east: NDArray[np.float64], region: Region) -> NDArray[np.float64]:
    """Eastings as they are; on the globe those outside a region in the turn that begins at its western edge."""
    if not _on_globe():
        return east
    outside = (east < region.west) | (east > region.east)
    return np.where(outside, east - _CIRCLE * np.floor((east - region.west) / _CIRCLE), east)


def _turned(extents: Sequence[Region], west: float, east: float) -> list[Region]:
    """Extents as they are; on the globe the first and the last turn of each that meets what lies between meridians."""
    if not _on_globe():
        return list(extents)
    turned = []
    for extent in extents:
        first, last = math.ceil((west - extent.east) / _CIRCLE), math.floor((east - extent.west) / _CIRCLE)
        if extent.east - extent.west > _CIRCLE - extent.ewres / 2:
            first, last = -_ENDLESS, _ENDLESS
        turns = (first, last) if first <= last else ()
        turned += [replace(extent, west=extent.west + n * _CIRCLE, east=extent.east + n * _CIRCLE) for n in turns]
    return turned


def _readable(region: Region, window: Window, extents: Sequence[Region]) -> Window:
    """The part of a window in which any of the rasters has cells, at least the window's first cell."""
    reach = max(0, -window.col_start, window.col_stop - region.cols)
    part = window.intersection(extent_window(region, extents, reach))
    if part.is_empty:
        return Window(window.row_start, window.row_start + 1, window.col_start, window.col_start + 1)
    return part


def _one_turn(readable: Window, turn: float) -> Window:
    """What to ask GRASS for: one turn of so many columns at most, since what lies beyond it is the same again.

    Where a turn is no whole number of columns, the same means the nearest; the region's own columns stay exact.
    """
    cols = int(min(readable.cols, turn + _ROUNDING))
    first = readable.col_start if cols == readable.cols else max(0, readable.col_start)
    return replace(readable, col_start=first, col_stop=first + cols)


class RasterWriter:
    """A raster written from the top, strip after strip, in the current mapset.

    The map appears when :meth:`close` is called; before that an older map of that name is untouched.
    Leaving a ``with`` block by an exception writes nothing.

    Args:
        name: of the new raster, without mapset.
        region: its grid; all writers open at the same time must have the same.
        dtype: int32 (CELL), float32 (FCELL) or float64 (DCELL).
    """

    def __init__(self, name: str, region: Region, dtype: str = "int32") -> None:
        _, libraster, direct = libraries()
        self.name = name
        self.region = region
        self.dtype = np.dtype(dtype)
        self._put_row = getattr(direct, _PUT[dtype])
        kind = {"int32": 0, "float32": 1, "float64": 2}[dtype]
        with _reading:
            # GRASS refuses to set the window again, even to the same, while a map is being written.
            if not _open_writers:
                libraster.Rast_set_output_window(ctypes.byref(cell_head(region)))
            elif any(writer.region != region for writer in _open_writers):
                raise ValueError("rasters written at the same time must have the same region")
            self._file: int | None = libraster.Rast_open_new(name, kind)
        _open_writers.append(self)

    def __enter__(self) -> RasterWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, rows: NDArray) -> None:
        """Append rows, (rows, cols); nulls are ``CELL_NULL`` or NaN."""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        if rows.shape[1] != self.region.cols:
            raise ValueError(f"rows have {rows.shape[1]} cells, the raster {self.region.cols}")
        with _reading if any(stack.virtual for stack in _open_stacks) else nullcontext():
            for row in rows:
                self._put_row(self._file, row.ctypes.data)

    def close(self) -> None:
        """Give the map its name."""
        _, libraster, _ = libraries()
        if self._file is not None:
            with _reading:
                libraster.Rast_close(self._file)
            self._forget()

    def discard(self) -> None:
        """Forget what was written."""
        _, libraster, _ = libraries()
        if self._file is not None:
            with _reading:
                libraster.Rast_unopen(self._file)
            self._forget()

    def _forget(self) -> None:
        self._file = None
        _open_writers.remove(self)


_open_writers: list[RasterWriter] = []


def write_fast() -> None:
    """Let new rasters be compressed by LZ4, unless the user chose a method; to be called before any raster is touched.

    GRASS's default, ZSTD, writes scores that are rounded to 0.001 half as fast, in three quarters of the space. For
    class maps the space is the same.
    """
    os.environ.setdefault("GRASS_COMPRESSOR", "LZ4")


def check_new_raster(name: str, overwrite: bool) -> None:
    """Refuse to replace a raster unasked; the parser does this only for names it was given.

    Raises:
        DeepLearningError: the raster exists in the current mapset and ``overwrite`` is not set.
    """
    libgis, _, _ = libraries()
    if not overwrite and libgis.G_find_raster2(name, libgis.G_mapset()):
        raise DeepLearningError(
            f"Raster map <{name}> is not replaced unasked; it exists. Choose another name or add --overwrite."
        )


def cell_areas(region: Region) -> NDArray[np.float64]:
    """Area of a cell of each row in square metres (square map units where the units are unknown)."""
    libgis, _, _ = libraries()
    head = cell_head(region)
    libgis.G_begin_cell_area_calculations()
    return np.array([libgis.G_area_of_cell_at_row(row, ctypes.byref(head)) for row in range(region.rows)])
