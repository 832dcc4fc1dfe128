"""Learning without labels: SimCLR (Chen et al. 2020, ICML).

Two views of each patch go through the network's encoder and a projection head of two layers; NT-Xent pulls the two
together and pushes those of other patches away. The head is thrown away, the encoder is what training begins with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from rlearndeep.backends.beginning import Source, Target
from rlearndeep.backends.running import Measure, Options, Run, Surroundings, within_memory
from rlearndeep.backends.scalars import check_log
from rlearndeep.backends.torch.arrays import as_tensors
from rlearndeep.backends.torch.contrast_learner import Contrast, ContrastLearner
from rlearndeep.backends.torch.devices import choose_device, describe
from rlearndeep.backends.torch.feeding import Feed, laid_out, module_laid_out
from rlearndeep.backends.torch.fitting import try_step
from rlearndeep.backends.torch.machinery import (
    choose_training_precision,
    make_fabric,
    make_optimizer,
    make_schedule,
    prepared_device,
    quietly,
)
from rlearndeep.backends.torch.striding import without_steps
from rlearndeep.backends.torch.transfer import Initial, Tuning, encoder_of, fitted
from rlearndeep.backends.torch.trunk import check_trunk
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Inputs

_NETWORK = "trunk.network."


@dataclass(frozen=True)
class Pretrained:
    """What pre-training made.

    Attributes:
        tensors: of the network's encoder, by their names in the network.
        history: a row per epoch: epoch, training_loss, validation_loss, learning_rate, seconds.
        best_epoch: counted from 1.
        device: text for messages.
    """

    tensors: dict[str, Tensor]
    history: list[dict[str, Any]]
    best_epoch: int
    device: str

    def initial(self, target: Target, before: Initial | None) -> Initial:
        """What the network begins with: this encoder, and the rest of what pre-training began with."""
        found = fitted(Source(self.tensors, "pre-training", target.bands, branches=target.branches), target)
        if before is None:
            return found
        origin = f"{before.origin} and pre-training"
        arrays = {**before.arrays, **found.arrays}
        return Initial(arrays, found.renewed, before.rows, origin, found.note, before.licence)

    def save(self, file: Path) -> None:
        """Write the weights of the encoder."""
        file.write_bytes(save({name: tensor.contiguous() for name, tensor in self.tensors.items()}, {"format": "pt"}))


def check_pretraining(network: Network, options: Options, size: tuple[int, int]) -> None:
    """Refuse what cannot be pre-trained; nothing is trained.

    Args:
        network: whose encoder is to learn.
        options: how to train.
        size: rows and columns of a patch without label.

    Raises:
        DeepLearningError: the network has no encoder or does not work with such patches, or there is to be more than
            one device.
        MissingPackage: a library is not installed.
    """
    for name, count in (("devices", options.devices), ("nodes", options.nodes)):
        if count > 1:
            raise DeepLearningError(
                f"Pre-training runs on one device; got {name}={count}. Pre-train alone first, without patches= and "
                f"{name}=, and give its model directory as weights= to the training on several."
            )
    check_trunk(network)
    choose_training_precision(options.precision, choose_device(options.device))
    check_log(options.tensorboard)
    try_step(network, options, "class", size, "cross_entropy")


def pretrain(
    network: Network,
    training: Feed,
    validation: Feed,
    options: Options,
    *,
    size: tuple[int, int],
    spread: NDArray[np.float64],
    temperature: float,
    measure: Measure,
    folder: Path,
    progress: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
    initial: Initial | None = None,
) -> Pretrained:
    """Pre-train the encoder of a network, or go on where a run that wrote a checkpoint has ended.

    Args:
        network: whose encoder it is.
        training: patches to learn from; what stands in the place of their labels is the number of each.
        validation: other patches, whose loss chooses the best epoch.
        options: how to train.
        size: rows and columns of a patch.
        spread: standard deviation per band of the images.
        temperature: of NT-Xent.
        measure: of an epoch's validation loss.
        folder: where the checkpoint stands, or will after the first epoch.
        progress: called with the row of the history after each epoch.
        warn: called with a message for the user.
        initial: weights to begin with; None for random ones.

    Raises:
        DeepLearningError: the loss is not a number, or memory does not suffice.
        MissingPackage: ``lightning-fabric`` is not installed.
    """
    device = prepared_device(options)
    with quietly(device), within_memory(str(device), options):
        fabric = make_fabric(device, options)
        module = _begun(network, size, initial, options.seed)
        optimizer = make_optimizer(module, options, Tuning.alike())
        learner = ContrastLearner(
            fabric,
            module,
            optimizer,
            options,
            spread=spread.astype(np.float32),
            temperature=temperature,
            size=size,
            warn=warn,
        )
        learner.schedule = make_schedule(optimizer, options, options.epochs * training.steps(options.batch_size))
        run = Run.resumed(learner, folder) or Run(learner.rate)
        run.epochs(learner, training, validation, Surroundings(options, measure, folder, progress, warn))
    belongs = encoder_of(network)
    best = {name.removeprefix(_NETWORK): array for name, array in run.best.items() if name.startswith(_NETWORK)}
    tensors = as_tensors({name: array for name, array in best.items() if belongs(name)})
    return Pretrained(tensors, run.history, run.best_epoch, describe(device))


def _begun(network: Network, size: tuple[int, int], initial: Initial | None, seed: int) -> Contrast:
    """The encoder and the head before the first step."""
    torch.manual_seed(seed)
    module = module_laid_out(without_steps(Contrast(network, size)))
    if initial is not None:
        initial.load_into(module.trunk.network)
    return module


class Encoder:
    """The encoder of a network as it is, to compare features.

    Args:
        network: whose encoder it is.
        size: rows and columns of a patch.
        initial: its weights; None for random ones.
        options: device and seed.
    """

    def __init__(self, network: Network, size: tuple[int, int], initial: Initial | None, options: Options) -> None:
        self._device = choose_device(options.device)
        self._trunk = _begun(network, size, initial, options.seed).trunk.eval().to(self._device)

    def features(self, images: Any) -> NDArray[np.float32]:
        """Features (N, F) of normalised images or ``Inputs`` (N places), of all sources behind each other."""
        with torch.inference_mode():
            batch = images.map(self._tensor) if isinstance(images, Inputs) else laid_out(self._tensor(images))
            found = self._trunk(batch)
            for name, source in (batch.further if isinstance(batch, Inputs) else {}).items():
                found[name] = found[name] * source.valid.flatten(1).any(dim=1)[:, None]
            return torch.cat(list(found.values()), dim=1).float().cpu().numpy()

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)
