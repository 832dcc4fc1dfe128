"""Patches of which only the labels of some areas are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part
from rlearndeep.patches import PatchDataset, batches
from rlearndeep.scene.classes import UNLABELLED

_PATCHES_AT_ONCE = 1024
_KINDS_OF_VALUES = 5


@dataclass(frozen=True)
class LabelAreas:
    """Which area gave each label of a patch directory.

    A label is a patch's, a cell's, or, where classes are present or not, a patch's for one class. An area claims the
    class, the value, or the presence of a class; nobody claims an absence.

    Attributes:
        dataset: the directory.
        categories: of the areas, ascending.
        number: per label 1 + the position of its area in ``categories``; 0 where there is no label, nobody claims
            it, or several areas do. (patches,), (patches, rows, cols) or (patches, classes); may be a memory map.
        counts: claims per area, 0 first, and class; (areas + 1, classes), of values (areas + 1, 1).
        kinds: per area what folds share evenly: its commonest class, or in which fifth of the areas its mean value
            lies.
        blocks: per area, the block of the split in which most of its labels lie; 0 without blocks.
    """

    dataset: PatchDataset
    categories: NDArray[np.int64]
    number: NDArray[np.int32]
    counts: NDArray[np.int64]
    kinds: NDArray[np.int64]
    blocks: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: PatchDataset, categories: NDArray[np.int64], number: NDArray[np.int32]) -> LabelAreas:
        """Count the labels of each area.

        Raises:
            DeepLearningError: fewer than two areas gave a label.
        """
        size = len(categories) + 1
        blocks, block = np.unique(dataset.index["block"], return_inverse=True)
        counts = np.zeros((size, max(1, len(dataset.manifest.classes))), dtype=np.int64)
        in_block = np.zeros((size, len(blocks)), dtype=np.int64)
        sums = np.zeros(size)
        for chosen in batches(np.arange(len(dataset)), _PATCHES_AT_ONCE):
            labels, areas = dataset.read_labels(chosen), np.asarray(number[chosen])
            known = claimed(labels, dataset.manifest.task)
            classes = class_of(labels, dataset.manifest.task)
            np.add.at(counts, (areas[known], classes[known]), 1)
            np.add.at(sums, areas[known], labels[known])
            owner = np.broadcast_to(block[chosen].reshape(-1, *[1] * (areas.ndim - 1)), areas.shape)
            np.add.at(in_block, (areas[known], owner[known]), 1)
        labelled = counts[1:].sum(axis=1) > 0
        if labelled.sum() < 2:
            raise DeepLearningError(
                f"Judging labels needs patches whose labels came from several areas or points; those of "
                f"'{dataset.path}' came from {int(labelled.sum())}. "
                "Sample them from a label vector, with label=cells or label=inside."
            )
        kinds = counts[1:].argmax(axis=1)
        if dataset.manifest.task == "value":
            kinds = _fifths(sums[1:] / np.maximum(counts[1:, 0], 1), labelled)
        return cls(dataset, categories, number, counts, kinds, blocks[in_block[1:].argmax(axis=1)])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """True for each area that gave a label, (areas,)."""
        return self.counts[1:].sum(axis=1) > 0

    def shown(self, positions: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which labels of some patches are seen, in the shape of the labels.

        Args:
            positions: of the patches.
            seen: True for each area whose labels are, (areas + 1,). The first says whether the absence of classes,
                which nobody claims, is seen.
        """
        labels, number = self.dataset.read_labels(positions), np.asarray(self.number[positions])
        shown = claimed(labels, self.dataset.manifest.task) & (number > 0) & seen[number]
        return shown | (labels == 0) if seen[0] else shown

    def having(self, seen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Positions of the patches that have a label to be seen; ``seen`` as in :meth:`shown`."""
        found = []
        for chosen in batches(np.arange(len(self.dataset)), _PATCHES_AT_ONCE):
            mine = self.shown(chosen, seen).reshape(len(chosen), -1).any(axis=1)
            found.append(chosen[mine])
        return np.concatenate(found)


def claimed(labels: NDArray, task: str) -> NDArray[np.bool_]:
    """Labels that an area can have given: all that are known, but no absence."""
    if task == "presence":
        return labels == 1
    return ~np.isnan(labels) if task == "value" else labels != UNLABELLED


def class_of(labels: NDArray, task: str) -> NDArray[np.int64]:
    """Index of the class that each label speaks of; 0 for values."""
    if task == "presence":
        return np.broadcast_to(np.arange(labels.shape[-1]), labels.shape)
    return np.zeros(labels.shape, dtype=np.int64) if task == "value" else labels


def _fifths(means: NDArray[np.float64], labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    limits = np.quantile(means[labelled], np.arange(1, _KINDS_OF_VALUES) / _KINDS_OF_VALUES)
    return np.searchsorted(limits, means, side="right")


@dataclass(frozen=True, kw_only=True)
class AreaPart(Part):
    """Patches of which only the labels of some areas are seen.

    Attributes:
        areas: which area gave each label.
        seen: True for each area whose labels are seen, as in :meth:`LabelAreas.shown`.
    """

    areas: LabelAreas
    seen: NDArray[np.bool_]

    def raw(self, numbers: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_], NDArray]:
        """As :meth:`Part.raw`; labels of other areas are ``unlabelled``."""
        values, valid, labels = super().raw(numbers)
        return values, valid, self._hidden(labels, self.positions[0][np.sort(numbers)])

    def numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Number of the area of each label of some patches, in the order of :meth:`read`."""
        return np.asarray(self.areas.number[self.positions[0][np.sort(numbers)]])

    def _hidden(self, stored: NDArray, positions: NDArray[np.int64]) -> NDArray:
        shown = self.areas.shown(positions, self.seen)
        return np.where(shown, stored, stored.dtype.type(self.unlabelled))

    def _labels(self) -> Iterator[NDArray]:
        (site,), (positions,) = self.sites.sites, self.positions
        for chosen in batches(positions, _PATCHES_AT_ONCE):
            yield self._read_labels(self._hidden(site.dataset.labels[chosen], chosen), site.valid[chosen])
