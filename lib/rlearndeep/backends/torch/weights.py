"""Weights files: safetensors, which cannot hold code."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as dump

from rlearndeep.errors import DeepLearningError

FILE = "weights.safetensors"


def save(module: torch.nn.Module, file: Path) -> None:
    """Write the weights of a network."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    file.write_bytes(dump(tensors, metadata={"format": "pt"}))


def load_into(module: torch.nn.Module, file: Path) -> None:
    """Read weights into a network of exactly these names and shapes.

    Raises:
        DeepLearningError: unreadable, or names, shapes or types differ.
    """
    try:
        tensors = load_file(str(file))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _damaged(file, " ".join(str(error).split())) from error
    _check(module.state_dict(), tensors, file)
    module.load_state_dict(tensors)


def _check(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], file: Path) -> None:
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise _damaged(file, f"'{missing[0]}' and {len(missing) - 1} more are missing")
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        raise _damaged(file, f"'{unknown[0]}' and {len(unknown) - 1} more are not part of the network")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise _damaged(file, f"'{name}' has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}")
        if found[name].dtype != tensor.dtype:
            raise _damaged(file, f"'{name}' has type {found[name].dtype}, expected {tensor.dtype}")
        if tensor.is_floating_point() and not bool(torch.isfinite(found[name]).all()):
            raise _damaged(file, f"'{name}' holds values that are not finite")


def _damaged(file: Path, reason: str) -> DeepLearningError:
    return DeepLearningError(
        f"Weights must fit the network of model.json; '{file}' does not ({reason}). "
        "Train the model again with r.learn.deep.train."
    )


def versions() -> dict[str, str]:
    """Versions of the packages that made a model, for its ``model.json``."""
    packages = ("torch", "lightning", "timm", "segmentation_models_pytorch")
    return {name: str(sys.modules[name].__version__) for name in packages if name in sys.modules}
