"""What the steps of augmentation do, and how much, whatever the framework."""

from __future__ import annotations

ORDER = ("crop", "flip", "rotate", "blur", "jitter", "noise", "erase")
"""In which the steps that were chosen are taken."""

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
