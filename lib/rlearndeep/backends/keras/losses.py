"""Losses; what is unlabelled takes no part in any of them. Classes are the last axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.recipes import FOCUS, SMOOTH, summands
from rlearndeep.scene.classes import UNLABELLED

ops = keras.ops

Loss = Callable[[Any, Any], Any]


def make_loss(text: str, weights: Any, task: str = "class") -> Loss:
    """The loss of a ``loss=`` value, a sum of names with ``+``.

    Args:
        text: e.g. ``cross_entropy``, ``focal+dice`` or ``huber``.
        weights: per class; for the task ``presence`` that of presence against absence. Values have none.
        task: what a label says, one of ``TASKS``.

    Returns:
        A function of logits (N, ..., outputs) and labels: class indices (N, ...) or presence (N, classes), with
        ``UNLABELLED``, or values (N, ...) with NaN, where there is no label; 0 where nothing is labelled.
    """
    known = _LOSSES[task]
    names = summands(text, known)
    prepare, table = _BATCHES[task], ops.cast(ops.convert_to_tensor(weights), "float32")

    def loss(logits: Any, labels: Any) -> Any:
        batch = prepare(ops.cast(logits, "float32"), labels, table)
        return ops.sum(ops.stack([known[name](batch) for name in names]))

    return loss


@dataclass(frozen=True)
class _Batch:
    """Logits, labels without gaps, and what counts.

    Attributes:
        logits: (N, ..., outputs); without the last axis for values.
        labels: what the logits are compared with, classes as 0 or 1 on the last axis.
        share: weight of each label in a mean; 0 where there is none.
        shown: 1 where there is a label, in the shape of ``logits``; of values in that of ``labels``.
        weights: per class.
    """

    logits: Any
    labels: Any
    share: Any
    shown: Any
    weights: Any


def _classes(logits: Any, labels: Any, weights: Any) -> _Batch:
    known = ops.cast(labels != UNLABELLED, "float32")
    # An index of -1 is no class, so its row is 0 in every class.
    truth = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype="float32")
    return _Batch(logits, truth, ops.sum(truth * weights, axis=-1), known[..., None], weights)


def _presence(logits: Any, labels: Any, weights: Any) -> _Batch:
    known = ops.cast(labels != UNLABELLED, "float32")
    return _Batch(logits, ops.cast(labels, "float32") * known, known, known, weights)


def _values(logits: Any, labels: Any, weights: Any) -> _Batch:
    labels = ops.cast(labels, "float32")
    known = ~ops.isnan(labels)
    # A NaN would reach the gradient even with weight 0.
    counted = ops.cast(known, "float32")
    return _Batch(logits[..., 0], ops.where(known, labels, 0.0), counted, counted, weights)


def _mean(values: Any, weights: Any) -> Any:
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), SMOOTH)


def _entropies(batch: _Batch) -> Any:
    return -ops.sum(batch.labels * ops.log_softmax(batch.logits, axis=-1), axis=-1)


def _cross_entropy(batch: _Batch) -> Any:
    return _mean(_entropies(batch), batch.share)


def _focal(batch: _Batch) -> Any:
    """Lin et al. 2017, ICCV: cells that are already right count less."""
    values = _entropies(batch)
    return _mean((1 - ops.exp(-values)) ** FOCUS * values, batch.share)


def _binary(batch: _Batch) -> Any:
    """Binary cross-entropy of each class for itself, (N, classes); presence has the weight of the class."""
    values = ops.softplus(batch.logits) - batch.labels * batch.logits
    return values * (1 + (batch.weights - 1) * batch.labels)


def _bce(batch: _Batch) -> Any:
    return _mean(_binary(batch), batch.share)


def _binary_focal(batch: _Batch) -> Any:
    """Focal loss of each class for itself."""
    right = ops.sigmoid(ops.where(batch.labels > 0, batch.logits, -batch.logits))
    return _mean((1 - right) ** FOCUS * _binary(batch), batch.share)


def _overlaps(batch: _Batch, probabilities: Any) -> tuple[Any, Any, Any]:
    """Per class over all labelled cells: intersection, sum of probabilities, number of cells."""
    axes = tuple(range(len(batch.logits.shape) - 1))
    probabilities = probabilities * batch.shown
    both = ops.sum(probabilities * batch.labels, axis=axes)
    return both, ops.sum(probabilities, axis=axes), ops.sum(batch.labels * batch.shown, axis=axes)


def _dice(score: Callable[[Any], Any]) -> Callable[[_Batch], Any]:
    """1 - Dice coefficient, mean over the classes present in the batch (Milletari et al. 2016, 3DV)."""

    def loss(batch: _Batch) -> Any:
        both, predicted, true = _overlaps(batch, score(batch.logits))
        values = 1 - 2 * both / ops.maximum(predicted + true, SMOOTH)
        return _mean(values, batch.weights * ops.cast(true > 0, "float32"))

    return loss


def _jaccard(score: Callable[[Any], Any]) -> Callable[[_Batch], Any]:
    """1 - intersection over union, mean over the classes present in the batch."""

    def loss(batch: _Batch) -> Any:
        both, predicted, true = _overlaps(batch, score(batch.logits))
        values = 1 - both / ops.maximum(predicted + true - both, SMOOTH)
        return _mean(values, batch.weights * ops.cast(true > 0, "float32"))

    return loss


def _mse(batch: _Batch) -> Any:
    return _mean((batch.logits - batch.labels) ** 2, batch.share)


def _mae(batch: _Batch) -> Any:
    return _mean(ops.abs(batch.logits - batch.labels), batch.share)


def _huber(batch: _Batch) -> Any:
    """Squares up to one standard deviation, then straight (Huber 1964, Annals of Mathematical Statistics 35:73)."""
    errors = ops.abs(batch.logits - batch.labels)
    return _mean(ops.where(errors < 1, errors**2 / 2, errors - 0.5), batch.share)


_BATCHES = {"class": _classes, "presence": _presence, "value": _values}

_LOSSES: dict[str, dict[str, Callable[[_Batch], Any]]] = {
    "class": {
        "cross_entropy": _cross_entropy,
        "focal": _focal,
        "dice": _dice(ops.softmax),
        "jaccard": _jaccard(ops.softmax),
    },
    "presence": {
        "bce": _bce,
        "focal": _binary_focal,
        "dice": _dice(ops.sigmoid),
        "jaccard": _jaccard(ops.sigmoid),
    },
    "value": {"mse": _mse, "mae": _mae, "huber": _huber},
}
