"""Where patches may lie: grids, random places, points, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.sampling.patchset import PatchSet

Places = tuple[NDArray[np.int64], NDArray[np.int64]]

# Odd constants of the splitmix64 generator (Steele, Lea and Flood 2014).
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

# So many patches hardly ever are what was meant, and their list alone fills gigabytes.
_MOST_PATCHES = 20_000_000


class Placement(Protocol):
    """Places at which patches may begin."""

    def within(self, start: int, stop: int) -> Places:
        """First rows and columns, ordered by row, of the places whose row lies in ``start`` to ``stop``."""


@dataclass(frozen=True)
class Grid:
    """Places every ``stride`` cells from the region's first cell, as far as a whole patch fits.

    Attributes:
        shape: rows and columns of the region.
        size: rows and columns of a patch.
        stride: rows and columns between places.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int]

    def within(self, start: int, stop: int) -> Places:
        """See :class:`Placement`."""
        first = -(-start // self.stride[0]) * self.stride[0]
        rows = np.arange(first, min(stop, self.shape[0] - self.size[0] + 1), self.stride[0])
        cols = np.arange(0, self.shape[1] - self.size[1] + 1, self.stride[1])
        return np.repeat(rows, len(cols)), np.tile(cols, len(rows))

    @property
    def reaching_out(self) -> int:
        """Number of places in the region at which a patch would reach beyond it."""
        everywhere = [-(-length // stride) for length, stride in zip(self.shape, self.stride, strict=True)]
        inside = [
            (length - size) // stride + 1
            for length, size, stride in zip(self.shape, self.size, self.stride, strict=True)
        ]
        return everywhere[0] * everywhere[1] - inside[0] * inside[1]


@dataclass(frozen=True)
class Listed:
    """Given places, ordered by row and column."""

    row: NDArray[np.int64]
    col: NDArray[np.int64]

    def within(self, start: int, stop: int) -> Places:
        """See :class:`Placement`."""
        first, last = np.searchsorted(self.row, [start, stop])
        return self.row[first:last], self.col[first:last]


def random_places(shape: tuple[int, int], size: tuple[int, int], number: int, seed: int) -> Listed:
    """About ``number`` different places drawn uniformly from all at which a whole patch fits."""
    cols = shape[1] - size[1] + 1
    total = (shape[0] - size[0] + 1) * cols
    random = np.random.default_rng(seed)
    places = np.arange(total) if number >= total else np.unique(random.integers(0, total, number))
    return Listed(places // cols, places % cols)


def places_of_points(row: NDArray, col: NDArray, shape: tuple[int, int], size: tuple[int, int]) -> tuple[Listed, int]:
    """Places that have given cells in their centre, and how many of them would reach beyond the region.

    The centre cell of a patch is cell ``size // 2``: the middle one of an odd number of cells, the
    one right of (below) the middle of an even number. Cells outside the region are left out, places
    that occur twice count once.
    """
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    row, col = row[inside] - size[0] // 2, col[inside] - size[1] // 2
    cells = np.unique(np.stack([row, col]), axis=1)
    row, col = cells
    fits = (row >= 0) & (col >= 0) & (row + size[0] <= shape[0]) & (col + size[1] <= shape[1])
    return Listed(row[fits], col[fits]), int((~fits).sum())


def priority(seed: int, row: NDArray, col: NDArray) -> NDArray[np.uint64]:
    """A number per place that looks random and depends on nothing but the seed and the place."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(row, dtype=np.int64).astype(np.uint64) * np.uint64(_GOLDEN)
    return mix(mix(mixed, np.asarray(col, dtype=np.int64).astype(np.uint64)), np.uint64(seed % 2**64))


def mix(state: NDArray[np.uint64], value: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """What the splitmix64 generator makes of numbers and of others that are to count as well."""
    with np.errstate(over="ignore"):
        mixed = (state ^ value) + np.uint64(_GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[0])
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[1])
        return mixed ^ (mixed >> np.uint64(31))


@dataclass
class Chooser:
    """Chooses among patches that come strip by strip, holding little more than what is wanted.

    A patch with a label per cell counts for every class it contains. The choice is a random one that
    depends only on the seed and the places, not on the strips; a place is chosen in all its acquisitions.

    Attributes:
        number: how many places at most, or None.
        per_class: how many places at most of each class, or None.
        classes: number of classes.
        seed: of the choice.
    """

    number: int | None
    per_class: int | None
    classes: int
    seed: int
    found: int = 0
    _sets: list[PatchSet] = field(default_factory=list)
    _held: int = 0
    _trimmed: int = 0

    def add(self, patches: PatchSet) -> None:
        """Consider more patches."""
        self.found += len(patches)
        self._held += len(patches)
        self._sets.append(patches)
        if not self._limited and self._held > _MOST_PATCHES:
            raise DeepLearningError(
                f"Without number= or per_class= every place is taken; there are more than {_MOST_PATCHES}. "
                "Add number= or per_class=, or a larger stride=."
            )
        if self._limited and self._held > 2 * self._trimmed + 4096:
            self._trim()

    def chosen(self) -> PatchSet | None:
        """The choice, ordered as the patches came; None if there never was a patch set."""
        if self._limited and self._sets:
            self._trim()
        return PatchSet.joined(self._sets) if self._sets else None

    @property
    def _limited(self) -> bool:
        return self.number is not None or self.per_class is not None

    def _trim(self) -> None:
        patches = PatchSet.joined(self._sets)
        order = priority(self.seed, patches.row, patches.col)
        several = patches.acquisition is not None
        keep = np.zeros(len(patches), dtype=bool)
        for limit, members in self._limits(patches):
            values = np.unique(order[members]) if several else order[members]
            keep |= members & (order <= _smallest(values, limit))
        self._sets = [patches.take(keep)]
        self._held = self._trimmed = int(keep.sum())

    def _limits(self, patches: PatchSet) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        if self.number is not None:
            yield self.number, np.ones(len(patches), dtype=bool)
        elif self.per_class is not None:
            for index in range(self.classes):
                yield self.per_class, patches.has_class(index)


def _smallest(values: NDArray[np.uint64], count: int) -> np.uint64:
    """The largest of the ``count`` smallest values; the largest possible one when there are no more."""
    if len(values) <= count:
        return np.uint64(np.iinfo(np.uint64).max)
    return np.partition(values, count - 1)[count - 1]
