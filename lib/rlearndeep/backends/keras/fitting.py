"""Training: the machinery is Keras' ``train_on_batch``, the loop is that of ``backends.running``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends.keras.devices import choose_device, choose_training_precision, describe
from rlearndeep.backends.keras.engine import keras, start
from rlearndeep.backends.keras.learner import Feed, Learner, assign
from rlearndeep.backends.keras.losses import make_loss
from rlearndeep.backends.keras.module import build
from rlearndeep.backends.keras.schedules import Schedule
from rlearndeep.backends.keras.transfer import Initial, Tuning, graded, serves_factors
from rlearndeep.backends.running import (
    FIRST_RATE,
    LARGEST_GRADIENT,
    Fitted,
    Measure,
    Objective,
    Options,
    Run,
    Surroundings,
    within_memory,
)
from rlearndeep.backends.scalars import check_log
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.bands import BandStatistics

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


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
) -> Fitted:
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

    Raises:
        DeepLearningError: the loss is not a number, the device does not exist, or memory does not suffice.
    """
    start(options.nprocs)
    device = choose_device(options.device)
    precision = choose_training_precision(options.precision, device)
    around = Surroundings(options, measure, folder, progress, warn)
    objective = Objective(task, options.loss, class_weights.astype(np.float32), target, spread.astype(np.float32))
    with keras.device(device), within_memory(describe(device), options):
        learner = _learner(network, training, options, objective, precision, initial)
        run = Run.resumed(learner, folder)
        if run is None:
            if options.learning_rate == "auto":
                learner.schedule.highest = learner.find_rate(training)
            run = Run(learner.schedule.highest)
        learner.schedule.highest = run.learning_rate
        run.epochs(learner, training, validation, around)
        final = build(network)
        assign(final.model.weights, run.best)
    return Fitted(final, run.history, run.best_epoch, describe(device), _PRECISION[precision], run.learning_rate)


def check(network: Network, options: Options, task: str = "class", size: tuple[int, int] | None = None) -> None:
    """Build the network, find the device and the loss, and train nothing.

    The networks here are written for any ``size`` of patches.

    Raises:
        DeepLearningError: one of them does not exist, or an option is one that Keras does not serve.
        MissingPackage: a library is not installed.
    """
    _refuse(options)
    start(options.nprocs)
    choose_training_precision(options.precision, choose_device(options.device))
    check_log(options.tensorboard)
    make_loss(options.loss, np.ones(network.classes), task)
    build(network)


def check_pretraining(network: Network, options: Options, size: tuple[int, int]) -> None:
    """Refuse to pre-train.

    Raises:
        DeepLearningError: always.
    """
    raise DeepLearningError(
        f"The back-end 'keras' cannot serve every option; it got pretrain for '{network.architecture}'. Leave it out, "
        "or choose backend=torch."
    )


def _refuse(options: Options) -> None:
    """The options that this back-end does not serve."""
    refused = {
        "devices": options.devices > 1,
        "nodes": options.nodes > 1,
        # Keras shrinks weights beside the gradient: what AdamW means, and the two others do not.
        "weight_decay": options.weight_decay > 0 and options.optimizer != "adamw",
        "encoder_rate": options.weights != "none" and options.encoder_rate != 1 and not serves_factors(),
    }
    for name in (name for name, wanted in refused.items() if wanted):
        beside = f" with optimizer={options.optimizer}" if name == "weight_decay" else ""
        raise DeepLearningError(
            f"The back-end 'keras' cannot serve every option; it got {name}={getattr(options, name):g}{beside}. "
            "Leave it out, or choose backend=torch."
        )


def _learner(
    network: Network,
    training: Feed,
    options: Options,
    objective: Objective,
    precision: str,
    initial: Initial | None,
) -> Learner:
    keras.utils.set_random_seed(options.seed)
    module = build(network, precision)
    if initial is not None:
        initial.load_into(module.model)
    tuning = Tuning.of(module, initial, options.freeze, options.encoder_rate)
    rate = FIRST_RATE if isinstance(options.learning_rate, str) else options.learning_rate
    steps = max(2, options.epochs * training.steps(options.batch_size))
    return Learner(
        module,
        _optimizer(options, rate, tuning.factors(module.model)),
        objective,
        Schedule(options.scheduler, rate, steps, options.step, options.gamma),
        tuning,
        augmentations=options.augment,
        seed=options.seed,
        batch_size=options.batch_size,
    )


def _optimizer(options: Options, rate: float, factors: list[float]) -> Any:
    common = {"learning_rate": rate, "global_clipnorm": LARGEST_GRADIENT}
    if options.optimizer == "sgd":
        return graded(keras.optimizers.SGD, factors)(**common, momentum=options.momentum)
    if options.optimizer == "adam":
        return graded(keras.optimizers.Adam, factors)(**common, epsilon=1e-8)
    return graded(keras.optimizers.AdamW, factors)(**common, epsilon=1e-8, weight_decay=options.weight_decay)
