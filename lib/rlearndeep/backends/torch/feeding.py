"""Batches on the device: raw values go there as they are stored, and become network input there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from rlearndeep.backends.running import ahead
from rlearndeep.scene.bands import SMALLEST_SPREAD, Normalization
from rlearndeep.scene.classes import UNLABELLED

Raw = tuple[NDArray, NDArray, NDArray]


class Feed(Protocol):
    """Patches of one part, as ``learning.feeding.Part`` gives them."""

    normalization: Normalization

    @property
    def unlabelled(self) -> float:
        """Stored label of what has none; NaN for values."""

    def __len__(self) -> int: ...

    def raw_batches(self, size: int, order: tuple[int, int] | None, share: tuple[int, int]) -> Iterator[Raw]:
        """Values (N, bands, rows, cols), validity (N, rows, cols) and labels (N, ...) as they are stored.

        ``order`` is seed and epoch of a random order, None the stored one; ``share`` says which of how many
        nearly equal pieces of each batch is wanted.
        """

    def steps(self, size: int) -> int:
        """Number of batches."""


def on_device(batches: Iterator[Raw], feed: Feed, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, bands, rows, cols), normalised, and labels (N, ...) of batches, the next one read while one is used.

    Labels are int64 with ``UNLABELLED``, or float32 with NaN for values, where there is none or the cell is null.
    """
    for batch in ahead(_tensors(batches, device)):
        values, valid, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
        yield normalized(values, valid, feed.normalization), _labels(labels, valid, feed.unlabelled)


def normalized(values: Tensor, valid: Tensor, normalization: Normalization) -> Tensor:
    """What ``Normalization.apply`` gives, on the device of the values; 0 where not valid."""
    result = values.to(torch.float32)
    if normalization.method == "band":
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (normalization.mean, normalization.std))
        result = result - mean.float().to(result.device)[:, None, None]
        result *= (1.0 / std).float().to(result.device)[:, None, None]
    elif normalization.method == "cell":
        result = result - result.mean(dim=-3, keepdim=True)
        spread = result.std(dim=-3, correction=0, keepdim=True)
        result /= torch.where(spread > SMALLEST_SPREAD, spread, 1.0)
    return torch.where(valid.unsqueeze(-3), result, 0.0)


def _tensors(batches: Iterator[Raw], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Tensors that share the arrays' memory; from pinned memory a GPU copies while it computes."""
    for batch in batches:
        tensors = tuple(map(torch.from_numpy, batch))
        yield tuple(tensor.pin_memory() for tensor in tensors) if device.type == "cuda" else tensors


def _labels(labels: Tensor, valid: Tensor, unlabelled: float) -> Tensor:
    per_cell = labels.shape == valid.shape
    if labels.is_floating_point():
        return torch.where(valid, labels, torch.nan) if per_cell else labels
    indices = labels.to(torch.int64)
    known = indices != unlabelled
    return torch.where(known & valid if per_cell else known, indices, UNLABELLED)
