"""Imagery groups as further sources of patches: auxiliary ones, and time series."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import grass.script as gs
import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.groups import Group, grid_remarks, open_distinct_groups, open_groups
from rlearndeep.gis.rasters import RasterStack
from rlearndeep.patches import Source
from rlearndeep.scene.geometry import Region, Window

_DATE = re.compile(r"\b(\d{1,2}) ([A-Za-z]{3}) (\d{4})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True)
class GroupSource:
    """A further source: one group, or one per date.

    Attributes:
        source: entry in the manifest; its grid is that of the first raster.
        groups: one per date, or a single one.
        readers: threads that read bands side by side.
    """

    source: Source
    groups: tuple[Group, ...]
    readers: int = 1

    @property
    def region(self) -> Region:
        """The source's own grid."""
        return self.groups[0].rasters[0].region

    def of_size(self, rows: int, cols: int) -> GroupSource:
        """The source with patches of so many of its own cells."""
        return replace(self, source=replace(self.source, shape=(rows, cols)))

    def open(self, layer: int, region: Region) -> RasterStack:
        """The bands of a date on cells of a part of the source's grid."""
        dtype = np.dtype(self.source.dtype)
        read_as = "int32" if dtype.kind in "iu" else dtype.name
        return RasterStack(self.groups[layer].names, region, dtype=read_as, readers=self.readers)

    def of_bands(self, positions: Sequence[int]) -> GroupSource:
        """The source with some of its bands, in another order."""
        bands = tuple(self.source.bands[position] for position in positions)
        groups = tuple(
            replace(
                group,
                rasters=tuple(group.rasters[position] for position in positions),
                bands=tuple(group.bands[position] for position in positions),
            )
            for group in self.groups
        )
        return replace(self, source=replace(self.source, bands=bands), groups=groups)

    def read(self, window: Window) -> NDArray[np.float32]:
        """All bands of all dates on a window of the source's grid, (dates * bands, rows, cols); NaN is null.

        The rasters are open only while they are read, date by date: a series may have more than a process may open.
        """
        number = len(self.source.bands)
        planes = np.empty((number * len(self.groups), *window.shape), dtype=np.float32)
        for date_number, group in enumerate(self.groups):
            with RasterStack(group.names, self.region, window, readers=self.readers) as stack:
                planes[date_number * number : (date_number + 1) * number] = stack.read(window)
        return planes

    def remarks(self) -> list[str]:
        """One sentence per raster that is not on the source's grid."""
        return [remark for group in self.groups for remark in grid_remarks(group.rasters, self.region)]


def _source(name: str, groups: Sequence[Group], dates: Sequence[str], readers: int) -> GroupSource:
    first = groups[0]
    own = first.rasters[0].region
    dtype = np.result_type(*(raster.dtype for group in groups for raster in group.rasters))
    source = Source(name, first.bands, (1, 1), (own.nsres, own.ewres), dtype.name, dates=tuple(dates), region=own)
    return GroupSource(source, tuple(groups), readers)


def open_auxiliary(names: Sequence[str], readers: int) -> list[GroupSource]:
    """Auxiliary groups as sources ``auxiliary1``, ``auxiliary2``, ..., their size of patches still to be set.

    Raises:
        DeepLearningError: as :func:`open_distinct_groups`.
    """
    return [
        _source(f"auxiliary{number}", [group], (), readers)
        for number, group in enumerate(open_distinct_groups(names), start=1)
    ]


def open_series(names: Sequence[str], dates: Sequence[str], readers: int) -> GroupSource:
    """Groups with the same bands, in the order of their dates, as the source ``series``.

    Args:
        names: of the groups.
        dates: one per group, ISO 8601; empty to take them from the maps' time stamps.

    Raises:
        DeepLearningError: bands that differ, a date that is missing, is no date, or stands before an earlier one.
    """
    groups = open_groups(names)
    if dates and len(dates) != len(names):
        raise DeepLearningError(
            f"A series needs a date per group; got {len(dates)} dates= for {len(names)} groups. Give one for each."
        )
    days = [_day(text) for text in dates] if dates else [_time_stamp(group) for group in groups]
    if days != sorted(days):
        raise DeepLearningError(
            f"A series is given in the order of its dates; got {', '.join(map(str, days))}. Sort series= (and dates=)."
        )
    return _source("series", groups, [day.isoformat() for day in days], readers)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise DeepLearningError(
            f"dates= holds days as YYYY-MM-DD; got '{text}'. Write, for example, 2024-06-30."
        ) from error


def _stamp_text(name: str) -> str:
    """What r.timestamp prints; nothing for a map without a time stamp, which it calls an error."""
    process = gs.start_command("r.timestamp", map=name, quiet=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return str(gs.decode(process.communicate()[0]))


def _time_stamp(group: Group) -> date:
    """The day, or the first day, of the time stamp of a group's first raster that has one."""
    for name in group.names:
        found = _DATE.search(_stamp_text(name))
        if found:
            day, month, year = found.groups()
            return date(int(year), _MONTHS.index(month.lower()) + 1, int(day))
    raise DeepLearningError(
        f"A series needs dates; the maps of <{group.name}> have no time stamp with a day. Give dates=, or set time "
        "stamps with r.timestamp."
    )
