"""The one root of all errors that a user can mend."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig

# Packages that are installed under another name than they are imported by.
_PACKAGE_OF = {"sklearn": "scikit-learn", "segmentation_models_pytorch": "segmentation-models-pytorch"}


class DeepLearningError(Exception):
    """A rule was broken by what the user gave.

    The message is one line, whatever was received: the rule, what was received, and the way out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class MissingPackage(DeepLearningError):
    """A Python package that the chosen option needs cannot be imported by this interpreter."""


def missing_package(module: str, purpose: str, error: Exception) -> MissingPackage:
    """The error for a module that cannot be imported, with the interpreter in use and the command that mends it.

    Args:
        module: name that was imported; its package is what the message names.
        purpose: what needs it, the beginning of the message.
        error: what the import said.
    """
    top = module.partition(".")[0]
    package = _PACKAGE_OF.get(top, top)
    reason = " ".join(str(error).split())
    return MissingPackage(
        f"{purpose} needs the Python package '{package}'; {sys.executable} cannot import it ({reason}). "
        f"Install it with: {_installing(package)}, or set RLEARNDEEP_PYTHON to a Python that has it."
    )


def check_installed(purpose: str, *modules: str) -> None:
    """Look for packages that are imported after hours of work, without importing them.

    Args:
        purpose: what needs them, the beginning of the message.
        modules: names that will be imported.

    Raises:
        MissingPackage: this interpreter has no such package.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing_package(module, purpose, ModuleNotFoundError(f"No module named '{module}'"))


def _installing(package: str) -> str:
    """The command for this interpreter; Debian's own refuses pip, and a virtual environment is the way (PEP 668)."""
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and os.path.exists(marker):
        venv = "~/rlearndeep-venv"
        return (
            f"{sys.executable} -m venv --system-site-packages {venv} && {venv}/bin/python -m pip install {package}, "
            f"and start GRASS with {venv}/bin first on the PATH"
        )
    return f"{sys.executable} -m pip install {package}"
