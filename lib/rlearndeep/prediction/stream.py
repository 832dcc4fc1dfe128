"""The stream of a prediction: strips in, batches through the networks, finished rows out.

Memory holds strips, never the scene. Strips come from the top; a region too wide for the memory is cut
into columns, which meet without a seam because tiles that straddle a cut are summed on both sides of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard
from rlearndeep.prediction.planning import BlockPlan, Plan, TilePlan, rows_per_strip
from rlearndeep.scene.geometry import Region, Window


class Predictor(Protocol):
    """A network that a back-end loaded."""

    pixels_per_batch: int

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (N, K, H, W) or (N, K) of normalised input (N, B, H, W)."""


class Source(Protocol):
    """Where cells come from: a stack of rasters, or an array in a test."""

    def read(self, window: Window) -> NDArray:
        """Values (bands, rows, cols) of any window of the region's grid; NaN is null."""


@dataclass(frozen=True)
class Member:
    """A model at work.

    Attributes:
        predictor: its network.
        card: what it was trained on.
        positions: of its bands among the bands of the source.
    """

    predictor: Predictor
    card: ModelCard
    positions: tuple[int, ...]

    def prepare(self, values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Network input (bands, rows, cols) of the source's values."""
        own = values if self.positions == tuple(range(len(values))) else values[list(self.positions)]
        with np.errstate(invalid="ignore", over="ignore"):
            return self.card.normalization.apply(own, valid)

    def batch_size(self, cells: int, asked: int | None) -> int:
        """Number of inputs of so many cells per batch."""
        return asked or max(1, self.predictor.pixels_per_batch // cells)


@dataclass(frozen=True)
class Strip:
    """Finished cells.

    Attributes:
        window: which cells of the region.
        scores: (classes, rows, cols) float32; arbitrary where not valid.
        valid: (rows, cols), False where a needed band is null.
    """

    window: Window
    scores: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Job:
    """What to predict.

    Attributes:
        source: where cells come from.
        region: which cells.
        extent: the cells of the region's grid where the source has data at all; it may reach beyond the region.
        members: the models; their scores are averaged.
        plan: how the region is cut.
        starts_per_chunk: how many columns of tiles or blocks are held at once.
        batch_size: inputs per batch, None lets the back-end choose.
    """

    source: Source
    region: Region
    extent: Window
    members: Sequence[Member]
    plan: Plan
    starts_per_chunk: int
    batch_size: int | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.members[0].card.classes)


def strips(job: Job) -> Iterator[Strip]:
    """Predict a region; every cell of it is in exactly one strip, rows from the top, columns from the left."""
    if isinstance(job.plan, TilePlan):
        return _tile_strips(job, job.plan)
    return _block_strips(job, job.plan)


class _Reader:
    """Reads windows of a source from the top, and does not read shared rows again."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window = Window(0, 0, 0, 0)
        self._values: NDArray | None = None

    def read(self, window: Window) -> tuple[NDArray, NDArray[np.bool_]]:
        """Values (bands, rows, cols) and validity (rows, cols)."""
        kept = self._window
        same_columns = (kept.col_start, kept.col_stop) == (window.col_start, window.col_stop)
        if self._values is not None and same_columns and kept.row_start <= window.row_start < kept.row_stop:
            shared = self._values[:, window.row_start - kept.row_start :][:, : window.rows]
            fresh = Window(kept.row_stop, window.row_stop, window.col_start, window.col_stop)
            values = shared if fresh.is_empty else np.concatenate([shared, self._source.read(fresh)], axis=1)
        else:
            values = self._source.read(window)
        self._values, self._window = values, window
        valid = np.isfinite(values[0])
        for band in values[1:]:
            valid &= np.isfinite(band)
        return values, valid


def _chunks(starts: Sequence[int], count: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(starts), count):
        yield starts[first : first + count]


def _tile_strips(job: Job, plan: TilePlan) -> Iterator[Strip]:
    mosaic = _Mosaic(job.classes, job.region, plan)
    reader = _Reader(job.source)
    useful = plan.useful_window(job.region, job.extent)
    cols = plan.tiling.tile_cols(job.region)
    for row_start in plan.tiling.tile_rows(job.region):
        finished_rows = Window(row_start, row_start + plan.tiling.step[0], 0, job.region.cols)
        for chunk in _chunks(cols, job.starts_per_chunk):
            tiles = [_tile_at(plan, row_start, col_start) for col_start in chunk]
            mosaic.begin(row_start, chunk)
            valid = _predict_tiles(job, plan, reader, tiles, useful, mosaic)
            stop = tiles[-1].col_start + plan.tiling.step[1] if chunk[-1] != cols[-1] else job.region.cols
            scores, window = mosaic.finish(max(0, min(stop, job.region.cols)))
            window = window.intersection(finished_rows).intersection(job.region.window)
            if not window.is_empty:
                part = window.relative_to(Window(row_start, row_start, mosaic.first_col, mosaic.first_col))
                yield Strip(window, scores[:, part.slices[0], part.slices[1]], valid.part(window))


def _tile_at(plan: TilePlan, row: int, col: int) -> Window:
    return Window(row, row + plan.tiling.size[0], col, col + plan.tiling.size[1])


@dataclass(frozen=True)
class _Validity:
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


class _Mosaic:
    """Sums weighted tiles, and hands out what no later tile will change.

    Holds one row of tiles over the columns of a chunk, and what that row shares with the row below and with
    the chunk to the right.
    """

    def __init__(self, classes: int, region: Region, plan: TilePlan) -> None:
        self._classes = classes
        self._region = region
        self._plan = plan
        self._below = np.zeros((classes, plan.tiling.overlap[0], region.cols), dtype=np.float32)
        self._right: NDArray[np.float32] | None = None
        self._sums = np.empty(0, dtype=np.float32)
        self._row = 0
        self.first_col = 0

    def begin(self, row_start: int, col_starts: Sequence[int]) -> None:
        """Make room for the tiles of a chunk."""
        self._row = row_start
        self.first_col = max(0, col_starts[0])
        stop = min(self._region.cols, col_starts[-1] + self._plan.tiling.size[1])
        shape = (self._classes, self._plan.tiling.size[0], max(0, stop - self.first_col))
        self._sums = np.zeros(shape, dtype=np.float32)
        if self._right is not None:
            self._sums[:, :, : self._right.shape[2]] = self._right

    def add(self, tile: Window, window: Window, scores: NDArray[np.float32], share: float) -> None:
        """Add the scores (classes, rows, cols) of a window of a tile."""
        inside = window.intersection(Window(window.row_start, window.row_stop, 0, self._region.cols))
        if inside.is_empty:
            return
        rows, cols = inside.relative_to(window).slices
        part = scores[:, rows, cols]
        if any(self._plan.tiling.overlap) or share != 1:
            part = part * (self._plan.blending.weights[inside.relative_to(tile).slices] * np.float32(share))
        target = inside.relative_to(Window(self._row, self._row, self.first_col, self.first_col))
        self._sums[:, target.slices[0], target.slices[1]] += part

    def finish(self, col_stop: int) -> tuple[NDArray[np.float32], Window]:
        """Scores of the chunk up to a column, and their window; the rest waits for the next chunk."""
        done = col_stop - self.first_col
        step, overlap = self._plan.tiling.step[0], self._plan.tiling.overlap[0]
        self._right = self._sums[:, :, done:].copy() if col_stop < self._region.cols else None
        ready = self._sums[:, :, :done]
        if overlap:
            below = self._below[:, :, self.first_col : col_stop]
            ready[:, :overlap] += below
            below[:] = ready[:, step:]
        return ready, Window(self._row, self._row + ready.shape[1], self.first_col, col_stop)


def _predict_tiles(
    job: Job, plan: TilePlan, reader: _Reader, tiles: Sequence[Window], useful: Window, mosaic: _Mosaic
) -> _Validity:
    windows = {tile: plan.cropped(tile, useful) for tile in tiles}
    filled = [window for window in windows.values() if not window.is_empty]
    if not filled:
        return _Validity(Window(0, 0, 0, 0), np.zeros((0, 0), dtype=bool))
    around = _bounds(filled)
    values, valid = reader.read(around)
    validity = _Validity(around, valid)
    core = plan.blending.core
    needed: dict[tuple[int, int], list[tuple[Window, Window]]] = defaultdict(list)
    for tile, window in windows.items():
        answered = core.shifted(tile.row_start, tile.col_start).intersection(job.region.window)
        if not window.is_empty and validity.part(answered).any():
            needed[window.shape].append((tile, window))
    for member in job.members:
        prepared = member.prepare(values, valid) if needed else values
        for shape, group in needed.items():
            size = member.batch_size(shape[0] * shape[1], job.batch_size)
            for first in range(0, len(group), size):
                batch = group[first : first + size]
                slices = [window.relative_to(around).slices for _, window in batch]
                scores = member.predictor.predict(np.stack([prepared[:, rows, cols] for rows, cols in slices]))
                for (tile, window), answer in zip(batch, scores, strict=True):
                    mosaic.add(tile, window, answer, 1 / len(job.members))
    return validity


def _bounds(windows: Sequence[Window]) -> Window:
    return Window(
        min(window.row_start for window in windows),
        max(window.row_stop for window in windows),
        min(window.col_start for window in windows),
        max(window.col_stop for window in windows),
    )


def _block_strips(job: Job, plan: BlockPlan) -> Iterator[Strip]:
    reader = _Reader(job.source)
    rows, cols = plan.block_rows(job.region), plan.block_cols(job.region)
    for row_chunk in _chunks(rows, rows_per_strip(plan) // plan.stride[0]):
        for col_chunk in _chunks(cols, job.starts_per_chunk):
            blocks = Window(row_chunk[0], row_chunk[-1] + plan.stride[0], col_chunk[0], col_chunk[-1] + plan.stride[1])
            values, valid = reader.read(plan.patches_window(blocks))
            validity = _Validity(plan.patches_window(blocks), valid)
            coarse = _predict_blocks(job, plan, blocks, values, validity)
            fine = np.repeat(np.repeat(coarse, plan.stride[0], axis=1), plan.stride[1], axis=2)
            window = blocks.intersection(job.region.window)
            part = window.relative_to(blocks)
            yield Strip(window, fine[:, part.slices[0], part.slices[1]], validity.part(window))


def _predict_blocks(
    job: Job, plan: BlockPlan, blocks: Window, values: NDArray, validity: _Validity
) -> NDArray[np.float32]:
    """Scores (classes, rows of blocks, columns of blocks); zero for blocks without a valid cell in the region."""
    (stride_rows, stride_cols), around = plan.stride, validity.window
    shape = blocks.rows // stride_rows, blocks.cols // stride_cols
    answered = _Validity(job.region.window.intersection(blocks), validity.part(job.region.window.intersection(blocks)))
    wanted = answered.part(blocks).reshape(shape[0], stride_rows, shape[1], stride_cols).any(axis=(1, 3))
    rows, cols = np.nonzero(wanted)
    result = np.zeros((job.classes, *shape), dtype=np.float32)
    first_row = blocks.row_start - plan.lead[0] - around.row_start
    first_col = blocks.col_start - plan.lead[1] - around.col_start
    for member in job.members:
        prepared = member.prepare(values, validity.values)
        patches = np.lib.stride_tricks.sliding_window_view(prepared, plan.patch, axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        size = member.batch_size(plan.patch[0] * plan.patch[1], job.batch_size)
        for first in range(0, len(rows), size):
            row, col = rows[first : first + size], cols[first : first + size]
            batch = patches[first_row + row * stride_rows, first_col + col * stride_cols]
            scores = member.predictor.predict(np.ascontiguousarray(batch))
            result[:, row, col] += scores.T / np.float32(len(job.members))
    return result


def check_members(cards: Sequence[ModelCard], names: Sequence[str]) -> None:
    """See that the scores of several models can be averaged.

    Raises:
        DeepLearningError: the models have other classes, or answer for other things.
    """
    first = cards[0]
    for card, name in zip(cards[1:], names[1:], strict=True):
        if card.classes.categories.tolist() != first.classes.categories.tolist():
            raise DeepLearningError(
                f"Models whose scores are averaged must have the same classes; '{names[0]}' has {len(first.classes)} "
                f"({_listed(first)}), '{name}' has {len(card.classes)} ({_listed(card)}). Predict them one by one."
            )
        if card.unit != first.unit or (card.unit == "patch" and card.patch != first.patch):
            raise DeepLearningError(
                f"Models whose scores are averaged must answer for the same cells; '{names[0]}' answers per "
                f"{first.unit} of {first.patch}, '{name}' per {card.unit} of {card.patch}. Predict them one by one."
            )


def _listed(card: ModelCard) -> str:
    return ", ".join(str(category) for category in card.classes.categories)
