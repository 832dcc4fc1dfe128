"""Patches of one part as a network takes them: normalised batches from one or several patch directories."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.sources import REFERENCE_ALONE, Choice, SiteSource, positions_of, stack
from rlearndeep.model import BRANCH
from rlearndeep.patches import Manifest, PatchDataset, batches, check_distinct, common_classes
from rlearndeep.scene.bands import Band, BandStatistics, Normalization, pooled
from rlearndeep.scene.classes import UNLABELLED, ClassTable
from rlearndeep.scene.geometry import Windows
from rlearndeep.scene.inputs import Further, Images, Inputs

_CELLS_AT_ONCE = 2**19

Raw = tuple[Any, NDArray[np.bool_], NDArray]
"""Values (an array, or ``Inputs``), validity of the reference or the stack, and labels, all as they are stored."""


@dataclass(frozen=True)
class Site:
    """One patch directory among several: its memory maps, and where the common bands stand in it.

    Attributes:
        dataset: the directory.
        images, valid: of the reference.
        bands: where the common bands of the reference stand.
        further: sources that the network looks at beside the reference.
        has_reference: whether the network looks at the reference.
    """

    dataset: PatchDataset
    images: NDArray
    valid: NDArray[np.bool_]
    bands: tuple[int, ...]
    further: tuple[SiteSource, ...] = ()
    has_reference: bool = True

    @property
    def stacked(self) -> tuple[SiteSource, ...]:
        """Sources whose bands stand behind those of the reference."""
        return tuple(source for source in self.further if source.use != BRANCH)

    @property
    def branches(self) -> tuple[SiteSource, ...]:
        """Sources that the network has a branch for."""
        return tuple(source for source in self.further if source.use == BRANCH)

    def read(self, positions: NDArray[np.int64]) -> Raw:
        """Raw values in the common order of bands, validity, and labels of patches, all as they are stored."""
        images, valid = self.images[positions], self.valid[positions]
        if self.bands != tuple(range(images.shape[1])):
            images = np.ascontiguousarray(images[:, self.bands])
        if not self.further:
            return images, valid, self.dataset.labels[positions]
        windows = self._windows(positions)
        if self.stacked:
            images, valid = stack(images, valid, [source.stacked(positions, windows) for source in self.stacked])
        branches = {source.source.name: source.branch(positions, windows) for source in self.branches}
        return Inputs(images, branches) if branches else images, valid, self.dataset.labels[positions]

    def known(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The validity that :meth:`read` gives."""
        valid = self.valid[positions]
        if self.stacked:
            windows = self._windows(positions)
            valid = np.logical_and.reduce([valid, *(source.known(positions, windows) for source in self.stacked)])
        return valid

    def useful(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each patch in which the network has something to look at: all of a stack, one of the branches."""
        useful = np.ones(len(positions), dtype=bool)
        for source in self.stacked:
            useful &= ~source.absent(positions)
        if not self.has_reference:
            useful &= ~np.all([source.absent(positions) for source in self.branches], axis=0)
        return useful

    def _windows(self, positions: NDArray[np.int64]) -> Windows:
        rows = self.dataset.index[positions]
        manifest = self.dataset.manifest
        return Windows(manifest.region, rows["row"], rows["col"], manifest.reference.shape)


@dataclass(frozen=True)
class Sites:
    """Patch directories with the same bands, task, classes or units, kind of label, patch size and resolution.

    Bands, in their order, and class labels and colours are those of the first.
    """

    sites: tuple[Site, ...]
    classes: ClassTable
    choice: Choice = REFERENCE_ALONE

    @classmethod
    def of(cls, datasets: Sequence[PatchDataset], choice: Choice = REFERENCE_ALONE) -> Sites:
        """Check that patch directories fit together.

        Args:
            datasets: the directories.
            choice: the sources that a network looks at.

        Raises:
            DeepLearningError: they do not.
        """
        check_distinct(datasets)
        first = datasets[0].manifest
        wanted = [source for source in first.sources[1:] if source.name in choice.uses]
        sites = []
        for dataset in datasets:
            source = dataset.manifest.reference
            _check_same(datasets[0], dataset)
            bands = positions_of(first.reference.bands, dataset, source)
            further = tuple(SiteSource.of(dataset, other, choice.uses[other.name]) for other in wanted)
            images, valid = dataset.images(source.name), dataset.valid(source.name)
            sites.append(Site(dataset, images, valid, bands, further, choice.has_reference))
        return cls(tuple(sites), common_classes(datasets), choice)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the first directory; task, unit and patch size are those of all."""
        return self.sites[0].dataset.manifest

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands of the reference, with those stacked upon it behind them, in their common order."""
        stacked = (band for source in self.sites[0].stacked for band in source.source.bands)
        return (*self.manifest.reference.bands, *stacked)

    @property
    def further(self) -> tuple[SiteSource, ...]:
        """Sources beside the reference that the network looks at, of the first directory."""
        return self.sites[0].further

    @property
    def branch_bands(self) -> dict[str, tuple[Band, ...]]:
        """Bands of each source that the network has a branch for, by its name."""
        return {source.source.name: source.source.bands for source in self.sites[0].branches}

    @property
    def branch_cells(self) -> int:
        """Cells of all sources with a branch, of all dates, in a patch."""
        return sum(math.prod(source.source.valid_shape) for source in self.sites[0].branches)

    @property
    def network(self) -> dict[str, object]:
        """What a network with branches has to know of the sources; nothing for others."""
        return self.choice.network(self.manifest)

    @property
    def statistics(self) -> list[BandStatistics]:
        """Per band of :attr:`bands`, over the valid cells of all training parts."""
        stacked = [self.statistics_of(source.source.name) for source in self.sites[0].stacked]
        return sum(stacked, self.statistics_of(self.manifest.reference.name))

    def statistics_of(self, name: str) -> list[BandStatistics]:
        """Per band of a source that the network looks at, over the valid cells of all training parts, all dates."""
        training = [site for site in self.sites if len(site.dataset.positions("training"))]
        found = [
            (source.statistics, bands)
            for site in training
            for source, bands in (
                (site.dataset.manifest.reference, site.bands),
                *((source.source, source.bands) for source in site.further),
            )
            if source.name == name
        ]
        return pooled([[statistics[position] for position in bands] for statistics, bands in found])

    def normalizations(self, method: str) -> dict[str, Normalization]:
        """Of each source that the network has a branch for, by its name."""
        names = [source.source.name for source in self.sites[0].branches]
        return {name: Normalization.from_statistics(method, self.statistics_of(name)) for name in names}

    def part(
        self, name: str, normalization: Normalization, normalizations: Mapping[str, Normalization] | None = None
    ) -> Part:
        """The patches of a part that have a label, and in which the network has something to look at.

        Args:
            name: of the part.
            normalization: of the reference, or of the stack.
            normalizations: of the sources with a branch.
        """
        positions = self._labelled(name)
        useful = [found[site.useful(found)] for site, found in zip(self.sites, positions, strict=True)]
        return Part(self, normalization, tuple(useful), normalizations=normalizations or {})

    def labelled(self, name: str) -> int:
        """Number of patches of a part that have a label, whatever the network has to look at there."""
        return sum(map(len, self._labelled(name)))

    def _labelled(self, name: str) -> list[NDArray[np.int64]]:
        return [_labelled(site.dataset, name) for site in self.sites]


@dataclass(frozen=True)
class Part:
    """Patches of one part of all sites, numbered through.

    Attributes:
        sites: where they are.
        normalization: from raw values of the reference, or of the stack, to network input.
        positions: of the patches, per site.
        normalizations: of the sources with a branch, by their names; empty where there is none.
    """

    sites: Sites
    normalization: Normalization
    positions: tuple[NDArray[np.int64], ...]
    normalizations: Mapping[str, Normalization] = field(default_factory=dict, kw_only=True)

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

    def batches(self, size: int, order: tuple[int, int] | None = None) -> Iterator[tuple[Any, NDArray]]:
        """Images and labels as :meth:`read` gives them; size and order as in :meth:`raw_batches`."""
        for values, valid, labels in self.raw_batches(size, order):
            yield self._normalized(values, valid), self._read_labels(labels, valid)

    def raw_batches(
        self, size: int, order: tuple[int, int] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Raw]:
        """Values (N, bands, rows, cols), validity (N, rows, cols) and labels (N, ...) as they are stored.

        With branches the values are :class:`Inputs`, and the validity is that of the reference.

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

    def read(self, numbers: NDArray[np.int64]) -> tuple[Any, NDArray]:
        """Images (N, bands, rows, cols), or :class:`Inputs`, normalised, and labels (N, *manifest.label_shape).

        They are sorted by number.

        Labels are class indices, or presence, with ``UNLABELLED``, or values with NaN, where there is no label
        or the cell is null.
        """
        values, valid, labels = self.raw(numbers)
        return self._normalized(values, valid), self._read_labels(labels, valid)

    def raw(self, numbers: NDArray[np.int64]) -> Raw:
        """Values, validity and labels of some patches as they are stored, sorted by number."""
        limits = np.cumsum([0, *map(len, self.positions)])
        found = []
        for site, first, last, positions in zip(self.sites.sites, limits[:-1], limits[1:], self.positions, strict=True):
            mine = np.sort(numbers[(numbers >= first) & (numbers < last)]) - first
            if len(mine):
                found.append(site.read(positions[mine]))
        if len(found) == 1:
            return found[0]
        values, valid, labels = zip(*found, strict=True)
        return joined(values), np.concatenate(valid), np.concatenate(labels)

    def _normalized(self, values: Images, valid: NDArray[np.bool_]) -> Images:
        if not isinstance(values, Inputs):
            return self.normalization.apply(values, valid)
        further = {
            name: replace(source, values=self.normalizations[name].apply(source.values, source.valid))
            for name, source in values.further.items()
        }
        return Inputs(self.normalization.apply(values.images, valid), further)

    def _read_labels(self, stored: NDArray, valid: NDArray[np.bool_]) -> NDArray:
        known = valid if self.sites.manifest.unit == "cell" else True
        if self.sites.manifest.task == "value":
            return np.where(known, stored, np.float32(np.nan))
        return np.where(known & (stored != self.unlabelled), stored.astype(np.int64), UNLABELLED)

    def class_counts(self) -> NDArray[np.int64]:
        """Number of labelled cells (or patches) per class; of patches with the class where one may have several.

        Raises:
            DeepLearningError: a label is none of the classes, or neither present nor absent.
        """
        count, several = len(self.sites.classes), self.sites.manifest.task == "presence"
        total = np.zeros(count, dtype=np.int64)
        for labels in self._labels() if count else ():
            _check_known(labels, 2 if several else count)
            if several:
                total += (labels == 1).sum(axis=0)
            else:
                total += np.bincount(labels[labels != UNLABELLED].ravel(), minlength=count)
        return total

    def hidden_cells(self) -> tuple[int, int]:
        """Labelled cells that are valid in the reference, and how many of them are not so in the stack upon it."""
        cells = hidden = 0
        for site, positions in zip(self.sites.sites, self.positions, strict=True):
            for chosen in batches(positions, self._at_once):
                labels = site.dataset.labels[chosen]
                known = ~np.isnan(labels) if labels.dtype.kind == "f" else labels != self.unlabelled
                labelled = site.valid[chosen] & known
                cells += int(labelled.sum())
                hidden += int((labelled & ~site.known(chosen)).sum())
        return cells, hidden

    def label_statistics(self) -> BandStatistics:
        """Statistics of the values of all labelled cells (or patches)."""
        return reduce(
            BandStatistics.__add__,
            (BandStatistics.of(labels[~np.isnan(labels)].astype(np.float64)) for labels in self._labels()),
            BandStatistics.of(np.empty(0)),
        )

    @property
    def _at_once(self) -> int:
        """Patches whose labels are counted at once: large ones are fewer."""
        rows, cols = self.sites.manifest.reference.shape
        return max(1, _CELLS_AT_ONCE // (rows * cols))

    def _labels(self) -> Iterator[NDArray]:
        for site, positions in zip(self.sites.sites, self.positions, strict=True):
            for chosen in batches(positions, self._at_once):
                yield self._read_labels(site.dataset.labels[chosen], site.known(chosen))


def _labelled(dataset: PatchDataset, part: str) -> NDArray[np.int64]:
    positions = dataset.positions(part)
    if dataset.manifest.unit == "cell":
        return positions[dataset.index["labelled"][positions] > 0]
    labels = dataset.read_labels(positions)
    none = np.isnan(labels) if dataset.manifest.task == "value" else labels == UNLABELLED
    return positions[~none.all(axis=tuple(range(1, none.ndim)))]


def _check_known(labels: NDArray, count: int) -> None:
    largest = labels.max(initial=UNLABELLED)
    if largest >= count:
        raise DeepLearningError(
            f"Labels of patches must be numbers below {count}, those of their classes; labels.npy has {largest}. "
            "Sample the patches again with v.sample.patches."
        )


def joined(parts: Sequence[Any]) -> Images:
    """Batches of the same kind behind each other."""
    first = parts[0]
    if not isinstance(first, Inputs):
        return np.concatenate(parts)
    further = {
        name: Further(
            *(np.concatenate(arrays) for arrays in zip(*(_arrays(part.further[name]) for part in parts), strict=True))
        )
        for name in first.further
    }
    return Inputs(np.concatenate([part.images for part in parts]), further)


def _arrays(source: Further) -> tuple[NDArray, ...]:
    return source.values, source.valid, source.box, source.days


def _check_same(first: PatchDataset, other: PatchDataset) -> None:
    for what, mine, theirs in (
        ("patch size", first.manifest.reference.shape, other.manifest.reference.shape),
        ("kind of label", first.manifest.unit, other.manifest.unit),
        ("task", first.manifest.task, other.manifest.task),
        ("units", _units(first.manifest), _units(other.manifest)),
    ):
        if mine != theirs:
            raise DeepLearningError(
                f"Patch directories must have the same {what}; '{first.path}' has {mine}, "
                f"'{other.path}' has {theirs}. Sample them with the same options."
            )


def _units(manifest: Manifest) -> str:
    return manifest.quantity.units if manifest.quantity else ""
