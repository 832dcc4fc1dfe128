"""How far a trained network looks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlearndeep.backends import context
from rlearndeep.backends.torch.tasks import decoded


def reach(module: nn.Module, images: NDArray[np.float32], task: str = "class") -> int:
    """See :func:`rlearndeep.backends.context.reach`.

    Args:
        module: in evaluation mode, on the CPU, with scores per cell.
        images: (N, bands, rows, cols), normalised; real patches, a few dozen are enough.
        task: ``class`` or ``value``.
    """

    def answers(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return decoded(module(torch.from_numpy(pictures)), task).numpy()

    return context.reach(answers, images)
