"""Label planes: which code a cell has, and what a code means.

A label source is rasterised once into a plane of codes. A code is a small number behind which stands
everything the source knows of a cell: its class, its one area, its group for a split. Two codes are
the same for every source, the others count from ``FIRST_CODE``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED, ClassTable, Color, MapClass
from rlearndeep.scene.geometry import Region, Window

NOTHING = 0
"""Code of a cell that no label covers."""

IGNORED = 1
"""Code of a cell whose label is not to be used."""

FIRST_CODE = 2
"""Code of the first label of a source."""

_BACKGROUND_COLOR = (200, 200, 200)

NONE = -1
"""Position of the area or group of a code that belongs to none."""

SEVERAL = -2
"""The same for a code that belongs to several."""


@dataclass(frozen=True)
class LabelTable:
    """What the codes of a label plane mean; every array has an entry per code.

    Attributes:
        classes: the classes in the order of their indices.
        class_of: class index, or ``UNLABELLED``.
        area_of: position in ``areas``, ``NONE`` or ``SEVERAL``.
        areas: category of each area or point; empty for a label raster.
        group_of: position in ``groups``, ``NONE`` or ``SEVERAL``.
        uncovered: True where no label of the source lies; a background fills those cells.
        groups: value of the split column of each group; empty without one.
        conflicts: number of codes in which features of different classes meet.
    """

    classes: ClassTable
    class_of: NDArray[np.int32]
    area_of: NDArray[np.int32]
    areas: NDArray[np.int64]
    group_of: NDArray[np.int32]
    uncovered: NDArray[np.bool_]
    groups: tuple[str, ...] = ()
    conflicts: int = 0

    @property
    def has_areas(self) -> bool:
        """True when the source tells one area or point from another."""
        return len(self.areas) > 0

    def with_background(self, category: int) -> LabelTable:
        """The table in which a cell that no label covers is of class ``category``, labelled background.

        Raises:
            DeepLearningError: a class has that category already.
        """
        if category in self.classes.categories:
            raise DeepLearningError(
                f"background= needs a category that no class has; {category} is "
                f"'{self.classes.labels[int(self.classes.indices_of(category))]}'. Choose another number."
            )
        classes = ClassTable((*self.classes, MapClass(category, "background", _BACKGROUND_COLOR)))
        class_of = _renumbered(self.class_of, self.classes, classes)
        index = int(classes.indices_of(category))
        if not self.has_areas:
            class_of[self.uncovered] = index
            return replace(self, classes=classes, class_of=class_of, area_of=class_of)
        area_of = np.where(self.uncovered, len(self.areas), self.area_of).astype(np.int32)
        class_of[self.uncovered] = index
        return replace(self, classes=classes, class_of=class_of, area_of=area_of, areas=np.append(self.areas, 0))

    def restricted_to(self, present: NDArray[np.bool_]) -> LabelTable:
        """The table with only those classes that are ``present``, a flag per class index."""
        classes = ClassTable(tuple(entry for entry, here in zip(self.classes, present, strict=True) if here))
        class_of = _renumbered(self.class_of, self.classes, classes)
        return replace(self, classes=classes, class_of=class_of, area_of=self.area_of if self.has_areas else class_of)


def _renumbered(class_of: NDArray[np.int32], old: ClassTable, new: ClassTable) -> NDArray[np.int32]:
    lookup = np.append(new.indices_of(old.categories), UNLABELLED).astype(np.int32)
    return lookup[class_of]


def raster_table(classes: ClassTable, minimum: int, maximum: int) -> LabelTable:
    """Table of a label raster whose code for category c is ``c - minimum + FIRST_CODE``."""
    categories = np.arange(minimum, maximum + 1)
    class_of = np.concatenate([[UNLABELLED] * FIRST_CODE, classes.indices_of(categories)]).astype(np.int32)
    nowhere = np.full(len(class_of), NONE, dtype=np.int32)
    uncovered = np.arange(len(class_of)) == NOTHING
    return LabelTable(classes, class_of, class_of, np.empty(0, dtype=np.int64), nowhere, uncovered)


def number_classes(
    values: Mapping[int, int | str | None], colors: Mapping[int, Color | None] | None = None
) -> tuple[ClassTable, dict[int, int]]:
    """Classes of features and the category each feature's class has.

    Integers are categories themselves; texts are numbered from 1 in sorted order, so that the same
    texts have the same numbers whatever region is sampled.

    Args:
        values: of the label column per feature; None and empty text have no class.
        colors: per feature; the first one of a class counts.

    Returns:
        The classes, and the category per feature that has one.
    """
    given = {feature: value for feature, value in values.items() if value is not None and value != ""}
    if all(isinstance(value, int) for value in given.values()):
        category = {feature: int(value) for feature, value in given.items()}
        label = {number: "" for number in category.values()}
    else:
        texts = {feature: str(value) for feature, value in given.items()}
        order = {text: number for number, text in enumerate(sorted(set(texts.values())), start=1)}
        category = {feature: order[text] for feature, text in texts.items()}
        label = {number: text for text, number in order.items()}
    color: dict[int, Color] = {}
    for feature, number in category.items():
        found = (colors or {}).get(feature)
        if found is not None:
            color.setdefault(number, found)
    classes = ClassTable(tuple(MapClass(number, label[number], color.get(number)) for number in sorted(label)))
    return classes, category


def feature_table(
    codes: Sequence[Sequence[int]],
    features: Sequence[int],
    classes: ClassTable,
    category: Mapping[int, int],
    groups: Mapping[int, str | None] | None = None,
) -> LabelTable:
    """Table of a label vector.

    Args:
        codes: the features that meet in each code, for the codes from ``FIRST_CODE`` on; overlapping
            areas make codes with several features.
        features: the features that were selected; others count as if they did not exist.
        classes: of the features.
        category: of the class of each feature that has one.
        groups: value of the split column per feature.
    """
    chosen = sorted(features)
    position = {feature: number for number, feature in enumerate(chosen)}
    names = tuple(sorted({str(value) for value in (groups or {}).values() if value not in (None, "")}))
    number_of = {name: number for number, name in enumerate(names)}
    group = {feature: number_of[str(value)] for feature, value in (groups or {}).items() if value not in (None, "")}
    index_of = {entry.category: index for index, entry in enumerate(classes)}
    class_of, area_of, group_of = [UNLABELLED] * FIRST_CODE, [NONE] * FIRST_CODE, [NONE] * FIRST_CODE
    uncovered = [True, False]
    conflicts = 0
    for members in codes:
        known = [feature for feature in members if feature in position]
        found = {index_of[category[feature]] if feature in category else UNLABELLED for feature in known}
        class_of.append(min(found) if len(found) == 1 else UNLABELLED)
        area_of.append(_single([position[feature] for feature in known]))
        group_of.append(_single([group.get(feature, NONE) for feature in known]))
        uncovered.append(not known)
        conflicts += len(found) > 1
    return LabelTable(
        classes,
        np.array(class_of, dtype=np.int32),
        np.array(area_of, dtype=np.int32),
        np.array(chosen, dtype=np.int64),
        np.array(group_of, dtype=np.int32),
        np.array(uncovered, dtype=bool),
        names,
        conflicts,
    )


def _single(values: Sequence[int]) -> int:
    distinct = set(values)
    if not distinct:
        return NONE
    return distinct.pop() if len(distinct) == 1 else SEVERAL


@dataclass(frozen=True)
class PointPlane:
    """A plane of codes in which only the cells that hold points have one.

    Attributes:
        row, col, code: per cell with points, ordered by row.
        features: the features of the points in each code, from ``FIRST_CODE`` on.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    code: NDArray[np.int32]
    features: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, region: Region, east: NDArray, north: NDArray, feature: NDArray) -> PointPlane:
        """The plane of points; those outside the region are left out."""
        row, col = region.cell_at(east, north)
        inside = (row >= 0) & (row < region.rows) & (col >= 0) & (col < region.cols)
        row, col, feature = row[inside], col[inside], np.asarray(feature)[inside]
        cells, where = np.unique(row * region.cols + col, return_inverse=True)
        order = np.argsort(where, kind="stable")
        bounds = np.searchsorted(where[order], np.arange(len(cells) + 1))
        members = feature[order].tolist()
        features = tuple(
            tuple(members[start:stop]) for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        )
        code = np.arange(len(cells), dtype=np.int32) + FIRST_CODE
        return cls(cells // region.cols, cells % region.cols, code, features)

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        first, last = np.searchsorted(self.row, [window.row_start, window.row_stop])
        row, col, code = (values[first:last] for values in (self.row, self.col, self.code))
        inside = (col >= window.col_start) & (col < window.col_stop)
        plane = np.full(window.shape, NOTHING, dtype=np.int32)
        plane[row[inside] - window.row_start, col[inside] - window.col_start] = code[inside]
        return plane
