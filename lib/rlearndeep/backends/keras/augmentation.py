"""Augmentation of whole batches: any number of bands of any range, image and label together; with NumPy.

It runs in the thread that reads ahead, while the engine computes, and is the same with every engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rlearndeep.backends.strength import (
    BLUR,
    GAIN,
    LARGEST_ERASED,
    NOISE,
    OFFSET,
    ORDER,
    SMALLEST_BLURRED,
    SMALLEST_CROP,
)
from rlearndeep.scene.classes import UNLABELLED

_HALF = 0.5
_PER_CELL = 3  # axes of labels per cell

Images = NDArray[np.float32]
Step = Callable[[Images, NDArray, Images, Generator], tuple[Images, NDArray]]


def augment(
    names: Sequence[str], images: Images, labels: NDArray, spread: Images, generator: Generator
) -> tuple[Images, NDArray]:
    """A changed copy of a batch.

    Args:
        names: steps, of ``ORDER``; they are taken in that order.
        images: (N, bands, rows, cols), normalised; 0 in all bands where null, and it stays so.
        labels: (N, rows, cols), which moves with the images, or (N,) or (N, classes).
        spread: standard deviation per band of the images, to which radiometric changes are relative.
        generator: source of all randomness.
    """
    images, labels = (images.copy(), labels.copy()) if names else (images, labels)
    for name in ORDER:
        if name in names:
            images, labels = STEPS[name](images, labels, spread, generator)
    return images, labels


def _chosen(count: int, generator: Generator) -> NDArray[np.int64]:
    """Positions of a random half."""
    return np.flatnonzero(generator.random(count) < _HALF)


def _flip(images: Images, labels: NDArray, _: Images, generator: Generator) -> tuple[Images, NDArray]:
    """Each patch upside down, left to right, both, or neither."""
    for axis in (-1, -2):
        images, labels = _turn(images, labels, _chosen(len(images), generator), partial(np.flip, axis=axis))
    return images, labels


def _rotate(images: Images, labels: NDArray, _: Images, generator: Generator) -> tuple[Images, NDArray]:
    """Each patch by a multiple of 90 degrees; of 180 degrees where it is not square."""
    step = 1 if images.shape[-1] == images.shape[-2] else 2
    for turns in (step, 2):
        chosen = _chosen(len(images), generator)
        images, labels = _turn(images, labels, chosen, partial(np.rot90, k=turns, axes=(-2, -1)))
    return images, labels


def _turn(
    images: Images, labels: NDArray, chosen: NDArray[np.int64], action: Callable[[NDArray], NDArray]
) -> tuple[Images, NDArray]:
    images[chosen] = action(images[chosen])
    if labels.ndim == _PER_CELL:
        labels[chosen] = action(labels[chosen])
    return images, labels


def _crop(images: Images, labels: NDArray, _: Images, generator: Generator) -> tuple[Images, NDArray]:
    """A smaller window of each patch, enlarged to the full size; one size for the batch, a place for each patch."""
    rows, cols = images.shape[-2:]
    scale = SMALLEST_CROP + (1 - SMALLEST_CROP) * generator.random()
    height, width = max(1, round(rows * scale)), max(1, round(cols * scale))
    tops = generator.integers(rows - height + 1, size=len(images))
    lefts = generator.integers(cols - width + 1, size=len(images))
    places = [(slice(top, top + height), slice(left, left + width)) for top, left in zip(tops, lefts, strict=True)]
    cut = np.stack([image[:, place[0], place[1]] for image, place in zip(images, places, strict=True)])
    images = _enlarged(_enlarged(cut, rows, 2), cols, 3)
    if labels.ndim == _PER_CELL:
        marks = np.stack([label[place] for label, place in zip(labels, places, strict=True)])
        nearest = [
            ((np.arange(whole) + 0.5) * part / whole).astype(np.int64)
            for whole, part in ((rows, height), (cols, width))
        ]
        labels = marks[:, nearest[0][:, None], nearest[1]]
    return images, labels


def _enlarged(values: Images, count: int, axis: int) -> Images:
    """Linear interpolation along an axis, centres of cells on centres of cells."""
    size = values.shape[axis]
    places = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    lower = places.astype(np.int64)
    share = (places - lower).astype(np.float32).reshape([-1 if number == axis else 1 for number in range(values.ndim)])
    first, second = values.take(lower, axis), values.take(np.minimum(lower + 1, size - 1), axis)
    return first + (second - first) * share


def _jitter(images: Images, labels: NDArray, spread: Images, generator: Generator) -> tuple[Images, NDArray]:
    """Another contrast and brightness: a gain and an offset per patch and band, half of it common to the bands."""
    gain, offset = (_per_band(images, generator) for _ in range(2))
    changed = images * (1 + GAIN * gain) + OFFSET * offset * spread[:, None, None]
    return _keep_null(images, changed), labels


def _per_band(images: Images, generator: Generator) -> Images:
    count, bands = images.shape[:2]
    common, own = generator.standard_normal((count, 1)), generator.standard_normal((count, bands))
    return ((common + own) * _HALF**_HALF)[..., None, None].astype(np.float32)


def _noise(images: Images, labels: NDArray, spread: Images, generator: Generator) -> tuple[Images, NDArray]:
    """Independent noise in each cell and band."""
    noise = generator.standard_normal(images.shape, dtype=np.float32)
    return _keep_null(images, images + NOISE * spread[:, None, None] * noise), labels


def _blur(images: Images, labels: NDArray, _: Images, generator: Generator) -> tuple[Images, NDArray]:
    """A binomial filter of 3 x 3 cells on half of the patches."""
    chosen = _chosen(len(images), generator)
    if min(images.shape[-2:]) < SMALLEST_BLURRED or not len(chosen):
        return images, labels
    blurred = np.pad(images[chosen], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for axis in (2, 3):
        size = blurred.shape[axis] - 2
        before, here, after = (blurred.take(range(first, first + size), axis) for first in range(3))
        blurred = BLUR[0] * before + BLUR[1] * here + BLUR[2] * after
    images[chosen] = _keep_null(images[chosen], blurred)
    return images, labels


def _erase(images: Images, labels: NDArray, _: Images, generator: Generator) -> tuple[Images, NDArray]:
    """A rectangle of half of the patches becomes null; its cells lose their labels (Zhong et al. 2020, AAAI)."""
    rows, cols = images.shape[-2:]
    none = math.nan if np.issubdtype(labels.dtype, np.floating) else UNLABELLED
    for number in _chosen(len(images), generator):
        share = generator.random(4)
        height, width = int(rows * LARGEST_ERASED * share[0]), int(cols * LARGEST_ERASED * share[1])
        top, left = int((rows - height) * share[2]), int((cols - width) * share[3])
        images[number, :, top : top + height, left : left + width] = 0
        if labels.ndim == _PER_CELL:
            labels[number, top : top + height, left : left + width] = none
    return images, labels


def _keep_null(images: Images, changed: Images) -> Images:
    return np.where((images == 0).all(axis=1, keepdims=True), images, changed).astype(np.float32, copy=False)


STEPS: dict[str, Step] = {
    "crop": _crop,
    "flip": _flip,
    "rotate": _rotate,
    "blur": _blur,
    "jitter": _jitter,
    "noise": _noise,
    "erase": _erase,
}
