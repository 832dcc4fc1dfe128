"""Patches on their way to the directory: columns of equal length, one entry per patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.geometry import Region


@dataclass(frozen=True)
class PatchSet:
    """Patches that were found worth keeping.

    Attributes:
        row, col: first cell, counted in the region.
        height, width: cells of imagery; a patch of the rule ``object`` is padded beyond them.
        label: class index; of a label per cell the commonest.
        area: position of the area in the label table, negative for none or several.
        group: position of the group of the split column, negative for none or several.
        labelled: number of labelled cells.
        counts: labelled cells per class, (patches, classes), or None where a patch has one class.
        acquisition: number of the acquisition; None where there is but one.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    label: NDArray[np.int32]
    area: NDArray[np.int32]
    group: NDArray[np.int32]
    labelled: NDArray[np.int64]
    counts: NDArray[np.int32] | None = None
    acquisition: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.row)

    def take(self, positions: NDArray | slice) -> PatchSet:
        """The patches at ``positions`` (or where a mask is True)."""
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {
            name: None if values is None else values[positions] for name, values in columns.items()
        }
        return PatchSet(**taken)

    @classmethod
    def joined(cls, sets: Sequence[PatchSet]) -> PatchSet:
        """All patches of several sets, one set after the other."""
        if len(sets) == 1:
            return sets[0]
        joined: dict[str, Any] = {}
        for field in fields(cls):
            columns = [getattr(each, field.name) for each in sets]
            joined[field.name] = None if columns[0] is None else np.concatenate(columns)
        return cls(**joined)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """One patch of each place, and the number of each patch's place; every patch its own with one acquisition."""
        if self.acquisition is None:
            return np.arange(len(self)), np.arange(len(self))
        _, first, place = np.unique(
            np.stack([self.row, self.col], axis=1), axis=0, return_index=True, return_inverse=True
        )
        return first, place.ravel()

    def stand_where(self, others: PatchSet) -> NDArray[np.bool_]:
        """True for patches at whose place, in any acquisition, one of others lies."""
        mine, theirs = ((patches.row << np.int64(32)) + patches.col for patches in (self, others))
        return np.isin(mine, theirs)

    def of_acquisition(self, number: int) -> NDArray[np.int64]:
        """Positions of the patches of an acquisition, ascending."""
        return np.arange(len(self)) if self.acquisition is None else np.flatnonzero(self.acquisition == number)

    def centres(self, region: Region) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East and north of the centres."""
        return region.centre(self.row + (self.height - 1) / 2, self.col + (self.width - 1) / 2)

    def has_class(self, index: int) -> NDArray[np.bool_]:
        """True for patches with at least one cell (or the label) of a class."""
        return self.label == index if self.counts is None else self.counts[:, index] > 0

    def weights(self, classes: int) -> NDArray[np.int64]:
        """What each patch brings of each class, (patches, classes): labelled cells, or 1 for its one label."""
        if self.counts is not None:
            return self.counts.astype(np.int64)
        return (self.label[:, None] == np.arange(classes)).astype(np.int64)

    def with_classes(self, kept: NDArray[np.bool_]) -> PatchSet:
        """The patches when only the ``kept`` classes, a flag per class, remain; all others must be absent."""
        index = np.append(np.where(kept, np.cumsum(kept) - 1, UNLABELLED), UNLABELLED).astype(np.int32)
        counts = None if self.counts is None else self.counts[:, kept]
        return replace(self, label=index[self.label], counts=counts)

    def totals(self, owner: NDArray, owners: int, classes: int) -> NDArray[np.int64]:
        """Sum of :meth:`weights` over the patches of each owner (a block, a part), (owners, classes).

        Patches with a negative owner or without label are left out.
        """
        used = (owner >= 0) & (self.label != UNLABELLED)
        if self.counts is None:
            keys = owner[used].astype(np.int64) * classes + self.label[used]
            return np.bincount(keys, minlength=owners * classes).reshape(owners, classes)
        sums = np.zeros((owners, classes), dtype=np.int64)
        np.add.at(sums, owner[used], self.counts[used])
        return sums
