"""What of the training data a model keeps, so that prediction can say how far a place lies from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.learning.feeding import Part
from rlearndeep.scene.novelty import MOST_VECTORS, FeatureSpace

_PATCHES = 4096
_CELLS = 2**21


def feature_space(training: Part, validation: Part, predictor: Any, seed: int) -> FeatureSpace:
    """The training data in the feature space of a trained network, calibrated on the validation part.

    Every class gives as many cells (or patches) as there are, up to an equal share, so that rare classes count as
    known ground too; what has no label was not learned from and is left out.

    Args:
        training: the patches the network was trained on.
        validation: patches that only chose the epoch; without any, the training part is compared with itself.
        predictor: the trained network of a back-end.
        seed: of the choice of cells.
    """
    vectors = _vectors(training, predictor, seed)
    width = vectors.shape[1]
    others = _vectors(validation, predictor, seed) if len(validation) else np.empty((0, width), dtype=np.float32)
    weights = np.asarray(predictor.feature_weights, dtype=np.float32)
    return FeatureSpace.of(vectors, others, weights if weights.shape == (width,) else np.ones(width, dtype=np.float32))


def _vectors(part: Part, predictor: Any, seed: int) -> NDArray[np.float32]:
    """Features of labelled cells or patches, in the order of the patches, (n, F)."""
    random = np.random.default_rng(seed)
    rows, cols = part.sites.sites[0].images.shape[-2:]
    count = max(1, min(len(part), _PATCHES, _CELLS // (rows * cols)))
    chosen = np.unique(np.linspace(0, len(part) - 1, count).astype(np.int64))
    wanted = math.ceil(8 * MOST_VECTORS / len(chosen))
    found, groups = [], []
    for numbers in np.array_split(chosen, max(1, math.ceil(len(chosen) * rows * cols / predictor.pixels_per_batch))):
        images, labels = part.read(numbers)
        _, features = predictor.predict_with_features(images)
        for own, label in zip(features, labels, strict=True):
            vectors, classes = _labelled(own, np.asarray(label))
            some = np.sort(random.permutation(len(vectors))[:wanted])
            found.append(vectors[some])
            groups.append(classes[some])
    vectors, classes = np.concatenate(found), np.concatenate(groups)
    return vectors[_balanced(classes, random)]


def _labelled(features: NDArray[np.float32], label: NDArray) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of the labelled cells of a patch, or of the patch, (n, F), and their classes, (n,)."""
    if features.ndim == 1:
        vectors, known = features[None], np.atleast_1d(label)
        known = known[:1] if label.ndim == 0 else np.atleast_1d(label.argmax() if label.min() >= 0 else -1)
    else:
        rows, cols = (
            np.arange(cells) * size // cells for cells, size in zip(features.shape[-2:], label.shape, strict=True)
        )
        vectors, known = features.reshape(len(features), -1).T, label[rows[:, None], cols].ravel()
    if np.issubdtype(known.dtype, np.floating):
        labelled = ~np.isnan(known)
        return vectors[labelled], np.zeros(int(labelled.sum()), dtype=np.int64)
    return vectors[known >= 0], known[known >= 0].astype(np.int64)


def _balanced(classes: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Positions of vectors to keep, ascending: of every class alike, as long as it has any."""
    order = random.permutation(len(classes))
    rank = np.empty(len(classes), dtype=np.int64)
    for number in np.unique(classes):
        own = order[classes[order] == number]
        rank[own] = np.arange(len(own))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:MOST_VECTORS])
