"""How cells of a further source become cells of the reference's grid: by their places on the ground.

Both grids lie straight in each other, so bilinear interpolation is a matrix for the rows and one for the columns. They
are made with NumPy, beside the network, which only multiplies with them: whatever the grids of a patch are, the
network is the same, and made of nothing but layers of Keras.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interpolation(
    first: NDArray[np.float32], length: NDArray[np.float32], count: int, cells: int, padded: int
) -> NDArray[np.float32]:
    """How much each cell of a source counts in each cell of a grid, along one axis, (N, count, padded).

    Values between centres of cells are interpolated linearly, and what lies beyond the outermost centre is as that
    cell is. Where a cell of the grid covers several of the source it gets the mean of as many places in it.

    Args:
        first: where the grid begins, in cells of the source, (N,).
        length: of the grid, in cells of the source, (N,).
        count: of the cells of the grid.
        cells: of the source.
        padded: cells of the source with those that were added behind, which never count.
    """
    finer = max(1, round(float(length.mean()) / count))
    steps = (np.arange(count * finer) + 0.5) / (count * finer)
    places = np.clip(first[:, None] + steps * length[:, None] - 0.5, 0, cells - 1)
    distances = np.abs(places[..., None] - np.arange(padded)).astype(np.float32)
    weights = np.maximum(1 - distances, 0)
    return weights.reshape(len(first), count, finer, padded).mean(axis=2)
