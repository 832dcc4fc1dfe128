"""Classes of a map: categories in the raster, indices inside a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.plain import listed, mapping, text, whole

UNLABELLED = -1
"""Class index of a cell or patch without a label, wherever indices are signed."""

LARGEST_CATEGORY = 2**31 - 1
"""Rasters hold categories from its negative to itself; the integer below is null there."""

MOST_CLASSES = 10_000
"""A label source with more holds numbers of objects, or quantities."""

_LONGEST_SHORT = 30

Color = tuple[int, int, int]

# Okabe and Ito's palette, distinguishable with the common forms of colour blindness (Wong 2011,
# Nature Methods 8), then lighter relatives.
_PALETTE: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),
    (120, 120, 120),
    (152, 78, 163),
    (178, 223, 138),
    (251, 154, 153),
    (166, 118, 29),
)


@dataclass(frozen=True)
class MapClass:
    """One class.

    Attributes:
        category: value in maps.
        label: text, may be empty.
        color: red, green, blue; 0-255.
        parents: name of each coarser level and the class there, the finest level first; empty without a table
            of levels.
    """

    category: int
    label: str
    color: Color | None = None
    parents: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ClassTable:
    """The classes of a label source in the order of their indices 0..K-1.

    Categories are distinct and such as a raster can hold; the order is ascending by category.
    """

    classes: tuple[MapClass, ...]

    def __post_init__(self) -> None:
        categories = [entry.category for entry in self.classes]
        if len(set(categories)) != len(categories):
            raise DeepLearningError(
                f"Categories of classes must be distinct; got {categories}. Give every class its own category."
            )
        absurd = next((category for category in categories if abs(category) > LARGEST_CATEGORY), None)
        if absurd is not None:
            raise DeepLearningError(
                f"Categories of classes must lie from {-LARGEST_CATEGORY} to {LARGEST_CATEGORY}, as rasters hold them; "
                f"got {str(absurd)[:40]}. Give the class a smaller number, or label with a text column."
            )
        ordered = tuple(sorted(self.classes, key=lambda entry: entry.category))
        object.__setattr__(self, "classes", ordered)

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[MapClass]:
        return iter(self.classes)

    def __getitem__(self, index: int) -> MapClass:
        return self.classes[index]

    @property
    def categories(self) -> NDArray[np.int64]:
        """Category of each class index."""
        return np.array([entry.category for entry in self.classes], dtype=np.int64)

    @property
    def labels(self) -> list[str]:
        """Label of each class index; the category where a class has no label."""
        return [entry.label or str(entry.category) for entry in self.classes]

    @property
    def names(self) -> list[str]:
        """Category and label of each class index: two classes with the same name are the same."""
        return [f"{entry.category} {entry.label}".rstrip() for entry in self.classes]

    @property
    def colors(self) -> list[Color]:
        """Colour of each class index; classes without one get a colour from a fixed palette."""
        return [entry.color or _PALETTE[index % len(_PALETTE)] for index, entry in enumerate(self.classes)]

    def indices_of(self, categories: ArrayLike) -> NDArray[np.int32]:
        """Class indices of category values, any shape; ``UNLABELLED`` for values that are no class."""
        values = np.asarray(categories)
        if not len(self):
            return np.full(values.shape, UNLABELLED, dtype=np.int32)
        known = self.categories
        position = np.clip(np.searchsorted(known, values), 0, len(known) - 1)
        return np.where(known[position] == values, position, UNLABELLED).astype(np.int32)

    def categories_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Category values of class indices, any shape; indices must lie in 0..K-1."""
        return self.categories[np.asarray(indices)]

    def to_json(self) -> list[dict]:
        """Plain values for a manifest, in the order of the indices."""
        return [
            {"category": entry.category, "label": entry.label, "color": list(entry.color) if entry.color else None}
            | ({"parents": dict(entry.parents)} if entry.parents else {})
            for entry in self.classes
        ]

    @classmethod
    def from_json(cls, values: list[dict]) -> ClassTable:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError, DeepLearningError: the values are no classes in the order of their indices.
        """
        table = cls(
            tuple(
                MapClass(
                    whole(value["category"]),
                    text(value["label"]),
                    None if value.get("color") is None else _color(value["color"]),
                    tuple((text(level), text(parent)) for level, parent in mapping(value.get("parents", {})).items()),
                )
                for value in listed(values)
            )
        )
        if [entry["category"] for entry in values] != table.categories.tolist():
            raise ValueError("the categories of classes do not ascend")
        return table


def shortened(label: str) -> str:
    """What of a label has room beside a picture, in one line."""
    line = " ".join(label.split())
    return line if len(line) <= _LONGEST_SHORT else f"{line[: _LONGEST_SHORT - 1]}…"


def _color(parts: list[int]) -> Color:
    red, green, blue = (whole(part) for part in listed(parts))
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"the parts of a colour lie from 0 to 255; got {str(parts)[:40]}")
    return red, green, blue
