"""How a region is cut for a model: tiles for answers per cell, blocks for answers per patch, columns for memory.

The cut depends on the models and the options only, never on the region or on the memory, so that a part
of the map predicted alone equals that part of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard
from rlearndeep.prediction.blending import BLENDS, Blending
from rlearndeep.prediction.branches import Places
from rlearndeep.scene.geometry import Region, Tiling, Window

# Tiles without an overlap may be small. With one, what is computed twice shrinks with the size of the tiles; they are
# twice as wide as high, because the height counts in the memory of a strip and the width does not.
_SMALL_TILE = 256
_USUAL_ROWS = 768
_LARGEST_ROWS = 1024
_OVERLAPS_PER_TILE = 8

# Rows of answers of a patch classifier that are predicted together.
_BLOCK_STRIP = 256

# What is read ahead, what was read, what the network gets of it, and a batch of that.
_STRIPS = 4

_MEGABYTE = 1024**2
_FLOAT = 4


@dataclass(frozen=True)
class TilePlan:
    """Tiles for networks that answer for every cell.

    Attributes:
        blending: the tiles and how they are joined.
        stride: sides of what the network gets are multiples of it.
        least: rows and columns of the smallest input the network should get.
        margin: cells of context around the region that the answer may depend on; None for whole tiles.
    """

    blending: Blending
    stride: int = 1
    least: tuple[int, int] = (1, 1)
    margin: int | None = 0

    @property
    def tiling(self) -> Tiling:
        """The tiles."""
        return self.blending.tiling

    @property
    def input_size(self) -> tuple[int, int]:
        """Rows and columns of a whole network input."""
        return self.tiling.size

    def useful_window(self, region: Region, extent: Window) -> Window:
        """The cells that can matter for the region: it and its context, where there are data at all."""
        tiles = self.tiling.reading_window(region)
        if self.margin is not None:
            tiles = tiles.intersection(region.window.expanded(self.margin, self.margin))
        return tiles.intersection(extent)

    def cropped(self, tile: Window, useful: Window) -> Window:
        """The part of a tile to read: the useful cells, grown to the network's stride and smallest input."""
        rows = _cropped(tile.row_start, tile.row_stop, useful.row_start, useful.row_stop, self.stride, self.least[0])
        cols = _cropped(tile.col_start, tile.col_stop, useful.col_start, useful.col_stop, self.stride, self.least[1])
        return Window(*rows, *cols)

    def reading_window(self, region: Region, extent: Window) -> Window:
        """All cells that are read for a region; at least one cell."""
        useful = self.useful_window(region, extent)
        if useful.is_empty:
            return Window(0, 1, 0, 1)
        return useful.expanded(self.least[0] + self.stride, self.least[1] + self.stride)


def _cropped(start: int, stop: int, useful_start: int, useful_stop: int, stride: int, least: int) -> tuple[int, int]:
    first = start + max(0, useful_start - start) // stride * stride
    last = min(stop, start + -(-(useful_stop - start) // stride) * stride)
    if last <= first:
        return start, start
    last = min(stop, max(last, first + least))
    return max(start, min(first, last - least)), last


@dataclass(frozen=True)
class BlockPlan:
    """Blocks for networks that answer once per patch: a block of cells gets the answer for the patch around it.

    Block k of an axis covers cells ``k * stride`` to ``(k + 1) * stride`` of the endless grid that is tied to
    map coordinates. The patch begins ``(patch - stride + 1) // 2`` cells before the block, so that an odd
    cell of difference lies above and left of it. A block of one cell is cell ``patch // 2`` of its patch, as
    points are in sampling.

    Attributes:
        patch: rows and columns of the network's input.
        stride: rows and columns of a block.
    """

    patch: tuple[int, int]
    stride: tuple[int, int]

    @property
    def lead(self) -> tuple[int, int]:
        """Rows and columns from the first cell of a patch to the first cell of its block."""
        return (self.patch[0] - self.stride[0] + 1) // 2, (self.patch[1] - self.stride[1] + 1) // 2

    @property
    def input_size(self) -> tuple[int, int]:
        """Rows and columns of a network input."""
        return self.patch

    def block_rows(self, region: Region) -> list[int]:
        """First rows, in cells of the region, of all blocks that touch the region."""
        return self._grid.tile_rows(region)

    def block_cols(self, region: Region) -> list[int]:
        """First columns, in cells of the region, of all blocks that touch the region."""
        return self._grid.tile_cols(region)

    def reading_window(self, region: Region, extent: Window) -> Window:
        """All cells that are read for a region; at least one cell."""
        blocks = self._grid.reading_window(region)
        window = Window(*self._span(blocks.row_start, blocks.row_stop, 0), *self._span(*_cols(blocks), 1))
        window = window.intersection(extent)
        return Window(0, 1, 0, 1) if window.is_empty else window

    def patches_window(self, blocks: Window) -> Window:
        """The cells that the patches of a window of whole blocks cover, and the blocks themselves."""
        return Window(*self._span(blocks.row_start, blocks.row_stop, 0), *self._span(*_cols(blocks), 1))

    def places(self, region: Region, blocks: Window, row: NDArray[np.int64], col: NDArray[np.int64]) -> Places:
        """The patches of blocks, counted by rows and columns of blocks within a window of whole blocks."""
        first_row, first_col = blocks.row_start - self.lead[0], blocks.col_start - self.lead[1]
        return Places.of(region, first_row + row * self.stride[0], first_col + col * self.stride[1], self.patch)

    @property
    def _grid(self) -> Tiling:
        return Tiling(self.stride, (0, 0))

    def _span(self, start: int, stop: int, axis: int) -> tuple[int, int]:
        lead, patch, stride = self.lead[axis], self.patch[axis], self.stride[axis]
        first, last = start - lead, stop - stride - lead + patch
        return min(start, first), max(stop, last)


def _cols(window: Window) -> tuple[int, int]:
    return window.col_start, window.col_stop


Plan = TilePlan | BlockPlan


def make_plan(
    cards: Sequence[ModelCard], overlap: int | None = None, blend: str = BLENDS[0], stride: int | None = None
) -> Plan:
    """The cut that serves one or several models.

    Args:
        cards: models with the same unit.
        overlap: cells shared by neighbouring tiles; None derives it from the networks' reach.
        blend: how tiles are joined.
        stride: cells per answer of patch classifiers; None is a quarter of the patch.

    Raises:
        DeepLearningError: options that do not fit the models or each other.
    """
    patch = max(card.patch[0] for card in cards), max(card.patch[1] for card in cards)
    if cards[0].unit == "patch":
        if overlap is not None:
            raise DeepLearningError(
                "Tiles overlap for models that answer per cell; this model answers once per patch and got "
                f"overlap={overlap}. Use stride= for the cell size of the answer."
            )
        if blend != BLENDS[0]:
            raise DeepLearningError(
                "Tiles are blended for models that answer per cell; this model answers once per patch and got "
                f"blend={blend}. Leave blend= out."
            )
        return _block_plan(patch, stride)
    if stride is not None:
        raise DeepLearningError(
            f"A stride is for models that answer once per patch; this model answers per cell and got stride={stride}. "
            "Leave stride= out."
        )
    return _tile_plan(cards, patch, overlap, blend)


def _block_plan(patch: tuple[int, int], stride: int | None) -> BlockPlan:
    if stride is not None and stride < 1:
        raise DeepLearningError(f"The stride must be at least one cell; got {stride}. Choose a larger stride.")
    return BlockPlan(patch, (stride, stride) if stride else (max(1, patch[0] // 4), max(1, patch[1] // 4)))


def _tile_plan(cards: Sequence[ModelCard], patch: tuple[int, int], overlap: int | None, blend: str) -> TilePlan:
    stride = math.lcm(*(card.stride for card in cards))
    reaches = [card.reach for card in cards]
    known = [min(patch) // 4 if reach is None else reach for reach in reaches]
    wanted = _round_up(2 * max(known), stride)
    derived = 0 if blend == "none" else wanted
    shared = derived if overlap is None else _round_up(overlap, stride)
    size = _tile_size(cards, patch, wanted, stride)
    side = min(size)
    if 2 * shared > side:
        if overlap is not None:
            raise DeepLearningError(
                f"The overlap must be at most half a tile of {side} cells; got {overlap}. Choose a smaller overlap."
            )
        shared = side // 2 // stride * stride
    least = min(size[0], _round_up(patch[0], stride)), min(size[1], _round_up(patch[1], stride))
    # Context is cut off only where it cannot matter: else a part would differ from the whole in the last digits.
    margin = None if any(reach != 0 for reach in reaches) else 0
    return TilePlan(Blending(Tiling(size, (shared, shared)), blend), stride, least, margin)


def _tile_size(cards: Sequence[ModelCard], patch: tuple[int, int], wanted: int, stride: int) -> tuple[int, int]:
    """Rows and columns of a tile that neighbouring tiles should share ``wanted`` cells of."""
    limits = [card.largest for card in cards if card.largest]
    if limits:
        rows, cols = min(limit[0] for limit in limits), min(limit[1] for limit in limits)
    elif wanted:
        rows = max(_USUAL_ROWS, min(_LARGEST_ROWS, _OVERLAPS_PER_TILE * wanted), *patch)
        cols = 2 * rows
    else:
        rows, cols = max(_SMALL_TILE, patch[0]), max(_SMALL_TILE, patch[1])
    return _round_up(rows, stride), _round_up(cols, stride)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Beside:
    """What counts of a further source in the memory of a strip.

    Attributes:
        planes: bands times dates.
        region: its own grid.
        shape: rows and columns of a window around a place.
    """

    planes: int
    region: Region
    shape: tuple[int, int]

    def cells(self, region: Region, rows: int, cols: int) -> float:
        """Cells held around so many rows and columns of the reference's region, all planes together."""
        own_rows = rows * region.nsres / self.region.nsres + self.shape[0] + 1
        own_cols = cols * region.ewres / self.region.ewres + self.shape[1] + 1
        return self.planes * own_rows * own_cols


def starts_per_chunk(
    plan: Plan,
    region: Region,
    bands: int,
    classes: int,
    kept: int,
    memory: int,
    further: Sequence[Beside] = (),
) -> int:
    """How many tile columns (or block columns) may be held at once.

    Args:
        plan: the cut.
        region: the region to predict.
        bands: number of bands read.
        classes: number of classes.
        kept: bytes of a cell of all maps while the columns of its row are put together.
        memory: megabytes for strips, the network not counted.
        further: sources that are read in their own cells.

    Raises:
        DeepLearningError: not even one column of tiles fits; the message says how much would do.
    """
    if isinstance(plan, TilePlan):
        (rows, width), (step_rows, step) = plan.tiling.size, plan.tiling.step
        starts = len(plan.tiling.tile_cols(region))
        below = plan.tiling.overlap[0]
    else:
        step_rows, step = rows_per_strip(plan), plan.stride[1]
        rows, width = step_rows + plan.patch[0], max(plan.patch[1], step)
        starts, below = len(plan.block_cols(region)), 0

    def held(cols: int) -> float:
        """Bytes of so many columns, and the context at their sides."""
        beside = sum(2 * source.cells(region, rows, cols) for source in further)
        return _FLOAT * (rows * (cols + width) * (_STRIPS * bands + 3 * classes + 2) + beside)

    budget = memory * _MEGABYTE - _FLOAT * classes * below * region.cols
    if held(min(region.cols, step * starts)) <= budget:
        return starts
    budget -= step_rows * region.cols * kept
    if held(width) > budget:
        needed = memory + math.ceil((held(width) - budget) / _MEGABYTE)
        also = f", {sum(source.planes for source in further)} bands of further sources" if further else ""
        raise DeepLearningError(
            f"Strips of {region.cols} columns, {bands} bands{also} and {classes} classes need {needed} MB; memory is "
            f"{memory} MB. Set memory={needed}, ask for fewer maps, or choose a narrower region."
        )
    per_column = held(1) - held(0)
    return max(1, int((budget - held(0)) // per_column) // step)


def rows_per_strip(plan: BlockPlan) -> int:
    """Rows of whole blocks that are predicted together."""
    return max(1, _BLOCK_STRIP // plan.stride[0]) * plan.stride[0]
