"""Convolutions of one cell that pass over cells, computed without a step: oneDNN fails at their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Built = TypeVar("Built", bound=nn.Module)

# Numbers in a vector of the widest processors.
_NARROW = 16


def without_steps(module: Built) -> Built:
    """The same network, changed in place to be trained: its convolutions of one cell get no cell that they pass over.

    On a CPU the gradient of such a convolution with a step, of few channels that lie last in memory, ends the process,
    never comes to an end, or is wrong: oneDNN (3.14, of torch 2.15) writes beyond its memory. The first layers of
    MobileOne, RepVGG and FastViT are of this kind. Answers and names of the weights stay.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels < _NARROW and _passes_over_cells(layer):
            layer.register_forward_pre_hook(_thinned(*layer.stride))
            layer.stride = (1, 1)
    return module


def _passes_over_cells(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.stride != (1, 1)


def _thinned(rows: int, cols: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    def hook(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][..., ::rows, ::cols],)

    return hook
