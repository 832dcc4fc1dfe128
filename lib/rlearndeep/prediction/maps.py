"""From strips of answers to the rows of maps, and to the numbers that are reported."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.prediction import confidence
from rlearndeep.prediction.answers import CELL_NULL, PRESENT, Question, Subject
from rlearndeep.prediction.segments import SegmentSums, Share
from rlearndeep.prediction.stream import Strip
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.geometry import Window

KINDS = ("class", "presence", "value", "probability", "confidence", "margin", "entropy", "spread", "novelty")
INTEGER_KINDS = ("class", "presence")

# Cells turned into map values at once: what they need stays in the cache.
_CELLS = 1 << 17
_DECIMALS = 3
_STEPS = 10**_DECIMALS


class Writer(Protocol):
    """Takes the rows of a map from the top."""

    def write(self, rows: NDArray) -> None:
        """Append rows (rows, cols)."""


class Journal(Protocol):
    """Remembers finished rows, for a prediction that is interrupted."""

    def __iter__(self) -> Iterator[Rows]:
        """What was remembered, from the top."""

    def append(self, rows: Rows) -> None:
        """Remember rows."""


@dataclass(frozen=True)
class Layer:
    """A map to write.

    Until they are written, finished rows of maps with few values are kept as small integers: a journal writes them too.

    Attributes:
        kind: one of ``KINDS``; scores, certainties and novelty are rounded to 0.001, values and their spread are not.
        class_index: whose presence or probability.
    """

    kind: str
    class_index: int = 0

    @property
    def dtype(self) -> str:
        """Type of the map."""
        return "int32" if self.kind in INTEGER_KINDS else "float32"

    def bytes_kept(self, subject: Subject) -> int:
        """Bytes of a cell of finished rows."""
        if self.kind == "class":
            return np.min_scalar_type(len(subject.classes)).itemsize
        if self.kind == "presence":
            return 1
        return 2 if self._in_steps(subject) else 4

    def table(self, subject: Subject) -> NDArray | None:
        """The map value of each integer that is kept, null last; None where the values themselves are kept."""
        if self.kind == "class":
            return np.append(subject.classes.categories.astype(np.int32), np.int32(CELL_NULL))
        if self.kind == "presence":
            return np.array([0, 1, CELL_NULL], dtype=np.int32)
        if not self._in_steps(subject):
            return None
        return np.append(np.arange(_STEPS + 1, dtype=np.float32) / _STEPS, np.float32(np.nan))

    def kept(self, cells: Cells) -> NDArray:
        """What is kept of finished rows, (rows, cols): integers for :meth:`table`, or values, NaN where not valid."""
        if self.kind == "class":
            return cells.codes
        if self.kind == "presence":
            present = (cells.outputs[self.class_index] >= PRESENT).astype(np.uint8)
            return np.where(cells.valid, present, np.uint8(2))
        score = self._score(cells)
        if not self._in_steps(cells.question.subject):
            values = np.round(score, _DECIMALS) if self.kind == "novelty" else score.copy()
            values[~cells.valid] = np.nan
            return values
        with np.errstate(invalid="ignore"):  # cells that are not valid may be anything
            steps = np.rint(score * np.float32(_STEPS)).astype(np.uint16)
        return steps if cells.complete else np.where(cells.valid, steps, np.uint16(_STEPS + 1))

    def _in_steps(self, subject: Subject) -> bool:
        """Whether the values are scores or certainties of classes, which lie from 0 to 1."""
        return self.kind != "novelty" and subject.task != "value"

    def _score(self, cells: Cells) -> NDArray[np.float32]:
        if self.kind == "confidence":
            return cells.best[1]
        if self.kind == "margin":
            return confidence.margin(cells.outputs)
        if self.kind == "entropy":
            return cells.question.subject.inner(cells.outputs)
        if self.kind == "spread":
            return cells.question.subject.spread(cells.outputs, cells.planes[cells.question.subject.outputs])
        if self.kind == "novelty":
            return cells.planes[-1]
        return cells.outputs[self.class_index]


@dataclass(frozen=True)
class Cells:
    """Some rows of a strip, and what several layers need of them.

    Attributes:
        question: what the planes answer.
        window: which cells of the region.
        planes: (planes, rows, cols).
        valid: (rows, cols).
    """

    question: Question
    window: Window
    planes: NDArray[np.float32]
    valid: NDArray[np.bool_]

    @property
    def outputs(self) -> NDArray[np.float32]:
        """The networks' outputs, (K, rows, cols)."""
        return self.planes[: self.question.subject.outputs]

    @cached_property
    def complete(self) -> bool:
        """Whether all cells are valid."""
        return bool(self.valid.all())

    @cached_property
    def best(self) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float32]]:
        """Index and score of the best class of each cell."""
        return confidence.best_class(self.outputs, self.valid)

    @cached_property
    def codes(self) -> NDArray[np.unsignedinteger]:
        """Index of the best class, and the number of classes where not valid."""
        index = self.best[0]
        return index if self.complete else np.where(self.valid, index, index.dtype.type(len(self.outputs)))

    def counts(self) -> NDArray[np.int64]:
        """Cells of each row that have each class, and behind them those that have a prediction, (rows, K + 1)."""
        subject = self.question.subject
        valid = self.valid.sum(axis=1)[:, None]
        if subject.task == "value":
            return valid
        if subject.task == "presence":
            confidence.check_numbers(self.outputs.sum(axis=0), self.valid)
            present = [((plane >= PRESENT) & self.valid).sum(axis=1) for plane in self.outputs]
            return np.stack([*present, valid[:, 0]], axis=1)
        number = len(subject.classes)
        counts = np.stack([np.bincount(row, minlength=number + 1)[:number] for row in self.codes])
        return np.concatenate([counts, valid], axis=1)

    def statistics(self) -> BandStatistics:
        """Of values; of nothing for classes."""
        if self.question.subject.task != "value":
            return BandStatistics.of(np.empty(0))
        confidence.check_numbers(self.outputs[0], self.valid)
        return BandStatistics.of(self.outputs[0][self.valid])


@dataclass(frozen=True)
class Rows:
    """Finished rows: what is written of them, and what they add to the sums.

    Attributes:
        row_stop: the row of the region behind them.
        layers: what is kept for each layer, (rows, cols).
        counts: as :meth:`Cells.counts` gives them.
        statistics: of the values.
        shares: what they add to the sums of segments, in this order.
    """

    row_stop: int
    layers: tuple[NDArray, ...]
    counts: NDArray[np.int64]
    statistics: BandStatistics
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Counts of a prediction.

    Attributes:
        cells: cells of the region.
        null_cells: cells without a prediction.
        per_class: cells of each class index.
        area: area of each class index.
        statistics: of the values; of nothing for classes.
    """

    cells: int
    null_cells: int
    per_class: NDArray[np.int64]
    area: NDArray[np.float64]
    statistics: BandStatistics


SegmentsAt = Callable[[Window], tuple[NDArray, NDArray[np.bool_]]]
"""Ids of the segments of a window, and where there is a segment."""


@dataclass
class Sheets:
    """The maps of a prediction while it streams by.

    Attributes:
        question: what the strips answer.
        layers: what to write where.
        row_areas: area of a cell of each row of the region.
        cols: columns of the region.
        segments: sums to fill, and the segments of a window.
        progress: called with rows done and rows in all.
        threads: how many maps are written side by side, and beside them what the journal remembers.
        behind: how many strips may be written while later ones are computed; 0 where reading the later ones opens
            rasters, which GRASS cannot do meanwhile.
    """

    question: Question
    layers: Sequence[tuple[Layer, Writer]]
    row_areas: NDArray[np.float64]
    cols: int
    segments: tuple[SegmentSums, SegmentsAt] | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    threads: int = 1
    behind: int = 0
    _counts: list[NDArray[np.int64]] = field(default_factory=list)
    _statistics: BandStatistics = field(default_factory=lambda: BandStatistics.of(np.empty(0)))

    def write(self, strips: Iterable[Strip], journal: Journal | None = None) -> Tally:
        """Write what a journal remembers, then the strips, which begin where it ends; the counts of both."""
        columns = _Columns(self.cols)
        with ThreadPoolExecutor(max(1, self.threads)) as writers, ThreadPoolExecutor(1) as clerk:

            def enter(strip: Strip) -> None:
                for rows in self._rows(strip, columns):
                    self._take(rows, writers, journal)

            for rows in journal or ():
                self._take(rows, writers)
            waiting: deque[Future[None]] = deque()
            for strip in strips:
                waiting.append(clerk.submit(enter, strip))
                while len(waiting) > self.behind:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        counts = np.concatenate(self._counts)
        cells = len(self.row_areas) * self.cols
        per_class, known = counts[:, :-1], int(counts[:, -1].sum())
        return Tally(
            cells, cells - known, per_class.sum(axis=0), self.row_areas[: len(counts)] @ per_class, self._statistics
        )

    def _take(self, rows: Rows, writers: ThreadPoolExecutor, journal: Journal | None = None) -> None:
        writing = [writers.submit(journal.append, rows)] if journal is not None else []
        for (layer, writer), kept in zip(self.layers, rows.layers, strict=True):
            writing.append(writers.submit(self._write, layer, writer, kept))
        for one in writing:
            one.result()
        if self.segments is not None:
            for share in rows.shares:
                self.segments[0].add(share)
        self._counts.append(rows.counts)
        self._statistics += rows.statistics
        self.progress(rows.row_stop, len(self.row_areas))

    def _write(self, layer: Layer, writer: Writer, kept: NDArray) -> None:
        table = layer.table(self.question.subject)
        rows = len(kept) if table is None else max(1, _CELLS // self.cols)
        for first in range(0, len(kept), rows):
            part = kept[first : first + rows]
            writer.write(part if table is None else np.take(table, part))

    def _rows(self, strip: Strip, columns: _Columns) -> Iterator[Rows]:
        """Few whole rows at once; strips of some columns are put together first."""
        for cells in self._pieces(strip):
            rows = self._rendered(cells)
            if cells.window.cols == self.cols:
                yield rows
                continue
            columns.add(cells.window, rows)
            if cells.window.col_stop == self.cols:
                yield columns.whole()

    def _pieces(self, strip: Strip) -> Iterator[Cells]:
        window = strip.window
        if window.cols < self.cols:
            yield Cells(self.question, window, strip.planes, strip.valid)
            return
        rows = max(1, _CELLS // window.cols)
        for first in range(0, window.rows, rows):
            part = slice(first, min(first + rows, window.rows))
            piece = Window(window.row_start + part.start, window.row_start + part.stop, 0, self.cols)
            yield Cells(self.question, piece, strip.planes[:, part], strip.valid[part])

    def _rendered(self, cells: Cells) -> Rows:
        shares: tuple[Share, ...] = ()
        if self.segments is not None:
            sums, ids_at = self.segments
            shares = (sums.share(*ids_at(cells.window), cells.outputs, cells.valid),)
        layers = tuple(layer.kept(cells) for layer, _ in self.layers)
        return Rows(cells.window.row_stop, layers, cells.counts(), cells.statistics(), shares)


class _Columns:
    """Columns of the same rows, put together in memory that is used again for later rows."""

    def __init__(self, cols: int) -> None:
        self._cols = cols
        self._layers: list[NDArray] = []
        self._parts: list[Rows] = []

    def add(self, window: Window, rows: Rows) -> None:
        """Columns to the right of those before."""
        if not self._layers:
            self._layers = [np.empty((0, self._cols), dtype=layer.dtype) for layer in rows.layers]
        for number, layer in enumerate(rows.layers):
            if len(self._layers[number]) < window.rows:
                self._layers[number] = np.empty((window.rows, self._cols), dtype=layer.dtype)
            self._layers[number][: window.rows, window.col_start : window.col_stop] = layer
        self._parts.append(replace(rows, layers=()))

    def whole(self) -> Rows:
        """Whole rows, to be used before the next columns come."""
        parts, self._parts = self._parts, []
        counts = np.sum([part.counts for part in parts], axis=0)
        return Rows(
            parts[0].row_stop,
            tuple(layer[: len(counts)] for layer in self._layers),
            counts,
            reduce(BandStatistics.__add__, (part.statistics for part in parts)),
            tuple(share for part in parts for share in part.shares),
        )
