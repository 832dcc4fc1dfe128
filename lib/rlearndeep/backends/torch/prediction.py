"""The forward pass: normalised arrays in, scores or values out."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends.agreement import check_card
from rlearndeep.backends.fusing import growth
from rlearndeep.backends.machine import RARE_CHANGES, cpu_pixels, is_out_of_memory, keep_memory
from rlearndeep.backends.torch.devices import choose_device, choose_precision, describe, multiply_in
from rlearndeep.backends.torch.features import aligned, captured, head_name, head_weights
from rlearndeep.backends.torch.feeding import Batch, laid_out, module_laid_out
from rlearndeep.backends.torch.folding import fold_batch_norm
from rlearndeep.backends.torch.networks import answers, largest, trial
from rlearndeep.backends.torch.rewriting import in_precision, rewrite
from rlearndeep.backends.torch.tasks import decoded
from rlearndeep.backends.torch.weights import load_network
from rlearndeep.model import ModelCard
from rlearndeep.scene.inputs import Further, Images, Inputs, days_of

# Enough for any GPU; of a strip in several batches the CPU blends one while the next is computed.
_LARGEST_GPU_PIXELS = 2 * 1024**2
_SHARE_OF_FREE_MEMORY = 0.5
_SMALLEST_FAST = 64


class Predictor:
    """A trained network, ready to predict.

    Attributes:
        device: text for messages, e.g. ``cpu`` or ``cuda:0 NVIDIA H200``.
        precision: ``32``, ``bf16`` or ``16``.
        pixels_per_batch: a good volume of a batch in cells (patches x rows x cols).
        is_apart: whether the CPU is free while the network computes.
    """

    def __init__(
        self, module: nn.Module, fast: nn.Module, device: torch.device, dtype: torch.dtype, card: ModelCard
    ) -> None:
        """``fast`` is the network for autocast to ``dtype``; ``module`` itself where that is 32-bit floating point."""
        self._module, self._fast = (
            module_laid_out(network.eval().requires_grad_(False).to(device)) for network in (module, fast)
        )
        self._device = device
        self._dtype = dtype
        self._task, self._target = card.task, card.target
        self._trial = trial(card.network, card.patch)
        self.device = describe(device)
        self.is_apart = device.type != "cpu"
        self.precision = {torch.float32: "32", torch.bfloat16: "bf16", torch.float16: "16"}[dtype]
        self.pixels_per_batch = max(1, int(cpu_pixels(card.network.architecture) / growth(card)))
        if device.type == "cuda":
            self.pixels_per_batch = self._measure_gpu(card)

    def predict(self, batch: Images) -> NDArray[np.float32]:
        """Scores or values of a batch.

        Args:
            batch: (N, bands, rows, cols), or ``Inputs`` for a network of several sources, normalised.

        Returns:
            (N, outputs, rows, cols) for a label per cell, (N, outputs) for a label per patch. Class scores sum to 1;
            scores of presence are each from 0 to 1; a value is one output, in the units of its labels. On a GPU that
            is out of memory the batch is computed in halves.
        """
        try:
            return self._forward(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        self.pixels_per_batch = max(1, self.pixels_per_batch // 2)
        half = len(batch) // 2
        return np.concatenate([self.predict(batch[:half]), self.predict(batch[half:])])

    def predict_with_features(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, and the features that the last layer saw.

        Returns:
            The answer of :meth:`predict`, and (N, F, rows, cols), where rows and cols may be those of a coarser grid
            over the same ground; (N, F) where there is one answer per patch.
        """
        with captured([self._module, self._fast], self._head) as found:
            outputs = self.predict(batch)
        # Out of memory, a batch is computed in parts, of which only the last was captured.
        if len(found[0]) != len(batch):
            parts = [self.predict_with_features(batch[number : number + 1]) for number in range(len(batch))]
            return outputs, np.concatenate([features for _, features in parts])
        features = aligned(self._module, found[0], outputs.ndim, batch.shape[-2:])
        return outputs, features.float().contiguous().cpu().numpy()

    @functools.cached_property
    def feature_weights(self) -> NDArray[np.float32]:
        """How much the outputs depend on each feature, (F,)."""
        return head_weights(self._module, self._head)

    @functools.cached_property
    def _head(self) -> str:
        return head_name(self._module, _on(self._device, self._trial))

    def _forward(self, batch: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = laid_out(
                _on(self._device, batch.map(as_tensor) if isinstance(batch, Inputs) else as_tensor(batch))
            )
            # In this order: rearranging while converting from bf16 takes ten times as long.
            logits = self._logits(images).contiguous().float()
            return decoded(logits, self._task, self._target).cpu().numpy()

    def _logits(self, images: Batch) -> Tensor:
        """In reduced precision where that is safe.

        On a CPU, oneDNN's bf16 convolutions with a step of two read memory that was never written when their
        output is one cell wide (torch 2.15), which small inputs lead to.
        """
        if self._dtype != torch.float32 and (self._device.type != "cpu" or min(images.shape[-2:]) >= _SMALLEST_FAST):
            with torch.autocast(self._device.type, self._dtype):
                logits = self._fast(images)
            if bool(torch.isfinite(logits.sum())):
                return logits
        return self._module(images)

    def _measure_gpu(self, card: ModelCard) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        self._forward(_empty(card, 4))
        used = torch.cuda.max_memory_allocated(self._device) - before
        free, _ = torch.cuda.mem_get_info(self._device)
        pixels = int(free * _SHARE_OF_FREE_MEMORY / max(1.0, used / (4 * card.patch[0] * card.patch[1])))
        return max(1, min(_LARGEST_GPU_PIXELS, pixels))


def load(directory: Path, card: ModelCard, device: str = "auto", precision: str = "auto") -> Predictor:
    """A predictor of a model directory.

    Args:
        directory: the model directory.
        card: what its ``model.json`` says.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, 32, bf16 or 16. ``auto`` is bf16 where the hardware computes in it and training found
            that it hardly changes a class.

    Raises:
        DeepLearningError: no such device, or parts of the model that do not fit each other.
        MissingPackage: the library of the architecture is not installed.
    """
    chosen = choose_device(device)
    check_card(directory, card, answers, largest)
    if precision == "auto" and float(card.training.get("bf16_changes", 0.0)) > RARE_CHANGES:
        precision = "32"
    dtype = choose_precision(precision, chosen)
    if chosen.type == "cpu" and card.unit == "patch" and min(card.patch) < _SMALLEST_FAST:
        dtype = torch.float32  # as all such inputs are computed
    multiply_in(dtype, chosen)
    module = load_network(card.network, Path(directory) / card.weights).eval()
    example = trial(card.network, card.patch)
    module = plain = fold_batch_norm(module, example)
    if chosen.type == "cpu":
        keep_memory()
        module = rewrite(plain, example)
    fast = module if dtype == torch.float32 else in_precision(dtype, module, plain, example)
    return Predictor(module, fast, chosen, dtype, card)


def _on(device: torch.device, batch: Batch) -> Batch:
    return batch.map(lambda tensor: tensor.to(device)) if isinstance(batch, Inputs) else batch.to(device)


def _empty(card: ModelCard, count: int) -> Images:
    """Places as they are in training, all zero."""
    images = np.zeros((count, card.network.bands, *card.patch), dtype=np.float32)
    further = {}
    for source in card.branches:
        layers = (len(source.dates),) if source.dates else ()
        values = np.zeros((count, *layers, len(source.bands), *source.shape), dtype=np.float32)
        box = np.tile(np.array([0, 0, *source.shape], dtype=np.float32), (count, 1))
        days = np.tile(days_of(source.dates), (count, 1))
        further[source.name] = Further(values, np.ones((count, *layers, *source.shape), dtype=bool), box, days)
    return Inputs(images, further) if further else images


def as_tensor(array: NDArray) -> Tensor:
    """A tensor that shares the array's memory where it may be written, else a copy."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
