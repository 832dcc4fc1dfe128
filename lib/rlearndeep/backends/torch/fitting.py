"""Training: the machinery is Lightning Fabric's, the loop, the order of patches and all randomness are ours.

Fabric serves devices, precision and processes. The loop is ours because a run that goes on from a checkpoint must
repeat an uninterrupted one bit for bit, and a batch that does not fit must be computed in pieces.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlearndeep.backends import checkpoint, is_helper, require
from rlearndeep.backends.machine import keep_memory
from rlearndeep.backends.running import Fitted, Measure, Options, Run, Surroundings
from rlearndeep.backends.scalars import check_log
from rlearndeep.backends.torch.arrays import as_tensors
from rlearndeep.backends.torch.devices import choose_device, choose_precision, describe
from rlearndeep.backends.torch.feeding import Feed
from rlearndeep.backends.torch.learner import Learner, Objective, Schedule
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.backends.torch.networks import build
from rlearndeep.backends.torch.transfer import Initial, Tuning
from rlearndeep.model import Network
from rlearndeep.scene.bands import BandStatistics

_TRAINER_PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
_FIRST_RATE = 0.001  # of the range test


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
        MissingPackage: ``lightning`` is not installed.
    """
    device = _prepared(options)
    with _quiet():
        fabric = _fabric(device, options)
        objective = Objective(task, options.loss, torch.tensor(class_weights, dtype=torch.float32), target)
        learner, optimizer = _learner(fabric, network, initial, objective, options, spread, warn)
        run = _run(learner, optimizer, training, options, folder)
        run.epochs(learner, training, validation, Surroundings(options, measure, folder, progress, warn))
        if is_helper():
            return None
        return _finished(network, run, options, device)


def _finished(network: Network, run: Run, options: Options, device: torch.device) -> Fitted:
    """The network of the best epoch."""
    module = build(network)
    module.load_state_dict(as_tensors(run.best))
    precision = _TRAINER_PRECISION[choose_training_precision(options.precision, device)]
    return Fitted(module.eval(), run.history, run.best_epoch, describe(device), precision, run.learning_rate)


def _prepared(options: Options) -> torch.device:
    """The device, with threads and memory set as training wants them."""
    if options.nprocs:
        torch.set_num_threads(options.nprocs)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_memory()
    return device


def _learner(
    fabric: Any,
    network: Network,
    initial: Initial | None,
    objective: Objective,
    options: Options,
    spread: NDArray[np.float64],
    warn: Callable[[str], None],
) -> tuple[Learner, torch.optim.Optimizer]:
    module = _begun(network, initial, options.seed)
    tuning = Tuning.of(network, initial, options.freeze, options.encoder_rate)
    optimizer = _optimizer(module, options, tuning)
    learner = Learner(
        fabric,
        _synchronized(module, fabric),
        optimizer,
        objective,
        tuning,
        augmentations=options.augment,
        spread=spread,
        seed=options.seed,
        batch_size=options.batch_size,
        warn=warn,
    )
    return learner, optimizer


def _begun(network: Network, initial: Initial | None, seed: int) -> nn.Module:
    """The network before the first step."""
    torch.manual_seed(seed)
    module = build(network).to(memory_format=torch.channels_last)
    if initial is not None:
        initial.load_into(module)
    return module


def check(network: Network, options: Options, task: str = "class") -> None:
    """Build the network, find the device and the loss, and train nothing.

    Raises:
        DeepLearningError: one of them does not exist.
        MissingPackage: a library is not installed.
    """
    choose_training_precision(options.precision, choose_device(options.device))
    check_log(options.tensorboard)
    make_loss(options.loss, torch.ones(network.classes), task)
    build(network)


def choose_training_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` trains in bf16 on a GPU that computes in it, and in 32-bit floating point on a CPU."""
    return choose_precision("32" if name == "auto" and device.type != "cuda" else name, device)


def _run(learner: Learner, optimizer: torch.optim.Optimizer, training: Feed, options: Options, folder: Path) -> Run:
    """A new run, or that of the checkpoint; the learner is put into its state."""
    steps = options.epochs * training.steps(options.batch_size * learner.processes)
    if checkpoint.epochs_done(folder) == 0 and options.learning_rate == "auto":
        learner.set_rate(learner.find_rate(training))
    rate = learner.rate
    learner.schedule = _schedule(optimizer, options, steps)
    return Run.resumed(learner, folder) or Run(rate)


def _optimizer(module: nn.Module, options: Options, tuning: Tuning) -> torch.optim.Optimizer:
    rate = _FIRST_RATE if isinstance(options.learning_rate, str) else options.learning_rate
    decay = options.weight_decay
    groups = tuning.groups(module, rate)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=options.momentum, weight_decay=decay)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.optimizer]
    return kind(groups, rate, weight_decay=decay)


def _schedule(optimizer: torch.optim.Optimizer, options: Options, steps: int) -> Schedule:
    """The schedule of all ``steps`` of a run; each group of parameters keeps its own highest rate."""
    schedulers = torch.optim.lr_scheduler
    total = max(2, steps)
    rates = [group["lr"] for group in optimizer.param_groups]
    if options.scheduler == "step":
        return Schedule(schedulers.StepLR(optimizer, options.step, options.gamma), "epoch")
    if options.scheduler == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimizer, "max", options.gamma, options.step, threshold=0.0)
        return Schedule(plateau, "plateau")
    if options.scheduler == "onecycle":
        # OneCycleLR divides by the length of the rise less one step: a fifth of five steps must not be chosen.
        rise = 0.2 if total > 5 else 0.3
        return Schedule(schedulers.OneCycleLR(optimizer, rates, total, pct_start=rise), "step")
    if options.scheduler == "cosine":
        return Schedule(schedulers.CosineAnnealingLR(optimizer, total), "step")
    return Schedule(None, "never")


def _fabric(device: torch.device, options: Options) -> Any:
    """Lightning's access to devices and processes; the processes of this run are started now."""
    fabric = require("lightning.fabric", "Training with the back-end 'torch'", package="lightning")
    _silence()
    made = fabric.Fabric(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=[device.index or 0] if device.type == "cuda" and options.devices == 1 else options.devices,
        num_nodes=options.nodes,
        strategy=_strategy(options),
        precision=_TRAINER_PRECISION[choose_training_precision(options.precision, device)],
    )
    made.launch()
    made.barrier()  # helpers read the checkpoint that the first process may have removed
    return made


def _strategy(options: Options) -> str:
    if options.devices * options.nodes == 1:
        return "auto"
    return "ddp" if options.freeze == "none" else "ddp_find_unused_parameters_true"


def _synchronized(module: nn.Module, fabric: Any) -> nn.Module:
    """Batch normalisation over the batches of all processes, which PyTorch has for GPUs only."""
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        return module
    layers = require("timm.layers", "Training on several devices", package="timm")
    return layers.convert_sync_batchnorm(module)


def _silence() -> None:
    """Importing Lightning makes it talkative; only errors shall pass."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the chatter of the machinery; warnings and messages to the user are ours."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic: Any = torch.utils.deterministic
    filled = deterministic.fill_uninitialized_memory
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warned)
            deterministic.fill_uninitialized_memory = filled
