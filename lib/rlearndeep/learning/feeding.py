"""Patches of one part as a network takes them: normalised batches from one or several patch directories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import Manifest, PatchDataset, batches, common_classes
from rlearndeep.scene.bands import Band, BandStatistics, Normalization, match_bands, pooled
from rlearndeep.scene.classes import UNLABELLED, ClassTable


@dataclass(frozen=True)
class Site:
    """One patch directory among several: its memory maps, and where the common bands stand in it."""

    dataset: PatchDataset
    images: NDArray
    valid: NDArray[np.bool_]
    bands: tuple[int, ...]

    def read(self, positions: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_], NDArray]:
        """Raw values in the common order of bands, validity, and labels of patches, all as they are stored."""
        images = self.images[positions]
        if self.bands != tuple(range(images.shape[1])):
            images = np.ascontiguousarray(images[:, self.bands])
        return images, self.valid[positions], self.dataset.labels[positions]


@dataclass(frozen=True)
class Sites:
    """Patch directories with the same bands, task, classes or units, kind of label, patch size and resolution.

    Bands, in their order, and class labels and colours are those of the first.
    """

    sites: tuple[Site, ...]
    classes: ClassTable

    @classmethod
    def of(cls, datasets: Sequence[PatchDataset]) -> Sites:
        """Check that patch directories fit together.

        Raises:
            DeepLearningError: they do not.
        """
        first = datasets[0].manifest
        sites = []
        for dataset in datasets:
            source = dataset.manifest.reference
            for what, mine, other in (
                ("patch size", first.reference.shape, source.shape),
                ("kind of label", first.unit, dataset.manifest.unit),
                ("task", first.task, dataset.manifest.task),
                ("units", _units(first), _units(dataset.manifest)),
            ):
                if mine != other:
                    raise DeepLearningError(
                        f"Patch directories must have the same {what}; '{datasets[0].path}' has {mine}, "
                        f"'{dataset.path}' has {other}. Sample them with the same options."
                    )
            bands = tuple(match_bands(first.reference.bands, source.bands))
            sites.append(Site(dataset, dataset.images(source.name), dataset.valid(source.name), bands))
        return cls(tuple(sites), common_classes(datasets))

    @property
    def manifest(self) -> Manifest:
        """The manifest of the first directory; task, unit and patch size are those of all."""
        return self.sites[0].dataset.manifest

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands in their common order."""
        return self.manifest.reference.bands

    @property
    def statistics(self) -> list[BandStatistics]:
        """Per band, over the valid cells of all training parts."""
        return pooled(
            [
                [site.dataset.manifest.reference.statistics[position] for position in site.bands]
                for site in self.sites
                if len(site.dataset.positions("training"))
            ]
        )

    def part(self, name: str, normalization: Normalization) -> Part:
        """The patches of a part that have a label."""
        positions = [_labelled(site.dataset, name) for site in self.sites]
        return Part(self, normalization, tuple(positions))


@dataclass(frozen=True)
class Part:
    """Patches of one part of all sites, numbered through.

    Attributes:
        sites: where they are.
        normalization: from raw values to network input.
        positions: of the patches, per site.
    """

    sites: Sites
    normalization: Normalization
    positions: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return sum(map(len, self.positions))

    def sample(self, count: int) -> Part:
        """``count`` patches, or all where there are fewer, spread evenly over the part."""
        numbers = np.unique(np.linspace(0, len(self) - 1, min(len(self), count)).astype(np.int64))
        limits = np.cumsum([0, *map(len, self.positions)])
        return replace(
            self,
            positions=tuple(
                positions[numbers[(numbers >= first) & (numbers < last)] - first]
                for first, last, positions in zip(limits[:-1], limits[1:], self.positions, strict=True)
            ),
        )

    def steps(self, size: int) -> int:
        """Number of batches of at most ``size`` patches."""
        return -(-len(self) // size)

    @property
    def unlabelled(self) -> float:
        """Stored label of what has none; NaN for values."""
        return self.sites.manifest.unlabelled

    def batches(self, size: int, order: tuple[int, int] | None = None) -> Iterator[tuple[NDArray[np.float32], NDArray]]:
        """Images and labels as :meth:`read` gives them; size and order as in :meth:`raw_batches`."""
        for values, valid, labels in self.raw_batches(size, order):
            yield self.normalization.apply(values, valid), self._read_labels(labels, valid)

    def raw_batches(
        self, size: int, order: tuple[int, int] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[NDArray, NDArray[np.bool_], NDArray]]:
        """Values (N, bands, rows, cols), validity (N, rows, cols) and labels (N, ...) as they are stored.

        Args:
            size: patches in a batch, at most.
            order: seed and epoch of a random order; None is the stored one.
            share: which of how many nearly equal pieces of each batch is wanted; a piece without patches is a
                patch without label.
        """
        numbers = np.arange(len(self))
        if order is not None:
            np.random.default_rng(order).shuffle(numbers)
        for chosen in batches(numbers, size):
            mine = np.array_split(chosen, share[1])[share[0]]
            if len(mine):
                yield self.raw(mine)
            else:
                values, valid, labels = self.raw(chosen[:1])
                yield values, valid, np.full_like(labels, self.unlabelled)

    def read(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray]:
        """Images (N, bands, rows, cols), normalised, and labels (N, *manifest.label_shape), sorted by number.

        Labels are class indices, or presence, with ``UNLABELLED``, or values with NaN, where there is no label
        or the cell is null.
        """
        values, valid, labels = self.raw(numbers)
        return self.normalization.apply(values, valid), self._read_labels(labels, valid)

    def raw(self, numbers: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_], NDArray]:
        """Values, validity and labels of some patches as they are stored, sorted by number."""
        limits = np.cumsum([0, *map(len, self.positions)])
        found = []
        for site, first, last, positions in zip(self.sites.sites, limits[:-1], limits[1:], self.positions, strict=True):
            mine = np.sort(numbers[(numbers >= first) & (numbers < last)]) - first
            if len(mine):
                found.append(site.read(positions[mine]))
        if len(found) == 1:
            return found[0]
        values, valid, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return values, valid, labels

    def _read_labels(self, stored: NDArray, valid: NDArray[np.bool_]) -> NDArray:
        known = valid if self.sites.manifest.unit == "cell" else True
        if self.sites.manifest.task == "value":
            return np.where(known, stored, np.float32(np.nan))
        return np.where(known & (stored != self.unlabelled), stored.astype(np.int64), UNLABELLED)

    def class_counts(self) -> NDArray[np.int64]:
        """Number of labelled cells (or patches) per class; of patches with the class where one may have several."""
        count = len(self.sites.classes)
        total = np.zeros(count, dtype=np.int64)
        for labels in self._labels() if count else ():
            if self.sites.manifest.task == "presence":
                total += (labels == 1).sum(axis=0)
            else:
                total += np.bincount(labels[labels != UNLABELLED].ravel(), minlength=count)[:count]
        return total

    def label_statistics(self) -> BandStatistics:
        """Statistics of the values of all labelled cells (or patches)."""
        return reduce(
            BandStatistics.__add__,
            (BandStatistics.of(labels[~np.isnan(labels)].astype(np.float64)) for labels in self._labels()),
            BandStatistics.of(np.empty(0)),
        )

    def _labels(self) -> Iterator[NDArray]:
        for site, positions in zip(self.sites.sites, self.positions, strict=True):
            for chosen in batches(positions, 1024):
                yield self._read_labels(site.dataset.labels[chosen], site.valid[chosen])


def _labelled(dataset: PatchDataset, part: str) -> NDArray[np.int64]:
    positions = dataset.positions(part)
    if dataset.manifest.unit == "cell":
        return positions[dataset.index["labelled"][positions] > 0]
    labels = dataset.read_labels(positions)
    none = np.isnan(labels) if dataset.manifest.task == "value" else labels == UNLABELLED
    return positions[~none.all(axis=tuple(range(1, none.ndim)))]


def _units(manifest: Manifest) -> str:
    return manifest.quantity.units if manifest.quantity else ""
