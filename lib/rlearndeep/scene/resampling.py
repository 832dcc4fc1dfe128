"""Bands of one grid brought into the cells of another: nearest neighbour and bilinear interpolation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.geometry import Windows

METHODS = ("nearest", "bilinear")

# A centre on the border of two cells belongs to the one south or east of it, whatever rounding says.
_ROUNDING = 1e-6


def positions(own: Windows, reference: Windows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the centres of the reference's cells lie, in cells of windows of another source.

    Returns:
        Rows (N, rows) and columns (N, cols); 0 is the upper, or left, edge of the first cell of the source's window.
    """
    grid, other = own.region, reference.region
    south = reference.row.astype(np.float64)[:, None] + np.arange(reference.shape[0]) + 0.5
    east = reference.col.astype(np.float64)[:, None] + np.arange(reference.shape[1]) + 0.5
    down = (grid.north - other.north + south * other.nsres) / grid.nsres
    right = (other.west - grid.west + east * other.ewres) / grid.ewres
    return down - own.row[:, None] + _ROUNDING, right - own.col[:, None] + _ROUNDING


def resampled(
    values: NDArray, valid: NDArray[np.bool_], rows: NDArray[np.float64], cols: NDArray[np.float64], method: str
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Values at positions of :func:`positions`.

    Args:
        values: (N, bands, rows of the window, columns of the window).
        valid: (N, rows, columns) of the window.
        rows, cols: (N, p) and (N, q).
        method: of ``METHODS``. ``bilinear`` is the mean of the four nearest cells, weighted by nearness; cells that
            are not valid, or lie outside the window, are left out of it.

    Returns:
        Values (N, bands, p, q), of the same type for ``nearest`` and float32 for ``bilinear``, and validity (N, p, q):
        False where the cell that holds the position is not valid or lies outside the window.
    """
    near, known = _cells(values, valid, np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64))
    if method == "nearest":
        return near, known
    down, right = rows - 0.5, cols - 0.5
    first_row, first_col = np.floor(down).astype(np.int64), np.floor(right).astype(np.int64)
    total = np.zeros(near.shape, dtype=np.float32)
    weights = np.zeros(known.shape, dtype=np.float32)
    for step_row in (0, 1):
        for step_col in (0, 1):
            part, good = _cells(values, valid, first_row + step_row, first_col + step_col)
            share_row = 1 - np.abs(down - (first_row + step_row))
            share_col = 1 - np.abs(right - (first_col + step_col))
            weight = (share_row[:, :, None] * share_col[:, None, :] * good).astype(np.float32)
            # In the same type whatever the stored one is, so that training and prediction agree to the last bit.
            total += np.where(good[:, None], part, 0).astype(np.float32) * weight[:, None]
            weights += weight
    return total / np.where(known, weights, 1)[:, None], known


def _cells(
    values: NDArray, valid: NDArray[np.bool_], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Cells (N, bands, p, q) and their validity (N, p, q); cells outside the window are not valid."""
    height, width = values.shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    place = np.arange(len(values))[:, None, None]
    row, col = rows.clip(0, height - 1)[:, :, None], cols.clip(0, width - 1)[:, None, :]
    return np.moveaxis(values[place, :, row, col], -1, 1), valid[place, row, col] & inside
