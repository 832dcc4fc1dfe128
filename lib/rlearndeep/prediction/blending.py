"""Weights that join overlapping tiles without a seam.

The weights of all tiles over a cell sum to 1 (a partition of unity), so a network that answers the same
everywhere gives exactly that answer in every cell, for every blend, tile and overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.geometry import Tiling, Window

BLENDS = ("linear", "cosine", "crop", "none")


def ramp(overlap: int, blend: str) -> NDArray[np.float32]:
    """Weights of a tile over the cells that it shares with the tile before it, (overlap,).

    The tile before it has 1 minus these weights in the same cells. Linear weights follow the cell centres,
    cosine weights have no kink at the ends (Hann window), crop gives each half to the nearer tile.
    """
    position = (np.arange(overlap, dtype=np.float64) + 0.5) / max(overlap, 1)
    if blend == "linear":
        weights = position
    elif blend == "cosine":
        weights = 0.5 - 0.5 * np.cos(np.pi * position)
    else:
        weights = (position > 0.5).astype(np.float64)
    return weights.astype(np.float32)


def runs(chosen: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First position of each run of chosen ones, and the one behind its last."""
    borders = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    return zip(borders[::2], borders[1::2], strict=True)


def axis_weights(size: int, overlap: int, blend: str) -> NDArray[np.float32]:
    """Weights of a tile along one axis, (size,)."""
    weights = np.ones(size, dtype=np.float32)
    if overlap:
        rising = ramp(overlap, blend)
        weights[:overlap] = rising
        weights[size - overlap :] = 1 - rising
    return weights


@dataclass(frozen=True)
class Blending:
    """A tiling together with the way its tiles are joined.

    Attributes:
        tiling: the tiles.
        blend: one of ``BLENDS``; ``none`` needs tiles that do not overlap.
    """

    tiling: Tiling
    blend: str = "linear"

    def __post_init__(self) -> None:
        if self.blend not in BLENDS:
            raise DeepLearningError(
                f"Tiles are blended by one of {', '.join(BLENDS)}; got '{self.blend}'. Choose one of them."
            )
        if self.blend == "none" and any(self.tiling.overlap):
            raise DeepLearningError(
                f"Tiles that overlap must be blended; got blend=none with an overlap of {self.tiling.overlap[0]} "
                "cells. Choose another blend or overlap=0."
            )

    @cached_property
    def axes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights of the rows and of the columns of a tile, (rows,) and (cols,)."""
        rows, cols = (
            axis_weights(size, overlap, self.blend)
            for size, overlap in zip(self.tiling.size, self.tiling.overlap, strict=True)
        )
        return rows, cols

    @property
    def weights(self) -> NDArray[np.float32]:
        """Weights of the cells of a tile, (rows, cols)."""
        return self.axes[0][:, None] * self.axes[1][None, :]

    def weigh(self, answer: NDArray[np.float32], part: Window) -> None:
        """Multiply the answer (planes, rows, cols) for a part of a tile with its weights, in place.

        Most cells have the weight 1 and are not touched.
        """
        rows, cols = (weights[cells] for weights, cells in zip(self.axes, part.slices, strict=True))
        for first, last in runs(rows != 1):
            answer[:, first:last] *= rows[first:last, None]
        for first, last in runs(cols != 1):
            answer[:, :, first:last] *= cols[first:last]

    @cached_property
    def core(self) -> Window:
        """The cells of a tile, counted from its first, that have any weight."""
        rows, cols = (np.flatnonzero(weights) for weights in self.axes)
        return Window(int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1)
