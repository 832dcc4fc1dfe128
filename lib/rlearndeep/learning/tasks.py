"""What differs between the tasks of a network: how its answers are counted, scored and reported.

Counts of two batches add up to those of both, so a part of any size is scored in constant memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy import metrics
from rlearndeep.patches import Manifest
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import ClassTable

PRESENT = 0.5
"""Score from which a class is said to be present."""

# Values further apart than this, in standard deviations of the labels, are another answer.
_SAME_VALUE = 0.05


@dataclass(frozen=True)
class Measure:
    """The validation score that chooses the best epoch.

    Attributes:
        key: name in scores; the column of the history is ``validation_<key>``.
        label: name in messages.
        sign: 1 where more is better, else -1.
        of: the score of what the back-end counted over the validation part.
    """

    key: str
    label: str
    sign: int
    of: Callable[[NDArray], float]

    @property
    def column(self) -> str:
        """Name of the column in the history."""
        return f"validation_{self.key}"


class Task(Protocol):
    """What learning has to know of a task."""

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def measure(self) -> Measure:
        """The validation score."""

    def count(self, labels: NDArray, answers: NDArray) -> Any:
        """Counts of labels, as a patch directory holds them, and answers of a predictor; they add up."""

    def scores(self, counts: Any) -> dict[str, Any]:
        """Scores for ``scores.json``."""

    def differ(self, first: NDArray, second: NDArray) -> NDArray[np.bool_]:
        """Where the answers of two predictors say something else."""


@dataclass(frozen=True)
class ClassTask:
    """One class of several."""

    classes: ClassTable

    @property
    def outputs(self) -> int:
        """A score per class."""
        return len(self.classes)

    @property
    def measure(self) -> Measure:
        """Macro F1 of a confusion matrix."""
        return Measure("f1_macro", "F1", 1, lambda matrix: float(self.scores(matrix)["f1_macro"] or 0.0))

    def count(self, labels: NDArray, answers: NDArray) -> NDArray[np.int64]:
        """Confusion matrix."""
        return metrics.count_pairs(labels, answers.argmax(axis=1), len(self.classes))

    def scores(self, counts: NDArray) -> dict[str, Any]:
        """See :func:`metrics.scores`."""
        return metrics.scores(counts, self.classes)

    def differ(self, first: NDArray, second: NDArray) -> NDArray[np.bool_]:
        """Another class."""
        return first.argmax(axis=1) != second.argmax(axis=1)


@dataclass(frozen=True)
class PresenceTask:
    """Several classes, each of them present or not."""

    classes: ClassTable

    @property
    def outputs(self) -> int:
        """A score per class."""
        return len(self.classes)

    @property
    def measure(self) -> Measure:
        """Macro F1 of the classes, each said to be present from a score of one half."""
        return Measure("f1_macro", "F1", 1, lambda counts: float(self.scores(counts)["f1_macro"] or 0.0))

    def count(self, labels: NDArray, answers: NDArray) -> NDArray[np.int64]:
        """A confusion matrix per class."""
        return metrics.count_presence(labels, answers >= PRESENT)

    def scores(self, counts: NDArray) -> dict[str, Any]:
        """See :func:`metrics.presence_scores`."""
        return metrics.presence_scores(counts, self.classes)

    def differ(self, first: NDArray, second: NDArray) -> NDArray[np.bool_]:
        """A class that is present for one of them only."""
        return (first >= PRESENT) != (second >= PRESENT)


@dataclass(frozen=True)
class ValueTask:
    """A number; ``target`` are the statistics of the training labels."""

    target: BandStatistics

    @property
    def outputs(self) -> int:
        """The value."""
        return 1

    @property
    def measure(self) -> Measure:
        """Root mean squared error, of a number of labels and a sum of squared errors in standard deviations."""

        def rmse(counts: NDArray) -> float:
            number, squares = counts
            return self.target.std * math.sqrt(squares / number) if number else math.inf

        return Measure("rmse", "RMSE", -1, rmse)

    def count(self, labels: NDArray, answers: NDArray) -> metrics.RegressionSums:
        """Sums of errors."""
        return metrics.RegressionSums.of(labels, answers.reshape(labels.shape))

    def scores(self, counts: metrics.RegressionSums) -> dict[str, Any]:
        """See :func:`metrics.regression_scores`."""
        return metrics.regression_scores(counts)

    def differ(self, first: NDArray, second: NDArray) -> NDArray[np.bool_]:
        """Values that are more than a twentieth of a standard deviation apart."""
        return np.abs(first - second) > _SAME_VALUE * self.target.std


def task_of(manifest: Manifest, classes: ClassTable, target: BandStatistics | None) -> Task:
    """The task of a patch directory; ``target`` are the statistics of the training labels of a value."""
    if target is not None:
        return ValueTask(target)
    return PresenceTask(classes) if manifest.task == "presence" else ClassTask(classes)


def score_table(scores: dict[str, Any]) -> str:
    """Scores of a part, of any task, as text."""
    return metrics.regression_report(scores) if "rmse" in scores else metrics.classification_report(scores)
