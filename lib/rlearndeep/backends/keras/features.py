"""What the last layer of a network sees: its features, and how much the outputs depend on each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.blocks import HEAD
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.networks import padded_size
from rlearndeep.model import Network


def head_weights(model: Any) -> NDArray[np.float32]:
    """For each feature the length of its weights over all outputs, (F,): how far a step in it moves the outputs.

    What moves all outputs alike does not count where there are several, because it changes no score.
    """
    kernel = keras.ops.convert_to_numpy(model.get_layer(HEAD).kernel).astype(np.float32)
    flat = kernel.reshape(-1, *kernel.shape[-2:])  # cells of the kernel, features, outputs
    if flat.shape[-1] > 1:
        flat = flat - flat.mean(axis=-1, keepdims=True)
    return np.sqrt(np.square(flat).sum(axis=(0, 2)))


def aligned(features: NDArray[np.float32], network: Network, axes: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Features (N, F, rows, cols) without what lies in the padding, or (N, F) where the answer is one per patch.

    Args:
        features: (N, rows, cols, F) or (N, F).
        network: how it was described.
        axes: of the answer, 4 for one per cell and 2 for one per patch.
        size: rows and columns of the input.
    """
    if features.ndim == 2:
        return features
    if axes == 2:
        return features.mean(axis=(1, 2))
    rows, cols = (
        max(1, -(-cells * count // whole))
        for cells, count, whole in zip(size, features.shape[1:3], padded_size(network, size), strict=True)
    )
    return np.ascontiguousarray(np.moveaxis(features[:, :rows, :cols], -1, 1))
