"""Splits: which part a patch belongs to, and which patches are left out so that parts stay apart.

Patches near each other look alike. A network that is tested on patches between those it was trained
on is asked to repeat, not to generalise, and its score flatters. The splits here therefore divide
ground (blocks, or places a column names) wherever they can; a random division has to be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PARTS
from rlearndeep.sampling.blocks import LEFT_OUT, divide_blocks, kept_apart, patch_extent, stratify
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.settings import Split
from rlearndeep.scene.geometry import Region

_PART_NAMES = {
    "training": 0,
    "train": 0,
    "validation": 1,
    "valid": 1,
    "val": 1,
    "test": 2,
    "testing": 2,
}


@dataclass(frozen=True)
class Division:
    """What a split decided for each patch.

    Attributes:
        part: position in ``PARTS``, or ``LEFT_OUT``.
        block: number of the block or group, counted from 1; 0 without.
        block_size: side of the blocks in map units, or None.
        buffer: distance in map units that was kept between parts.
        straddling: patches left out because they lie in several groups or in none.
        places: patches, each place counted once, before any was left out.
        close: patches left out because they lie closer than the buffer to another part.
    """

    part: NDArray[np.int32]
    block: NDArray[np.int64]
    block_size: float | None = None
    buffer: float = 0.0
    straddling: int = 0
    close: int = 0
    places: int = 0


def divide(
    patches: PatchSet,
    split: Split,
    region: Region,
    groups: Sequence[str],
    classes: int,
    seed: int,
    acquisitions: Sequence[str] = (),
) -> Division:
    """Assign patches to parts; the same place in several acquisitions has one part, but for ``acquisition``.

    Args:
        groups: values of the split column, in the order of the patches' group positions.
        classes: number of classes.
        acquisitions: their names, in the order of the patches' numbers.

    Raises:
        DeepLearningError: there are too few blocks, groups, acquisitions or patches for the shares.
    """
    buffer = split.buffer
    if buffer is None:
        buffer = max(patch_extent(patches, region)) if split.keeps_apart else 0.0
    first, place = patches.places()
    nothing = np.zeros(len(patches), dtype=np.int64)
    if split.kind == "none":
        return Division(nothing.astype(np.int32), nothing, places=len(first))
    block_size: float | None = None
    if split.kind == "acquisition":
        part, block = parts_of_acquisitions(patches, split, acquisitions), nothing
    else:
        part, block, block_size = _divide_places(patches.take(first), split, region, groups, classes, seed, buffer)
        part, block = part[place], block[place]
    straddling = int((part == LEFT_OUT).sum())
    _check_parts(part, split, before=True)
    close = 0
    if buffer > 0 or split.keeps_apart:
        part, close = kept_apart(patches, part, region, buffer)
        _check_parts(part, split, before=False)
    return Division(part, block, block_size, buffer, straddling, close, len(first))


def _divide_places(
    places: PatchSet,
    split: Split,
    region: Region,
    groups: Sequence[str],
    classes: int,
    seed: int,
    buffer: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64], float | None]:
    """Part and block per place, and the side of the blocks."""
    block = np.zeros(len(places), dtype=np.int64)
    if split.kind == "random":
        return _shuffled(np.zeros(len(places), dtype=np.int32), split.shares, seed), block, None
    if split.kind == "class":
        return _shuffled(places.label, split.shares, seed), block, None
    if split.kind == "column":
        part = parts_of_groups(places, split, groups, classes, seed)
        return part, np.where(places.group >= 0, places.group + 1, 0).astype(np.int64), None
    blocks = divide_blocks(places, split, region, classes, seed, buffer)
    return blocks.part, blocks.block, blocks.side


def parts_of_acquisitions(patches: PatchSet, split: Split, names: Sequence[str]) -> NDArray[np.int32]:
    """Parts by acquisition: those that ``split`` names, or the last for test and those before them for validation.

    Raises:
        DeepLearningError: too few acquisitions, or a name that is none of them.
    """
    wanted = sum(share > 0 for share in split.shares)
    if len(names) < max(2, 0 if split.validation or split.test else wanted):
        raise DeepLearningError(
            f"split=acquisition needs at least two acquisitions, and one for each part; group= names {len(names)} for "
            f"{wanted} parts. Name more groups, or give a part a share of 0 (shares=80,20,0)."
        )
    if split.validation or split.test:
        unknown = [name for name in (*split.validation, *split.test) if name not in names]
        if unknown:
            raise DeepLearningError(
                f"With split=acquisition validation= and test= name groups of group=; '{unknown[0]}' is none of "
                f"{_shortened(names)}. Correct the name."
            )
        part_of = [1 if name in split.validation else 2 if name in split.test else 0 for name in names]
    else:
        part_of = np.sort(_quota(len(names), split.shares)).tolist()
    acquisition = np.zeros(len(patches), dtype=np.int32) if patches.acquisition is None else patches.acquisition
    return np.array(part_of, dtype=np.int32)[acquisition]


def parts_of_groups(
    patches: PatchSet, split: Split, groups: Sequence[str], classes: int, seed: int
) -> NDArray[np.int32]:
    """Parts by the groups of the split column; patches in several groups or in none are left out.

    The column's values name the parts (training, validation, test), or ``split.validation`` and
    ``split.test`` list the values that form them, or whole groups are divided by the shares.

    Raises:
        DeepLearningError: a value that is none of the column's, a column that names parts for some features only, or
            too few groups.
    """
    named = [_PART_NAMES.get(value.strip().lower()) for value in groups]
    if split.validation or split.test:
        unknown = [value for value in (*split.validation, *split.test) if value not in groups]
        if unknown:
            raise DeepLearningError(
                f"validation= and test= name values of the split column; '{unknown[0]}' is none of its "
                f"{_shortened(groups)}. Correct the value."
            )
        part_of = [1 if value in split.validation else 2 if value in split.test else 0 for value in groups]
    elif groups and None not in named:
        part_of = [number for number in named if number is not None]
    else:
        _check_names(groups, named)
        part_of = _stratified_groups(patches, len(groups), split.shares, classes, seed)
    lookup = np.array([*part_of, LEFT_OUT], dtype=np.int32)
    return lookup[np.where(patches.group >= 0, patches.group, len(groups))]


def _check_names(groups: Sequence[str], named: Sequence[int | None]) -> None:
    """Refuse a column that names parts for some features: to divide them by chance would put test places into training.

    A single such value among others may be the name of a place.
    """
    if len(set(named) - {None}) > 1:
        parts = [value for value, number in zip(groups, named, strict=True) if number is not None]
        others = [value for value, number in zip(groups, named, strict=True) if number is None]
        raise DeepLearningError(
            f"A split column names a part for each feature, or for none; beside {_shortened(parts)} it has "
            f"{_shortened(others)}. Leave those features out with where=, correct the column, or say with validation= "
            "and test= which values form these parts."
        )


def names_parts(split: Split, groups: Sequence[str]) -> bool:
    """True when the split column decides the parts by itself and shares have no say."""
    if split.kind != "column":
        return False
    named = [_PART_NAMES.get(value.strip().lower()) for value in groups]
    return bool(split.validation or split.test or (groups and None not in named))


def wished_parts(split: Split, groups: Sequence[str]) -> set[int]:
    """Parts that names, values of the split column, or else shares ask for."""
    if split.validation or split.test:
        return {number for number, names in ((1, split.validation), (2, split.test)) if names}
    if names_parts(split, groups):
        return {_PART_NAMES[value.strip().lower()] for value in groups}
    return {number for number, share in enumerate(split.shares) if share > 0}


def _stratified_groups(
    patches: PatchSet, groups: int, shares: tuple[float, float, float], classes: int, seed: int
) -> list[int]:
    owner = patches.group
    used = np.unique(owner[owner >= 0])
    wanted = sum(share > 0 for share in shares)
    if len(used) < wanted:
        raise DeepLearningError(
            f"Every part needs values of the split column of its own; patches have {len(used)} for {wanted} parts. "
            "Choose another split_column=, or give a part a share of 0 (shares=80,20,0)."
        )
    amounts = np.column_stack(
        [patches.totals(owner, groups, classes), np.bincount(owner[owner >= 0], minlength=groups)]
    )
    part = np.zeros(groups, dtype=np.int32)
    part[used] = stratify(amounts[used], shares, seed)
    return part.tolist()


def _shuffled(stratum: NDArray, shares: tuple[float, float, float], seed: int) -> NDArray[np.int32]:
    """Parts by chance; each stratum meets the shares to within one patch."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(stratum))
    order = order[np.argsort(stratum[order], kind="stable")]
    sizes = np.unique(stratum, return_counts=True)[1]
    part = np.empty(len(stratum), dtype=np.int32)
    part[order] = np.concatenate([_quota(size, shares) for size in sizes.tolist()])
    return part


def _quota(size: int, shares: tuple[float, float, float]) -> NDArray[np.int32]:
    """Parts of ``size`` members by largest remainders; with enough members no part with a share is empty."""
    exact = np.array(shares) * size
    count = np.floor(exact).astype(np.int64)
    for position in np.argsort(-(exact - count), kind="stable")[: size - count.sum()]:
        count[position] += 1
    wanting = (count == 0) & (exact > 0)
    while wanting.any() and count.max() > 1:
        count[count.argmax()] -= 1
        count[np.flatnonzero(wanting)[-1]] += 1
        wanting = (count == 0) & (exact > 0)
    return np.repeat(np.arange(len(shares), dtype=np.int32), count)


def _check_parts(part: NDArray[np.int32], split: Split, before: bool) -> None:
    for number, (name, share) in enumerate(zip(PARTS, split.shares, strict=True)):
        empty = not (part == number).any()
        if not empty or (number > 0 and (share == 0 or split.kind in ("column", "acquisition"))):
            continue
        if before:
            raise DeepLearningError(
                f"Every part with a share needs a patch; the {name} part got none of {len(part)}. Sample more patches "
                f"(a smaller size= or stride=), or give the part a share of 0."
            )
        raise DeepLearningError(
            f"Patches closer than the buffer to another part are left out; that leaves no {name} patch. Choose a "
            "smaller buffer= or size=, another block_size=, or enlarge the region."
        )


def _shortened(values: Sequence[str]) -> str:
    listed = ", ".join(f"'{value}'" for value in values[:8])
    return f"{len(values)} values ({listed}{', ...' if len(values) > 8 else ''})"
