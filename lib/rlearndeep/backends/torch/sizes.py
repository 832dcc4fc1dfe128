"""Sizes of input that networks of timm take, where a rule for all of them would fail."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

STRIDE = 32
"""Networks of the libraries halve their input five times."""

# Their paths meet again only where every halving came out even.
_EVEN = re.compile(
    r"dla\d|hrnet|hieradet|sam2_hiera|tresnet|gemma4_vit|qwen3_vit|naflexvit|(se|eca)?resne[x]?taa|lambda_resnet"
    r"|resnet\w*_(clip|mlp)"
)
# Keys and values are pooled by up to eight, after the first step of four.
_POOLED = re.compile(r"pvt_v2")
# They attend within blocks of eight cells of what was halved five times.
_BLOCKS = re.compile(r"\w*halo|bat_resnext")
_BLOCK_STRIDE = 8 * STRIDE
# Each cell, or each of a number of windows, has its place: these encoders are made for pictures of one size.
_TAILORED = re.compile(r"(test_)?(coat|maxvit|maxxvit)|efficientformerv2|gcvit|\w*botne[x]?t")
# Attention with the positions of one size, whatever is asked for.
_OWN_SIZE = re.compile(r"efficientformer_l")
_ONE_SIZE = 224
_SQUARE = re.compile(r"convit|nest|mvitv2")
# They bring their input to the size that they are made for.
_RESIZING = re.compile(r"crossvit")
_WITHOUT_PADDING = {re.compile(r"inception_"): 96, re.compile(r"ghostnetv[23]|csatv2"): 64}
_PATCHES = {re.compile(r"deepseek_vit"): 14}
# Windows of a size of their own, whatever the input.
_WINDOWS = re.compile(r"swin")


class Sides(NamedTuple):
    """Rows and columns of the input of a network.

    Attributes:
        multiple: both are multiples of it.
        smallest: they are at least this.
        largest: they are at most this; None for any.
    """

    multiple: int
    smallest: int
    largest: int | None = None

    def enough(self, cells: int) -> int:
        """Rows or columns that so many are padded to."""
        return max(self.smallest, -(-cells // self.multiple) * self.multiple)


def of_encoder(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Arguments of an encoder of timm that learns from patches of a size."""
    if _WINDOWS.match(name):
        return {"strict_img_size": False}
    side = largest_of_encoder(name, size)
    return {"img_size": (side, side)} if side and not _OWN_SIZE.match(name) else {}


def largest_of_encoder(name: str, size: tuple[int, int]) -> int | None:
    """Rows and columns of the largest input of an encoder that is made for patches of a size; None where any will do.

    Args:
        name: of the encoder; empty where it is not of timm.
        size: rows and columns of the patches.
    """
    if _OWN_SIZE.match(name):
        return _ONE_SIZE
    return _tailored(name, size) if _TAILORED.match(name) or _BLOCKS.match(name) else None


def multiple_of_encoder(name: str, depth: int) -> int:
    """Rows and columns of the input are multiples of this; ``name`` is empty where the encoder is not of timm."""
    return STRIDE if _EVEN.match(name) or _POOLED.match(name) else 2**depth


def of_classifier(name: str, config: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Arguments of a classifier of timm for patches of a size; none where it takes any.

    Args:
        name: of the model.
        config: of its published weights.
        size: rows and columns of the patches.
    """
    side = _tailored(name, size)
    if _BLOCKS.match(name):
        return {"img_size": (side, side)}
    if not getattr(config, "fixed_input_size", False) or _RESIZING.match(name) or _OWN_SIZE.match(name):
        return {}
    if _SQUARE.match(name):
        return {"img_size": (side, side)}
    return {"img_size": tuple(-(-cells // STRIDE) * STRIDE for cells in size)}


def sides_of_classifier(name: str, arguments: dict[str, Any]) -> Sides:
    """Of the input of a classifier of timm with the arguments of :func:`of_classifier`."""
    if _OWN_SIZE.match(name):
        return Sides(1, _ONE_SIZE, _ONE_SIZE)
    if _BLOCKS.match(name) or _SQUARE.match(name):
        return Sides(STRIDE, max(arguments["img_size"]))
    smallest = next((side for known, side in _WITHOUT_PADDING.items() if known.match(name)), STRIDE)
    cells = next((cells for known, cells in _PATCHES.items() if known.match(name)), 1)
    return Sides(STRIDE if "img_size" in arguments or _EVEN.match(name) else cells, smallest)


def _tailored(name: str, size: tuple[int, int]) -> int:
    step = _BLOCK_STRIDE if _BLOCKS.match(name) else STRIDE
    return -(-max(size) // step) * step
