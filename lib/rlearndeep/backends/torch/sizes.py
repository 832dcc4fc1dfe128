"""Sizes of input that networks of timm take, where a rule for all of them would fail."""

from __future__ import annotations

import re
from typing import Any

STRIDE = 32
"""Networks of the libraries halve their input five times."""

# Their paths meet again only where every halving came out even.
_EVEN = re.compile(r"dla\d|hrnet|hieradet|sam2_hiera|tresnet|gemma4_vit|qwen3_vit|naflexvit|(se|eca)?resne[x]?taa")
# Keys and values are pooled by up to eight, after the first step of four.
_POOLED = re.compile(r"pvt_v2")
# Attention in blocks, or with positions, of the size that they are made for.
_OWN_SIZE = re.compile(r"\w*halo|bat_resnext|efficientformer_l|deepseek_vit")
_SQUARE = re.compile(r"convit|nest|mvitv2")
# They bring their input to the size that they are made for.
_RESIZING = re.compile(r"crossvit")
_WITHOUT_PADDING = {re.compile(r"inception_"): 96, re.compile(r"ghostnetv[23]"): 64}
# Windows of a size of their own, whatever the input.
_WINDOWS = re.compile(r"swin")


def of_encoder(name: str) -> dict[str, Any]:
    """Arguments of an encoder of timm for input of any size."""
    return {"strict_img_size": False} if _WINDOWS.match(name) else {}


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
    if not getattr(config, "fixed_input_size", False) or _RESIZING.match(name) or _OWN_SIZE.match(name):
        return {}
    sides = tuple(-(-side // STRIDE) * STRIDE for side in size)
    return {"img_size": (max(sides),) * 2 if _SQUARE.match(name) else sides}


def padding_of_classifier(name: str, config: Any, arguments: dict[str, Any]) -> tuple[int, int]:
    """A multiple of its cells that each side of the input is padded to, and the smallest side.

    Args:
        name: of the model.
        config: of its published weights.
        arguments: of :func:`of_classifier`.
    """
    if _OWN_SIZE.match(name):
        return 1, max(config.input_size[1:])
    if _SQUARE.match(name):
        return STRIDE, max(arguments["img_size"])
    smallest = next((side for known, side in _WITHOUT_PADDING.items() if known.match(name)), STRIDE)
    return STRIDE if "img_size" in arguments or _EVEN.match(name) else 1, smallest
