"""Interrupted runs: where their checkpoint stands, and whether a run may go on from it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text
from rlearndeep.learning.options import Settings
from rlearndeep.model import MANIFEST as MODEL_MANIFEST
from rlearndeep.model import read_any_card
from rlearndeep.patches import MANIFEST, PatchDataset

RECORD = "run.json"
FINISHED = "finished.json"

# These may change between an interruption and going on.
_FREE = ("device", "nprocs", "tensorboard")


def run_folder(target: Path) -> Path:
    """Hidden directory beside a model directory, in which the checkpoint of its training stands."""
    return target.absolute().with_name(f".{target.name}.run")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; the lock ends with the process, however that ends.

    Raises:
        DeepLearningError: another process trains this model, or the place is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise DeepLearningError(
            f"A model is trained by one run at a time; another one writes '{folder}'. Wait for it, or choose another "
            "model=."
        ) from error
    try:
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Done:
    """How far a run has come, by its checkpoint.

    Attributes:
        epochs: that are done.
        stage: what they belong to, for messages.
    """

    epochs: int
    stage: str = "Training"


@dataclass(frozen=True)
class Finished:
    """A run that is over but for what follows its model.

    Attributes:
        onnx: absolute path of the file that the model is exported to; None for no export.
    """

    onnx: Path | None


def mark_finished(folder: Path, model: Path, onnx: Path | None) -> None:
    """Note in the folder of a run which model directory it made, before that takes its name."""
    values = {"model": _digest(model / MODEL_MANIFEST), "onnx": str(onnx.absolute()) if onnx else None}
    write_text(folder / FINISHED, json.dumps(values))


def finished(target: Path) -> Finished | None:
    """The run that made the model directory ``target``, if it still has something to do; else None."""
    try:
        values = json.loads((run_folder(target) / FINISHED).read_text(encoding="utf-8"))
        if values["model"] != _digest(target / MODEL_MANIFEST):
            return None
        return Finished(Path(values["onnx"]) if values["onnx"] else None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def as_one_run(
    target: Path,
    record: dict[str, Any],
    done: Callable[[], Done],
    work: Callable[[], dict[str, Any]],
    *,
    command: str,
    overwrite: bool,
    resume: bool,
    warn: Callable[[str], None],
    onnx: Path | None = None,
) -> dict[str, Any]:
    """Do the work of a run, of which there is but one at a time, and which may go on from an earlier checkpoint.

    Args:
        target: the model directory.
        record: of :func:`record_of`.
        done: how far the checkpoint in the folder of the run has come.
        work: what leaves checkpoints there and makes the model directory; gives its scores.
        command: that was given.
        overwrite: forget a checkpoint, if not ``resume``.
        resume: go on from the checkpoint where there is one, or from the model where that stands.
        warn: called with a message for the user.
        onnx: file of the export that follows; until it stands the run is not over.

    Raises:
        DeepLearningError: as in :func:`locked` and :func:`begin`.
    """
    folder = run_folder(target)
    with locked(folder):
        try:
            if resume and finished(target):
                _check_same(folder, record)
                warn("The model of this run stands already; nothing is trained.")
                made = read_any_card(target).scores
            else:
                _begun(folder, record, done(), resume, overwrite, warn)
                made = work()
        except BaseException as error:
            epochs = done().epochs
            if isinstance(error, KeyboardInterrupt) and epochs:
                again = f"{command.removesuffix(' -r')} -r"
                warn(f"Interrupted; the checkpoint of epoch {epochs} is kept. To go on: {again}")
            if not epochs and not finished(target):
                finish(folder)
            raise
        finish(folder, keep=(RECORD, FINISHED) if onnx else ())
        return made


def _begun(
    folder: Path, record: dict[str, Any], before: Done, resume: bool, overwrite: bool, warn: Callable[[str], None]
) -> None:
    if begin(folder, record, before.epochs, resume, overwrite):
        warn(f"{before.stage} goes on after epoch {before.epochs}.")
    elif resume:
        warn("There is no interrupted run of this model; training begins with epoch 1.")


def begin(folder: Path, record: dict[str, Any], done: int, resume: bool, overwrite: bool) -> bool:
    """Make a folder ready for a run; whether the run goes on from the checkpoint in it.

    Args:
        folder: of :func:`run_folder`.
        record: of :func:`record_of`.
        done: epochs that the checkpoint in the folder has.
        resume: go on from the checkpoint where there is one.
        overwrite: forget the checkpoint, if not ``resume``.

    Raises:
        DeepLearningError: there is a checkpoint, and it is neither to be used nor to be forgotten, or it is that
            of another run; or the place is not writable.
    """
    if done and resume:
        _check_same(folder, record)
        return True
    if done and not overwrite:
        raise DeepLearningError(
            f"An interrupted run is not forgotten unasked; '{folder}' has its checkpoint of epoch {done}. "
            "Add -r to go on with it, or --overwrite to start again."
        )
    try:
        _empty(folder)
        write_text(folder / RECORD, json.dumps(record))
    except OSError as error:
        raise _not_writable(folder, error) from error
    return False


def finish(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove the folder of a run that is over, or has nothing to go on from; but for files that are still needed."""
    if keep:
        with suppress(OSError):
            _empty(folder, keep)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path, keep: Sequence[str] = ()) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in keep:
            entry.unlink()


def record_of(settings: Settings, datasets: Sequence[PatchDataset]) -> dict[str, Any]:
    """What a run is: its settings, and digests of the manifests of its patches."""
    values = {key: value for key, value in settings.to_json().items() if key not in _FREE}
    digests = [_digest(dataset.path / MANIFEST) for dataset in datasets]
    return json.loads(json.dumps({"settings": values, "patches": digests}))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _not_writable(folder: Path, error: OSError) -> DeepLearningError:
    return DeepLearningError(
        f"The model directory must be writable; '{folder.parent}' is not ({error.strerror or error}). Choose another "
        "place."
    )


def _check_same(folder: Path, record: dict[str, Any]) -> None:
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        settings, patches = dict(before["settings"]), list(before["patches"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeepLearningError(
            f"The record of an interrupted run must be whole; '{folder / RECORD}' is damaged. Start again without -r "
            "and with --overwrite."
        ) from error
    if patches != record["patches"]:
        raise DeepLearningError(
            f"A run goes on with the patches it began with; those of '{folder}' were others. Give the same patches=, "
            "or start again without -r and with --overwrite."
        )
    for name, value in record["settings"].items():
        if settings.get(name) != value:
            raise DeepLearningError(
                f"A run goes on with the settings it began with; {name} was {settings.get(name)}, now it is {value}. "
                "Give the same options, or start again without -r and with --overwrite."
            )
