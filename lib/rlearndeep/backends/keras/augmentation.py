"""Augmentation of whole batches: any number of bands of any range, sources and label together; with NumPy.

What moves the ground moves every source: each is turned in its own cells, and the box that says where the reference
lies in it follows. What changes values changes each source for itself. It runs in the thread that reads ahead, while
the engine computes, and is the same with every engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rlearndeep.backends.strength import (
    BLUR,
    CHANGED,
    GAIN,
    NOISE,
    OFFSET,
    PER_CELL,
    SMALLEST_BLURRED,
    crop_size,
    erased,
    ordered,
    quarter_turns,
)
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.inputs import Further, Inputs

Images = NDArray[np.float32]
Batch = TypeVar("Batch", bound=Images | Inputs)
Moved = tuple[Inputs, NDArray]
Step = Callable[[Inputs, NDArray, Images, Generator], Moved]
Change = Callable[[Images, NDArray[np.bool_], Images, Generator], Images]
"""Of images, where they are known (both (N, bands, rows, cols) or to be broadcast to it), and the spread per band."""


def augment(
    names: Sequence[str], images: Batch, labels: NDArray, spread: Images, generator: Generator
) -> tuple[Batch, NDArray]:
    """A changed copy of a batch.

    Args:
        names: steps, of ``ORDER``; they are taken in that order.
        images: (N, bands, rows, cols), normalised, or ``Inputs``; 0 in all bands where null, and it stays so.
        labels: (N, rows, cols), which moves with the images, or (N,) or (N, classes).
        spread: standard deviation per band of the images, to which radiometric changes are relative; that of
            further sources is 1.
        generator: source of all randomness.
    """
    inputs = images if isinstance(images, Inputs) else Inputs(images)
    if names:
        inputs, labels = inputs.map(np.copy), labels.copy()
    for name in ordered(names):
        inputs, labels = STEPS[name](inputs, labels, spread, generator)
    changed: Any = inputs if isinstance(images, Inputs) else inputs.images
    return cast(Batch, changed), labels


def _chosen(count: int, generator: Generator) -> NDArray[np.int64]:
    """Positions of a random half."""
    return np.flatnonzero(generator.random(count) < CHANGED)


@dataclass(frozen=True)
class Turn:
    """A mirroring or a rotation by quarters: of arrays, and of boxes within windows of so many rows and columns."""

    of_array: Callable[[NDArray], NDArray]
    of_box: Callable[[Images, int, int], Images]


def _mirrored_box(box: Images, rows: int, cols: int, axis: int) -> Images:
    place, cells = (0, rows) if axis == -2 else (1, cols)
    mirrored = box.copy()
    mirrored[:, place] = cells - (box[:, place] + box[:, place + 2])
    return mirrored


def _quarter_box(box: Images, _: int, cols: int) -> Images:
    top, left, height, width = box.T
    return np.stack([cols - (left + width), top, width, height], axis=1)


def _half_box(box: Images, rows: int, cols: int) -> Images:
    return _mirrored_box(_mirrored_box(box, rows, cols, -2), rows, cols, -1)


MIRRORED = [Turn(partial(np.flip, axis=axis), partial(_mirrored_box, axis=axis)) for axis in (-1, -2)]
QUARTERS = {
    1: Turn(partial(np.rot90, k=1, axes=(-2, -1)), _quarter_box),
    2: Turn(partial(np.rot90, k=2, axes=(-2, -1)), _half_box),
}


def _flip(inputs: Inputs, labels: NDArray, _: Images, generator: Generator) -> Moved:
    """Each patch upside down, left to right, both, or neither."""
    for turn in MIRRORED:
        _turn(inputs, labels, _chosen(len(inputs), generator), turn)
    return inputs, labels


def _rotate(inputs: Inputs, labels: NDArray, _: Images, generator: Generator) -> Moved:
    """Each patch by a multiple of 90 degrees; of 180 degrees where it, or its window of a source, is not square."""
    windows = [inputs.images, *(source.valid for source in inputs.further.values())]
    step = max(quarter_turns(*window.shape[-2:]) for window in windows)
    for turns in (step, 2):
        _turn(inputs, labels, _chosen(len(inputs), generator), QUARTERS[turns])
    return inputs, labels


def _turn(inputs: Inputs, labels: NDArray, chosen: NDArray[np.int64], turn: Turn) -> None:
    """Turn some places, in the arrays themselves."""
    arrays = [inputs.images, *([labels] if labels.ndim == PER_CELL else [])]
    for source in inputs.further.values():
        arrays += [source.values, source.valid]
        source.box[chosen] = turn.of_box(source.box[chosen], *source.valid.shape[-2:])
    for array in arrays:
        array[chosen] = turn.of_array(array[chosen])


def _crop(inputs: Inputs, labels: NDArray, _: Images, generator: Generator) -> Moved:
    """A smaller window of each patch, enlarged to the full size; one size for the batch, a place for each patch.

    Further sources stay whole, as surroundings: only the box in them becomes smaller.
    """
    images = inputs.images
    rows, cols = images.shape[-2:]
    height, width = crop_size(rows, cols, generator.random())
    tops = generator.integers(rows - height + 1, size=len(images))
    lefts = generator.integers(cols - width + 1, size=len(images))
    places = [(slice(top, top + height), slice(left, left + width)) for top, left in zip(tops, lefts, strict=True)]
    cut = np.stack([image[:, place[0], place[1]] for image, place in zip(images, places, strict=True)])
    images = _enlarged(_enlarged(cut, rows, 2), cols, 3)
    if labels.ndim == PER_CELL:
        marks = np.stack([label[place] for label, place in zip(labels, places, strict=True)])
        nearest = [
            ((np.arange(whole) + 0.5) * part / whole).astype(np.int64)
            for whole, part in ((rows, height), (cols, width))
        ]
        labels = marks[:, nearest[0][:, None], nearest[1]]
    start, share = np.stack([tops / rows, lefts / cols], axis=1), np.array([height / rows, width / cols])
    return Inputs(images, {name: _cropped(source, start, share) for name, source in inputs.further.items()}), labels


def _cropped(source: Further, start: NDArray, share: NDArray) -> Further:
    """The source with a box of which ``start`` (N, 2) is left out before, and only ``share`` (2,) kept."""
    corner, sides = source.box[:, :2], source.box[:, 2:]
    return replace(source, box=np.concatenate([corner + start * sides, share * sides], axis=1).astype(np.float32))


def _enlarged(values: Images, count: int, axis: int) -> Images:
    """Linear interpolation along an axis, centres of cells on centres of cells."""
    size = values.shape[axis]
    places = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    lower = places.astype(np.int64)
    share = (places - lower).astype(np.float32).reshape([-1 if number == axis else 1 for number in range(values.ndim)])
    first, second = values.take(lower, axis), values.take(np.minimum(lower + 1, size - 1), axis)
    return first + (second - first) * share


def _radiometric(change: Change) -> Step:
    """The step that changes the values of each source for itself; dates of a series are like further bands."""

    def step(inputs: Inputs, labels: NDArray, spread: Images, generator: Generator) -> Moved:
        images, known = inputs.images, (inputs.images != 0).any(axis=1, keepdims=True)
        changed = np.where(known, change(images, known, spread, generator), images).astype(np.float32, copy=False)
        further = {name: _changed(source, change, generator) for name, source in inputs.further.items()}
        return Inputs(changed, further), labels

    return step


def _changed(source: Further, change: Change, generator: Generator) -> Further:
    values, known = source.values, np.broadcast_to(np.expand_dims(source.valid, -3), source.values.shape)
    flat = (len(values), -1, *values.shape[-2:])
    ones = np.ones(math.prod(values.shape[1:-2]), dtype=np.float32)
    changed = change(values.reshape(flat), known.reshape(flat), ones, generator).reshape(values.shape)
    return replace(source, values=np.where(known, changed, values).astype(np.float32, copy=False))


def _jitter(images: Images, known: NDArray[np.bool_], spread: Images, generator: Generator) -> Images:
    """Another contrast and brightness: a gain and an offset per patch and band, half of it common to the bands.

    The gain is about the mean of the batch: about 0 it would move a band far from 0 by more than the band varies.
    """
    gain, offset = (_per_band(images, generator) for _ in range(2))
    total = (images * known).sum(axis=(0, 2, 3), dtype=np.float64)
    mean = (total / known.sum(axis=(0, 2, 3)).clip(min=1)).astype(np.float32)
    return images + GAIN * gain * (images - mean[:, None, None]) + OFFSET * offset * spread[:, None, None]


def _per_band(images: Images, generator: Generator) -> Images:
    count, bands = images.shape[:2]
    common, own = generator.standard_normal((count, 1)), generator.standard_normal((count, bands))
    return ((common + own) * math.sqrt(0.5))[..., None, None].astype(np.float32)


def _noise(images: Images, _: NDArray[np.bool_], spread: Images, generator: Generator) -> Images:
    """Independent noise in each cell and band."""
    noise = generator.standard_normal(images.shape, dtype=np.float32)
    return images + NOISE * spread[:, None, None] * noise


def _blur(images: Images, _: NDArray[np.bool_], __: Images, generator: Generator) -> Images:
    """A binomial filter of 3 x 3 cells on half of the patches."""
    chosen = _chosen(len(images), generator)
    if min(images.shape[-2:]) < SMALLEST_BLURRED or not len(chosen):
        return images
    blurred = np.pad(images[chosen], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (2, 3):
        size = blurred.shape[axis] - 2
        before, here, after = (blurred.take(range(first, first + size), axis) for first in range(3))
        blurred = BLUR[0] * before + BLUR[1] * here + BLUR[2] * after
    changed = images.copy()
    changed[chosen] = blurred
    return changed


def _erase(inputs: Inputs, labels: NDArray, _: Images, generator: Generator) -> Moved:
    """A rectangle of half of the patches becomes null; its cells lose their labels (Zhong et al. 2020, AAAI).

    In further sources it is another rectangle, of other patches, and costs no label.
    """
    none = math.nan if np.issubdtype(labels.dtype, np.floating) else UNLABELLED
    for number, place in _rectangles(inputs.images, generator):
        inputs.images[number, :, *place] = 0
        if labels.ndim == PER_CELL:
            labels[number, *place] = none
    for source in inputs.further.values():
        for number, place in _rectangles(source.valid, generator):
            source.values[number, ..., *place] = 0
            source.valid[number, ..., *place] = False
    return inputs, labels


def _rectangles(images: NDArray, generator: Generator) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Patches, and the rows and columns to be erased in them."""
    rows, cols = images.shape[-2:]
    for number in _chosen(len(images), generator).tolist():
        yield number, erased(rows, cols, generator.random(4).tolist())


STEPS: dict[str, Step] = {
    "crop": _crop,
    "flip": _flip,
    "rotate": _rotate,
    "blur": _radiometric(_blur),
    "jitter": _radiometric(_jitter),
    "noise": _radiometric(_noise),
    "erase": _erase,
}
