"""Counting which class meets which, strip by strip, in constant memory.

Cells are first coded: code 0..n-1 for the categories of a raster, n for null. Combinations of codes are
then counted, nulls included, so that one pass gives the confusion matrices of all maps, what had no
reference, and the areas. Class tables come later and need no second pass (see ``levels``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlearndeep.errors import DeepLearningError

_PIECE = 1 << 16
"""Cells counted at a time: their codes stay in the processor's cache."""

_DENSE = 1 << 18
"""Combinations up to which a whole array of counts is added up per piece."""

_LARGE = 1 << 23
"""Combinations beyond which only those that occur are kept."""

_LARGEST_SPAN = 1 << 24
"""Range of categories beyond which a raster is no class map."""

_MERGE_AT = 1 << 21
"""Entries of a sparse count that are collected before they are merged."""


@dataclass(frozen=True)
class Coding:
    """How raster values become codes.

    Attributes:
        values: raster values that mean something, ascending.
        codes: (len(values),) code of each, 0..count-1.
        count: number of codes; ``count`` itself stands for null and for any other value.
    """

    values: NDArray[np.int64]
    codes: NDArray[np.int64]
    count: int

    def __post_init__(self) -> None:
        if len(self.values) and self.values[-1] - self.values[0] >= _LARGEST_SPAN:
            raise DeepLearningError(
                f"Categories of a class map must lie within a range of {_LARGEST_SPAN}; they run from "
                f"{self.values[0]} to {self.values[-1]}. Give the classes other categories with r.reclass."
            )

    @classmethod
    def of(cls, categories: ArrayLike) -> Coding:
        """Codes in the ascending order of the categories."""
        values = np.asarray(categories, dtype=np.int64)
        return cls(values, np.arange(len(values)), len(values))

    @property
    def size(self) -> int:
        """Number of codes with the one for null."""
        return self.count + 1

    def encode(self, cells: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Codes of raster values, GRASS's null included; the shape of ``cells``."""
        if not len(self.values):
            return np.full(cells.shape, self.count, dtype=np.uint32)
        low, span = int(self.values[0]), int(self.values[-1] - self.values[0]) + 1
        # An int32 difference wraps around; as unsigned number all that lies outside is beyond the span.
        offsets = np.minimum((cells - np.int32(low)).view(np.uint32), np.uint32(span))
        return offsets if self._table is None else self._table[offsets]

    @cached_property
    def _table(self) -> NDArray[np.uint32] | None:
        offsets = self.values - self.values[0]
        if self.count == len(offsets) == offsets[-1] + 1 and np.array_equal(self.codes, offsets):
            return None
        table = np.full(int(offsets[-1]) + 2, self.count, dtype=np.uint32)
        table[offsets] = self.codes
        return table


class Counter:
    """Counts, and optionally sums of weights, of combinations of codes.

    Few possible combinations are kept as an array, many as a list of those that occur.

    Args:
        sizes: number of codes on each axis.
        weighted: keep sums of weights beside the counts.
    """

    def __init__(self, sizes: Sequence[int], weighted: bool = False) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        self.weighted = weighted
        self.bins = prod(self.sizes)
        self.is_dense = self.bins <= _DENSE
        self._has_array = self.is_dense or self.bins <= _LARGE
        self._counts = np.zeros(self.bins if self._has_array else 0, dtype=np.int64)
        self._weights = np.zeros(len(self._counts))
        self._collected: list[tuple[NDArray, NDArray, NDArray]] = []

    def join(self, codes: Sequence[NDArray]) -> NDArray[np.int64]:
        """One number per unit for its combination of codes (n,) per axis."""
        joined = codes[0].astype(np.int64)
        for size, axis in zip(self.sizes[1:], codes[1:], strict=True):
            joined *= size
            joined += axis
        return joined

    def add(self, joined: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> None:
        """Count units by the numbers of :meth:`join`; ``weights`` (n,) where the counter keeps them."""
        if self.is_dense:
            self._counts += np.bincount(joined, minlength=self.bins)
            if self.weighted:
                self._weights += np.bincount(joined, weights=weights, minlength=self.bins)
        elif len(joined):
            self._add_runs(joined, weights if self.weighted else None)

    def _add_runs(self, joined: NDArray[np.int64], weights: NDArray[np.float64] | None) -> None:
        # Neighbours are mostly alike: adding runs instead of units is several times faster.
        starts = np.flatnonzero(np.concatenate(([True], joined[1:] != joined[:-1])))
        lengths = np.diff(starts, append=len(joined))
        sums = np.zeros(len(starts)) if weights is None else np.add.reduceat(weights, starts)
        if self._has_array:
            np.add.at(self._counts, joined[starts], lengths)
            if weights is not None:
                np.add.at(self._weights, joined[starts], sums)
            return
        self._collected.append(_merged(joined[starts], lengths, sums))
        if sum(len(keys) for keys, _, _ in self._collected) > _MERGE_AT + 2 * len(self._collected[0][0]):
            self._merge()

    def _merge(self) -> None:
        if len(self._collected) > 1:
            keys, counts, weights = (np.concatenate(column) for column in zip(*self._collected, strict=True))
            self._collected = [_merged(keys, counts, weights)]

    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Combinations that occur (n, axes) in ascending order, their counts and their weights."""
        if self._has_array:
            keys = np.flatnonzero(self._counts)
            counts, weights = self._counts[keys], self._weights[keys]
        else:
            self._merge()
            empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
            keys, counts, weights = self._collected[0] if self._collected else empty
        if self.bins < 2**63:
            return np.stack(np.unravel_index(keys, self.sizes), axis=1).astype(np.int64), counts, weights
        raise DeepLearningError(
            "Too many combinations of classes and segments to count. Use fewer classes with levels= and level=."
        )


def _merged(keys: NDArray, counts: NDArray, weights: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    distinct, where = np.unique(keys, return_inverse=True)
    summed = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(summed, where, counts)
    return distinct, summed, np.bincount(where, weights=weights, minlength=len(distinct))


@dataclass(frozen=True)
class Layout:
    """The layers whose combinations are counted.

    Attributes:
        maps: coding of each map.
        reference: coding of the reference.
        strata: coding of the strata, or None.
        segments: smallest and largest segment id, or None.
        zones: True when units inside training footprints are counted apart.
    """

    maps: tuple[Coding, ...]
    reference: Coding
    strata: Coding | None = None
    segments: tuple[int, int] | None = None
    zones: bool = False


@dataclass(frozen=True)
class Units:
    """Units to count: cells of a strip, or sample points; all arrays of one length n.

    Attributes:
        maps: codes per map.
        reference: codes.
        strata: codes, or None.
        segments: segment id, int32 with GRASS's null, or None.
        inside: True inside training footprints, or None.
        areas: area of each unit, or None where all have the same.
    """

    maps: Sequence[NDArray]
    reference: NDArray
    strata: NDArray | None = None
    segments: NDArray[np.int32] | None = None
    inside: NDArray[np.bool_] | None = None
    areas: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.reference)

    def pieces(self, size: int) -> list[Units]:
        """The same units in pieces of ``size``."""
        cuts = [slice(start, start + size) for start in range(0, len(self), size)]
        rest = ("strata", "segments", "inside", "areas")
        return [
            Units(
                [codes[cut] for codes in self.maps],
                self.reference[cut],
                **{name: None if getattr(self, name) is None else getattr(self, name)[cut] for name in rest},
            )
            for cut in cuts
        ]


class Tally:
    """All counts that an assessment needs of the units that have, or could have, a reference.

    Attributes:
        pairs: per map, a counter of (inside, reference, map).
        joint: per two maps, a counter of (reference, first, second).
        strata: per map, a counter of (stratum, reference, map); empty without strata.
        segments: per map, of the units that both know, counters of (segment, reference) and of
            (segment, map); empty without segments.
    """

    def __init__(self, layout: Layout, weighted: bool = False) -> None:
        self.layout = layout
        sizes = [coding.size for coding in layout.maps]
        reference, zones = layout.reference.size, 2 if layout.zones else 1
        self.pairs = [Counter((zones, reference, size), weighted) for size in sizes]
        self.joint = {
            (first, second): Counter((reference, sizes[first], sizes[second]))
            for first, second in combinations(range(len(sizes)), 2)
        }
        self.strata = [Counter((layout.strata.size, reference, size)) for size in sizes] if layout.strata else []
        self.segments: list[tuple[Counter, Counter]] = []
        if layout.segments:
            ids = layout.segments[1] - layout.segments[0] + 1
            self.segments = [(Counter((ids, reference)), Counter((ids, size))) for size in sizes]

        self._piece = _piece_size([*self.pairs, *self.joint.values(), *self.strata])

    def add(self, units: Units) -> None:
        """Count units."""
        for piece in units.pieces(self._piece):
            self._add_piece(piece)

    def _add_piece(self, units: Units) -> None:
        results = []
        for number, codes in enumerate(units.maps):
            pairs = self.pairs[number]
            joined = pair_codes(units.reference, codes, pairs.sizes[2])
            zoned = joined if units.inside is None else joined + units.inside * (pairs.sizes[1] * pairs.sizes[2])
            pairs.add(zoned, units.areas)
            if units.strata is not None:
                self.strata[number].add(units.strata * np.int64(pairs.sizes[1] * pairs.sizes[2]) + joined)
            if units.segments is not None:
                self._add_segments(number, units, units.segments)
            results.append(joined)
        for (first, second), counter in self.joint.items():
            counter.add(results[first] * counter.sizes[2] + units.maps[second])

    def _add_segments(self, number: int, units: Units, segments: NDArray[np.int32]) -> None:
        (low, high), codes = self.layout.segments or (0, -1), units.maps[number]
        known = (segments >= low) & (segments <= high)
        known &= (units.reference < self.layout.reference.count) & (codes < self.layout.maps[number].count)
        ids = segments[known].astype(np.int64) - low
        for counter, layer in zip(self.segments[number], (units.reference, codes), strict=True):
            counter.add(counter.join([ids, layer[known]]))


def _piece_size(counters: Sequence[Counter]) -> int:
    """Units per piece: adding up an array of counts per piece must not cost more than the counting."""
    return max([_PIECE, *(4 * counter.bins for counter in counters if counter.is_dense)])


def pair_codes(reference: NDArray, codes: NDArray, size: int) -> NDArray[np.int64]:
    """Reference and map code in one number; ``size`` is the number of map codes with null."""
    joined = np.multiply(reference, size, dtype=np.int64)
    joined += codes
    return joined


class AreaTally:
    """Areas over all cells of the region: of the categories of each map, by stratum if there are any, and of segments.

    Args:
        layout: the layers.
        cell_area: area of a cell where all are alike; None where each strip brings its own.
    """

    def __init__(self, layout: Layout, cell_area: float | None) -> None:
        self.layout = layout
        self.cell_area = cell_area
        weighted = cell_area is None
        strata = layout.strata.size if layout.strata else 1
        self.maps = [Counter((strata, coding.size), weighted) for coding in layout.maps]
        low, high = layout.segments or (0, -1)
        self.segments = Counter((high - low + 1,), weighted) if layout.segments else None

    def add(self, units: Units) -> None:
        """Add cells; the reference is not looked at."""
        for piece in units.pieces(_PIECE):
            for counter, codes in zip(self.maps, piece.maps, strict=True):
                joined = codes.astype(np.int64) if piece.strata is None else counter.join([piece.strata, codes])
                counter.add(joined, piece.areas)
            if self.segments is not None and piece.segments is not None:
                low, high = self.layout.segments or (0, -1)
                inside = (piece.segments >= low) & (piece.segments <= high)
                areas = None if piece.areas is None else piece.areas[inside]
                self.segments.add(piece.segments[inside].astype(np.int64) - low, areas)

    def sizes(self, counter: Counter) -> NDArray[np.float64]:
        """Area of each entry of a counter of this tally."""
        _, counts, weights = counter.entries()
        return weights if self.cell_area is None else counts.astype(np.float64) * self.cell_area

    def of_map(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Area of each stratum and of each code of a map, where both are known; one stratum where there are none."""
        counter = self.maps[number]
        strata, codes = counter.entries()[0].T
        areas = np.zeros(self.layout.strata.count if self.layout.strata else 1), np.zeros(counter.sizes[1])
        known = (strata < len(areas[0])) & (codes < self.layout.maps[number].count)
        for sums, places in zip(areas, (strata, codes), strict=True):
            np.add.at(sums, places[known], self.sizes(counter)[known])
        return areas
