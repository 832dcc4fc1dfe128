"""Doubt about labels, on a few cells."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.accuracy.label_quality import LabelScores, ValueErrors, doubt_text, doubts_of, judgement
from rlearndeep.scene.classes import ClassTable, MapClass

TABLE = ClassTable((MapClass(1, "forest"), MapClass(5, "water")))


def scored() -> list[dict]:
    scores = LabelScores([7, 3, 9], 2)
    scores.add(np.array([3, 7]), np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    scores.add(np.array([3, 3]), np.array([0, 0]), np.array([[0.5, 0.5], [0.7, 0.3]]))
    return scores.result(TABLE)


def test_doubt_is_one_minus_the_mean_score_of_the_own_class_and_the_worst_stands_first():
    assert scored() == [
        {
            "area": 7,
            "category": 5,
            "label": "water",
            "doubt": 0.8,
            "suggested": {"category": 1, "label": "forest"},
            "cells": 1,
        },
        {"area": 3, "category": 1, "label": "forest", "doubt": 0.3, "suggested": None, "cells": 3},
    ]


def test_an_area_of_two_classes_is_doubted_by_the_label_of_each_cell():
    scores = LabelScores([1], 2)
    scores.add(np.array([1, 1, 1]), np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]))
    assert scores.result(TABLE)[0]["label"] == "forest"
    assert scores.result(TABLE)[0]["doubt"] == round(1 - (0.9 + 0.9 + 0.4) / 3, 4)


def test_areas_without_a_row_and_labels_changed_since_are_counted():
    same = judgement(scored(), {3: "Forest", 7: 5, 9: None, 11: "forest"}, [2, 0], TABLE)
    assert (same["folds"], same["not_judged"], same["left_out_near_judged"]) == (2, 1, 2)
    assert len(same["remarks"]) == 1 and same["remarks"][0].startswith("1 labelled areas could not")
    changed = judgement(scored(), {3: "water", 7: 5}, [0], TABLE)
    assert changed["remarks"][0].startswith("1 areas have another label")
    removed = judgement(scored(), {7: 5}, [0], TABLE)
    assert removed["remarks"][0].startswith("1 areas have another label")


def test_labels_of_another_level_are_not_told_as_changed():
    fine = judgement(scored(), {3: "oak", 7: "lake"}, [0], TABLE)
    (remark,) = fine["remarks"]
    assert remark.startswith("2 areas have labels that are no class of the model")


def test_the_table_names_both_classes_and_stops_after_the_worst():
    text = doubt_text({"vector": "plots", **judgement(scored(), {3: 1, 7: 5}, [0, 0], TABLE)})
    assert text.splitlines()[-2].split() == ["7", "5", "water", "0.8000", "1", "forest", "1"]
    assert text.splitlines()[-1].split() == ["3", "1", "forest", "0.3000", "-", "3"]
    scores = LabelScores(range(1, 31), 2)
    scores.add(np.arange(1, 31), np.zeros(30, int), np.tile([0.5, 0.5], (30, 1)))
    long = doubt_text({"vector": "plots", **judgement(scores.result(TABLE), {}, [0], TABLE)})
    assert long.endswith("and 10 more with less doubt")


def measured(errors: list[float], order: int = 1) -> list[dict]:
    """Areas 1, 2, ... with the label 100, two cells each, predicted with these errors on average."""
    values = ValueErrors(range(1, len(errors) + 2))
    areas = np.repeat(np.arange(1, len(errors) + 1), 2)[::order]
    predicted = 100 + np.repeat(errors, 2) + np.tile([1.0, -1.0], len(errors))
    for area, value in zip(areas, predicted[::order], strict=True):
        values.add(np.array([area]), np.array([100.0]), np.array([[value]]))
    return values.result(ClassTable(()))


def test_doubt_of_a_value_is_its_modified_z_score():
    errors = [-2.0, 1.0, 0.0, -1.0, 2.0, 30.0, 0.0]
    rows = measured(errors)
    # The median error is 0, the median of the distances from it 1.
    assert rows[0] == {"area": 6, "value": 100.0, "doubt": round(30 / 1.4826, 4), "suggested": 130.0, "cells": 2}
    assert [row["area"] for row in rows[1:]] == [1, 5, 2, 4, 3, 7]
    assert measured(errors, -1) == rows
    # Neither a bias of all predictions nor the unit matters.
    for changed in ([error + 7 for error in errors], [error * 50 for error in errors]):
        assert [row["doubt"] for row in measured(changed)] == pytest.approx([row["doubt"] for row in rows], abs=1e-3)


def test_where_most_errors_are_equal_the_others_are_doubted_nevertheless():
    assert [row["doubt"] for row in measured([0.0, 0.0, 0.0, 4.0])] == [round(4 / 1.2533, 4), 0, 0, 0]
    assert {row["doubt"] for row in measured([3.0, 3.0])} == {0.0}


def test_values_that_changed_since_are_counted_and_printed_as_numbers():
    rows = measured([-1.0, 1.0, 9.0])
    labels = {1: 100, 2: 100.0000001, 3: 90.0, 4: 100.0, 5: None}
    found = judgement(rows, labels, [0, 0], ClassTable(()))
    assert found["not_judged"] == 1 and found["remarks"][0].startswith("1 areas have another label")
    text = doubt_text({"vector": "plots", **found}).splitlines()
    assert text[-4].split() == ["area", "label", "doubt", "suggested", "cells"]
    assert text[-3].split() == ["3", "100", f"{rows[0]['doubt']:.4f}", "109", "2"]
    assert isinstance(doubts_of("value", [1], ClassTable(())), ValueErrors)
    assert isinstance(doubts_of("presence", [1], TABLE), LabelScores)
