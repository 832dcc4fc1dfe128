"""Layout of arrays: (N, bands, rows, cols) at the door, channels last and padded inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.fusing import Fusing
from rlearndeep.backends.keras.alignment import interpolation
from rlearndeep.backends.keras.fusion import IMAGE
from rlearndeep.backends.keras.networks import gives_cells, padded_size
from rlearndeep.backends.keras.temporal import positions
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Further, Images, Inputs


def as_input(images: Images, network: Network) -> Any:
    """What a network takes: an image (N, rows, cols, bands) of a size that suits it, or arrays by names.

    Images are padded at the lower and right edge: with the cells of the edge where each cell gets an answer, else
    with 0, the mean.
    """
    return _of_sources(images, network) if isinstance(images, Inputs) else _of_image(images, network)


def _of_image(images: NDArray[np.float32], network: Network) -> NDArray[np.float32]:
    size = padded_size(network, images.shape[-2:])
    lengths = [(0, 0), (0, 0), *((0, whole - cells) for whole, cells in zip(size, images.shape[-2:], strict=True))]
    if any(after for _, after in lengths):
        images = np.pad(images, lengths, mode="edge" if gives_cells(network) else "constant")
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _of_sources(inputs: Inputs, network: Network) -> dict[str, NDArray[np.float32]]:
    """The inputs of :mod:`rlearndeep.backends.keras.fusion`."""
    recipe = Fusing.of(network)
    made = {IMAGE: _of_image(inputs.images, network)} if recipe.reference else {}
    size = inputs.shape[-2:]
    padded = padded_size(network, size)
    step = 2 ** (len(recipe.widths) - 1)
    for name, has_dates in ((source.name, source.series) for source in recipe.sources):
        source = inputs.further[name]
        made[name] = _with_validity(source, step)
        present = source.valid.reshape(len(inputs), -1).any(axis=1)
        made[f"{name}_present"] = present.astype(np.float32)[:, None, None, None]
        if has_dates:
            made[f"{name}_days"] = positions(source.days, recipe.widths[-1])
        for axis, part in enumerate(("rows", "cols")):
            # A mean over the ground where a patch gets the answer, else the grid with what is padded.
            count, factor = (1, 1.0) if recipe.per_patch else (padded[axis], padded[axis] / size[axis])
            first, length = source.box[:, axis], source.box[:, 2 + axis] * np.float32(factor)
            cells = source.valid.shape[axis - 2]
            made[f"{name}_{part}"] = interpolation(first, length, count, cells, made[name].shape[axis - 3])
    return made


def _with_validity(source: Further, step: int) -> NDArray[np.float32]:
    """A source (N, [dates,] rows, cols, bands + 1) of multiples of so many cells; what is not valid is 0."""
    valid = np.expand_dims(source.valid, -3)
    values = np.concatenate([np.where(valid, source.values, 0), valid], axis=-3).astype(np.float32, copy=False)
    lengths = [*[(0, 0)] * (values.ndim - 2), *((0, -cells % step) for cells in values.shape[-2:])]
    return np.ascontiguousarray(np.moveaxis(np.pad(values, lengths), -3, -1))


def as_labels(labels: NDArray, network: Network, none: float) -> NDArray:
    """Labels of such images: what was padded has none."""
    if labels.ndim != 3:
        return labels
    size = padded_size(network, labels.shape[-2:])
    lengths = [(0, 0), *((0, whole - cells) for whole, cells in zip(size, labels.shape[-2:], strict=True))]
    return np.pad(labels, lengths, constant_values=none) if any(after for _, after in lengths) else labels


def as_answer(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Scores (N, classes, rows, cols) without the padding, or (N, classes)."""
    if scores.ndim == 2:
        return scores
    return np.ascontiguousarray(np.moveaxis(scores[:, : size[0], : size[1]], -1, 1))
