"""Label planes: which code a cell has, and what a code means.

A label source is rasterised once into a plane of codes. A code is a small number behind which stands
everything the source knows of a cell: its class or value, its one area, its group for a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED, ClassTable, Color, MapClass
from rlearndeep.scene.codes import FIRST_CODE, NOTHING
from rlearndeep.scene.geometry import Region, Window
from rlearndeep.scene.tasks import Quantity

_BACKGROUND_COLOR = (200, 200, 200)

_ONE_CLASS = ClassTable((MapClass(1, ""),))

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
        quantity: what the values are when labels are numbers (regression). All labelled codes are then of one
            class, which stands for "has a value" and does not reach the dataset.
        values: the value of each code, not a number for none; None where a plane has values of its own.
        is_empty: True when there are no labels at all: every cell may be sampled, none is labelled.
        shared: positions of the areas of each code in which several meet.
    """

    classes: ClassTable
    class_of: NDArray[np.int32]
    area_of: NDArray[np.int32]
    areas: NDArray[np.int64]
    group_of: NDArray[np.int32]
    uncovered: NDArray[np.bool_]
    groups: tuple[str, ...] = ()
    conflicts: int = 0
    quantity: Quantity | None = None
    values: NDArray[np.float32] | None = None
    is_empty: bool = False
    shared: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def named_classes(self) -> ClassTable:
        """The classes that reach the dataset: none of values, none without labels."""
        return ClassTable(()) if self.quantity or self.is_empty else self.classes

    def area_values(self) -> NDArray[np.float32]:
        """Value of each area or point, not a number for none."""
        result = np.full(len(self.areas), np.nan, dtype=np.float32)
        if self.values is not None:
            single = self.area_of >= 0
            result[self.area_of[single]] = self.values[single]
        return result

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


def raster_table(
    classes: ClassTable, minimum: int, maximum: int, class_of_category: Mapping[int, int] | None = None
) -> LabelTable:
    """Table of a label raster whose code for category c is ``c - minimum + FIRST_CODE``.

    Args:
        classes: of the labels.
        minimum, maximum: smallest and largest category of the raster.
        class_of_category: category of the class of each category of the raster; None where they are the same.
    """
    categories = np.arange(minimum, maximum + 1)
    indices = classes.indices_of(categories)
    if class_of_category is not None:
        indices = np.full(len(categories), UNLABELLED, dtype=np.int32)
        known = list(class_of_category)
        indices[np.array(known) - minimum] = classes.indices_of([class_of_category[number] for number in known])
    return _plain_table(classes, np.concatenate([[UNLABELLED] * FIRST_CODE, indices]).astype(np.int32))


def value_raster_table(quantity: Quantity) -> LabelTable:
    """Table of a raster of values, whose plane has ``FIRST_CODE`` where there is one."""
    return replace(_plain_table(_ONE_CLASS, np.array([UNLABELLED, UNLABELLED, 0], dtype=np.int32)), quantity=quantity)


def empty_table() -> LabelTable:
    """Table of no labels: all cells can be sampled, none is labelled."""
    return replace(_plain_table(_ONE_CLASS, np.array([0, UNLABELLED], dtype=np.int32)), is_empty=True)


def _plain_table(classes: ClassTable, class_of: NDArray[np.int32]) -> LabelTable:
    """Table of a source that knows no areas."""
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
    shared: dict[int, tuple[int, ...]] = {}
    for code, members in enumerate(codes, start=FIRST_CODE):
        known = [feature for feature in members if feature in position]
        found = {index_of[category[feature]] if feature in category else UNLABELLED for feature in known}
        class_of.append(min(found) if len(found) == 1 else UNLABELLED)
        area_of.append(_single([position[feature] for feature in known]))
        group_of.append(_single([group.get(feature, NONE) for feature in known]))
        uncovered.append(not known)
        conflicts += len(found) > 1
        if area_of[code] == SEVERAL:
            shared[code] = tuple(position[feature] for feature in known)
    return LabelTable(
        classes,
        np.array(class_of, dtype=np.int32),
        np.array(area_of, dtype=np.int32),
        np.array(chosen, dtype=np.int64),
        np.array(group_of, dtype=np.int32),
        np.array(uncovered, dtype=bool),
        names,
        conflicts,
        shared=shared,
    )


def value_table(
    codes: Sequence[Sequence[int]],
    features: Sequence[int],
    values: Mapping[int, float],
    quantity: Quantity,
    groups: Mapping[int, str | None] | None = None,
) -> LabelTable:
    """Table of a label vector whose labels are numbers; where features meet a cell has the mean of their values.

    Args:
        codes, features, groups: as in :func:`feature_table`.
        values: of each feature that has one.
        quantity: what they are.
    """
    known = set(features) & set(values)
    table = feature_table(codes, features, _ONE_CLASS, dict.fromkeys(known, 1), groups)
    per_code = np.full(len(table.class_of), np.nan, dtype=np.float32)
    for code, members in enumerate(codes, start=FIRST_CODE):
        found = [values[feature] for feature in members if feature in known]
        if found and table.class_of[code] != UNLABELLED:
            per_code[code] = sum(found) / len(found)
    return replace(table, quantity=quantity, values=per_code)


def density_table(counts: NDArray[np.int64], percentile: float) -> tuple[LabelTable, float]:
    """Table of the number of points per cell, cut and scaled to 0..1, and the number that became 1.

    A cell with n points has the value ``min(n, m) / m``, where m is the ``percentile`` of n over the cells that hold
    points (interpolated linearly, at least 1); a cell without points has the value 0.

    Args:
        counts: points in each code, for the codes from ``FIRST_CODE`` on.
        percentile: 0 to 100; 100 cuts nothing.

    Raises:
        DeepLearningError: there are no points.
    """
    if not len(counts):
        raise DeepLearningError(
            "label=density counts points; none lies in the region. Set the region to the points (g.region), or check "
            "where= and layer=."
        )
    full = max(1.0, float(np.percentile(counts, percentile)))
    values = np.concatenate([[0.0, np.nan], np.minimum(counts, full) / full]).astype(np.float32)
    class_of = np.where(np.isnan(values), UNLABELLED, 0).astype(np.int32)
    table = replace(_plain_table(_ONE_CLASS, class_of), values=values)
    return replace(table, quantity=Quantity("density", f"{full:g} points per cell")), full


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
    def empty(cls) -> PointPlane:
        """The plane without any label."""
        nowhere = np.empty(0, dtype=np.int64)
        return cls(nowhere, nowhere, nowhere.astype(np.int32), ())

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

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of points in each code, from ``FIRST_CODE`` on."""
        return np.array([len(members) for members in self.features], dtype=np.int64)

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        first, last = np.searchsorted(self.row, [window.row_start, window.row_stop])
        row, col, code = (values[first:last] for values in (self.row, self.col, self.code))
        inside = (col >= window.col_start) & (col < window.col_stop)
        plane = np.full(window.shape, NOTHING, dtype=np.int32)
        plane[row[inside] - window.row_start, col[inside] - window.col_start] = code[inside]
        return plane
