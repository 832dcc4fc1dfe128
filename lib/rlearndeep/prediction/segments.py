"""Scores of cells gathered by segment, while the cells stream by.

A segment may cross any number of tiles and strips. Sums are kept in float64 per segment and class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.files import appearing, write_lines
from rlearndeep.prediction.answers import PRESENT, Subject
from rlearndeep.prediction.stream import Strip
from rlearndeep.scene.geometry import Region, Window

# A table over all numbers between the smallest and the largest id is faster than a search, if it is not too large.
_SPAN_PER_ID = 16
_SPAN_ALWAYS = 1_000_000

# Rows that are given the means of their segments at once.
_ROWS = 32

_TABLE_ROWS = 8192


class SegmentIndex:
    """Positions 0..n-1 of segment ids, any integers.

    Args:
        ids: distinct and ascending.
    """

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self.ids = ids
        self._table: NDArray[np.int32] | None = None
        if len(ids) and _is_dense(int(ids[-1]) - int(ids[0]) + 1, len(ids)):
            self._table = np.zeros(int(ids[-1]) - int(ids[0]) + 1, dtype=np.int32)
            self._table[ids - ids[0]] = np.arange(len(ids))

    @classmethod
    def of(cls, arrays: Iterable[NDArray]) -> SegmentIndex:
        """Index of the ids that occur in arrays of any shape."""
        found = [_distinct(ids.astype(np.int64).ravel()) for ids in arrays]
        return cls(_distinct(np.concatenate([np.empty(0, dtype=np.int64), *found])))

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: NDArray) -> NDArray[np.int64]:
        """Positions of ids of the index, any shape."""
        if self._table is None:
            return np.searchsorted(self.ids, ids)
        return self._table[ids.astype(np.int64) - self.ids[0]].astype(np.int64)


def _is_dense(span: int, count: int) -> bool:
    return span <= max(_SPAN_ALWAYS, _SPAN_PER_ID * count)


def _distinct(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct ids, ascending; without sorting where the ids lie close together."""
    if ids.size == 0:
        return ids
    lowest, span = int(ids.min()), int(ids.max()) - int(ids.min()) + 1
    if not _is_dense(span, ids.size):
        return np.unique(ids)
    seen = np.zeros(span, dtype=bool)
    seen[ids - lowest] = True
    return np.flatnonzero(seen) + lowest


@dataclass(frozen=True)
class SegmentResult:
    """One row per segment, ascending by id.

    Attributes:
        subject: what the means stand for.
        ids: of the segments, (n,).
        means: per segment (n, planes), NaN without any valid cell: the mean score or share of cells of each class;
            or the mean value and the mean of its :meth:`Subject.inner`.
        cells: cells with a prediction, (n,).
        null_cells: cells of the segment without one, (n,).
    """

    subject: Subject
    ids: NDArray[np.int64]
    means: NDArray[np.float64]
    cells: NDArray[np.int64]
    null_cells: NDArray[np.int64]

    def part(self, rows: slice) -> SegmentResult:
        """Some of the segments."""
        return SegmentResult(self.subject, self.ids[rows], self.means[rows], self.cells[rows], self.null_cells[rows])

    @property
    def known(self) -> NDArray[np.bool_]:
        """False for segments without any valid cell, (n,)."""
        return ~np.isnan(self.means[:, 0])

    @property
    def index(self) -> NDArray[np.int64]:
        """Class index, the lowest in a tie; -1 for segments without any valid cell, (n,)."""
        return np.where(self.known, np.nan_to_num(self.means).argmax(axis=1), -1)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean score of the segment's class, NaN without any valid cell, (n,)."""
        return self.means.max(axis=1)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of the values of the segment's cells, (n,)."""
        centred = (self.means[:, 0] - self.subject.centre) / self.subject.scale
        return np.sqrt(np.maximum(self.means[:, 1] - centred**2, 0)) * self.subject.scale


@dataclass(frozen=True)
class Share:
    """What some cells add to the sums of the segments that occur among them.

    Attributes:
        here: positions of segments with valid cells, distinct, (m,).
        sums: (planes, m).
        cells: (m,).
        lost: positions of segments with cells that are not valid, distinct, (l,).
        lost_cells: (l,).
    """

    here: NDArray[np.int64]
    sums: NDArray[np.float64]
    cells: NDArray[np.int64]
    lost: NDArray[np.int64]
    lost_cells: NDArray[np.int64]


class SegmentSums:
    """Sums on the stream.

    Args:
        segments: the ids that may occur.
        subject: what the outputs stand for.
        aggregate: ``mean`` of scores or values, or ``majority`` of the cells' decisions.
    """

    def __init__(self, segments: SegmentIndex, subject: Subject, aggregate: str = "mean") -> None:
        planes = 2 if subject.task == "value" else len(subject.classes)
        self._segments = segments
        self._subject = subject
        self._aggregate = aggregate
        self._sums = np.zeros((planes, len(segments)), dtype=np.float64)
        self._cells = np.zeros(len(segments), dtype=np.int64)
        self._null_cells = np.zeros(len(segments), dtype=np.int64)

    def share(
        self, ids: NDArray, segment: NDArray[np.bool_], outputs: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> Share:
        """What cells add.

        Args:
            ids: segment of each cell, (rows, cols).
            segment: False where there is no segment.
            outputs: (K, rows, cols).
            valid: False where there is no prediction.
        """
        counted = segment & valid
        here, positions = self._grouped(ids[counted])
        lost, lost_positions = self._grouped(ids[segment & ~valid])
        planes = [
            np.bincount(positions, weights=weights, minlength=len(here))
            for weights in self._weights(outputs[:, counted])
        ]
        return Share(
            here,
            np.array(planes, dtype=np.float64).reshape(len(self._sums), len(here)),
            np.bincount(positions, minlength=len(here)),
            lost,
            np.bincount(lost_positions, minlength=len(lost)),
        )

    def add(self, share: Share) -> None:
        """Add what :meth:`share` gave."""
        self._sums[:, share.here] += share.sums
        self._cells[share.here] += share.cells
        self._null_cells[share.lost] += share.lost_cells

    def result(self) -> SegmentResult:
        """One row per segment of the index."""
        means = self._sums.T / np.maximum(self._cells, 1)[:, None]
        means[self._cells == 0] = np.nan
        return SegmentResult(self._subject, self._segments.ids, means, self._cells, self._null_cells)

    def _weights(self, outputs: NDArray[np.float32]) -> Iterator[NDArray]:
        """Of the outputs of cells (K, n), what is summed: (n,) per plane."""
        if self._subject.task == "value":
            yield from (outputs[0], self._subject.inner(outputs))
        elif self._aggregate == "mean":
            yield from outputs
        elif self._subject.task == "presence":
            yield from (scores >= PRESENT for scores in outputs)
        else:
            best = outputs.argmax(axis=0)
            yield from (best == number for number in range(len(outputs)))

    def _grouped(self, ids: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions that occur among ids, distinct, and for each id which of them it is."""
        positions = self._segments.positions(ids)
        if positions.size == 0:
            return positions.astype(np.int64), positions.astype(np.int64)
        lowest, highest = int(positions.min()), int(positions.max())
        if highest - lowest < 4 * positions.size:
            return np.arange(lowest, highest + 1), positions - lowest
        return np.unique(positions, return_inverse=True)


def segment_table(result: SegmentResult) -> Iterator[str]:
    """Lines of a CSV of the segments, separator ``|``; fields of segments without any valid cell are empty.

    Classes: ``cat|class|label|confidence|cells|null_cells|p_<category>...``; classes present:
    ``cat|cells|null_cells|p_<category>...``; values: ``cat|value|stddev|cells|null_cells``.
    """
    shares = [f"p_{category}" for category in result.subject.classes.categories]
    before, after = {
        "class": (["class", "label", "confidence"], shares),
        "presence": ([], shares),
        "value": (["value", "stddev"], []),
    }[result.subject.task]
    yield _line(["cat", *before, "cells", "null_cells", *after])
    for first in range(0, len(result.ids), _TABLE_ROWS):
        part = result.part(slice(first, first + _TABLE_ROWS))
        counts = zip(part.ids.tolist(), part.cells.tolist(), part.null_cells.tolist(), strict=True)
        columns = zip(counts, part.known.tolist(), _table_values(part), strict=True)
        for (cat, cells, null_cells), known, values in columns:
            own = values if known else [""] * len(values)
            yield _line([cat, *own[: len(before)], cells, null_cells, *own[len(before) :]])


def _line(fields: list) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="|", lineterminator="\n").writerow(fields)
    return text.getvalue()


def _table_values(result: SegmentResult) -> Iterator[list]:
    """Fields of each segment but its id and its counts."""
    subject, means = result.subject, result.means.tolist()
    if subject.task == "value":
        for (value, *_), deviation in zip(means, result.deviation.tolist(), strict=True):
            yield [f"{value:.7g}", f"{deviation:.6g}"]
        return
    labels, categories = subject.classes.labels, subject.classes.categories.tolist()
    for index, scores in zip(result.index.tolist(), means, strict=True):
        decision = [categories[index], labels[index], f"{max(scores):.6g}"] if subject.task == "class" else []
        yield [*decision, *(f"{score:.6g}" for score in scores)]


def segment_strips(
    result: SegmentResult,
    segments: SegmentIndex,
    segments_at: Callable[[Window], tuple[NDArray, NDArray[np.bool_]]],
    region: Region,
) -> Iterator[Strip]:
    """The region with the means of its segment in every cell; not valid outside segments with a prediction."""
    for first in range(0, region.rows, _ROWS):
        window = Window(first, min(first + _ROWS, region.rows), 0, region.cols)
        ids, segment = segments_at(window)
        planes = np.full((result.means.shape[1], *window.shape), np.nan)
        planes[:, segment] = result.means[segments.positions(ids[segment])].T
        yield Strip(window, planes, ~np.isnan(planes[0]))


@contextmanager
def table_file(path: Path, lines: Iterable[str]) -> Iterator[None]:
    """Write a file that gets its name when the ``with`` block ends well, and is forgotten otherwise.

    Raises:
        DeepLearningError: it cannot be written there.
    """
    with ExitStack() as ending:
        with _writing(path):
            hidden = ending.enter_context(appearing(path))
            write_lines(hidden, lines)
        yield
        with _writing(path):
            ending.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make one message of what the disk may say."""
    try:
        yield
    except OSError as error:
        raise DeepLearningError(
            f"The table must be writable; '{path}' is not ({error.strerror or error}). Choose another place."
        ) from error
