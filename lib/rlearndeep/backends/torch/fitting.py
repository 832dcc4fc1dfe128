"""Training: the machinery is Lightning Fabric's, the loop, the order of patches and all randomness are ours.

Fabric serves devices, precision and processes. The loop is ours because a run that goes on from a checkpoint must
repeat an uninterrupted one bit for bit, and a batch that does not fit must be computed in pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlearndeep.backends import checkpoint, is_helper
from rlearndeep.backends.running import Fitted, Measure, Objective, Options, Run, Surroundings, within_memory
from rlearndeep.backends.scalars import check_log
from rlearndeep.backends.torch.arrays import as_tensors
from rlearndeep.backends.torch.devices import choose_device, describe
from rlearndeep.backends.torch.feeding import Feed, module_laid_out
from rlearndeep.backends.torch.learner import Learner
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.backends.torch.machinery import (
    TRAINER_PRECISION,
    choose_training_precision,
    in_company,
    make_fabric,
    make_optimizer,
    make_schedule,
    prepared_device,
    quietly,
    synchronized,
)
from rlearndeep.backends.torch.networks import build
from rlearndeep.backends.torch.step import check_step
from rlearndeep.backends.torch.striding import without_steps
from rlearndeep.backends.torch.transfer import Initial, Tuning
from rlearndeep.model import Network
from rlearndeep.scene.bands import BandStatistics


def fit(
    network: Network,
    training: Feed,
    validation: Feed | None,
    options: Options,
    *,
    task: str,
    target: BandStatistics | None,
    class_weights: NDArray[np.float64],
    spread: NDArray[np.float64],
    measure: Measure,
    folder: Path,
    progress: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
    initial: Initial | None = None,
) -> Fitted | None:
    """Train a network from random or other weights, or go on where a run that wrote a checkpoint has ended.

    Args:
        network: what to build.
        training: patches to learn from.
        validation: patches that choose the best epoch, or None.
        options: how to train.
        task: what a label says, one of ``TASKS``.
        target: statistics of the training labels of a value; None for other tasks.
        class_weights: per class, for the loss.
        spread: standard deviation per band of the images.
        measure: the validation score, of ``tasks.counts``.
        folder: where the checkpoint stands, or will after the first epoch.
        progress: called with the row of the history after each epoch.
        warn: called with a message for the user.
        initial: weights to begin with, of ``initial_weights``; None for random ones.

    Returns:
        None in a process that only helped the first one.

    Raises:
        DeepLearningError: the loss is not a number, the device does not exist, or memory does not suffice.
        MissingPackage: ``lightning-fabric`` is not installed.
    """
    device = prepared_device(options)
    objective = Objective(task, options.loss, class_weights.astype(np.float32), target, spread.astype(np.float32))
    with quietly(device), within_memory(str(device), options), in_company(options):
        fabric = make_fabric(device, options)
        learner, optimizer = _learner(fabric, network, initial, objective, options, warn)
        run = _run(learner, optimizer, training, options, folder)
        run.epochs(learner, training, validation, Surroundings(options, measure, folder, progress, warn))
        if not is_helper(options):
            return _finished(network, run, options, device)
    return None


def _finished(network: Network, run: Run, options: Options, device: torch.device) -> Fitted:
    """The network of the best epoch."""
    module = build(network)
    module.load_state_dict(as_tensors(run.best))
    precision = TRAINER_PRECISION[choose_training_precision(options.precision, device)]
    return Fitted(module.eval(), run.history, run.best_epoch, describe(device), precision, run.learning_rate)


def _learner(
    fabric: Any,
    network: Network,
    initial: Initial | None,
    objective: Objective,
    options: Options,
    warn: Callable[[str], None],
) -> tuple[Learner, torch.optim.Optimizer]:
    module = _begun(network, initial, options.seed)
    tuning = Tuning.of(network, initial, options.freeze, options.encoder_rate)
    optimizer = make_optimizer(module, options, tuning)
    learner = Learner(
        fabric,
        synchronized(module, fabric),
        optimizer,
        objective,
        tuning,
        augmentations=options.augment,
        seed=options.seed,
        batch_size=options.batch_size,
        warn=warn,
    )
    return learner, optimizer


def _begun(network: Network, initial: Initial | None, seed: int) -> nn.Module:
    """The network before the first step."""
    torch.manual_seed(seed)
    module = module_laid_out(without_steps(build(network)))
    if initial is not None:
        initial.load_into(module)
    return module


def check(network: Network, options: Options, task: str = "class", size: tuple[int, int] | None = None) -> None:
    """Build the network, find the device and the loss, take one step without effect, and train nothing.

    Args:
        network: what to build.
        options: how to train.
        task: what a label says, one of ``TASKS``.
        size: rows and columns of a patch; None takes no step.

    Raises:
        DeepLearningError: one of them does not exist, or the network does not work with patches of the size.
        MissingPackage: a library is not installed.
    """
    choose_training_precision(options.precision, choose_device(options.device))
    check_log(options.tensorboard)
    make_loss(options.loss, torch.ones(network.classes), task)
    if size is None or is_helper(options):  # the first process speaks for all, and has its device for itself
        build(network)
    else:
        try_step(network, options, task, size, options.loss)


def try_step(network: Network, options: Options, task: str, size: tuple[int, int], loss: str) -> None:
    """Take one step on noise; arguments as of :func:`check`. Random numbers and memory are as before afterwards.

    Raises:
        DeepLearningError: the network does not work with patches of the size.
    """
    device = prepared_device(options)
    dtype = choose_training_precision(options.precision, device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        check_step(network, task, size, loss, device, dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _run(learner: Learner, optimizer: torch.optim.Optimizer, training: Feed, options: Options, folder: Path) -> Run:
    """A new run, or that of the checkpoint; the learner is put into its state."""
    steps = options.epochs * training.steps(options.batch_size * learner.processes)
    if checkpoint.epochs_done(folder) == 0 and options.learning_rate == "auto":
        learner.set_rate(learner.find_rate(training))
    rate = learner.rate
    learner.schedule = make_schedule(optimizer, options, steps)
    return Run.resumed(learner, folder) or Run(rate)
