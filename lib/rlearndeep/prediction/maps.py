"""From strips of scores to the rows of maps, and to the counts that are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.prediction import confidence
from rlearndeep.prediction.segments import SegmentSums
from rlearndeep.prediction.stream import Strip
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.geometry import Window

CELL_NULL = np.iinfo(np.int32).min
"""Null in integer layers; other layers use NaN."""

KINDS = ("class", "probability", "confidence", "margin", "entropy")

# Rows turned into map values at once: what they need stays in the cache.
_ROWS = 64
_DECIMALS = 3


class Writer(Protocol):
    """Takes the rows of a map from the top."""

    def write(self, rows: NDArray) -> None:
        """Append rows (rows, cols)."""


@dataclass(frozen=True)
class Layer:
    """A map to write.

    Attributes:
        kind: one of ``KINDS``; scores and certainties are rounded to 0.001.
        class_index: whose probability.
    """

    kind: str
    class_index: int = 0

    def values(
        self,
        classes: ClassTable,
        scores: NDArray[np.float32],
        index: NDArray[np.intp],
        best: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> NDArray:
        """Map values (rows, cols), null where not valid."""
        if self.kind == "class":
            return np.where(valid, classes.categories.astype(np.int32)[index], np.int32(CELL_NULL))
        if self.kind == "probability":
            result = np.round(scores[self.class_index], _DECIMALS)
        elif self.kind == "confidence":
            result = np.round(best, _DECIMALS)
        elif self.kind == "margin":
            result = np.round(confidence.margin(scores), _DECIMALS)
        else:
            result = np.round(confidence.entropy(scores), _DECIMALS)
        np.copyto(result, np.nan, where=~valid)
        return result


@dataclass(frozen=True)
class Tally:
    """Counts of a prediction.

    Attributes:
        cells: cells of the region.
        null_cells: cells without a prediction.
        per_class: cells of each class index.
        area: area of each class index.
    """

    cells: int
    null_cells: int
    per_class: NDArray[np.int64]
    area: NDArray[np.float64]


class _Counter:
    def __init__(self, classes: int, row_areas: NDArray[np.float64]) -> None:
        self._counts = np.zeros((len(row_areas), classes), dtype=np.int64)
        self._areas = row_areas
        self._cells = 0

    def add(self, window: Window, index: NDArray[np.intp], valid: NDArray[np.bool_]) -> None:
        classes = self._counts.shape[1]
        code = index + np.arange(window.rows)[:, None] * classes
        counts = np.bincount(code[valid], minlength=window.rows * classes).reshape(window.rows, classes)
        self._counts[window.row_start : window.row_stop] += counts
        self._cells += valid.size

    def tally(self) -> Tally:
        per_class = self._counts.sum(axis=0)
        return Tally(self._cells, self._cells - int(per_class.sum()), per_class, self._areas @ self._counts)


class _Rows:
    """Puts the columns of a strip together to whole rows."""

    def __init__(self, writer: Writer, cols: int) -> None:
        self._writer = writer
        self._cols = cols
        self._parts: list[NDArray] = []

    def add(self, window: Window, values: NDArray) -> None:
        if window.cols == self._cols:
            self._writer.write(values)
            return
        self._parts.append(values)
        if window.col_stop == self._cols:
            self._writer.write(np.concatenate(self._parts, axis=1))
            self._parts.clear()


def write_maps(
    strips: Iterable[Strip],
    classes: ClassTable,
    layers: Sequence[tuple[Layer, Writer]],
    row_areas: NDArray[np.float64],
    cols: int,
    segments: tuple[SegmentSums, Callable[[Window], tuple[NDArray, NDArray[np.bool_]]]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tally:
    """Write all maps of a prediction while it streams by.

    Args:
        strips: every cell of the region once, from the top.
        classes: the classes in the order of the scores.
        layers: what to write where.
        row_areas: area of a cell of each row of the region.
        cols: columns of the region.
        segments: sums to fill, and a function from a window to ids and where there is a segment.
        progress: called with rows done and rows in all.
    """
    counter = _Counter(len(classes), row_areas)
    rows = [_Rows(writer, cols) for _, writer in layers]
    for strip in strips:
        for window, scores, valid in _pieces(strip, cols):
            index, best = confidence.best_class(scores, valid)
            for (layer, _), target in zip(layers, rows, strict=True):
                target.add(window, layer.values(classes, scores, index, best, valid))
            counter.add(window, index, valid)
            if segments is not None:
                sums, ids_at = segments
                sums.add(*ids_at(window), scores, index, valid)
        if progress is not None and strip.window.col_stop == cols:
            progress(strip.window.row_stop, len(row_areas))
    return counter.tally()


def _pieces(strip: Strip, cols: int) -> Iterable[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]]:
    """Cut a strip of whole rows into few rows each; a strip of some columns stays whole."""
    window = strip.window
    if window.cols < cols:
        yield window, strip.scores, strip.valid
        return
    for first in range(0, window.rows, _ROWS):
        part = slice(first, min(first + _ROWS, window.rows))
        piece = Window(window.row_start + part.start, window.row_start + part.stop, window.col_start, window.col_stop)
        yield piece, strip.scores[:, part], strip.valid[part]
