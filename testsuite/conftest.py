"""Fixtures: a temporary GRASS project, and the tools of this checkout on the PATH.

Tools run as subprocesses of the interpreter that runs the tests, exactly as GRASS starts them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")
DATA = ROOT.parent / "shared" / "data"

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; threads of one would only disturb the other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests speak of the CPU, whatever the machine has; those of a GPU (test_gpu.py) let their processes see it.
VISIBLE_DEVICES = os.environ.get("CUDA_VISIBLE_DEVICES")
if "RLEARNDEEP_TEST_DEVICE" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

sys.path.insert(0, str(ROOT / "lib"))
sys.path.insert(0, str(ROOT / "testsuite"))  # synthetic_patches


def scene(name: str) -> Path:
    """Folder of a real scene; skips the test where the scenes are not available."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real scene '{name}' is not available beside this checkout")
    return folder


@dataclass
class Grass:
    """A GRASS mapset to run modules in.

    Attributes:
        mapset: its directory.
        env: environment of every module.
    """

    mapset: Path
    env: dict[str, str] = field(repr=False)

    def run(self, module: str, *arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess:
        """Run a module with arguments as typed on the command line; never raises for its status."""
        return subprocess.run(
            [module, *arguments],
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.mapset.parent.parent,
        )

    def ok(self, module: str, *arguments: str, stdin: str | None = None, **env: str) -> str:
        """Standard output of a module that must succeed."""
        done = self.run(module, *arguments, stdin=stdin, **env)
        assert done.returncode == 0, f"{module} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, module: str, *arguments: str, **env: str) -> dict:
        """The object that a tool prints with format=json."""
        return json.loads(self.ok(module, *arguments, "format=json", **env))

    def error(self, module: str, *arguments: str, **env: str) -> str:
        """The one ERROR line, unwrapped, of a tool that must refuse its input without a traceback."""
        done = self.run(module, *arguments, **env)
        assert done.returncode != 0, f"{module} {' '.join(arguments)} was accepted\n{done.stdout}"
        assert "Traceback" not in done.stderr, done.stderr
        text = " ".join(done.stderr.split())
        assert text.count("ERROR:") == 1, done.stderr
        return text[text.index("ERROR:") :]

    def maps(self, kind: str) -> list[str]:
        """Names of the maps of the mapset; kind is raster or vector."""
        return self.ok("g.list", f"type={kind}", "mapset=.").split()


@pytest.fixture(scope="session")
def tools_on_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the tools of this checkout under their names."""
    directory = tmp_path_factory.mktemp("bin")
    for tool in TOOLS:
        (directory / tool).symlink_to(ROOT / tool / f"{tool}.py")
    return directory


@pytest.fixture(scope="session")
def grass_env(tools_on_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a GRASS session without a project; GRASS is needed for these tests."""
    program = shutil.which("grass")
    if program is None:
        pytest.fail("GRASS is needed for this test and 'grass' is not on the PATH; run make check")
    gisbase = subprocess.run([program, "--config", "path"], capture_output=True, text=True, check=True).stdout.strip()
    addons = tmp_path_factory.mktemp("addons")
    env = dict(os.environ)
    env.update(
        GISBASE=gisbase,
        PATH=os.pathsep.join(
            [str(Path(sys.executable).parent), str(tools_on_path), f"{gisbase}/bin", f"{gisbase}/scripts", env["PATH"]]
        ),
        LD_LIBRARY_PATH=f"{gisbase}/lib",
        PYTHONPATH=f"{gisbase}/etc/python",
        GRASS_ADDON_BASE=str(addons),
        GRASS_MESSAGE_FORMAT="standard",
        GRASS_VERBOSE="0",
        GRASS_PROJ_DATA="",
    )
    return env


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An add-on directory in which ``make install`` put the suite."""
    addons = tmp_path_factory.mktemp("installed") / "Jörg's add-ons"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GIS", "GRASS", "MAKE"))}
    done = subprocess.run(
        ["make", "-C", ROOT, "install"],
        env={**inherited, "GRASS_ADDON_BASE": str(addons)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return addons


def new_mapset(directory: Path, env: dict[str, str], crs: str = "XY") -> Grass:
    """A new project with a PERMANENT mapset to work in; crs is XY or an authority code like EPSG:32119."""
    project = directory / "project"
    subprocess.run(["grass", "-e", "-c", crs, str(project)], check=True, capture_output=True, env=env)
    rc = directory / "gisrc"
    rc.write_text(f"GISDBASE: {directory}\nLOCATION_NAME: project\nMAPSET: PERMANENT\nGUI: text\n")
    return Grass(project / "PERMANENT", {**env, "GISRC": str(rc)})


@pytest.fixture
def grass(tmp_path: Path, grass_env: dict[str, str]) -> Iterator[Grass]:
    """A fresh XY project for one test."""
    yield new_mapset(tmp_path, grass_env)


@pytest.fixture
def grass_crs(tmp_path: Path, grass_env: dict[str, str]):
    """Function that makes a project of a coordinate system for one test."""
    return lambda crs: new_mapset(tmp_path, grass_env, crs)


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory, grass_env: dict[str, str]):
    """Function that makes a project of a coordinate system that several tests may share."""
    return lambda crs="XY": new_mapset(tmp_path_factory.mktemp("grass"), grass_env, crs)
