"""Blocks of ground: whole blocks are divided among the parts, and patches near another part left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PARTS
from rlearndeep.sampling.leakage import too_close
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.settings import Split
from rlearndeep.scene.geometry import Region

LEFT_OUT = -1
"""Part of a patch that is left out."""

# Default blocks: about so many in the region, none smaller than so many patches; on small scenes smaller.
_BLOCKS = 40
_PATCHES_PER_SIDE = 4
_SMALLER = (3, 2, 1)

# A division in which every part has every class and that loses no more than this is taken at once.
_GOOD_ENOUGH = 0.15
_ATTEMPTS = (8, 64)

# Divisions are compared on so many patches.
_COMPARED = 4000

# Chance makes groups count for no less of their amounts when the largest is looked for: seeds divide differently, and
# large groups still go first.
_LEAST_OF_AMOUNT = 0.5


@dataclass(frozen=True)
class Blocks:
    """Blocks and what was decided of them: part and block of each patch, side in map units."""

    part: NDArray[np.int32]
    block: NDArray[np.int64]
    side: float


def divide_blocks(patches: PatchSet, split: Split, region: Region, classes: int, seed: int, buffer: float) -> Blocks:
    """Divide whole blocks among the parts.

    The first choice is a stratified random division of default blocks. When it and the buffer
    would leave much less of a part than its share, or a part without a class, others are tried:
    other draws, smaller blocks (unless the user gave their size), and compact ones that take validation and
    test from opposite ends of the region. The one that loses least is taken.

    Raises:
        DeepLearningError: there are fewer blocks than parts.
    """
    thin = _thinned(len(patches), seed)
    sample = patches.take(thin)
    wanted = sum(share > 0 for share in split.shares)
    best: Blocks | None = None
    least = math.inf
    for side in [split.block_size] if split.block_size else default_block_sizes(region, patch_extent(patches, region)):
        block = blocks_of(patches, region, side)
        numbers, owner = np.unique(block, return_inverse=True)
        if len(numbers) < wanted:
            continue
        for part_of in _proposals(patches, owner, numbers, split.shares, classes, seed, region, side):
            part, _ = kept_apart(sample, part_of[owner[thin]], region, buffer)
            lacking, missing = _loss(sample, part, split.shares, classes)
            if lacking + missing < least:
                least, best = lacking + missing, Blocks(part_of[owner], block, side)
            if lacking <= _GOOD_ENOUGH and not missing and best is not None:
                return best
    if best is None:
        raise DeepLearningError(
            f"Every part needs a block of its own; patches lie in fewer blocks than the {wanted} parts. Choose a "
            "smaller block_size= or size=, enlarge the region, or give a part a share of 0 (shares=80,20,0)."
        )
    return best


def patch_extent(patches: PatchSet, region: Region) -> tuple[float, float]:
    """Height and width of the largest patch in map units."""
    return int(patches.height.max()) * region.nsres, int(patches.width.max()) * region.ewres


def default_block_sizes(region: Region, size: tuple[float, float]) -> list[float]:
    """Sides in map units of blocks, the preferred one first.

    The preferred one divides the region into about forty blocks, each at least four patches long; where
    the four patches decide, fewer are offered as well. All are whole numbers of patches.
    """
    side = max(size)
    ideal = math.ceil(math.sqrt((region.north - region.south) * (region.east - region.west) / _BLOCKS) / side)
    if ideal > _PATCHES_PER_SIDE:
        return [side * ideal]
    return [side * count for count in (_PATCHES_PER_SIDE, *_SMALLER)]


def blocks_of(patches: PatchSet, region: Region, side: float) -> NDArray[np.int64]:
    """Number, from 1, of the block that holds the centre of each patch.

    Blocks are squares whose corners have coordinates that are multiples of ``side``; they are counted
    along the rows of blocks that touch the region.
    """
    east, north = patches.centres(region)
    across = np.floor(east / side).astype(np.int64) - math.floor(region.west / side)
    down = np.floor(-north / side).astype(np.int64) - math.floor(-region.north / side)
    return down * _blocks_across(region, side) + across + 1


def _blocks_across(region: Region, side: float) -> int:
    return math.floor(region.east / side) - math.floor(region.west / side) + 1


def _thinned(count: int, seed: int) -> NDArray[np.int64]:
    if count <= _COMPARED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _COMPARED, replace=False))


def _proposals(
    patches: PatchSet,
    owner: NDArray,
    numbers: NDArray[np.int64],
    shares: tuple[float, float, float],
    classes: int,
    seed: int,
    region: Region,
    side: float,
) -> Iterator[NDArray[np.int32]]:
    """Part per block: stratified draws, then compact divisions."""
    patches_in = np.bincount(owner, minlength=len(numbers))
    amounts = np.column_stack([patches.totals(owner, len(numbers), classes), patches_in])
    # The fewer patches, the quicker an attempt, and the more it matters.
    for attempt in range(int(np.clip(_COMPARED * 10 // len(patches), *_ATTEMPTS))):
        yield stratify(amounts, shares, (seed, attempt))
    down, across = np.divmod(numbers - 1, _blocks_across(region, side))
    orders = (np.lexsort((across, down)), np.lexsort((down, across)))
    directions = [direction for order in orders for direction in (order, order[::-1])]
    for number in np.random.default_rng(seed).permutation(len(directions)).tolist():
        direction = directions[number]
        yield from_both_ends(patches_in[direction], shares)[np.argsort(direction)]


def from_both_ends(amounts: NDArray[np.int64], shares: Sequence[float]) -> NDArray[np.int32]:
    """Parts of ordered blocks: validation from the first on, test from the last back, training between."""
    part = np.zeros(len(amounts), dtype=np.int32)
    total = amounts.sum()
    for number, blocks in ((1, np.arange(len(amounts))), (2, np.arange(len(amounts))[::-1])):
        if shares[number] > 0:
            before = np.cumsum(amounts[blocks]) - amounts[blocks]
            part[blocks[before + amounts[blocks] / 2 < np.maximum(shares[number] * total, amounts[blocks])]] = number
    return part


def _loss(patches: PatchSet, part: NDArray[np.int32], shares: Sequence[float], classes: int) -> tuple[float, float]:
    """How much of its share the worst part lacks, and the share of classes that each part misses, summed up.

    A class that training misses cannot be learned at all and weighs as much as two that others miss.
    """
    wanted = [number for number, share in enumerate(shares) if share > 0]
    kept = min((part == number).sum() / (shares[number] * len(part)) for number in wanted)
    missing = patches.totals(part, len(PARTS), classes)[wanted] == 0
    return 1.0 - min(1.0, float(kept)), float(missing.mean(axis=1).sum() + missing[0].mean())


def stratify(amounts: NDArray[np.int64], shares: Sequence[float], seed: int | tuple[int, ...]) -> NDArray[np.int32]:
    """Divide groups so that every column meets the shares as closely as whole groups allow.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) for groups of any amount: the column
    with the fewest groups left goes first, one of its largest groups, by chance, to the part that lacks
    most of it. When only as many groups of a column are left as there are parts without any, those parts take them.

    Args:
        amounts: what each group holds, (groups, columns), e.g. labelled cells per class and patches.
        shares: of the parts; a part with share 0 gets nothing.
        seed: one number, or several that count together.

    Returns:
        Part of each group.
    """
    random = np.random.default_rng(seed)
    shuffle = random.permutation(len(amounts))
    chance = random.uniform(_LEAST_OF_AMOUNT, 1.0, len(amounts))
    amounts = amounts[shuffle].astype(np.float64)
    scale = np.maximum(amounts.sum(axis=0), 1)
    amounts = amounts / scale
    share = np.asarray(shares, dtype=np.float64)
    lacking = share[:, None] * amounts.sum(axis=0)
    held = np.zeros((len(share), amounts.shape[1]), dtype=bool)
    held[share == 0] = True
    empty = share > 0
    part = np.full(len(amounts), -1, dtype=np.int32)
    while (part < 0).any():
        left = part < 0
        present = (amounts > 0) & left[:, None]
        counts = present.sum(axis=0)
        column = int(np.where(counts > 0, counts, np.iinfo(np.int64).max).argmin())
        members = np.flatnonzero(present[:, column]) if counts[column] else np.flatnonzero(left)
        group = int(members[(amounts[members, column] * chance[members]).argmax()])
        part[group] = choice = _neediest(lacking, held, share, empty, column, left.sum(), counts[column])
        lacking[choice] -= amounts[group]
        held[choice] |= amounts[group] > 0
        empty[choice] = False
    result = np.empty_like(part)
    result[shuffle] = part
    return result


def _neediest(
    lacking: NDArray,
    held: NDArray[np.bool_],
    share: NDArray,
    empty: NDArray[np.bool_],
    column: int,
    groups_left: int,
    of_column_left: int,
) -> int:
    """The part that takes the next group: one without anything, one without the class, or the neediest."""
    candidates = share > 0
    without = ~held[:, column]
    if empty.any() and groups_left <= empty.sum():
        candidates = empty
    elif without.any() and of_column_left <= without.sum():
        candidates = without
    need = np.where(candidates, lacking[:, column], -np.inf)
    best = np.flatnonzero(need >= need.max() - 1e-12)
    overall = lacking[best].sum(axis=1)
    # Of equal parts the last takes the group: a class without test says less than one without validation.
    return int(best[np.flatnonzero(overall >= overall.max() - 1e-12)[-1]])


def kept_apart(
    patches: PatchSet, part: NDArray[np.int32], region: Region, buffer: float
) -> tuple[NDArray[np.int32], int]:
    """Leave out patches closer than the buffer to another part: training first, then validation.

    Returns:
        The parts, and how many patches were left out.
    """
    part = part.copy()
    before = int((part != LEFT_OUT).sum())
    for loser in (0, 1):
        mine, theirs = np.flatnonzero(part == loser), np.flatnonzero(part > loser)
        part[mine[too_close(patches.take(mine), patches.take(theirs), region, buffer)]] = LEFT_OUT
    return part, before - int((part != LEFT_OUT).sum())
