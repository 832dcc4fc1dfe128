"""What a network's output means: scores, presence or values, and how it is counted against labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.engine import keras
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import UNLABELLED

_ACTIVATIONS = {"class": "softmax", "presence": "sigmoid", "value": "linear"}


def standardized(labels: NDArray, target: BandStatistics | None) -> NDArray:
    """Labels as the network gives them: values with mean 0 and standard deviation 1; others as they are."""
    return labels if target is None else ((labels - target.mean) / target.std).astype(np.float32)


def decoder(task: str) -> Any:
    """The layer that makes scores of logits; values stay standardised."""
    return keras.layers.Activation(_ACTIVATIONS[task], dtype="float32", name="scores")


def in_units(values: NDArray[np.float32], target: BandStatistics | None) -> NDArray[np.float32]:
    """Values in the units of their labels; scores as they are."""
    return values if target is None else values * np.float32(target.std) + np.float32(target.mean)


def loss_weight(labels: NDArray, weights: NDArray, task: str) -> float:
    """What the mean of a loss over a batch divides by: the weights of its labels."""
    if task == "class":
        return float(weights[labels[labels != UNLABELLED]].sum())
    return float((~np.isnan(labels) if task == "value" else labels != UNLABELLED).sum())


def counts(logits: NDArray, labels: NDArray, task: str) -> NDArray:
    """What a validation score is computed from; counts of two batches add up.

    Args:
        logits: (N, ..., outputs).
        labels: standardised values with NaN, or class indices or presence with ``UNLABELLED``.

    Returns:
        A confusion matrix (K, K), one per class (K, 2, 2) for presence, rows = reference; or the number of
        labels and the sum of squared errors (2,) of values.
    """
    if task == "value":
        known = ~np.isnan(labels)
        errors = logits[..., 0][known].astype(np.float64) - labels[known]
        return np.array([known.sum(), (errors**2).sum()])
    if task == "presence":
        said = logits >= 0
        rows = [
            np.stack([((labels == present) & (said == answer)).sum(axis=0) for answer in (False, True)], axis=-1)
            for present in (0, 1)
        ]
        return np.stack(rows, axis=1)
    classes = logits.shape[-1]
    known = labels != UNLABELLED
    codes = labels[known] * classes + logits.argmax(axis=-1)[known]
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes)
