"""The state of a run after an epoch: files of arrays, and JSON; nothing that could run code.

::

    weights-<n>.arrays          network after epoch n: of the last one, and of the best one so far
    rest-<n>.arrays             optimizer, schedule and so on after epoch n
    state.json                  names them, written last: what it names is whole
    weights.spare, rest.spare   of an epoch before; the next files are written over them

Writing over a file, straight from the arrays, takes a third of the time of a new file: the system has its pages in
memory already. That time the next epoch lacks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlearndeep.arrayfile import SUFFIX, Arrays, read_arrays, write_arrays
from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text

STATE = "state.json"
_FILES = ("rest", "weights", "best")
_ARRAY = "tensor:"
_PAIRS = "pairs:"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        epochs: number of epochs that are done.
        best_epoch: counted from 1.
        weights: of the last epoch.
        best: weights of the best epoch; those of the last one where it is the best.
        values: nested dictionaries and lists of plain values and arrays.
    """

    epochs: int
    best_epoch: int
    weights: Arrays
    best: Arrays
    values: dict[str, Any]


class Writer:
    """Writes checkpoints while training goes on, one after the other; on leaving the last one is finished.

    Args:
        folder: where to write.
        warn: called with a message where a checkpoint could not be written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._has_written = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._thread:
            self._wait()
        if self._has_written:  # else another process may still write here
            _remove(self._folder.glob("*.spare"))

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint when the one before is; its arrays must not change any more."""
        self._wait()
        self._has_written = True
        arrays: Arrays = {}
        values = _plain(checkpoint.values, arrays)
        self._writing = self._thread.submit(_write, self._folder, checkpoint, values, arrays)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except OSError as error:
            self._warn(
                f"A checkpoint could not be written to '{self._folder}' ({error.strerror or error}); training goes on. "
                "Free disk space."
            )


def _write(folder: Path, checkpoint: Checkpoint, values: Any, arrays: Arrays) -> None:
    """Write a checkpoint; an older one goes only when the new one stands."""
    names = {
        "rest": f"rest-{checkpoint.epochs}{SUFFIX}",
        "weights": f"weights-{checkpoint.epochs}{SUFFIX}",
        "best": f"weights-{checkpoint.best_epoch}{SUFFIX}",
    }
    try:
        _write_arrays(folder / names["rest"], arrays)
        _write_arrays(folder / names["weights"], checkpoint.weights)
        if not (folder / names["best"]).exists():  # the epoch could not be kept, for want of space
            _write_arrays(folder / names["best"], checkpoint.best)
        state = {"epochs": checkpoint.epochs, "best_epoch": checkpoint.best_epoch, **names, "values": values}
        write_text(folder / STATE, json.dumps(state))
    except OSError:
        _remove_all_but(folder, _named(folder))
        raise
    _retire_all_but(folder, set(names.values()))


def read(folder: Path) -> Checkpoint | None:
    """The checkpoint of a folder; None where there is none.

    Raises:
        DeepLearningError: it is damaged.
    """
    if not (folder / STATE).is_file():
        return None
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        rest, weights, best = (_read_arrays(folder, str(state[key])) for key in _FILES)
        values = _whole(state["values"], rest)
        return Checkpoint(int(state["epochs"]), int(state["best_epoch"]), weights, best, values)
    except (OSError, EOFError, MemoryError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> DeepLearningError:
    """The error for a checkpoint that cannot be used."""
    return DeepLearningError(
        f"The checkpoint of an interrupted run must be whole; '{folder}' is damaged ({type(error).__name__}: "
        f"{' '.join(str(error).split())}). Start again without -r and with --overwrite."
    )


def epochs_done(folder: Path) -> int:
    """Number of epochs of the checkpoint of a folder, 0 where there is none; a damaged one counts."""
    file = folder / STATE
    if not file.is_file():
        return 0
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def clear(folder: Path) -> None:
    """Forget a checkpoint; what stands beside it in the folder stays."""
    (folder / STATE).unlink(missing_ok=True)
    _remove_all_but(folder, set())


def _write_arrays(file: Path, arrays: Arrays) -> None:
    hidden, spare = file.with_suffix(".part"), _spare(file)
    if spare.exists():
        spare.rename(hidden)
    else:
        hidden.touch()
    with open(hidden, "r+b", buffering=0) as stream:
        write_arrays(stream, arrays)
        stream.truncate()
        os.fsync(stream.fileno())
    hidden.rename(file)


def _read_arrays(folder: Path, name: str) -> Arrays:
    if Path(name).name != name:
        raise ValueError(f"'{name}' lies outside")
    with open(folder / name, "rb") as stream:
        return read_arrays(stream)


def _spare(file: Path) -> Path:
    return file.with_name(f"{file.name.partition('-')[0]}.spare")


def _named(folder: Path) -> set[str]:
    """Files of the checkpoint that stands."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return {str(state[key]) for key in _FILES}
    except (OSError, ValueError, KeyError):
        return set()


def _retire_all_but(folder: Path, kept: set[str]) -> None:
    for file in folder.glob(f"*{SUFFIX}"):
        if file.name not in kept:
            file.rename(_spare(file))


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    files = [*folder.glob(f"*{SUFFIX}"), *folder.glob("*.part"), *folder.glob("*.spare")]
    _remove(file for file in files if file.name not in kept)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _plain(value: Any, arrays: Arrays) -> Any:
    """Plain values for JSON; arrays go into the table and leave their name."""
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = np.asarray(value, order="C")
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {_PAIRS: [[key, _plain(entry, arrays)] for key, entry in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, arrays) for entry in value]
    return value


def _whole(value: Any, arrays: Arrays) -> Any:
    """Inverse of :func:`_plain`; tuples come back as lists."""
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _whole(entry, arrays) for key, entry in value[_PAIRS]}
    return [_whole(entry, arrays) for entry in value] if isinstance(value, list) else value
