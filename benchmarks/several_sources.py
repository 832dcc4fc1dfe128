#!/usr/bin/env python3
"""Networks of several sources against the network of one, on the same patches of the same blocks.

    benchmarks/several_sources.py DATA [scene...] [--seeds=N] [--table=FILE]
    scenes: slovenia_series, north_carolina, village

Each scene is sampled once per seed; every network is trained on those patches with that seed, by the commands a user
would type. Printed, and written to the table: scores of the validation and of the test part, mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from session import ROOT, project

sys.path.append(str(ROOT / "demo"))
TABLE = Path(__file__).resolve().with_suffix(".md")

TRAINING = ("epochs=10", "patience=0", "augment=flip,rotate,jitter")
FUSION = "architecture=fusion"
ALONE = "sources=reference"
PRETRAINED = ("pretrain=simclr", "unlabelled=unlabelled", "pretrain_epochs=10")


@dataclass(frozen=True)
class Scene:
    """What is sampled and what is trained.

    Attributes:
        crs: of the project.
        build: makes the maps of the scene from the folder of data.
        sources: arguments of v.sample.patches that name the sources.
        labels: its arguments for labels.
        patches: its arguments for size and parts.
        networks: arguments of each by its name in the table; the first is what the others are compared with.
    """

    crs: str
    build: Callable[[Path], None]
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    patches: tuple[str, ...]
    networks: dict[str, tuple[str, ...]]


@dataclass
class Row:
    """Scores of one network, a number per seed."""

    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, found: dict, seconds: float) -> None:
        """Scores of one training."""
        self.seconds.append(seconds)
        for part in ("validation", "test"):
            for score in ("overall_accuracy", "f1_macro"):
                self.scores.setdefault((part, score), []).append(found["parts"][part][score])

    def text(self) -> str:
        """Cells of the table: mean, and half of the range where there are several."""
        halves = [f" ± {(max(values) - min(values)) / 2:.3f}" * (len(values) > 1) for values in self.scores.values()]
        means = [f"{statistics.mean(values):.3f}" for values in self.scores.values()]
        cells = [mean + half for mean, half in zip(means, halves, strict=True)]
        return " | ".join([*cells, f"{statistics.mean(self.seconds):.0f}"])


def grass(module: str, *arguments: str, text: str | None = None) -> str:
    """Standard output of a module."""
    return subprocess.run([module, *arguments], check=True, capture_output=True, text=True, input=text).stdout


def answer(tool: str, *arguments: str) -> dict:
    """What a tool prints with format=json; its messages go to the terminal."""
    print(
        "  ", tool, *(argument if len(argument) < 200 else f"{argument[:60]}..." for argument in arguments), flush=True
    )
    done = subprocess.run([tool, *arguments, "format=json"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


DATES = 68

HEAD = """Written by `benchmarks/several_sources.py`. Every network of a scene is trained on the same patches, whose
parts are whole blocks. Scores are the mean over the seeds of sampling and training ± half of the range, if several;
OA is the overall accuracy, F1 the mean over the classes. The test part chose nothing. Pre-training sees the imagery of
the whole scene, without labels. Seeds may divide a small scene alike; the range is then that of training only. Seconds
are those of a machine with other work."""


def slovenia(data: Path) -> None:
    """Thirteen bands of a clear day, a height model, and NDVI of 68 dates in which clouds are null."""
    folder = data / "slovenia_series"
    for name, file in (("ndvi", "ndvi_68dates"), ("cloud", "cloudmask_68dates"), ("scene", "s2_l1c_scene2_13b")):
        grass("r.in.gdal", "-o", f"input={folder}/{file}.tif", f"output={name}")
    for name in ("lulc", "dem"):
        grass("r.in.gdal", "-o", f"input={folder}/{name}.tif", f"output={name}")
    grass("g.region", "raster=lulc")
    grass("i.group", "group=scene", "input=" + ",".join(f"scene.{band}" for band in range(1, 14)))
    grass("i.group", "group=dem", "input=dem")
    clear = [f"clear{day} = if(cloud.{day} == 0, ndvi.{day}, null())" for day in range(1, DATES + 1)]
    # 11 cells of cultivated land cannot be learned from, 155 have no class.
    classes = "classes = if(lulc < 2, null(), lulc)"
    grass("r.mapcalc", "file=-", text="\n".join([*clear, classes]))
    for day in range(1, DATES + 1):
        grass("r.support", f"map=clear{day}", "semantic_label=NDVI")
        grass("i.group", f"group=day{day}", f"input=clear{day}")


def slovenia_dates(data: Path) -> str:
    """The option dates=."""
    stamps = json.loads((data / "slovenia_series" / "timestamps.json").read_text())
    return "dates=" + ",".join(stamp[:10] for stamp in stamps)


def north_carolina(data: Path) -> None:
    """Landsat 7 in three resolutions."""
    for band in (10, 20, 30, 40, 50, 70, 80, 61):
        name = f"lsat7_2000_{band}"
        grass("r.in.gdal", "-o", f"input={data}/north_carolina/{name}.tif", f"output={name}")
    grass("r.in.gdal", "-o", f"input={data}/north_carolina/landclass96.tif", "output=landclass96")
    grass("g.region", "raster=lsat7_2000_10")
    grass("i.group", "group=bands", "input=" + ",".join(f"lsat7_2000_{band}" for band in (10, 20, 30, 40, 50, 70)))
    grass("i.group", "group=panchromatic", "input=lsat7_2000_80")
    grass("i.group", "group=thermal", "input=lsat7_2000_61")


def village(data: Path) -> None:
    """The invented village of the demo: four bands of 1 m, heights of 2 m, and the truth of every cell."""
    import workflow

    os.environ["GRASS_VERBOSE"] = "-1"
    workflow.build_scene(workflow.SMALL.size)
    grass("g.region", "raster=red")
    grass("i.group", "group=image", "input=red,green,blue,nir")
    grass("i.group", "group=surface", "input=height")


def scenes(data: Path) -> dict[str, Scene]:
    """The scenes by their names."""
    series = "series=" + ",".join(f"day{day}" for day in range(1, DATES + 1))
    several = {
        "U-Net, reference alone": (ALONE,),
        "reference alone, pre-trained": (ALONE, *PRETRAINED),
        "U-Net, all but a series stacked (nearest)": ("resampling=nearest",),
        "U-Net, all but a series stacked (bilinear)": ("resampling=bilinear",),
        "fusion of all sources": (FUSION,),
        "fusion, pre-trained": (FUSION, *PRETRAINED),
    }
    return {
        "slovenia_series": Scene(
            "EPSG:32633",
            slovenia,
            ("group=scene", "auxiliary=dem", series, slovenia_dates(data)),
            ("raster=classes",),
            ("size=8", "stride=4", "split=block", "block_size=250", "buffer=0", "shares=50,25,25"),
            {
                **several,
                "fusion of reference and series": (FUSION, "sources=reference,series"),
                "series alone": (FUSION, "sources=series"),
            },
        ),
        "north_carolina": Scene(
            "EPSG:32119",
            north_carolina,
            ("group=bands", "auxiliary=panchromatic,thermal"),
            ("raster=landclass96",),
            ("size=32", "stride=32", "split=block", "buffer=0", "shares=60,20,20"),
            several,
        ),
        "village": Scene(
            "EPSG:32632",
            village,
            ("group=image", "auxiliary=surface"),
            ("raster=mapped", "min_labelled=15"),
            ("size=32", "stride=16", "max_null=20", "split=block", "block_size=80", "buffer=0", "shares=60,20,20"),
            {**several, "heights alone": (FUSION, "sources=auxiliary1")},
        ),
    }


def trained(scene: Scene, data: Path, seeds: int) -> tuple[dict[str, Row], list[dict]]:
    """Rows of a scene, and what v.sample.patches said, per seed."""
    scene.build(data)
    rows = {name: Row() for name in scene.networks}
    sampled = []
    size = [argument for argument in scene.patches if argument.startswith(("size=", "stride="))]
    answer("v.sample.patches", *scene.sources, *size, "patches=unlabelled", "output=unlabelled")
    for seed in range(1, seeds + 1):
        where = (f"patches=patches{seed}", f"output=patches{seed}", f"seed={seed}")
        sampled.append(answer("v.sample.patches", *scene.sources, *scene.labels, *scene.patches, *where))
        for name, arguments in scene.networks.items():
            start = time.perf_counter()
            scores = answer(
                *("r.learn.deep.train", f"patches=patches{seed}", "model=model", f"seed={seed}", "nprocs=1"),
                *(*TRAINING, *arguments),
            )
            rows[name].add(scores, time.perf_counter() - start)
            print(f"   {name}, seed {seed}: {rows[name].text()}", flush=True)
    return rows, sampled


def lines(name: str, scene: Scene, rows: dict[str, Row], sampled: list[dict]) -> Iterator[str]:
    """The table of a scene as Markdown."""
    counts = ", ".join(" / ".join(str(found["parts"][part]) for part in found["parts"]) for found in sampled)
    given = (*scene.sources, *scene.labels, *scene.patches)
    command = " ".join(argument if len(argument) < 100 else f"{argument[:12]}..." for argument in given)
    yield f"## {name}"
    yield ""
    yield f"`v.sample.patches {command}`; patches of training / validation / test by seed: {counts}."
    yield f"`r.learn.deep.train {' '.join(TRAINING)}` and the options of the table."
    yield ""
    yield "| network | options | validation OA | validation F1 | test OA | test F1 | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for label, row in rows.items():
        yield f"| {label} | `{' '.join(scene.networks[label])}` | {row.text()} |"
    yield ""


def main() -> None:
    """Run the scenes, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("scene", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    known = scenes(options.data.absolute())
    text = []
    for name in options.scene or list(known):
        with project(known[name].crs) as directory:
            here = Path.cwd()
            os.chdir(directory)
            try:
                text += lines(name, known[name], *trained(known[name], options.data.absolute(), options.seeds))
            finally:
                os.chdir(here)
        print("\n".join(text), flush=True)
        page = [f"# {__doc__.splitlines()[0].removesuffix('.')}", "", HEAD, "", *text]
        options.table.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
