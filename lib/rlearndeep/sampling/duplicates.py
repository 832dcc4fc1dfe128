"""Identical patches, found in one pass over what sums have in common."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from rlearndeep.patches import PatchWriter

# Bytes of a digest: two different patches share one with a chance of 2 to the power of -64 in
# four thousand million patches.
_DIGEST = 16


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
