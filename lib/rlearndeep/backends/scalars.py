"""The history of a run for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from rlearndeep.backends import require
from rlearndeep.errors import DeepLearningError

_PURPOSE = "The option tensorboard="


class NoLog:
    """Keeps nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""


class Log:
    """A log for TensorBoard, in whose directory earlier logs may stand.

    Args:
        directory: of the log; it is made.
        done: epochs that are done; what an interrupted run wrote of later ones is hidden.
        warn: called with a message for the user.
    """

    def __init__(self, directory: str, done: int, warn: Callable[[str], None]) -> None:
        writer = require("tensorboard.summary.writer.event_file_writer", _PURPOSE, package="tensorboard")
        self._events = require("tensorboard.compat.proto.event_pb2", _PURPOSE, package="tensorboard")
        self._summaries = require("tensorboard.compat.proto.summary_pb2", _PURPOSE, package="tensorboard")
        self._directory, self._warn, self._ended = directory, warn, False
        session = self._events.SessionLog(status=self._events.SessionLog.START)
        try:
            _try_writing(Path(directory))
            self._file = writer.EventFileWriter(directory)
            self._add(step=done + 1, session_log=session)
        except Exception as error:  # where TensorFlow is installed, it writes, with errors of its own
            raise DeepLearningError(
                f"The directory of tensorboard= must be writable; '{directory}' is not ({_reason(error)}). "
                "Choose another place."
            ) from error

    def write(self, row: dict[str, Any]) -> None:
        """Add a row of the history; where the disk takes no more, the log ends with a warning."""
        if self._ended:
            return
        values = [
            self._summaries.Summary.Value(tag=name, simple_value=float(value))
            for name, value in row.items()
            if name not in ("epoch", "seconds") and value is not None
        ]
        summary = self._summaries.Summary(value=values)
        try:
            self._add(step=row["epoch"], summary=summary)
        except Exception as error:
            self._ended = True
            self._warn(
                f"The log of tensorboard= in '{self._directory}' could not be written ({_reason(error)}); it ends "
                f"before epoch {row['epoch']}, training goes on. Free disk space."
            )

    def _add(self, **content: Any) -> None:
        self._file.add_event(self._events.Event(wall_time=time.time(), **content))
        self._file.flush()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _try_writing(directory: Path) -> None:
    """Make a directory and a file in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=directory):
        pass


def open_log(directory: str, done: int, warn: Callable[[str], None]) -> Log | NoLog:
    """The log of a ``tensorboard=`` directory, or one that keeps nothing where it is empty; see :class:`Log`.

    Raises:
        DeepLearningError: the directory is not writable.
        MissingPackage: ``tensorboard`` is not installed.
    """
    return Log(directory, done, warn) if directory else NoLog()


def check_log(directory: str) -> None:
    """See that a ``tensorboard=`` directory can be served.

    Raises:
        MissingPackage: ``tensorboard`` is not installed.
    """
    if directory:
        require("tensorboard.summary.writer.event_file_writer", _PURPOSE, package="tensorboard")
