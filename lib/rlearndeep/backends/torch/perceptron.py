"""The perceptron for prediction on a CPU: some cells go through all layers before the next ones begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlearndeep.backends.torch.activations import ActivatedConvolution, activated
from rlearndeep.backends.torch.networks import PerCell

_CELLS_PER_THREAD = 4096


class CachedPerceptron(nn.Sequential):
    """A perceptron on the bands of each cell, whose features do not leave the processor's cache between its layers.

    The kernel is the one that PyTorch's compiler calls for a linear layer with ReLU behind it; it has no public name.
    """

    def __init__(self, plain: PerCell) -> None:
        """With the weights of ``plain``, and its last layer by the same name.

        Raises:
            RuntimeError: this processor has no such kernel.
        """
        super().__init__()
        layers = [(name, layer) for name, layer in plain.named_children() if isinstance(layer, nn.Conv2d)]
        for name, layer in layers[:-1]:
            self.add_module(name, activated(layer))
        self.add_module(*layers[-1])
        with torch.no_grad():
            _answered(self._layers(), torch.zeros(2, layers[0][1].in_channels))

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes, rows, cols) of (N, bands, rows, cols)."""
        count, _, rows, cols = images.shape
        size = _CELLS_PER_THREAD * torch.get_num_threads()
        layers = self._layers()
        in_reduced_precision = layers[-1].weight.dtype != torch.float32
        # Small images are computed alike in batches of any number.
        if in_reduced_precision or _is_watched(layers) or rows * cols <= size:
            return super().forward(images)
        scores = images.new_empty((count, layers[-1].out_channels, rows * cols))
        for cells, found in zip(images.permute(0, 2, 3, 1).reshape(count, rows * cols, -1), scores, strict=True):
            for start in range(0, rows * cols, size):
                found[:, start : start + size] = _answered(layers, cells[start : start + size]).t()
        return scores.reshape(count, -1, rows, cols)

    def _layers(self) -> list[nn.Conv2d]:
        return [layer for layer in self if isinstance(layer, nn.Conv2d)]


def _answered(layers: Sequence[nn.Conv2d], cells: Tensor) -> Tensor:
    """(n, outputs) of (n, bands)."""
    kernel: Any = torch.ops.mkldnn._linear_pointwise
    for layer in layers:
        behind = "relu" if isinstance(layer, ActivatedConvolution) else "none"
        cells = kernel(cells, layer.weight.flatten(1), layer.bias, behind, [], "")
    return cells


def _is_watched(layers: Sequence[nn.Conv2d]) -> bool:
    """Whether somebody wants to see what single layers get or give."""
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
