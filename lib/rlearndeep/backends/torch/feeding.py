"""Batches on the device: raw values go there as they are stored, and become network input there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.ahead import ahead
from rlearndeep.scene.bands import SMALLEST_SPREAD, Normalization
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.inputs import Inputs

Raw = tuple[Any, NDArray, NDArray]
"""Values (an array, or ``Inputs`` of arrays), validity of the reference, and labels, as they are stored."""

Batch = Tensor | Inputs
"""What a network gets: images, or several sources, normalised, on its device."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_ON_MPS = {torch.float64: torch.float32, torch.uint16: torch.int32, torch.uint32: torch.int64}
"""What holds values of types that MPS has not; a network computes in 32-bit floating point."""


class Feed(Protocol):
    """Patches of one part, as ``learning.feeding.Part`` gives them."""

    normalization: Normalization

    @property
    def normalizations(self) -> Mapping[str, Normalization]:
        """Of further sources, by their names."""

    @property
    def unlabelled(self) -> float:
        """Stored label of what has none; NaN for values."""

    def __len__(self) -> int: ...

    def raw_batches(self, size: int, order: tuple[int, int] | None, share: tuple[int, int]) -> Iterator[Raw]:
        """Values (N, bands, rows, cols), validity (N, rows, cols) and labels (N, ...) as they are stored.

        For a network of several sources the values are ``Inputs``, the validity is that of the reference. ``order``
        is seed and epoch of a random order, None the stored one; ``share`` says which of how many nearly equal
        pieces of each batch is wanted.
        """

    def steps(self, size: int) -> int:
        """Number of batches."""


def on_device(batches: Iterator[Raw], feed: Feed, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """Images (N, bands, rows, cols), normalised, and labels (N, ...) of batches, the next one read while one is used.

    Labels are int64 with ``UNLABELLED``, or float32 with NaN for values, where there is none or the cell is null.
    """
    for batch in ahead(_tensors(batches, device)):
        values, valid, labels = (_mapped(part, lambda tensor: tensor.to(device, non_blocking=True)) for part in batch)
        yield _normalized(values, valid, feed), _labels(labels, valid, feed.unlabelled)


def _normalized(values: Batch, valid: Tensor, feed: Feed) -> Batch:
    if not isinstance(values, Inputs):
        return normalized(values, valid, feed.normalization)
    further = {
        name: replace(source, values=normalized(source.values, source.valid, feed.normalizations[name]))
        for name, source in values.further.items()
    }
    return Inputs(normalized(values.images, valid, feed.normalization), further)


def normalized(values: Tensor, valid: Tensor, normalization: Normalization) -> Tensor:
    """What ``Normalization.apply`` gives, on the device of the values; 0 where not valid."""
    result = values.to(torch.float32)
    if normalization.method == "band":
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (normalization.mean, normalization.std))
        result = result - mean.float().to(result.device)[:, None, None]
        result *= (1.0 / std).float().to(result.device)[:, None, None]
    elif normalization.method == "cell":
        middle = result.mean(dim=-3, keepdim=True)
        result = result - middle
        spread = result.std(dim=-3, correction=0, keepdim=True)
        result /= torch.where(spread > SMALLEST_SPREAD * middle.abs(), spread, 1.0)
    return torch.where(valid.unsqueeze(-3), result, 0.0)


def _tensors(batches: Iterator[Raw], device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Tensors that share the arrays' memory; from pinned memory a GPU copies while it computes."""

    def made(array: NDArray) -> Tensor:
        tensor = torch.from_numpy(array)
        if device.type == "mps":
            return tensor.to(_ON_MPS.get(tensor.dtype, tensor.dtype))
        return tensor.pin_memory() if device.type == "cuda" else tensor

    for batch in batches:
        yield tuple(_mapped(part, made) for part in batch)


def _mapped(part: Any, change: Callable[[Any], Tensor]) -> Any:
    return part.map(change) if isinstance(part, Inputs) else change(part)


def laid_out(images: Batch) -> Batch:
    """The same with the bands of a cell next to each other in memory, as convolutions like them."""
    if isinstance(images, Inputs):
        return replace(images, images=images.images.contiguous(memory_format=torch.channels_last))
    return images.contiguous(memory_format=torch.channels_last)


def module_laid_out(module: AnyModule) -> AnyModule:
    """The same module with the weights of its convolutions in that layout; those over three axes have none of it."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def pieces(images: Batch, size: int) -> list[Batch]:
    """The same places in order, at most ``size`` in each piece."""
    if isinstance(images, Inputs):
        return [images[start : start + size] for start in range(0, len(images), size)]
    return list(images.split(size))


def twice(images: Batch) -> Batch:
    """Every place two times."""
    return _mapped(images, lambda tensor: torch.cat([tensor, tensor]))


class Sealed:
    """A batch that passes through Fabric unseen, which refuses data classes that cannot be changed.

    Args:
        batch: on the device and of the type that the network takes.
    """

    def __init__(self, batch: Inputs) -> None:
        self.batch = batch


def sealed(batch: Batch) -> Tensor | Sealed:
    """What Fabric lets through; a network that learns opens it with :func:`unseal`."""
    return Sealed(batch) if isinstance(batch, Inputs) else batch


def unseal(module: nn.Module) -> None:
    """Let a network take what :func:`sealed` gives."""
    module.register_forward_pre_hook(lambda _, given: (given[0].batch,) if isinstance(given[0], Sealed) else None)


def _labels(labels: Tensor, valid: Tensor, unlabelled: float) -> Tensor:
    per_cell = labels.shape == valid.shape
    if labels.is_floating_point():
        return torch.where(valid, labels, torch.nan) if per_cell else labels
    indices = labels.to(torch.int64)
    known = indices != unlabelled
    return torch.where(known & valid if per_cell else known, indices, UNLABELLED)
