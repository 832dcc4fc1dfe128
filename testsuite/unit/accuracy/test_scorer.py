"""Scores of a process of its own are those of this one."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.accuracy.metrics import scores, table_scores
from rlearndeep.accuracy.scorer import Scorer
from rlearndeep.scene.classes import ClassTable, MapClass

TABLES = (
    np.array([[50, 2, 0], [3, 70, 1], [0, 0, 9]]),
    np.array([[12, 0], [4, 0]]),
    np.array([[0.25, 1.5], [3e9, 2.0]]),
    np.zeros((2, 2), dtype=np.int64),
    np.array([[2**40]]),
)


def test_another_process_gives_the_same_scores_and_ends_with_this_one():
    with Scorer() as scorer:
        process = scorer._process
        assert process is not None and process.poll() is None
        for table in TABLES:
            assert scorer.of_table(table) == table_scores(table)
        assert scorer._process is process
    assert process.poll() is not None
    assert scorer.of_table(TABLES[0]) == table_scores(TABLES[0])


def test_where_it_fails_this_process_does_its_work():
    with Scorer() as scorer:
        process = scorer._process
        assert process is not None
        process.kill()
        process.wait()
        assert scorer.of_table(TABLES[0]) == table_scores(TABLES[0])
        assert scorer._process is None


def test_it_ends_when_nobody_asks_any_more():
    scorer = Scorer()
    process = scorer._process
    assert process is not None
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_scores_are_built_on_any_scorer():
    classes = ClassTable((MapClass(1, "a"), MapClass(2, "b")))
    asked = []

    def remembering(table):
        asked.append(table.tolist())
        return table_scores(table)

    matrix = np.array([[3, 1], [0, 4]])
    assert scores(matrix, classes, remembering) == scores(matrix, classes) and asked == [matrix.tolist()]
    assert scores(matrix, classes)["overall_accuracy"] == pytest.approx(7 / 8)
