"""Training: the machinery is Lightning Fabric's, the loop, the order of patches and all randomness are ours.

Fabric serves devices, precision and processes. The loop is ours because a run that goes on from a checkpoint must
repeat an uninterrupted one bit for bit, and a batch that does not fit must be computed in pieces.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends import is_helper, require
from rlearndeep.backends.torch import checkpoint
from rlearndeep.backends.torch.devices import choose_device, choose_precision, describe, keep_memory
from rlearndeep.backends.torch.feeding import Feed
from rlearndeep.backends.torch.learner import Epoch, Learner, Objective, Schedule
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.backends.torch.networks import build
from rlearndeep.backends.torch.transfer import Initial, Tuning
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.bands import BandStatistics

_TRAINER_PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
_FIRST_RATE = 0.001  # of the range test


class NotFinite(DeepLearningError):
    """The loss is no number any more."""


class Options(Protocol):
    """What fitting needs to know; see ``learning.options.Settings`` for the meanings."""

    loss: str
    optimizer: str
    learning_rate: float | str
    weight_decay: float
    momentum: float
    scheduler: str
    step: int
    gamma: float
    epochs: int
    batch_size: int
    patience: int
    augment: tuple[str, ...]
    precision: str
    device: str
    devices: int
    nodes: int
    seed: int
    nprocs: int
    tensorboard: str
    freeze: str
    encoder_rate: float


class Measure(Protocol):
    """The validation score; see ``learning.tasks.Measure``."""

    @property
    def column(self) -> str: ...

    @property
    def sign(self) -> int: ...

    @property
    def of(self) -> Callable[[NDArray], float]: ...


@dataclass(frozen=True)
class Fitted:
    """What training made.

    Attributes:
        module: the network of the best epoch, on the CPU.
        history: a row per epoch: epoch, training_loss, validation_loss, the validation score, learning_rate, seconds.
        best_epoch: counted from 1; the last one where there is no validation part.
        device: text for messages.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        learning_rate: at its highest.
    """

    module: nn.Module
    history: list[dict[str, Any]]
    best_epoch: int
    device: str
    precision: str
    learning_rate: float


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
        run = Run.begun(learner, optimizer, training, options, folder)
        _epochs(run, learner, training, validation, options, measure, folder, progress, warn)
        if is_helper():
            return None
        return _finished(network, run, options, device)


def _finished(network: Network, run: Run, options: Options, device: torch.device) -> Fitted:
    """The network of the best epoch."""
    module = build(network)
    module.load_state_dict(run.best)
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
    if options.tensorboard:
        require("torch.utils.tensorboard", "The option tensorboard=", package="tensorboard")
    make_loss(options.loss, torch.ones(network.classes), task)
    build(network)


def choose_training_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` trains in bf16 on a GPU that computes in it, and in 32-bit floating point on a CPU."""
    return choose_precision("32" if name == "auto" and device.type != "cuda" else name, device)


@dataclass
class Run:
    """What has been learned so far.

    Attributes:
        history: a row per epoch.
        best: weights of the best epoch.
        best_epoch: counted from 1.
        best_score: by which epochs are compared; more is better.
        learning_rate: at its highest.
        started: time at which the first epoch would have begun without an interruption.
    """

    learning_rate: float
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, 0.0)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begun(
        cls, learner: Learner, optimizer: torch.optim.Optimizer, training: Feed, options: Options, folder: Path
    ) -> Run:
        """A new run, or that of the checkpoint; the learner is put into its state."""
        steps = options.epochs * training.steps(options.batch_size * learner.processes)
        found = checkpoint.read(folder)
        if found is None:
            if options.learning_rate == "auto":
                learner.set_rate(learner.find_rate(training))
            run = cls(learner.rate)
            learner.schedule = _schedule(optimizer, options, steps)
            return run
        learner.schedule = _schedule(optimizer, options, steps)
        learner.restore(found.values["learner"])
        history = found.values["history"]
        return cls(
            float(found.values["learning_rate"]),
            history,
            found.best,
            found.best_epoch,
            tuple(found.values["best_score"]),
            time.monotonic() - history[-1]["seconds"],
        )

    def add(self, row: dict[str, Any], score: tuple[float, float], module: nn.Module) -> None:
        """Note an epoch, and its weights where it is the best."""
        self.history.append(row)
        if score > self.best_score or not self.best:
            self.best_score, self.best_epoch = score, row["epoch"]
            self.best = {
                key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for key, tensor in module.state_dict().items()
            }

    def checkpoint(self, learner: Learner) -> checkpoint.Checkpoint:
        """What is needed to go on from here."""
        values = {
            "learner": learner.state(),
            "history": self.history,
            "best_score": self.best_score,
            "learning_rate": self.learning_rate,
        }
        return checkpoint.Checkpoint(len(self.history), self.best_epoch, self.best, values)


def _epochs(
    run: Run,
    learner: Learner,
    training: Feed,
    validation: Feed | None,
    options: Options,
    measure: Measure,
    folder: Path,
    progress: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
) -> None:
    """Train until the last epoch, or until the validation score has not risen for long enough."""
    log = _log(options, len(run.history))
    try:
        with checkpoint.Writer(folder, warn) as writer:
            while len(run.history) < options.epochs and not _has_stopped(run, validation, options):
                row = _epoch(run, learner, training, validation, measure)
                if not is_helper():
                    writer.write(run.checkpoint(learner))
                    _write_scalars(log, row)
                    progress(row)
    except NotFinite:
        checkpoint.clear(folder)  # going on from it would come to the same
        raise


def _epoch(run: Run, learner: Learner, training: Feed, validation: Feed | None, measure: Measure) -> dict[str, Any]:
    rate = learner.rate
    epoch = learner.epoch(len(run.history), training, validation)
    row = _row(run, epoch, learner, measure)
    _check_numbers(row, rate)
    score = (float(row["epoch"]), 0.0)
    if validation is not None:
        score = (measure.sign * row[measure.column], -row["validation_loss"])
    run.add(row, score, learner.module)
    learner.schedule.after_epoch(-row["training_loss"] if validation is None else score[0])
    return row


def _has_stopped(run: Run, validation: Feed | None, options: Options) -> bool:
    return bool(validation is not None and options.patience and len(run.history) - run.best_epoch >= options.patience)


def _row(run: Run, epoch: Epoch, learner: Learner, measure: Measure) -> dict[str, Any]:
    return {
        "epoch": len(run.history) + 1,
        "training_loss": epoch.training_loss,
        "validation_loss": epoch.validation_loss,
        measure.column: None if epoch.counts is None else measure.of(epoch.counts),
        "learning_rate": learner.rate,
        "seconds": round(time.monotonic() - run.started, 3),
    }


def _check_numbers(row: dict[str, Any], rate: float) -> None:
    for value in (row["training_loss"], row["validation_loss"]):
        if value is not None and not math.isfinite(value):
            raise NotFinite(
                f"The loss must be a number; it is {value} in epoch {row['epoch']} with learning_rate={rate:g}. "
                "Choose a smaller learning_rate=, standardize=band, or precision=32."
            )


def _log(options: Options, done: int) -> Any:
    """A writer for TensorBoard, or None; what an interrupted run wrote of later epochs is hidden."""
    if not options.tensorboard or is_helper():
        return None
    library = require("torch.utils.tensorboard", "The option tensorboard=", package="tensorboard")
    try:
        return library.SummaryWriter(options.tensorboard, purge_step=done + 1)
    except OSError as error:
        raise DeepLearningError(
            f"The directory of tensorboard= must be writable; '{options.tensorboard}' is not "
            f"({error.strerror or error}). Choose another place."
        ) from error


def _write_scalars(log: Any, row: dict[str, Any]) -> None:
    if log is None:
        return
    for name, value in row.items():
        if name not in ("epoch", "seconds") and value is not None:
            log.add_scalar(name, value, row["epoch"])
    log.flush()


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
    filled = torch.utils.deterministic.fill_uninitialized_memory
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warned)
            torch.utils.deterministic.fill_uninitialized_memory = filled
