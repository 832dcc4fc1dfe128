"""The dialogs: every tool opens one in GRASS's graphical interface, and Run in a dialog runs the tool.

They need a display (here a virtual one), wxPython, xdotool and ImageMagick. Set RLEARNDEEP_SCREENSHOTS to a directory
to look at the dialogs yourself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TOOLS, Grass

SECONDS = 60

for program in ("Xvfb", "xdotool", "import"):
    if not shutil.which(program):
        pytest.skip(f"dialogs need the program {program}; run tools/setup.sh check", allow_module_level=True)
if not importlib.util.find_spec("wx"):
    pytest.skip("dialogs need wxPython; run tools/setup.sh check", allow_module_level=True)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual display of its own; it outlives the windows on it (-noreset)."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    if not number:
        pytest.skip("Xvfb cannot open a virtual display here")
    yield f":{number}"
    server.terminate()
    server.wait()


def wait_for(find: Callable[[], str], what: str) -> str:
    """The first answer that is not empty."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen in {SECONDS} s")


@contextlib.contextmanager
def dialog(grass: Grass, display: str, *command: str | Path) -> Iterator[Callable[..., str]]:
    """Start a command that opens a window and give a function that runs xdotool there; ends all it started."""
    env = {**grass.env, "DISPLAY": display, "GRASS_PYTHON": sys.executable, "NO_AT_BRIDGE": "1", "OMP_NUM_THREADS": "1"}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=env, cwd=grass.mapset, start_new_session=True, **quiet)
    try:
        yield lambda *arguments: subprocess.run(
            ["xdotool", *arguments], env=env, capture_output=True, text=True, check=False
        ).stdout.strip()
    finally:
        # The process may have ended and left its window to a child of the same group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shades(display: str, window: str, name: str, tmp_path: Path) -> int:
    """Number of different colours of a window on the display."""
    folder = Path(os.environ.get("RLEARNDEEP_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    env = {**os.environ, "DISPLAY": display}
    subprocess.run(["import", "-window", window, picture], env=env, check=True)
    told = subprocess.run(["identify", "-format", "%k", picture], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_dialog_of_a_tool_opens_and_shows_its_options(
    tool: str, grass: Grass, display: str, tmp_path: Path
) -> None:
    with dialog(grass, display, tool, "--ui") as xdotool:
        window = wait_for(lambda: xdotool("search", "--onlyvisible", "--name", f"^{tool}"), f"The dialog of {tool}")
        title = xdotool("getwindowname", window.split()[0])
        assert title.split()[0] == tool
        # An empty window has one colour or two; text, fields and icons have hundreds.
        wait_for(
            lambda: "yes" if shades(display, window.split()[0], tool, tmp_path) > 100 else "", f"The content of {tool}"
        )


def test_run_in_the_dialog_runs_the_tool(grass: Grass, display: str, tmp_path: Path) -> None:
    grass.ok("g.region", "n=40", "s=0", "w=0", "e=40", "res=1")
    for name, formula in {"band": "row() + rand(0, 9)", "label": "1 + int(col() / 20)"}.items():
        grass.ok("r.mapcalc", f"{name} = {formula}", "seed=1")
    grass.ok("i.group", "group=scene", "input=band")
    forms = Path(grass.env["GISBASE"]) / "gui" / "wxpython" / "gui_core" / "forms.py"
    filled_in = f"v.sample.patches group=scene raster=label size=4 output=places patches={tmp_path / 'patches'}"
    with dialog(grass, display, sys.executable, forms, filled_in) as xdotool:
        window = wait_for(
            lambda: xdotool("search", "--onlyvisible", "--name", "^v.sample.patches"), "The dialog"
        ).split()[0]
        wait_for(lambda: "yes" if shades(display, window, "before_run", tmp_path) > 100 else "", "The content")
        xdotool("windowfocus", "--sync", window)
        xdotool("key", "--clearmodifiers", "ctrl+r")
        manifest = tmp_path / "patches" / "dataset.json"
        try:
            wait_for(lambda: "yes" if manifest.is_file() else "", "Sampling")
        finally:
            shades(display, window, "after_run", tmp_path)
    assert "places" in grass.maps("vector")
