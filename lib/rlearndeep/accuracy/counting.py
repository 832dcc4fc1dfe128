"""One pass over the strips of maps and reference: cells or sample points into tallies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.metrics import RegressionSums
from rlearndeep.accuracy.tally import AreaTally, Coding, Layout, Tally, Units
from rlearndeep.scene.geometry import Window

Strip = tuple[Window, NDArray]
"""A window of whole rows and its values, (layers, rows, cols)."""

Mask = Callable[[Window], NDArray[np.bool_]]
"""Function from a window to a (rows, cols) mask."""

LARGEST_VALUE = 1e100
"""What is as large is no measurement; sums of its squares could overflow."""

_SCATTER_BINS = 128


@dataclass(frozen=True)
class Layers:
    """Which layer of a strip is what; None for what is not there. The maps are the first layers."""

    maps: int
    reference: int | None = None
    strata: int | None = None
    segments: int | None = None
    inside: int | None = None


@dataclass(frozen=True)
class Points:
    """Sample points inside the region, in ascending order of their rows.

    Attributes:
        rows: row of the cell each lies in.
        cols: column of it.
        values: number of the feature among those of the reference (classes), or value.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    values: NDArray

    def __len__(self) -> int:
        return len(self.rows)

    def within(self, window: Window) -> slice:
        """Positions of the points in the rows of a window."""
        start, stop = np.searchsorted(self.rows, (window.row_start, window.row_stop))
        return slice(int(start), int(stop))


@dataclass(frozen=True)
class ClassCounts:
    """What a pass over class maps has counted.

    Attributes:
        tally: of the units with and without reference.
        areas: over all cells of the region; None where nothing needs them.
        cell_area: area of a cell, or None where cells differ.
    """

    tally: Tally
    areas: AreaTally | None
    cell_area: float | None


class ClassCounting:
    """How the layers of class maps become counted units.

    Args:
        layers: what the layers of a strip are.
        layout: their codings.
        row_areas: (rows of the region,) area of a cell per row.
        training: mask of cells inside training footprints, or None.
    """

    def __init__(
        self, layers: Layers, layout: Layout, row_areas: NDArray[np.float64], training: Mask | None = None
    ) -> None:
        self.layers = layers
        self.layout = layout
        self.training = training
        equal = np.ptp(row_areas) <= 1e-9 * row_areas.max()
        self.cell_area = float(row_areas[0]) if equal else None
        self._row_areas = None if equal else row_areas

    def cells(self, strips: Iterable[Strip], watch: Callable[[Window, Units], None] | None = None) -> ClassCounts:
        """Count all cells; ``watch`` sees the coded cells of each strip, row by row."""
        tally = Tally(self.layout, weighted=self.cell_area is None)
        areas = AreaTally(self.layout, self.cell_area) if self.layout.strata or self.layout.segments else None
        for window, values in strips:
            units = self._units(window, values, slice(None), self.layers.reference)
            tally.add(units)
            if areas is not None:
                areas.add(units)
            if watch is not None:
                watch(window, units)
        return ClassCounts(tally, areas, self.cell_area)

    def points(self, strips: Iterable[Strip], points: Points) -> ClassCounts:
        """Count points by the cells they lie in, and the areas of all cells."""
        tally, areas = Tally(self.layout), AreaTally(self.layout, self.cell_area)
        codes = self.layout.reference.encode(points.values.astype(np.int32))
        for window, values in strips:
            areas.add(self._units(window, values, slice(None), None))
            chosen = points.within(window)
            cells = (points.rows[chosen] - window.row_start) * window.cols + points.cols[chosen]
            tally.add(self._units(window, values, cells, codes[chosen]))
        return ClassCounts(tally, areas, self.cell_area)

    def _units(
        self, window: Window, values: NDArray, cells: slice | NDArray[np.int64], reference: int | NDArray | None
    ) -> Units:
        layers, layout = self.layers, self.layout

        def layer(number: int) -> NDArray[np.int32]:
            return values[number].ravel()[cells]

        maps = [coding.encode(layer(number)) for number, coding in enumerate(layout.maps)]
        if reference is None:
            codes = np.broadcast_to(np.uint32(0), maps[0].shape)
        else:
            codes = layout.reference.encode(layer(reference)) if isinstance(reference, int) else reference
        areas = None
        if self._row_areas is not None:
            areas = np.repeat(self._row_areas[window.row_start : window.row_stop], window.cols)[cells]
        return Units(
            maps,
            codes,
            strata=None if layers.strata is None else _required(layout.strata).encode(layer(layers.strata)),
            segments=None if layers.segments is None else layer(layers.segments),
            inside=_inside(window, values, layers, self.training, cells),
            areas=areas,
        )


@dataclass
class ValueCounts:
    """What a pass over one value map has summed.

    Attributes:
        outside: pairs outside training footprints; all pairs where there are none.
        inside: pairs inside training footprints.
        scatter: (predicted, reference) counts over the ranges of both.
        null: units with a reference where the map is null.
        without_reference: units without a reference.
    """

    outside: RegressionSums
    inside: RegressionSums
    scatter: NDArray[np.int64]
    null: int = 0
    without_reference: int = 0


class ValueCounting:
    """Sums of value maps against a reference of values.

    Args:
        layers: what the layers of a strip are.
        limits: smallest and largest value of maps and reference, for the scatter plot.
        training: mask of cells inside training footprints, or None.
        values: areas' categories, ascending, and their values, where the reference layer holds categories.
    """

    def __init__(
        self,
        layers: Layers,
        limits: tuple[float, float],
        training: Mask | None = None,
        values: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None,
    ) -> None:
        self.layers = layers
        self.limits = limits if limits[1] > limits[0] else (limits[0] - 0.5, limits[0] + 0.5)
        self.training = training
        self.values = values

    def cells(
        self, strips: Iterable[Strip], watch: Callable[[Window, NDArray, NDArray], None] | None = None
    ) -> list[ValueCounts]:
        """Sum all cells; ``watch`` sees the maps and the reference of each strip."""
        counts = self._start()
        for window, values in strips:
            reference = self._reference(values[_required(self.layers.reference)])
            maps = values[: self.layers.maps]
            inside = _inside(window, values, self.layers, self.training, slice(None))
            self._add(counts, maps.reshape(len(maps), -1), reference.ravel(), inside)
            if watch is not None:
                watch(window, maps, reference)
        return counts

    def points(self, strips: Iterable[Strip], points: Points) -> list[ValueCounts]:
        """Sum the points by the cells they lie in."""
        counts = self._start()
        for window, values in strips:
            chosen = points.within(window)
            cells = (points.rows[chosen] - window.row_start) * window.cols + points.cols[chosen]
            maps = values[: self.layers.maps].reshape(self.layers.maps, -1)[:, cells]
            inside = _inside(window, values, self.layers, self.training, cells)
            self._add(counts, maps, points.values[chosen].astype(np.float64), inside)
        return counts

    def _start(self) -> list[ValueCounts]:
        empty = RegressionSums()
        bins = (_SCATTER_BINS, _SCATTER_BINS)
        return [ValueCounts(empty, empty, np.zeros(bins, dtype=np.int64)) for _ in range(self.layers.maps)]

    def _reference(self, layer: NDArray) -> NDArray[np.float64]:
        if self.values is None:
            return layer
        categories, values = self.values
        result = np.full(layer.shape, np.nan)
        known = ~np.isnan(layer)
        position = np.clip(np.searchsorted(categories, layer[known]), 0, len(categories) - 1)
        result[known] = np.where(categories[position] == layer[known], values[position], np.nan)
        return result

    def _add(self, counts: list[ValueCounts], maps: NDArray, reference: NDArray, inside: NDArray | None) -> None:
        known = ~np.isnan(reference)
        truth = reference[known]
        within = None if inside is None else inside[known]
        for entry, predicted in zip(counts, maps[:, known], strict=True):
            entry.without_reference += len(reference) - len(truth)
            entry.null += int(np.isnan(predicted).sum())
            if within is None:
                entry.outside += RegressionSums.of(truth, predicted)
            else:
                entry.outside += RegressionSums.of(truth[~within], predicted[~within])
                entry.inside += RegressionSums.of(truth[within], predicted[within])
            entry.scatter += self._scatter(truth, predicted)

    def _scatter(self, truth: NDArray, predicted: NDArray) -> NDArray[np.int64]:
        known = ~np.isnan(predicted)
        low, high = self.limits
        bins = [
            np.clip((values[known] - low) * (_SCATTER_BINS / (high - low)), 0, _SCATTER_BINS - 1).astype(np.int64)
            for values in (predicted, truth)
        ]
        joined = np.bincount(bins[0] * _SCATTER_BINS + bins[1], minlength=_SCATTER_BINS**2)
        return joined.reshape(_SCATTER_BINS, _SCATTER_BINS)


def codings_of(categories: Sequence[NDArray[np.int64]]) -> tuple[Coding, ...]:
    """A coding per raster from the categories it holds."""
    return tuple(Coding.of(values) for values in categories)


def _inside(
    window: Window, values: NDArray, layers: Layers, training: Mask | None, cells: slice | NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Units inside training footprints: a layer that is not null there, or a mask, or both; None for neither."""
    masks = []
    if layers.inside is not None:
        layer = values[layers.inside].ravel()[cells]
        masks.append(~np.isnan(layer) if layer.dtype.kind == "f" else layer != np.iinfo(layer.dtype).min)
    if training is not None:
        masks.append(training(window).ravel()[cells])
    return np.logical_or.reduce(masks) if masks else None


def _required(value):
    if value is None:
        raise ValueError("a layer of this pass was not given")
    return value
