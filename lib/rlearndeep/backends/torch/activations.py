"""ReLU computed by the convolution before it, for prediction on a CPU: its output is not fetched from memory again."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

_RELU = {functional.relu, torch.relu, torch.relu_}
_SUM = {operator.add, operator.iadd, torch.add}


class ActivatedConvolution(nn.Conv2d):
    """A convolution, whose output another tensor may be added to, and ReLU in one kernel of oneDNN.

    Under autocast it takes any precision and computes in that of its weights. The kernel is the one that PyTorch's
    compiler calls; it has no public name. Of other memory layouts it does not know sums in bf16.
    """

    def forward(self, images: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, channels, rows, cols) of both."""
        kernel: Any = torch.ops.mkldnn._convolution_pointwise
        images = images.to(self.weight.dtype, memory_format=torch.channels_last)
        layer, shape = (self.weight, self.bias), (self.padding, self.stride, self.dilation, self.groups)
        if other is None:
            return kernel(images, *layer, *shape, "relu", [], "")
        return kernel.binary(images, other.to(images.dtype), *layer, *shape, "add", 1.0, "relu", [], "")

    def with_inputs(self, weight: Tensor) -> ActivatedConvolution:
        """The same for other inputs, whose weights are (outputs, inputs, rows, cols)."""
        made = copy.copy(self)
        made._parameters = dict(self._parameters)
        made.in_channels, made.weight = weight.shape[1], nn.Parameter(weight, requires_grad=False)
        return made


def fold_activations(traced: fx.GraphModule) -> bool:
    """Let convolutions compute ReLU that directly follows them, or a sum with their output; whether there was any."""
    layers = dict(traced.named_modules())
    return any([_replaced(traced, node, layers) for node in list(traced.graph.nodes) if _is_relu(node, layers)])


def _replaced(traced: fx.GraphModule, relu: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Let the convolution before a ReLU compute it, if there is one that nothing else takes the output of."""
    before: Any = relu.args[0]
    convolution, others = before, []
    if before.op == "call_function" and before.target in _SUM and len(before.users) == 1 and not before.kwargs:
        found = [term for term in before.args if _is_own(term, layers) and layers[str(term.target)].groups == 1]
        if not found:
            return False
        # The sum is computed where the later of its terms is: there both are known.
        convolution = max(found, key=list(traced.graph.nodes).index)
        others = [term for term in before.args if term is not convolution]
        if len(others) != 1 or not isinstance(others[0], fx.Node):
            return False
    if not _is_own(convolution, layers):
        return False
    name = f"{convolution.target}_activated".replace(".", "_")
    traced.add_submodule(name, activated(layers[convolution.target]))
    with traced.graph.inserting_before(relu):
        new = traced.graph.call_module(name, (convolution.args[0], *others))
    relu.replace_all_uses_with(new)
    for node in dict.fromkeys((relu, before, convolution)):
        traced.graph.erase_node(node)
    return True


def _is_relu(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(layers[str(node.target)]) is nn.ReLU
    return node.op == "call_function" and node.target in _RELU


def _is_own(node: Any, layers: dict[str, nn.Module]) -> bool:
    """Whether it is a convolution of the plain kind, called once, whose output goes to one place only."""
    layer = layers.get(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
    if type(layer) is not nn.Conv2d or len(node.users) != 1 or isinstance(layer.padding, str):
        return False
    calls = sum(other.op == "call_module" and other.target == node.target for other in node.graph.nodes)
    return layer.padding_mode == "zeros" and calls == 1


def activated(convolution: Any) -> ActivatedConvolution:
    """The same convolution with ReLU behind it."""
    made: ActivatedConvolution = copy.copy(convolution)
    made.__class__ = ActivatedConvolution
    return made
