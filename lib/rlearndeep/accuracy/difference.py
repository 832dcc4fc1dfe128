"""The difference map: which class of the reference is mapped as which, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.levels import Level
from rlearndeep.accuracy.tally import Units, pair_codes
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED, ClassTable, MapClass

_LARGEST = 2**31 - 1
_PALE = 0.85
"""Share of white in the colour of cells that agree."""


@dataclass(frozen=True)
class DifferenceCoding:
    """Categories of a difference map: ``reference * base + map``.

    ``base`` is the power of ten above the largest category, so 3 mapped as 12 is 312 with base 100. Where
    a category is negative, or too large for that, classes are numbered from 1 instead.

    Attributes:
        classes: of the level compared.
        reference: class index of each reference code.
        mapped: class index of each code of the map.
        null: value of cells where either is null.
    """

    classes: ClassTable
    reference: NDArray[np.int64]
    mapped: NDArray[np.int64]
    null: int

    @classmethod
    def at(cls, level: Level, number: int, null: int) -> DifferenceCoding:
        """The coding for one map at a level that it and the reference take part in."""
        mapped = level.maps[number]
        if level.reference is None or mapped is None:
            raise DeepLearningError(
                f"Map and reference must both know level '{level.name}'; one is coarser. Choose a coarser level=."
            )
        return cls(level.classes, level.reference, mapped, null)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each class."""
        categories = self.classes.categories
        largest = int(categories.max())
        if int(categories.min()) >= 0 and largest * 10 ** len(str(largest)) + largest <= _LARGEST:
            return categories
        return np.arange(1, len(categories) + 1)

    @property
    def base(self) -> int:
        """Factor of the reference."""
        return 10 ** len(str(int(self.numbers.max())))

    def table(self) -> NDArray[np.int32]:
        """Category for each joined code of reference and map."""
        numbers = np.append(self.numbers, 0)
        values = numbers[self.reference][:, None] * self.base + numbers[self.mapped][None, :]
        known = (self.reference != UNLABELLED)[:, None] & (self.mapped != UNLABELLED)[None, :]
        return np.where(known, values, self.null).astype(np.int32).ravel()

    def joined(self, units: Units, number: int) -> NDArray[np.int64]:
        """Joined codes of reference and map ``number`` of coded cells."""
        return pair_codes(units.reference, units.maps[number], len(self.mapped))

    def class_table(self, categories: NDArray[np.int32]) -> ClassTable:
        """A class for each category: pale in the class's colour where both agree, else in the map's colour."""
        base, place = self.base, {number: index for index, number in enumerate(self.numbers.tolist())}
        labels, colors = self.classes.labels, self.classes.colors
        entries = []
        for category in categories.tolist():
            truth, mapped = (place[number] for number in divmod(category, base))
            label, (red, green, blue) = labels[truth], colors[mapped]
            if truth == mapped:
                entries.append(MapClass(category, label, (_pale(red), _pale(green), _pale(blue))))
            else:
                entries.append(MapClass(category, f"{label} mapped as {labels[mapped]}", (red, green, blue)))
        return ClassTable(tuple(entries))


def _pale(part: int) -> int:
    return round(255 * _PALE + part * (1.0 - _PALE))
