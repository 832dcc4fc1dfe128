"""What a network's output means: scores, presence or values, and how it is counted against labels."""

from __future__ import annotations

import torch
from torch import Tensor

from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import UNLABELLED


def standardized(labels: Tensor, target: BandStatistics | None) -> Tensor:
    """Labels as the network gives them: values with mean 0 and standard deviation 1; others as they are."""
    return labels if target is None else ((labels - target.mean) / target.std).float()


def decoded(logits: Tensor, task: str, target: BandStatistics | None = None) -> Tensor:
    """Class scores that sum to 1, scores of each class for itself, or values.

    Args:
        logits: (N, outputs, ...), float32.
        task: what the network says, one of ``TASKS``.
        target: statistics of the training labels of a value; None leaves values standardised.
    """
    if task == "class":
        return torch.softmax(logits, dim=1)
    if task == "presence":
        return torch.sigmoid(logits)
    return logits if target is None else logits * target.std + target.mean


def counts(logits: Tensor, labels: Tensor, task: str) -> Tensor:
    """What a validation score is computed from; counts of two batches add up.

    Args:
        logits: (N, outputs, ...).
        labels: standardised values with NaN, or class indices or presence with ``UNLABELLED``.

    Returns:
        A confusion matrix (K, K), one per class (K, 2, 2) for presence, rows = reference; or the number of
        labels and the sum of squared errors (2,) of values.
    """
    if task == "value":
        known = ~torch.isnan(labels)
        errors = logits[:, 0][known].float() - labels[known]
        return torch.stack([known.sum().to(errors.dtype), (errors**2).sum()])
    if task == "presence":
        said = logits >= 0
        return torch.stack(
            [
                torch.stack([((labels == present) & (said == answer)).sum(0) for answer in (False, True)], dim=-1)
                for present in (0, 1)
            ],
            dim=1,
        )
    classes = logits.shape[1]
    known = labels != UNLABELLED
    codes = labels[known] * classes + logits.max(1)[1][known]
    return torch.bincount(codes, minlength=classes * classes).reshape(classes, classes)
