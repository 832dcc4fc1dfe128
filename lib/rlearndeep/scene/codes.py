"""Codes of a label plane: the small numbers that stand in cells for what a label source says of them.

Two codes mean the same for every source; the others count from ``FIRST_CODE``, and a table of the source says
what stands behind each.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.geometry import Window

NOTHING = 0
"""Code of a cell that no label covers."""

IGNORED = 1
"""Code of a cell whose label is not to be used."""

FIRST_CODE = 2
"""Code of the first label of a source."""


class Plane(Protocol):
    """A plane of label codes."""

    def read(self, window: Window) -> NDArray[np.int32]:
        """Codes of a window, (rows, cols), ``NOTHING`` beyond the source; a new array that may be changed."""


class ValuePlane(Plane, Protocol):
    """A plane of codes whose labels are numbers that no table could hold."""

    def read_values(self, window: Window) -> NDArray[np.float32]:
        """Labels of a window, (rows, cols), not a number where there is none."""
