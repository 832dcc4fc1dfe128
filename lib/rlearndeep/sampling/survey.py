"""The first pass: judge every place by its nulls and labels, and choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rlearndeep.sampling.labels import NONE, SEVERAL, LabelTable
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.placement import Chooser, Placement
from rlearndeep.sampling.scene import Planes, Scene, strip_rows, sweep
from rlearndeep.sampling.settings import Settings
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.codes import IGNORED
from rlearndeep.scene.geometry import Window

# Working memory per cell of a strip: codes, class, sums of two kinds, areas and groups.
_BYTES_PER_CELL = 64

# And per place that is judged.
_BYTES_PER_PLACE = 120

_FEW_CLASSES = 16

# Cells of windows judged at once: few enough to stay near the processor.
_CELLS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Dropped:
    """Numbers of places that gave no patch, by the first reason that applied."""

    null: int = 0
    unlabelled: int = 0
    buffer: int = 0
    edge: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(
            self.null + other.null,
            self.unlabelled + other.unlabelled,
            self.buffer + other.buffer,
            self.edge + other.edge,
        )

    @property
    def total(self) -> int:
        """All of them."""
        return self.null + self.unlabelled + self.buffer + self.edge

    def to_json(self) -> dict[str, int]:
        """Plain values for a report."""
        return {"null": self.null, "unlabelled": self.unlabelled, "buffer": self.buffer, "edge": self.edge}


@dataclass(frozen=True)
class Strip:
    """Planes of a strip of rows, (rows, cols) each, whose first row is ``start`` of the region."""

    start: int
    acquisition: int | None
    nulls: NDArray[np.bool_]
    classes: NDArray[np.signedinteger]
    labelled: NDArray[np.bool_]
    codes: NDArray[np.int32]


def read_planes(scene: Scene, window: Window) -> Planes:
    """Codes and nulls of a window: all that the first pass reads."""
    codes, ignored = scene.read_codes(window), scene.read_ignored(window)
    if ignored is not None:
        codes[ignored] = IGNORED
    return codes, scene.read_nulls(window)


def survey(
    scene: Scene,
    table: LabelTable,
    settings: Settings,
    size: tuple[int, int],
    placement: Placement,
    chooser: Chooser,
    acquisition: int | None = None,
) -> Dropped:
    """Judge all places of a placement in one acquisition; those worth keeping go to the chooser.

    Args:
        size: rows and columns of a patch.
        acquisition: its number; None when there is but one.

    Returns:
        How many places were dropped, and why.
    """
    region = scene.region
    dropped = Dropped()
    stride = settings.stride or size
    per_cell = _BYTES_PER_CELL + _BYTES_PER_PLACE // (stride[0] * stride[1])
    step = strip_rows(region.cols, per_cell, size[0], settings.memory)
    read = partial(read_planes, scene)
    last = region.rows - size[0] + 1
    class_of = table.class_of.astype(np.int16 if len(table.classes) <= np.iinfo(np.int16).max else np.int32)
    for start, stop, (codes, nulls) in sweep(read, 0, last, size[0], step, region.cols):
        row, col = placement.within(start, stop)
        if not len(row):
            continue
        classes = class_of[codes]
        labelled = (classes != UNLABELLED) & ~nulls
        strip = Strip(start, acquisition, nulls, classes, labelled, codes)
        dropped += _judge(strip, table, settings, size, row, col, chooser)
    return dropped


def _judge(
    strip: Strip,
    table: LabelTable,
    settings: Settings,
    size: tuple[int, int],
    row: NDArray,
    col: NDArray,
    chooser: Chooser,
) -> Dropped:
    """Sort places by what can be counted without looking at their classes, then look at the rest."""
    cells = size[0] * size[1]
    top = row - strip.start
    null = box_sums(strip.nulls, top, col, size)
    labelled = box_sums(strip.labelled, top, col, size)
    too_null = settings.are_too_null(null, cells)
    unlabelled = ~too_null & ~settings.are_labelled(labelled, cells)
    keep = np.flatnonzero(~too_null & ~unlabelled)
    lost = 0
    per_batch = max(1, _CELLS_AT_ONCE // max(cells, len(table.classes)))
    if cells == 1:
        per_batch = _CELLS_AT_ONCE
    for first in range(0, len(keep), per_batch):
        batch = keep[first : first + per_batch]
        patches = _patches(strip, table, settings.rule, size, row[batch], col[batch], labelled[batch])
        lost += len(batch) - len(patches)
        chooser.add(patches)
    # Of single cells only the labelled ones were ever places.
    missing = 0 if cells == 1 else int(unlabelled.sum()) + lost
    return Dropped(null=0 if cells == 1 else int(too_null.sum()), unlabelled=missing)


def _patches(
    strip: Strip, table: LabelTable, rule: str, size: tuple[int, int], row: NDArray, col: NDArray, labelled: NDArray
) -> PatchSet:
    windows = partial(_windows, row=row - strip.start, col=col, size=size)
    good = windows(strip.labelled)
    if rule == "center" or size == (1, 1):
        middle = (row - strip.start + size[0] // 2, col + size[1] // 2)
        code = strip.codes[middle]
        label = np.where(strip.labelled[middle], strip.classes[middle], UNLABELLED).astype(np.int32)
        area, group, counts = table.area_of[code], table.group_of[code], None
    else:
        codes = windows(strip.codes) if table.has_areas or table.groups or rule == "inside" else None
        area = group = np.full(len(row), NONE, dtype=np.int32)
        if codes is not None:
            everywhere = np.ones_like(good) if rule == "inside" else good
            area = common(table.area_of[codes], everywhere)
            group = common(table.group_of[codes], good)
        counts = class_counts(windows(strip.classes), good, len(table.classes))
        label = counts.argmax(axis=1).astype(np.int32)
        if rule == "inside":
            label = np.where(area >= 0, label, UNLABELLED).astype(np.int32)
        if rule not in ("cells", "presence", "density"):
            counts = None
    if not table.has_areas:
        area = np.full(len(row), NONE, dtype=np.int32)
    height, width = (np.full(len(row), side, dtype=np.int32) for side in size)
    number = None if strip.acquisition is None else np.full(len(row), strip.acquisition, dtype=np.int32)
    patches = PatchSet(row, col, height, width, label, area, group, labelled.astype(np.int64), counts, number)
    return patches if (label != UNLABELLED).all() else patches.take(label != UNLABELLED)


def _windows(plane: NDArray, row: NDArray, col: NDArray, size: tuple[int, int]) -> NDArray:
    """Cells of windows, (windows, cells)."""
    if size == (1, 1):
        return plane[row, col][:, None]
    return sliding_window_view(plane, size)[row, col].reshape(len(row), -1)


def box_sums(plane: NDArray[np.bool_], row: NDArray, col: NDArray, size: tuple[int, int]) -> NDArray[np.int64]:
    """Number of True cells in windows of one size, by a table of sums (Crow 1984)."""
    if size == (1, 1):
        return plane[row, col].astype(np.int64)
    if not plane.any():
        return np.zeros(len(row), dtype=np.int64)
    if plane.all():
        return np.full(len(row), size[0] * size[1], dtype=np.int64)
    sums = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1), dtype=np.int32)
    np.cumsum(plane, axis=1, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums, axis=0, out=sums)
    bottom, right = row + size[0], col + size[1]
    return (sums[bottom, right] - sums[row, right] - sums[bottom, col] + sums[row, col]).astype(np.int64)


def class_counts(classes: NDArray, labelled: NDArray[np.bool_], number: int) -> NDArray[np.int32]:
    """Labelled cells per class of windows; (windows, cells) each, result (windows, number)."""
    count = len(classes)
    if number == 1:
        return np.count_nonzero(labelled, axis=1).astype(np.int32)[:, None]
    if number <= _FEW_CLASSES:
        # A few passes of comparisons over small numbers are quicker than one that counts.
        small = np.where(labelled, classes, UNLABELLED).astype(np.int8)
        found = [np.count_nonzero(small == index, axis=1) for index in range(number)]
        return np.stack(found, axis=1).astype(np.int32)
    keys = np.where(labelled, classes, number) + np.arange(count)[:, None] * (number + 1)
    sums = np.bincount(keys.ravel(), minlength=count * (number + 1))
    return sums.reshape(count, number + 1)[:, :number].astype(np.int32)


def common(values: NDArray[np.int32], counted: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The value that all counted cells of a window share, ``SEVERAL`` where they differ, ``NONE`` without any.

    Args:
        values: (windows, cells).
        counted: the cells that have a say, (windows, cells).
    """
    limits = np.iinfo(np.int32)
    low = np.where(counted, values, limits.max).min(axis=1)
    high = np.where(counted, values, limits.min).max(axis=1)
    return np.where(low > high, NONE, np.where(low == high, low, SEVERAL)).astype(np.int32)


def survey_objects(
    scene: Scene, table: LabelTable, settings: Settings, acquisition: int | None = None
) -> tuple[PatchSet, Dropped]:
    """One patch per area: the box around its cells in the region, null or ignored ones included.

    Boxes larger than ``settings.size`` are dropped as ``edge``, those with too many nulls as ``null``.
    """
    boxes = _boxes(scene, table, settings)
    area = np.flatnonzero((boxes.bottom > 0) & (boxes.label != UNLABELLED))
    row, col = boxes.top[area], boxes.left[area]
    height, width = boxes.bottom[area] - row, boxes.right[area] - col
    fits = np.ones(len(area), dtype=bool)
    if settings.size is not None:
        fits = (height <= settings.size[0]) & (width <= settings.size[1])
    cells = boxes.cells[area]
    full_enough = settings.are_labelled(cells, height * width)
    nulls = _box_nulls(scene, settings, row, col, height, width) if len(area) else np.empty(0, dtype=np.int64)
    clean = ~settings.are_too_null(nulls, height * width)
    patches = PatchSet(
        row,
        col,
        height.astype(np.int32),
        width.astype(np.int32),
        boxes.label[area],
        area.astype(np.int32),
        boxes.group[area],
        cells,
        None,
        None if acquisition is None else np.full(len(area), acquisition, dtype=np.int32),
    )
    order = np.lexsort((col, row))
    keep = order[(fits & clean & full_enough)[order]]
    dropped = Dropped(
        null=int((fits & ~clean).sum()),
        unlabelled=int((fits & clean & ~full_enough).sum()),
        edge=int((~fits).sum()),
    )
    return patches.take(keep), dropped


@dataclass(frozen=True)
class _Boxes:
    """Bounding box, labelled cells, class and group per area of a label table."""

    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    cells: NDArray[np.int64]
    label: NDArray[np.int32]
    group: NDArray[np.int32]

    @classmethod
    def empty(cls, table: LabelTable) -> _Boxes:
        """Boxes before any cell was seen, with what the table says of the areas."""
        number = len(table.areas)
        far, zero = np.full(number, np.iinfo(np.int64).max), np.zeros(number, dtype=np.int64)
        label, group = np.full(number, UNLABELLED, dtype=np.int32), np.full(number, NONE, dtype=np.int32)
        # An area that lies in another one of its class has the label of both, but a value of its own.
        for code, members in table.shared.items() if table.quantity is None else ():
            if table.class_of[code] != UNLABELLED:
                label[list(members)], group[list(members)] = table.class_of[code], table.group_of[code]
        single = table.area_of >= 0
        label[table.area_of[single]] = table.class_of[single]
        group[table.area_of[single]] = table.group_of[single]
        return cls(far, zero, far.copy(), zero.copy(), zero.copy(), label, group)

    def enclose(self, area: int, start: int, found: tuple[slice, slice]) -> None:
        """Let the box of an area reach around cells of a strip whose first row is ``start``."""
        self.top[area] = min(self.top[area], start + found[0].start)
        self.bottom[area] = max(self.bottom[area], start + found[0].stop)
        self.left[area] = min(self.left[area], found[1].start)
        self.right[area] = max(self.right[area], found[1].stop)


def _boxes(scene: Scene, table: LabelTable, settings: Settings) -> _Boxes:
    """Boxes of all areas; where areas overlap, the cells belong to each of them."""
    from scipy import ndimage

    boxes, number = _Boxes.empty(table), len(table.areas)
    own = np.where((table.class_of != UNLABELLED) & (table.area_of >= 0), table.area_of + 1, 0)
    shared = np.zeros(len(table.class_of), dtype=np.int32)
    shared[list(table.shared)] = np.arange(1, len(table.shared) + 1)
    for start, codes, unused, _ in _strips(scene, settings):
        for area, found in enumerate(ndimage.find_objects(own[codes], max_label=number)):
            if found is not None:
                boxes.enclose(area, start, found)
        pieces = ndimage.find_objects(shared[codes], max_label=len(table.shared)) if table.shared else []
        for members, found in zip(table.shared.values(), pieces, strict=True):
            for area in members if found is not None else ():
                boxes.enclose(area, start, found)
        cells = np.bincount(codes[~unused], minlength=len(table.class_of))
        boxes.cells[:] += np.bincount(own, cells, minlength=number + 1)[1:].astype(np.int64)
        for code, members in table.shared.items():
            boxes.cells[list(members)] += cells[code] * (table.class_of[code] != UNLABELLED)
    return boxes


def _box_nulls(scene: Scene, settings: Settings, row, col, height, width) -> NDArray[np.int64]:
    nulls = np.zeros(len(row), dtype=np.int64)
    for start, _, _, plane in _strips(scene, settings):
        sums = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1), dtype=np.int32)
        sums[1:, 1:] = plane.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
        top, bottom = (np.clip(edge - start, 0, len(plane)) for edge in (row, row + height))
        right = col + width
        nulls += sums[bottom, right] - sums[top, right] - sums[bottom, col] + sums[top, col]
    return nulls


def _strips(scene: Scene, settings: Settings) -> Iterator[tuple[int, NDArray, NDArray, NDArray]]:
    """First row, codes, cells without a usable label, and nulls of strips."""
    step = strip_rows(scene.region.cols, _BYTES_PER_CELL, 1, settings.memory)

    def read(window: Window) -> Planes:
        nulls, ignored = scene.read_nulls(window), scene.read_ignored(window)
        return scene.read_codes(window), nulls if ignored is None else nulls | ignored, nulls

    for start, _, (codes, unused, nulls) in sweep(read, 0, scene.region.rows, 1, step, scene.region.cols):
        yield start, codes, unused, nulls
