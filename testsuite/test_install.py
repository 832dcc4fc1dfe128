"""The installed suite: its files, its start without PyTorch, the main job from any directory, g.extension."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITE = "r.learn.deep"
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")
# Copied from GRASS for the manual pages where GRASS has them, by g.extension and by make install alike.
PAGE_PARTS = {f"docs/html/{name}" for name in ("grass_logo.png", "grassdocs.css")} | {
    f"docs/html/hamburger_menu{suffix}.svg" for suffix in ("", "_close")
}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "segmentation_models_pytorch",
    "sklearn",
    "scipy",
    "matplotlib",
)


def expected_files() -> set[str]:
    modules = {f"etc/{SUITE}/{file.relative_to(ROOT / 'lib')}" for file in (ROOT / "lib").rglob("*.py")}
    pages = {f"docs/html/{name}.html" for name in (SUITE, *TOOLS)} | {
        f"docs/man/man1/{name}.1" for name in (SUITE, *TOOLS)
    }
    pictures = {f"docs/html/{file.name}" for tool in TOOLS for file in (ROOT / tool).glob("*.png")}
    tutorials = {
        f"docs/html/tutorials/{file.name}"
        for file in (ROOT / "tutorials").iterdir()
        if file.suffix in (".html", ".png", ".sh")
    }
    return (
        modules
        | pages
        | pictures
        | tutorials
        | {f"scripts/{tool}" for tool in TOOLS}
        | {"modules.xml", "extensions.xml"}
    )


def files_of(directory: Path, *left_out: str) -> set[str]:
    found = {str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()}
    return {name for name in found if not name.startswith(left_out) and "__pycache__" not in name} - PAGE_PARTS


@pytest.fixture(scope="module")
def session_env(installed: Path, grass_env: dict[str, str]) -> dict[str, str]:
    """Environment of a session that has the installed tools, and nothing of this checkout."""
    directories = [
        Path(sys.executable).parent,
        installed / "scripts",
        *(Path(grass_env["GISBASE"]) / d for d in ("bin", "scripts")),
    ]
    return {
        **grass_env,
        "GRASS_ADDON_BASE": str(installed),
        "PATH": os.pathsep.join([*map(str, directories), os.environ["PATH"]]),
    }


@pytest.fixture(scope="module")
def project(session_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of the installed suite in an XY project."""
    directory = tmp_path_factory.mktemp("project")
    subprocess.run(["grass", "-e", "-c", "XY", directory / "xy"], check=True, capture_output=True, env=session_env)
    rc = directory / "rc"
    rc.write_text(f"GISDBASE: {directory}\nLOCATION_NAME: xy\nMAPSET: PERMANENT\nGUI: text\n")
    return {**session_env, "GISRC": str(rc)}


def call(env: dict[str, str], *command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_make_install_writes_every_file_of_the_suite_and_no_other(installed: Path) -> None:
    assert files_of(installed) == expected_files()


def test_grass_knows_the_installed_tools(installed: Path, project: dict[str, str]) -> None:
    assert set(TOOLS) <= set(call(project, "g.extension", "-a").split())


@pytest.mark.parametrize("page", ["--help", "--html-description", "--interface-description"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_explains_itself_without_pytorch(tool: str, page: str, project: dict[str, str], tmp_path: Path) -> None:
    for package in HEAVY:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('too early')")
    env = {**project, "PYTHONPATH": f"{tmp_path}{os.pathsep}{project['PYTHONPATH']}"}
    text = call(env, tool, page, cwd=tmp_path)
    assert tool in text and "format" in text


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_starts_in_half_a_second(tool: str, project: dict[str, str]) -> None:
    def once() -> float:
        start = time.perf_counter()
        call(project, tool, "--help")
        return time.perf_counter() - start

    # The fastest of some: the machine may be busy, the tool may not be.
    assert min(once() for _ in range(7)) < 0.5


def test_the_main_job_runs_from_the_installed_place_in_any_directory(
    installed: Path, project: dict[str, str], tmp_path: Path
) -> None:
    # A folder "lib" in the working directory is not ours: a library searched relative to it would be this one.
    for decoy in (tmp_path / "lib" / "rlearndeep", tmp_path / "rlearndeep"):
        decoy.mkdir(parents=True)
        (decoy / "__init__.py").write_text("raise RuntimeError('not this library')")
    script = "from four_commands import *; from pathlib import Path; import json\n"
    script += "build_scene(); print(json.dumps(run(Path('work'))))"
    # Other tests of the same mapset may have built the scene.
    env = {**project, "OMP_NUM_THREADS": "1", "GRASS_OVERWRITE": "1"}
    env["PYTHONPATH"] = f"{ROOT / 'examples'}{os.pathsep}{project['PYTHONPATH']}"
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["maps"][0]["overall_accuracy"] > 0.8


def bare_python(directory: Path) -> Path:
    """The directory of a python3 that has nothing but its standard library, as behind a desktop menu."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    return directory / "bin"


def test_a_python_without_packages_hands_over_to_the_named_one(project: dict[str, str], tmp_path: Path) -> None:
    env = {**project, "PATH": f"{bare_python(tmp_path / 'bare')}{os.pathsep}{project['PATH']}"}
    missing = subprocess.run(
        ["r.learn.deep.train", "patches=absent", f"model={tmp_path / 'model'}"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    message = " ".join(missing.stderr.split())
    assert message.startswith("ERROR:") and "Traceback" not in message
    assert "-m pip install" in message and "RLEARNDEEP_PYTHON" in message

    script = (
        "from four_commands import build_scene, command; build_scene()\n"
        "command('v.sample.patches', group='scene', raster='cover', size=1, output='places', patches='patches')\n"
        "command('r.learn.deep.train', patches='patches', model='model', epochs=20)"
    )
    env["PYTHONPATH"] = f"{ROOT / 'examples'}{os.pathsep}{project['PYTHONPATH']}"
    env |= {"RLEARNDEEP_PYTHON": sys.executable, "GRASS_OVERWRITE": "1", "OMP_NUM_THREADS": "1"}
    call(env, "python3", "-c", script, cwd=tmp_path)
    assert (tmp_path / "model" / "model.json").is_file()


def test_make_install_says_which_directory_cannot_be_written(tmp_path: Path) -> None:
    place = tmp_path / "file" / "addons"
    place.parent.touch()
    env = {**os.environ, "GRASS_ADDON_BASE": str(place)}
    done = subprocess.run(["make", "-C", ROOT, "install"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"must be writable; {place} is not" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_make_uninstall_leaves_nothing_of_the_suite(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "addons"
    shutil.copytree(installed, copy)
    (copy / "scripts" / "r.other").write_text("another add-on")
    call({**os.environ, "GRASS_ADDON_BASE": str(copy)}, "make", "-C", ROOT, "uninstall")
    assert files_of(copy) == {"modules.xml", "extensions.xml", "scripts/r.other"}
    assert not any(tool in (copy / "modules.xml").read_text() for tool in TOOLS)


@pytest.fixture
def extension_env(project: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Environment in which g.extension needs no network; skips where its programs are missing."""
    version = call(project, "g.version", "-g").split("version=")[1].split(".")[:2]
    needed = ("svn", "make", "gcc") if int(version[1]) < 4 else ("git", "make", "gcc")
    missing = [program for program in needed if not shutil.which(program)]
    if missing:
        pytest.skip(f"g.extension of GRASS {'.'.join(version)} needs {', '.join(missing)}")
    addons = tmp_path / "addons"
    addons.mkdir()
    # GRASS 8.2 would download this list of official add-ons.
    (addons / "addons_paths.json").write_text('{"tree": []}')
    # Newer GRASS asks this repository for the name of a branch.
    official = tmp_path / "hub" / "grass-addons"
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", official)
    subprocess.run(["git", "init", "-q", "-b", "grass8", official], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "empty"], check=True)
    redirect = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{official.parent}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/OSGeo/",
    }
    return {**project, **redirect, "GRASS_ADDON_BASE": str(addons), "GRASS_VERBOSE": "1"}


def test_g_extension_installs_and_removes_the_suite(extension_env: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "output")
    shutil.copytree(ROOT, source, ignore=left_out)
    addons = Path(extension_env["GRASS_ADDON_BASE"])
    # What newer GRASS clones and what the list for 8.2 was.
    of_others = ("grass-addons", "addons_paths.json")

    call(extension_env, "g.extension", "extension=r.learn.deep", f"url={source}", cwd=tmp_path)
    assert files_of(addons, *of_others) == expected_files()

    call(extension_env, "g.extension", "-f", "extension=r.learn.deep", "operation=remove", cwd=tmp_path)
    assert files_of(addons, *of_others) == {"modules.xml", "extensions.xml"}
    assert not any(name in (addons / "extensions.xml").read_text() for name in (SUITE, *TOOLS))
