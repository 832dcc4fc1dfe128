"""The four commands from Python, on a small scene; the scripts beside it differ in how they open GRASS.

Inside a running GRASS session, ``build_scene`` and ``run`` are all there is to it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def use_this_interpreter() -> None:
    """Tools start with the first ``python3`` on the PATH: let it be the one that runs this script and has PyTorch."""
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]


def build_scene() -> None:
    """Make a group of two bands, ``scene``, and a raster of land cover, ``cover``, in the current mapset."""
    import grass.script as gs

    gs.run_command("g.region", n=120, s=0, w=0, e=120, res=1)
    gs.mapcalc("cover = 1 + (int((row() - 1) / 10) + int((col() - 1) / 10)) % 3")
    gs.write_command("r.category", map="cover", separator=":", rules="-", stdin="1:water\n2:field\n3:forest\n")
    gs.mapcalc("red = if(cover == 2, 90, 30) + rand(-40, 40)", seed=1)
    gs.mapcalc("nir = 40 * cover + rand(-40, 40)", seed=2)
    gs.run_command("i.group", group="scene", input="red,nir")


def run(directory: Path) -> dict[str, Any]:
    """Sample, train, predict, evaluate; patches and model go to ``directory``. Returns what the last command says."""
    patches, model = directory / "patches", directory / "model"
    command("v.sample.patches", group="scene", raster="cover", size=1, output="places", patches=patches)
    command("r.learn.deep.train", patches=patches, model=model, architecture="mlp", epochs=20, seed=1)
    command("r.learn.deep.predict", group="scene", model=model, output="predicted")
    return command("r.learn.deep.evaluate", input="predicted", reference="cover")


def command(tool: str, **options: Any) -> dict[str, Any]:
    """Run a tool of the suite and return the object it prints; stops with the tool's own error message."""
    import grass.script as gs

    return json.loads(gs.read_command(tool, format="json", **options))
