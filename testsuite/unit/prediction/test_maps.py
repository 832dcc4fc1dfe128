"""Rows of maps from strips."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.prediction.maps import CELL_NULL, Layer, write_maps
from rlearndeep.prediction.stream import Strip
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Window

CLASSES = ClassTable((MapClass(4, "low"), MapClass(9, "high")))


class Sheet:
    """A writer that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def write(self, rows: np.ndarray) -> None:
        self.rows.extend(rows)


@pytest.mark.parametrize("cuts", [(5,), (2, 5), (1, 2, 3, 4, 5)])
def test_columns_of_a_strip_become_whole_rows(cuts):
    rows, cols = 70, 5
    scores = np.linspace(0, 1, rows * cols, dtype=np.float32).reshape(rows, cols)
    scores = np.stack([1 - scores, scores])
    valid = np.arange(rows * cols).reshape(rows, cols) % 7 != 0
    strips = []
    for first, last in zip((0, *cuts), cuts, strict=False):
        window = Window(0, rows, first, last)
        strips.append(Strip(window, scores[:, :, first:last], valid[:, first:last]))
    kinds = ("class", "probability", "confidence", "margin", "entropy")
    sheets = [(Layer(kind, 1), Sheet()) for kind in kinds]
    done = []
    areas = np.arange(1.0, rows + 1)
    tally = write_maps(strips, CLASSES, sheets, areas, cols, progress=lambda *state: done.append(state))

    classes, probability, confidence, margin, entropy = (np.array(sheet.rows) for _, sheet in sheets)
    high = scores[1] > scores[0]
    np.testing.assert_array_equal(classes, np.where(valid, np.where(high, 9, 4), CELL_NULL))
    np.testing.assert_array_equal(probability, np.where(valid, np.round(scores[1], 3), np.nan))
    np.testing.assert_array_equal(confidence, np.where(valid, np.round(scores.max(axis=0), 3), np.nan))
    np.testing.assert_allclose(margin, np.where(valid, np.abs(scores[1] - scores[0]), np.nan), atol=5.1e-4)
    assert np.nanmax(entropy) == 1
    assert tally.cells == rows * cols
    assert tally.null_cells == (~valid).sum()
    assert tally.per_class.tolist() == [(valid & ~high).sum(), (valid & high).sum()]
    np.testing.assert_allclose(tally.area, [(areas[:, None] * (valid & one)).sum() for one in (~high, high)])
    assert done == [(rows, rows)]
