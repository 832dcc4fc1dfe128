"""A network at work: a model of Keras and how it was described."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.devices import POLICIES
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.layout import as_answer, as_input
from rlearndeep.backends.keras.networks import assembled
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Images


@dataclass(frozen=True)
class Module:
    """A network.

    Attributes:
        network: how it was described.
        model: a ``keras.Model`` of channels last, which gives logits.
    """

    network: Network
    model: Any

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Logits (N, classes, rows, cols) or (N, classes) of images (N, bands, rows, cols) of any size, or sources."""
        answer = self.model.predict_on_batch(as_input(images, self.network))
        return as_answer(answer, (images.shape[-2], images.shape[-1]))


def build(network: Network, precision: str = "32") -> Module:
    """A network with random weights.

    Args:
        network: what to build.
        precision: of its layers, ``32``, ``bf16`` or ``16``; weights are in 32-bit floating point.

    Raises:
        DeepLearningError: unknown architecture, encoder or option value, or too large for any machine.
    """
    with _policy(POLICIES[precision]):
        return Module(network, assembled(network))


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
