"""Further sources: the same places cut out of imagery with another grid, or at several dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.patches import PatchWriter, Source
from rlearndeep.sampling.scene import Planes, strip_rows, sweep
from rlearndeep.sampling.writing import (
    Imagery,
    Moments,
    bytes_per_cell,
    copy_windows,
    in_batches,
    read_cleaned,
    typical,
)
from rlearndeep.scene.geometry import Region, Window


class FurtherSource(Protocol):
    """A source beside the reference.

    Attributes:
        source: its entry in the manifest, with its own grid.
    """

    source: Source

    def open(self, layer: int, region: Region) -> AbstractContextManager[Imagery]:
        """One date of a series (the only layer of other sources), on cells of a part of the source's grid."""


def patch_size(reference: tuple[int, int], region: Region, own: Region) -> tuple[int, int]:
    """Rows and columns of a source's own cells that cover as much ground as a patch of the reference.

    Args:
        reference: rows and columns of the patch.
        region: grid of the reference.
        own: grid of the source.
    """
    ground = reference[0] * region.nsres / own.nsres, reference[1] * region.ewres / own.ewres
    # What is a whole number but for rounding must not gain a cell.
    rows, cols = (max(1, int(np.ceil(side - 1e-6))) for side in ground)
    return rows, cols


def write_source(
    further: FurtherSource,
    east: NDArray[np.float64],
    north: NDArray[np.float64],
    writer: PatchWriter,
    memory: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Moments]:
    """Cut the windows around places out of a source, one sweep per date.

    Args:
        east, north: centres of the patches, in the order of the writer's rows.
        memory: megabytes to work in.
        progress: told how many patches were written since.

    Returns:
        Moments of the patches per date.

    Raises:
        DeepLearningError: a raster holds values beyond the range GRASS keeps for it, or infinite ones.
    """
    source = further.source
    if source.region is None:
        raise ValueError("a further source has a grid of its own")
    row, col = source.region.window_starts(east, north, source.shape)
    box = Window(int(row.min()), int(row.max()) + source.shape[0], int(col.min()), int(col.max()) + source.shape[1])
    order = np.argsort(row, kind="stable")
    row, col = row[order] - box.row_start, col[order] - box.col_start
    step = strip_rows(box.cols, bytes_per_cell(source), source.shape[0], memory)
    found = []
    for layer in range(len(source.dates) or 1):
        images, valid = (np.asarray(arrays[source.name]) for arrays in (writer.images, writer.valid))
        if source.dates:
            images, valid = images[:, layer], valid[:, layer]
        moments: Moments | None = None
        with further.open(layer, source.region.subregion(box)) as imagery:
            read = partial(_read, imagery, source)
            for start, stop, planes in sweep(read, 0, int(row[-1]) + 1, source.shape[0], step, box.cols):
                if moments is None:
                    moments = Moments.empty(len(order), typical(*planes))
                begin, end = np.searchsorted(row, [start, stop]).tolist()
                for rows in in_batches(begin, end, source):
                    _cut(planes, row[rows] - start, col[rows], order[rows], images, valid, moments)
                writer.release()
                progress(end - begin)
        if moments is not None:
            found.append(moments.checked(source.bands))
    return found


def _read(imagery: Imagery, source: Source, window: Window) -> Planes:
    return read_cleaned(imagery, np.dtype(source.dtype), source.bands, window)


def _cut(
    planes: Planes, row: NDArray, col: NDArray, places: NDArray, images: NDArray, valid: NDArray, moments: Moments
) -> None:
    cells = np.empty((len(row), *images.shape[1:]), dtype=images.dtype)
    good = np.empty((len(row), *valid.shape[1:]), dtype=bool)
    copy_windows(planes[0], row, col, cells)
    copy_windows(planes[1], row, col, good)
    images[places], valid[places] = cells, good
    moments.fill(places, cells, good)


def with_statistics(source: Source, moments: Sequence[Moments], training: NDArray[np.int64]) -> Source:
    """The source with the statistics of some patches, of all dates together."""
    total = list(moments[0].statistics(training))
    for other in moments[1:]:
        total = [one + two for one, two in zip(total, other.statistics(training), strict=True)]
    return replace(source, statistics=tuple(total))


def coverage(writer: PatchWriter, source: Source) -> dict[str, float | int]:
    """Percent of valid cells of a source, and the number of patches in which it has none."""
    valid = np.asarray(writer.valid[source.name])
    per_patch = valid.reshape(len(valid), -1).sum(axis=1)
    cells = valid.size
    return {
        "valid_percent": round(100 * float(per_patch.sum()) / cells, 2) if cells else 0.0,
        "patches_without": int((per_patch == 0).sum()),
    }
