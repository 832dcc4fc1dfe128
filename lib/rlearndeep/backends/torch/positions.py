"""Tensors of transformers that tell positions, brought to patches of another size by timm's own interpolation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlearndeep.backends.torch.libraries import library, quietly

_ABSOLUTE = "pos_embed"
_RELATIVE = "relative_position_bias_table"
_PURPOSE = "Weights for patches of another size"


def tells_positions(name: str) -> bool:
    """Whether the shape of a tensor of that name follows the size of the patches."""
    return name.rpartition(".")[2] in (_ABSOLUTE, _RELATIVE)


def resampled_positions(tensor: Tensor, name: str, layer: Any) -> Tensor | None:
    """A tensor that tells positions, in the shape that a layer has; None where there is no way to it.

    Args:
        tensor: learned from square patches.
        name: of the tensor in the layer.
        layer: that it is for.
    """
    shape = getattr(layer, name).shape
    try:
        if name == _RELATIVE:
            found = quietly(lambda: _in_window(tensor, layer, shape))
        elif name == _ABSOLUTE:
            found = _on_grid(tensor, layer)
        else:
            return None
    except (AttributeError, ValueError, RuntimeError, AssertionError):
        return None
    return found if found.shape == shape else None


def _in_window(tensor: Tensor, layer: Any, shape: tuple[int, ...]) -> Tensor:
    """What one cell of a window means to another, by the distance between them."""
    sizes = library("timm.layers", _PURPOSE)
    return sizes.resize_rel_pos_bias_table(tensor.float(), layer.window_size, shape)


def _on_grid(tensor: Tensor, layer: Any) -> Tensor:
    """Embeddings (1, tokens, C) of the places of a grid, behind those of the tokens that have no place."""
    sizes = library("timm.layers", _PURPOSE)
    without_place = 0 if getattr(layer, "no_embed_class", False) else getattr(layer, "num_prefix_tokens", 1)
    return sizes.resample_abs_pos_embed(
        tensor.float(), new_size=layer.patch_embed.grid_size, num_prefix_tokens=without_place
    )
