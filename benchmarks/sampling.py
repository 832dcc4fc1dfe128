#!/usr/bin/env python3
"""Patches per second: 30,000 patches of 64x64x5 from 8000x8000 cells against a scan and a raw write of the same bytes.

benchmarks/sampling.py [side in cells, default 8000] [patches, default 30000]

The yardstick is a C program that reads the bands row by row, plus writing the bytes of the patches to the same disk;
its seconds have no start-up in them, ours are those the tool reports: plan, patches, footprints. The yardstick is
measured anew before each of our runs, and medians of three rounds are printed; processor seconds, start-up and
modules included, tell what the clock of a busy machine does not. The rivals are what
people write by hand: a loop over exported GeoTIFFs with rasterio, and the sampler of TorchGeo. Rivals that are not
installed are named as left out. They run in processes of their own, away from GRASS's libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from session import arguments, compile_against_grass, project, restart_with_libraries, run_apart

SIZE, BANDS, ROUNDS = 64, 5, 3
MEMORY = 300

RASTERIO = """
import sys, time
import numpy as np, rasterio
from rasterio.windows import Window
files, side, count, out = sys.argv[4:], int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
random = np.random.default_rng(1)
start = time.perf_counter()
sources = [rasterio.open(file) for file in files]
images = np.lib.format.open_memmap(out, mode="w+", dtype=np.uint16, shape=(count, len(files), 64, 64))
for number, (row, col) in enumerate(random.integers(0, side - 64, (count, 2))):
    for band, source in enumerate(sources):
        images[number, band] = source.read(1, window=Window(col, row, 64, 64))
images.flush()
print(time.perf_counter() - start)
"""

TORCHGEO = """
import sys, time
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler
class Stack(RasterDataset):
    filename_glob = "stack.tif"
dataset, count = Stack(sys.argv[3]), int(sys.argv[2])
start = time.perf_counter()
for batch in DataLoader(dataset, batch_size=64, sampler=RandomGeoSampler(dataset, 64, count), collate_fn=stack_samples):
    pass
print(time.perf_counter() - start)
"""


def make_scene(side: int, names: list[str]) -> None:
    """Bands of 16 bit with noise, and a label raster of seven classes."""
    subprocess.run(["g.region", f"n={side}", "s=0", "w=0", f"e={side}", "res=1"], check=True)
    for number, name in enumerate(names):
        expression = f"{name} = int(3000 + 800 * sin(row() * {number + 1}) + rand(0, 500))"
        subprocess.run(["r.mapcalc", "-s", expression], check=True)
    subprocess.run(["r.mapcalc", "labels = int((row() / 90 + col() / 70) % 7) + 1"], check=True)
    subprocess.run(["i.group", "group=g", f"input={','.join(names)}"], check=True)


def sample(directory: Path, count: int, *wishes: str) -> dict:
    """Report of the tool with the processor seconds and the peak memory of the whole command."""
    shutil.rmtree(directory / "patches", ignore_errors=True)
    command = [
        *("v.sample.patches", "group=g", f"size={SIZE}", "placement=random", f"number={count}", "split=none"),
        *(
            "output=footprints",
            f"patches={directory / 'patches'}",
            f"memory={MEMORY}",
            "duplicates=keep",
            "format=json",
        ),
        *wishes,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        text = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"v.sample.patches failed: {' '.join(command)}")
    return {
        **json.loads(text),
        "peak_mb": usage.ru_maxrss / 1024,
        "cpu": usage.ru_utime + usage.ru_stime,
    }


def raw_write(directory: Path, size: int) -> float:
    """Seconds of writing so many bytes to a file and to the disk's cache, as the patches are."""
    piece = os.urandom(1 << 24)
    start = time.perf_counter()
    with open(directory / "raw", "wb") as stream:
        for _ in range(size >> 24):
            stream.write(piece)
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    (directory / "raw").unlink()
    return seconds


def rivals(directory: Path, names: list[str], side: int, count: int) -> dict[str, float | str]:
    """The same number of patches by the usual scripts; exporting the bands is not counted."""
    for name in names:
        options = ["format=GTiff", "createopt=TILED=YES,COMPRESS=ZSTD", "type=UInt16", f"output={directory / name}.tif"]
        subprocess.run(["r.out.gdal", "-f", "-c", f"input={name}", *options], check=True, stderr=subprocess.DEVNULL)
    files = [str(directory / f"{name}.tif") for name in names]
    found = {
        "rasterio loop": run_apart("rasterio", RASTERIO, [str(side), str(count), str(directory / "r.npy"), *files])
    }
    tiled = ["format=GTiff", "createopt=TILED=YES,COMPRESS=ZSTD", "type=UInt16", f"output={directory / 'stack'}.tif"]
    subprocess.run(["r.out.gdal", "-f", "-c", "input=g", *tiled], check=True, stderr=subprocess.DEVNULL)
    found["TorchGeo sampler"] = run_apart("torchgeo", TORCHGEO, [str(side), str(count), str(directory)])
    return found


def main(side: int, count: int) -> None:
    """Print seconds, ratios, and patches per second."""
    restart_with_libraries()
    names = [f"band{number}" for number in range(1, BANDS + 1)]
    with project() as directory:
        make_scene(side, names)
        program = compile_against_grass(Path(__file__).with_name("scan.c"), directory)

        def scan() -> float:
            return float(subprocess.run([program, "read", *names], capture_output=True, text=True, check=True).stdout)

        def yardstick(patches: int) -> float:
            return scan() + raw_write(directory, patches * SIZE * SIZE * (2 * BANDS + 2))

        scan()
        rows = [measure(label, directory, patches, wishes, yardstick) for label, patches, wishes in runs(count)]
        reference = yardstick(count)
        rows += [
            (label, count, seconds, seconds if isinstance(seconds, str) else seconds / reference, {})
            for label, seconds in rivals(directory, names, side, count).items()
        ]
    print(f"patches of {SIZE} x {SIZE} x {BANDS} from {side} x {side} cells, memory={MEMORY}; 1 = C scan + raw write")
    print(f"{'':28}{'s':>8}{'ratio':>8}{'patches/s':>12}{'processor s':>13}{'peak MB':>10}")
    for label, patches, seconds, ratio, usage in rows:
        if isinstance(seconds, str):
            print(f"{label:28}{seconds}")
            continue
        cost = f"{usage['cpu']:13.2f}{usage['peak_mb']:10.0f}" if usage else ""
        print(f"{label:28}{seconds:8.2f}{ratio:8.2f}{patches / seconds:12.0f}{cost}")


def runs(count: int) -> list[tuple[str, int, tuple[str, ...]]]:
    """What is measured: a name, the number of patches, and further options."""
    few = max(1, count // 100)
    return [
        ("patches alone", count, ()),
        ("the same, nprocs=2", count, ("nprocs=2",)),
        ("with a label raster", count, ("raster=labels",)),
        ("few patches", few, ()),
        ("the same, nprocs=2", few, ("nprocs=2",)),
    ]


def measure(
    label: str, directory: Path, count: int, wishes: tuple[str, ...], yardstick: Callable[[int], float]
) -> tuple[str, int, float, float, dict]:
    """Median seconds, median ratio to a yardstick measured right before, and the last run's usage."""
    pairs = []
    for _ in range(ROUNDS):
        reference, answer = yardstick(count), sample(directory, count, *wishes)
        pairs.append((answer["seconds"], answer["seconds"] / reference))
    seconds, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
    return label, count, seconds, ratio, answer


if __name__ == "__main__":
    main(**arguments(__doc__, side=8000, count=30000))
