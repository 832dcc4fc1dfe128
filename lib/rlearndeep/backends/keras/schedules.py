"""How the learning rate changes; the shapes are those of PyTorch's schedulers."""

from __future__ import annotations

import math
from dataclasses import dataclass

# One cycle begins at a 25th of the highest rate, and ends at a 10,000th of where it began.
_FIRST, _LAST = 25.0, 1e4


@dataclass
class Schedule:
    """A learning rate over a run.

    Attributes:
        kind: none, step, cosine, plateau or onecycle.
        highest: rate.
        total: steps of the whole run.
        step: epochs between two changes, or without progress before one.
        gamma: factor of the rate at a change.
        steps, epochs: that are done.
        best: score so far, of which more is better.
        waiting: epochs without a better one.
        changes: on a plateau.
    """

    kind: str
    highest: float
    total: int
    step: int
    gamma: float
    steps: int = 0
    epochs: int = 0
    best: float = -math.inf
    waiting: int = 0
    changes: int = 0

    @property
    def rate(self) -> float:
        """Of the next step."""
        if self.kind == "step":
            return self.highest * self.gamma ** (self.epochs // self.step)
        if self.kind == "plateau":
            return self.highest * self.gamma**self.changes
        if self.kind == "cosine":
            return _between(self.highest, 0.0, self.steps / self.total)
        return self._cycle() if self.kind == "onecycle" else self.highest

    def _cycle(self) -> float:
        """Smith and Topin 2018, arXiv:1708.07120, with cosines."""
        top = (0.2 if self.total > 5 else 0.3) * self.total - 1
        first = self.highest / _FIRST
        if self.steps <= top:
            return _between(first, self.highest, self.steps / top)
        share = (self.steps - top) / max(1.0, self.total - 1 - top)
        return _between(self.highest, first / _LAST, min(1.0, share))

    def after_step(self) -> None:
        """To be called after each batch."""
        self.steps += 1

    def after_epoch(self, score: float) -> None:
        """To be called after each epoch with a score of which more is better."""
        self.epochs += 1
        self.waiting = 0 if score > self.best else self.waiting + 1
        self.best = max(self.best, score)
        if self.waiting > self.step:
            self.waiting, self.changes = 0, self.changes + 1

    def state(self) -> dict[str, float]:
        """What changes, for a checkpoint."""
        return {name: getattr(self, name) for name in ("steps", "epochs", "best", "waiting", "changes")}

    def restore(self, state: dict[str, float]) -> None:
        """Inverse of :meth:`state`."""
        for name in self.state():
            setattr(self, name, state[name])


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
