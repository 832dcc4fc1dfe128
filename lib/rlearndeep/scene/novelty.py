"""How far something lies from what a network was trained on, in the network's own feature space.

The area of applicability of Meyer and Pebesma (2021, Methods in Ecology and Evolution 12:1620), applied to the
features that a network's last layer sees instead of to the bands: the dissimilarity of a point is its distance to
the nearest training point divided by the mean distance between training points; its threshold is the largest
dissimilarity, outliers left out, of points that were not trained on but come from the same ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError

MOST_VECTORS = 1000
"""Training keeps no more; what prediction computes for each cell grows with their number."""

# Points compared at once: their distances to all training points stay in the cache.
_POINTS = 1024
_FOLDS = 5
_WHISKER = 1.5
_KNOWN_SHARE = 0.95

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSpace:
    """What of the training data was kept.

    Attributes:
        weights: what a feature is multiplied with before distances are taken, (F,).
        vectors: weighted features of training cells or patches, (n, F).
        mean_distance: mean distance between two of the vectors.
        threshold: dissimilarity up to which something counts as known.
    """

    weights: Vectors
    vectors: Vectors
    mean_distance: float
    threshold: float

    @classmethod
    def of(cls, training: Vectors, validation: Vectors, weights: Vectors) -> FeatureSpace:
        """A space from features of training (n, F) and validation (m, F).

        Training vectors must come in an order in which neighbours on the ground are neighbours: without validation
        vectors they are cut in five, and each fifth is compared with the others.
        """
        vectors, others = training * weights, validation * weights
        mean = _mean_distance(vectors)
        distances = nearest(others, vectors) if len(others) else _between_folds(vectors)
        return cls(weights.astype(np.float32), vectors, mean, max(_largest_usual(distances) / mean, 1e-6))

    def check(self) -> None:
        """See that distances to the vectors can be taken.

        Raises:
            ValueError: shapes, types or numbers do not fit.
        """
        check_shapes(self.vectors.shape, self.weights.shape)
        if self.vectors.dtype != np.float32 or self.weights.dtype != np.float32:
            raise ValueError("vectors and weights must be float32")
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.weights).all() and 0 < self.edge < np.inf):
            raise ValueError("vectors, weights and limits must be finite numbers")

    @property
    def edge(self) -> float:
        """Distance to the nearest vector at which the known ends."""
        return self.threshold * self.mean_distance

    def novelty(self, features: Vectors) -> Vectors:
        """Dissimilarity over threshold of features (N, F, ...), as (N, ...): up to 1 known, above it new.

        Raises:
            DeepLearningError: the space is that of a network with another number of features.
        """
        if features.shape[1] != len(self.weights):
            raise DeepLearningError(
                f"Novelty needs the features of the network that it was learned with; the network has "
                f"{features.shape[1]}, the model's file describes {len(self.weights)}. Train the model again, or leave "
                "novelty= out."
            )
        points = np.moveaxis(features, 1, -1)
        flat = points.reshape(-1, points.shape[-1]).astype(np.float32, copy=False) * self.weights
        return (nearest(flat, self.vectors) / np.float32(self.edge)).reshape(points.shape[:-1])


def check_shapes(vectors: tuple[int, ...], weights: tuple[int, ...]) -> None:
    """See that arrays of these shapes are vectors and weights that training may have kept.

    Raises:
        ValueError: they are not.
    """
    if len(vectors) != 2 or weights != vectors[1:] or not vectors[0]:
        raise ValueError(f"vectors {vectors} do not fit weights {weights}")
    if vectors[0] > MOST_VECTORS:
        raise ValueError(f"there are {vectors[0]} vectors, at most {MOST_VECTORS} are kept")


def nearest(points: Vectors, vectors: Vectors) -> Vectors:
    """Euclidean distance of each point (m, F) to the nearest of the vectors (n, F), (m,)."""
    # |p - v|^2 is smallest where p.v - |v|^2 / 2 is largest: one matrix product. The distance itself is taken from the
    # difference, as near 0 the digits of the product are gone, and others are left with each size of a batch.
    halves = np.einsum("nf,nf->n", vectors, vectors) / 2
    result = np.empty(len(points), dtype=np.float32)
    for first in range(0, len(points), _POINTS):
        part = points[first : first + _POINTS]
        likeness = part @ vectors.T
        likeness -= halves
        apart = part - vectors[likeness.argmax(axis=1)]
        result[first : first + _POINTS] = np.sqrt(np.einsum("mf,mf->m", apart, apart))
    return result


def _mean_distance(vectors: Vectors) -> float:
    """Mean distance between two different vectors; 1 where all are the same."""
    total = 0.0
    squares = np.einsum("nf,nf->n", vectors, vectors)
    for first in range(0, len(vectors), _POINTS):
        part = slice(first, first + _POINTS)
        product = vectors[part] @ vectors.T
        total += float(np.sqrt(np.maximum(squares[part, None] + squares - 2 * product, 0)).sum(dtype=np.float64))
    mean = total / max(1, len(vectors) * (len(vectors) - 1))
    return mean if mean > 0 else 1.0


def _between_folds(vectors: Vectors) -> Vectors:
    if len(vectors) < 2:
        return np.ones(1, dtype=np.float32)
    folds = min(_FOLDS, len(vectors))
    fold = np.arange(len(vectors)) * folds // len(vectors)
    return np.concatenate([nearest(vectors[fold == own], vectors[fold != own]) for own in range(folds)])


def _largest_usual(values: NDArray) -> float:
    """The largest value that is no outlier, but at least one that 95 % of the values do not exceed.

    Outliers lie more than 1.5 interquartile ranges above the third quartile (Tukey 1977). Distances between features
    are skewed, many are near 0, so that this rule alone may take a good part of them for outliers.
    """
    low, high = np.quantile(values, (0.25, 0.75))
    whisker = values[values <= high + _WHISKER * (high - low)].max()
    return float(max(whisker, np.quantile(values, _KNOWN_SHARE, method="lower")))
