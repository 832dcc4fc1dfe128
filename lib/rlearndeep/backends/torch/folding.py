"""Batch normalisation folded into the convolutions before it, for prediction."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rlearndeep.backends.torch.feeding import Batch

_TOLERANCE = 1e-4


def fold_batch_norm(module: nn.Module, trial: Batch) -> nn.Module:
    """The network with each batch normalisation that directly follows a convolution folded into it.

    The pairs are found by running the network once; a fold that changes the answer is not used.

    Args:
        module: in evaluation mode, on the CPU; left as it is.
        trial: an input of one patch.

    Returns:
        A folded copy, or ``module`` itself where nothing could be folded.
    """
    with torch.no_grad():
        before, pairs = _pairs(module, trial)
        if not pairs:
            return module
        folded = copy.deepcopy(module)
        for convolution, norm in pairs:
            layer: Any = folded.get_submodule(norm)
            fused: Any = fuse_conv_bn_eval(cast(nn.Conv2d, folded.get_submodule(convolution)), layer)
            _replace(folded, convolution, fused)
            _replace(folded, norm, _rest(layer))
        after = folded(trial)
    scale = max(1.0, float(before.abs().max()))
    return folded if float((after - before).abs().max()) <= _TOLERANCE * scale else module


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a normalisation does besides normalising: timm's applies dropout and the activation too."""
    parts = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _pairs(module: nn.Module, trial: Batch) -> tuple[Tensor, list[tuple[str, str]]]:
    """The answer to the trial input, and names of convolutions with the normalisation that takes their output."""
    producer: dict[int, str] = {}
    kept: list[Tensor] = []  # a tensor that is gone may give its id to another
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def after_convolution(name: str):
        def hook(_: nn.Module, __: tuple, output: Tensor) -> None:
            producer[id(output)] = name
            kept.append(output)
            calls[name] = calls.get(name, 0) + 1

        return hook

    def before_norm(name: str):
        def hook(_: nn.Module, inputs: tuple) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in producer:
                pairs.append((producer[id(inputs[0])], name))

        return hook

    handles = []
    for name, layer in module.named_modules():
        if type(layer) is nn.Conv2d:
            handles.append(layer.register_forward_hook(after_convolution(name)))
        elif isinstance(layer, nn.BatchNorm2d):
            handles.append(layer.register_forward_pre_hook(before_norm(name)))
    try:
        answer = module(trial)
    finally:
        for handle in handles:
            handle.remove()
    return answer, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]
