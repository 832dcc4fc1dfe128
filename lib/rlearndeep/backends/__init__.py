"""Back-ends: the rooms that know a framework, behind one small door.

Every back-end is a module with the same functions::

    answers(architecture) -> "cell", "patch" or "either"; check_name(architecture), which refuses what does not exist
    stride(network) -> cells; largest(network) -> sides of the largest picture it can be shown, or None
    check(network, options, task, size), which trains nothing
    build(network) -> network of the framework
    Target(network, bands, classes, task, branches); initial_weights(choice, target) -> weights to begin with, or None
    fit(network, training, validation, options, ...) -> Fitted, or None in a process that only helps
    check_pretraining(network, options, size), which trains nothing
    pretrain(network, training, validation, options, ...) -> Pretrained, with initial(target, before) and save(file)
    Encoder(network, size, initial, options), with features(images)
    epochs_done(folder) -> number of epochs of the checkpoint that fit left there
    save(module, file)
    check_onnx(file, overwrite); export_onnx(directory, card, file)
    load(directory, card, device, precision) -> Predictor
    versions() -> packages and their versions
    FILE, the name of the weights file

Arrays of NumPy go in and come out. Importing this package imports no framework.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Protocol

from rlearndeep.errors import DeepLearningError, missing_package

BACKENDS = ("torch", "keras")


def get_backend(name: str) -> ModuleType:
    """The back-end of that name; its framework is imported now.

    Raises:
        DeepLearningError: no such back-end.
        MissingPackage: the framework cannot be imported by this interpreter.
    """
    if name not in BACKENDS:
        raise DeepLearningError(f"The back-end must be one of {', '.join(BACKENDS)}; got '{name}'. Choose one of them.")
    _wait_without_spinning()
    return require(f"rlearndeep.backends.{name}", f"The back-end '{name}'", package=name)


def _wait_without_spinning() -> None:
    """Let threads that wait for each other give the processor away soon; GNU OpenMP reads this when it is loaded.

    By default they spin for longer than a step takes, and two programs on one machine stop each other: next to
    three other jobs on two cores a training step took a sixth of the time with this.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class Processes(Protocol):
    """How many processes share a run; see ``learning.options.Settings``."""

    @property
    def devices(self) -> int: ...

    @property
    def nodes(self) -> int: ...


def is_helper(options: Processes) -> bool:
    """Whether this process only helps the first one of a run on several devices or machines, and must be silent.

    Schedulers number processes that have nothing to do with each other, too.

    Args:
        options: of the run.
    """
    return options.devices * options.nodes > 1 and any(
        int(os.environ.get(name) or 0) > 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    )


def require(module: str, purpose: str, package: str = "") -> ModuleType:
    """Import a module that a choice of the user needs.

    Args:
        module: name to import.
        purpose: what needs it, the beginning of the message.
        package: name to install; the module's by default.

    Raises:
        MissingPackage: with the interpreter in use and the command that installs the package.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise missing_package(package or module, purpose, error) from error
