"""How cells are read: from the top, shared rows once, and bands of other grids resampled into the reference's cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.geometry import Region, Window, Windows
from rlearndeep.scene.resampling import positions, resampled

# Cells of a source that is resampled, which are held at once, all bands together.
_CELLS_AT_ONCE = 1 << 22


class Source(Protocol):
    """Where cells come from: a stack of rasters, or an array in a test."""

    def read(self, window: Window) -> NDArray:
        """Values (bands, rows, cols) of any window of the region's grid; NaN is null."""


class Reader:
    """Reads windows of a source from the top, does not read shared rows again, and can read the next one ahead."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window = Window(0, 0, 0, 0)
        self._values: NDArray | None = None
        self._ahead = ThreadPoolExecutor(1)
        self._next: tuple[Window, Future[NDArray]] | None = None

    def read(self, window: Window) -> NDArray:
        """Values (bands, rows, cols)."""
        expected, self._next = self._next, None
        ready = expected[1].result() if expected else None
        values = ready if expected and ready is not None and expected[0] == window else self._joined(window)
        self._values, self._window = values, window
        return values

    def expect(self, window: Window) -> None:
        """Begin to read the window that will be asked for next, while the last one is computed."""
        self._next = window, self._ahead.submit(self._joined, window)

    def _joined(self, window: Window) -> NDArray:
        """What the last window shares with this one, and the rows below it."""
        kept = self._window
        same_columns = (kept.col_start, kept.col_stop) == (window.col_start, window.col_stop)
        if self._values is None or not same_columns or not kept.row_start <= window.row_start < kept.row_stop:
            return self._source.read(window)
        shared = self._values[:, window.row_start - kept.row_start :][:, : window.rows]
        fresh = Window(kept.row_stop, window.row_stop, window.col_start, window.col_stop)
        return shared if fresh.is_empty else np.concatenate([shared, self._source.read(fresh)], axis=1)


def finite(values: NDArray) -> NDArray[np.bool_]:
    """Where no band (bands, rows, cols) is null, (rows, cols)."""
    valid = np.isfinite(values[0])
    for band in values[1:]:
        valid &= np.isfinite(band)
    return valid


@dataclass(frozen=True)
class Layer:
    """A source of another grid whose bands are brought into the cells of the reference.

    Attributes:
        source: windows count in ``region``.
        region: its own grid.
        method: one of ``scene.resampling.METHODS``.
    """

    source: Source
    region: Region
    method: str

    def read(self, places: Windows) -> NDArray[np.float32]:
        """Values (bands, rows, cols) of one window of the reference; NaN where the source is null."""
        grid = Windows(self.region, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), (1, 1))
        rows, cols = positions(grid, places)
        col_start, col_stop = _span(cols)
        held = -(-(rows[0, -1] - rows[0, 0] + 1) // rows.shape[1]) * (col_stop - col_start)
        step = max(1, int(_CELLS_AT_ONCE // max(1, held)))
        parts = [
            self._part(rows[:, first : first + step], cols, (col_start, col_stop))
            for first in range(0, rows.shape[1], step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _part(
        self, rows: NDArray[np.float64], cols: NDArray[np.float64], across: tuple[int, int]
    ) -> NDArray[np.float32]:
        window = Window(*_span(rows), *across)
        values = self.source.read(window)
        found, known = resampled(
            values[None], finite(values)[None], rows - window.row_start, cols - window.col_start, self.method
        )
        return np.where(known, found[0], np.float32(np.nan)).astype(np.float32, copy=False)


def _span(places: NDArray[np.float64]) -> tuple[int, int]:
    """First cell and the one behind the last that positions (1, n) and their nearest neighbours lie in."""
    return int(np.floor(places[0, 0] - 0.5)), int(np.floor(places[0, -1] + 0.5)) + 1


@dataclass(frozen=True)
class Stacked:
    """The bands of a reference, and behind them those of sources of other grids: one source.

    Attributes:
        reference: windows count in ``region``.
        region: its grid.
        layers: in the order of their bands.
    """

    reference: Source
    region: Region
    layers: Sequence[Layer]

    def read(self, window: Window) -> NDArray[np.float32]:
        """Values (bands, rows, cols) of a window; NaN is null, band by band."""
        if window.is_empty:
            return self.reference.read(window)
        return np.concatenate(list(self._read(window)))

    def _read(self, window: Window) -> Iterator[NDArray]:
        yield self.reference.read(window)
        first = np.array([window.row_start]), np.array([window.col_start])
        for layer in self.layers:
            yield layer.read(Windows(self.region, *first, window.shape))


@dataclass(frozen=True)
class Validity:
    """Validity of the cells of a window; cells outside it have no data."""

    window: Window
    values: NDArray[np.bool_]

    def part(self, window: Window) -> NDArray[np.bool_]:
        """Validity of another window."""
        result = np.zeros(window.shape, dtype=bool)
        common = window.intersection(self.window)
        if not common.is_empty:
            result[common.relative_to(window).slices] = self.values[common.relative_to(self.window).slices]
        return result
