"""Views of an image for test-time augmentation: the same ground, flipped and turned.

On the ground no direction is up, so a network's answers for turned images are as good as the one for the image as it
is, and their mean is usually better (Krizhevsky, Sutskever and Hinton 2012 for flips; Cohen and Welling 2016 for the
eight symmetries of the square, the group D4 or p4m without its shifts).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.inputs import Further, Images, Inputs


@dataclass(frozen=True)
class View:
    """One symmetry of the rectangle or the square.

    Attributes:
        transpose: rows and columns change places, first.
        flip_rows: the first row becomes the last.
        flip_cols: the first column becomes the last.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    def turn(self, images: Images) -> Images:
        """Images (..., rows, cols) in this view, (..., cols, rows) when it transposes; of every source alike."""
        if self == View():
            return images
        if isinstance(images, Inputs):
            further = {name: self._turned_source(source) for name, source in images.further.items()}
            return Inputs(self._turned(images.images), further)
        return self._turned(images)

    def _turned(self, images: NDArray) -> NDArray:
        turned = images.swapaxes(-1, -2) if self.transpose else images
        return np.ascontiguousarray(self._flipped(turned))

    def _turned_source(self, source: Further) -> Further:
        return Further(self._turned(source.values), self._turned(source.valid), self._box(source), source.days)

    def _box(self, source: Further) -> NDArray[np.float32]:
        """Where the ground of the reference lies in the turned source."""
        rows, cols = source.valid.shape[-2:]
        top, left, height, width = source.box.T
        if self.transpose:
            rows, cols, top, left, height, width = cols, rows, left, top, width, height
        top = rows - (top + height) if self.flip_rows else top
        left = cols - (left + width) if self.flip_cols else left
        return np.stack([top, left, height, width], axis=-1).astype(np.float32, copy=False)

    def back(self, answers: NDArray) -> NDArray:
        """Answers per cell (N, planes, rows, cols) of turned images, turned back; others stay as they are."""
        if answers.ndim < 4:
            return answers
        straight = self._flipped(answers)
        return straight.swapaxes(-1, -2) if self.transpose else straight

    def _flipped(self, images: NDArray) -> NDArray:
        return images[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_cols else 1]


_FLIPS = tuple(View(False, rows, cols) for rows in (False, True) for cols in (False, True))

VIEWS: dict[str, tuple[View, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": (*_FLIPS, *(View(True, view.flip_rows, view.flip_cols) for view in _FLIPS)),
}
"""Views by the name of the choice; the first is always the image as it is."""
