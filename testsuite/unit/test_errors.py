"""The message for a missing package: the interpreter in use, and a command that works there."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from rlearndeep.errors import MissingPackage, check_installed, missing_package


def test_a_venv_is_told_to_install_with_its_own_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/venv")
    message = str(missing_package("sklearn.metrics", "Training", ImportError("No module\nnamed 'sklearn'")))
    assert message == (
        f"Training needs the Python package 'scikit-learn'; {sys.executable} cannot import it "
        f"(No module named 'sklearn'). Install it with: {sys.executable} -m pip install scikit-learn, "
        "or set RLEARNDEEP_PYTHON to a Python that has it."
    )


def test_a_python_that_belongs_to_the_system_is_told_to_make_a_venv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    message = str(missing_package("torch", "The back-end 'torch'", ImportError("No module named 'torch'")))
    assert f"{sys.executable} -m venv --system-site-packages ~/rlearndeep-venv && " in message
    assert "~/rlearndeep-venv/bin/python -m pip install torch, and start GRASS" in message
    assert "\n" not in message


def test_packages_are_looked_for_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    check_installed("A report", "antigravity")
    assert "antigravity" not in sys.modules
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackage, match=r"^A report needs the Python package 'scikit-learn'"):
        check_installed("A report", "antigravity", "sklearn")
