"""New maps that appear together with everything that belongs to them, or not at all.

GRASS knows a raster from the moment its file is closed, and forgets older labels and colours then. Each map is
therefore described within the same moment, by the C library and without another process; Ctrl-C and a polite kill
wait until all maps stand.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grass.script as gs

from rlearndeep.gis.rasters import RasterWriter
from rlearndeep.gis.session import command_line, libraries
from rlearndeep.scene.classes import ClassTable, Color
from rlearndeep.scene.geometry import Region

# Viridis (van der Walt and Smith 2015).
_VIRIDIS: tuple[tuple[float, Color], ...] = (
    (0, (68, 1, 84)),
    (0.25, (59, 82, 139)),
    (0.5, (33, 145, 140)),
    (0.75, (94, 201, 98)),
    (1, (253, 231, 37)),
)

# Green for the known, yellow at its edge, red beyond (RdYlGn of ColorBrewer, Harrower and Brewer 2003).
NOVELTY_COLORS: tuple[tuple[float, Color], ...] = (
    (0, (26, 152, 80)),
    (1, (255, 255, 191)),
    (2, (215, 48, 39)),
    (1e9, (215, 48, 39)),
)


@dataclass(frozen=True)
class Description:
    """What belongs to a map beside its cells.

    Attributes:
        title, units, source, note: texts.
        labels: of categories.
        colors: of categories.
        ramp: values and their colours, in between interpolated.
    """

    title: str
    units: str = ""
    source: str = ""
    note: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, Color] = field(default_factory=dict)
    ramp: tuple[tuple[float, Color], ...] = ()


def class_legend(classes: ClassTable) -> tuple[dict[int, str], dict[int, Color]]:
    """Labels and colours of the categories of a class map."""
    categories = [entry.category for entry in classes]
    return dict(zip(categories, classes.labels, strict=True)), dict(zip(categories, classes.colors, strict=True))


def viridis(low: float, high: float) -> tuple[tuple[float, Color], ...]:
    """Colours from dark blue to yellow between two values."""
    return tuple((low + (high - low) * share, color) for share, color in _VIRIDIS)


class NewMaps:
    """Maps of one region that are written side by side and published together.

    Leaving the ``with`` block before :meth:`publish` was called leaves older maps of these names as they were.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._writers: list[RasterWriter] = []

    def __enter__(self) -> NewMaps:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.discard()

    def open(self, name: str, dtype: str) -> RasterWriter:
        """A map to write; ``dtype`` as for :class:`RasterWriter`."""
        self._writers.append(RasterWriter(name, self._region, dtype))
        return self._writers[-1]

    def publish(self, descriptions: Mapping[str, Description]) -> None:
        """Give all maps their names, each with its description."""
        with uninterrupted():
            for writer in self._writers:
                writer.close()
                describe(writer.name, descriptions[writer.name])


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and a polite kill wait until the block is left."""
    waiting = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def describe(name: str, description: Description) -> None:
    """Write the labels, colours, units and history of a raster of the current mapset."""
    _, libraster, _ = libraries()
    categories = libraster.struct_Categories()
    libraster.Rast_init_cats(description.title, ctypes.byref(categories))
    for category, label in description.labels.items():
        cell = ctypes.byref(libraster.CELL(category))
        libraster.Rast_set_c_cat(cell, cell, label, ctypes.byref(categories))
    libraster.Rast_write_cats(name, ctypes.byref(categories))
    if description.colors or description.ramp:
        _write_colors(name, description)
    if description.units:
        libraster.Rast_write_units(name, description.units)
    history = libraster.struct_History()
    libraster.Rast_short_history(name, "raster", ctypes.byref(history))
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_TITLE, description.title)
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_DATSRC_1, description.source)
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_KEYWRD, description.note)
    libraster.Rast_append_history(ctypes.byref(history), command_line())
    libraster.Rast_write_history(name, ctypes.byref(history))


def _write_colors(name: str, description: Description) -> None:
    libgis, libraster, _ = libraries()
    colors = libraster.struct_Colors()
    libraster.Rast_init_colors(ctypes.byref(colors))
    for category, color in description.colors.items():
        libraster.Rast_set_c_color(category, *color, ctypes.byref(colors))
    for (low, first), (high, last) in zip(description.ramp, description.ramp[1:], strict=False):
        ends = (libraster.DCELL(value) for value in (low, high))
        below, above = (ctypes.byref(end) for end in ends)
        libraster.Rast_add_d_color_rule(below, *first, above, *last, ctypes.byref(colors))
    libraster.Rast_write_colors(name, libgis.G_mapset(), ctypes.byref(colors))


def mapset_directory(mapset: str = "") -> Path:
    """Directory of a mapset of the current project, by default of the current one."""
    env = gs.gisenv()
    return Path(env["GISDBASE"]) / env["LOCATION_NAME"] / (mapset or env["MAPSET"])


def raster_stamp(full_name: str) -> list:
    """Name, sizes and times of change of a raster's files; another list when the raster was changed."""
    name, where = full_name.split("@")
    stamp: list = [full_name]
    for element in ("cellhd", "cell", "fcell"):
        file = mapset_directory(where) / element / name
        if file.exists():
            state = file.stat()
            stamp.append([element, state.st_size, state.st_mtime_ns])
    return stamp
