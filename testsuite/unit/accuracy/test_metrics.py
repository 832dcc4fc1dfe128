"""Laws of the scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rlearndeep.accuracy.metrics import (
    RegressionSums,
    classification_report,
    count_pairs,
    count_presence,
    presence_scores,
    regression_report,
    regression_scores,
    scores,
)
from rlearndeep.scene.classes import ClassTable, MapClass
from sklearn import metrics

TABLE = ClassTable((MapClass(3, "water"), MapClass(7, ""), MapClass(20, "forest")))


def random_pairs(classes: int, size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    truth = random.integers(0, classes, size)
    return truth, np.where(random.random(size) < 0.6, truth, random.integers(0, classes, size))


def test_pairs_are_counted_with_the_reference_in_rows():
    assert count_pairs([0, 0, 1], [1, 1, 0], 2).tolist() == [[0, 2], [1, 0]]


def test_pairs_outside_the_classes_are_not_counted():
    assert count_pairs([-1, 0, 2, 0], [0, -1, 0, 2], 2).sum() == 0


def test_unsigned_unlabelled_value_is_not_counted():
    assert count_pairs(np.array([255, 1], np.uint8), np.array([0, 1], np.uint8), 2).tolist() == [[0, 0], [0, 1]]


def test_swapped_arguments_transpose_the_matrix():
    truth, predicted = random_pairs(4)
    assert np.array_equal(count_pairs(truth, predicted, 4), count_pairs(predicted, truth, 4).T)


def test_scores_equal_those_of_the_raw_arrays():
    truth, predicted = random_pairs(3)
    found = scores(count_pairs(truth, predicted, 3), TABLE)
    assert found["overall_accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, predicted))
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert found["f1_weighted"] == pytest.approx(metrics.f1_score(truth, predicted, average="weighted"))
    assert found["iou_mean"] == pytest.approx(metrics.jaccard_score(truth, predicted, average="macro"))
    assert [entry["recall"] for entry in found["classes"]] == pytest.approx(
        metrics.recall_score(truth, predicted, average=None)
    )
    assert [entry["support"] for entry in found["classes"]] == np.bincount(truth).tolist()


def test_identical_maps_score_one():
    truth, _ = random_pairs(3)
    found = scores(count_pairs(truth, truth, 3), TABLE)
    keys = ("overall_accuracy", "kappa", "f1_macro", "f1_weighted", "iou_mean")
    assert [found[key] for key in keys] == pytest.approx([1.0] * 5)
    assert all(entry[key] == 1.0 for entry in found["classes"] for key in ("precision", "recall", "f1", "iou"))


def test_class_without_reference_is_in_no_mean_but_its_errors_count():
    found = scores([[8, 0, 2], [0, 10, 0], [0, 0, 0]], TABLE)
    forest = found["classes"][2]
    assert (forest["precision"], forest["recall"], forest["support"]) == (0.0, None, 0)
    assert found["f1_macro"] == pytest.approx((2 * 8 / (8 + 10) + 1.0) / 2)


def test_what_is_not_defined_is_none_and_json_takes_it():
    empty = scores(np.zeros((3, 3), int), TABLE)
    assert empty["overall_accuracy"] is None
    assert empty["classes"][0]["f1"] is None
    one = scores(np.diag([5, 0, 0]), TABLE)
    assert (one["overall_accuracy"], one["kappa"]) == (1.0, None)
    json.dumps([empty, one], allow_nan=False)


def test_matrices_of_huge_maps_do_not_overflow():
    small = np.array([[6, 1, 0], [2, 5, 1], [0, 0, 9]], dtype=np.int64)
    assert scores(small * 10**12, TABLE)["kappa"] == pytest.approx(scores(small, TABLE)["kappa"])


def test_report_names_classes_and_aligns_numbers():
    text = classification_report(scores([[8, 0, 2], [0, 10, 0], [1, 0, 4]], TABLE))
    lines = text.splitlines()
    assert lines[1].split() == ["3", "water", "0.8889", "0.8000", "0.8421", "0.7273", "10"]
    assert lines[2].split()[0] == "7"
    assert "Overall accuracy" in text and "0.8800" in text


def test_sums_of_parts_are_those_of_the_whole():
    random = np.random.default_rng(0)
    truth = random.normal(1e4, 3, 1000)
    predicted = truth + random.normal(0.5, 2, 1000)
    whole = regression_scores(RegressionSums.of(truth, predicted))
    parts = regression_scores(
        RegressionSums() + RegressionSums.of(truth[:10], predicted[:10]) + RegressionSums.of(truth[10:], predicted[10:])
    )
    assert parts == pytest.approx(whole)
    assert whole["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, predicted))
    assert whole["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert whole["r2"] == pytest.approx(metrics.r2_score(truth, predicted))
    assert whole["bias"] == pytest.approx((predicted - truth).mean())


def test_pairs_with_a_null_are_left_out_of_sums():
    found = regression_scores(RegressionSums.of([1.0, np.nan, 3.0], [2.0, 2.0, np.nan]))
    assert (found["count"], found["rmse"], found["r2"]) == (1, 1.0, None)


def test_no_pair_has_no_score():
    assert regression_scores(RegressionSums())["rmse"] is None


def test_presence_is_scored_class_by_class_as_by_scikit_learn() -> None:
    random = np.random.default_rng(4)
    truth, said = random.integers(2, size=(50, 3)), random.integers(2, size=(50, 3)).astype(bool)
    classes = ClassTable(tuple(MapClass(number, "") for number in range(3)))
    found = presence_scores(count_presence(truth, said), classes)
    expected = metrics.precision_recall_fscore_support(truth, said)
    for row, key in zip(expected, ("precision", "recall", "f1", "support"), strict=True):
        assert [entry[key] for entry in found["classes"]] == pytest.approx(row.tolist())
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found["f1_weighted"] == pytest.approx(metrics.f1_score(truth, said, average="weighted"))
    assert found["iou_mean"] == pytest.approx(metrics.jaccard_score(truth, said, average="macro"))
    kappas = [metrics.cohen_kappa_score(truth[:, index], said[:, index]) for index in range(3)]
    assert found["kappa"] == pytest.approx(np.mean(kappas))
    assert found["overall_accuracy"] == pytest.approx((truth == said).mean())
    assert set(scores(np.eye(3, dtype=int), classes)) <= set(found) and found["confusion_matrix"] is None
    np.testing.assert_array_equal(found["confusion_matrices"], metrics.multilabel_confusion_matrix(truth, said))


def test_presence_that_is_unknown_or_never_there_is_no_zero_in_the_mean() -> None:
    classes = ClassTable(tuple(MapClass(number, "") for number in range(3)))
    truth = np.array([[1, 0, -1], [0, 0, -1]])
    found = presence_scores(count_presence(truth, truth == 1), classes)
    assert all(found[key] == 1.0 for key in ("f1_macro", "f1_weighted", "iou_mean", "kappa", "overall_accuracy"))
    assert [entry["f1"] for entry in found["classes"]] == [1.0, None, None]
    empty = presence_scores(np.zeros((3, 2, 2)), classes)
    assert all(empty[key] is None for key in ("f1_macro", "f1_weighted", "iou_mean", "kappa", "overall_accuracy"))
    always = presence_scores(count_presence([[1], [1]], [[True], [False]]), ClassTable((MapClass(1, ""),)))
    assert always["kappa"] == 0.0
    assert "F1 macro" in classification_report(found) and "Kappa" in classification_report(found)


def test_the_report_of_values_has_every_score() -> None:
    sums = RegressionSums.of([1.0, 2.0, 4.0], [1.0, 3.0, 4.0])
    text = regression_report(regression_scores(sums))
    for word in ("RMSE", "MAE", "Bias", "R2", "0.57735", "3"):
        assert word in text
    assert "-" in regression_report(regression_scores(RegressionSums()))


@pytest.mark.parametrize("value", [0.1, 0.3, 271.15, -1234567.891])
def test_r2_is_not_defined_where_all_values_of_the_reference_are_equal(value):
    truth = np.full(100_000, value)
    sums = RegressionSums()
    for part in np.array_split(truth, 49):
        sums += RegressionSums.of(part, part + 0.5)
    assert sums.squares == 0
    assert regression_scores(sums)["r2"] is None
