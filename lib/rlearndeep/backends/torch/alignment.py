"""Feature maps of one source brought onto the ground of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Placed:
    """Feature maps of a further source, and where the ground of the reference lies in them.

    Attributes:
        maps: (N, C, rows, cols), the finest first, whose cells are those of the source; each next one has half the
            rows and columns and covers the same ground.
        box: (N, 4) first row, first column, rows and columns of the reference's ground, in cells of the finest.
        sides: rows and columns of it, on average.
    """

    maps: Sequence[Tensor]
    box: Tensor
    sides: tuple[float, float]

    @classmethod
    def of(cls, maps: Sequence[Tensor], box: Tensor) -> Placed:
        """The sides are fetched from the device once for all that is taken from the maps."""
        rows, cols = box[:, 2:].mean(dim=0).tolist()
        return cls(maps, box, (rows, cols))

    def on(self, shape: Sequence[int], change: Callable[[Tensor], Tensor] = lambda features: features) -> Tensor:
        """The features on a grid of ``shape`` that covers the reference's ground, (N, C', rows, cols).

        They are interpolated bilinearly in the map whose cells are about as large as those of the grid; where the
        grid is coarser than every map it is refined first, and the mean of each cell is taken. What lies beyond the
        edges of a map is as its outermost cells.

        Args:
            shape: rows and columns.
            change: applied to the map before, for a layer that sees one cell only.
        """
        step = max(0, *(round(math.log2(max(1.0, own / cells))) for own, cells in zip(self.sides, shape, strict=True)))
        level = min(step, len(self.maps) - 1)
        finer = 2 ** (step - level)
        rows, cols = self.maps[0].shape[-2:]
        features = change(self.maps[level]).float().contiguous()
        grid = _grid(self.box, (rows, cols), (shape[0] * finer, shape[1] * finer))
        found = functional.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return functional.avg_pool2d(found, finer) if finer > 1 else found


def _grid(box: Tensor, window: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Places of the cells of a box in a window, as ``grid_sample`` takes them, (N, *shape, 2)."""
    top, left, rows, cols = box.float().unbind(dim=1)
    none = torch.zeros_like(top)
    theta = torch.stack(
        [
            torch.stack([cols / window[1], none, (2 * left + cols) / window[1] - 1], dim=1),
            torch.stack([none, rows / window[0], (2 * top + rows) / window[0] - 1], dim=1),
        ],
        dim=1,
    )
    return functional.affine_grid(theta, [len(box), 1, *shape], align_corners=False)
