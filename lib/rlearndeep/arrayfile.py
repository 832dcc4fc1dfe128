"""Arrays in files, as NumPy writes them; no pickles, so nothing that could run code."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".arrays"
"""Of files of several arrays with names."""

Arrays = dict[str, NDArray]

# What the blocks of all usual disks divide.
_BLOCK = mmap.PAGESIZE
_HEADER = 1024  # bytes that NumPy's header of an array takes at most
_LARGEST = 16 * 1024**2


def load_array(file: Path | BinaryIO, mmap_mode: Literal["r"] | None = None) -> NDArray:
    """An array that NumPy wrote.

    Raises:
        OSError, EOFError, ValueError: there is none, or it is damaged.
    """
    try:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except (SyntaxError, TokenError, TypeError, OverflowError) as error:  # from the parsers of the header
        raise ValueError(f"its header is damaged ({error})") from error


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


def write_arrays(stream: _Writable, arrays: Arrays) -> None:
    """Write arrays with names, best to a file opened without a buffer, for which NumPy would copy them."""
    names = np.frombuffer(json.dumps(list(arrays)).encode(), dtype=np.uint8)
    for array in (names, *arrays.values()):
        np.save(stream, array, allow_pickle=False)


class UncachedWriter:
    """Writes files of arrays past the memory in which the system keeps files, where that is possible.

    For what is hardly ever read: finding fresh pages of that memory takes longer than filling them. The files end with
    zeros. Files of more than 16 MB, which would be held twice, are written as others are. One thread at a time may
    write.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BLOCK)  # begins at a page, as the disk wants it

    def write(self, file: Path, arrays: Arrays) -> None:
        """Write arrays with names to a new file, as :func:`write_arrays` does.

        Raises:
            OSError: the disk is full, or the file cannot be written.
        """
        largest = sum(array.nbytes + len(name) + _HEADER for name, array in arrays.items()) + _HEADER
        if largest > _LARGEST:
            with open(file, "wb", buffering=0) as stream:
                write_arrays(stream, arrays)
            return
        if largest > len(self._memory):
            self._memory = mmap.mmap(-1, _whole_blocks(largest))
        self._memory.seek(0)
        write_arrays(self._memory, arrays)
        end = self._memory.tell()
        self._memory.write(bytes(_whole_blocks(end) - end))
        try:
            self._copy(file, getattr(os, "O_DIRECT", 0))
        except OSError:  # not every file system can; what else is wrong shows again
            self._copy(file, 0)

    def _copy(self, file: Path, flags: int) -> None:
        size = self._memory.tell()
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o666)
        try:
            with memoryview(self._memory) as content:
                done = 0
                while done < size:
                    done += os.write(target, content[done:size])
        finally:
            os.close(target)


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def read_arrays(stream: BinaryIO) -> Arrays:
    """What :func:`write_arrays` wrote.

    Raises:
        EOFError, ValueError: the file is not whole, or no such file.
    """
    names = json.loads(load_array(stream).tobytes())
    return {str(name): load_array(stream) for name in names}
