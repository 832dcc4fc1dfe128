"""One run of training: its steps, its epochs, and its state.

Everything random in an epoch follows from the seed and the number of the epoch, so a run that goes on from a
checkpoint repeats what an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.ahead import ahead
from rlearndeep.backends.keras.augmentation import augment
from rlearndeep.backends.keras.engine import ENGINE, keras
from rlearndeep.backends.keras.layout import as_input, as_labels
from rlearndeep.backends.keras.losses import Loss, make_loss
from rlearndeep.backends.keras.module import Module
from rlearndeep.backends.keras.schedules import Schedule
from rlearndeep.backends.keras.tasks import counts, loss_weight, standardized
from rlearndeep.backends.keras.transfer import Tuning
from rlearndeep.backends.running import SMALLEST_WEIGHT, Epoch, Objective, mixed, range_test
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.inputs import Images


class Feed(Protocol):
    """Patches of one part, as ``learning.feeding.Part`` gives them."""

    def __len__(self) -> int: ...

    def batches(self, size: int, order: tuple[int, int] | None) -> Iterator[tuple[Images, NDArray]]:
        """Normalised images (N, bands, rows, cols) or ``Inputs``, and labels (N, ...): int64, or float32 of values."""

    def steps(self, size: int) -> int:
        """Number of batches."""


class _Trainee(keras.Model):
    """The network with a loss of logits and labels as they are; the way of Keras would change their shapes."""

    def __init__(self, inner: Any, loss: Loss) -> None:
        super().__init__(name="trainee")
        self.inner = inner
        self.loss_of = loss

    def call(self, images: Any, training: bool = False) -> Any:
        return self.inner(images, training=training)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
        return self.loss_of(y_pred, y)


class Learner:
    """Trains a network by epochs.

    Args:
        module: the network.
        optimizer: of Keras.
        objective: what is to be learned.
        schedule: of the learning rate.
        tuning: which parts learn.
        augmentations: steps of augmentation.
        seed: of everything random.
        batch_size: patches in a batch.
    """

    def __init__(
        self,
        module: Module,
        optimizer: Any,
        objective: Objective,
        schedule: Schedule,
        tuning: Tuning,
        *,
        augmentations: tuple[str, ...],
        seed: int,
        batch_size: int,
    ) -> None:
        self.module, self.objective, self.schedule, self._tuning = module, objective, schedule, tuning
        self._augmentations, self._seed, self._batch_size = augmentations, seed, batch_size
        self._loss = make_loss(objective.loss, objective.weights, objective.task)
        self._trainee = _Trainee(module.model, self._loss)
        # XLA needs minutes to compile and is no faster on a CPU; JAX cannot do without it.
        self._trainee.compile(optimizer=optimizer, jit_compile=ENGINE == "jax")
        self._trainee.build(keras.tree.map_structure(lambda tensor: tensor.shape, module.model.input))
        self._optimizer = self._trainee.optimizer
        self._optimizer.build(module.model.trainable_variables)
        kept = {id(variable) for variable in module.model.weights}
        self._random = [variable for variable in module.model.variables if id(variable) not in kept]

    @property
    def rate(self) -> float:
        """Learning rate of the next step, of the parameters that learn fastest."""
        return self.schedule.rate

    def epoch(self, number: int, training: Feed, validation: Feed | None) -> Epoch:
        """Train an epoch, counted from 0, and look at the validation part."""
        self._begin(number)
        losses = []
        for images, labels in self._batches(training, number):
            losses.append(self._step(images, labels, self.schedule.rate))
            self.schedule.after_step()
        training_loss = float(np.mean(losses))
        return Epoch(training_loss, *(self._validate(validation) if validation is not None else (None, None)))

    def after_epoch(self, score: float) -> None:
        """Change the learning rate by a score of which more is better."""
        self.schedule.after_epoch(score)

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on beside the network."""
        return {
            "optimizer": _arrays(self._optimizer.variables),
            "schedule": self.schedule.state(),
        }

    def restore(self, state: dict[str, Any], weights: dict[str, NDArray]) -> None:
        """Inverse of :meth:`state` and :meth:`weights`."""
        assign(self.module.model.weights, weights)
        assign(self._optimizer.variables, state["optimizer"])
        self.schedule.restore(state["schedule"])

    def weights(self) -> dict[str, NDArray]:
        """The network as it is, by the positions of its arrays."""
        return _arrays(self.module.model.weights)

    def find_rate(self, training: Feed) -> float:
        """The learning rate of a range test; the network is as before afterwards."""
        before = self.state(), self.weights()
        self._begin(0)
        batches = self._endless(training)
        rate = range_test(lambda rate: self._step(*next(batches), rate))
        self.restore(*before)
        return rate

    def _begin(self, number: int) -> None:
        """Everything random of an epoch begins anew; what is frozen, or thaws, is settled."""
        for place, variable in enumerate(self._random):
            variable.assign(np.array([mixed(self._seed, number), place], dtype=np.uint32))
        if self._tuning.begin_epoch(self.module.model, number):
            self._trainee.make_train_function(force=True)

    def _endless(self, training: Feed) -> Iterator[tuple[Any, NDArray]]:
        number = 0
        while True:
            yield from self._batches(training, number)
            number += 1

    def _batches(self, feed: Feed, number: int | None) -> Iterator[tuple[Any, NDArray]]:
        """Batches as the engine takes them, the next one made while one is used; None: as they are stored."""
        return ahead(self._made(feed, number))

    def _made(self, feed: Feed, number: int | None) -> Iterator[tuple[Any, NDArray]]:
        network, objective = self.module.network, self.objective
        random = np.random.default_rng((self._seed, number or 0, 1))
        none = math.nan if objective.task == "value" else UNLABELLED
        for images, labels in feed.batches(self._batch_size, None if number is None else (self._seed, number)):
            labels = standardized(labels, objective.target)
            if number is not None:
                images, labels = augment(self._augmentations, images, labels, objective.spread, random)
            yield as_input(images, network), as_labels(labels, network, none)

    def _step(self, images: Any, labels: NDArray, rate: float) -> float:
        self._optimizer.learning_rate = rate
        return float(self._trainee.train_on_batch(images, labels))

    def _validate(self, validation: Feed) -> tuple[float, NDArray]:
        task, weights = self.objective.task, self.objective.weights
        total, whole, found = 0.0, 0.0, []
        for images, labels in self._batches(validation, None):
            logits = self.module.model.predict_on_batch(images)
            share = loss_weight(labels, weights, task)
            total, whole = total + float(self._loss(logits, labels)) * share, whole + share
            found.append(counts(logits, labels, task))
        return total / max(whole, SMALLEST_WEIGHT), np.sum(found, axis=0)


def _arrays(variables: list[Any]) -> dict[str, NDArray]:
    return {str(number): np.array(keras.ops.convert_to_numpy(value)) for number, value in enumerate(variables)}


def assign(variables: list[Any], arrays: dict[str, NDArray]) -> None:
    """Give variables the arrays of their positions.

    Raises:
        ValueError: there are others, or they have other shapes.
    """
    if len(variables) != len(arrays):
        raise ValueError(f"{len(arrays)} arrays for {len(variables)} variables")
    for number, variable in enumerate(variables):
        array = arrays[str(number)]
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"array {number} has shape {array.shape}, expected {tuple(variable.shape)}")
        variable.assign(array)
