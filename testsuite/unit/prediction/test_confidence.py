"""Classes and certainty from scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.confidence import best_class, entropy, margin

scores_of_any_shape = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
    elements=st.floats(0, 1, width=32),
)


@given(scores_of_any_shape)
def test_best_class_and_margin_are_those_of_sorting(scores):
    valid = np.ones(scores.shape[1:], dtype=bool)
    index, best = best_class(scores, valid)
    np.testing.assert_array_equal(index, scores.argmax(axis=0))
    np.testing.assert_array_equal(best, scores.max(axis=0))
    ordered = np.sort(np.concatenate([scores, np.zeros((1, *scores.shape[1:]), np.float32)]), axis=0)
    np.testing.assert_array_equal(margin(scores), ordered[-1] - ordered[-2])


@given(scores_of_any_shape)
def test_entropy_lies_between_certain_and_undecided(scores):
    total = scores.sum(axis=0)
    shares = np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / len(scores)).astype(np.float32)
    result = entropy(shares)
    assert ((result >= 0) & (result <= 1)).all()


def test_entropy_is_normalised_by_the_number_of_classes():
    assert entropy(np.full((4, 1, 1), 0.25, np.float32))[0, 0] == pytest.approx(1)
    assert entropy(np.array([1, 0, 0], np.float32)[:, None, None])[0, 0] == 0
    assert entropy(np.array([0.5, 0.5, 0, 0], np.float32)[:, None, None])[0, 0] == pytest.approx(0.5)
    assert entropy(np.ones((1, 1, 1), np.float32))[0, 0] == 0


def test_a_network_that_answers_nan_for_data_is_an_error():
    scores = np.full((2, 1, 2), np.nan, np.float32)
    scores[:, 0, 0] = 0.5
    best_class(scores, np.array([[True, False]]))
    with pytest.raises(DeepLearningError, match="NaN"):
        best_class(scores, np.array([[True, True]]))
