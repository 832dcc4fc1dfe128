"""Scores of predicted classes and values against a reference.

Everything starts from a confusion matrix (or from sums of differences), never from the cells, so a
map of any size is scored in constant memory. The scores themselves are scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlearndeep.scene.classes import ClassTable

_SUMMARY = (
    ("overall_accuracy", "Overall accuracy"),
    ("kappa", "Kappa"),
    ("f1_macro", "F1 macro"),
    ("f1_weighted", "F1 weighted"),
    ("iou_mean", "Mean IoU"),
)
_PER_CLASS = ("precision", "recall", "f1", "iou")
_UNDEFINED = "-"


def count_pairs(reference: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Confusion matrix of class indices.

    Args:
        reference: class indices, any shape, integers.
        predicted: class indices of the same shape.
        classes: number K of classes.

    Returns:
        (K, K) counts, rows = reference, columns = prediction. Pairs in which either index is
        negative or not below K are not counted.
    """
    rows, cols = np.asarray(reference).ravel(), np.asarray(predicted).ravel()
    known = (rows >= 0) & (rows < classes) & (cols >= 0) & (cols < classes)
    if not known.all():
        rows, cols = rows[known], cols[known]
    codes = rows.astype(np.int64) * classes + cols
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def table_scores(table: NDArray) -> dict[str, Any]:
    """What scikit-learn says of a confusion matrix (K, K).

    Returns:
        ``summary``, the scores of the whole by their names in :func:`scores`; and ``classes``, a list of a score per
        class for each of ``precision``, ``recall``, ``f1`` and ``iou``.
    """
    return {"summary": _summary_scores(table), "classes": _class_scores(table)}


def scores(
    matrix: ArrayLike, classes: ClassTable, of_table: Callable[[NDArray], dict[str, Any]] = table_scores
) -> dict[str, Any]:
    """Scores of a confusion matrix, as ``scores.json`` and ``format=json`` hold them.

    A score that is not defined is None: precision of a class that was never predicted, recall of a
    class without reference, F1 and IoU of a class with neither, kappa where only one class occurs.
    Means over classes (F1 macro, mean IoU) run over the classes with reference support, so a class
    absent from the reference is no zero in the mean; what was wrongly predicted as it still lowers the
    recall, and with it the F1 and IoU, of the classes it was taken from.

    Args:
        matrix: (K, K) counts or weights, rows = reference.
        classes: the K classes in the order of the rows.
        of_table: scores tables, as :func:`table_scores` does.

    Returns:
        ``overall_accuracy``, ``kappa``, ``f1_macro``, ``f1_weighted``, ``iou_mean``, ``classes`` (a list of
        ``category``, ``label``, ``precision``, ``recall``, ``f1``, ``iou``, ``support``) and
        ``confusion_matrix`` (list of rows).
    """
    table = np.asarray(matrix)
    found = of_table(table)
    per_class = found["classes"]
    support = table.sum(axis=1)
    result: dict[str, Any] = dict(found["summary"])
    result["classes"] = [
        {
            "category": entry.category,
            "label": label,
            **{name: per_class[name][index] for name in _PER_CLASS},
            "support": support[index].item(),
        }
        for index, (entry, label) in enumerate(zip(classes, classes.labels, strict=True))
    ]
    result["confusion_matrix"] = table.tolist()
    return result


def classification_report(values: dict[str, Any]) -> str:
    """The familiar table of per-class scores, then the summary, of :func:`scores` or :func:`presence_scores`.

    No final line break. Numbers have a decimal point whatever the locale; ``-`` stands for a score that is not
    defined.
    """
    names = [_name(entry) for entry in values["classes"]]
    width = max([len(name) for name in names] + [len(label) for _, label in _SUMMARY])
    lines = [f"{'':{width}}  precision  recall      F1     IoU     support"]
    for name, entry in zip(names, values["classes"], strict=True):
        precision, recall, f1, iou = (_number(entry[key]) for key in _PER_CLASS)
        lines.append(f"{name:{width}}  {precision:>9}  {recall:>6}  {f1:>6}  {iou:>6}  {entry['support']:>10}")
    lines.append("")
    lines += [f"{label:{width}}  {_number(values[key]):>9}" for key, label in _SUMMARY if key in values]
    return "\n".join(lines)


@dataclass(frozen=True)
class RegressionSums:
    """Sums over pairs of reference and predicted values; two of them add up to those of both sets.

    Attributes:
        count: number of pairs.
        mean: mean of the reference.
        squares: sum of squared deviations of the reference from its mean.
        error: sum of predicted - reference.
        absolute: sum of absolute errors.
        squared: sum of squared errors.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    error: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0

    @classmethod
    def of(cls, reference: ArrayLike, predicted: ArrayLike) -> RegressionSums:
        """Sums of two arrays of one shape; pairs with a NaN are left out."""
        truth = np.asarray(reference, dtype=np.float64).ravel()
        errors = np.asarray(predicted, dtype=np.float64).ravel() - truth
        known = ~np.isnan(errors)
        truth, errors = truth[known], errors[known]
        if not truth.size:
            return cls()
        # Seen from one of them, values that are all equal deviate by 0, not by what rounding leaves.
        shifted = truth - truth[0]
        return cls(
            int(truth.size),
            float(truth[0] + shifted.mean()),
            float(np.square(shifted - shifted.mean()).sum()),
            float(errors.sum()),
            float(np.abs(errors).sum()),
            float(np.square(errors).sum()),
        )

    def __add__(self, other: RegressionSums) -> RegressionSums:
        """Sums of both sets of pairs together (moments: Chan, Golub and LeVeque 1983)."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return RegressionSums(
            count,
            self.mean + delta * other.count / count,
            self.squares + other.squares + delta**2 * self.count * other.count / count,
            self.error + other.error,
            self.absolute + other.absolute,
            self.squared + other.squared,
        )


def regression_scores(sums: RegressionSums) -> dict[str, Any]:
    """Scores of a value map: ``count``, ``rmse``, ``mae``, ``bias`` (mean of predicted - reference) and ``r2``.

    R2 is the coefficient of determination, 1 - squared errors / squared deviations of the reference
    from its mean; it is negative for a map worse than that mean, and None where the reference does
    not vary. All are None without pairs.
    """
    if not sums.count:
        return {"count": 0, "rmse": None, "mae": None, "bias": None, "r2": None}
    return {
        "count": sums.count,
        "rmse": math.sqrt(sums.squared / sums.count),
        "mae": sums.absolute / sums.count,
        "bias": sums.error / sums.count,
        "r2": 1.0 - sums.squared / sums.squares if sums.squares > 0 else None,
    }


def regression_report(values: dict[str, Any]) -> str:
    """The scores of :func:`regression_scores` as lines of text; no final line break."""
    names = {"rmse": "RMSE", "mae": "MAE", "bias": "Bias", "r2": "R2", "count": "Labels"}
    lines = []
    for key, name in names.items():
        value = values[key]
        text = _UNDEFINED if value is None else f"{value}" if key == "count" else f"{value:.6g}"
        lines.append(f"{name:6}  {text:>12}")
    return "\n".join(lines)


def count_presence(reference: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Confusion matrices of several labels at once.

    Args:
        reference: (N, K) integers, 1 where a class is present, 0 where not; others are not counted.
        predicted: (N, K), true where a class is said to be present.

    Returns:
        (K, 2, 2) counts; rows = reference, columns = prediction, absent before present.
    """
    truth, said = np.asarray(reference), np.asarray(predicted).astype(bool)
    return np.stack(
        [
            np.stack([((truth == present) & (said == answer)).sum(axis=0) for answer in (False, True)], axis=-1)
            for present in (0, 1)
        ],
        axis=1,
    ).astype(np.int64)


def presence_scores(matrices: ArrayLike, classes: ClassTable) -> dict[str, Any]:
    """Scores of several labels, of the counts of :func:`count_presence`.

    Every class is scored for itself; a score that is not defined is None, as in :func:`scores`. ``f1_macro``,
    ``f1_weighted`` and ``iou_mean`` are means over the classes that are present somewhere, ``kappa`` is that over the
    classes that have one; ``overall_accuracy`` is the share of right answers among all of all classes.

    Returns:
        The keys of :func:`scores` (support = number of patches with the class), with ``confusion_matrix`` None, as a
        patch with several classes has no row of its own; and ``confusion_matrices``, one per class.
    """
    tables = np.asarray(matrices)
    entries = []
    for entry, label, table in zip(classes, classes.labels, tables, strict=True):
        both = _class_scores(table)
        known = {name: both[name][1] for name in _PER_CLASS}
        entries.append({"category": entry.category, "label": label, **known, "support": table[1].sum().item()})
    there = [entry for entry in entries if entry["support"]]
    kappas = [kappa for kappa in map(_kappa, tables) if kappa is not None]
    total = tables.sum()
    return {
        "overall_accuracy": float(tables[:, [0, 1], [0, 1]].sum() / total) if total else None,
        "kappa": _mean(kappas),
        "f1_macro": _mean([entry["f1"] for entry in there]),
        "f1_weighted": _mean([entry["f1"] for entry in there], [entry["support"] for entry in there]),
        "iou_mean": _mean([entry["iou"] for entry in there]),
        "classes": entries,
        "confusion_matrix": None,
        "confusion_matrices": tables.tolist(),
    }


def _mean(values: list[float], weights: list[float] | None = None) -> float | None:
    return float(np.average(values, weights=weights)) if values else None


def _pairs(table: NDArray) -> tuple[NDArray, NDArray, NDArray[np.float64]]:
    """Class pairs that occur, as truth, prediction and weight.

    Weights are floats: scikit-learn multiplies marginal sums, which overflow integers on big maps.
    """
    rows, cols = np.nonzero(table)
    return rows, cols, table[rows, cols].astype(np.float64)


def _kappa(table: NDArray) -> float | None:
    """Cohen's kappa of a table; None where only one class occurs."""
    from sklearn import metrics

    truth, predicted, weights = _pairs(table)
    if len(np.union1d(truth, predicted)) < 2:
        return None
    return float(metrics.cohen_kappa_score(truth, predicted, sample_weight=weights))


def _summary_scores(table: NDArray) -> dict[str, float | None]:
    from sklearn import metrics

    truth, predicted, weights = _pairs(table)
    if not truth.size:
        return {key: None for key, _ in _SUMMARY}
    known = np.flatnonzero(table.sum(axis=1))
    options = {"labels": known, "sample_weight": weights, "zero_division": 0}
    return {
        "overall_accuracy": float(metrics.accuracy_score(truth, predicted, sample_weight=weights)),
        "kappa": _kappa(table),
        "f1_macro": float(metrics.f1_score(truth, predicted, average="macro", **options)),
        "f1_weighted": float(metrics.f1_score(truth, predicted, average="weighted", **options)),
        "iou_mean": float(metrics.jaccard_score(truth, predicted, average="macro", **options)),
    }


def _class_scores(table: NDArray) -> dict[str, list[float | None]]:
    """Scores per class, None where a class has no cell the score would divide by."""
    from sklearn import metrics

    truth, predicted, weights = _pairs(table)
    if not truth.size:
        return {name: [None] * len(table) for name in _PER_CLASS}
    options = {"labels": range(len(table)), "average": None, "sample_weight": weights, "zero_division": 0}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, predicted, **options)
    iou = metrics.jaccard_score(truth, predicted, **options)
    in_reference, in_prediction = table.sum(axis=1) > 0, table.sum(axis=0) > 0
    defined = {
        "precision": (precision, in_prediction),
        "recall": (recall, in_reference),
        "f1": (f1, in_reference | in_prediction),
        "iou": (iou, in_reference | in_prediction),
    }
    return {
        name: [float(value) if exists else None for value, exists in zip(values, known, strict=True)]
        for name, (values, known) in defined.items()
    }


def _number(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4f}"


def _name(entry: dict[str, Any]) -> str:
    category, label = str(entry["category"]), entry["label"]
    return label if label == category else f"{category} {label}"
