"""The stream of a prediction: strips in, batches through the networks, finished rows out.

Memory holds strips, never the scene. Strips come from the top; a region too wide for the memory is cut
into columns, which meet without a seam because tiles that straddle a cut are summed on both sides of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.prediction.answers import Member, Question
from rlearndeep.prediction.planning import BlockPlan, Plan, TilePlan, rows_per_strip
from rlearndeep.scene.geometry import Region, Window


class Source(Protocol):
    """Where cells come from: a stack of rasters, or an array in a test."""

    def read(self, window: Window) -> NDArray:
        """Values (bands, rows, cols) of any window of the region's grid; NaN is null."""


@dataclass(frozen=True)
class Strip:
    """Finished cells.

    Attributes:
        window: which cells of the region.
        planes: (planes of the question, rows, cols) float32; arbitrary where not valid.
        valid: (rows, cols), False where a needed band is null.
    """

    window: Window
    planes: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Chunk:
    """What a row of tiles (or of blocks) gives over some columns, before it is joined with the rows around it.

    Attributes:
        window: cells of the region's grid: all rows of the tiles, and finished columns of the region.
        planes: (planes, rows, cols), the weighted answers of the tiles of this row.
        valid: (rows, cols), False where a needed band is null.
    """

    window: Window
    planes: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Job:
    """What to predict.

    Attributes:
        source: where cells come from.
        region: which cells.
        extent: the cells of the region's grid where the source has data at all; it may reach beyond the region.
        members: the models; their answers are averaged.
        plan: how the region is cut.
        question: what the models are asked.
        starts_per_chunk: how many columns of tiles or blocks are held at once.
        batch_size: inputs per batch, None lets the back-end choose.
    """

    source: Source
    region: Region
    extent: Window
    members: Sequence[Member]
    plan: Plan
    question: Question
    starts_per_chunk: int
    batch_size: int | None = None

    @property
    def row_starts(self) -> list[int]:
        """First rows, in cells of the region, of the rows of tiles (or of blocks that are predicted together)."""
        if isinstance(self.plan, TilePlan):
            return self.plan.tiling.tile_rows(self.region)
        return self.plan.block_rows(self.region)[:: rows_per_strip(self.plan) // self.plan.stride[0]]


Rows = Callable[[Sequence[int]], Iterator[Iterable[Chunk]]]
"""From the first rows of rows of tiles to the chunks of each, in the same order."""


def strips(job: Job, done: int = 0, rows: Rows | None = None) -> Iterator[Strip]:
    """Predict a region; every cell of it is in exactly one strip, rows from the top, columns from the left.

    Args:
        job: what to predict.
        done: rows of the region that are known already and left out.
        rows: where the chunks are computed; here by default.
    """
    if done >= job.region.rows:
        return
    starts = job.row_starts
    first = max(index for index, start in enumerate(starts) if start <= done)
    # The row of tiles above gives its part of the cells that both share.
    starts = starts[max(0, first - 1) :]
    seam = _Seam(job)
    for chunks in (rows or Here(job))(starts):
        for chunk in chunks:
            window, planes = seam.joined(chunk)
            window = window.intersection(Window(done, job.region.rows, 0, job.region.cols))
            if not window.is_empty:
                part = window.relative_to(chunk.window).slices
                yield Strip(window, planes[:, part[0], part[1]], chunk.valid[part])


class Here:
    """Computes chunks in this process; rows that neighbouring rows of tiles share are read once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reader = _Reader(job.source)

    def __call__(self, starts: Sequence[int]) -> Iterator[Iterable[Chunk]]:
        return (self.chunks(start) for start in starts)

    def chunks(self, start: int) -> Iterator[Chunk]:
        """The chunks of the row of tiles (or blocks) that begins at row ``start``, from the left."""
        if isinstance(self._job.plan, TilePlan):
            return _tile_chunks(self._job, self._job.plan, self._reader, start)
        return _block_chunks(self._job, self._job.plan, self._reader, start)


class _Seam:
    """Adds to each row of tiles what the row above has in the cells that both share."""

    def __init__(self, job: Job) -> None:
        self._overlap = job.plan.tiling.overlap[0] if isinstance(job.plan, TilePlan) else 0
        self._below = np.zeros((job.question.planes, self._overlap, job.region.cols), dtype=np.float32)

    def joined(self, chunk: Chunk) -> tuple[Window, NDArray[np.float32]]:
        """The rows that are finished, and the planes of the chunk with the row above added."""
        window, planes = chunk.window, chunk.planes
        step = window.rows - self._overlap
        if self._overlap:
            below = self._below[:, :, window.col_start : window.col_stop]
            if not planes.flags.writeable:  # it came from another machine
                planes = planes.copy()
            planes[:, : self._overlap] += below
            below[:] = planes[:, step:]
        return Window(window.row_start, window.row_start + step, window.col_start, window.col_stop), planes


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


def _tile_chunks(job: Job, plan: TilePlan, reader: _Reader, row_start: int) -> Iterator[Chunk]:
    mosaic = _Mosaic(job, plan, row_start)
    useful = plan.useful_window(job.region, job.extent)
    cols = plan.tiling.tile_cols(job.region)
    for starts in _chunks(cols, job.starts_per_chunk):
        tiles = [_tile_at(plan, row_start, col_start) for col_start in starts]
        mosaic.begin(starts)
        valid = _predict_tiles(job, plan, reader, tiles, useful, mosaic)
        stop = tiles[-1].col_start + plan.tiling.step[1] if starts[-1] != cols[-1] else job.region.cols
        window, planes = mosaic.finish(max(0, min(stop, job.region.cols)))
        if not window.is_empty:
            yield Chunk(window, planes, valid.part(window))


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
    """Weighted sums of the answers of a row of tiles, and what is shared with the columns to the right."""

    def __init__(self, job: Job, plan: TilePlan, row_start: int) -> None:
        self._planes = job.question.planes
        self._cols = job.region.cols
        self._plan = plan
        self._row = row_start
        self._right: NDArray[np.float32] | None = None
        self._sums = np.empty((0, 0, 0), dtype=np.float32)
        self._first_col = 0

    def begin(self, col_starts: Sequence[int]) -> None:
        """Make room for the tiles of a chunk."""
        self._first_col = max(0, col_starts[0])
        stop = min(self._cols, col_starts[-1] + self._plan.tiling.size[1])
        shape = (self._planes, self._plan.tiling.size[0], max(0, stop - self._first_col))
        self._sums = np.zeros(shape, dtype=np.float32)
        if self._right is not None:
            self._sums[:, :, : self._right.shape[2]] = self._right

    def add(self, tile: Window, window: Window, answer: NDArray[np.float32], share: float) -> None:
        """Add the answer (planes, rows, cols) for a window of a tile; the answer is spent."""
        inside = window.intersection(Window(window.row_start, window.row_stop, 0, self._cols))
        if inside.is_empty:
            return
        rows, cols = inside.relative_to(window).slices
        part = answer[:, rows, cols]
        if not part.flags.writeable:
            part = part.copy()
        if share != 1:
            part *= np.float32(share)
        self._plan.blending.weigh(part, inside.relative_to(tile))
        target = inside.relative_to(Window(self._row, self._row, self._first_col, self._first_col))
        self._sums[:, target.slices[0], target.slices[1]] += part

    def finish(self, col_stop: int) -> tuple[Window, NDArray[np.float32]]:
        """The chunk up to a column: its window and its planes; the rest waits for the next chunk."""
        done = max(0, col_stop - self._first_col)
        self._right = self._sums[:, :, done:].copy() if col_stop < self._cols else None
        window = Window(self._row, self._row + self._sums.shape[1], self._first_col, self._first_col + done)
        return window, self._sums[:, :, :done]


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
                answers = member.answer(job.question, np.stack([prepared[:, rows, cols] for rows, cols in slices]))
                for (tile, window), answer in zip(batch, answers, strict=True):
                    mosaic.add(tile, window, answer, 1 / len(job.members))
    return validity


def _bounds(windows: Sequence[Window]) -> Window:
    return Window(
        min(window.row_start for window in windows),
        max(window.row_stop for window in windows),
        min(window.col_start for window in windows),
        max(window.col_stop for window in windows),
    )


def _block_chunks(job: Job, plan: BlockPlan, reader: _Reader, row_start: int) -> Iterator[Chunk]:
    cols = plan.block_cols(job.region)
    row_stop = min(row_start + rows_per_strip(plan), plan.block_rows(job.region)[-1] + plan.stride[0])
    for starts in _chunks(cols, job.starts_per_chunk):
        blocks = Window(row_start, row_stop, starts[0], starts[-1] + plan.stride[1])
        values, valid = reader.read(plan.patches_window(blocks))
        validity = _Validity(plan.patches_window(blocks), valid)
        coarse = _predict_blocks(job, plan, blocks, values, validity)
        fine = np.repeat(np.repeat(coarse, plan.stride[0], axis=1), plan.stride[1], axis=2)
        window = blocks.intersection(Window(row_start, row_stop, 0, job.region.cols))
        part = window.relative_to(blocks).slices
        yield Chunk(window, fine[:, part[0], part[1]], validity.part(window))


def _predict_blocks(
    job: Job, plan: BlockPlan, blocks: Window, values: NDArray, validity: _Validity
) -> NDArray[np.float32]:
    """Answers (planes, rows of blocks, columns of blocks); zero for blocks without a valid cell in the region."""
    (stride_rows, stride_cols), around = plan.stride, validity.window
    shape = blocks.rows // stride_rows, blocks.cols // stride_cols
    answered = _Validity(job.region.window.intersection(blocks), validity.part(job.region.window.intersection(blocks)))
    wanted = answered.part(blocks).reshape(shape[0], stride_rows, shape[1], stride_cols).any(axis=(1, 3))
    rows, cols = np.nonzero(wanted)
    result = np.zeros((job.question.planes, *shape), dtype=np.float32)
    first_row = blocks.row_start - plan.lead[0] - around.row_start
    first_col = blocks.col_start - plan.lead[1] - around.col_start
    for member in job.members:
        prepared = member.prepare(values, validity.values)
        patches = np.lib.stride_tricks.sliding_window_view(prepared, plan.patch, axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        size = member.batch_size(plan.patch[0] * plan.patch[1], job.batch_size)
        for first in range(0, len(rows), size):
            row, col = rows[first : first + size], cols[first : first + size]
            batch = patches[first_row + row * stride_rows, first_col + col * stride_cols]
            answers = member.answer(job.question, np.ascontiguousarray(batch))
            result[:, row, col] += answers.T / np.float32(len(job.members))
    return result
