"""What sampling asks of imagery and labels, and the one way in which it goes through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.bands import Band
from rlearndeep.scene.geometry import Region, Window

Planes = tuple[NDArray, ...]

LABEL_SHARE = 0.25
"""Share of the memory in which labels may be kept that would be read several times."""

# Share of the memory for strips. The rest is for patches in work, and for what the C library does not give back.
_STRIP_SHARE = 0.6


class Scene(Protocol):
    """Imagery of one acquisition and a label plane on one grid; windows count in ``region`` and may reach beyond it.

    Attributes:
        region: the grid.
        bands: of the reference source.
        dtype: type in which every value of the bands is exact.
        null: the value of ``read`` that means null; not a number for floating point.
        repeats: True where all bands are coarser than the grid, so that cells repeat each other.
    """

    region: Region
    bands: tuple[Band, ...]
    dtype: np.dtype
    null: float | int
    repeats: bool

    def read(self, window: Window) -> NDArray:
        """Values of the bands, (bands, rows, cols)."""

    def read_nulls(self, window: Window) -> NDArray[np.bool_]:
        """True where any band is null, (rows, cols)."""

    def read_codes(self, window: Window) -> NDArray[np.int32]:
        """Codes of the label plane, (rows, cols); ``NOTHING`` beyond the region."""

    def read_values(self, window: Window) -> NDArray[np.float32]:
        """Labels of a plane that has values of its own, (rows, cols), not a number where there is none."""

    def read_ignored(self, window: Window) -> NDArray[np.bool_] | None:
        """True for cells whose label is not to be used, (rows, cols); None where all are used."""


def sweep(
    read: Callable[[Window], Planes], first: int, last: int, height: int, step: int, cols: int
) -> Iterator[tuple[int, int, Planes]]:
    """Go down a scene once, reading every row a single time and the next strip ahead of its use.

    Args:
        read: planes of a window; the rows are the second last axis.
        first: first row at which a patch may begin.
        last: row after the last one at which a patch may begin.
        height: rows of a patch.
        step: rows of beginnings per strip.
        cols: columns to read.

    Yields:
        ``start``, ``stop`` and planes with the rows ``start`` to ``stop + height - 1``: all patches
        that begin in rows ``start`` to ``stop`` (exclusive) lie in them.
    """
    with ThreadPoolExecutor(1) as reader:
        done = first
        stop = min(first + step, last)
        coming = reader.submit(read, Window(done, stop + height - 1, 0, cols)) if first < last else None
        kept: Planes | None = None
        start = first
        while coming is not None:
            done = stop + height - 1
            fresh = coming.result()
            following = min(stop + step, last)
            coming = reader.submit(read, Window(done, following + height - 1, 0, cols)) if following > stop else None
            planes = (
                fresh
                if kept is None
                else tuple(np.concatenate(pair, axis=-2) for pair in zip(kept, fresh, strict=True))
            )
            yield start, stop, planes
            kept = tuple(plane[..., stop - start :, :] for plane in planes)
            start, stop = stop, following


def strip_rows(cols: int, bytes_per_cell: int, height: int, memory: int) -> int:
    """Rows of beginnings per strip, so that strips keep within their share of ``memory`` megabytes where they can."""
    fitting = int(memory * 1e6 * _STRIP_SHARE / (bytes_per_cell * cols))
    return max(1, min(1024, fitting - height + 1))
