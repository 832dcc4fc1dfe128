"""New maps that appear together with everything that belongs to them, or not at all.

GRASS knows a raster from the moment its file is closed, and forgets older labels and colours then. New maps are
therefore written, closed and described beside the mapset (:mod:`rlearndeep.gis.staging`), and moved when all are
complete.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import grass.script as gs

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import RasterWriter, check_new_raster
from rlearndeep.gis.session import (
    at_end,
    command_line,
    current_region,
    libraries,
    mapset_directory,
    session_of,
    set_session,
    warnings_end,
)
from rlearndeep.gis.staging import KEEPER, Stage
from rlearndeep.scene.classes import ClassTable, Color
from rlearndeep.scene.geometry import Region

_LONGEST = 1000  # bytes; GRASS reads lines of categories into 1024, with the number before the label

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


def differences(largest: float) -> tuple[tuple[float, Color], ...]:
    """Colours from blue over white at zero to red, as far from zero on both sides."""
    ends = largest or 1.0
    return ((-ends, (0, 0, 255)), (0.0, (255, 255, 255)), (ends, (255, 0, 0)))


class NewMaps:
    """Maps of one region that are written side by side and published together.

    Leaving the ``with`` block before :meth:`publish` was called leaves older maps of these names as they were.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._writers: list[RasterWriter] = []
        self._session = session_of()
        current_region()  # GRASS reads it once, and must not look for it beside the mapset
        self._stage = Stage(mapset_directory())
        at_end(self._stage.close)

    def __enter__(self) -> NewMaps:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.discard()
        self._stage.close()

    def open(self, name: str, dtype: str) -> RasterWriter:
        """A map to write; ``dtype`` as for :class:`RasterWriter`.

        Raises:
            DeepLearningError: it exists and may not be replaced.
        """
        check_new_raster(name, gs.overwrite())  # a killed process may have left it to be put in place by this one
        self._stage.check(name)
        with self._staged():
            self._writers.append(RasterWriter(name, self._region, dtype))
        return self._writers[-1]

    def publish(self, descriptions: Mapping[str, Description]) -> None:
        """Give all maps their names, each with its description; to be called while :func:`uninterrupted`.

        Raises:
            DeepLearningError: what belongs to a map cannot be written, another process made a map of such a name
                meanwhile, or the maps cannot be moved; none is published then.
        """
        with self._staged(), warnings_end():
            for writer in self._writers:
                writer.close()
                _check_cells(writer.name)
                describe(writer.name, descriptions[writer.name], self._session["MAPSET"])
        self._stage.put_in_place([writer.name for writer in self._writers], gs.overwrite())

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Let GRASS write into the directory of the new maps, as a mapset of a project within this one."""
        project = f"{self._session['LOCATION_NAME']}/{self._session['MAPSET']}/{KEEPER}"
        try:
            set_session({**self._session, "LOCATION_NAME": project, "MAPSET": self._stage.directory.name})
            yield
        finally:
            set_session(self._session)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and a polite kill wait until the block is left; in the main thread only.

    To block the signals would not do: another thread takes them then, and Python wakes the main thread all the same.
    """
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])


def describe(name: str, description: Description, mapset: str) -> None:
    """Write the labels, colours, units and history of a raster; the history tells the mapset it is for.

    Texts become lines of at most 1000 bytes; a category whose label is blank has none.

    Raises:
        DeepLearningError: not all was written, of which GRASS says nothing.
    """
    libgis, libraster, _ = libraries()
    _write_labels(name, description)
    if description.colors or description.ramp:
        _write_colors(name, description)
    units = _line(description.units)
    if units:
        libraster.Rast_write_units(name, units)
        _check(name, libraster.Rast_read_units(name, libgis.G_mapset()))
    history = libraster.struct_History()
    libraster.Rast_short_history(name, "raster", ctypes.byref(history))
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_MAPSET, mapset)
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_TITLE, _line(description.title))
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_DATSRC_1, _line(description.source))
    libraster.Rast_set_history(ctypes.byref(history), libraster.HIST_KEYWRD, _line(description.note))
    libraster.Rast_append_history(ctypes.byref(history), command_line())
    lines = libraster.Rast_history_length(ctypes.byref(history))
    libraster.Rast_write_history(name, ctypes.byref(history))
    _check(name, libraster.Rast_read_history(name, libgis.G_mapset(), ctypes.byref(history)) == 0)
    _check(name, libraster.Rast_history_length(ctypes.byref(history)) >= lines)


def _write_labels(name: str, description: Description) -> None:
    libgis, libraster, _ = libraries()
    categories = libraster.struct_Categories()
    libraster.Rast_init_cats(_line(description.title), ctypes.byref(categories))
    labels = {category: line for category, label in description.labels.items() if (line := _line(label))}
    for category, label in labels.items():
        cell = ctypes.byref(libraster.CELL(category))
        libraster.Rast_set_c_cat(cell, cell, label, ctypes.byref(categories))
    libraster.Rast_write_cats(name, ctypes.byref(categories))
    _check(name, libraster.Rast_read_cats(name, libgis.G_mapset(), ctypes.byref(categories)) == 0)
    _check(name, categories.ncats == len(labels))


def _line(text: str) -> str:
    """A text as one line that GRASS reads whole."""
    return " ".join(text.split()).encode()[:_LONGEST].decode(errors="ignore")


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
    rules = libraster.Rast_colors_count(ctypes.byref(colors))
    libraster.Rast_write_colors(name, libgis.G_mapset(), ctypes.byref(colors))
    libraster.Rast_read_colors(name, libgis.G_mapset(), ctypes.byref(colors))
    _check(name, libraster.Rast_colors_count(ctypes.byref(colors)) == rules)


def _check_cells(name: str) -> None:
    """Read what GRASS writes beside the cells; it ends the process where that cannot be read."""
    libgis, libraster, _ = libraries()
    head, extremes = libgis.Cell_head(), libraster.FPRange()
    libraster.Rast_get_cellhd(name, libgis.G_mapset(), ctypes.byref(head))
    _check(name, libraster.Rast_read_fp_range(name, libgis.G_mapset(), ctypes.byref(extremes)) > 0)


def _check(name: str, whole: object) -> None:
    if not whole:
        raise DeepLearningError(
            f"All that belongs to raster map <{name}> must be written; the disk took a part of it only, and no map was "
            "published. Check disk space, then run the command again, a prediction with -r."
        )
