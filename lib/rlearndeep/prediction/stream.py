"""The stream of a prediction: strips in, batches through the networks, finished rows out.

Memory holds strips, never the scene. Strips come from the top; a region too wide for the memory is cut
into columns, which meet without a seam because tiles that straddle a cut are summed on both sides of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, tee

import numpy as np
from numpy.typing import NDArray

from rlearndeep.ahead import ahead
from rlearndeep.prediction.answers import Member, Question
from rlearndeep.prediction.blending import runs
from rlearndeep.prediction.branches import FurtherSource, Places, Planes, Surroundings
from rlearndeep.prediction.planning import BlockPlan, Plan, TilePlan, rows_per_strip
from rlearndeep.prediction.reading import Reader, Source, Stacked, Validity, finite
from rlearndeep.scene.geometry import Region, Window


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
    """What the tiles (or blocks) of a piece give, before they are joined with those around them.

    Attributes:
        window: cells of the region's grid: all rows of the tiles, and the columns that no tile to the right reaches.
        planes: (planes, rows, cols and those behind them that belong to the tiles to the right, too), weighted answers.
        valid: (rows, cols), False where a needed band is null.
    """

    window: Window
    planes: NDArray[np.float32]
    valid: NDArray[np.bool_]


Piece = tuple[int, tuple[int, ...]]
"""First row of a row of tiles (or of blocks), and first columns of those of its tiles that are held at once."""


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
        further: the sources that branches look at, by their names; one that is not there is absent.
    """

    source: Source
    region: Region
    extent: Window
    members: Sequence[Member]
    plan: Plan
    question: Question
    starts_per_chunk: int
    batch_size: int | None = None
    further: Mapping[str, FurtherSource] = field(default_factory=dict)

    def surroundings(self) -> Surroundings:
        """What reads the further sources for the models."""
        return Surroundings(self.further, [branch for member in self.members for branch in member.branches])

    @property
    def row_starts(self) -> list[int]:
        """First rows, in cells of the region, of the rows of tiles (or of blocks that are predicted together)."""
        if isinstance(self.plan, TilePlan):
            return self.plan.tiling.tile_rows(self.region)
        return self.plan.block_rows(self.region)[:: rows_per_strip(self.plan) // self.plan.stride[0]]

    @property
    def col_starts(self) -> list[int]:
        """First columns, in cells of the region, of all tiles (or blocks) of a row."""
        if isinstance(self.plan, TilePlan):
            return self.plan.tiling.tile_cols(self.region)
        return self.plan.block_cols(self.region)

    def pieces(self, row_starts: Iterable[int]) -> Iterator[Piece]:
        """The pieces of rows of tiles, rows from the top, columns from the left."""
        cols, count = self.col_starts, self.starts_per_chunk
        return ((row, tuple(cols[at : at + count])) for row in row_starts for at in range(0, len(cols), count))


Chunks = Callable[[Iterable[Piece]], Iterator[Chunk]]
"""From pieces to their chunks, in the same order."""


def strips(job: Job, done: int = 0, chunks: Chunks | None = None) -> Iterator[Strip]:
    """Predict a region; every cell of it is in exactly one strip, rows from the top, columns from the left.

    Args:
        job: what to predict.
        done: rows of the region that are known already and left out.
        chunks: computes the chunks; here by default.
    """
    if done >= job.region.rows:
        return
    starts = job.row_starts
    first = max(index for index, start in enumerate(starts) if start <= done)
    # The row of tiles above gives its part of the cells that both share.
    starts = starts[max(0, first - 1) :]
    seam = _Seam(job)
    for chunk in (chunks or Here(job))(job.pieces(starts)):
        window, planes = seam.joined(chunk)
        window = window.intersection(Window(done, job.region.rows, 0, job.region.cols))
        if not window.is_empty:
            part = window.relative_to(chunk.window).slices
            yield Strip(window, planes[:, part[0], part[1]], chunk.valid[part])


class Here:
    """Computes chunks in this process; rows that neighbouring rows of tiles share are read once.

    Attributes:
        job: what to predict.
        reader: of the reference.
        surroundings: of further sources.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reader = Reader(job.source)
        self.surroundings = job.surroundings()
        self._upcoming: Iterator[Window] = iter(())

    def __call__(self, pieces: Iterable[Piece]) -> Iterator[Chunk]:
        pieces, upcoming = tee(pieces)
        # Sources of other grids share GRASS's one window with the reference, and are read in turn with it.
        if not self.job.further and not isinstance(self.job.source, Stacked):
            windows = (self._window(piece) for piece in upcoming)
            self._upcoming = islice((window for window in windows if not window.is_empty), 1, None)
        return map(self.chunk, pieces)

    def chunk(self, piece: Piece) -> Chunk:
        """What the tiles (or blocks) of a piece give."""
        if isinstance(self.job.plan, TilePlan):
            return _tile_chunk(self, self.job.plan, *piece)
        return _block_chunk(self, self.job.plan, *piece)

    def read(self, window: Window) -> tuple[NDArray, NDArray[np.bool_]]:
        """Values (bands, rows, cols) of the reference, and validity (rows, cols); the next window is read meanwhile."""
        values = self.reader.read(window)
        following = next(self._upcoming, None)
        if following is not None:
            self.reader.expect(following)
        return values, finite(values)

    def _window(self, piece: Piece) -> Window:
        """What will be read for a piece."""
        job, plan, (row, cols) = self.job, self.job.plan, piece
        if isinstance(plan, BlockPlan):
            return plan.patches_window(_blocks(job, plan, row, cols))
        useful = plan.useful_window(job.region, job.extent)
        cropped = (plan.cropped(_tile_at(plan, row, col), useful) for col in cols)
        filled = [window for window in cropped if not window.is_empty]
        return _bounds(filled) if filled else Window(0, 0, 0, 0)


class _Seam:
    """Adds to each chunk what the chunks to the left and above have in the cells that they share with it."""

    def __init__(self, job: Job) -> None:
        self._overlap = job.plan.tiling.overlap[0] if isinstance(job.plan, TilePlan) else 0
        self._below = np.zeros((job.question.planes, self._overlap, job.region.cols), dtype=np.float32)
        self._right = np.empty((job.question.planes, 0, 0), dtype=np.float32)

    def joined(self, chunk: Chunk) -> tuple[Window, NDArray[np.float32]]:
        """The cells that are finished, and the planes of the chunk with those around added; the chunk is spent."""
        window, planes = chunk.window, chunk.planes
        step = window.rows - self._overlap
        if not planes.flags.writeable:  # it came from another machine
            planes = planes.copy()
        shared = self._right.shape[2]
        if shared:
            planes[:, :, :shared] += self._right
        self._right = planes[:, :, window.cols :].copy()
        planes = planes[:, :, : window.cols]
        if self._overlap:
            below = self._below[:, :, window.col_start : window.col_stop]
            planes[:, : self._overlap] += below
            below[:] = planes[:, step:]
        return Window(window.row_start, window.row_start + step, window.col_start, window.col_stop), planes


def _tile_chunk(here: Here, plan: TilePlan, row_start: int, col_starts: Sequence[int]) -> Chunk:
    job = here.job
    mosaic = _Mosaic(job, plan, row_start, col_starts)
    tiles = [_tile_at(plan, row_start, col_start) for col_start in col_starts]
    valid = _predict_tiles(here, plan, tiles, plan.useful_window(job.region, job.extent), mosaic)
    last = col_starts[-1] == job.col_starts[-1]
    window = mosaic.window(job.region.cols if last else tiles[-1].col_start + plan.tiling.step[1])
    return Chunk(window, mosaic.planes(), valid.part(window))


def _tile_at(plan: TilePlan, row: int, col: int) -> Window:
    return Window(row, row + plan.tiling.size[0], col, col + plan.tiling.size[1])


class _Mosaic:
    """Weighted sums of the answers of the tiles of a piece."""

    def __init__(self, job: Job, plan: TilePlan, row_start: int, col_starts: Sequence[int]) -> None:
        self._cols = job.region.cols
        self._plan = plan
        self._row = row_start
        self._first_col = max(0, col_starts[0])
        stop = min(self._cols, col_starts[-1] + plan.tiling.size[1])
        shape = (job.question.planes, plan.tiling.size[0], max(0, stop - self._first_col))
        # Memory that is filled by the first answer is not touched twice; zeros cost as much as all else here.
        self._sums = np.empty(shape, dtype=np.float32)
        self._filled = np.zeros(shape[2], dtype=bool)

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
        filled = self._filled[target.slices[1]]
        for first, last in runs(filled):
            self._sums[:, target.slices[0], target.col_start + first : target.col_start + last] += part[..., first:last]
        for first, last in runs(~filled):
            columns = self._sums[:, :, target.col_start + first : target.col_start + last]
            columns[:, : target.row_start] = 0
            columns[:, target.row_stop :] = 0
            columns[:, target.slices[0]] = part[..., first:last]
        filled[:] = True

    def planes(self) -> NDArray[np.float32]:
        """The sums, zero where no tile was answered."""
        for first, last in runs(~self._filled):
            self._sums[:, :, first:last] = 0
        return self._sums

    def window(self, col_stop: int) -> Window:
        """The cells from the first column of the sums to a column of the region."""
        rows = self._plan.tiling.size[0]
        return Window(self._row, self._row + rows, self._first_col, max(self._first_col, min(col_stop, self._cols)))


def _predict_tiles(here: Here, plan: TilePlan, tiles: Sequence[Window], useful: Window, mosaic: _Mosaic) -> Validity:
    job = here.job
    windows = {tile: plan.cropped(tile, useful) for tile in tiles}
    filled = [window for window in windows.values() if not window.is_empty]
    if not filled:
        return Validity(Window(0, 0, 0, 0), np.zeros((0, 0), dtype=bool))
    around = _bounds(filled)
    values, valid = here.read(around)
    validity = Validity(around, valid)
    core = plan.blending.core
    needed: dict[tuple[int, int], list[tuple[Window, Window]]] = defaultdict(list)
    for tile, window in windows.items():
        answered = core.shifted(tile.row_start, tile.col_start).intersection(job.region.window)
        if not window.is_empty and validity.part(answered).any():
            needed[window.shape].append((tile, window))
    if not needed:
        return validity
    # All windows, though not all are needed: so rows below have the same columns, and what they share is read once.
    further = here.surroundings.around(_places_by_shape(job, filled))
    for member in job.members:
        batches = _answered(job, member, member.prepare(values, valid), around, needed, further)
        # On the CPU, blending and the next batch would only be in each other's way.
        for batch, answers in ahead(batches) if member.predictor.is_apart else batches:
            for (tile, window), answer in zip(batch, answers, strict=True):
                mosaic.add(tile, window, answer, 1 / len(job.members))
    return validity


def _answered(
    job: Job,
    member: Member,
    prepared: NDArray[np.float32],
    around: Window,
    needed: Mapping[tuple[int, int], Sequence[tuple[Window, Window]]],
    further: Mapping[str, Planes],
) -> Iterator[tuple[Sequence[tuple[Window, Window]], NDArray[np.float32]]]:
    """Batches of tiles and their windows, and what a member answers to them.

    Args:
        prepared: what the network gets of all cells that were read, (bands, rows, cols).
        around: their window.
        needed: tiles and their windows, by the rows and columns of the windows.
        further: what was read of further sources.
    """
    for shape, group in needed.items():
        size = member.batch_size(shape[0] * shape[1], job.batch_size)
        for first in range(0, len(group), size):
            batch = group[first : first + size]
            slices = [window.relative_to(around).slices for _, window in batch]
            parts = [prepared[None, :, rows, cols] for rows, cols in slices]
            images = parts[0] if len(parts) == 1 else np.concatenate(parts)
            places = _places(job, [window for _, window in batch])
            yield batch, member.answer(job.question, member.shown(images, places, further))


def _places(job: Job, windows: Sequence[Window]) -> Places:
    """Windows of one shape as places."""
    rows, cols = (np.array(starts) for starts in zip(*((one.row_start, one.col_start) for one in windows), strict=True))
    return Places.of(job.region, rows, cols, windows[0].shape)


def _places_by_shape(job: Job, windows: Sequence[Window]) -> list[Places]:
    shapes = {window.shape for window in windows}
    return [_places(job, [window for window in windows if window.shape == shape]) for shape in shapes]


def _bounds(windows: Sequence[Window]) -> Window:
    return Window(
        min(window.row_start for window in windows),
        max(window.row_stop for window in windows),
        min(window.col_start for window in windows),
        max(window.col_stop for window in windows),
    )


def _block_chunk(here: Here, plan: BlockPlan, row_start: int, col_starts: Sequence[int]) -> Chunk:
    blocks = _blocks(here.job, plan, row_start, col_starts)
    values, valid = here.read(plan.patches_window(blocks))
    validity = Validity(plan.patches_window(blocks), valid)
    coarse = _predict_blocks(here, plan, blocks, values, validity)
    fine = np.repeat(np.repeat(coarse, plan.stride[0], axis=1), plan.stride[1], axis=2)
    window = blocks.intersection(Window(row_start, blocks.row_stop, 0, here.job.region.cols))
    part = window.relative_to(blocks).slices
    return Chunk(window, fine[:, part[0], part[1]], validity.part(window))


def _blocks(job: Job, plan: BlockPlan, row_start: int, col_starts: Sequence[int]) -> Window:
    row_stop = min(row_start + rows_per_strip(plan), plan.block_rows(job.region)[-1] + plan.stride[0])
    return Window(row_start, row_stop, col_starts[0], col_starts[-1] + plan.stride[1])


def _predict_blocks(
    here: Here, plan: BlockPlan, blocks: Window, values: NDArray, validity: Validity
) -> NDArray[np.float32]:
    """Answers (planes, rows of blocks, columns of blocks); zero for blocks without a valid cell in the region."""
    job, around = here.job, validity.window
    shape = blocks.rows // plan.stride[0], blocks.cols // plan.stride[1]
    answered = Validity(job.region.window.intersection(blocks), validity.part(job.region.window.intersection(blocks)))
    wanted = answered.part(blocks).reshape(shape[0], plan.stride[0], shape[1], plan.stride[1]).any(axis=(1, 3))
    rows, cols = np.nonzero(wanted)
    result = np.zeros((job.question.planes, *shape), dtype=np.float32)
    if not len(rows):
        return result
    further = here.surroundings.around([plan.places(job.region, blocks, *_corners(shape))])
    for member in job.members:
        prepared = member.prepare(values, validity.values)
        patches = np.lib.stride_tricks.sliding_window_view(prepared, plan.patch, axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        size = member.batch_size(plan.patch[0] * plan.patch[1], job.batch_size)
        for first in range(0, len(rows), size):
            row, col = rows[first : first + size], cols[first : first + size]
            places = plan.places(job.region, blocks, row, col)
            images = patches[places.windows.row - around.row_start, places.windows.col - around.col_start]
            answers = member.answer(job.question, member.shown(np.ascontiguousarray(images), places, further))
            result[:, row, col] += answers.T / np.float32(len(job.members))
    return result


def _corners(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the first and the last of (rows, columns) of blocks."""
    rows, cols = np.array([[0, shape[0] - 1], [0, shape[1] - 1]])
    return rows, cols
