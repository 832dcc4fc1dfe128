"""Whether a network that learned from patches holds what it learned within a larger picture.

Convolutions see padding beyond the edge of their input. Where patches are small against the network - a bottleneck
of one cell, dilations wider than the patch - some of its weights see nothing but padding while it learns: they stay
as they were at the start, and in the larger tiles of prediction they speak for the first time. Scores of patches
do not show it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.learning.feeding import Part
from rlearndeep.learning.tasks import Task

# A map is made from larger tiles unless its score, or error, is worse by more than this share.
_TOLERATED = 0.1


def mirrored(images: NDArray[np.float32], reflections: int = 1) -> NDArray[np.float32]:
    """Patches amid their own reflections: what a larger picture of the same ground could look like.

    Args:
        images: (N, bands, rows, cols).
        reflections: on each side.

    Returns:
        (N, bands, (2 * reflections + 1) * rows, (2 * reflections + 1) * cols), the patch in the middle.
    """
    rows, cols = (side * reflections for side in images.shape[-2:])
    return np.pad(images, ((0, 0), (0, 0), (rows, rows), (cols, cols)), mode="symmetric")


def suffers(part: Part, predictor: Any, task: Task, count: int) -> bool:
    """True when scores of patches fall by more than a tenth where each stands amid its own reflections.

    Args:
        part: patches whose cells are labelled.
        predictor: of the trained network.
        task: how answers are scored.
        count: of patches to try, spread evenly over the part.
    """
    alone: list[Any] = []
    within: list[Any] = []
    for images, labels in part.sample(count).batches(1):
        rows, cols = images.shape[-2:]
        alone.append(task.count(labels, predictor.predict(images)))
        answers = predictor.predict(mirrored(images))
        within.append(task.count(labels, answers[..., rows : 2 * rows, cols : 2 * cols]))
    before, after = _score(alone, task), _score(within, task)
    return task.measure.sign * (after - before) < -_TOLERATED * before


def _score(counts: Sequence[Any], task: Task) -> float:
    return float(task.scores(functools.reduce(operator.add, counts))[task.measure.key] or 0.0)
