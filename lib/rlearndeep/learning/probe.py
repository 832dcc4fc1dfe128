"""A linear probe: how much of the labels a simple model reads from the features of an encoder that does not learn.

The usual test of pre-training (Chen et al. 2020, ICML, section 2.3). Features are means over a patch; where labels are
per cell, the probe reads the commonest class of the patch, or the mean of its values.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.learning.feeding import Part
from rlearndeep.scene.classes import UNLABELLED

_MOST = 2000
_CELLS_AT_ONCE = 64 * 64 * 32
_ITERATIONS = 2000


def measure_of(task: str) -> str:
    """Name of the score of a task."""
    return "r2" if task == "value" else "f1_macro"


def linear_probe(training: Part, validation: Part, encoder: Any) -> float | None:
    """Score of the validation part: macro F1 of a logistic regression, or R2 of a ridge regression of values.

    Args:
        training: patches to fit the probe to; at most 2,000 of them are used.
        validation: patches to score it on; at most 2,000.
        encoder: of the back-end, with ``features(images)``.

    Returns:
        None where one of the parts has no patch, or the training part one class only.
    """
    if not len(training) or not len(validation):
        return None
    known, asked = (_read(part.sample(_MOST), encoder) for part in (training, validation))
    task = training.sites.manifest.task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged to the last digit
        if task == "value":
            return _values(known, asked)
        return _presence(known, asked) if task == "presence" else _classes(known, asked)


def _read(part: Part, encoder: Any) -> tuple[NDArray[np.float32], NDArray]:
    """Features of patches and a label of each."""
    rows, cols = part.sites.manifest.reference.shape
    features, labels = [], []
    for images, marks in part.batches(max(1, _CELLS_AT_ONCE // (rows * cols))):
        features.append(encoder.features(images))
        labels.append(marks)
    found, label = np.concatenate(features), np.concatenate(labels)
    if part.sites.manifest.unit == "cell":
        label = _of_patches(label.reshape(len(label), -1), part.sites.manifest.task)
    known = ~np.isnan(label) if part.sites.manifest.task == "value" else label != UNLABELLED
    known = known.reshape(len(label), -1).any(axis=1)
    return found[known], label[known]


def _of_patches(labels: NDArray, task: str) -> NDArray:
    """The mean value, or the commonest class, of the labelled cells of each patch (N, cells)."""
    if task == "value":
        known = ~np.isnan(labels)
        total = np.where(known, labels, 0.0).sum(axis=1)
        return np.divide(total, known.sum(axis=1), out=np.full(len(labels), np.nan), where=known.any(axis=1))
    most = [np.bincount(row[row != UNLABELLED], minlength=1) for row in labels]
    return np.array([int(counts.argmax()) if counts.any() else UNLABELLED for counts in most])


def _classes(known: tuple[NDArray, NDArray], asked: tuple[NDArray, NDArray]) -> float | None:
    from sklearn.metrics import f1_score

    if len(np.unique(known[1])) < 2 or not len(asked[1]):
        return None
    return float(f1_score(asked[1], _model().fit(*known).predict(asked[0]), average="macro", zero_division=0.0))


def _presence(known: tuple[NDArray, NDArray], asked: tuple[NDArray, NDArray]) -> float | None:
    from sklearn.metrics import f1_score

    scores = [
        float(f1_score(asked[1][:, column] == 1, _model().fit(known[0], mine).predict(asked[0]), zero_division=0.0))
        for column, mine in enumerate((known[1] == 1).T)
        if len(np.unique(mine)) > 1
    ]
    return float(np.mean(scores)) if scores and len(asked[1]) else None


def _values(known: tuple[NDArray, NDArray], asked: tuple[NDArray, NDArray]) -> float | None:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(known[1]) < 2 or len(asked[1]) < 2:
        return None
    return float(make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 5, 9))).fit(*known).score(*asked))


def _model() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
