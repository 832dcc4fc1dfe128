"""Leaks: patches of different parts that overlap or lie close, and patches that are identical.

Distances are measured between the edges of footprints along rows and columns, in map units; the
larger of the two counts (Chebyshev's distance). Patches that touch have distance 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rlearndeep.patches import PARTS
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.scene.geometry import Region

# Rectangles of different sizes are compared in pieces of so many pairs.
_PAIRS_AT_ONCE = 1 << 22

# Distances this much (of a cell) below a limit still count as the limit.
_TOLERANCE = 1e-6


def too_close(patches: PatchSet, others: PatchSet, region: Region, distance: float) -> NDArray[np.bool_]:
    """True for each of ``patches`` that lies closer than ``distance`` to one of ``others``.

    Overlapping patches are closer than any distance, 0 included; touching ones are not closer than 0.
    """
    if not len(patches) or not len(others):
        return np.zeros(len(patches), dtype=bool)
    if _one_size(patches, others):
        reach = _reach(patches, region, distance)
        nearest, _ = cKDTree(_centres(others, region) / reach).query(
            _centres(patches, region) / reach, p=np.inf, distance_upper_bound=1.0
        )
        return nearest < 1
    result = np.zeros(len(patches), dtype=bool)
    for rows, gaps in _gaps(patches, others, region):
        result[rows] = (gaps < distance - _TOLERANCE * min(region.nsres, region.ewres)).any(axis=1)
    return result


def closest(patches: PatchSet, others: PatchSet, region: Region) -> float:
    """Smallest distance between a patch of one set and one of the other; 0 when they touch or overlap."""
    if not len(patches) or not len(others):
        return float("inf")
    if not _one_size(patches, others):
        return max(0.0, min(float(gaps.min()) for _, gaps in _gaps(patches, others, region)))
    if len(patches) > len(others):
        patches, others = others, patches
    mine, theirs = _centres(patches, region), _centres(others, region)
    extent = np.array([int(patches.height[0]) * region.nsres, int(patches.width[0]) * region.ewres])
    best = float("inf")
    while best > 0:
        # Only pairs closer than the best one found can matter; each round finds one or ends.
        reach = extent + (best if np.isfinite(best) else 0.0)
        bound = 1.0 - _TOLERANCE if np.isfinite(best) else np.inf
        nearest, index = cKDTree(theirs / reach).query(mine / reach, p=np.inf, distance_upper_bound=bound)
        found = np.isfinite(nearest)
        if not found.any():
            break
        gaps = (np.abs(mine[found] - theirs[index[found]]) - extent).max(axis=1)
        if gaps.min() >= best:
            break
        best = max(0.0, float(gaps.min()))
    return best


def overlaps_between_parts(patches: PatchSet, part: NDArray[np.int32], region: Region) -> tuple[int, int]:
    """Number of patches that overlap a patch of another part: of their own acquisition, and only of another one."""
    overlapping = _overlapping(patches, part, region)
    if patches.acquisition is None:
        return int(overlapping.sum()), 0
    own = np.zeros(len(patches), dtype=bool)
    for number in np.unique(patches.acquisition).tolist():
        mine = patches.of_acquisition(number)
        own[mine] = _overlapping(patches.take(mine), part[mine], region)
    return int(own.sum()), int((overlapping & ~own).sum())


def _overlapping(patches: PatchSet, part: NDArray[np.int32], region: Region) -> NDArray[np.bool_]:
    overlapping = np.zeros(len(patches), dtype=bool)
    for first, second in _pairs_of_parts(part):
        for mine, theirs in ((first, second), (second, first)):
            overlapping[mine] |= too_close(patches.take(mine), patches.take(theirs), region, 0.0)
    return overlapping


def closest_parts(patches: PatchSet, part: NDArray[np.int32], region: Region) -> float | None:
    """Smallest distance between patches of different parts, or None when there is but one part."""
    found = [closest(patches.take(one), patches.take(other), region) for one, other in _pairs_of_parts(part)]
    return min(found) if found else None


def _pairs_of_parts(part: NDArray[np.int32]) -> Iterator[tuple[NDArray, NDArray]]:
    members = [np.flatnonzero(part == number) for number in range(len(PARTS))]
    for first in range(len(PARTS)):
        for second in range(first + 1, len(PARTS)):
            if len(members[first]) and len(members[second]):
                yield members[first], members[second]


def _one_size(patches: PatchSet, others: PatchSet) -> bool:
    return all(
        len(np.unique(np.concatenate([getattr(patches, side), getattr(others, side)]))) == 1
        for side in ("height", "width")
    )


def _centres(patches: PatchSet, region: Region) -> NDArray[np.float64]:
    """Distance from the region's corner of the centres, down and right, in map units."""
    down = (patches.row + patches.height / 2) * region.nsres
    right = (patches.col + patches.width / 2) * region.ewres
    return np.column_stack([down, right])


def _reach(patches: PatchSet, region: Region, distance: float) -> NDArray[np.float64]:
    """How far apart, down and right, centres are whose patches lie ``distance`` apart."""
    size = np.array([int(patches.height[0]), int(patches.width[0])]) - _TOLERANCE
    return size * np.array([region.nsres, region.ewres]) + distance


def _gaps(patches: PatchSet, others: PatchSet, region: Region) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Distances of all pairs, some rows of them at a time; negative where patches overlap."""
    per_piece = max(1, _PAIRS_AT_ONCE // len(others))
    mine, theirs = _centres(patches, region), _centres(others, region)
    scale = (region.nsres, region.ewres)
    for first in range(0, len(patches), per_piece):
        rows = slice(first, first + per_piece)
        gaps = np.full((len(mine[rows]), len(theirs)), -np.inf)
        for axis, side in enumerate(("height", "width")):
            half = (getattr(patches, side)[rows, None] + getattr(others, side)[None, :]) * scale[axis] / 2
            np.maximum(gaps, np.abs(mine[rows, axis, None] - theirs[None, :, axis]) - half, out=gaps)
        yield rows, gaps
