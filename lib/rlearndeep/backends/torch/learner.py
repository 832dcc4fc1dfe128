"""One run of training: its steps, its epochs, and its state.

Everything random in an epoch follows from the seed and the number of the epoch, so a run that goes on from a
checkpoint repeats what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends.machine import is_out_of_memory
from rlearndeep.backends.running import LARGEST_GRADIENT, SMALLEST_WEIGHT, Epoch, Objective, mixed, range_test
from rlearndeep.backends.torch.augmentation import augment
from rlearndeep.backends.torch.feeding import Batch, Feed, laid_out, on_device, pieces, sealed, twice, unseal
from rlearndeep.backends.torch.losses import loss_weight, make_loss
from rlearndeep.backends.torch.machinery import Trainee
from rlearndeep.backends.torch.tasks import counts, standardized
from rlearndeep.backends.torch.transfer import Tuning
from rlearndeep.errors import DeepLearningError


class Learner(Trainee):
    """Trains a network by epochs.

    Args:
        fabric: of Lightning: devices, precision, processes.
        module: the network.
        optimizer: of its parameters.
        objective: what is to be learned.
        tuning: how the parts of the network learn.
        augmentations: steps of augmentation.
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
        seed: int,
        batch_size: int,
        warn: Callable[[str], None],
    ) -> None:
        super().__init__(fabric, module, optimizer)
        unseal(module)
        self.objective, self._tuning = objective, tuning
        self.largest = batch_size
        self._seed, self._batch_size, self._warn = seed, batch_size, warn
        self._weights = fabric.to_device(torch.tensor(objective.weights))
        self._spread = fabric.to_device(torch.tensor(objective.spread))
        self._augmentations = augmentations
        self._loss = make_loss(objective.loss, self._weights, objective.task)
        self._random = torch.Generator()

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

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on beside the network: plain values and arrays."""
        return {**super().state(), "largest": self.largest}

    def restore(self, state: dict[str, Any], weights: dict[str, NDArray]) -> None:
        """Inverse of :meth:`state` and :meth:`weights`."""
        super().restore(state, weights)
        self.largest = int(state["largest"])

    def find_rate(self, training: Feed) -> float:
        """The learning rate of a range test; the network is as before afterwards, what fits the memory is known."""
        before = self.state(), self.weights()
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
        largest = self.largest
        self.restore(*before)
        self.largest = largest
        return rate

    def _endless(self, training: Feed) -> Iterator[tuple[Batch, Tensor]]:
        epoch = 0
        while True:
            yield from self._batches(training, (self._seed, epoch))
            epoch += 1

    def _batches(self, feed: Feed, order: tuple[int, int] | None) -> Iterator[tuple[Batch, Tensor]]:
        share = self._fabric.global_rank, self._fabric.world_size
        batches = feed.raw_batches(self._batch_size * share[1], order, share)
        for images, labels in on_device(batches, feed, self._fabric.device):
            yield images, standardized(labels, self.objective.target)

    def _step(self, images: Batch, labels: Tensor) -> Tensor:
        """One step of the optimizer; in pieces whose gradients add up where the batch does not fit the memory."""
        shrink = partial(self._shrink, patches=len(images))
        loss = self._within_memory(lambda: self._gradients(images, labels), shrink)
        # A gradient that is no number shows in the loss, at the end of the epoch.
        self._fabric.clip_gradients(self._network, self._optimizer, max_norm=LARGEST_GRADIENT, error_if_nonfinite=False)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _gradients(self, images: Batch, labels: Tensor) -> Tensor:
        """Gradients of the loss of the batch of all processes, and this process's part of that loss."""
        task, processes = self.objective.task, self._fabric.world_size
        whole = self._over_processes(loss_weight(labels, self._weights, task)).clamp(min=SMALLEST_WEIGHT)
        total = torch.zeros((), device=labels.device)
        for part, marks in zip(pieces(images, self.largest), labels.split(self.largest), strict=True):
            share = loss_weight(marks, self._weights, task) / whole
            if len(part) == 1:  # batch normalisation needs two
                part, marks = twice(part), torch.cat([marks, marks])
            logits = self._network(sealed(laid_out(part)))
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
        return float(loss / share.clamp(min=SMALLEST_WEIGHT)), every.cpu().numpy()

    def _logits(self, images: Batch) -> Tensor:
        def attempt() -> Tensor:
            with self._fabric.autocast():
                return torch.cat([self.module(part).float() for part in pieces(laid_out(images), self.largest)])

        return self._within_memory(attempt, partial(self._shrink, patches=len(images)))

    def _shrink(self, error: RuntimeError, patches: int) -> None:
        """Halve what is computed at once after an error for want of memory; any other error is passed on."""
        if not is_out_of_memory(error):
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
