"""Plain Python scripts drive the whole job, with nothing of GRASS in their environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = ("with_grass_session.py", "with_grass_setup.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_outside_grass_runs_the_four_commands(script: str, installed: Path, tmp_path: Path) -> None:
    # No GRASS variable, and no venv on the PATH: what a cron job has.
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "GRASS_ADDON_BASE": str(installed),
        "OMP_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Two bands tell the three classes apart but for noise; one class for all cells would give a third.
    assessed = json.loads(done.stdout[done.stdout.index("{") :])
    assert assessed["maps"][0]["overall_accuracy"] > 0.8
