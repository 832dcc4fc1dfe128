"""The history of a run for TensorBoard."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlearndeep.backends import require
from rlearndeep.errors import DeepLearningError

_PURPOSE = "The option tensorboard="
_RECORDS = "tensorboard.summary.writer.record_writer"


class NoLog:
    """Keeps nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""


class Log:
    """A log for TensorBoard, in whose directory earlier logs may stand.

    Its records are written here: the writer of ``tensorboard`` loads TensorFlow where that is installed.

    Args:
        directory: of the log; it is made.
        done: epochs that are done; what an interrupted run wrote of later ones is hidden.
        warn: called with a message for the user.
    """

    def __init__(self, directory: str, done: int, warn: Callable[[str], None]) -> None:
        records = require(_RECORDS, _PURPOSE, package="tensorboard")
        self._events = require("tensorboard.compat.proto.event_pb2", _PURPOSE, package="tensorboard")
        self._summaries = require("tensorboard.compat.proto.summary_pb2", _PURPOSE, package="tensorboard")
        self._directory, self._warn, self._ended = directory, warn, False
        session = self._events.SessionLog(status=self._events.SessionLog.START)
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{platform.node()}.{os.getpid()}"
            self._records = records.RecordWriter(open(Path(directory, name), "wb"))  # noqa: SIM115 - held by the log
            self._add(file_version="brain.Event:2")
            self._add(step=done + 1, session_log=session)
        except OSError as error:
            raise DeepLearningError(
                f"The directory of tensorboard= must be writable; '{directory}' is not ({error.strerror or error}). "
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
        try:
            self._add(step=row["epoch"], summary=self._summaries.Summary(value=values))
        except OSError as error:
            self._ended = True
            with suppress(OSError):  # what it still holds cannot be written either
                self._records.close()
            self._warn(
                f"The log of tensorboard= in '{self._directory}' could not be written ({error.strerror or error}); it "
                f"ends before epoch {row['epoch']}, training goes on. Free disk space."
            )

    def _add(self, **content: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()


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
        require(_RECORDS, _PURPOSE, package="tensorboard")
