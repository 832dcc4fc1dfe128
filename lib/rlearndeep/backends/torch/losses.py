"""Losses; what is unlabelled takes no part in any of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED

_FOCUS = 2.0
_SMOOTH = 1e-6

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(text: str, weights: Tensor) -> Loss:
    """The loss of a ``loss=`` value, a sum of names with ``+``.

    Args:
        text: e.g. ``cross_entropy`` or ``focal+dice``.
        weights: per class.

    Returns:
        A function of logits (N, classes, ...) and class indices (N, ...) with ``UNLABELLED`` where there is no
        label; 0 where nothing is labelled.
    """
    names = text.split("+")
    unknown = [name for name in names if name not in _LOSSES]
    if unknown or len(set(names)) != len(names):
        raise DeepLearningError(
            f"The loss must be a sum of different ones of {', '.join(_LOSSES)}; got '{text}'. Choose e.g. "
            "cross_entropy+dice."
        )

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()
        known = labels != UNLABELLED
        classes = labels.clamp(min=0)
        return torch.stack([_LOSSES[name](logits, classes, known, weights) for name in names]).sum()

    return loss


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=_SMOOTH)


def _cross_entropy(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    values = functional.cross_entropy(logits, labels, reduction="none")
    return _mean(values, known * weights[labels])


def _focal(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Lin et al. 2017, ICCV: cells that are already right count less."""
    values = functional.cross_entropy(logits, labels, reduction="none")
    return _mean((1 - torch.exp(-values)) ** _FOCUS * values, known * weights[labels])


def _overlaps(logits: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per class over all labelled cells: intersection, sum of probabilities, number of cells."""
    shown = known.unsqueeze(1)
    probabilities = torch.softmax(logits, dim=1) * shown
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1) * shown
    axes = [axis for axis in range(logits.dim()) if axis != 1]
    return (probabilities * truth).sum(axes), probabilities.sum(axes), truth.sum(axes).to(probabilities.dtype)


def _dice(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """1 - Dice coefficient, mean over the classes present in the batch (Milletari et al. 2016, 3DV)."""
    both, predicted, true = _overlaps(logits, labels, known)
    return _mean(1 - 2 * both / (predicted + true).clamp(min=_SMOOTH), weights * (true > 0))


def _jaccard(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """1 - intersection over union, mean over the classes present in the batch."""
    both, predicted, true = _overlaps(logits, labels, known)
    return _mean(1 - both / (predicted + true - both).clamp(min=_SMOOTH), weights * (true > 0))


_LOSSES = {"cross_entropy": _cross_entropy, "focal": _focal, "dice": _dice, "jaccard": _jaccard}
