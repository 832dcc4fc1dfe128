"""Scenes made of arrays, to sample without GRASS."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rlearndeep.sampling.labels import LabelTable, feature_table, raster_table
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.codes import FIRST_CODE, NOTHING
from rlearndeep.scene.geometry import Region, Window


@dataclass
class ArrayScene:
    """Bands (bands, rows, cols), codes (rows, cols) and nulls (rows, cols) in memory."""

    values: np.ndarray
    codes: np.ndarray
    nulls: np.ndarray | None = None
    null: float | int = np.iinfo(np.int32).min
    dtype: np.dtype = np.dtype(np.uint16)  # noqa: RUF009
    cell: float = 10.0
    labels: np.ndarray | None = None
    ignored: np.ndarray | None = None
    repeats: bool = False
    reads: list[Window] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows, cols = self.codes.shape
        self.region = Region(cell_north(rows, self.cell), 0.0, cols * self.cell, 0.0, rows, cols)
        self.bands = tuple(Band(f"b{number}") for number in range(len(self.values)))
        if self.nulls is None:
            self.nulls = np.zeros(self.codes.shape, dtype=bool)

    def read(self, window: Window) -> np.ndarray:
        """Values, null where ``nulls`` is True and beyond the region."""
        self.reads.append(window)
        values = np.where(self.nulls, self.null, self.values)
        return np.stack([_cut(band, window, self.null) for band in values])

    def read_nulls(self, window: Window) -> np.ndarray:
        """Nulls, True beyond the region."""
        return _cut(self.nulls, window, True)

    def read_codes(self, window: Window) -> np.ndarray:
        """Codes, nothing beyond the region."""
        return _cut(self.codes, window, NOTHING).astype(np.int32)

    def read_values(self, window: Window) -> np.ndarray:
        """Values of labels, not a number beyond the region."""
        return _cut(self.labels.astype(np.float32), window, np.nan)

    def read_ignored(self, window: Window) -> np.ndarray | None:
        """Cells whose label is not used."""
        return None if self.ignored is None else _cut(self.ignored, window, False)


def cell_north(rows: int, cell: float) -> float:
    """Northern edge of a region whose southern edge is 0."""
    return rows * cell


def _cut(plane: np.ndarray, window: Window, outside) -> np.ndarray:
    result = np.full(window.shape, outside, dtype=plane.dtype)
    part = window.intersection(Window(0, plane.shape[0], 0, plane.shape[1]))
    if not part.is_empty:
        result[part.relative_to(window).slices] = plane[part.slices]
    return result


def class_scene(classes: np.ndarray, bands: int = 1, nulls: np.ndarray | None = None) -> tuple[ArrayScene, LabelTable]:
    """A scene with a label raster: categories 1, 2, ...; 0 means no label. Bands encode the place."""
    number = int(classes.max())
    table = raster_table(ClassTable(tuple(MapClass(value, "") for value in range(1, number + 1))), 1, number)
    codes = np.where(classes > 0, classes - 1 + FIRST_CODE, NOTHING)
    return ArrayScene(_places(classes.shape, bands), codes, nulls), table


def area_scene(
    areas: np.ndarray, class_of_area: dict[int, int], members: dict[int, tuple[int, ...]] | None = None
) -> tuple[ArrayScene, LabelTable]:
    """A scene with label areas: a cell holds the number of its area, 0 for none; ``members`` of overlaps."""
    number = int(areas.max())
    members = members or {}
    pieces = [members.get(value, (value,)) for value in range(1, number + 1)]
    categories = sorted(set(class_of_area.values()))
    table = feature_table(
        pieces,
        list(class_of_area),
        ClassTable(tuple(MapClass(value, "") for value in categories)),
        class_of_area,
        {feature: str(feature) for feature in class_of_area},
    )
    codes = np.where(areas > 0, areas - 1 + FIRST_CODE, NOTHING)
    return ArrayScene(_places(areas.shape, 1), codes), table


def _places(shape: tuple[int, int], bands: int) -> np.ndarray:
    cells = np.arange(shape[0] * shape[1]).reshape(shape)
    return np.stack([cells + 10_000 * band for band in range(bands)])
