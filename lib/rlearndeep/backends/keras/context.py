"""How far a trained network looks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends import context
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.module import Module


def reach(module: Module, images: NDArray[np.float32], task: str = "class") -> int:
    """See :func:`rlearndeep.backends.context.reach`.

    Args:
        module: with scores per cell.
        images: (N, bands, rows, cols), normalised; real patches, a few dozen are enough.
        task: ``class`` or ``value``.
    """

    def answers(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = module.logits(pictures)
        return np.asarray(keras.ops.softmax(logits, axis=1)) if task == "class" else logits

    return context.reach(answers, images)
