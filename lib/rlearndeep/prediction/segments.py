"""Scores of cells gathered by segment, while the cells stream by.

A segment may cross any number of tiles and strips. Sums are kept in float64 per segment and class.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import write_text
from rlearndeep.scene.classes import ClassTable

AGGREGATES = ("mean", "majority")

# A table over all numbers between the smallest and the largest id is faster than a search, if it is not too large.
_SPAN_PER_ID = 16
_SPAN_ALWAYS = 1_000_000


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
        ids: of the segments, (n,).
        index: class index, -1 for segments without any valid cell, (n,).
        probabilities: mean score, or share of cells, per class (n, K); NaN without any valid cell.
        cells: cells with a prediction, (n,).
        null_cells: cells of the segment without one, (n,).
    """

    ids: NDArray[np.int64]
    index: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    cells: NDArray[np.int64]
    null_cells: NDArray[np.int64]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the segment's class, NaN without any valid cell, (n,)."""
        return self.probabilities[np.arange(len(self.ids)), np.maximum(self.index, 0)]

    def categories(self, classes: ClassTable, null: int) -> NDArray[np.int64]:
        """Category of each segment, ``null`` for segments without any valid cell, (n,)."""
        if not len(self.ids):
            return np.zeros(0, dtype=np.int64)
        return np.where(self.index < 0, null, classes.categories_of(np.maximum(self.index, 0)))


class SegmentSums:
    """Sums on the stream.

    Args:
        segments: the ids that may occur.
        classes: number of classes.
        aggregate: ``mean`` of scores, or ``majority`` of the cells' classes.
    """

    def __init__(self, segments: SegmentIndex, classes: int, aggregate: str = "mean") -> None:
        self._segments = segments
        self._aggregate = aggregate
        self._sums = np.zeros((classes, len(segments)), dtype=np.float64)
        self._cells = np.zeros(len(segments), dtype=np.int64)
        self._null_cells = np.zeros(len(segments), dtype=np.int64)

    def add(
        self,
        ids: NDArray,
        segment: NDArray[np.bool_],
        scores: NDArray[np.float32],
        index: NDArray[np.intp],
        valid: NDArray[np.bool_],
    ) -> None:
        """Add cells.

        Args:
            ids: segment of each cell, (rows, cols).
            segment: False where there is no segment.
            scores: (classes, rows, cols).
            index: best class of each cell.
            valid: False where there is no prediction.
        """
        counted = segment & valid
        here, positions = self._grouped(ids[counted])
        self._cells[here] += np.bincount(positions, minlength=len(here))
        lost, lost_positions = self._grouped(ids[segment & ~valid])
        self._null_cells[lost] += np.bincount(lost_positions, minlength=len(lost))
        for number, plane in enumerate(scores):
            weights = plane[counted] if self._aggregate == "mean" else (index[counted] == number)
            self._sums[number, here] += np.bincount(positions, weights=weights, minlength=len(here))

    def _grouped(self, ids: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions that occur among ids, distinct, and for each id which of them it is."""
        positions = self._segments.positions(ids)
        if positions.size == 0:
            return positions, positions
        lowest, highest = int(positions.min()), int(positions.max())
        if highest - lowest < 4 * positions.size:
            return np.arange(lowest, highest + 1), positions - lowest
        return np.unique(positions, return_inverse=True)

    def result(self) -> SegmentResult:
        """One row per segment of the index."""
        empty = self._cells == 0
        probabilities = self._sums.T / np.maximum(self._cells, 1)[:, None]
        probabilities[empty] = np.nan
        index = np.where(empty, -1, self._sums.argmax(axis=0))
        return SegmentResult(self._segments.ids, index, probabilities, self._cells, self._null_cells)


def segment_table(result: SegmentResult, classes: ClassTable) -> str:
    """CSV of the segments, separator ``|``: ``cat|class|label|confidence|cells|null_cells|p_<category>...``.

    Fields of segments without any valid cell are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="|", lineterminator="\n")
    columns = [f"p_{category}" for category in classes.categories]
    writer.writerow(["cat", "class", "label", "confidence", "cells", "null_cells", *columns])
    rows = zip(
        result.ids.tolist(),
        result.index.tolist(),
        result.confidence.tolist(),
        result.cells.tolist(),
        result.null_cells.tolist(),
        result.probabilities.tolist(),
        strict=True,
    )
    labels, categories = classes.labels, classes.categories.tolist()
    for cat, index, confidence, cells, null_cells, probabilities in rows:
        if index < 0:
            writer.writerow([cat, "", "", "", cells, null_cells, *[""] * len(columns)])
            continue
        shares = [f"{share:.6g}" for share in probabilities]
        writer.writerow([cat, categories[index], labels[index], f"{confidence:.6g}", cells, null_cells, *shares])
    return text.getvalue()


def check_table_place(path: Path) -> None:
    """See that a table can be written, before the work begins.

    Raises:
        DeepLearningError: there is no such directory, or it may not be written to.
    """
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK) or path.is_dir():
        raise DeepLearningError(
            f"The table must be writable; '{path}' is not, or its directory does not exist. Choose another place."
        )


@contextmanager
def table_file(path: Path, text: str) -> Iterator[None]:
    """Write a file that gets its name when the ``with`` block ends well, and is forgotten otherwise.

    Raises:
        DeepLearningError: it cannot be written there.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_text(hidden, text)
    except OSError as error:
        raise DeepLearningError(
            f"The table must be writable; '{path}' is not ({error.strerror or error}). Choose another place."
        ) from error
    try:
        yield
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
