"""What benchmarks share: arguments, a temporary GRASS project, and the medians that they print."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")


def arguments(description: str, **defaults: int | str) -> dict[str, Any]:
    """The words behind a benchmark's name, by what they mean; those left out have their defaults.

    Args:
        description: what stands at the top of the benchmark.
        defaults: in their order.
    """
    parser = command_line(description)
    for name, default in defaults.items():
        parser.add_argument(name, nargs="?", type=type(default), default=default, help="default: %(default)s")
    return vars(parser.parse_args())


def scene_arguments(description: str, scenes: Iterable[str]) -> tuple[Path, list[str]]:
    """The directory of the data, and those of the scenes that are asked for: all, where none is named."""
    parser = command_line(description)
    parser.add_argument("data", type=Path)
    parser.add_argument("scene", nargs="*", metavar="scene", choices=[*scenes, []])  # none is checked as a choice, too
    given = parser.parse_args()
    return given.data.absolute(), given.scene or list(scenes)


def command_line(description: str) -> argparse.ArgumentParser:
    """A parser whose help is what stands at the top of a benchmark."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


@contextmanager
def project(crs: str = "EPSG:32632") -> Iterator[Path]:
    """A project that is gone afterwards; its directory. Modules and this process find it through the environment."""
    gisbase = subprocess.run(["grass", "--config", "path"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="rlearndeep_benchmark_") as name:
        directory = Path(name)
        subprocess.run(["grass", "-e", "-c", crs, str(directory / "project")], check=True, capture_output=True)
        (directory / "gisrc").write_text(f"GISDBASE: {name}\nLOCATION_NAME: project\nMAPSET: PERMANENT\nGUI: text\n")
        tools = directory / "bin"
        tools.mkdir()
        for tool in TOOLS:
            (tools / tool).symlink_to(ROOT / tool / f"{tool}.py")
        path = [
            str(Path(sys.executable).parent),
            str(tools),
            f"{gisbase}/bin",
            f"{gisbase}/scripts",
            os.environ["PATH"],
        ]
        os.environ.update(
            GISBASE=gisbase,
            GISRC=str(directory / "gisrc"),
            PATH=os.pathsep.join(path),
            LD_LIBRARY_PATH=f"{gisbase}/lib",
            GRASS_VERBOSE="0",
            GRASS_OVERWRITE="1",
        )
        os.environ["PYTHONPATH"] = f"{gisbase}/etc/python"
        yield directory


def restart_with_libraries() -> None:
    """Start this script again with GRASS's libraries on the loader's path, which is read only at the start."""
    gisbase = subprocess.run(["grass", "--config", "path"], capture_output=True, text=True, check=True).stdout.strip()
    libraries = f"{gisbase}/lib"
    if libraries not in os.environ.get("LD_LIBRARY_PATH", ""):
        os.environ["LD_LIBRARY_PATH"] = libraries
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "lib"), f"{gisbase}/etc/python"])
        os.execv(sys.executable, [sys.executable, *sys.argv])


def median(action: Callable[[], float], runs: int = 5) -> float:
    """Median of several runs; ``action`` returns its own seconds."""
    return statistics.median(action() for _ in range(runs))


def compile_against_grass(source: Path, directory: Path) -> Path:
    """Compile a C program with GRASS's headers and libraries, as GRASS compiles itself."""
    gisbase = os.environ["GISBASE"]
    version = subprocess.run(["grass", "--config", "version"], capture_output=True, text=True, check=True).stdout
    major, minor = version.split(".")[:2]
    program = directory / source.stem
    compiler = shutil.which("cc") or "gcc"
    libraries = [f"-lgrass_{name}.{major}.{minor}" for name in ("raster", "gis")]
    subprocess.run(
        [compiler, "-O2", f"-I{gisbase}/include", str(source), "-o", str(program), f"-L{gisbase}/lib", *libraries],
        check=True,
    )
    return program


def run_apart(package: str, code: str, arguments: list[str]) -> float | str:
    """Seconds that a script prints, run away from GRASS's libraries; or why it was left out."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("GIS", "LD_", "PYTHON"))}
    probe = subprocess.run([sys.executable, "-c", f"import {package}"], env=bare, capture_output=True, check=False)
    if probe.returncode:
        return f"left out: {package} is not installed"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=bare, capture_output=True, text=True, check=False
    )
    return float(done.stdout) if done.returncode == 0 else f"left out: {done.stderr.strip().splitlines()[-1]}"


def square(side: int) -> list[str]:
    """Words for g.region: cells of 1 m at a place that is neither good nor bad for the grid of tiles, as any scene."""
    return [f"n={5_100_000 + side}", "s=5100000", "w=600000", f"e={600_000 + side}", "res=1"]
