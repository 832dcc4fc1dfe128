"""Networks rewritten for prediction on a CPU: the same layers, in fewer and faster kernels."""

from __future__ import annotations

import copy
from contextlib import redirect_stderr
from io import StringIO

import torch
from torch import fx, nn

from rlearndeep.backends.torch.activations import ActivatedConvolution, fold_activations
from rlearndeep.backends.torch.feeding import Batch
from rlearndeep.backends.torch.networks import Padded, PerCell
from rlearndeep.backends.torch.perceptron import CachedPerceptron
from rlearndeep.backends.torch.upsampling import DoublingConvolution, fold_upsampling

_TOLERANCE = 1e-4
_DEPTHS = 5  # of a decoder's blocks in a U-Net++, the deepest that must be taken apart


def rewrite(module: nn.Module, trial: Batch) -> nn.Module:
    """The network with ReLU and the enlargement of features computed by the convolutions beside them.

    Parts of the network that cannot be traced stay as they are, and so does a network whose answer would change, or
    on a processor without such kernels.

    Args:
        module: in evaluation mode, on the CPU; left as it is.
        trial: an input of one patch.
    """
    for depth in range(_DEPTHS):
        found = copy.deepcopy(module)
        try:
            if isinstance(found, Padded):
                found.inner = _rewritten(found.inner, depth)
            else:
                found = _rewritten(found, depth)
            # What was traced prints its own code to standard error when it fails.
            with torch.no_grad(), redirect_stderr(StringIO()):
                before, after = module(trial), found(trial)
        except Exception:  # whatever a network does that was not made to be traced
            continue
        if not any(isinstance(layer, ActivatedConvolution) for layer in found.modules()):
            return module
        scale = max(1.0, float(before.abs().max()))
        if float((after - before).abs().max()) <= _TOLERANCE * scale:
            return found
    return module


def in_precision(dtype: torch.dtype, module: nn.Module, plain: nn.Module, trial: Batch) -> nn.Module:
    """A copy for autocast to ``dtype``, whose layers of most work need no cast of their weights per batch.

    oneDNN has its kernels in bf16 for processors with AVX-512 or AMX only; PyTorch's own layers compute everywhere.

    Args:
        module: a network after :func:`rewrite`; it is copied where this processor has its kernels in ``dtype``.
        plain: the network before, or ``module`` itself where it was not rewritten; else this is copied.
        trial: an input of one patch.
    """
    made = _with_weights_in(dtype, module)
    if module is plain:
        return made
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype), redirect_stderr(StringIO()):
            made(trial)
    except RuntimeError:
        return _with_weights_in(dtype, plain)
    return made


def _with_weights_in(dtype: torch.dtype, module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for layer in module.modules():
        if type(layer) in (nn.Conv2d, nn.Linear, ActivatedConvolution, DoublingConvolution):
            layer.to(dtype)
    return module


def _rewritten(module: nn.Module, depth: int) -> nn.Module:
    """The same, or the module itself with the largest parts replaced that can be traced.

    A part that is replaced loses what it has beside ``forward``, which its surroundings may ask for; then parts of
    it have to do, at least ``depth`` levels below.
    """
    if type(module) is PerCell:
        return CachedPerceptron(module)
    if type(module) is nn.Conv2d or not any(type(layer) is nn.Conv2d for layer in module.modules()):
        return module
    try:
        if not depth:
            traced = fx.symbolic_trace(module)
            return traced.eval() if _changed(traced) else module
    except Exception:  # control flow that depends on the input, an input that is no tensor, and more
        pass
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child, max(0, depth - 1)))
    return module


def _changed(traced: fx.GraphModule) -> bool:
    layers = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(layers[str(node.target)]) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    if not fold_activations(traced):
        return False
    fold_upsampling(traced)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return True
