"""Small batches of several sources with a known answer, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.inputs import Further, Inputs

SIDE = 16
DATES = 6


class Feed:
    """Places as a back-end is fed with them, as stored: here they are network input already."""

    def __init__(self, inputs: Inputs, labels: NDArray) -> None:
        self.inputs, self.labels = inputs, labels
        self.normalization = Normalization("none")
        self.normalizations = {name: Normalization("none") for name in inputs.further}
        self.unlabelled = 255

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, size: int) -> int:
        return -(-len(self) // size)

    def raw_batches(
        self, size: int, order: tuple[int, int] | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Any, NDArray, NDArray]]:
        numbers = np.arange(len(self))
        if order is not None:
            np.random.default_rng(order).shuffle(numbers)
        for start in range(0, len(self), size):
            chosen = np.array_split(numbers[start : start + size], share[1])[share[0]]
            part = self.inputs[chosen]
            yield part, np.ones((len(chosen), *part.shape[-2:]), dtype=bool), self.labels[chosen]


def of_auxiliary(count: int, seed: int, in_reference: float = 0.0) -> Feed:
    """The class of a cell stands in an auxiliary source with cells twice as large, half a cell off, and context.

    Args:
        in_reference: how clearly the reference shows the class too.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(2, size=(count, 5, 5)).repeat(4, axis=1).repeat(4, axis=2)
    window = truth[:, 2:16, 3:17]
    values = 2.0 * window - 1 + random.normal(0, 0.3, window.shape)
    box = np.tile(np.array([3.5, 2.5, SIDE / 2, SIDE / 2], dtype=np.float32), (count, 1))
    rows, cols = (np.floor(first + (np.arange(SIDE) + 0.5) / 2).astype(int) for first in (2 + 3.5, 3 + 2.5))
    labels = truth[:, rows][:, :, cols]
    images = random.normal(size=(count, 2, SIDE, SIDE)) + in_reference * (2.0 * labels[:, None] - 1)
    source = Further(
        values.astype(np.float32)[:, None], np.ones(window.shape, dtype=bool), box, np.empty((count, 0), np.float32)
    )
    return Feed(Inputs(images.astype(np.float32), {"auxiliary1": source}), labels.astype(np.uint8))


def of_timing(count: int, seed: int) -> Feed:
    """The class of a place is the order of the values of its series: rising or falling, at days of its own."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=count)
    line = np.linspace(0, 2, DATES)
    course = np.where(labels[:, None] == 1, line, line[::-1])
    values = course[:, :, None, None, None] + random.normal(0, 0.2, (count, DATES, 2, 4, 4))
    days = np.sort(random.uniform(0, 365, (count, DATES)), axis=1)
    box = np.tile(np.array([0, 0, 4, 4], dtype=np.float32), (count, 1))
    source = Further(values.astype(np.float32), np.ones((count, DATES, 4, 4), dtype=bool), box, days.astype(np.float32))
    images = np.zeros((count, 1, SIDE, SIDE), dtype=np.float32)
    return Feed(Inputs(images, {"series": source}), labels.astype(np.uint8))
