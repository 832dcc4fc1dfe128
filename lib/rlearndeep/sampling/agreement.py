"""Two label maps: a cell counts only where both say the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.sampling.labels import LabelTable
from rlearndeep.scene.classes import UNLABELLED, ClassTable
from rlearndeep.scene.codes import IGNORED, Plane
from rlearndeep.scene.geometry import Region, Window

# A class of the second map that the first one does not have.
_UNKNOWN = -2

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class AgreedPlane:
    """The codes of a label plane, ``IGNORED`` where a second one has another class or none.

    Attributes:
        first, second: the planes.
        class_of: class index per code of the first, or ``UNLABELLED``.
        other: index of the same class per code of the second.
    """

    first: Plane
    second: Plane
    class_of: NDArray[np.int32]
    other: NDArray[np.int32]

    @classmethod
    def of(cls, first: Plane, mine: LabelTable, second: Plane, theirs: LabelTable, by_label: bool) -> AgreedPlane:
        """The plane of two label sources.

        Args:
            by_label: classes are the same when their labels are (capitals do not matter), else when their
                categories are.
        """
        same = same_classes(mine.classes, theirs.classes, by_label)
        return cls(first, second, mine.class_of, np.append(same, UNLABELLED).astype(np.int32)[theirs.class_of])

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols)."""
        codes = self.first.read(window)
        codes[self.class_of[codes] != self.other[self.second.read(window)]] = IGNORED
        return codes

    def share(self, region: Region) -> dict[str, float | int | None]:
        """Cells that both maps label, those in which they agree, and the share of these in percent."""
        both = agreeing = 0
        for row in range(0, region.rows, _ROWS_AT_ONCE):
            window = Window(row, min(row + _ROWS_AT_ONCE, region.rows), 0, region.cols)
            mine, theirs = self.class_of[self.first.read(window)], self.other[self.second.read(window)]
            labelled = (mine != UNLABELLED) & (theirs != UNLABELLED)
            both += int(labelled.sum())
            agreeing += int((labelled & (mine == theirs)).sum())
        return {"cells": both, "agreeing": agreeing, "percent": round(100 * agreeing / both, 2) if both else None}


def same_classes(mine: ClassTable, theirs: ClassTable, by_label: bool) -> NDArray[np.int32]:
    """Index in ``mine`` of each class of ``theirs``; a negative number other than ``UNLABELLED`` for none."""
    if not by_label:
        found = mine.indices_of(theirs.categories)
        return np.where(found == UNLABELLED, _UNKNOWN, found).astype(np.int32)
    known = {label.casefold(): index for index, label in enumerate(mine.labels)}
    return np.array([known.get(label.casefold(), _UNKNOWN) for label in theirs.labels], dtype=np.int32)
