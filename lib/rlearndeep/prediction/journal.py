"""Finished rows on disk, so that an interrupted prediction can go on.

A directory with a file of what is predicted (``job.json``) and one file of arrays per group of finished rows. Such a
file appears under its name when it is written, and holds a checksum; a damaged one ends what is remembered. Only one
process at a time may hold the directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rlearndeep.arrayfile import SUFFIX, Arrays, UncachedWriter, read_arrays
from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text
from rlearndeep.prediction.maps import Rows
from rlearndeep.prediction.segments import Share
from rlearndeep.scene.bands import BandStatistics

_JOB = "job.json"
_LOCK = "lock"
_CHECKSUM = "checksum"
_SHARE = ("here", "sums", "cells", "lost", "lost_cells")

UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError)
"""What reading a damaged file raises."""


class RowJournal:
    """Remembers finished rows in a directory until the ``with`` block of the journal ends without an error.

    Args:
        directory: hidden, of one output; made here.
        job: what is predicted, JSON values by a name that a user understands.
        resume: go on where an interrupted prediction of the same job stopped; else what is there is forgotten.

    Raises:
        DeepLearningError: another process writes there, there is nothing to continue, or it is another job.
    """

    def __init__(self, directory: Path, job: dict[str, Any], resume: bool) -> None:
        self._directory = directory
        self._job = json.loads(json.dumps(job))
        self._files: list[Path] = []
        self._writer = UncachedWriter()
        self.done = 0
        known = directory / _JOB
        if resume and not known.is_file():
            raise DeepLearningError(
                "There must be an interrupted prediction to continue; none of this output was found in this mapset. "
                "Leave -r out."
            )
        with _writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory / _LOCK)
            if resume:
                self._check(json.loads(known.read_text(encoding="utf-8")))
                self._files = list(self._usable())
            self._forget(self._files)
            write_text(known, json.dumps(self._job))

    def __enter__(self) -> RowJournal:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # the prediction is complete
            shutil.rmtree(self._directory, ignore_errors=True)
        self._lock.close()

    def __iter__(self) -> Iterator[Rows]:
        """The remembered rows, from the top."""
        for file in self._files:
            yield _read(file)

    def append(self, rows: Rows) -> None:
        """Remember rows.

        Raises:
            DeepLearningError: they cannot be written.
        """
        file = self._directory / f"{rows.row_stop:012d}{SUFFIX}"
        hidden = file.with_suffix(".part")
        arrays = _arrays(rows)
        with _writing(self._directory):
            self._writer.write(hidden, {**arrays, _CHECKSUM: _checksum(arrays)})
            hidden.rename(file)

    def _check(self, known: dict[str, Any]) -> None:
        changed = [name for name in self._job if known.get(name) != self._job[name]]
        if changed:
            raise DeepLearningError(
                "An interrupted prediction is continued with the same model, region, maps and options; changed since: "
                f"{', '.join(changed)}. Restore them, or leave -r out to begin anew."
            )

    def _usable(self) -> Iterator[Path]:
        for file in sorted(self._directory.glob(f"*{SUFFIX}")):
            try:
                rows = _read(file)
            except UNREADABLE:
                return
            if rows.row_stop - len(rows.counts) != self.done:
                return
            self.done = rows.row_stop
            yield file

    def _forget(self, but: list[Path]) -> None:
        for file in (*self._directory.glob(f"*{SUFFIX}"), *self._directory.glob("*.part")):
            if file not in but:
                file.unlink(missing_ok=True)


def digest(file: Path) -> str:
    """What tells the content of a file from any other."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _locked(file: Path) -> BinaryIO:
    stream = open(file, "ab")  # noqa: SIM115 - held as long as the journal
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise DeepLearningError(
            "An output is written by one prediction at a time; another one that runs in this mapset writes it now. "
            "Choose another output, or wait."
        ) from error
    return stream


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Make one message of what the disk may say."""
    try:
        yield
    except OSError as error:
        raise DeepLearningError(
            f"Finished rows must be kept in '{directory}'; that failed ({error.strerror or error}). "
            "Check disk space and permissions, then continue with -r."
        ) from error


def _arrays(rows: Rows) -> Arrays:
    arrays: Arrays = {
        "row_stop": np.array(rows.row_stop),
        "counts": rows.counts,
        "statistics": np.array(astuple(rows.statistics), dtype=np.float64),
        "sizes": np.array([len(rows.layers), len(rows.shares)]),
    }
    arrays |= {f"kept{number}": values for number, values in enumerate(rows.layers)}
    for number, share in enumerate(rows.shares):
        arrays |= {f"{name}{number}": getattr(share, name) for name in _SHARE}
    return arrays


def _read(file: Path) -> Rows:
    with open(file, "rb") as stream:
        arrays = read_arrays(stream)
    if arrays.pop(_CHECKSUM) != _checksum(arrays):
        raise ValueError(f"'{file}' was changed")
    layers, shares = (int(number) for number in arrays["sizes"])
    count, *moments = arrays["statistics"].tolist()
    return Rows(
        int(arrays["row_stop"]),
        tuple(arrays[f"kept{number}"] for number in range(layers)),
        arrays["counts"],
        BandStatistics(int(count), *moments),
        tuple(Share(*(arrays[f"{name}{number}"] for name in _SHARE)) for number in range(shares)),
    )


def _checksum(arrays: Arrays) -> NDArray[np.uint32]:
    """CRC-32 of all arrays, with their names, types and shapes."""
    known = 0
    for name, array in arrays.items():
        known = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), known)
        known = zlib.crc32(np.ascontiguousarray(array).data, known)
    return np.array(known, dtype=np.uint32)
