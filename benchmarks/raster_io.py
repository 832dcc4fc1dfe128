#!/usr/bin/env python3
"""Reading and writing rasters against a C program: strips of five 16-bit bands, class map, score map.

benchmarks/raster_io.py [side of the square scene in cells, default 8000]
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from session import arguments, compile_against_grass, median, project, restart_with_libraries


def main(side: int) -> None:
    """Print seconds and ratios."""
    restart_with_libraries()
    from rlearndeep.gis.rasters import RasterStack, RasterWriter
    from rlearndeep.gis.session import current_region
    from rlearndeep.scene.geometry import Window

    with project() as directory:
        subprocess.run(["g.region", f"n={side}", "s=0", "w=0", f"e={side}", "res=1"], check=True)
        names = [f"band{number}" for number in range(1, 6)]
        for number, name in enumerate(names):
            expression = f"{name} = int(3000 + 800 * sin(row() * {number + 1}) + rand(0, 500))"
            subprocess.run(["r.mapcalc", "-s", expression], check=True)
        program = compile_against_grass(Path(__file__).with_name("scan.c"), directory)
        region = current_region()

        def yardstick(*arguments: str) -> float:
            return float(subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout)

        def read() -> float:
            start = time.perf_counter()
            with RasterStack(names, region) as stack:
                for top in range(0, side, 256):
                    stack.read(Window(top, min(top + 256, side), 0, side))
            return time.perf_counter() - start

        def write(dtype: str) -> float:
            import numpy as np

            row, col = np.ogrid[:side, :side]
            cells = (row // 9 + col // 7) % 7
            values = ((row * 31 + col * 17) % 1000 * 0.001).astype(np.float32)
            rows = cells.astype(np.int32) if dtype == "int32" else values
            start = time.perf_counter()
            with RasterWriter("written", region, dtype) as writer:
                for top in range(0, side, 256):
                    writer.write(rows[top : top + 256])
            return time.perf_counter() - start

        yardstick("read", *names)
        rows = [
            ("read five bands in strips", median(read), median(lambda: yardstick("read", *names))),
            ("write a class map", median(lambda: write("int32")), median(lambda: yardstick("write", "c", "bare"))),
            ("write a score map", median(lambda: write("float32")), median(lambda: yardstick("write", "f", "bare"))),
        ]
    print(f"{side} x {side} cells, medians of 5\n{'':28}{'ours s':>8}{'C s':>8}{'ratio':>8}")
    for label, ours, bare in rows:
        print(f"{label:28}{ours:8.2f}{bare:8.2f}{ours / bare:8.2f}")


if __name__ == "__main__":
    main(**arguments(__doc__, side=8000))
