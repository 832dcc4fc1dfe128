"""Maps and references of an assessment: class tables of rasters, strips of layers, reference vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import grass.script as gs
import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import CELL_NULL, RasterInfo, RasterStack, raster_info
from rlearndeep.gis.session import libraries, remove_at_end, temporary_name
from rlearndeep.gis.vectors import LabelVector, open_features, rasterize_areas, read_points
from rlearndeep.scene.classes import LARGEST_CATEGORY, ClassTable, MapClass
from rlearndeep.scene.geometry import Region, Window

_LARGEST_SPAN = 1 << 24
_SMALL_SPAN = 256
_TRAINING = "part='training'"

# Cells per layer and strip: few enough to stay in the processor's cache until they are counted.
_STRIP_CELLS = 1 << 18

# Maps are decoded side by side; more threads than maps to compare would wait for the counting.
_READERS = 2


def categories_of(name: str, region: Region, exact: bool = False) -> NDArray[np.int64]:
    """Categories of an integer raster, ascending.

    Those between the smallest and the largest of the map when they lie close together; else, or when
    ``exact``, those that occur inside the region, for which the map is read once.

    Raises:
        DeepLearningError: the categories are too far apart for a class map.
    """
    info = raster_info(name)
    low, high = int(info.minimum), int(info.maximum)
    if high - low < _SMALL_SPAN and not exact:
        return np.arange(low, high + 1, dtype=np.int64)
    if high - low >= _LARGEST_SPAN:
        raise DeepLearningError(
            f"Categories of a class map must lie within a range of {_LARGEST_SPAN}; those of <{name}> run from {low} "
            f"to {high}. Give the classes other categories with r.reclass."
        )
    seen = np.zeros(high - low + 1, dtype=bool)
    for _, values in read_strips([name], region, "int32", 64):
        cells = values.ravel()
        seen[cells[cells != CELL_NULL] - low] = True
    return np.flatnonzero(seen).astype(np.int64) + low


def strata_categories(name: str, region: Region) -> NDArray[np.int64]:
    """Categories of a raster of strata.

    Raises:
        DeepLearningError: the raster holds floating point values.
    """
    _check_integer(name, "Strata")
    return categories_of(name, region)


def segment_range(name: str) -> tuple[int, int]:
    """Smallest and largest segment id of a segmentation raster.

    Raises:
        DeepLearningError: the raster holds floating point values.
    """
    info = _check_integer(name, "Segment ids")
    return int(info.minimum), int(info.maximum)


def _check_integer(name: str, what: str) -> RasterInfo:
    info = raster_info(name)
    if info.type != "CELL":
        raise DeepLearningError(
            f"{what} are integers; raster map <{name}> is {info.type}. Convert it with r.mapcalc (int())."
        )
    return info


def class_table(name: str, categories: NDArray[np.int64]) -> ClassTable:
    """Labels and colours of categories of an integer raster."""
    _, libraster, _ = libraries()
    labels, colors = _labels(name), _structure(libraster.Rast_read_colors)
    has_colors = libraster.Rast_read_colors(*raster_info(name).name.split("@"), ctypes.byref(colors)) > 0
    entries = []
    for category in categories.tolist():
        text = libraster.Rast_get_c_cat(ctypes.byref(ctypes.c_int(category)), ctypes.byref(labels)) if labels else ""
        label = text.decode(errors="replace") if isinstance(text, bytes) else str(text or "")
        entries.append(MapClass(category, label.strip(), _color(colors, category) if has_colors else None))
    return ClassTable(tuple(entries))


def labelled_classes(name: str) -> ClassTable:
    """The single categories that an integer raster has labels for, whether or not a cell holds them."""
    _, libraster, _ = libraries()
    labels = _labels(name)
    if labels is None:
        return ClassTable(())
    low, high = ctypes.c_int(), ctypes.c_int()
    categories = set()
    for index in range(libraster.Rast_number_of_cats(ctypes.byref(labels))):
        libraster.Rast_get_ith_c_cat(ctypes.byref(labels), index, ctypes.byref(low), ctypes.byref(high))
        if low.value == high.value != CELL_NULL:
            categories.add(low.value)
    return class_table(name, np.array(sorted(categories), dtype=np.int64))


def _labels(name: str) -> ctypes.Structure | None:
    """Labels of a raster's categories as the library keeps them; None where it has none."""
    _, libraster, _ = libraries()
    labels = _structure(libraster.Rast_read_cats)
    known = libraster.Rast_read_cats(*raster_info(name).name.split("@"), ctypes.byref(labels)) >= 0
    return labels if known else None


def _structure(function) -> ctypes.Structure:
    """An empty structure of the type a reading function fills; its name differs between versions of GRASS."""
    return function.argtypes[2]._type_()


def _color(colors, category: int) -> tuple[int, int, int]:
    _, libraster, _ = libraries()
    parts = [ctypes.c_int() for _ in range(3)]
    libraster.Rast_get_c_color(
        ctypes.byref(ctypes.c_int(category)), *(ctypes.byref(part) for part in parts), ctypes.byref(colors)
    )
    return parts[0].value, parts[1].value, parts[2].value


def read_strips(
    names: Sequence[str],
    region: Region,
    dtype: str,
    memory: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Window, NDArray]]:
    """Rasters in strips of whole rows from the top, the next strip being read while one is used.

    Args:
        names: rasters, the layers of the arrays.
        region: the grid.
        dtype: as in ``RasterStack``.
        memory: MB that the strips may take.
        progress: called with rows done and all rows.

    Yields:
        The window of a strip and its values, (layers, rows, cols).
    """
    row_bytes = region.cols * len(names) * np.dtype(dtype).itemsize
    # Two strips of values are alive, and the coded cells of one.
    rows = int(np.clip(min(_STRIP_CELLS / region.cols, memory * 2**20 / (4 * row_bytes)), 1, region.rows))
    windows = [Window(start, min(start + rows, region.rows), 0, region.cols) for start in range(0, region.rows, rows)]
    with (
        RasterStack(names, region, dtype=dtype, readers=_READERS) as stack,
        ThreadPoolExecutor(1) as reader,
    ):
        coming = reader.submit(stack.read, windows[0])
        for number, window in enumerate(windows):
            values = coming.result()
            if number + 1 < len(windows):
                coming = reader.submit(stack.read, windows[number + 1])
            yield window, values
            if progress is not None:
                progress(window.row_stop, region.rows)


def alignment_remarks(names: Sequence[str], region: Region) -> list[str]:
    """One sentence per raster whose grid differs from the region's."""
    return [
        f"Raster map <{name}> has cells of {info.region.nsres:g} x {info.region.ewres:g} map units or another "
        f"alignment; it is read by nearest neighbour into cells of {region.nsres:g} x {region.ewres:g}."
        for name, info in ((name, raster_info(name)) for name in names)
        if not info.region.is_aligned_with(region)
    ]


def area_unit() -> str:
    """Unit of cell areas: ``m2``, or ``square map units`` in a project without a coordinate system."""
    libgis, _, _ = libraries()
    return "m2" if libgis.G_projection() != 0 else "square map units"


@dataclass(frozen=True)
class ReferenceVector:
    """The labelled features of a reference vector.

    Attributes:
        vector: the map and its attributes.
        kind: ``points`` or ``areas``.
        features: (n,) number of each labelled feature, ascending.
        labels: (n,) label per feature: integers, texts (object array) or floating point values.
    """

    vector: LabelVector
    kind: str
    features: NDArray[np.int64]
    labels: NDArray

    @property
    def name(self) -> str:
        """Name of the map."""
        return self.vector.name


def open_reference_vector(name: str, layer: str, column: str, where: str) -> ReferenceVector:
    """Features of a vector and their labels.

    Raises:
        DeepLearningError: as ``vectors.open_features``.
    """
    vector = open_features(name, layer, column, where)
    labelled = sorted(feature for feature, value in vector.values.items() if value is not None and value != "")
    labels = [vector.values[feature] for feature in labelled]
    if vector.is_floating:
        values = np.array(labels, dtype=np.float64)
    elif all(isinstance(label, int) for label in labels):
        values = np.array(labels, dtype=np.int64)
    else:
        values = np.array([str(label) for label in labels], dtype=object)
    kind = {"point": "points", "area": "areas"}[vector.kind]
    return ReferenceVector(vector, kind, np.array(labelled, dtype=np.int64), values)


def with_whole_labels(reference: ReferenceVector) -> ReferenceVector:
    """The same reference, its labels as integers where all are whole numbers.

    GRASS tools write the categories of integer rasters into floating point columns (r.random, v.what.rast).
    """
    labels = reference.labels
    if labels.dtype.kind != "f" or (labels != np.rint(labels)).any() or (np.abs(labels) > LARGEST_CATEGORY).any():
        return reference
    return replace(reference, labels=labels.astype(np.int64))


@dataclass(frozen=True)
class ReferenceAreas:
    """Areas of a reference as a temporary raster in the current region.

    Attributes:
        raster: its name.
        values: (n,) its values that have a label, ascending.
        positions: (n,) position of the feature that gives each its label.
    """

    raster: str
    values: NDArray[np.int64]
    positions: NDArray[np.int64]


def rasterize_reference(reference: ReferenceVector) -> ReferenceAreas:
    """Areas as cells, by the cells' centres; where areas overlap, those that disagree give no label."""
    areas = rasterize_areas(reference.vector)
    where = {feature: position for position, feature in enumerate(reference.features.tolist())}
    values, positions = [], []
    for offset, features in enumerate(areas.features):
        meeting = [where[feature] for feature in features if feature in where]
        if meeting and len({str(reference.labels[position]).casefold() for position in meeting}) == 1:
            values.append(areas.first + offset)
            positions.append(meeting[0])
    return ReferenceAreas(areas.name, np.array(values, dtype=np.int64), np.array(positions, dtype=np.int64))


def reference_points(
    reference: ReferenceVector, region: Region
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """East, north and position of the feature of each labelled point; see ``vectors.read_points``.

    A point of several features counts once where their labels agree, and not at all where they do not, as areas do.
    """
    points = read_points(reference.vector, region)
    position = np.clip(np.searchsorted(reference.features, points.feature), 0, len(reference.features) - 1)
    known = reference.features[position] == points.feature
    points, position = points.take(known), position[known]
    texts = [str(label).casefold() for label in reference.labels.tolist()]
    label = np.unique(np.array(texts, dtype=object), return_inverse=True)[1][position]
    first = np.unique(points.point, return_index=True)[1]
    agree = np.minimum.reduceat(label, first) == np.maximum.reduceat(label, first) if len(first) else first
    chosen = first[agree]
    return points.east[chosen], points.north[chosen], position[chosen]


def open_footprints(name: str) -> tuple[str, NDArray[np.float64]]:
    """Training footprints that v.sample.patches wrote.

    Returns:
        A temporary raster that is null outside them, for areas and points, or an empty name; and, for
        footprints that are closed lines, (n, 4) north, south, east and west of each.

    Raises:
        DeepLearningError: no such map, or one without a ``part`` column.
    """
    if not gs.find_file(name, element="vector")["file"]:
        raise DeepLearningError(
            f"Vector map <{name}> must exist; it was not found in the search path. Check the name with g.list vector."
        )
    columns = gs.vector_columns(name) if gs.vector_db(name) else {}
    if "part" not in columns:
        raise DeepLearningError(
            f"Training footprints have a column 'part'; <{name}> has {', '.join(columns) or 'no table'}. "
            "Give the map that v.sample.patches wrote."
        )
    topology = gs.vector_info_topo(name)
    if topology["lines"]:
        return "", _rectangles(name)
    output = temporary_name("footprints")
    remove_at_end("raster", output)
    gs.run_command(
        "v.to.rast",
        input=name,
        type="area" if topology["centroids"] else "point",
        where=_TRAINING,
        use="val",
        value=1,
        output=output,
        quiet=True,
    )
    return output, np.empty((0, 4))


def _rectangles(name: str) -> NDArray[np.float64]:
    """Edges of the closed lines of the training part."""
    listing = gs.read_command(
        "v.out.ascii", input=name, type="line", where=_TRAINING, format="standard", precision=17, quiet=True
    )
    rings: list[list[tuple[float, float]]] = []
    for line in listing.splitlines():
        if line.startswith("L "):
            rings.append([])
        elif rings and line.startswith(" ") and len(line.split()) == 2:
            east, north = line.split()
            rings[-1].append((float(east), float(north)))
    # The line behind the vertices holds layer and category, two integers.
    corners = [np.array(ring[:5]) for ring in rings]
    edges = [(ring[:, 1].max(), ring[:, 1].min(), ring[:, 0].max(), ring[:, 0].min()) for ring in corners]
    return np.array(edges, dtype=np.float64).reshape(-1, 4)
