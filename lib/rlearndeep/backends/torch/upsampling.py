"""Features enlarged by the convolution that takes them, for prediction on a CPU.

The decoders of U-Nets double their features by repeating cells, put others beside them, and convolve both. Repeating
and a convolution of 3 x 3 together are a transposed convolution of 4 x 4 with a step of 2, where no product is
computed twice: 16 for each cell before the enlargement instead of 36 (sub-pixel convolution, Shi et al. 2016, read
backwards). A convolution of features side by side is the sum of a convolution of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from rlearndeep.backends.torch.activations import ActivatedConvolution


class DoublingConvolution(nn.ConvTranspose2d):
    """A convolution of 3 x 3 cells, of features whose cells are repeated in rows and columns first, in one step.

    Like :class:`ActivatedConvolution` it takes any precision and computes in that of its weights.

    Args:
        weight: of the convolution, (outputs, inputs, 3, 3).
        bias: of its outputs, None for none.
        activated: whether ReLU follows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activated: bool) -> None:
        outputs, inputs = weight.shape[:2]
        super().__init__(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias is not None)
        self.activation = "relu" if activated else "none"
        # What a cell became is seen twice, in rows and in columns, by the cells beside it.
        shifted = [functional.pad(weight, (left, 1 - left, up, 1 - up)) for left in (0, 1) for up in (0, 1)]
        self.weight = nn.Parameter(
            torch.stack(shifted).sum(0).flip(2, 3).transpose(0, 1).contiguous(), requires_grad=False
        )
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]  # the size of the output is twice theirs
        """(N, inputs, rows, cols) to (N, outputs, 2 rows, 2 cols)."""
        kernel: Any = torch.ops.mkldnn._convolution_transpose_pointwise
        features = features.to(self.weight.dtype, memory_format=torch.channels_last)
        shape = (self.padding, self.output_padding, self.stride, self.dilation, self.groups)
        return kernel(features, self.weight, self.bias, *shape, self.activation, [], "")


class UpsampledConvolution(nn.Module):
    """A convolution with ReLU, of features that are enlarged first and of others beside them.

    Args:
        joined: of all of them, the enlarged ones first; it is used as it is where they are not enlarged to the double.
    """

    def __init__(self, joined: ActivatedConvolution) -> None:
        super().__init__()
        self.joined = joined
        self.doubling: DoublingConvolution | None = None
        self.beside: ActivatedConvolution | None = None

    def forward(self, features: Tensor, size: Sequence[int] | None, others: Sequence[Tensor]) -> Tensor:
        """Features (N, channels, rows, cols); their size after the enlargement, None for the double; others of it."""
        rows, cols = features.shape[-2:]
        if size is not None and tuple(size) != (2 * rows, 2 * cols):
            return self.joined(torch.cat([functional.interpolate(features, size=tuple(size)), *others], 1))
        doubled = (self.doubling or self._parted(features.shape[1]))(features)
        if self.beside is None:
            return doubled
        return self.beside(others[0] if len(others) == 1 else torch.cat(list(others), 1), doubled)

    def _parted(self, inputs: int) -> DoublingConvolution:
        """How many features are enlarged is known when the first are here, which are those of the trial."""
        enlarged, beside = self.joined.weight[:, :inputs], self.joined.weight[:, inputs:]
        if beside.shape[1]:
            self.beside = self.joined.with_inputs(beside)
            self.doubling = DoublingConvolution(enlarged, None, activated=False)
        else:
            self.doubling = DoublingConvolution(enlarged, self.joined.bias, activated=True)
        return self.doubling


def fold_upsampling(traced: fx.GraphModule) -> None:
    """Let convolutions with ReLU enlarge the features that they take, alone or as the first of several."""
    layers = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and type(layers[str(node.target)]) is ActivatedConvolution:
            _replace(traced, node, layers[str(node.target)])


def _replace(traced: fx.GraphModule, node: fx.Node, layer: Any) -> None:
    source: Any = node.args[0]
    parts = _side_by_side(source)
    size = _enlarged_to(parts[0]) if parts else None
    if size is None or len(node.args) > 1 or not _is_plain(layer):
        return
    name = f"{node.target}_upsampled"
    traced.add_submodule(name, UpsampledConvolution(layer))
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (parts[0].args[0], size[0], tuple(parts[1:])))
    node.replace_all_uses_with(new)
    for old in dict.fromkeys((node, source, parts[0])):
        if not old.users:
            traced.graph.erase_node(old)


def _side_by_side(source: Any) -> list[Any]:
    """The tensors that a node joins by their channels; the node itself where it does not."""
    if not isinstance(source, fx.Node) or source.op != "call_function" or source.target is not torch.cat:
        return [source]
    joined: Any = source.args[0]
    dimension = source.args[1] if len(source.args) > 1 else source.kwargs.get("dim", 0)
    return list(joined) if isinstance(joined, list | tuple) and dimension == 1 else []


def _enlarged_to(node: Any) -> tuple[Any] | None:
    """What a node enlarges cells to by repeating them, None in it for the double; None where it does something else."""
    if not isinstance(node, fx.Node) or node.target is not functional.interpolate or len(node.args) != 1:
        return None
    asked = {"mode": "nearest", "size": None, "scale_factor": None} | node.kwargs
    if asked.pop("mode") != "nearest" or (asked["size"] is None) == (asked["scale_factor"] is None):
        return None
    if asked["size"] is None:
        return (None,) if asked["scale_factor"] == 2 else None
    return (asked["size"],)


def _is_plain(layer: nn.Conv2d) -> bool:
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
