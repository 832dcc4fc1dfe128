"""Patches of one part as a network takes them: normalised batches from one or several patch directories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PatchDataset, batches, common_classes
from rlearndeep.scene.bands import Band, BandStatistics, Normalization, match_bands, pooled
from rlearndeep.scene.classes import UNLABELLED, ClassTable


@dataclass(frozen=True)
class Site:
    """One patch directory among several: its memory maps, and where the common bands stand in it."""

    dataset: PatchDataset
    images: NDArray
    valid: NDArray[np.bool_]
    bands: tuple[int, ...]

    def read(self, positions: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_], NDArray[np.int64]]:
        """Raw values in the common order of bands, validity, and class indices of patches."""
        images = self.images[positions]
        if self.bands != tuple(range(images.shape[1])):
            images = images[:, self.bands]
        return images, self.valid[positions], self.dataset.read_labels(positions)


@dataclass(frozen=True)
class Sites:
    """Patch directories with the same bands, classes, kind of label, patch size and resolution.

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
    def bands(self) -> tuple[Band, ...]:
        """The bands in their common order."""
        return self.sites[0].dataset.manifest.reference.bands

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

    def steps(self, size: int) -> int:
        """Number of batches of at most ``size`` patches."""
        return -(-len(self) // size)

    def batches(
        self, size: int, order: tuple[int, int] | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Images (N, bands, rows, cols), normalised, and class indices (N, rows, cols) or (N,).

        Args:
            size: patches in a batch, at most.
            order: seed and epoch of a random order; None is the stored one.
        """
        numbers = np.arange(len(self))
        if order is not None:
            np.random.default_rng(order).shuffle(numbers)
        for chosen in batches(numbers, size):
            yield self.read(chosen)

    def read(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images and labels of some patches, sorted by number within the batch."""
        limits = np.cumsum([0, *map(len, self.positions)])
        images, labels = [], []
        for site, first, last, positions in zip(self.sites.sites, limits[:-1], limits[1:], self.positions, strict=True):
            mine = np.sort(numbers[(numbers >= first) & (numbers < last)]) - first
            if len(mine):
                values, valid, classes = site.read(positions[mine])
                images.append(self.normalization.apply(values, valid))
                if classes.ndim > 1:
                    classes = np.where(valid, classes, UNLABELLED)
                labels.append(classes)
        if len(images) == 1:
            return images[0], labels[0]
        return np.concatenate(images), np.concatenate(labels)

    def class_counts(self) -> NDArray[np.int64]:
        """Number of labelled cells (or patches) per class."""
        count = len(self.sites.classes)
        total = np.zeros(count, dtype=np.int64)
        for site, positions in zip(self.sites.sites, self.positions, strict=True):
            for chosen in batches(positions, 1024):
                classes = site.dataset.read_labels(chosen)
                total += np.bincount(classes[classes != UNLABELLED].ravel(), minlength=count)[:count]
        return total


def _labelled(dataset: PatchDataset, part: str) -> NDArray[np.int64]:
    positions = dataset.positions(part)
    if dataset.manifest.unit == "patch":
        return positions[np.asarray(dataset.labels)[positions] != dataset.manifest.unlabelled]
    return positions[dataset.index["labelled"][positions] > 0]
