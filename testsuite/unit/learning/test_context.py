"""How far a trained network looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from prediction_scenes import BoxPredictor
from rlearndeep.learning.context import reach

IMAGES = np.random.default_rng(1).normal(size=(8, 2, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("distance", (0, 3, 7))
def test_the_reach_of_a_network_is_how_far_it_looks(distance: int) -> None:
    assert reach(BoxPredictor(distance), IMAGES * 20) == distance


def test_the_reach_of_a_network_that_looks_everywhere_is_the_largest_that_was_tried() -> None:
    assert reach(BoxPredictor(200), IMAGES * 20000) == (96 - 16) // 2


@pytest.mark.parametrize(("scale", "distance"), ((1.0, 5), (1e9, 0)))
def test_values_change_in_units_of_their_spread(scale: float, distance: int) -> None:
    class Values(BoxPredictor):
        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            size = 2 * self.reach + 1
            return sum(np.roll(batch[:, :1], shift, axis=2) for shift in range(-self.reach, self.reach + 1)) / size

    assert reach(Values(5), IMAGES, scale) == distance
