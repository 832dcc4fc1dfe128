"""A network of several sources, each in its own cells; as that of PyTorch, in layers of Keras.

The reference goes through an encoder and the decoder of a U-Net, every further source through a branch of its own;
what the branches see is added to the features of the reference at every level of the encoder and before the last
layer, on the same ground (see ``rlearndeep.backends.torch.fusion`` for the sources of the method). Here the finest map
of a branch serves every level: :mod:`rlearndeep.backends.keras.alignment` says how its cells are joined.

For each further source the network has four inputs under its name: the source itself (N, rows, cols, bands + 1), of
which the last band says what is valid; ``_rows`` and ``_cols``, the two matrices; and ``_present`` (N, 1, 1, 1). A
series has dates before the rows, and ``_days``, the positions of :mod:`rlearndeep.backends.keras.temporal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rlearndeep.backends.fusing import BranchOf, Fusing
from rlearndeep.backends.keras.blocks import DECODER, HEAD, encoder_name, unet_decoded
from rlearndeep.backends.keras.encoders import encoded
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.temporal import attended, mean_of_dates
from rlearndeep.backends.recipes import unet_depth
from rlearndeep.model import Network

layers = keras.layers

IMAGE = "image"
"""Name of the input of the reference."""

FIRST_OF_BRANCH = ("_around/kernel", "_down_0_0/kernel")
"""How the names of the filters end that meet the bands of a branch."""

_GROUPS = 4
_HEADS = 8


def fused(network: Network) -> tuple[dict[str, Any], Any]:
    """Symbolic inputs by their names, and logits.

    Raises:
        DeepLearningError: an option that makes no sense, or that Keras does not serve.
    """
    recipe = Fusing.of(network)
    branches = [_Seen.of(source, recipe) for source in recipe.sources]
    _look(branches, recipe)
    inputs = {tensor.name: tensor for branch in branches for tensor in branch.inputs}
    features: list[Any] = []
    if recipe.reference:
        inputs[IMAGE] = layers.Input((None, None, network.bands), name=IMAGE)
        features = encoded(encoder_name(network), inputs[IMAGE])[: unet_depth(network)]
    if recipe.per_patch:
        return inputs, _of_patch(network, features, branches)
    return inputs, _of_cells(network, features, branches, recipe.widths[0])


@dataclass
class _Seen:
    """A branch in the making.

    Attributes:
        name: of the source.
        features: its finest map.
        rows, cols: matrices onto the grid of the reference.
        present: 1 where there is a valid cell, else 0.
        inputs: all symbolic inputs.
    """

    name: str
    features: Any
    rows: Any
    cols: Any
    present: Any
    inputs: tuple[Any, ...]

    @classmethod
    def of(cls, source: BranchOf, recipe: Fusing) -> _Seen:
        name = source.name
        values = layers.Input((*([None] if source.series else []), None, None, source.bands + 1), name=name)
        rows, cols = (layers.Input((None, None), name=f"{name}_{axis}") for axis in ("rows", "cols"))
        present = layers.Input((1, 1, 1), name=f"{name}_present")
        days = [layers.Input((None, 1, 1, recipe.widths[-1]), name=f"{name}_days")] if source.series else []
        features = _branch(values, days, recipe.widths, f"{DECODER}{name}")
        return cls(name, features, rows, cols, present, (values, rows, cols, present, *days))

    def leave_out(self, seen: Any) -> None:
        """Something learned stands for the features where the source is not seen."""
        width = self.features.shape[-1]
        absent = layers.Dense(width, use_bias=False, kernel_initializer="zeros", name=f"{DECODER}{self.name}_absent")
        self.features = self.features * seen + absent(1 - seen)

    def on_grid(self, level: int, width: int, name: str) -> Any:
        """The features after a convolution of one cell, on a grid of ``2**level`` times larger cells."""
        change = layers.Conv2D(width, 1, name=f"{DECODER}{self.name}_{name}")
        before = width < self.features.shape[-1]  # the layer and the interpolation may change places
        values = change(self.features) if before else self.features
        rows, cols = self.rows, self.cols
        for _ in range(level):
            rows, cols = (layers.AveragePooling1D(2, dtype="float32")(part) for part in (rows, cols))
        # Places are told in 32-bit numbers, whatever the precision of the layers.
        rows, cols, values = (keras.ops.cast(part, "float32") for part in (rows, cols, values))
        placed = keras.ops.einsum("nhr,nrwc->nhwc", rows, values)
        placed = keras.ops.einsum("nkw,nhwc->nhkc", cols, placed)
        return placed if before else change(placed)


def _look(branches: list[_Seen], recipe: Fusing) -> None:
    """Each source that is present is seen; in training it is left out at times, but never the last one of all."""
    alone = len(branches) == 1 and not recipe.reference
    rate = 0.0 if alone else recipe.dropout
    seen = [layers.ReLU(max_value=1.0)(layers.Dropout(rate)(branch.present)) for branch in branches]
    if not recipe.reference and len(branches) > 1:
        some = layers.Maximum()(seen)
        seen = [one * some + branch.present * (1 - some) for one, branch in zip(seen, branches, strict=True)]
    for branch, one in zip(branches, seen, strict=True):
        branch.leave_out(one)


def _of_patch(network: Network, features: list[Any], branches: list[_Seen]) -> Any:
    """Logits (N, classes): the matrices make a mean over the ground of the patch."""
    width = branches[0].features.shape[-1]
    maps = [*features[-1:], *(branch.on_grid(0, width, "mean") for branch in branches)]
    means = [layers.GlobalAveragePooling2D()(values) for values in maps]
    return layers.Dense(network.classes, name=HEAD)(layers.Concatenate()(means) if len(means) > 1 else means[0])


def _of_cells(network: Network, features: list[Any], branches: list[_Seen], filters: int) -> Any:
    """Logits (N, rows, cols, classes)."""
    if not features:
        joined = layers.ReLU()(_joined([], branches, 0, branches[0].features.shape[-1]))
        values = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{DECODER}last")(joined)
        return layers.Conv2D(network.classes, 1, name=HEAD)(values)
    levels = [_joined([own], branches, level, own.shape[-1]) for level, own in enumerate(features, start=1)]
    decoded = unet_decoded(levels)
    values = _joined([decoded], branches, 0, decoded.shape[-1])
    return layers.Conv2D(network.classes, 3, padding="same", name=HEAD)(values)


def _joined(own: list[Any], branches: list[_Seen], level: int, width: int) -> Any:
    parts = [*own, *(branch.on_grid(level, width, f"on_{level}") for branch in branches)]
    return layers.Add()(parts) if len(parts) > 1 else parts[0]


def _branch(values: Any, days: list[Any], widths: tuple[int, ...], name: str) -> Any:
    """A small U-Net at the source's own resolution, which adds what it meets on the way back; its finest map.

    Normalisation hides how high values are on the whole, so the values themselves go around it.
    """
    known = values[..., -1:]
    levels = [_convolution(values, widths[0], 1, f"{name}_around")]
    for number, width in enumerate(widths):
        values = _halved(values) if number else values
        values = _convolutions(values, (width, width), f"{name}_down_{number}")
        levels.append(values)
    around, *levels = _through_time(levels, known, days[0], name) if days else levels
    values = levels[-1]
    for number, width in reversed(list(enumerate(widths[:-1]))):
        larger = layers.UpSampling2D(2)(_convolution(values, width, 1, f"{name}_narrow_{number}"))
        values = _convolutions(layers.Add()([larger, levels[number]]), (width,), f"{name}_up_{number}")
    return _convolution(layers.Concatenate()([values, around]), 2 * widths[0], 1, f"{name}_out")


def _through_time(levels: list[Any], known: Any, days: Any, name: str) -> list[Any]:
    """The same maps without dates: attention joins them at the coarsest level, and its weights at the others."""
    factors = [1, *(2**number for number in range(len(levels) - 1))]
    shares = [layers.AveragePooling3D((1, factor, factor), dtype="float32")(known) for factor in factors]
    heads = math.gcd(_HEADS, levels[0].shape[-1])
    coarsest, weights = attended(levels[-1], shares[-1], days, heads, f"{name}_dates")
    finer = zip(levels[:-1], shares[:-1], factors[:-1], strict=True)
    return [*(mean_of_dates(frames, share, weights, factors[-1] // own) for frames, share, own in finer), coarsest]


def _convolution(values: Any, width: int, cells: int, name: str) -> Any:
    """Of squares of so many cells, date by date where there are dates."""
    dates = (1,) if _has_dates(values) else ()
    kind = layers.Conv3D if dates else layers.Conv2D
    return kind(width, (*dates, cells, cells), padding="same", kernel_initializer="he_uniform", name=name)(values)


def _halved(values: Any) -> Any:
    return layers.MaxPooling3D((1, 2, 2))(values) if _has_dates(values) else layers.MaxPooling2D(2)(values)


def _has_dates(values: Any) -> bool:
    return len(values.shape) == 5


def _convolutions(values: Any, widths: tuple[int, ...], name: str) -> Any:
    """Convolutions of 3 x 3 cells with a normalisation that knows no other patch, and no other date."""
    for number, width in enumerate(widths):
        values = _convolution(values, width, 3, f"{name}_{number}")
        if _has_dates(values):
            norm = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_{number}_norm")
        else:
            norm = layers.GroupNormalization(math.gcd(_GROUPS, width), epsilon=1e-5, name=f"{name}_{number}_norm")
        values = layers.ReLU()(norm(values))
    return values
