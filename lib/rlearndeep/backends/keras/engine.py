"""Keras and the engine under it: TensorFlow, or what ``KERAS_BACKEND`` names; imported, and started, in silence."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlearndeep.backends.machine import keep_memory
from rlearndeep.errors import missing_package


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing reaches standard error: TensorFlow greets there, in C++, before it can be told not to."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _keep_triton_out() -> None:
    """Triton, which PyTorch imports in passing, aborts the process where TensorFlow is loaded: both bring LLVM.

    PyTorch does without it, but for ``torch.compile``. Where it was loaded first, both get on.
    """
    if sys.modules.get("tensorflow"):
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it misses Triton aloud


def _keep_tensorflow_out(engine: str) -> None:
    """Keras imports TensorFlow for its random numbers wherever it is installed: seconds, and its greeting."""
    if engine != "tensorflow":
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]


def _imported() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it advises on how its functions are traced
    try:
        with _silence():
            import keras
    except ImportError as error:
        raise missing_package(error.name or "keras", "The back-end 'keras'", error) from error
    _keep_triton_out()
    _keep_tensorflow_out(keras.backend.backend())
    # What ~/.keras/keras.json of the user says must not change what a model means.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    return keras


keras = _imported()

ENGINE = str(keras.backend.backend())
"""``tensorflow``, ``torch`` or ``jax``."""


def start(threads: int = 0) -> None:
    """Start the engine, before its first operation.

    Args:
        threads: 0 leaves it to ``OMP_NUM_THREADS`` or the engine. TensorFlow takes no other number once it runs.
    """
    if ENGINE == "torch" and threads:
        import torch

        torch.set_num_threads(threads)
    if not _start_once.cache_info().currsize:
        _start_once(threads)


@functools.cache
def _start_once(threads: int) -> None:
    keep_memory()
    if ENGINE == "tensorflow":
        import tensorflow

        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = threads or (int(given) if given.isdigit() else 0)
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1 if threads == 1 else 0)
    with _silence():  # it greets again
        keras.ops.convert_to_numpy(keras.ops.ones(1) + 1)
