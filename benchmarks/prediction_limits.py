#!/usr/bin/env python3
"""Start-up of r.learn.deep.predict, and its peak memory on a long scene against that on a short one.

benchmarks/prediction_limits.py [rows of the long scene, default 40000]

Networks with random weights, five bands, scenes 500 cells wide; the short one has 2000 rows.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from prediction import model_directory
from session import arguments, median, project, restart_with_libraries

SHORT = 2000
COLS = 500


def region(rows: int, cols: int) -> None:
    """Set the region."""
    subprocess.run(["g.region", f"n={rows}", "s=0", "w=0", f"e={cols}", "res=1"], check=True)


def predict(model: Path, *more: str) -> dict:
    """What the tool reports."""
    command = [
        "r.learn.deep.predict",
        "group=scene",
        f"model={model}",
        "output=map",
        "format=json",
        "--o",
        "--q",
        *more,
    ]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(rows: int) -> None:
    """Print seconds and megabytes."""
    restart_with_libraries()
    with project(), tempfile.TemporaryDirectory() as place:
        region(rows, COLS)
        names = [f"band{number}" for number in range(1, 6)]
        for number, name in enumerate(names, 1):
            subprocess.run(["r.mapcalc", "-s", f"{name} = int(3000 + 800 * sin(row() * {number + 1}))"], check=True)
        subprocess.run(["i.group", "group=scene", f"input={','.join(names)}"], check=True, capture_output=True)
        unet = model_directory(Path(place), "unet", {"encoder": "resnet18"}, patch=(128, 128), stride=32, reach=32)[0]
        mlp = model_directory(Path(place), "mlp", {"hidden": [128, 64]}, patch=(1, 1))[0]
        for name, model in (("U-Net", unet), ("perceptron", mlp)):
            region(50, 50)

            def once(model: Path = model) -> float:
                start = time.perf_counter()
                predict(model)
                return time.perf_counter() - start

            print(f"{name}: 50 x 50 cells, whole process, median of 5: {median(once):.2f} s", flush=True)
            peaks = []
            for height in (SHORT, rows):
                region(height, COLS)
                peaks.append(predict(model)["peak_memory_mb"])
            ratio = peaks[1] / peaks[0]
            print(
                f"{name}: peak memory {SHORT} rows {peaks[0]} MB, {rows} rows {peaks[1]} MB, ratio {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(**arguments(__doc__, rows=40000))
