"""The suite's own networks and the depth of U-Nets, as their options describe them, for every framework."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

OWN = ("mlp", "cnn", "fcn_dilated")

STEPWISE = ("unet", "unetplusplus", "manet", "linknet", "fusion")
"""Networks that go back to the full size step by step, and may have fewer steps."""

DECODER_WIDTHS = (256, 128, 64, 32, 16)
"""Filters of the steps of a decoder, the deepest first."""

DEEPEST = 5

FOCUS = 2.0
"""Power of the focal loss."""

SMOOTH = 1e-6
"""What a loss divides by at least."""

_MOST_LAYERS = 100
_MOST_WEIGHTS = 2**31


@dataclass(frozen=True)
class Perceptron:
    """A perceptron on the bands of each cell.

    Attributes:
        hidden: widths of the hidden layers.
        dropout: share of units left out after each of them in training.
        per_patch: whether the answer is the mean over the cells of a patch.
    """

    hidden: tuple[int, ...]
    dropout: float
    per_patch: bool

    @classmethod
    def of(cls, network: Network) -> Perceptron:
        """The options ``hidden``, ``dropout`` and ``unit``."""
        options = network.options
        hidden = tuple(whole(width, "hidden") for width in listed(options.get("hidden", [128, 64]), "hidden", 0))
        _check_weights(network, list(zip((network.bands, *hidden), (*hidden, network.classes), strict=True)))
        return cls(hidden, share(options.get("dropout", 0.2)), options.get("unit") == "patch")


@dataclass(frozen=True)
class SmallCNN:
    """A classifier of patches: blocks of two 3 x 3 convolutions, each twice as wide as the one before.

    Attributes:
        widths: filters, per block.
        dropout: share of features left out before the last layer in training.
    """

    widths: tuple[int, ...]
    dropout: float

    @classmethod
    def of(cls, network: Network) -> SmallCNN:
        """The options ``filters``, ``blocks`` and ``dropout``."""
        options = network.options
        filters, blocks = whole(options.get("filters", 32), "filters"), whole(options.get("blocks", 3), "blocks", 12)
        widths = tuple(filters * 2**number for number in range(blocks))
        layers = [(9 * inputs, width) for inputs, width in zip((network.bands, *widths[:-1]), widths, strict=True)]
        _check_weights(network, [*layers, *((9 * width, width) for width in widths)])
        return cls(widths, share(options.get("dropout", 0.2)))


@dataclass(frozen=True)
class DilatedFCN:
    """A fully convolutional network of dilated convolutions without down-sampling.

    Attributes:
        filters: of each convolution.
        kernels: rows and columns of the convolution, per block; odd.
        dilations: per block.
    """

    filters: int
    kernels: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(cls, network: Network) -> DilatedFCN:
        """The options ``filters``, ``kernel``, ``blocks`` and ``dilations``."""
        options = network.options
        blocks, filters = whole(options.get("blocks", 7), "blocks", 100), whole(options.get("filters", 64), "filters")
        kernels = repeated(listed(options.get("kernel", [5, 3][:blocks]), "kernel"), blocks)
        if any(whole(size, "kernel", 99) % 2 == 0 for size in kernels):
            raise DeepLearningError(f"Kernels must be odd numbers of cells; got kernel={kernels}. Choose e.g. 5,3.")
        dilations = repeated(listed(options.get("dilations", [2]), "dilations"), blocks)
        inputs = (network.bands, *[filters] * (blocks - 1))
        _check_weights(network, [(size**2 * count, filters) for size, count in zip(kernels, inputs, strict=True)])
        return cls(filters, tuple(kernels), tuple(whole(value, "dilations") for value in dilations))


def unet_depth(network: Network) -> int:
    """How often an encoder halves its input: the option ``depth``, from 3 to 5."""
    depth = network.options.get("depth", DEEPEST)
    if depth != DEEPEST and network.architecture not in STEPWISE:
        raise DeepLearningError(f"Only {', '.join(STEPWISE)} may have another depth; got {network.architecture}.")
    if type(depth) is not int or not 3 <= depth <= DEEPEST:
        raise DeepLearningError(f"The depth of an encoder is 3, 4 or {DEEPEST}; got '{depth}'. Choose one of them.")
    return depth


def repeated(values: list[int], count: int) -> list[int]:
    """A value per block: the last one given holds for the blocks that remain."""
    if not 1 <= len(values) <= count:
        raise DeepLearningError(
            f"There must be one value per block at most; got {len(values)} values for {count} blocks. "
            "Give fewer values or more blocks."
        )
    return [*values, *values[-1:] * (count - len(values))]


def whole(value: Any, name: str, largest: int = 65536) -> int:
    """A whole number from 1."""
    if type(value) is not int or not 1 <= value <= largest:
        raise DeepLearningError(
            f"A value of {name}= must be a whole number from 1 to {largest}; got '{str(value)[:100]}'. Choose another."
        )
    return value


def listed(values: Any, name: str, fewest: int = 1) -> list[Any]:
    """The values of an option that has several."""
    if not isinstance(values, (list, tuple)) or not fewest <= len(values) <= _MOST_LAYERS:
        raise DeepLearningError(
            f"The option {name}= has {fewest} to {_MOST_LAYERS} values; got '{str(values)[:100]}'. Give other values."
        )
    return list(values)


def share(value: Any) -> float:
    """A share of units that are left out."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise DeepLearningError(f"Dropout must be at least 0 and below 1; got '{str(value)[:100]}'. Choose e.g. 0.2.")
    return float(value)


def _check_weights(network: Network, layers: list[tuple[int, int]]) -> None:
    """Layers are given as weights per output, and outputs."""
    count = sum(inputs * outputs for inputs, outputs in layers)
    if count > _MOST_WEIGHTS:
        raise DeepLearningError(
            f"A network has at most {_MOST_WEIGHTS} weights; '{network.architecture}' with these options would have "
            f"{count}. Choose smaller hidden=, filters= or blocks=."
        )


def summands(loss: str, known: Collection[str]) -> list[str]:
    """Names in a ``loss=`` value, a sum with ``+``, of the losses ``known`` for the task.

    Raises:
        DeepLearningError: one of them is not known, or stands there twice.
    """
    names = loss.split("+")
    if any(name not in known for name in names) or len(set(names)) != len(names):
        raise DeepLearningError(
            f"The loss must be a sum of different ones of {', '.join(known)}; got '{loss}'. Choose e.g. "
            f"{'+'.join(list(known)[:2])}."
        )
    return names
