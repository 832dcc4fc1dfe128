"""The history of a run for TensorBoard."""

from __future__ import annotations

import time
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
    """

    def __init__(self, directory: str, done: int) -> None:
        writer = require("tensorboard.summary.writer.event_file_writer", _PURPOSE, package="tensorboard")
        self._events = require("tensorboard.compat.proto.event_pb2", _PURPOSE, package="tensorboard")
        self._summaries = require("tensorboard.compat.proto.summary_pb2", _PURPOSE, package="tensorboard")
        try:
            _try_writing(Path(directory))
            self._file = writer.EventFileWriter(directory)
        except OSError as error:
            raise DeepLearningError(
                f"The directory of tensorboard= must be writable; '{directory}' is not ({error.strerror or error}). "
                "Choose another place."
            ) from error
        session = self._events.SessionLog(status=self._events.SessionLog.START)
        self._file.add_event(self._events.Event(wall_time=time.time(), step=done + 1, session_log=session))

    def write(self, row: dict[str, Any]) -> None:
        """Add a row of the history."""
        values = [
            self._summaries.Summary.Value(tag=name, simple_value=float(value))
            for name, value in row.items()
            if name not in ("epoch", "seconds") and value is not None
        ]
        summary = self._summaries.Summary(value=values)
        self._file.add_event(self._events.Event(wall_time=time.time(), step=row["epoch"], summary=summary))
        self._file.flush()


def _try_writing(directory: Path) -> None:
    """Make a directory and a file in it: where TensorFlow is installed, it does this with errors of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=directory):
        pass


def open_log(directory: str, done: int) -> Log | NoLog:
    """The log of a ``tensorboard=`` directory, or one that keeps nothing where it is empty.

    Raises:
        DeepLearningError: the directory is not writable.
        MissingPackage: ``tensorboard`` is not installed.
    """
    return Log(directory, done) if directory else NoLog()


def check_log(directory: str) -> None:
    """See that a ``tensorboard=`` directory can be served.

    Raises:
        MissingPackage: ``tensorboard`` is not installed.
    """
    if directory:
        require("tensorboard.summary.writer.event_file_writer", _PURPOSE, package="tensorboard")
