"""One run of training: its steps, its epochs, and its state.

Everything random in an epoch follows from the seed and the number of the epoch, so a run that goes on from a
checkpoint repeats what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends.running import Epoch, mixed, range_test
from rlearndeep.backends.torch.arrays import as_arrays, as_tensors
from rlearndeep.backends.torch.augmentation import augment
from rlearndeep.backends.torch.feeding import Feed, on_device
from rlearndeep.backends.torch.losses import loss_weight, make_loss
from rlearndeep.backends.torch.tasks import counts, standardized
from rlearndeep.backends.torch.transfer import Tuning
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.bands import BandStatistics

_LARGEST_GRADIENT = 5.0
_SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Objective:
    """What is to be learned.

    Attributes:
        task: what a label says, one of ``TASKS``.
        loss: a sum of names with ``+``.
        weights: per class, for the loss.
        target: statistics of the training labels of a value; None for other tasks.
    """

    task: str
    loss: str
    weights: Tensor
    target: BandStatistics | None


@dataclass
class Schedule:
    """How the learning rate changes: after each ``step`` or each ``epoch``, or never."""

    scheduler: Any
    interval: str

    def after_step(self) -> None:
        """To be called after each batch."""
        if self.interval == "step":
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        """To be called after each epoch with a score of which more is better."""
        if self.interval == "plateau":
            self.scheduler.step(score)
        elif self.interval == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return self.scheduler.state_dict() if self.scheduler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        if self.scheduler:
            self.scheduler.load_state_dict(state)


class Learner:
    """Trains a network by epochs.

    Args:
        fabric: of Lightning: devices, precision, processes.
        module: the network.
        optimizer: of its parameters.
        objective: what is to be learned.
        tuning: how the parts of the network learn.
        augmentations: steps of augmentation.
        spread: standard deviation per band of the images.
        seed: of everything random.
        batch_size: patches in a batch of this process.
        warn: called with a message for the user.
    """

    def __init__(
        self,
        fabric: Any,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        tuning: Tuning,
        *,
        augmentations: tuple[str, ...],
        spread: NDArray[np.float64],
        seed: int,
        batch_size: int,
        warn: Callable[[str], None],
    ) -> None:
        self.module, self.objective, self._tuning = module, objective, tuning
        self.schedule = Schedule(None, "never")
        self.largest = batch_size
        self._fabric, self._seed, self._batch_size, self._warn = fabric, seed, batch_size, warn
        self._network, self._optimizer = fabric.setup(module, optimizer)
        self._weights = fabric.to_device(objective.weights)
        self._spread = fabric.to_device(torch.tensor(spread, dtype=torch.float32))
        self._augmentations = augmentations
        self._loss = make_loss(objective.loss, self._weights, objective.task)
        self._random = torch.Generator()

    @property
    def processes(self) -> int:
        """Number of processes that share the work."""
        return int(self._fabric.world_size)

    @property
    def rate(self) -> float:
        """Learning rate of the next step, of the parameters that learn fastest."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def set_rate(self, rate: float) -> None:
        """Change the learning rate; other groups of parameters keep their share of it."""
        factor = rate / self.rate
        for group in self._optimizer.param_groups:
            group["lr"] *= factor

    def epoch(self, number: int, training: Feed, validation: Feed | None) -> Epoch:
        """Train an epoch, counted from 0, and look at the validation part."""
        self._random.manual_seed(mixed(self._seed, number, self._fabric.global_rank))
        torch.manual_seed(mixed(self._seed, number, self._fabric.global_rank) + 1)
        self._network.train()
        self._tuning.begin_epoch(self.module, number)
        losses = []
        for images, labels in self._batches(training, (self._seed, number)):
            images, labels = augment(self._augmentations, images, labels, self._spread, self._random)
            losses.append(self._step(images, labels))
            self.schedule.after_step()
        training_loss = float(self._over_processes(torch.stack(losses)).mean())
        if validation is None:
            return Epoch(training_loss, None, None)
        return Epoch(training_loss, *self._validate(validation))

    def after_epoch(self, score: float) -> None:
        """Change the learning rate by a score of which more is better."""
        self.schedule.after_epoch(score)

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on: plain values and arrays."""
        return as_arrays(
            {
                "module": dict(self.module.state_dict()),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "precision": self._fabric.strategy.precision.state_dict(),
                "largest": self.largest,
            }
        )

    def weights(self) -> dict[str, NDArray]:
        """The network as it is, by names of its tensors."""
        return as_arrays(dict(self.module.state_dict()))

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        state = as_tensors(state)
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:  # other strides round otherwise
                    values[name] = torch.empty_like(parameter).copy_(value)
        self.schedule.load_state_dict(state["schedule"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])
        self.largest = int(state["largest"])

    def find_rate(self, training: Feed) -> float:
        """The learning rate of a range test; the network is as before afterwards."""
        before = self.state()
        self._random.manual_seed(self._seed)
        torch.manual_seed(self._seed)
        self._network.train()
        self._tuning.begin_epoch(self.module, 0)
        batches = self._endless(training)

        def loss_at(rate: float) -> float:
            self.set_rate(rate)
            images, labels = augment(self._augmentations, *next(batches), self._spread, self._random)
            return float(self._over_processes(self._step(images, labels)[None]))

        rate = range_test(loss_at)
        self.restore(before)
        return rate

    def _endless(self, training: Feed) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            yield from self._batches(training, (self._seed, epoch))
            epoch += 1

    def _batches(self, feed: Feed, order: tuple[int, int] | None) -> Iterator[tuple[Tensor, Tensor]]:
        share = self._fabric.global_rank, self._fabric.world_size
        batches = feed.raw_batches(self._batch_size * share[1], order, share)
        for images, labels in on_device(batches, feed, self._fabric.device):
            yield images, standardized(labels, self.objective.target)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimizer; in pieces whose gradients add up where the batch does not fit the memory."""
        while True:
            try:
                loss = self._gradients(images, labels)
                break
            except RuntimeError as error:
                self._shrink(error, len(images))
            self._optimizer.zero_grad()
            _forget(self._fabric.device)
        # A gradient that is no number shows in the loss, at the end of the epoch.
        self._fabric.clip_gradients(
            self._network, self._optimizer, max_norm=_LARGEST_GRADIENT, error_if_nonfinite=False
        )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Gradients of the loss of the batch of all processes, and this process's part of that loss."""
        task, processes = self.objective.task, self._fabric.world_size
        whole = self._over_processes(loss_weight(labels, self._weights, task)).clamp(min=_SMALLEST_WEIGHT)
        total = torch.zeros((), device=images.device)
        for part, marks in zip(images.split(self.largest), labels.split(self.largest), strict=True):
            share = loss_weight(marks, self._weights, task) / whole
            if len(part) == 1:  # batch normalisation needs two
                part, marks = part.repeat(2, 1, 1, 1), marks.repeat(2, *[1] * (marks.dim() - 1))
            logits = self._network(part.contiguous(memory_format=torch.channels_last))
            loss = self._loss(logits, marks) * share
            self._fabric.backward(loss * processes)  # gradients are averaged over the processes
            total += loss.detach()
        return total

    @torch.no_grad()
    def _validate(self, validation: Feed) -> tuple[float, NDArray]:
        self.module.eval()
        losses, found = [], []
        for images, labels in self._batches(validation, None):
            logits = self._logits(images)
            share = loss_weight(labels, self._weights, self.objective.task)
            losses.append(torch.stack([self._loss(logits, labels) * share, share]))
            found.append(counts(logits, labels, self.objective.task))
        loss, share = self._over_processes(torch.stack(losses).sum(dim=0))
        every = self._over_processes(torch.stack(found).cpu().sum(dim=0))
        return float(loss / share.clamp(min=_SMALLEST_WEIGHT)), every.numpy()

    def _logits(self, images: Tensor) -> Tensor:
        while True:
            try:
                with self._fabric.autocast():
                    parts = images.contiguous(memory_format=torch.channels_last).split(self.largest)
                    return torch.cat([self.module(part).float() for part in parts])
            except RuntimeError as error:
                self._shrink(error, len(images))
            _forget(self._fabric.device)

    def _shrink(self, error: RuntimeError, patches: int) -> None:
        """Halve what is computed at once after an error for want of memory; any other error is passed on."""
        if not _is_out_of_memory(error):
            raise error
        tried = min(self.largest, patches)
        if tried == 1 or self._fabric.world_size > 1:
            raise DeepLearningError(
                f"The network and {tried} patches must fit the memory of {self._fabric.device}; they do not. "
                "Choose a smaller network, patches of a smaller size=, or a smaller batch_size=."
            ) from error
        self.largest = -(-tried // 2)
        self._warn(
            f"A batch of {tried} patches does not fit the memory of {self._fabric.device}; {self.largest} are "
            "computed at once, and their gradients added up to those of the batch."
        )

    def _over_processes(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        if self._fabric.world_size == 1:
            return values
        return self._fabric.all_reduce(values, reduce_op="sum")


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
