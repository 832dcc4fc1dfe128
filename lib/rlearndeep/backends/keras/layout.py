"""Layout of arrays: (N, bands, rows, cols) at the door, channels last and padded inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.networks import answers, padded_size
from rlearndeep.model import Network


def as_input(images: NDArray[np.float32], network: Network) -> NDArray[np.float32]:
    """Images (N, rows, cols, bands) of a size that the network takes.

    They are padded at the lower and right edge: with the cells of the edge where each cell gets an answer, else
    with 0, the mean.
    """
    size = padded_size(network, images.shape[-2:])
    lengths = [(0, 0), (0, 0), *((0, whole - cells) for whole, cells in zip(size, images.shape[-2:], strict=True))]
    if any(after for _, after in lengths):
        images = np.pad(images, lengths, mode="edge" if answers(network.architecture) == "cell" else "constant")
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


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
