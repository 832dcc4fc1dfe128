"""What tasks count, score and compare."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rlearndeep.accuracy.metrics import RegressionSums
from rlearndeep.learning.tasks import ClassTask, PresenceTask, ValueTask, score_table
from rlearndeep.scene.bands import BandStatistics
from synthetic_patches import CLASSES

TARGET = BandStatistics(10, 100.0, 20.0, 50.0, 150.0)


def test_counts_of_two_batches_add_up() -> None:
    random = np.random.default_rng(1)
    values = random.normal(100, 20, (6, 4, 4)).astype(np.float32)
    values[0, 0] = np.nan
    for task, labels, answers in (
        (ClassTask(CLASSES), random.integers(-1, 3, (6, 4, 4)), random.random((6, 3, 4, 4))),
        (PresenceTask(CLASSES), random.integers(-1, 2, (6, 3)), random.random((6, 3))),
        (ValueTask(TARGET), values, random.normal(100, 20, (6, 1, 4, 4))),
    ):
        whole = task.scores(task.count(labels, answers))
        parts = task.scores(task.count(labels[:2], answers[:2]) + task.count(labels[2:], answers[2:]))
        for key, value in whole.items():
            assert parts[key] == (pytest.approx(value) if isinstance(value, float) else value)


def test_what_the_validation_score_means() -> None:
    perfect = np.diag([3, 4, 5])
    assert ClassTask(CLASSES).measure.of(perfect) == 1.0 and ClassTask(CLASSES).measure.sign == 1
    assert PresenceTask(CLASSES).measure.of(np.array([[[3, 0], [0, 2]]] * 3)) == 1.0
    measure = ValueTask(TARGET).measure
    assert measure.of(np.array([4.0, 1.0])) == pytest.approx(10.0) and measure.sign == -1
    assert measure.of(np.array([0.0, 0.0])) == math.inf
    assert measure.column == "validation_rmse"


def test_answers_that_say_the_same_do_not_differ() -> None:
    assert ClassTask(CLASSES).differ(np.array([[0.4, 0.6]]), np.array([[0.1, 0.9]])).tolist() == [False]
    assert PresenceTask(CLASSES).differ(np.array([[0.4, 0.6]]), np.array([[0.6, 0.9]])).tolist() == [[True, False]]
    assert ValueTask(TARGET).differ(np.array([10.0, 10.0]), np.array([10.9, 11.1])).tolist() == [False, True]


def test_every_task_has_a_table_of_scores() -> None:
    assert "RMSE" in score_table(ValueTask(TARGET).scores(RegressionSums.of([1.0, 2.0], [1.0, 3.0])))
    assert "F1 macro" in score_table(PresenceTask(CLASSES).scores(np.zeros((3, 2, 2), dtype=int)))
    assert "Kappa" in score_table(ClassTask(CLASSES).scores(np.eye(3, dtype=int)))
