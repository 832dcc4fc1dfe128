"""The steps and epochs of learning without labels.

The more patches a patch is told apart from at once, the more is learned (Chen et al. 2020, figure 9), and a batch of
that size hardly fits a memory. A queue of earlier vectors, as in He et al. (2020, CVPR), needs a second encoder that
follows the first one slowly: filled by the encoder itself it lets all vectors run away from the old ones together, and
nothing is learned. So a batch is computed in pieces whose gradients are exactly those of the whole (Gao et al. 2021,
RepL4NLP): the vectors of all pieces without gradients first, then the gradient of the loss by the vectors, then piece
by piece the gradient of the network. Only batch normalisation sees the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rlearndeep.backends.machine import is_out_of_memory
from rlearndeep.backends.running import LARGEST_GRADIENT, Epoch, Options, mixed
from rlearndeep.backends.torch.contrast_loss import paired_loss
from rlearndeep.backends.torch.feeding import Batch, Feed, laid_out, on_device, pieces, sealed, unseal
from rlearndeep.backends.torch.machinery import Trainee
from rlearndeep.backends.torch.trunk import Trunk
from rlearndeep.backends.torch.views import joined, view
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Inputs

_WIDTH = 128
"""Of the vectors that are compared; Chen et al. found no effect from 32 to 2048."""

_CPU_CELLS = 128 * 64 * 64
"""What is computed at once on a CPU, which does not say in time that its memory is full."""

_FEWEST_AT_ONCE = 2  # batch normalisation needs two

Vectors = dict[str, Tensor]
"""(N, D) of each source by its name."""


class Contrast(nn.Module):
    """The encoders and a projection head of two layers for each: a vector of length 1 for each source of a patch."""

    def __init__(self, network: Network, size: tuple[int, int]) -> None:
        super().__init__()
        self.trunk = Trunk(network, size)
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, _WIDTH))
                for name, width in self.trunk.widths.items()
            }
        )

    def forward(self, batch: Batch) -> Vectors:
        """Vectors of each source."""
        features = self.trunk(batch)
        return {
            name: functional.normalize(self.projections[name](own).float(), dim=1) for name, own in features.items()
        }


class ContrastLearner(Trainee):
    """Trains encoders by epochs to tell patches apart.

    Args:
        fabric: of Lightning: device and precision.
        module: encoders and projection heads.
        optimizer: of their parameters.
        options: batch size and seed.
        spread: standard deviation per band of the images.
        temperature: of NT-Xent.
        size: rows and columns of a patch.
        warn: called with a message for the user.
    """

    def __init__(
        self,
        fabric: Any,
        module: Contrast,
        optimizer: torch.optim.Optimizer,
        options: Options,
        *,
        spread: NDArray[np.float32],
        temperature: float,
        size: tuple[int, int],
        warn: Callable[[str], None],
    ) -> None:
        unseal(module)
        super().__init__(fabric, module, optimizer)
        self._seed, self._batch_size = options.seed, options.batch_size
        self._temperature, self._warn = temperature, warn
        self._spread = fabric.to_device(torch.tensor(spread))
        self._random = torch.Generator()
        self.largest = 2 * options.batch_size
        if fabric.device.type == "cpu":
            self.largest = min(self.largest, _even(_CPU_CELLS // (size[0] * size[1])))

    def epoch(self, number: int, training: Feed, validation: Feed) -> Epoch:
        """Train an epoch, counted from 0, and look at the patches that were held out."""
        self._random.manual_seed(mixed(self._seed, number))
        self._network.train()
        losses = []
        for batch in self._batches(training, (self._seed, number)):
            losses.append(self._step(batch))
            self.schedule.after_step()
        loss = self._validate(validation)
        return Epoch(float(torch.stack(losses).mean()), loss, np.array(loss))

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on beside the network: plain values and arrays."""
        return {**super().state(), "largest": self.largest}

    def restore(self, state: dict[str, Any], weights: dict[str, NDArray]) -> None:
        """Inverse of :meth:`state` and :meth:`weights`."""
        super().restore(state, weights)
        self.largest = int(state["largest"])

    def _batches(self, feed: Feed, order: tuple[int, int] | None) -> Iterator[Batch]:
        raw = feed.raw_batches(self._batch_size, order, (0, 1))
        return (batch for batch, _ in on_device(raw, feed, self._fabric.device))

    def _step(self, batch: Batch) -> Tensor:
        views, present = self._two_views(batch), _present(batch)
        seed = int(torch.randint(2**31, (), generator=self._random))
        loss = self._within_memory(lambda: self._gradients(views, present, seed), self._shrink)
        self._fabric.clip_gradients(self._network, self._optimizer, max_norm=LARGEST_GRADIENT, error_if_nonfinite=False)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _two_views(self, batch: Batch) -> Batch:
        """The first views of all patches, then the second ones."""
        return laid_out(joined([view(batch, self._spread, self._random) for _ in range(2)]))

    def _gradients(self, views: Batch, present: Vectors, seed: int) -> Tensor:
        """Gradients of the loss of a batch, and the loss.

        Args:
            views: of all patches.
            present: where further sources are.
            seed: of what is random in the network, which has to be the same in both passes.
        """
        self._optimizer.zero_grad()
        parts = pieces(views, self.largest)
        if len(parts) == 1:
            loss = self._loss(self._vectors(views, seed), present)
            self._fabric.backward(loss)
            return loss.detach()
        with torch.no_grad():
            found = _together([self._vectors(part, seed + number) for number, part in enumerate(parts)])
        leaves = {name: vectors.requires_grad_() for name, vectors in found.items()}
        loss = self._loss(leaves, present)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        slices = {name: own.split(self.largest) for name, own in gradients.items()}
        for number, part in enumerate(parts):
            vectors = self._vectors(part, seed + number)
            self._fabric.backward(torch.stack([(vectors[name] * slices[name][number]).sum() for name in vectors]).sum())
        return loss.detach()

    def _vectors(self, views: Batch, seed: int) -> Vectors:
        torch.manual_seed(seed)
        return self._network(sealed(views))

    def _loss(self, vectors: Vectors, present: Vectors) -> Tensor:
        halves = {name: own.chunk(2) for name, own in vectors.items()}
        first, second = ({name: pair[number] for name, pair in halves.items()} for number in range(2))
        return paired_loss(first, second, present, self._temperature)

    @torch.no_grad()
    def _validate(self, validation: Feed) -> float:
        """The loss over all patches that were held out at once; their views are the same in each epoch."""
        self.module.eval()
        self._random.manual_seed(self._seed)
        batches = list(self._batches(validation, None))
        views = joined([view(batch, self._spread, self._random) for _ in range(2) for batch in batches])
        vectors = self._within_memory(lambda: self._compared(views), self._shrink)
        return float(self._loss(vectors, _present(joined(batches))))

    def _compared(self, views: Batch) -> Vectors:
        with self._fabric.autocast():
            return _together([self.module(laid_out(part)) for part in pieces(views, self.largest)])

    def _shrink(self, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.largest <= _FEWEST_AT_ONCE:
            raise DeepLearningError(
                f"The network and {self.largest} views of patches must fit the memory of {self._fabric.device}; "
                "they do not. Choose a smaller network, or patches of a smaller size=."
            ) from error
        before, self.largest = self.largest, _even(self.largest // 2)
        self._warn(
            f"{before} views of patches do not fit the memory of {self._fabric.device}; {self.largest} are computed at "
            "once, and their gradients are those of the whole batch."
        )


def _even(count: int) -> int:
    """A number of views of which no piece of one is left over."""
    return max(_FEWEST_AT_ONCE, count - count % 2)


def _together(parts: list[Vectors]) -> Vectors:
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}


def _present(batch: Batch) -> Vectors:
    """(N,), True for each patch that has something to see in a further source."""
    further = batch.further if isinstance(batch, Inputs) else {}
    return {name: source.valid.flatten(1).any(dim=1) for name, source in further.items()}
