"""The second pass: cut the chosen patches out of their source in one sweep, one batch after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import Manifest, Source
from rlearndeep.sampling.labels import LabelTable
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.scene import Planes, Scene, strip_rows, sweep
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.codes import IGNORED
from rlearndeep.scene.geometry import Window

# Patches of at least so many cells are copied one by one; smaller ones all at once by index.
_LARGE_PATCH = 256

# Bytes of patches handled at once: few enough to be summed while still near the processor.
_BYTES_AT_ONCE = 1 << 20

# Rows read at once, for the same reason.
_ROWS_AT_ONCE = 16


class Imagery(Protocol):
    """Bands that can be read; windows count in the region they were opened with.

    Attributes:
        null: the value that means null; not a number for floating point.
    """

    @property
    def null(self) -> float | int:
        """See above."""

    def read(self, window: Window) -> NDArray:
        """Values of the bands, (bands, rows, cols)."""


class Sink(Protocol):
    """What takes patches, batch after batch in their order.

    Attributes:
        manifest: what the patches are like.
    """

    manifest: Manifest

    def put(self, name: str, first: int, values: NDArray) -> None:
        """Take rows of the array ``name`` (``labels``, a source's name, or that with ``_valid``) from ``first`` on."""

    def release(self) -> None:
        """Told when a strip is done."""


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

    def fill(self, rows: slice | NDArray, images: NDArray, valid: NDArray[np.bool_]) -> None:
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
        with np.errstate(over="ignore", invalid="ignore"):
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

    def checked(self, bands: Sequence[Band]) -> Moments:
        """The same, if all values have a mean and a spread.

        Raises:
            DeepLearningError: a band holds infinite values, or one so large that it must mean something else.
        """
        for number, band in enumerate(bands):
            if not np.isfinite([self.sums[:, number], self.squares[:, number]]).all():
                low, high = self.minimum[:, number].min(), self.maximum[:, number].max()
                raise DeepLearningError(
                    f"Values of bands must be finite, and small enough to be squared; those of <{band.name}> run from "
                    f"{low:g} to {high:g}. If one of them means no data, set it to null with r.null setnull=, or with "
                    "r.mapcalc."
                )
        return self

    def signatures(self) -> NDArray[np.float64]:
        """A row of numbers per patch that identical patches have in common."""
        return np.column_stack([self.count, self.sums, self.squares, self.minimum, self.maximum])


def write_patches(
    scenes: Sequence[Scene],
    table: LabelTable,
    patches: PatchSet,
    sink: Sink,
    memory: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 1,
) -> Moments:
    """Cut patches, ordered by acquisition and first row, and hand them on.

    Null cells are stored as 0 and are not valid; cells that are null or padding have no label.

    Args:
        scenes: one per acquisition.
        sink: takes them; the reference source of its manifest has the size of a patch.
        memory: megabytes to work in.
        progress: told how many patches of how many are written.
        workers: threads that cut, beside the one that reads.

    Raises:
        DeepLearningError: a raster holds values beyond the range GRASS keeps for it, or infinite ones.
    """
    source = sink.manifest.reference
    height, width = source.shape
    cols = max(scenes[0].region.cols, int(patches.col.max()) + width)
    step = strip_rows(cols, bytes_per_cell(source), height, memory)
    moments: Moments | None = None
    with ThreadPoolExecutor(workers) as pool:
        for number, scene in enumerate(scenes):
            own = patches.of_acquisition(number)
            if not len(own):
                continue
            offset, row = int(own[0]), patches.row[own]
            labels = LabelReader.of(scene, table, sink.manifest)
            read = partial(_read, scene, labels, np.dtype(source.dtype))
            for start, stop, planes in sweep(read, int(row[0]), int(row[-1]) + 1, height, step, cols):
                if moments is None:
                    moments = Moments.empty(len(patches), typical(planes[0], planes[1]))
                begin, end = (offset + np.searchsorted(row, [start, stop])).tolist()
                hand_on = partial(_hand_on, planes, start, patches, labels, sink, moments)
                list(pool.map(hand_on, in_batches(begin, end, source)))
                sink.release()
                progress(end, len(patches))
    if moments is None:
        raise ValueError("there are no patches to write")
    return moments.checked(source.bands)


def _hand_on(
    planes: Planes, start: int, patches: PatchSet, labels: LabelReader, sink: Sink, moments: Moments, rows: slice
) -> None:
    """Cut some patches, whose rows count from ``start`` in the planes, sum them up, and give them to the sink."""
    source, batch = sink.manifest.reference, patches.take(rows)
    images, valid = _cut(planes, batch, start, source)
    moments.fill(rows, images, valid)
    sink.put(source.name, rows.start, images)
    sink.put(f"{source.name}_valid", rows.start, valid)
    sink.put("labels", rows.start, labels.cut(planes[2:], batch, start, sink.manifest))


def bytes_per_cell(source: Source) -> int:
    """Memory that a cell of a strip takes while the next one is read, and then the two are joined."""
    return len(source.bands) * 3 * np.dtype(source.dtype).itemsize + 24


def in_batches(begin: int, end: int, source: Source) -> Iterator[slice]:
    """Rows ``begin`` to ``end`` in slices of few enough patches."""
    size = int(np.prod(source.shape)) * len(source.bands) * np.dtype(source.dtype).itemsize
    step = max(1, _BYTES_AT_ONCE // size)
    for first in range(begin, end, step):
        yield slice(first, min(first + step, end))


def _read(scene: Scene, labels: LabelReader, dtype: np.dtype, window: Window) -> Planes:
    values, valid = read_cleaned(scene, dtype, scene.bands, window)
    return values, valid, *labels.read(window, valid)


def read_cleaned(
    imagery: Imagery, dtype: np.dtype, bands: Sequence[Band], window: Window
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Values in their stored type, (bands, rows, cols), with 0 for null, and validity, (rows, cols), of a window."""
    values = np.empty((len(bands), *window.shape), dtype=dtype)
    valid = np.empty(window.shape, dtype=bool)
    for row in range(0, window.rows, _ROWS_AT_ONCE):
        rows = slice(row, min(row + _ROWS_AT_ONCE, window.rows))
        part = Window(window.row_start + rows.start, window.row_start + rows.stop, window.col_start, window.col_stop)
        values[:, rows], valid[rows] = cleaned(imagery.read(part), imagery.null, dtype, bands)
    return values, valid


def cleaned(raw: NDArray, null: float | int, dtype: np.dtype, bands: Sequence[Band]) -> tuple[NDArray, NDArray]:
    """Values in their stored type with 0 for null, and validity, (rows, cols), of a window that was read."""
    nulls = np.isnan(raw) if isinstance(null, float) else raw == null
    if nulls.any():
        raw[nulls] = 0
        return _narrowed(raw, dtype, bands), ~nulls.any(axis=0)
    return _narrowed(raw, dtype, bands), np.ones(raw.shape[1:], dtype=bool)


@dataclass(frozen=True)
class LabelReader:
    """Labels on their way from planes, or from what the plan knows of the patches, into the directory.

    Attributes:
        scene: where the planes are.
        table: what the codes mean.
        stored: what is stored for each code, in the type of the labels; empty for a plane with values of its own.
        needs_plane: False when the plan knows the label of every patch.
    """

    scene: Scene
    table: LabelTable
    stored: NDArray
    needs_plane: bool

    @classmethod
    def of(cls, scene: Scene, table: LabelTable, manifest: Manifest) -> LabelReader:
        """The reader for the labels that a manifest promises."""
        stored = np.empty(0, dtype=manifest.label_dtype)
        if manifest.task != "value":
            of_class = np.append(np.arange(len(manifest.classes)), manifest.unlabelled)
            index = np.where(table.class_of < len(manifest.classes), table.class_of, UNLABELLED)
            stored = of_class[index].astype(manifest.label_dtype)
        elif table.values is not None:
            stored = table.values
        values_of_cells = manifest.task == "value" and manifest.rule in ("majority", "center")
        return cls(scene, table, stored, manifest.unit == "cell" or values_of_cells)

    def read(self, window: Window, valid: NDArray[np.bool_]) -> Planes:
        """The plane of labels, if one is needed."""
        if not self.needs_plane:
            return ()
        has_table = len(self.stored) > 0
        plane = self.scene.read_codes(window) if has_table else self.scene.read_values(window)
        ignored = self.scene.read_ignored(window)
        unused = ~valid if ignored is None else ignored | ~valid
        if unused.any():
            plane[unused] = IGNORED if has_table else np.nan
        return (self.stored[plane] if has_table else plane,)

    def cut(self, planes: Planes, patches: PatchSet, start: int, manifest: Manifest) -> NDArray:
        """Labels of some patches, whose rows count from ``start`` in the planes, as they are stored."""
        labels = np.empty((len(patches), *manifest.label_shape), dtype=manifest.label_dtype)
        if manifest.unit == "cell":
            copy_windows(planes[0], patches.row - start, patches.col, labels)
        elif manifest.task == "presence":
            labels[:] = patches.weights(len(manifest.classes)) > 0
        elif manifest.task == "value":
            labels[:] = self._values(planes, patches, start, manifest)
        else:
            labels[:] = manifest.unlabelled if self.table.is_empty else patches.label
        return labels

    def _values(self, planes: Planes, patches: PatchSet, start: int, manifest: Manifest) -> NDArray[np.float32]:
        """One value per patch: its area's, its centre's, or the mean of its labelled cells."""
        if not self.needs_plane:
            return self.table.area_values()[patches.area]
        height, width = manifest.reference.shape
        if manifest.rule == "center":
            return planes[0][patches.row - start + height // 2, patches.col + width // 2]
        windows = np.empty((len(patches), height, width), dtype=np.float32)
        copy_windows(planes[0], patches.row - start, patches.col, windows)
        return np.asarray(np.nanmean(windows, axis=(1, 2), dtype=np.float64), dtype=np.float32)


def _narrowed(raw: NDArray, dtype: np.dtype, bands: Sequence[Band]) -> NDArray:
    """The values in their stored type, which must hold them."""
    if dtype.kind in "iu" and raw.dtype != dtype:
        limits = np.iinfo(dtype)
        for band, values in zip(bands, raw, strict=True):
            low, high = int(values.min()), int(values.max())
            if low < limits.min or high > limits.max:
                raise DeepLearningError(
                    f"Values of a raster must lie in the range that GRASS keeps for it; <{band.name}> holds "
                    f"{low if low < limits.min else high}, which does not fit {dtype.name}. "
                    f"Bring its range up to date with r.support -s map={band.name}."
                )
    return raw.astype(dtype, copy=False)


def typical(values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A value per band near its mean, from a thin sample of a strip."""
    thin = (slice(None), slice(None, None, 7), slice(None, None, 7))
    sample, good = values[thin], valid[thin[1:]]
    if not good.any():
        return np.zeros(len(values))
    return np.array([band[good].mean(dtype=np.float64) for band in sample])


def _cut(planes: Planes, patches: PatchSet, start: int, source: Source) -> tuple[NDArray, NDArray[np.bool_]]:
    """Images and validity of some patches, whose rows count from ``start`` in the planes."""
    top = patches.row - start
    images = np.empty((len(patches), *source.image_shape), dtype=source.dtype)
    valid = np.empty((len(patches), *source.valid_shape), dtype=bool)
    copy_windows(planes[0], top, patches.col, images)
    copy_windows(planes[1], top, patches.col, valid)
    padding = _padding(patches, source.shape)
    if padding is not None:
        valid[padding] = False
        images[np.broadcast_to(padding[:, None], images.shape)] = 0
    return images, valid


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
