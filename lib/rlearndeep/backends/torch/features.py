"""What the last layer of a network sees: its features, and how much the outputs depend on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends.torch.feeding import Batch
from rlearndeep.backends.torch.networks import Padded


def head_name(module: nn.Module, trial: Batch) -> str:
    """Name of the last convolution or linear layer that runs on an input; what it gets are the features."""
    last = ""

    def note(name: str):
        def hook(_: nn.Module, __: tuple, ___: Tensor) -> None:
            nonlocal last
            last = name

        return hook

    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        with torch.inference_mode():
            module(trial)
    finally:
        for handle in handles:
            handle.remove()
    return last


def head_weights(module: nn.Module, name: str) -> NDArray[np.float32]:
    """For each feature the length of its weights over all outputs, (F,): how far a step in it moves the outputs.

    What moves all outputs alike does not count where there are several, because it changes no score.
    """
    weight = module.get_parameter(f"{name}.weight").detach().float().cpu()
    flat = weight.reshape(weight.shape[0], weight.shape[1], -1)
    if len(flat) > 1:
        flat = flat - flat.mean(dim=0, keepdim=True)
    return flat.square().sum(dim=(0, 2)).sqrt().numpy()


@contextmanager
def captured(modules: list[nn.Module], name: str) -> Iterator[list[Tensor]]:
    """The input of a layer, of whichever module runs last; it is the only element of the list afterwards."""
    found: list[Tensor] = []

    def hook(_: nn.Module, inputs: tuple) -> None:
        found[:] = [inputs[0]]

    handles = [module.get_submodule(name).register_forward_pre_hook(hook) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def aligned(module: nn.Module, features: Tensor, axes: int, size: Sequence[int]) -> Tensor:
    """Features without what lies in the padding, or their mean where the answer is one per patch.

    Args:
        module: the whole network.
        features: (N, F, h, w), (N, F), or (N, tokens, F).
        axes: of the answer, 4 for one per cell and 2 for one per patch.
        size: rows and columns of the input.
    """
    if axes == 2:
        if features.dim() == 4:
            return features.mean(dim=(-2, -1))
        return features.mean(dim=1) if features.dim() == 3 else features
    if isinstance(module, Padded):
        rows, cols = (
            max(1, -(-cells * count // module.sides.enough(cells)))
            for cells, count in zip(size, features.shape[-2:], strict=True)
        )
        features = features[..., :rows, :cols]
    return features
