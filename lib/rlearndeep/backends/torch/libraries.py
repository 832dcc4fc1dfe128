"""Libraries of networks, imported when a network asks for them."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from rlearndeep.backends import require

_COMPILER = "torch._dynamo.utils"


def library(name: str, purpose: str) -> Any:
    """Import ``timm`` or ``segmentation_models_pytorch``, without their warnings.

    Raises:
        MissingPackage: it is not installed.
    """
    with _compiler_later():
        return quietly(lambda: require(name, purpose))


def quietly(action: Callable[[], Any]) -> Any:
    """What an action returns; its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Let both libraries be imported without PyTorch's compiler, which takes longer than all the rest of them.

    They mark a function as not to be compiled, and torchvision asks the compiler a question in one function of object
    detection; for that they import all of it. Here nothing is compiled: the mark is left out, and what torchvision
    takes from the compiler is imported when it is called.
    """
    if _COMPILER in sys.modules:
        yield
        return
    later = ModuleType(_COMPILER)
    setattr(later, "__getattr__", _later)  # noqa: B010 - of a module, which the type checker does not know
    sys.modules[_COMPILER] = later
    compiler: Any = torch.compiler
    mark, compiler.disable = compiler.disable, _unmarked
    try:
        yield
    finally:
        compiler.disable = mark
        if sys.modules.get(_COMPILER) is later:
            del sys.modules[_COMPILER]


def _later(name: str) -> Callable[..., Any]:
    """A function of the compiler that imports it when it is called."""
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *args, **kwargs: getattr(importlib.import_module(_COMPILER), name)(*args, **kwargs)


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """In place of ``torch.compiler.disable``, which serves as decorator with and without arguments."""
    return (lambda wrapped: wrapped) if function is None else function
