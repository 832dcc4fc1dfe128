"""Temporal attention over the dates of a series, in layers of Keras.

As ``rlearndeep.backends.torch.temporal`` (L-TAE and U-TAE, Garnot and Landrieu 2020 and 2021), but that a head, whose
one question is the same everywhere, is here what it comes to: one weighted sum of the channels. Frames are (N, dates,
rows, cols, channels); the sines and cosines of the days come in as an input of the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.engine import keras

layers, ops = keras.layers, keras.ops

_LONGEST = 1000.0  # of the wavelengths over 2 pi, in days
_NEVER = 1e4
_LEAST = 1e-6


def positions(days: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Sines and cosines of days (N, dates) at wavelengths from six days to seventeen years, (N, dates, 1, 1, width)."""
    count = -(-width // 2)
    angles = days[..., None] / _LONGEST ** (np.arange(count) / max(1, count))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)[..., :width]
    return waves[:, :, None, None].astype(np.float32)


def attended(frames: Any, share: Any, days: Any, heads: int, name: str) -> tuple[Any, Any]:
    """One frame (N, rows, cols, C), and the weights of the dates (N, dates, rows, cols, heads).

    Args:
        frames: of the coarsest level.
        share: of valid ground in each cell, (N, dates, rows, cols, 1); a date without any is passed over.
        days: of :func:`positions`.
        heads: they share out the channels evenly.
        name: of the layers.
    """
    width = frames.shape[-1]
    tokens = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(frames) + days
    scores = layers.Dense(heads, use_bias=False, dtype="float32", name=f"{name}_scores")(tokens)
    known = ops.cast(share > 0, "float32")
    scores = scores + ops.log(ops.maximum(share, _LEAST)) * known - _NEVER * (1 - known)
    weights = layers.Softmax(axis=1, dtype="float32")(scores) * known
    values = layers.Dense(width, name=f"{name}_out")(_mean(tokens, weights))
    values = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_out_norm")(values)
    return layers.ReLU()(values), weights


def mean_of_dates(frames: Any, share: Any, weights: Any, factor: int) -> Any:
    """The weighted mean of the dates of a level whose cells are ``factor`` times smaller, (N, rows, cols, C)."""
    if factor > 1:
        window, beyond = (1, factor + 1, factor + 1), (0, factor // 2, factor // 2)
        weights = layers.UpSampling3D((1, factor, factor), dtype="float32")(weights)
        # Not padding="same", for which the engine of PyTorch needs frames as large as the window. That zeros beyond
        # the edge lower the means there does not matter: the weights of the dates are made to sum to 1 below.
        weights = layers.ZeroPadding3D(beyond, dtype="float32")(weights)
        weights = layers.AveragePooling3D(window, strides=1, dtype="float32")(weights)
    weights = weights * share
    weights = weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), _LEAST)
    return _mean(frames, weights)


def _mean(frames: Any, weights: Any) -> Any:
    """Each head's share of the channels with the weights of the head, summed over the dates."""
    each = ops.repeat(weights, frames.shape[-1] // weights.shape[-1], axis=-1)
    return ops.sum(frames * each, axis=1)
