"""One answer per segment, from a crop of it: for networks that answer once per patch.

The crop is as large as the patches the network was trained on. Its middle is the middle of the segment's bounding
box, and it shows what lies around the segment too; for a network that was trained on padded boxes of areas
(``label=object``) it is the segment's box, padded in the same way, or the middle of a box that is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard
from rlearndeep.prediction.branches import Places
from rlearndeep.prediction.maps import SegmentsAt
from rlearndeep.prediction.reading import finite
from rlearndeep.prediction.segments import SegmentIndex, SegmentResult
from rlearndeep.prediction.stream import Here, Job
from rlearndeep.scene.geometry import Window

_ROWS = 256

Boxes = NDArray[np.int64]
"""First row, row behind, first column, column behind of each segment, (n, 4)."""


@dataclass(frozen=True)
class _Found:
    """What one sweep over the segments finds: their boxes, and their cells with and without data, (n,)."""

    boxes: Boxes
    cells: NDArray[np.int64]
    null_cells: NDArray[np.int64]

    @classmethod
    def nothing(cls, count: int) -> _Found:
        boxes = np.zeros((count, 4), dtype=np.int64)
        boxes[:, [0, 2]] = np.iinfo(np.int64).max
        return cls(boxes, np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))


def are_boxed(cards: Sequence[ModelCard], names: Sequence[str]) -> bool:
    """Whether models were trained on padded boxes of areas.

    Raises:
        DeepLearningError: some were, and others on patches: they cannot be shown the same crop.
    """
    boxed = ["object" in card.training.get("rules", []) for card in cards]
    if len(set(boxed)) > 1:
        raise DeepLearningError(
            "Models that answer for a segment together are shown the same crop; "
            f"'{names[boxed.index(True)]}' was trained on boxes of areas (label=object), "
            f"'{names[boxed.index(False)]}' on patches with their surroundings. Predict them one by one."
        )
    return boxed[0]


def answer_segments(
    job: Job,
    segments: SegmentIndex,
    segments_at: SegmentsAt,
    boxed: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SegmentResult:
    """Ask the networks about every segment once.

    Args:
        job: with models that answer once per patch.
        segments: the ids that occur in the region.
        segments_at: ids of a window, and where there is a segment.
        boxed: whether the networks were trained on padded boxes of areas.
        progress: called with rows done and rows in all.
    """
    found = _survey(job, segments, segments_at)
    known = np.flatnonzero(found.cells)
    windows = _crop_windows(found.boxes[known], job.plan.input_size, boxed)
    means = np.full((len(segments), job.question.subject.outputs), np.nan)
    here = Here(job)
    for number, part in _parts_of(windows, job):
        means[known[part]] = _answer_part(here, windows[part], found.boxes[known[part]] if boxed else None)
        progress(min((number + 1) * _ROWS, job.region.rows), job.region.rows)
    subject = job.question.subject
    if subject.task == "value":
        means = np.column_stack([means, ((means[:, 0] - subject.centre) / subject.scale) ** 2])
    return SegmentResult(subject, segments.ids, means, found.cells, found.null_cells)


def _survey(job: Job, segments: SegmentIndex, segments_at: SegmentsAt) -> _Found:
    from scipy import ndimage  # takes a while, and other predictions do without

    found = _Found.nothing(len(segments))
    for first in range(0, job.region.rows, _ROWS):
        window = Window(first, min(first + _ROWS, job.region.rows), 0, job.region.cols)
        ids, segment = segments_at(window)
        if not segment.any():
            continue
        valid = finite(job.source.read(window))
        here, local = np.unique(segments.positions(ids[segment]), return_inverse=True)
        labels = np.zeros(window.shape, dtype=np.int32)
        labels[segment] = local + 1
        found.cells[here] += np.bincount(labels[valid], minlength=len(here) + 1)[1:]
        found.null_cells[here] += np.bincount(labels[~valid], minlength=len(here) + 1)[1:]
        for position, box in zip(here.tolist(), ndimage.find_objects(labels), strict=True):
            rows, cols = box
            known = found.boxes[position]
            known[0], known[2] = min(known[0], first + rows.start), min(known[2], cols.start)
            known[1], known[3] = max(known[1], first + rows.stop), max(known[3], cols.stop)
    return found


def _crop_windows(boxes: Boxes, patch: tuple[int, int], boxed: bool) -> NDArray[np.int64]:
    """First row and column of the crop of each box, (n, 2)."""
    first, last = boxes[:, [0, 2]], boxes[:, [1, 3]]
    size = np.array(patch)
    if boxed:
        return first + np.maximum(last - first - size, 0) // 2
    return (first + last) // 2 - size // 2


def _parts_of(windows: NDArray[np.int64], job: Job) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Crops that begin in the same few rows, and in the columns that may be held at once, from the top."""
    stride = job.plan.stride
    across = job.starts_per_chunk * (stride if isinstance(stride, int) else stride[1])
    row, col = windows[:, 0] // _ROWS, windows[:, 1] // across
    order = np.lexsort((windows[:, 1], windows[:, 0], col, row))
    part = np.stack([row, col])[:, order]
    borders = np.flatnonzero((part[:, 1:] != part[:, :-1]).any(axis=0)) + 1
    for positions in np.split(order, borders) if len(order) else ():
        yield int(row[positions[0]]), positions


def _answer_part(here: Here, windows: NDArray[np.int64], boxes: Boxes | None) -> NDArray[np.float64]:
    """Mean answers of the models for crops that lie near each other, (n, K)."""
    job = here.job
    rows, cols = job.plan.input_size
    (top, left), (bottom, right) = windows.min(axis=0).tolist(), windows.max(axis=0).tolist()
    values = job.source.read(Window(top, bottom + rows, left, right + cols))
    valid = finite(values)
    places = _places(job, windows, boxes)
    further = here.surroundings.around([places])
    total = np.zeros((len(windows), job.question.subject.outputs))
    for member in job.members:
        prepared = member.prepare(values, valid)
        size = member.batch_size(rows * cols, job.batch_size)
        for first in range(0, len(windows), size):
            part = slice(first, first + size)
            starts = (windows[part] - (top, left)).tolist()
            images = np.stack([prepared[:, row : row + rows, col : col + cols] for row, col in starts])
            if boxes is not None:
                _pad(images, boxes[part], windows[part])
            answers = member.answer(job.question, member.shown(images, places.part(part), further))
            total[part] += answers[:, : total.shape[1]]
    return total / len(job.members)


def _places(job: Job, windows: NDArray[np.int64], boxes: Boxes | None) -> Places:
    """The crops as places. Sampling looks at further sources around the middle of a box, without its padding."""
    shape = job.plan.input_size
    places = Places.of(job.region, windows[:, 0], windows[:, 1], shape)
    if boxes is None:
        return places
    sides = np.minimum(boxes[:, [1, 3]] - windows, shape)
    middles = job.region.centre(*(windows + (sides - 1) / 2).T)
    return Places(places.windows, *middles)


def _pad(batch: NDArray[np.float32], boxes: Boxes, windows: NDArray[np.int64]) -> None:
    """Zero what lies beyond the boxes, below and to the right, as sampling pads them."""
    for image, box, (top, left) in zip(batch, boxes, windows, strict=True):
        image[:, max(0, box[1] - top) :] = 0
        image[:, :, max(0, box[3] - left) :] = 0
