"""Where the ground of one source lies within another, and days of a series."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.scene.geometry import Region, Windows
from rlearndeep.scene.inputs import Further, Inputs, days_of, ground_box


def test_the_ground_of_a_patch_lies_where_the_map_says() -> None:
    reference = Windows(Region(1000, 0, 1000, 0, 100, 100), np.array([10, 11]), np.array([20, 20]), (8, 4))
    own = Windows.around(*reference.centres, Region(1010, 10, 995, -5, 50, 50), (6, 6))
    box = ground_box(own, reference)
    # The upper edge of the first patch lies at 900: 5.5 cells of 20 below 1010.
    assert np.allclose(box[:, 0] + own.row, [5.5, 6.0])
    assert np.allclose(box[:, 1] + own.col, [205 / 20, 205 / 20])
    assert box[:, 2:].tolist() == [[4, 2], [4, 2]]


def test_days_count_from_the_first_new_year_on() -> None:
    assert days_of(("2021-01-01", "2021-12-31T10:00:00Z", "2022-01-01")).tolist() == [0, 364, 365]
    with pytest.raises(ValueError):
        days_of(("31 May 2021",))


def test_a_part_of_a_batch_is_a_part_of_every_source() -> None:
    further = Further(np.arange(6).reshape(3, 1, 1, 2), np.ones((3, 1, 2), bool), np.zeros((3, 4)), np.zeros((3, 0)))
    batch = Inputs(np.arange(12).reshape(3, 1, 2, 2), {"auxiliary1": further})
    part = batch[np.array([2, 0])]
    assert len(batch) == 3 and len(part) == 2 and part.shape == (2, 1, 2, 2)
    assert part.images[:, 0, 0, 0].tolist() == [8, 0]
    assert part.further["auxiliary1"].values[:, 0, 0, 0].tolist() == [4, 0]
