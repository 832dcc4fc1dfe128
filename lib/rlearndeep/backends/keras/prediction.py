"""The forward pass: normalised arrays in, scores or values out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.agreement import check_card
from rlearndeep.backends.fusing import growth
from rlearndeep.backends.keras.blocks import HEAD
from rlearndeep.backends.keras.devices import choose_device, choose_precision, describe
from rlearndeep.backends.keras.engine import keras, start
from rlearndeep.backends.keras.features import aligned, head_weights
from rlearndeep.backends.keras.layout import as_answer, as_input
from rlearndeep.backends.keras.module import Module
from rlearndeep.backends.keras.networks import answers, largest
from rlearndeep.backends.keras.tasks import decoder, in_units
from rlearndeep.backends.keras.weights import load_module
from rlearndeep.backends.machine import RARE_CHANGES, cpu_pixels, is_out_of_memory
from rlearndeep.model import ModelCard
from rlearndeep.scene.inputs import Images

_GPU_PIXELS = 1024**2


class Predictor:
    """A trained network, ready to predict.

    Attributes:
        device: text for messages.
        precision: ``32``, ``bf16`` or ``16``.
        pixels_per_batch: a good volume of a batch in cells (patches x rows x cols).
        is_apart: whether the CPU is free while the network computes.
    """

    def __init__(self, module: Module, device: str, precision: str, card: ModelCard) -> None:
        self._network, self._target, self._place = module.network, card.target, device
        self._scores = keras.Model(module.model.input, decoder(card.task)(module.model.output))
        head = module.model.get_layer(HEAD)
        self._both = keras.Model(module.model.input, [self._scores.output, head.input])
        self.device, self.precision = describe(device), precision
        self.is_apart = not device.startswith("cpu")
        pixels = _GPU_PIXELS if self.is_apart else cpu_pixels(card.network.architecture)
        self.pixels_per_batch = max(1, int(pixels / growth(card)))

    def predict(self, batch: Images) -> NDArray[np.float32]:
        """Scores or values of a batch.

        Args:
            batch: (N, bands, rows, cols), or ``Inputs`` for a network of several sources, normalised.

        Returns:
            (N, outputs, rows, cols) for a label per cell, (N, outputs) for a label per patch. Class scores sum to 1;
            scores of presence are each from 0 to 1; a value is one output, in the units of its labels. A batch that
            does not fit the memory is computed in halves.
        """
        return self._answer(self._run(self._scores, batch), batch)

    def predict_with_features(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, and the features that the last layer saw.

        Returns:
            The answer of :meth:`predict`, and (N, F, rows, cols), where rows and cols may be those of a coarser grid
            over the same ground; (N, F) where there is one answer per patch.
        """
        scores, features = self._run(self._both, batch)
        answer = self._answer(scores, batch)
        size = (batch.shape[-2], batch.shape[-1])
        return answer, aligned(features.astype(np.float32), self._network, answer.ndim, size)

    @functools.cached_property
    def feature_weights(self) -> NDArray[np.float32]:
        """How much the outputs depend on each feature, (F,)."""
        return head_weights(self._scores)

    def _run(self, model: Any, batch: Images) -> Any:
        try:
            with keras.device(self._place):
                return model.predict_on_batch(as_input(batch, self._network))
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        self.pixels_per_batch = max(1, self.pixels_per_batch // 2)
        half = len(batch) // 2
        parts = self._run(model, batch[:half]), self._run(model, batch[half:])
        if isinstance(parts[0], list):
            return [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        return np.concatenate(parts)

    def _answer(self, scores: NDArray[np.float32], batch: Images) -> NDArray[np.float32]:
        return in_units(as_answer(scores, (batch.shape[-2], batch.shape[-1])), self._target)


def load(directory: Path, card: ModelCard, device: str = "auto", precision: str = "auto") -> Predictor:
    """A predictor of a model directory.

    Args:
        directory: the model directory.
        card: what its ``model.json`` says.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, 32, bf16 or 16. ``auto`` is bf16 where the hardware computes in it and training found
            that it hardly changes a class.

    Raises:
        DeepLearningError: no such device, or parts of the model that do not fit each other.
    """
    start()
    chosen = choose_device(device)
    check_card(directory, card, answers, largest)
    if precision == "auto" and float(card.training.get("bf16_changes", 0.0)) > RARE_CHANGES:
        precision = "32"
    precision = choose_precision(precision, chosen)
    with keras.device(chosen):
        return Predictor(load_module(card.network, Path(directory) / card.weights, precision), chosen, precision, card)
