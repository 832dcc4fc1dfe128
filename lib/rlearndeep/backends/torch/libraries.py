"""Libraries of networks, imported when a network asks for them."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import torch

from rlearndeep.backends import require

_COMPILER = "torch._dynamo.utils"
_QUESTION = "is_compile_supported"


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
    detection; for that they import all of it. Here nothing is compiled: the mark is left out, and the question imports
    the compiler when it is asked. Whoever wants more of the compiler gets it at once.
    """
    if _COMPILER in sys.modules:
        yield
        return
    later, compiler = _Later(_COMPILER), cast(Any, torch.compiler)
    watch: Any = _Watch(later)
    mark, compiler.disable = compiler.disable, _unmarked
    sys.modules[_COMPILER] = later
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
        compiler.disable = mark
        later.give_way()


class _Later(ModuleType):
    """Stands where a module of the compiler will be, until any part of the compiler is really imported."""

    def give_way(self) -> None:
        """Leave the place to the module itself."""
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == _QUESTION:
            return lambda *args: self._really(name)(*args)
        return self._really(name)

    def _really(self, name: str) -> Any:
        self.give_way()
        return getattr(importlib.import_module(_COMPILER), name)


class _Watch:
    """A finder of modules that finds nothing, but sees when the compiler is imported."""

    def __init__(self, later: _Later) -> None:
        self._later = later

    def find_spec(self, name: str, *_: Any) -> None:
        """Called by Python before a module is imported for the first time."""
        if name == _COMPILER.rpartition(".")[0]:
            self._later.give_way()


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """In place of ``torch.compiler.disable``, which serves as decorator with and without arguments."""
    return (lambda wrapped: wrapped) if function is None else function
