"""What a network that looks at several sources gets: the reference, and each further source in its own cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.geometry import Windows


@dataclass(frozen=True)
class Further:
    """One further source of a batch of N places; arrays, or tensors of a framework.

    Attributes:
        values: (N, bands, rows, cols), of a series (N, dates, bands, rows, cols); 0 where not valid.
        valid: (N, rows, cols), of a series (N, dates, rows, cols); all False for a place without the source.
        box: (N, 4) float32, where the ground of the reference lies in ``values``: first row, first column, rows and
            columns, in cells of this source. Fractions, and places beyond the edges, are usual.
        days: (N, dates) float32 of a series, as :func:`days_of` counts them; (N, 0) for other sources.
    """

    values: Any
    valid: Any
    box: Any
    days: Any

    def map(self, function: Callable[[Any], Any]) -> Further:
        """The same with every array changed; all of them have the places as first axis."""
        return Further(*(function(array) for array in (self.values, self.valid, self.box, self.days)))


@dataclass(frozen=True)
class Inputs:
    """A batch of N places for a network with several sources.

    Attributes:
        images: of the reference, (N, bands, rows, cols); 0 where not valid.
        further: the other sources by their names.
    """

    images: Any
    further: Mapping[str, Further] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the reference, (N, bands, rows, cols)."""
        return tuple(self.images.shape)

    def map(self, function: Callable[[Any], Any]) -> Inputs:
        """The same with every array changed; all of them have the places as first axis."""
        return Inputs(function(self.images), {name: source.map(function) for name, source in self.further.items()})

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Inputs:
        return self.map(lambda array: array[chosen])


Images = NDArray | Inputs
"""What a network gets: an array of the bands it needs, or several sources."""


def ground_box(own: Windows, reference: Windows) -> NDArray[np.float32]:
    """Where windows of the reference lie within windows of another source: (N, 4), as :class:`Further` has it."""
    north = reference.region.north - reference.row * reference.region.nsres
    west = reference.region.west + reference.col * reference.region.ewres
    top = (own.region.north - north) / own.region.nsres - own.row
    left = (west - own.region.west) / own.region.ewres - own.col
    rows = reference.shape[0] * reference.region.nsres / own.region.nsres
    cols = reference.shape[1] * reference.region.ewres / own.region.ewres
    sides = np.broadcast_to(np.array([rows, cols]), (len(top), 2))
    return np.concatenate([np.stack([top, left], axis=-1), sides], axis=-1).astype(np.float32)


def days_of(dates: tuple[str, ...]) -> NDArray[np.float32]:
    """Days since the first of January of the year of the first date, (dates,), of dates in ISO 8601."""
    found = [date.fromisoformat(text[:10]) for text in dates]
    if not found:
        return np.empty(0, dtype=np.float32)
    first = date(found[0].year, 1, 1)
    return np.array([(day - first).days for day in found], dtype=np.float32)
