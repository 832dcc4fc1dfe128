"""What the branches of a network see of further sources: for every place a window in the source's own cells.

The windows are those of training: of the same size, with their middle nearest to the middle of the place, wherever
its tile or block lies. Beyond its own cells, and where it was not given, a source is simply not valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.model import ModelSource
from rlearndeep.prediction.reading import Reader, Source
from rlearndeep.scene.geometry import Region, Window, Windows
from rlearndeep.scene.inputs import Further, days_of, ground_box


@dataclass(frozen=True)
class FurtherSource:
    """A source beside the reference.

    Attributes:
        source: its planes, (dates * bands, rows, cols), all bands of a date together; windows count in ``region``.
        region: its own grid.
        dates: of a series, ISO 8601; empty for other sources.
    """

    source: Source
    region: Region
    dates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """N windows of the reference, and the points around which further sources are looked at.

    Attributes:
        windows: what the network sees of the reference.
        east, north: the points, N each; usually the middles of the windows.
    """

    windows: Windows
    east: NDArray[np.float64]
    north: NDArray[np.float64]

    @classmethod
    def of(cls, region: Region, row: NDArray[np.int64], col: NDArray[np.int64], shape: tuple[int, int]) -> Places:
        """Windows that are looked at around their middles."""
        windows = Windows(region, row, col, shape)
        return cls(windows, *windows.centres)

    def __len__(self) -> int:
        return len(self.east)

    def part(self, chosen: slice) -> Places:
        """Some of the places."""
        windows = self.windows
        part = Windows(windows.region, windows.row[chosen], windows.col[chosen], windows.shape)
        return Places(part, self.east[chosen], self.north[chosen])

    def own(self, region: Region, shape: tuple[int, int]) -> Windows:
        """The windows of ``shape`` in the grid of another source."""
        return Windows.around(self.east, self.north, region, shape)


@dataclass(frozen=True)
class Planes:
    """A part of a further source that was read.

    Attributes:
        further: the source.
        window: which of its cells.
        values: (dates * bands, rows, cols), NaN is null.
    """

    further: FurtherSource
    window: Window
    values: NDArray[np.float32]

    def cut(self, own: Windows) -> NDArray[np.float32]:
        """Windows that lie in the part, (N, planes, rows, cols)."""
        rows, cols = own.shape
        tops, lefts = own.row - self.window.row_start, own.col - self.window.col_start
        result = np.empty((len(tops), len(self.values), rows, cols), dtype=np.float32)
        for target, top, left in zip(result, tops.tolist(), lefts.tolist(), strict=True):
            target[:] = self.values[:, top : top + rows, left : left + cols]
        return result


@dataclass(frozen=True)
class Branch:
    """A branch of a network.

    Attributes:
        source: what it was trained on.
        positions: of its bands among those of the further source.
        dates: how many the further source has.
    """

    source: ModelSource
    positions: tuple[int, ...] = ()
    dates: int = 0

    @property
    def growth(self) -> float:
        """How many times more dates there are than in training; at least 1."""
        return max(1.0, self.dates / max(1, len(self.source.dates)))

    def seen(self, places: Places, planes: Planes | None) -> Further:
        """What the branch sees at some places; None: the source is absent."""
        if planes is None:
            return self._absent(places)
        own = places.own(planes.further.region, self.source.shape)
        dates = planes.further.dates
        cut = planes.cut(own).reshape(len(places), len(dates) or 1, -1, *own.shape)
        if self.positions != tuple(range(cut.shape[2])):
            cut = cut[:, :, list(self.positions)]
        valid = np.logical_and.reduce(np.isfinite(cut), axis=2)
        with np.errstate(invalid="ignore", over="ignore"):
            values = self.source.normalization.apply(cut, valid)
        if not dates:
            values, valid = values[:, 0], valid[:, 0]
        return Further(values, valid, ground_box(own, places.windows), _days(dates, len(places)))

    def _absent(self, places: Places) -> Further:
        """Nothing valid, in cells as in training around the middle of the places; of a series one date."""
        rows, cols = self.source.shape
        dates = self.source.dates[:1]
        reference = places.windows
        height = reference.shape[0] * reference.region.nsres / self.source.resolution[0]
        width = reference.shape[1] * reference.region.ewres / self.source.resolution[1]
        box = np.array([(rows - height) / 2, (cols - width) / 2, height, width], dtype=np.float32)
        shape = (len(places), *(1 for _ in dates), rows, cols)
        values = np.zeros((*shape[:-2], len(self.source.bands), rows, cols), dtype=np.float32)
        boxes = np.repeat(box[None], len(places), axis=0)
        return Further(values, np.zeros(shape, dtype=bool), boxes, _days(dates, len(places)))


def _days(dates: tuple[str, ...], count: int) -> NDArray[np.float32]:
    return np.repeat(days_of(dates)[None], count, axis=0)


class Surroundings:
    """Reads what the branches of several networks need, each row of each source once.

    Args:
        further: the sources by their names.
        branches: all branches of all networks.
    """

    def __init__(self, further: Mapping[str, FurtherSource], branches: Sequence[Branch]) -> None:
        used = [branch.source for branch in branches if branch.source.name in further]
        self._shapes = {source.name: {one.shape for one in used if one.name == source.name} for source in used}
        self._further = further
        self._readers = {name: Reader(further[name].source) for name in self._shapes}

    def around(self, places: Sequence[Places]) -> dict[str, Planes]:
        """What branches see of each source at some places, and at all between them."""
        return {name: self._planes(name, places) for name in self._readers}

    def _planes(self, name: str, places: Sequence[Places]) -> Planes:
        further = self._further[name]
        own = [part.own(further.region, shape) for part in places for shape in self._shapes[name]]
        window = Window(
            min(int(windows.row.min()) for windows in own),
            max(int(windows.row.max()) + windows.shape[0] for windows in own),
            min(int(windows.col.min()) for windows in own),
            max(int(windows.col.max()) + windows.shape[1] for windows in own),
        )
        return Planes(further, window, self._readers[name].read(window))
