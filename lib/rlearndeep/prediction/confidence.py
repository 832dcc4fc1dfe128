"""From class scores to a class, and how certain it is.

Scores are (classes, rows, cols) float32, class probabilities that sum to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError

Scores = NDArray[np.float32]


def best_class(scores: Scores, valid: NDArray[np.bool_]) -> tuple[NDArray[np.unsignedinteger], Scores]:
    """Index and score of the best class of each cell, (rows, cols) both; the lowest index wins a tie.

    The type of the index is the smallest that holds the number of classes too.

    Raises:
        DeepLearningError: the network's answer for a valid cell is not a number.
    """
    best = scores[0].copy()
    index = np.zeros(best.shape, dtype=np.min_scalar_type(len(scores)))
    better = np.empty(best.shape, dtype=bool)
    # Running maxima over whole planes are ten times faster than argmax along the first axis or a masked copy.
    for position in range(1, len(scores)):
        np.greater(scores[position], best, out=better)
        np.maximum(index, better * index.dtype.type(position), out=index)
        np.maximum(best, scores[position], out=best)
    check_numbers(best, valid)
    return index, best


def check_numbers(values: Scores, valid: NDArray[np.bool_]) -> None:
    """See that a network answered with numbers for the valid cells.

    Raises:
        DeepLearningError: it did not.
    """
    if not np.isfinite(values).all() and not np.isfinite(values[valid]).all():
        raise DeepLearningError(
            "A network must answer with numbers; it gave NaN or infinity for cells with data. "
            "Check the group for absurd values, try precision=32, or train the model again."
        )


def margin(scores: Scores) -> Scores:
    """Best minus second best score, 0..1, (rows, cols); 1 where there is one class only."""
    best = scores[0].copy()
    second = np.zeros_like(best)
    for plane in scores[1:]:
        np.maximum(second, np.minimum(best, plane), out=second)
        np.maximum(best, plane, out=best)
    return best - second


def entropy(scores: Scores) -> Scores:
    """Shannon entropy divided by its largest value, log(classes): 0 certain, 1 undecided, (rows, cols)."""
    total = np.zeros(scores.shape[1:], dtype=np.float32)
    if len(scores) == 1:
        return total
    tiny = np.finfo(np.float32).tiny
    for plane in scores:
        total -= plane * np.log(np.maximum(plane, tiny))
    total /= np.float32(np.log(len(scores)))
    return np.clip(total, 0, 1, out=total)


def binary_entropy(scores: Scores) -> Scores:
    """Mean over the classes of the entropy in bits of "there or not": 0 certain, 1 undecided, (rows, cols)."""
    tiny = np.finfo(np.float32).tiny
    total = np.zeros(scores.shape[1:], dtype=np.float32)
    for plane in scores:
        absent = 1 - plane
        total -= plane * np.log2(np.maximum(plane, tiny)) + absent * np.log2(np.maximum(absent, tiny))
    total /= np.float32(len(scores))
    return np.clip(total, 0, 1, out=total)
