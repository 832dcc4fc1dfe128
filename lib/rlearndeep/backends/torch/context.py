"""How far a trained network looks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends.torch.tasks import decoded

_LARGEST_SIDE = 320
_BLOCK = 16
_SMALLEST_CHANGE = 0.005


def reach(module: nn.Module, images: NDArray[np.float32], task: str = "class") -> int:
    """Distance in cells beyond which the surroundings hardly matter for the answer of a cell.

    Patches are laid out as a mosaic; what lies beyond a distance from a block of cells in its middle is
    replaced by other patches. The reach is the smallest distance at which the class probabilities in the block
    change by less than 0.005 on average (total variation), or values by less than 0.01 standard deviations of the
    labels, found by bisection. It is no larger than the
    mosaic allows, so a network that looks further gets the largest distance that was tried.

    Args:
        module: in evaluation mode, on the CPU, with scores per cell.
        images: (N, bands, rows, cols), normalised; real patches, a few dozen are enough.
        task: ``class`` or ``value``.
    """
    side = min(_LARGEST_SIDE, 3 * min(images.shape[-2:]))
    block = min(_BLOCK, side)
    first = (side - block) // 2
    here, there = (torch.from_numpy(_mosaics(images, side, seed)) for seed in (1, 2))
    with torch.inference_mode():
        middle = (..., slice(first, first + block), slice(first, first + block))
        truth = decoded(module(here), task)[middle]

        def change(distance: int) -> float:
            mixed = _mixed(here, there, first - distance, first + block + distance)
            return float((decoded(module(mixed), task)[middle] - truth).abs().sum(1).mean() / 2)

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


def _mixed(here: Tensor, there: Tensor, first: int, last: int) -> Tensor:
    mixed = there.clone()
    mixed[..., first:last, first:last] = here[..., first:last, first:last]
    return mixed
