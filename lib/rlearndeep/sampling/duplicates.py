"""Identical patches: found before they are chosen by a number of their content, or among those that are written."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from rlearndeep.patches import Manifest, PatchWriter
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.placement import mix, priority

# Bytes of a number of the content; of twenty million patches two different ones share one with a chance of 1e-5.
_KEY = 8

# Contents of at most so many bytes are mixed at once for all patches, larger ones digested one by one.
_FEW_BYTES = 64

# Bytes of a digest: two different patches share one with a chance of 2 to the power of -64 in
# four thousand million patches.
_DIGEST = 16


class ContentKeys:
    """Takes the content of patches and keeps a number of each that depends on nothing else.

    Attributes:
        manifest: what the patches are like.
        keys: the numbers.
    """

    def __init__(self, manifest: Manifest, count: int) -> None:
        self.manifest = manifest
        self.keys = np.zeros(count, dtype=np.uint64)

    def put(self, name: str, first: int, values: NDArray) -> None:
        """Let rows of an array count, from patch ``first`` on."""
        rows, flat = slice(first, first + len(values)), _bytes(values)
        if flat.shape[1] > _FEW_BYTES:
            digests = b"".join(hashlib.blake2b(row, digest_size=_KEY).digest() for row in flat)
            flat = np.frombuffer(digests, dtype=np.uint8).reshape(len(values), _KEY)
        words = np.zeros((len(values), -(-flat.shape[1] // _KEY) * _KEY), dtype=np.uint8)
        words[:, : flat.shape[1]] = flat
        for word in words.view(np.uint64).T:
            self.keys[rows] = mix(self.keys[rows], word)

    def release(self) -> None:
        """Nothing is held."""


def first_of_each(keys: NDArray[np.uint64], patches: PatchSet, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of one patch of each content: the one that a choice by chance would take first."""
    order = np.argsort(priority(seed, patches.row, patches.col), kind="stable")
    return np.sort(order[np.unique(keys[order], return_index=True)[1]])


def duplicates(writer: PatchWriter, signatures: NDArray, part: NDArray[np.int32]) -> NDArray[np.int64]:
    """Positions of patches whose bands, validity and label equal those of a patch that is kept.

    Of identical patches the one in the test part is kept, else that in validation, else the first:
    the same order in which a buffer protects the parts.

    Args:
        writer: holds the patches.
        signatures: a row of numbers per patch, equal for identical patches; only patches whose
            numbers equal another's are compared byte by byte.
        part: of each patch.
    """
    suspects = np.flatnonzero(_repeated(_as_keys(signatures)))
    if not len(suspects):
        return suspects
    contents = _contents(writer, suspects)
    order = np.lexsort((suspects, -part[suspects]))
    _, first = np.unique(contents[order], return_index=True)
    extra = np.ones(len(suspects), dtype=bool)
    extra[order[first]] = False
    return suspects[extra]


def _repeated(keys: NDArray) -> NDArray[np.bool_]:
    _, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    return count[inverse] > 1


def _as_keys(rows: NDArray) -> NDArray:
    """Rows of numbers as one opaque, sortable value each."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def _contents(writer: PatchWriter, positions: NDArray[np.int64]) -> NDArray:
    """What identifies the content of patches: the bytes themselves of small ones, digests of others."""
    arrays = [writer.labels, *writer.images.values(), *writer.valid.values()]
    size = sum(array[0].nbytes for array in arrays)
    if size <= 4 * _DIGEST:
        flat = [_bytes(array[positions]) for array in arrays]
        return _as_keys(np.concatenate(flat, axis=1))
    digests = np.empty((len(positions), _DIGEST), dtype=np.uint8)
    for number, position in enumerate(positions.tolist()):
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[position]).data)
        digests[number] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return _as_keys(digests)


def _bytes(values: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
