"""Which patches of one directory show the ground of those of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rlearndeep.patches import PatchDataset

_TOLERANCE = 1e-6


def lies_over(dataset: PatchDataset, other: PatchDataset, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for each patch that shares ground with one of some patches of another directory.

    Args:
        dataset: whose patches are asked for.
        other: the other directory; in another projection nothing is known of the ground, and none does.
        positions: of the patches there.
    """
    found = np.zeros(len(dataset), dtype=bool)
    if not len(positions) or other.manifest.projection != dataset.manifest.projection:
        return found
    sources = dataset.manifest.reference, other.manifest.reference
    sides = np.sum([np.array(source.shape) * source.resolution for source in sources], axis=0) / 2
    mine, theirs = (
        np.column_stack([rows["north"], rows["east"]]) / sides for rows in (dataset.index, other.index[positions])
    )
    # Sites mostly lie apart, and a tree takes time.
    near = np.all((mine > theirs.min(axis=0) - 1.0) & (mine < theirs.max(axis=0) + 1.0), axis=1)
    if near.any():
        distance, _ = cKDTree(theirs).query(mine[near], p=np.inf, distance_upper_bound=1.0)
        found[near] = distance < 1.0 - _TOLERANCE
    return found
