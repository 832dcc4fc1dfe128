"""Weights files: safetensors, which cannot hold code."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump

from rlearndeep.backends.torch.networks import build, outlined
from rlearndeep.errors import DeepLearningError, MissingPackage
from rlearndeep.model import Network

FILE = "weights.safetensors"


def save(module: torch.nn.Module, file: Path) -> None:
    """Write the weights of a network."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    file.write_bytes(dump(tensors, metadata={"format": "pt"}))


def load_network(network: Network, file: Path) -> torch.nn.Module:
    """A network with the weights of a file, which must have exactly its names, shapes and types.

    The file is compared with an outline of the network first: no more memory is taken than the file has bytes.

    Raises:
        DeepLearningError: unreadable, or names, shapes, types or values do not fit.
    """
    outline = _outline(network, file)
    with _opened(file) as found:
        _check_outline(outline.state_dict(), found, file)
        tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 it is no mapping
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise _damaged(file, f"'{name}' holds values that are not finite")
    if _is_covered(outline, tensors):
        outline.load_state_dict(tensors, assign=True)
        return outline
    module = build(network)
    module.load_state_dict(tensors)
    return module


def _outline(network: Network, file: Path) -> torch.nn.Module:
    try:
        return outlined(network)
    except MissingPackage:
        raise
    except DeepLearningError as error:
        raise _damaged(file, f"the network cannot be built, {error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise _damaged(file, f"the network cannot be built, {type(error).__name__}: {str(error)[:200]}") from error


def _is_covered(outline: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the tensors are all that the network needs; some compute tables that are not saved."""
    if any(name not in tensors for name, _ in outline.named_buffers()):
        return False
    values = (value for layer in outline.modules() for value in vars(layer).values())
    return not any(isinstance(value, torch.Tensor) for value in values)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a weights file of any library: safetensors, or a file of PyTorch, of which no code is run.

    Raises:
        DeepLearningError: no such file, unreadable, or it would need code to be read.
    """
    if not file.is_file():
        raise DeepLearningError(
            f"Weights must be none, imagenet, a file or a model directory; '{file}' does not exist. Check the path."
        )
    if file.suffix == ".safetensors":
        with _opened(file, _not_readable) as found:
            return {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 it is no mapping
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the pickle machinery makes of a file that is none
        reason = "it cannot be read"
        if isinstance(error, pickle.UnpicklingError):
            reason = "it cannot be read without running code that it holds"
        raise _not_readable(file, reason) from error
    return _tensors_in(content, file)


def _tensors_in(content: Any, file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint: those it consists of, or those of the entry that holds most."""
    if isinstance(content, dict):
        best = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        for entry in content.values():
            inner = entry if isinstance(entry, dict) else {}
            tensors = {str(name): value for name, value in inner.items() if isinstance(value, torch.Tensor)}
            best = tensors if len(tensors) > len(best) else best
        if best:
            return best
    raise _not_readable(file, "it holds no tensors by name")


def _not_readable(file: Path, reason: str) -> DeepLearningError:
    return DeepLearningError(
        f"A weights file must be safetensors or a plain state dictionary of PyTorch; '{file}' is not ({reason}). "
        "Save it with safetensors.torch.save_file, or give another file."
    )


@contextmanager
def _opened(file: Path, wrong: Callable[[Path, str], DeepLearningError] | None = None) -> Iterator[Any]:
    try:
        with safe_open(str(file), framework="pt", device="cpu") as found:
            yield found
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise (wrong or _damaged)(file, " ".join(str(error).split())) from error


_TYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}


def _check_outline(expected: dict[str, torch.Tensor], found: Any, file: Path) -> None:
    names = set(found.keys())
    missing = sorted(expected.keys() - names)
    if missing:
        raise _damaged(file, f"'{missing[0]}' and {len(missing) - 1} more are missing")
    unknown = sorted(names - expected.keys())
    if unknown:
        raise _damaged(file, f"'{unknown[0]}' and {len(unknown) - 1} more are not part of the network")
    for name, tensor in expected.items():
        part = found.get_slice(name)
        if tuple(part.get_shape()) != tuple(tensor.shape):
            raise _damaged(file, f"'{name}' has shape {tuple(part.get_shape())}, expected {tuple(tensor.shape)}")
        if part.get_dtype() != _TYPES.get(tensor.dtype, part.get_dtype()):
            raise _damaged(file, f"'{name}' has type {part.get_dtype()}, expected {tensor.dtype}")


def _damaged(file: Path, reason: str) -> DeepLearningError:
    return DeepLearningError(
        f"Weights must fit the network of model.json; '{file}' does not ({reason}). "
        "Train the model again with r.learn.deep.train."
    )


def versions() -> dict[str, str]:
    """Versions of the packages that made a model, for its ``model.json``."""
    packages = ("torch", "lightning_fabric", "timm", "segmentation_models_pytorch")
    return {name: str(sys.modules[name].__version__) for name in packages if name in sys.modules}
