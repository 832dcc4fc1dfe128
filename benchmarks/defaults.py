#!/usr/bin/env python3
"""Which settings learn best on real scenes, by the score of the validation part: where the defaults come from.

    benchmarks/defaults.py DATA [scene[:setting]...]      scenes: cells, landcover, polygons, buildings

Prints, per scene, a row for each setting that is changed (or those of one, e.g. ``landcover:batch_size``): best
validation score of F1 macro, mean of the seeds, and seconds. Test parts are not touched.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_scenes import _north_carolina, answer, grass, import_bands
from session import ROOT, project

sys.path.insert(0, str(ROOT / "lib"))

from rlearndeep.backends import get_backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import fit, prepare
from rlearndeep.patches import PatchDataset

SEEDS = (1, 2)


def cells(data: Path) -> dict[str, dict[str, Any]]:
    """Sentinel-2, single cells under areas; whole areas are the validation part."""
    import_bands(data / "aber_sentinel2/sen2_20210527_aber.tif", "s2")
    grass("v.in.ogr", "-o", f"input={data}/aber_sentinel2/training_polygons.gpkg", "output=polygons")
    watched = ",".join(str(cat) for cat in range(1, 41) if cat % 5 == 1)
    answer(
        *(
            "v.sample.patches",
            "group=s2",
            "input=polygons",
            "column=class",
            "size=1",
            "split=column",
            "split_column=cat",
        ),
        *(f"validation={watched}", "buffer=0", "shares=80,20,0", "patches=patches", "output=places"),
    )
    return {
        "batch_size": {"batch_size": (32, 64, 256)},
        "learning_rate": {"learning_rate": (0.0003, 0.003)},
        "class_weights": {"class_weights": ("balanced",)},
        "dropout": {"network": ({"dropout": 0.0}, {"dropout": 0.4})},
        "scheduler": {"scheduler": ("cosine", "none")},
    }


def landcover(data: Path) -> dict[str, dict[str, Any]]:
    """Landsat 7, label raster, U-Net; blocks are the validation part."""
    _north_carolina(data)
    answer(
        *("v.sample.patches", "group=lsat7_2000", "raster=landclass96", "size=32", "stride=32", "shares=70,30,0"),
        *("patches=patches", "output=places"),
    )
    return {
        "batch_size": {"batch_size": (4, 8, 16, 32)},
        "learning_rate": {"learning_rate": (0.0003, 0.003)},
        "loss": {"loss": ("cross_entropy+dice",)},
        "class_weights": {"class_weights": ("balanced",)},
        "scheduler": {"scheduler": ("cosine",)},
    }


def polygons(data: Path) -> dict[str, dict[str, Any]]:
    """Landsat 7, patches of 7 x 7 cells in areas, ResNet-18; whole areas are the validation part."""
    _north_carolina(data)
    cats = [int(cat) for cat in grass("v.db.select", "-c", "map=polygons", "columns=cat").split()]
    watched = ",".join(str(cat) for cat in cats if cat % 3 == 1)
    answer(
        *(
            "v.sample.patches",
            "group=lsat7_2000",
            "input=polygons",
            "column=label",
            "label=center",
            "size=7",
            "stride=2",
        ),
        *("split=column", "split_column=cat", f"validation={watched}", "buffer=0", "shares=70,30,0"),
        *("patches=patches", "output=places"),
    )
    return {
        "batch_size": {"batch_size": (8, 16, 32)},
        "learning_rate": {"learning_rate": (0.0003, 0.003)},
        "class_weights": {"class_weights": ("balanced",)},
    }


def buildings(data: Path) -> dict[str, dict[str, Any]]:
    """Aerial image, buildings and background, U-Net; blocks are the validation part."""
    import_bands(data / "massachusetts/23429155_15.tif", "rgb")
    grass("v.in.ogr", "-o", f"input={data}/massachusetts/23429155_15.gpkg", "output=buildings")
    grass("g.region", "raster=rgb.1", "e=w+500")
    answer(
        *("v.sample.patches", "group=rgb", "input=buildings", "column=class", "background=0", "size=64", "stride=64"),
        *("split=block", "shares=70,30,0", "block_size=128", "patches=patches", "output=places"),
    )
    return {"batch_size": {"batch_size": (4, 8, 16)}, "learning_rate": {"learning_rate": (0.0003, 0.003)}}


SCENES: dict[str, tuple[str, Callable[[Path], dict[str, dict[str, Any]]]]] = {
    "cells": ("EPSG:27700", cells),
    "landcover": ("EPSG:32119", landcover),
    "polygons": ("EPSG:32119", polygons),
    "buildings": ("EPSG:26986", buildings),
}


def measured(dataset: PatchDataset, settings: Settings) -> tuple[float, float, str]:
    """Mean over the seeds of the best validation score; seconds; what was chosen."""
    backend = get_backend("torch")
    scores, start = [], time.perf_counter()
    for seed in SEEDS:
        plan = prepare([dataset], dataclasses.replace(settings, seed=seed, device="cpu", nprocs=1), backend)
        with tempfile.TemporaryDirectory() as folder:
            history = fit(plan, Path(folder), backend).history
        scores.append(max(row[plan.task.measure.column] for row in history))
    chosen = plan.settings
    text = f"batch {chosen.batch_size}, at most {chosen.epochs} epochs, {len(history)} run"
    return sum(scores) / len(scores), (time.perf_counter() - start) / len(SEEDS), text


def main(data: Path, names: list[str]) -> None:
    """Measure the scenes and print their tables."""
    for wanted in names or list(SCENES):
        name, _, setting = wanted.partition(":")
        crs, sample = SCENES[name]
        with project(crs) as directory:
            here = Path.cwd()
            os.chdir(directory)
            variants = sample(data)
            dataset = PatchDataset.open(directory / "patches")
            os.chdir(here)
            counts = ", ".join(f"{len(dataset.positions(part))} {part}" for part in ("training", "validation"))
            print(f"\n{name}: {counts} patches\n{'':44}{'score':>8}{'seconds':>9}", flush=True)
            for label, settings in _changed(variants, setting):
                score, seconds, text = measured(dataset, settings)
                print(f"{label:44}{score:8.3f}{seconds:9.0f}  {text}", flush=True)


def _changed(variants: dict[str, dict[str, Any]], wanted: str) -> list[tuple[str, Settings]]:
    """The defaults, then settings with one of them changed."""
    changed = [
        (f"{label}={value}", Settings(**{name: value}))
        for label, change in variants.items()
        for name, values in change.items()
        for value in values
        if wanted in ("", label)
    ]
    return [("defaults", Settings()), *changed]


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:])
