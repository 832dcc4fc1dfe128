"""The export that follows a training: it fails or is interrupted without a loss, and can be done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.resuming import finish, locked, run_folder
from rlearndeep.model import read_card


def export(target: Path, backend: ModuleType, file: Path, *, command: str, warn: Callable[[str], None]) -> None:
    """Write the network of a model directory that stands as a file of ONNX; its run is over then.

    Args:
        target: the model directory.
        backend: the room that knows the framework.
        file: to write, whole or not at all.
        command: that was given.
        warn: called with a message for the user.

    Raises:
        DeepLearningError: the export failed; the model is what it was.
    """
    folder = run_folder(target)
    with locked(folder):
        try:
            backend.export_onnx(target, read_card(target), file)
        except DeepLearningError as error:
            raise DeepLearningError(
                f"{error} The model '{target}' is whole; the same command with -r does nothing but the export."
            ) from error
        except KeyboardInterrupt:
            warn(f"Interrupted; the model '{target}' is whole. To export it: {command.removesuffix(' -r')} -r")
            raise
        finish(folder)
