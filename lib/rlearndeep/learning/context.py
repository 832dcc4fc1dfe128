"""How far a trained network looks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_SIDE = 320
_BLOCK = 16
_SMALLEST_CHANGE = 0.005


def reach(predictor: Any, images: NDArray[np.float32], scale: float = 1.0) -> int:
    """Distance in cells beyond which the surroundings hardly matter for the answer of a cell.

    Patches are laid out as a mosaic; what lies beyond a distance from a block of cells in its middle is
    replaced by other patches. The reach is the smallest distance at which the class probabilities in the block
    change by less than 0.005 on average (total variation), or values by less than 0.01 standard deviations of the
    labels, found by bisection. It is no larger than the mosaic allows, so a network that looks further gets the
    largest distance that was tried.

    Args:
        predictor: of a network with an answer per cell.
        images: (N, bands, rows, cols), normalised; real patches, a few dozen are enough.
        scale: standard deviation of the labels where they are values.
    """
    side = min(_LARGEST_SIDE, 3 * min(images.shape[-2:]))
    block = min(_BLOCK, side)
    first = (side - block) // 2
    here, there = (_mosaics(images, side, seed) for seed in (1, 2))
    middle = (..., slice(first, first + block), slice(first, first + block))
    step = max(1, predictor.pixels_per_batch // side**2)

    def answers(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        batches = (pictures[start : start + step] for start in range(0, len(pictures), step))
        return np.concatenate([predictor.predict(batch)[middle] for batch in batches])

    truth = answers(here)

    def change(distance: int) -> float:
        mixed = _mixed(here, there, first - distance, first + block + distance)
        return float(np.abs(answers(mixed) - truth).sum(axis=1).mean() / (2 * scale))

    low, high = -1, first
    while high - low > 1:
        distance = (low + high) // 2
        low, high = (low, distance) if change(distance) < _SMALLEST_CHANGE else (distance, high)
    return high


def _mosaics(images: NDArray[np.float32], side: int, seed: int, count: int = 6) -> NDArray[np.float32]:
    """(count, bands, side, side) laid out with patches in random order."""
    rows, cols = images.shape[-2:]
    down, across = -(-side // rows), -(-side // cols)
    chosen = np.random.default_rng(seed).integers(len(images), size=(count, down, across))
    joined = np.moveaxis(images[chosen], (3, 1, 4, 2, 5), (1, 2, 3, 4, 5))
    return np.ascontiguousarray(joined.reshape(count, images.shape[1], down * rows, across * cols)[..., :side, :side])


def _mixed(here: NDArray[np.float32], there: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    mixed = there.copy()
    mixed[..., first:last, first:last] = here[..., first:last, first:last]
    return mixed
