"""Losses; what is unlabelled takes no part in any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rlearndeep.backends.recipes import FOCUS, SMOOTH, summands
from rlearndeep.scene.classes import UNLABELLED

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(text: str, weights: Tensor, task: str = "class") -> Loss:
    """The loss of a ``loss=`` value, a sum of names with ``+``.

    Args:
        text: e.g. ``cross_entropy``, ``focal+dice`` or ``huber``.
        weights: per class; for the task ``presence`` that of presence against absence. Values have none.
        task: what a label says, one of ``TASKS``.

    Returns:
        A function of logits (N, outputs, ...) and labels: class indices (N, ...) or presence (N, classes), with
        ``UNLABELLED``, or values (N, ...) with NaN, where there is no label; 0 where nothing is labelled.
    """
    known = _LOSSES[task]
    names = summands(text, known)
    prepare = _BATCHES[task]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        batch = prepare(logits.float(), labels, weights)
        return torch.stack([known[name](batch) for name in names]).sum()

    return loss


def loss_weight(labels: Tensor, weights: Tensor, task: str) -> Tensor:
    """What the mean of a loss over a batch divides by: the weights of its labels.

    Losses of parts of a batch, weighted with it, add up to the loss of the batch.
    """
    if task == "class":
        return ((labels != UNLABELLED) * weights[labels.clamp(min=0)]).sum()
    return (~torch.isnan(labels) if task == "value" else labels != UNLABELLED).sum().to(weights.dtype)


@dataclass(frozen=True)
class _Batch:
    """Logits, labels without gaps, and what counts.

    Attributes:
        logits: (N, outputs, ...).
        labels: what the logits are compared with; anything where there is no label.
        known: where there is a label, in the shape of ``labels``.
        share: weight of each label in a mean.
        weights: per class.
    """

    logits: Tensor
    labels: Tensor
    known: Tensor
    share: Tensor
    weights: Tensor


def _classes(logits: Tensor, labels: Tensor, weights: Tensor) -> _Batch:
    known = labels != UNLABELLED
    labels = labels.clamp(min=0)
    return _Batch(logits, labels, known, known * weights[labels], weights)


def _presence(logits: Tensor, labels: Tensor, weights: Tensor) -> _Batch:
    known = labels != UNLABELLED
    return _Batch(logits, labels.clamp(min=0).to(logits.dtype), known, known.to(logits.dtype), weights)


def _values(logits: Tensor, labels: Tensor, weights: Tensor) -> _Batch:
    known = ~torch.isnan(labels)
    # A NaN would reach the gradient even with weight 0.
    return _Batch(logits[:, 0], torch.where(known, labels, 0.0), known, known.to(logits.dtype), weights)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=SMOOTH)


def _cross_entropy(batch: _Batch) -> Tensor:
    return _mean(functional.cross_entropy(batch.logits, batch.labels, reduction="none"), batch.share)


def _focal(batch: _Batch) -> Tensor:
    """Lin et al. 2017, ICCV: cells that are already right count less."""
    values = functional.cross_entropy(batch.logits, batch.labels, reduction="none")
    return _mean((1 - torch.exp(-values)) ** FOCUS * values, batch.share)


def _binary(batch: _Batch) -> Tensor:
    """Binary cross-entropy of each class for itself, (N, classes); presence has the weight of the class."""
    return functional.binary_cross_entropy_with_logits(batch.logits, batch.labels, reduction="none") * (
        1 + (batch.weights - 1) * batch.labels
    )


def _bce(batch: _Batch) -> Tensor:
    return _mean(_binary(batch), batch.share)


def _binary_focal(batch: _Batch) -> Tensor:
    """Focal loss of each class for itself."""
    right = torch.sigmoid(torch.where(batch.labels > 0, batch.logits, -batch.logits))
    return _mean((1 - right) ** FOCUS * _binary(batch), batch.share)


def _overlaps(batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Per class over all labelled cells: intersection, sum of probabilities, number of cells."""
    shown = batch.known.unsqueeze(1)
    probabilities = torch.softmax(batch.logits, dim=1) * shown
    truth = functional.one_hot(batch.labels, batch.logits.shape[1]).movedim(-1, 1) * shown
    axes = [axis for axis in range(batch.logits.dim()) if axis != 1]
    return (probabilities * truth).sum(axes), probabilities.sum(axes), truth.sum(axes).to(probabilities.dtype)


def _binary_overlaps(batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The same for classes each for itself, over all labelled patches."""
    probabilities, truth = torch.sigmoid(batch.logits) * batch.known, batch.labels * batch.known
    return (probabilities * truth).sum(0), probabilities.sum(0), truth.sum(0)


def _dice(overlaps: Callable[[_Batch], tuple[Tensor, Tensor, Tensor]]) -> Callable[[_Batch], Tensor]:
    """1 - Dice coefficient, mean over the classes present in the batch (Milletari et al. 2016, 3DV)."""

    def loss(batch: _Batch) -> Tensor:
        both, predicted, true = overlaps(batch)
        return _mean(1 - 2 * both / (predicted + true).clamp(min=SMOOTH), batch.weights * (true > 0))

    return loss


def _jaccard(overlaps: Callable[[_Batch], tuple[Tensor, Tensor, Tensor]]) -> Callable[[_Batch], Tensor]:
    """1 - intersection over union, mean over the classes present in the batch."""

    def loss(batch: _Batch) -> Tensor:
        both, predicted, true = overlaps(batch)
        return _mean(1 - both / (predicted + true - both).clamp(min=SMOOTH), batch.weights * (true > 0))

    return loss


def _mse(batch: _Batch) -> Tensor:
    return _mean((batch.logits - batch.labels) ** 2, batch.share)


def _mae(batch: _Batch) -> Tensor:
    return _mean((batch.logits - batch.labels).abs(), batch.share)


def _huber(batch: _Batch) -> Tensor:
    """Squares up to one standard deviation, then straight (Huber 1964, Annals of Mathematical Statistics 35:73)."""
    return _mean(functional.huber_loss(batch.logits, batch.labels, reduction="none"), batch.share)


_BATCHES = {"class": _classes, "presence": _presence, "value": _values}

_LOSSES: dict[str, dict[str, Callable[[_Batch], Tensor]]] = {
    "class": {
        "cross_entropy": _cross_entropy,
        "focal": _focal,
        "dice": _dice(_overlaps),
        "jaccard": _jaccard(_overlaps),
    },
    "presence": {
        "bce": _bce,
        "focal": _binary_focal,
        "dice": _dice(_binary_overlaps),
        "jaccard": _jaccard(_binary_overlaps),
    },
    "value": {"mse": _mse, "mae": _mae, "huber": _huber},
}
