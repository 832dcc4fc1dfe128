"""Weights files: Keras' own, of which nothing but arrays is taken."""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlearndeep.backends.keras.engine import ENGINE, keras
from rlearndeep.backends.keras.module import Module, build
from rlearndeep.backends.keras.networks import has_encoder
from rlearndeep.errors import DeepLearningError, MissingPackage
from rlearndeep.model import UNREADABLE, Network

FILE = "model.keras"

_ARRAYS = "model.weights.h5"
_MEMBERS = {"metadata.json": 1024**2, "config.json": 64 * 1024**2}
_OPTIONAL = {"assets/"}
# Beside its numbers an HDF5 file has a few kilobytes for each array.
_BESIDE = 16 * 1024
_BYTES = 4
# Weights that are built and not in the file: any encoder's are, a second time and whole, to learn which of its layers
# are needed.
_OF_ENCODERS = 2**28
_OF_OTHERS = 2**20


def save(module: Module, file: Path) -> None:
    """Write a network, so that it also opens with ``keras.saving.load_model``."""
    module.model.save(file)


def load_module(network: Network, file: Path, precision: str = "32") -> Module:
    """A network with the weights of a file.

    The network is built from its description; what the file says of layers is only looked at, for layers that
    could run code. Its arrays must have exactly the names and shapes of the network, and finite values. No network is
    built that takes much more memory than the file has bytes.

    Raises:
        DeepLearningError: unreadable, with code, or arrays that do not fit.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive)
            _check_layers(json.loads(archive.read("config.json")))
            beside = _OF_ENCODERS if has_encoder(network) else _OF_OTHERS
            with _at_most(file.stat().st_size // _BYTES + beside):
                module = build(network, precision)
            _check_size(archive.getinfo(_ARRAYS).file_size, module.model)
            with archive.open(_ARRAYS) as stream:
                _check_arrays(stream, module.model)
        module.model.load_weights(file)
        for variable in module.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise ValueError(f"'{variable.path}' holds values that are not finite")
    except MissingPackage:
        raise
    except (*UNREADABLE, zipfile.BadZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DeepLearningError(
            f"Weights must fit the network of model.json; '{file}' does not ({reason}). "
            "Train the model again with r.learn.deep.train."
        ) from error
    return module


@contextmanager
def _at_most(weights: int) -> Iterator[None]:
    """A network with more weights is not built: its layers ask for them one by one, before they take memory."""
    layer, left = keras.layers.Layer, weights
    add_weight = layer.add_weight

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        shape = named.get("shape", arguments[0] if arguments else None)
        left -= math.prod(shape or ())
        if left < 0:
            raise ValueError("the network has far more weights than the file")
        return add_weight(self, *arguments, **named)

    layer.add_weight = counted
    try:
        yield
    finally:
        layer.add_weight = add_weight


def _check_members(archive: zipfile.ZipFile) -> None:
    """Exactly what Keras writes."""
    found = {entry.filename: entry.file_size for entry in archive.infolist()}
    if len(found) != len(archive.infolist()) or not {*_MEMBERS, _ARRAYS} <= found.keys() <= {
        *_MEMBERS,
        _ARRAYS,
        *_OPTIONAL,
    }:
        raise ValueError(f"it holds {sorted(found)[:5]}")
    for name, most in _MEMBERS.items():
        if found[name] > most:
            raise ValueError(f"'{name}' has {found[name]} bytes, at most {most} are expected")


def _check_size(found: int, model: Any) -> None:
    """No larger than the network."""
    most = _BYTES * model.count_params() + _BESIDE * (8 + len(model.weights))
    if found > most:
        raise ValueError(f"'{_ARRAYS}' has {found} bytes, at most {most} are expected")


def _check_layers(config: Any) -> None:
    for entry in _objects(config):
        module = str(entry.get("module") or "keras")
        if module.partition(".")[0] != "keras" or entry["class_name"] == "Lambda":
            raise ValueError(f"it holds code: '{entry['class_name']}' of '{module}'")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _check_arrays(stream: Any, model: Any) -> None:
    """As many numbers, in as many arrays, as the network has; Keras itself refuses links out of the file."""
    import h5py

    shapes: list[tuple[int, ...]] = []

    def note(_: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            shapes.append(entry.shape)

    with h5py.File(stream, "r") as file:
        file.visititems(note)
    expected = sorted(tuple(variable.shape) for variable in model.weights)
    if sorted(shapes) != expected:
        odd = next((shape for shape in shapes if shape not in expected), None)
        raise ValueError(f"it has {len(shapes)} arrays, {len(expected)} are expected; one has shape {odd}")


def versions() -> dict[str, str]:
    """Versions of the packages that made a model, for its ``model.json``."""
    packages = ("keras", ENGINE)
    return {name: str(sys.modules[name].__version__) for name in packages if name in sys.modules}
