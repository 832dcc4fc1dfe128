"""The second pass: cut the chosen patches out of their source in one sweep, straight into the directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PatchWriter
from rlearndeep.sampling.labels import LabelTable
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.scene import Planes, Scene, strip_rows, sweep
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.geometry import Window

# Patches of at least so many cells are copied one by one; smaller ones all at once by index.
_LARGE_PATCH = 256

# Bytes of patches handled at once: few enough to be summed while still near the processor.
_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Moments:
    """Sums over the valid cells of each patch and band, from which statistics of any set of patches follow.

    Values are counted from ``shift``, a value per band near its mean, so that squares stay small.
    """

    shift: NDArray[np.float64]
    count: NDArray[np.int64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def empty(cls, patches: int, shift: NDArray[np.float64]) -> Moments:
        """Moments to be filled in."""
        shape = (patches, len(shift))
        return cls(shift, np.zeros(patches, dtype=np.int64), *(np.zeros(shape) for _ in range(4)))

    def fill(self, rows: slice, images: NDArray, valid: NDArray[np.bool_]) -> None:
        """Moments of some patches: images (patches, bands, rows, cols), valid (patches, rows, cols)."""
        precise = np.float64 if images.dtype.itemsize > 2 and images.dtype != np.float32 else np.float32
        values = images.reshape(*images.shape[:2], -1)
        mask = valid.reshape(len(valid), 1, -1)
        centred: NDArray[Any] = values.astype(precise)
        centred -= self.shift[:, None].astype(precise)
        limits = (values, values)
        if not mask.all():
            centred *= mask
            extremes: Any = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
            limits = (np.where(mask, values, extremes.max), np.where(mask, values, extremes.min))
        self.count[rows] = mask.sum(axis=(1, 2))
        self.sums[rows] = centred.sum(axis=2)
        self.squares[rows] = np.einsum("pbc,pbc->pb", centred, centred)
        self.minimum[rows] = limits[0].min(axis=2)
        self.maximum[rows] = limits[1].max(axis=2)

    def statistics(self, positions: NDArray) -> tuple[BandStatistics, ...]:
        """Statistics per band of the valid cells of some patches."""
        positions = positions[self.count[positions] > 0]
        count = int(self.count[positions].sum())
        if count == 0:
            return tuple(BandStatistics.of(np.empty(0)) for _ in self.shift)
        mean = self.sums[positions].sum(axis=0) / count
        variance = np.maximum(self.squares[positions].sum(axis=0) / count - mean**2, 0.0)
        low, high = self.minimum[positions].min(axis=0), self.maximum[positions].max(axis=0)
        return tuple(
            BandStatistics(count, float(mean[band] + self.shift[band]), float(np.sqrt(variance[band])), *limits)
            for band, limits in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        )

    def signatures(self) -> NDArray[np.float64]:
        """A row of numbers per patch that identical patches have in common."""
        return np.column_stack([self.count, self.sums, self.squares, self.minimum, self.maximum])


def write_patches(
    scene: Scene,
    table: LabelTable,
    patches: PatchSet,
    writer: PatchWriter,
    memory: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Moments:
    """Cut patches, ordered by their first row, into the arrays of a writer.

    Null cells are stored as 0 and are not valid; cells that are null or padding have no label.

    Args:
        writer: with as many rows as there are patches; its reference source has the size of a patch.
        memory: megabytes to work in.
        progress: told how many patches of how many are written.

    Raises:
        DeepLearningError: a raster holds values beyond the range GRASS keeps for it.
    """
    source = writer.manifest.reference
    height, width = source.shape
    bands = len(source.bands)
    cols = max(scene.region.cols, int(patches.col.max()) + width)
    per_cell = bands * (3 * np.dtype(source.dtype).itemsize + 8) + 16
    step = strip_rows(cols, per_cell, height, memory)
    first, last = int(patches.row[0]), int(patches.row[-1]) + 1
    moments: Moments | None = None
    for start, stop, planes in sweep(_reader(scene, table, source.dtype), first, last, height, step, cols):
        begin, end = np.searchsorted(patches.row, [start, stop]).tolist()
        if moments is None:
            moments = Moments.empty(len(patches), _typical(planes[0], planes[1]))
        per_batch = max(1, _BYTES_AT_ONCE // (height * width * bands * np.dtype(source.dtype).itemsize))
        for batch in range(begin, end, per_batch):
            rows = slice(batch, min(batch + per_batch, end))
            _cut(planes, patches.take(rows), start, writer, rows, moments)
        progress(end, len(patches))
    if moments is None:
        raise ValueError("there are no patches to write")
    return moments


def _reader(scene: Scene, table: LabelTable, dtype: str) -> Callable[[Window], Planes]:
    class_of = table.class_of.astype(np.int32)

    def read(window: Window) -> Planes:
        raw = scene.read(window)
        nulls = np.isnan(raw) if isinstance(scene.null, float) else raw == scene.null
        if nulls.any():
            raw[nulls] = 0
        valid = ~nulls.any(axis=0)
        values = _narrowed(raw, np.dtype(dtype), scene)
        return values, valid, np.where(valid, class_of[scene.read_codes(window)], UNLABELLED)

    return read


def _narrowed(raw: NDArray, dtype: np.dtype, scene: Scene) -> NDArray:
    """The values in their stored type, which must hold them."""
    if dtype.kind in "iu" and raw.dtype != dtype:
        limits = np.iinfo(dtype)
        for band, values in zip(scene.bands, raw, strict=True):
            low, high = int(values.min()), int(values.max())
            if low < limits.min or high > limits.max:
                raise DeepLearningError(
                    f"Values of a raster must lie in the range that GRASS keeps for it; <{band.name}> holds "
                    f"{low if low < limits.min else high}, which does not fit {dtype.name}. "
                    f"Bring its range up to date with r.support -s map={band.name}."
                )
    return raw.astype(dtype, copy=False)


def _typical(values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A value per band near its mean, from a thin sample of a strip."""
    thin = (slice(None), slice(None, None, 7), slice(None, None, 7))
    sample, good = values[thin], valid[thin[1:]]
    if not good.any():
        return np.zeros(len(values))
    return np.array([band[good].mean(dtype=np.float64) for band in sample])


def _cut(planes: Planes, patches: PatchSet, start: int, writer: PatchWriter, rows: slice, moments: Moments) -> None:
    """Copy the images, validity and labels of some patches, and sum up their cells."""
    source = writer.manifest.reference
    top = patches.row - start
    # Plain arrays over the same memory: slices of a memory map cost more than the copies of small patches.
    images, valid = (np.asarray(arrays[source.name])[rows] for arrays in (writer.images, writer.valid))
    copy_windows(planes[0], top, patches.col, images)
    copy_windows(planes[1], top, patches.col, valid)
    padding = _padding(patches, source.shape)
    if padding is not None:
        valid[padding] = False
        images[np.broadcast_to(padding[:, None], images.shape)] = 0
    moments.fill(rows, images, valid)
    if writer.manifest.unit == "cell":
        labels = np.empty(valid.shape, dtype=np.int32)
        copy_windows(planes[2], top, patches.col, labels)
        labels[labels == UNLABELLED] = writer.manifest.unlabelled
        writer.labels[rows] = labels
    else:
        writer.labels[rows] = patches.label


def copy_windows(plane: NDArray, row: NDArray, col: NDArray, result: NDArray) -> None:
    """Copy windows of a plane, (..., rows, cols), to the windows of ``result``, (windows, ..., rows, cols)."""
    height, width = result.shape[-2:]
    if (height, width) == (1, 1):
        result[..., 0, 0] = np.moveaxis(plane[..., row, col], -1, 0)
    elif height * width >= _LARGE_PATCH:
        for target, top, left in zip(result, row.tolist(), col.tolist(), strict=True):
            target[...] = plane[..., top : top + height, left : left + width]
    else:
        view = sliding_window_view(plane, (height, width), axis=(-2, -1))
        result[...] = np.moveaxis(view[..., row, col, :, :], -3, 0)


def _padding(patches: PatchSet, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """True for cells beyond the patch's own height and width; None where no patch is padded."""
    if (patches.height == shape[0]).all() and (patches.width == shape[1]).all():
        return None
    below = np.arange(shape[0])[None, :] >= patches.height[:, None]
    beyond = np.arange(shape[1])[None, :] >= patches.width[:, None]
    return below[:, :, None] | beyond[:, None, :]
