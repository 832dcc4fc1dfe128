"""Augmentation of whole batches: any number of bands of any range, image and label together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional

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

Step = Callable[[Tensor, Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def augment(
    names: Sequence[str], images: Tensor, labels: Tensor, spread: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A changed copy of a batch.

    Args:
        names: steps, of ``ORDER``; they are taken in that order.
        images: (N, bands, rows, cols), normalised; 0 in all bands where null, and it stays so.
        labels: (N, rows, cols), which moves with the images, or (N,) or (N, classes).
        spread: standard deviation per band of the images, to which radiometric changes are relative.
        generator: source of all randomness, on the CPU.
    """
    for name in ORDER:
        if name in names:
            images, labels = STEPS[name](images, labels, spread, generator)
    return images, labels


def _chosen(count: int, generator: Generator) -> Tensor:
    """Positions of a random half."""
    return torch.nonzero(torch.rand(count, generator=generator) < _HALF).flatten()


def _flip(images: Tensor, labels: Tensor, _: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each patch upside down, left to right, both, or neither."""
    for axis in (-1, -2):
        images, labels = _turn(images, labels, _chosen(len(images), generator), partial(torch.flip, dims=(axis,)))
    return images, labels


def _rotate(images: Tensor, labels: Tensor, _: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each patch by a multiple of 90 degrees; of 180 degrees where it is not square."""
    step = 1 if images.shape[-1] == images.shape[-2] else 2
    for turns in (step, 2):
        chosen = _chosen(len(images), generator)
        images, labels = _turn(images, labels, chosen, partial(torch.rot90, k=turns, dims=(-2, -1)))
    return images, labels


def _turn(images: Tensor, labels: Tensor, chosen: Tensor, action: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    images = images.index_copy(0, chosen.to(images.device), action(images[chosen]))
    if labels.dim() == _PER_CELL:
        labels = labels.index_copy(0, chosen.to(labels.device), action(labels[chosen]))
    return images, labels


def _crop(images: Tensor, labels: Tensor, _: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A smaller window of each patch, enlarged to the full size; one size for the batch, a place for each patch."""
    rows, cols = images.shape[-2:]
    scale = SMALLEST_CROP + (1 - SMALLEST_CROP) * float(torch.rand((), generator=generator))
    height, width = max(1, round(rows * scale)), max(1, round(cols * scale))
    tops = torch.randint(rows - height + 1, (len(images),), generator=generator).tolist()
    lefts = torch.randint(cols - width + 1, (len(images),), generator=generator).tolist()
    places = [(slice(top, top + height), slice(left, left + width)) for top, left in zip(tops, lefts, strict=True)]
    cut = torch.stack([image[:, place[0], place[1]] for image, place in zip(images, places, strict=True)])
    images = functional.interpolate(cut, (rows, cols), mode="bilinear", align_corners=False)
    if labels.dim() == _PER_CELL:
        marks = torch.stack([label[place] for label, place in zip(labels, places, strict=True)])
        labels = functional.interpolate(marks[:, None].double(), (rows, cols), mode="nearest-exact")[:, 0].to(
            labels.dtype
        )
    return images, labels


def _jitter(images: Tensor, labels: Tensor, spread: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Another contrast and brightness: a gain and an offset per patch and band, half of it common to the bands."""
    gain, offset = (_per_band(images, generator) for _ in range(2))
    changed = images * (1 + GAIN * gain) + OFFSET * offset * spread[:, None, None]
    return _keep_null(images, changed), labels


def _per_band(images: Tensor, generator: Generator) -> Tensor:
    count, bands = images.shape[:2]
    common = torch.randn((count, 1), generator=generator)
    own = torch.randn((count, bands), generator=generator)
    return ((common + own) * _HALF**_HALF)[..., None, None].to(images.device)


def _noise(images: Tensor, labels: Tensor, spread: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Independent noise in each cell and band."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return _keep_null(images, images + NOISE * spread[:, None, None] * noise), labels


def _blur(images: Tensor, labels: Tensor, _: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A binomial filter of 3 x 3 cells on half of the patches."""
    chosen = _chosen(len(images), generator).to(images.device)
    if min(images.shape[-2:]) < SMALLEST_BLURRED or not len(chosen):
        return images, labels
    line = torch.tensor(BLUR, device=images.device)
    kernel = (line[:, None] * line)[None, None].repeat(images.shape[1], 1, 1, 1)
    padded = functional.pad(images[chosen], (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=images.shape[1])
    return images.index_copy(0, chosen, _keep_null(images[chosen], blurred)), labels


def _erase(images: Tensor, labels: Tensor, _: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of half of the patches becomes null; its cells lose their labels (Zhong et al. 2020, AAAI)."""
    rows, cols = images.shape[-2:]
    images, labels = images.clone(), labels.clone()
    none = math.nan if labels.is_floating_point() else UNLABELLED
    for number in _chosen(len(images), generator).tolist():
        share = torch.rand(4, generator=generator).tolist()
        height, width = int(rows * LARGEST_ERASED * share[0]), int(cols * LARGEST_ERASED * share[1])
        top, left = int((rows - height) * share[2]), int((cols - width) * share[3])
        images[number, :, top : top + height, left : left + width] = 0
        if labels.dim() == _PER_CELL:
            labels[number, top : top + height, left : left + width] = none
    return images, labels


def _keep_null(images: Tensor, changed: Tensor) -> Tensor:
    return torch.where((images == 0).all(dim=1, keepdim=True), images, changed)


STEPS: dict[str, Step] = {
    "crop": _crop,
    "flip": _flip,
    "rotate": _rotate,
    "blur": _blur,
    "jitter": _jitter,
    "noise": _noise,
    "erase": _erase,
}
