#!/usr/bin/env python3
"""Comparing two class maps against a C program that only reads both.

benchmarks/evaluation.py [side of the square maps in cells, default 10000]
"""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path

from session import arguments, compile_against_grass, median, project, restart_with_libraries

CLASSES = 7


def main(side: int) -> None:
    """Print seconds, ratios and peak memory."""
    restart_with_libraries()
    with project() as directory:
        make_maps(side)
        program = compile_against_grass(Path(__file__).with_name("scan.c"), directory)

        def bare() -> float:
            done = subprocess.run([program, "read", "made", "truth"], capture_output=True, text=True, check=True)
            return float(done.stdout)

        bare()
        scan = median(bare)
        print(f"{side} x {side} cells, {CLASSES} classes, medians of 5\n{'':34}{'s':>8}{'/ C scan':>10}")
        print(f"{'C scan of both maps':34}{scan:8.2f}{1:10.2f}")
        for label, maps in (("one map against the reference", ["made"]), ("two maps side by side", ["made", "other"])):
            counted = median(lambda maps=maps: counting(maps))
            print(f"{'count ' + label:34}{counted:8.2f}{counted / scan:10.2f}")
        whole = median(lambda: command("input=made"))
        print(f"{'whole command, started to printed':34}{whole:8.2f}{whole / scan:10.2f}")
        print(f"peak memory of the command {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


def make_maps(side: int) -> None:
    """A reference of ragged patches, and two maps that differ from it in some cells."""
    subprocess.run(["g.region", f"n={side}", "s=0", "w=0", f"e={side}", "res=1"], check=True)
    waves = "0.25 * sin(row() * 3.1) * cos(col() * 2.3) + 0.25 * sin((row() + col()) * 0.9)"
    patches = f"int({CLASSES - 0.01} * (0.5 + {waves})) + 1"
    for expression in (
        f"truth = {patches}",
        f"made = if(rand(0, 10) < 1, rand(1, {CLASSES + 1}), truth)",
        f"other = if(rand(0, 10) < 2, rand(1, {CLASSES + 1}), truth)",
    ):
        subprocess.run(["r.mapcalc", "-s", expression], check=True)


def counting(maps: list[str]) -> float:
    """Seconds of reading and counting, as r.learn.deep.evaluate does it."""
    from rlearndeep.accuracy.counting import ClassCounting, Layers, codings_of
    from rlearndeep.accuracy.tally import Coding, Layout
    from rlearndeep.gis.rasters import cell_areas
    from rlearndeep.gis.references import categories_of, read_strips
    from rlearndeep.gis.session import current_region

    region = current_region()
    names = [*maps, "truth"]
    categories = [categories_of(name, region) for name in names]
    layout = Layout(codings_of(categories[:-1]), Coding.of(categories[-1]))
    passes = ClassCounting(Layers(len(maps), reference=len(maps)), layout, cell_areas(region))
    start = time.perf_counter()
    passes.cells(read_strips(names, region, "int32", 300))
    return time.perf_counter() - start


def command(*arguments: str) -> float:
    """Seconds of the tool as a user starts it."""
    start = time.perf_counter()
    subprocess.run(["r.learn.deep.evaluate", *arguments, "reference=truth"], capture_output=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(**arguments(__doc__, side=10000))
