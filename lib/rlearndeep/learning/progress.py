"""What a user is told while epochs go by."""

from __future__ import annotations

LINES = 30
"""Epochs of a run that get a line of their own, if it has more."""


def is_told(done: int, total: int) -> bool:
    """Whether an epoch, counted from 1, gets a line: all of few epochs; of many the first, the last, some between."""
    return done in (1, total) or done % -(-total // LINES) == 0


def time_left(done: int, total: int, seconds: float) -> str:
    """How long the epochs that are left take, if they take as long as those that are done.

    Args:
        done: number of epochs.
        total: number of epochs, at most.
        seconds: that the epochs that are done took.
    """
    minutes, rest = divmod(round(seconds / done * (total - done)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s' if minutes else f'{rest} s'} left"
