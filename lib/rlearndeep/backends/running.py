"""A run of training, whatever the framework: its epochs, its best one, when it ends, and its checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends import checkpoint, is_helper
from rlearndeep.backends.machine import is_out_of_memory
from rlearndeep.backends.scalars import open_log
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.bands import BandStatistics

LARGEST_GRADIENT = 5.0
"""Norm of all gradients of a step; longer ones are shortened to it."""

SMALLEST_WEIGHT = 1e-6
"""What a sum of weights of labels is divided by at least."""

FIRST_RATE = 0.001
"""Learning rate before a range test has found one."""


class NotFinite(DeepLearningError):
    """The loss is no number any more."""


class Options(Protocol):
    """What fitting needs to know; see ``learning.options.Settings`` for the meanings."""

    architecture: str
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
    weights: str
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
class Epoch:
    """What an epoch showed: its mean losses, and what the validation score is computed from."""

    training_loss: float
    validation_loss: float | None
    counts: NDArray | None


@dataclass(frozen=True)
class Objective:
    """What is to be learned.

    Attributes:
        task: what a label says, one of ``TASKS``.
        loss: a sum of names with ``+``.
        weights: per class, for the loss; float32.
        target: statistics of the training labels of a value; None for other tasks.
        spread: standard deviation per band of the images, to which augmentation is relative; float32.
    """

    task: str
    loss: str
    weights: NDArray[np.float32]
    target: BandStatistics | None
    spread: NDArray[np.float32]


class Learner(Protocol):
    """What trains a network by epochs."""

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""

    def epoch(self, number: int, training: Any, validation: Any) -> Epoch:
        """Train an epoch, counted from 0, and look at the validation part."""

    def after_epoch(self, score: float) -> None:
        """Change the learning rate by a score of which more is better."""

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on beside the network: plain values and arrays that do not change any more."""

    def weights(self) -> dict[str, NDArray]:
        """The network as it is, by names of its tensors, which do not change any more."""

    def restore(self, state: dict[str, Any], weights: dict[str, NDArray]) -> None:
        """Inverse of :meth:`state` and :meth:`weights`."""


@dataclass(frozen=True)
class Fitted:
    """What training made.

    Attributes:
        module: the network of the best epoch, of the framework; on the CPU.
        history: a row per epoch: epoch, training_loss, validation_loss, the validation score, learning_rate, seconds.
        best_epoch: counted from 1; the last one where there is no validation part.
        device: text for messages.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        learning_rate: at its highest.
    """

    module: Any
    history: list[dict[str, Any]]
    best_epoch: int
    device: str
    precision: str
    learning_rate: float


@dataclass(frozen=True)
class Surroundings:
    """What a run needs beside the learner.

    Attributes:
        options: how to train.
        measure: the validation score.
        folder: where the checkpoint stands, or will.
        progress: called with the row of the history after each epoch.
        warn: called with a message for the user.
    """

    options: Options
    measure: Measure
    folder: Path
    progress: Callable[[dict[str, Any]], None]
    warn: Callable[[str], None]


@dataclass
class Run:
    """What has been learned so far.

    Attributes:
        learning_rate: at its highest.
        history: a row per epoch.
        weights: of the last epoch.
        best: weights of the best epoch.
        best_epoch: counted from 1.
        best_score: by which epochs are compared; more is better.
        started: time at which the first epoch would have begun without an interruption.
    """

    learning_rate: float
    history: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, NDArray] = field(default_factory=dict)
    best: dict[str, NDArray] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, 0.0)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def resumed(cls, learner: Learner, folder: Path) -> Run | None:
        """The run of the checkpoint of a folder, the learner put into its state; None where there is none.

        Raises:
            DeepLearningError: the checkpoint is damaged.
        """
        found = checkpoint.read(folder)
        if found is None:
            return None
        try:
            learner.restore(found.values["learner"], found.weights)
            history = list(found.values["history"])
            rate, score = float(found.values["learning_rate"]), tuple(found.values["best_score"])
            started = time.monotonic() - history[-1]["seconds"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise checkpoint.damaged(folder, error) from error
        return cls(rate, history, found.weights, found.best, found.best_epoch, score, started)

    def epochs(self, learner: Learner, training: Any, validation: Any, around: Surroundings) -> None:
        """Train until the last epoch, or until the validation score has not risen for long enough.

        Raises:
            DeepLearningError: the loss is not a number.
        """
        helps = is_helper(around.options)
        log = open_log("" if helps else around.options.tensorboard, len(self.history), around.warn)
        try:
            with checkpoint.Writer(around.folder, around.warn) as writer:
                while len(self.history) < around.options.epochs and not self._has_stopped(validation, around.options):
                    row = self._epoch(learner, training, validation, around.measure)
                    if not helps:
                        writer.write(self._checkpoint(learner))
                        log.write(row)
                        around.progress(row)
        except NotFinite:
            if not helps:
                checkpoint.clear(around.folder)  # going on from it would come to the same
            raise

    def _epoch(self, learner: Learner, training: Any, validation: Any, measure: Measure) -> dict[str, Any]:
        rate = learner.rate
        row = self._row(learner.epoch(len(self.history), training, validation), learner.rate, measure)
        _check_numbers(row, rate)
        score = (float(row["epoch"]), 0.0)
        if validation is not None:
            score = (measure.sign * row[measure.column], -row["validation_loss"])
        self.history.append(row)
        self.weights = learner.weights()
        if score > self.best_score or not self.best:
            self.best_score, self.best_epoch, self.best = score, row["epoch"], self.weights
        learner.after_epoch(-row["training_loss"] if validation is None else score[0])
        return row

    def _has_stopped(self, validation: Any, options: Options) -> bool:
        patience = options.patience if validation is not None else 0
        return bool(patience) and len(self.history) - self.best_epoch >= patience

    def _row(self, epoch: Epoch, rate: float, measure: Measure) -> dict[str, Any]:
        return {
            "epoch": len(self.history) + 1,
            "training_loss": epoch.training_loss,
            "validation_loss": epoch.validation_loss,
            measure.column: None if epoch.counts is None else measure.of(epoch.counts),
            "learning_rate": rate,
            "seconds": round(time.monotonic() - self.started, 3),
        }

    def _checkpoint(self, learner: Learner) -> checkpoint.Checkpoint:
        values = {
            "learner": learner.state(),
            "history": list(self.history),
            "best_score": self.best_score,
            "learning_rate": self.learning_rate,
        }
        return checkpoint.Checkpoint(len(self.history), self.best_epoch, self.weights, self.best, values)


def _check_numbers(row: dict[str, Any], rate: float) -> None:
    for value in (row["training_loss"], row["validation_loss"]):
        if value is not None and not math.isfinite(value):
            raise NotFinite(
                f"The loss must be a number; it is {value} in epoch {row['epoch']} with learning_rate={rate:g}. "
                "Choose a smaller learning_rate=, standardize=band, or precision=32."
            )


@contextmanager
def within_memory(device: str, options: Options) -> Iterator[None]:
    """One line where memory does not suffice for what cannot be computed in smaller pieces."""
    try:
        yield
    except DeepLearningError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeepLearningError(
            f"The network, its optimizer and {options.batch_size} patches must fit the memory of {device}; they do "
            "not. Choose a smaller network, optimizer=sgd, patches of a smaller size=, or a smaller batch_size=."
        ) from error


def mixed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed of its own for each epoch and process."""
    entropy = [seed, epoch, rank] if rank else [seed, epoch]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0])


_STEPS = 100
_LOWEST, _HIGHEST = 1e-6, 1.0
_MEMORY = 0.9
_DIVERGED = 4.0


def range_test(loss_at: Callable[[float], float | None]) -> float:
    """The learning rate at which the loss falls fastest (Smith 2017, WACV).

    The rate rises by the same factor at each of a hundred steps, until the loss is four times its least; the loss
    is smoothed.

    Args:
        loss_at: takes a step with a rate and gives the loss before it; None where there is no more to learn from.

    Raises:
        NotFinite: the loss is no number at the smallest rates.
    """
    rates: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    for number in range(_STEPS):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (number / (_STEPS - 1))
        value = loss_at(rate)
        if value is None:
            break
        if not math.isfinite(value):
            rates, losses = rates[:-1], losses[:-1]  # the step before this one went too far
            break
        smooth = _MEMORY * smooth + (1 - _MEMORY) * value
        rates.append(rate)
        losses.append(smooth / (1 - _MEMORY ** (number + 1)))
        if losses[-1] > _DIVERGED * min(losses):
            break
    if not rates:
        raise NotFinite(
            f"The loss must be a number; it is {value} at the smallest rates of learning_rate=auto. Choose "
            "standardize=band, or precision=32."
        )
    return steepest(rates, losses)


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which a loss falls fastest over the logarithm of the rate.

    The ends, where smoothing has not settled or the loss already explodes, are left out.
    """
    first = min(10, len(losses) // 4)
    falling = np.array(losses[first : max(first + 2, int(np.argmin(losses)) + 1)])
    return float(rates[first + int(np.argmin(np.gradient(falling)))]) if len(falling) > 1 else rates[0]
