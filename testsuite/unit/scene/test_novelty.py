"""Distances to training data: laws of the nearest neighbour, and what 1 means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlearndeep.scene.novelty import FeatureSpace, nearest


def cloud(seed: int, count: int, width: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, width)) + shift).astype(np.float32)


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(1, 3000), st.integers(1, 40), st.integers(1, 20))
def test_nearest_is_the_smallest_distance_to_any_vector(seed, points, vectors, width):
    here, there = cloud(seed, points, width), cloud(seed + 1, vectors, width, 0.5)
    some = np.random.default_rng(seed).integers(points, size=5)
    expected = np.linalg.norm(here[some, None] - there, axis=2).min(axis=1)
    np.testing.assert_allclose(nearest(here, there)[some], expected, atol=2e-3)


def test_a_vector_is_no_distance_away_from_itself_however_long_it_is():
    vectors = cloud(1, 400, 16, 100.0)
    np.testing.assert_array_equal(nearest(vectors, vectors), 0)
    moved = vectors + np.float32(0.001)
    np.testing.assert_allclose(nearest(moved, vectors), 0.004, rtol=0.02)


def test_validation_data_lie_within_the_edge_and_far_data_beyond():
    space = FeatureSpace.of(cloud(1, 500, 8), cloud(2, 300, 8), np.ones(8, np.float32))
    assert (space.novelty(cloud(3, 1000, 8)) <= 1).mean() > 0.95
    assert (space.novelty(cloud(2, 300, 8)) <= 1 + 1e-4).mean() > 0.95
    assert space.novelty(cloud(3, 1000, 8, 5.0)).min() > 1
    np.testing.assert_allclose(space.novelty(space.vectors), 0, atol=1e-3)


def test_the_threshold_is_the_largest_dissimilarity_without_outliers():
    training = np.array([[0.0], [2.0]], dtype=np.float32)
    validation = np.array([[0.1], [0.2], [0.3], [0.4], [99.0]], dtype=np.float32)
    space = FeatureSpace.of(training, validation, np.ones(1, np.float32))
    assert space.mean_distance == pytest.approx(2)
    assert space.threshold == pytest.approx(0.4 / 2)
    np.testing.assert_allclose(space.novelty(np.array([[-0.4], [-0.8]], np.float32)), [1, 2], rtol=1e-4)


def test_most_validation_data_are_known_even_when_many_of_them_are_no_distance_away():
    validation = np.zeros((100, 1), dtype=np.float32)
    validation[70:] = np.linspace(0.1, 1, 30)[:, None]
    space = FeatureSpace.of(np.array([[0.0], [-9.0]], np.float32), validation, np.ones(1, np.float32))
    assert (space.novelty(validation) <= 1.0001).mean() == 0.95


def test_without_validation_data_each_fifth_is_compared_with_the_others():
    training = (np.arange(10) // 2 * 5 + np.arange(10) % 2 / 10).astype(np.float32)[:, None]
    space = FeatureSpace.of(training, np.empty((0, 1), np.float32), np.ones(1, np.float32))
    # Pairs that lie close together are in one fifth and do not make each other known.
    assert space.edge == pytest.approx(5, rel=1e-3)


def test_features_count_by_their_weight():
    space = FeatureSpace.of(cloud(1, 50, 2), cloud(2, 50, 2), np.array([1, 0], np.float32))
    moved = cloud(3, 20, 2)
    before = space.novelty(moved)
    moved[:, 1] += 100
    np.testing.assert_allclose(space.novelty(moved), before, atol=1e-3)


def test_features_of_cells_give_a_plane_each():
    space = FeatureSpace.of(cloud(1, 50, 3), cloud(2, 50, 3), np.ones(3, np.float32))
    points = cloud(4, 2 * 4 * 5, 3).reshape(2, 4, 5, 3)
    plane = space.novelty(np.moveaxis(points, -1, 1))
    assert plane.shape == (2, 4, 5)
    assert plane[1, 2, 3] == pytest.approx(float(space.novelty(points[1, 2, 3][None])[0]), rel=1e-3)


def test_training_data_that_are_all_the_same_still_have_an_edge():
    same = np.ones((20, 3), np.float32)
    space = FeatureSpace.of(same, same[:5], np.ones(3, np.float32))
    assert space.edge > 0
    assert space.novelty(same + 1).min() > 1
    single = FeatureSpace.of(same[:1], same[:0], np.ones(3, np.float32))
    assert 0 < single.edge < np.inf


def test_vectors_that_cannot_be_compared_are_refused():
    good = FeatureSpace.of(cloud(1, 20, 3), cloud(2, 20, 3), np.ones(3, np.float32))
    good.check()
    for bad in (
        FeatureSpace(good.weights[:2], good.vectors, 1.0, 1.0),
        FeatureSpace(good.weights, good.vectors[:0], 1.0, 1.0),
        FeatureSpace(good.weights, good.vectors * np.nan, 1.0, 1.0),
        FeatureSpace(good.weights, good.vectors.astype(np.float64), 1.0, 1.0),
        FeatureSpace(good.weights, good.vectors, 1.0, 0.0),
        FeatureSpace(good.weights, good.vectors, float("nan"), 1.0),
    ):
        with pytest.raises(ValueError, match=r"must be|do not fit"):
            bad.check()
