"""Views: symmetries of the square."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.prediction.views import VIEWS


@pytest.mark.parametrize(("name", "number"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_views_are_different_and_turned_back_again(name, number):
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    turned = [view.turn(images) for view in VIEWS[name]]
    assert len({(image.shape, image.tobytes()) for image in turned}) == number
    assert turned[0] is images
    for view, image in zip(VIEWS[name], turned, strict=True):
        assert image.shape[-2:] == ((5, 4) if view.transpose else (4, 5))
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(view.back(image), images)


def test_answers_per_patch_are_left_as_they_are():
    answers = np.arange(6.0).reshape(2, 3)
    assert all(view.back(answers) is answers for view in VIEWS["d4"])
