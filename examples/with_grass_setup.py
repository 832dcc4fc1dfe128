#!/usr/bin/env python3
"""Deep learning from a plain Python script with GRASS alone: ``.venv/bin/python examples/with_grass_setup.py``.

The suite is installed as an add-on (make install, or g.extension).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from four_commands import build_scene, run, use_this_interpreter


def main() -> None:
    """Print what r.learn.deep.evaluate found."""
    sys.path.append(ask_grass("python_path"))
    import grass.script as gs
    import grass.script.setup  # noqa: F401  gs.setup

    use_this_interpreter()
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / "project"
        subprocess.run(["grass", "-e", "-c", "XY", project], check=True, capture_output=True)
        with gs.setup.init(project, grass_path=ask_grass("path")):
            build_scene()
            print(json.dumps(run(Path(directory)), indent=1))


def ask_grass(question: str) -> str:
    """A directory of the installed GRASS: ``path`` or ``python_path``."""
    return subprocess.run(["grass", "--config", question], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
