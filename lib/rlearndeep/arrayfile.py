"""Arrays in files, as NumPy writes them; no pickles, so nothing that could run code."""

from __future__ import annotations

import json
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".arrays"
"""Of files of several arrays with names."""

Arrays = dict[str, NDArray]


def load_array(file: Path | BinaryIO, mmap_mode: Literal["r"] | None = None) -> NDArray:
    """An array that NumPy wrote.

    Raises:
        OSError, EOFError, ValueError: there is none, or it is damaged.
    """
    try:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except (SyntaxError, TokenError, TypeError, OverflowError) as error:  # from the parsers of the header
        raise ValueError(f"its header is damaged ({error})") from error


def write_arrays(stream: BinaryIO, arrays: Arrays) -> None:
    """Write arrays with names to a file opened without a buffer, for which NumPy would copy them."""
    names = np.frombuffer(json.dumps(list(arrays)).encode(), dtype=np.uint8)
    for array in (names, *arrays.values()):
        np.save(stream, array, allow_pickle=False)


def read_arrays(stream: BinaryIO) -> Arrays:
    """What :func:`write_arrays` wrote.

    Raises:
        EOFError, ValueError: the file is not whole, or no such file.
    """
    names = json.loads(load_array(stream).tobytes())
    return {str(name): load_array(stream) for name in names}
