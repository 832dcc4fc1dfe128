#!/usr/bin/env python3
"""Deep learning from a plain Python script with grass-session: ``.venv/bin/python examples/with_grass_session.py``.

The suite is installed as an add-on (make install, or g.extension).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from four_commands import build_scene, run, use_this_interpreter

# grass-session 0.5 looks for add-ons where GRASS 7 had them; this must be known before it is imported.
ADDONS = os.environ.get("GRASS_ADDON_BASE") or str(Path.home() / ".grass8" / "addons")


def main() -> None:
    """Print what r.learn.deep.evaluate found."""
    from grass_session import Session

    use_this_interpreter()
    with (
        tempfile.TemporaryDirectory() as directory,
        Session(gisdb=directory, location="project", create_opts="XY"),
    ):
        os.environ["GRASS_ADDON_BASE"] = ADDONS
        os.environ["PATH"] += os.pathsep + os.path.join(ADDONS, "scripts")
        build_scene()
        print(json.dumps(run(Path(directory)), indent=1))


if __name__ == "__main__":
    main()
