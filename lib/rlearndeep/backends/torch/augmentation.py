"""Augmentation of whole batches: any number of bands of any range, sources and label together.

What moves the ground moves every source: each is turned in its own cells, and the box that says where the reference
lies in it follows. What changes values changes each source for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional

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

Batch = TypeVar("Batch", bound=Tensor | Inputs)
Moved = tuple[Inputs, Tensor]
Step = Callable[[Inputs, Tensor, Tensor, Generator], Moved]
Change = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]
"""Of images, where they are known (both (N, bands, rows, cols) or to be broadcast to it), and the spread per band."""


def augment(
    names: Sequence[str], images: Batch, labels: Tensor, spread: Tensor, generator: Generator
) -> tuple[Batch, Tensor]:
    """A changed copy of a batch.

    Args:
        names: steps, of ``ORDER``; they are taken in that order.
        images: (N, bands, rows, cols), normalised, or ``Inputs``; 0 in all bands where null, and it stays so.
        labels: (N, rows, cols), which moves with the images, or (N,) or (N, classes).
        spread: standard deviation per band of the images, to which radiometric changes are relative; that of
            further sources is 1.
        generator: source of all randomness, on the CPU.
    """
    inputs = images if isinstance(images, Inputs) else Inputs(images)
    for name in ordered(names):
        inputs, labels = STEPS[name](inputs, labels, spread, generator)
    changed: Any = inputs if isinstance(images, Inputs) else inputs.images
    return cast(Batch, changed), labels


def _chosen(count: int, generator: Generator) -> Tensor:
    """Positions of a random half."""
    return torch.nonzero(torch.rand(count, generator=generator) < CHANGED).flatten()


@dataclass(frozen=True)
class Turn:
    """A mirroring or a rotation by quarters: of arrays, and of boxes within windows of so many rows and columns."""

    of_array: Callable[[Tensor], Tensor]
    of_box: Callable[[Tensor, int, int], Tensor]

    def of_source(self, source: Further, chosen: Tensor) -> Further:
        """A source, turned at the chosen places."""
        rows, cols = source.valid.shape[-2:]
        at = chosen.to(source.box.device)
        return replace(
            source,
            values=self.of_some(source.values, chosen),
            valid=self.of_some(source.valid, chosen),
            box=source.box.index_copy(0, at, self.of_box(source.box[at], rows, cols)),
        )

    def of_some(self, array: Tensor, chosen: Tensor) -> Tensor:
        """An array, turned at the chosen places."""
        at = chosen.to(array.device)
        return array.index_copy(0, at, self.of_array(array[at]))


def _mirrored_box(axis: int) -> Callable[[Tensor, int, int], Tensor]:
    def change(box: Tensor, rows: int, cols: int) -> Tensor:
        top, left, height, width = box.unbind(dim=1)
        if axis == -2:
            return torch.stack([rows - (top + height), left, height, width], dim=1)
        return torch.stack([top, cols - (left + width), height, width], dim=1)

    return change


def _quarter_box(box: Tensor, _: int, cols: int) -> Tensor:
    top, left, height, width = box.unbind(dim=1)
    return torch.stack([cols - (left + width), top, width, height], dim=1)


def _half_box(box: Tensor, rows: int, cols: int) -> Tensor:
    top, left, height, width = box.unbind(dim=1)
    return torch.stack([rows - (top + height), cols - (left + width), height, width], dim=1)


MIRRORED = {axis: Turn(lambda array, axis=axis: array.flip(axis), _mirrored_box(axis)) for axis in (-1, -2)}  # type: ignore[misc]
QUARTERS = {
    1: Turn(lambda array: torch.rot90(array, 1, (-2, -1)), _quarter_box),
    2: Turn(lambda array: torch.rot90(array, 2, (-2, -1)), _half_box),
}


def _flip(inputs: Inputs, labels: Tensor, _: Tensor, generator: Generator) -> Moved:
    """Each patch upside down, left to right, both, or neither."""
    for turn in MIRRORED.values():
        inputs, labels = _turned(inputs, labels, turn, _chosen(len(inputs), generator))
    return inputs, labels


def _rotate(inputs: Inputs, labels: Tensor, _: Tensor, generator: Generator) -> Moved:
    """Each patch by a multiple of 90 degrees; of 180 degrees where it, or its window of a source, is not square."""
    windows = [inputs.images, *(source.valid for source in inputs.further.values())]
    step = max(quarter_turns(*window.shape[-2:]) for window in windows)
    for turns in (step, 2):
        inputs, labels = _turned(inputs, labels, QUARTERS[turns], _chosen(len(inputs), generator))
    return inputs, labels


def _turned(inputs: Inputs, labels: Tensor, turn: Turn, chosen: Tensor) -> Moved:
    further = {name: turn.of_source(source, chosen) for name, source in inputs.further.items()}
    labels = turn.of_some(labels, chosen) if labels.dim() == PER_CELL else labels
    return Inputs(turn.of_some(inputs.images, chosen), further), labels


def _crop(inputs: Inputs, labels: Tensor, _: Tensor, generator: Generator) -> Moved:
    """A smaller window of each patch, enlarged to the full size; one size for the batch, a place for each patch.

    Further sources stay whole, as surroundings: only the box in them becomes smaller.
    """
    images = inputs.images
    rows, cols = images.shape[-2:]
    height, width = crop_size(rows, cols, float(torch.rand((), generator=generator)))
    tops = torch.randint(rows - height + 1, (len(images),), generator=generator)
    lefts = torch.randint(cols - width + 1, (len(images),), generator=generator)
    corners = zip(tops.tolist(), lefts.tolist(), strict=True)
    places = [(slice(top, top + height), slice(left, left + width)) for top, left in corners]
    cut = torch.stack([image[:, place[0], place[1]] for image, place in zip(images, places, strict=True)])
    images = functional.interpolate(cut, (rows, cols), mode="bilinear", align_corners=False)
    if labels.dim() == PER_CELL:
        marks = torch.stack([label[place] for label, place in zip(labels, places, strict=True)])
        labels = marks.flatten(1)[:, _nearest((height, width), (rows, cols)).to(marks.device)].unflatten(
            1, (rows, cols)
        )
    kept = torch.stack([tops / rows, lefts / cols], dim=1), torch.tensor([height / rows, width / cols])
    return Inputs(images, {name: _cropped(source, *kept) for name, source in inputs.further.items()}), labels


def _nearest(size: tuple[int, int], larger: tuple[int, int]) -> Tensor:
    """The place in an array of one size of each cell of a larger one over the same ground, both flattened."""
    places = torch.arange(size[0] * size[1], dtype=torch.float64).reshape(1, 1, *size)  # on the CPU: MPS has no float64
    return functional.interpolate(places, larger, mode="nearest-exact").long().flatten()


def _cropped(source: Further, start: Tensor, share: Tensor) -> Further:
    """The source with a box of which ``start`` (N, 2) is left out before, and only ``share`` (2,) kept."""
    box = source.box
    corner, sides = box[:, :2] + start.to(box) * box[:, 2:], share.to(box) * box[:, 2:]
    return replace(source, box=torch.cat([corner, sides], dim=1))


def _radiometric(change: Change) -> Step:
    """The step that changes the values of each source for itself; dates of a series are like further bands."""

    def step(inputs: Inputs, labels: Tensor, spread: Tensor, generator: Generator) -> Moved:
        images, known = inputs.images, (inputs.images != 0).any(dim=1, keepdim=True)
        changed = torch.where(known, change(images, known, spread, generator), images)
        further = {name: _changed(source, change, generator) for name, source in inputs.further.items()}
        return Inputs(changed, further), labels

    return step


def _changed(source: Further, change: Change, generator: Generator) -> Further:
    values, known = source.values, source.valid.unsqueeze(-3).expand_as(source.values)
    flat = values.flatten(1, -3)
    changed = change(flat, known.flatten(1, -3), torch.ones(flat.shape[1], device=flat.device), generator)
    return replace(source, values=torch.where(known, changed.reshape(values.shape), values))


def _jitter(images: Tensor, known: Tensor, spread: Tensor, generator: Generator) -> Tensor:
    """Another contrast and brightness: a gain and an offset per patch and band, half of it common to the bands.

    The gain is about the mean of the batch: about 0 it would move a band far from 0 by more than the band varies.
    """
    gain, offset = (_per_band(images, generator) for _ in range(2))
    mean = (images * known).sum(dim=(0, 2, 3)) / known.sum(dim=(0, 2, 3)).clamp(min=1)
    return images + GAIN * gain * (images - mean[:, None, None]) + OFFSET * offset * spread[:, None, None]


def _per_band(images: Tensor, generator: Generator) -> Tensor:
    count, bands = images.shape[:2]
    common = torch.randn((count, 1), generator=generator)
    own = torch.randn((count, bands), generator=generator)
    return ((common + own) * math.sqrt(0.5))[..., None, None].to(images.device)


def _noise(images: Tensor, _: Tensor, spread: Tensor, generator: Generator) -> Tensor:
    """Independent noise in each cell and band."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images + NOISE * spread[:, None, None] * noise


def _blur(images: Tensor, _: Tensor, __: Tensor, generator: Generator) -> Tensor:
    """A binomial filter of 3 x 3 cells on half of the patches."""
    chosen = _chosen(len(images), generator).to(images.device)
    if min(images.shape[-2:]) < SMALLEST_BLURRED or not len(chosen):
        return images
    line = torch.tensor(BLUR, device=images.device)
    kernel = (line[:, None] * line)[None, None].repeat(images.shape[1], 1, 1, 1)
    padded = functional.pad(images[chosen], (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=images.shape[1])
    return images.index_copy(0, chosen, blurred)


def _erase(inputs: Inputs, labels: Tensor, _: Tensor, generator: Generator) -> Moved:
    """A rectangle of half of the patches becomes null; its cells lose their labels (Zhong et al. 2020, AAAI).

    In further sources it is another rectangle, of other patches, and costs no label.
    """
    images, labels = inputs.images.clone(), labels.clone()
    none = math.nan if labels.is_floating_point() else UNLABELLED
    for number, place in _rectangles(images, generator).items():
        images[number, :, *place] = 0
        if labels.dim() == PER_CELL:
            labels[number, *place] = none
    further = {}
    for name, source in inputs.further.items():
        valid = source.valid.clone()
        for number, place in _rectangles(valid, generator).items():
            valid[number, ..., *place] = False
        further[name] = replace(source, values=torch.where(valid.unsqueeze(-3), source.values, 0), valid=valid)
    return Inputs(images, further), labels


def _rectangles(images: Tensor, generator: Generator) -> Mapping[int, tuple[slice, slice]]:
    """Rows and columns to be erased, by patch."""
    rows, cols = images.shape[-2:]
    chosen = _chosen(len(images), generator).tolist()
    return {number: erased(rows, cols, torch.rand(4, generator=generator).tolist()) for number in chosen}


STEPS: dict[str, Step] = {
    "crop": _crop,
    "flip": _flip,
    "rotate": _rotate,
    "blur": _radiometric(_blur),
    "jitter": _radiometric(_jitter),
    "noise": _radiometric(_noise),
    "erase": _erase,
}
