"""Who may know whom: every import of the library, at the top of a module or inside a function, keeps the law."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / "lib"
FRAMEWORKS = {
    "torch",
    "torchvision",
    "timm",
    "segmentation_models_pytorch",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
    "kornia",
    "keras",
    "tensorflow",
    "jax",
}
DOORS = {"patches", "model"}

# Room or module at the top of the package -> what of the package it may import; its own room goes without saying.
# "backends" is the door alone, "accuracy.metrics" the module alone.
LAW: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "ahead": set(),
    "arrayfile": set(),
    "files": {"errors"},
    "scene": {"errors"},
    "patches": {"errors", "arrayfile", "files", "scene"},
    "model": {"errors", "files", "scene", "patches"},
    "sampling": {"errors", "scene", *DOORS},
    "learning": {"errors", "files", "scene", *DOORS, "accuracy.metrics", "backends"},
    "prediction": {"errors", "ahead", "arrayfile", "files", "scene", *DOORS},
    "accuracy": {"errors", "scene", *DOORS},
    "backends": {"errors", "ahead", "arrayfile", "files", "scene", *DOORS},
    "gis": {"errors", "files", "scene", "patches"},
}
MAY_KNOW_GRASS = {"gis"}
MAY_KNOW_FRAMEWORKS = {"backends"}

MODULES = sorted((LIB / "rlearndeep").rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(LIB / "rlearndeep").with_suffix("").parts[0]


def imports_of(file: Path) -> Iterator[str]:
    """Dotted names that a module imports, ``from a import b`` as ``a.b``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_allowed(imported: str, room: str) -> bool:
    name = imported.removeprefix("rlearndeep.")
    if name.partition(".")[0] == room:
        return True
    if name.startswith("backends.") and "backends" in LAW[room]:
        # The door and its functions, not what is behind it.
        behind = LIB / "rlearndeep" / "backends" / name.split(".")[1]
        return not (behind.is_dir() or behind.with_suffix(".py").is_file())
    return any(name == one or name.startswith(f"{one}.") for one in LAW[room])


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(LIB)))
def test_a_module_imports_only_what_its_room_may_know(file: Path) -> None:
    room = room_of(file)
    assert room in LAW, f"{room} is a new room: say here what it may import"
    for imported in imports_of(file):
        top = imported.split(".")[0]
        if top == "rlearndeep":
            assert is_allowed(imported, room), f"{room} may not import {imported}"
        assert top != "grass" or room in MAY_KNOW_GRASS, f"{room} may not know GRASS: {imported}"
        assert top not in FRAMEWORKS or room in MAY_KNOW_FRAMEWORKS, f"{room} may not know a framework: {imported}"


def test_the_library_is_importable_without_grass_and_without_loading_a_framework() -> None:
    shielded = [file for file in MODULES if room_of(file) != "gis" and file.parent.parent.name != "backends"]
    rooms = [".".join(file.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__") for file in shielded]
    program = (
        f"import importlib, sys; sys.path.insert(0, {str(LIB)!r})\n"
        f"for room in {rooms!r}: importlib.import_module(room)\n"
        f"found = {FRAMEWORKS | {'grass'}!r} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
