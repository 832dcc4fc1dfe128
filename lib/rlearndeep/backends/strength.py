"""What the steps of augmentation do, and how much, whatever the framework."""

from __future__ import annotations

from collections.abc import Collection, Sequence

ORDER = ("crop", "flip", "rotate", "blur", "jitter", "noise", "erase")
"""In which the steps that were chosen are taken."""

CHANGED = 0.5
"""Share of the patches that a step which takes some and leaves others takes."""

PER_CELL = 3
"""Axes of labels that move with the images: patch, row and column."""

GAIN = 0.1
"""Standard deviation of the factor of contrast."""

OFFSET = 0.1
"""Standard deviation of the change of brightness, in standard deviations of the band."""

NOISE = 0.05
"""Standard deviation of the noise of a cell, in standard deviations of the band."""

SMALLEST_CROP = 0.7
"""Share of rows and columns that a crop keeps at least."""

LARGEST_ERASED = 0.4
"""Share of rows and columns that are erased at most."""

BLUR = (0.25, 0.5, 0.25)
"""The filter, along rows and columns; smaller patches than it are not blurred."""

SMALLEST_BLURRED = len(BLUR)


def ordered(names: Collection[str]) -> list[str]:
    """The steps that were chosen, in the order in which they are taken."""
    return [name for name in ORDER if name in names]


def quarter_turns(rows: int, cols: int) -> int:
    """By how many quarters a patch is turned: only by halves where it is not square."""
    return 1 if rows == cols else 2


def crop_size(rows: int, cols: int, draw: float) -> tuple[int, int]:
    """Rows and columns of a crop, of a random number from 0 to 1."""
    scale = SMALLEST_CROP + (1 - SMALLEST_CROP) * draw
    return max(1, round(rows * scale)), max(1, round(cols * scale))


def erased(rows: int, cols: int, draws: Sequence[float]) -> tuple[slice, slice]:
    """The rectangle that is erased, of four random numbers from 0 to 1."""
    height, width = int(rows * LARGEST_ERASED * draws[0]), int(cols * LARGEST_ERASED * draws[1])
    top, left = int((rows - height) * draws[2]), int((cols - width) * draws[3])
    return slice(top, top + height), slice(left, left + width)
