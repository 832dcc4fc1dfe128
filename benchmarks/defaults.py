#!/usr/bin/env python3
"""Which settings learn best on real scenes, by the score of the validation part: where the defaults come from.

    benchmarks/defaults.py [DATA [scene...]]      scenes: cells, polygons, landcover, buildings,
                                               stems

Trains each scene with the defaults and with one setting changed at a time, with two seeds. Runs are kept in
``defaults.csv`` beside this script, and one that stands there is not repeated; ``defaults.md`` is the table made of
them; without DATA only the table is made. Test parts are not touched. One thread, about two hours of processor
time for everything.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_scenes import _injune, _north_carolina, answer, grass, import_bands
from session import ROOT, project, scene_arguments

sys.path.insert(0, str(ROOT / "lib"))

from rlearndeep.backends import get_backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import fit, prepare
from rlearndeep.patches import PatchDataset

SEEDS = (1, 2)
RUNS = Path(__file__).with_suffix(".csv")
TABLE = Path(__file__).with_suffix(".md")
FIELDS = ("scene", "change", "seed", "score", "seconds", "epochs", "settings")
UNCHANGED = "(defaults)"
DICE = "loss=cross_entropy+dice"


@dataclass(frozen=True)
class Scene:
    """A scene to learn.

    Attributes:
        words: what is learned, for the table.
        crs: of the project.
        sample: writes ``patches`` into the current directory.
        changes: values to try instead of the default, by the name of the setting.
    """

    words: str
    crs: str
    sample: Callable[[Path], None]
    changes: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def cells(data: Path) -> None:
    """Sentinel-2, single cells under areas; whole areas are the validation part."""
    import_bands(data / "aber_sentinel2/sen2_20210527_aber.tif", "s2")
    grass("v.in.ogr", "-o", f"input={data}/aber_sentinel2/training_polygons.gpkg", "output=polygons")
    watched = ",".join(str(cat) for cat in range(1, 41) if cat % 5 == 1)
    answer(
        *("v.sample.patches", "group=s2", "input=polygons", "column=class", "size=1", "split=column"),
        *("split_column=cat", f"validation={watched}", "buffer=0"),
        *("patches=patches", "output=places"),
    )


def polygons(data: Path) -> None:
    """Landsat 7, patches of 7 x 7 cells in areas; whole areas are the validation part."""
    _north_carolina(data)
    cats = [int(cat) for cat in grass("v.db.select", "-c", "map=polygons", "columns=cat").split()]
    watched = ",".join(str(cat) for cat in cats if cat % 3 == 1)
    answer(
        *("v.sample.patches", "group=lsat7_2000", "input=polygons", "column=label", "label=center", "size=7"),
        *("stride=2", "split=column", "split_column=cat", f"validation={watched}", "buffer=0"),
        *("patches=patches", "output=places"),
    )


def landcover(data: Path) -> None:
    """Landsat 7 under a label raster; blocks are the validation part."""
    _north_carolina(data)
    answer(
        *("v.sample.patches", "group=lsat7_2000", "raster=landclass96", "size=32", "stride=32", "shares=70,30,0"),
        *("patches=patches", "output=places"),
    )


def buildings(data: Path) -> None:
    """Aerial image, buildings and background; blocks are the validation part."""
    import_bands(data / "massachusetts/23429155_15.tif", "rgb")
    grass("v.in.ogr", "-o", f"input={data}/massachusetts/23429155_15.gpkg", "output=buildings")
    grass("g.region", "raster=rgb.1", "e=w+500")
    answer(
        *("v.sample.patches", "group=rgb", "input=buildings", "column=class", "background=0", "size=64", "stride=64"),
        *("split=block", "shares=70,30,0", "block_size=128", "patches=patches", "output=places"),
    )


def stems(data: Path) -> None:
    """Aerial image of 14 bands, number of stems in squares of 10 x 10 cells; a fold of blocks validates."""
    _injune(data)
    answer(
        *("v.sample.patches", "group=casi", "input=squares", "column=stems", "label=center", "size=10", "stride=10"),
        *("split=column", "split_column=fold", "validation=1", "buffer=0", "patches=patches", "output=places"),
    )


SCENES = {
    "cells": Scene(
        "Sentinel-2 (aber), perceptron on single cells",
        "EPSG:27700",
        cells,
        {
            "batch_size": (128, 512),
            "learning_rate": (0.0003, 0.003),
            "epochs": (10, 60),
            "patience": (0,),
            "scheduler": ("cosine", "none"),
            "standardize": ("cell",),
            "class_weights": ("balanced",),
            "network": (
                {"dropout": 0.0},
                {"dropout": 0.4},
                {"hidden": [64]},
                {"hidden": [256, 128]},
                {"hidden": [128, 64, 32]},
            ),
            "optimizer": ("sgd",),
            "weight_decay": (0.0,),
        },
    ),
    "polygons": Scene(
        "Landsat 7 (North Carolina), small CNN on patches of 7 x 7 cells in areas",
        "EPSG:32119",
        polygons,
        {
            "batch_size": (32, 8),
            "patience": (0,),
            "learning_rate": (0.0003, 0.003),
            "augment": ((), ("flip", "rotate", "jitter")),
            "architecture": ("resnet18", "mlp"),
            "weight_decay": (0.0,),
        },
    ),
    "landcover": Scene(
        "Landsat 7 (North Carolina), U-Net, patches of 32 x 32 cells under a land cover raster",
        "EPSG:32119",
        landcover,
        {
            "batch_size": (12,),
            "learning_rate": (0.0003, 0.003),
            "augment": ((), ("flip", "rotate", "jitter")),
            "loss": (DICE.partition("=")[2],),
            "architecture": ("fpn", "deeplabv3plus"),
            "network": ({"encoder": "resnet34"},),
            "weight_decay": (0.0,),
        },
    ),
    "buildings": Scene(
        "aerial image (Massachusetts), U-Net, patches of 64 x 64 cells, buildings",
        "EPSG:26986",
        buildings,
        {
            "batch_size": (8,),
            "epochs": (20,),
            "augment": ((), ("flip", "rotate", "jitter")),
            "loss": (DICE.partition("=")[2],),
            "network": ({"encoder": "resnet34"},),
        },
    ),
    "stems": Scene(
        "aerial image (Injune), small CNN, number of tree stems in patches of 10 x 10 cells",
        "EPSG:32755",
        stems,
        {
            "batch_size": (8, 32),
            "learning_rate": (0.0003, 0.003),
            "augment": ((), ("flip", "rotate", "jitter")),
            "loss": ("mae", "huber"),
            "architecture": ("resnet18", "mlp"),
            "weight_decay": (0.0,),
        },
    ),
}


def changed(scene: Scene) -> Iterator[tuple[str, Settings]]:
    """The defaults, then settings with one of them changed."""
    yield UNCHANGED, Settings()
    for name, values in scene.changes.items():
        for value in values:
            yield _as_given(name, value), Settings(**{name: value})


def _as_given(name: str, value: Any) -> str:
    """A setting as it is typed."""
    if isinstance(value, dict):
        return ", ".join(_as_given(key, entry) for key, entry in value.items())
    if isinstance(value, tuple | list):
        return f"{name}={','.join(map(str, value)) or 'none'}"
    return f"{name}={value}"


def measured(dataset: PatchDataset, settings: Settings) -> dict[str, Any]:
    """Best validation score, seconds of processor time, and what was chosen."""
    backend = get_backend("torch")
    plan = prepare([dataset], dataclasses.replace(settings, device="cpu", nprocs=1), backend)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        history = fit(plan, Path(folder), backend).history
    measure = plan.task.measure
    best = max(measure.sign * row[measure.column] for row in history) * measure.sign
    if plan.values:  # more is better for all
        best = 1 - (best / plan.values["validation"].std) ** 2
    chosen = f"batches of {plan.settings.batch_size}, {plan.settings.epochs} epochs at most"
    seconds = round(time.process_time() - start, 1)
    return {"score": round(best, 5), "seconds": seconds, "epochs": len(history), "settings": chosen}


def runs() -> list[dict[str, str]]:
    """What was measured so far."""
    if not RUNS.is_file():
        return []
    with open(RUNS, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measure(name: str, data: Path) -> None:
    """Measure what is missing of a scene; each run is written at once."""
    scene = SCENES[name]
    known = {(row["change"], row["seed"]) for row in runs() if row["scene"] == name}
    missing = [
        (change, settings, seed)
        for change, settings in changed(scene)
        for seed in SEEDS
        if (change, str(seed)) not in known
    ]
    if not missing:
        return
    with project(scene.crs) as directory:
        os.chdir(directory)
        scene.sample(data)
        dataset = PatchDataset.open(directory / "patches")
        for change, settings, seed in missing:
            row = {"scene": name, "change": change, "seed": seed}
            row |= measured(dataset, dataclasses.replace(settings, seed=seed))
            print(*row.values(), flush=True)
            _append(row)
        os.chdir(ROOT)


def _append(row: dict[str, Any]) -> None:
    begins = not RUNS.is_file()
    with open(RUNS, "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        if begins:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict[str, str]]) -> str:
    """The runs as a page."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        scores.setdefault((row["scene"], row["change"]), []).append(float(row["score"]))
    names = [name for name in SCENES if (name, UNCHANGED) in scores]
    changes = list(dict.fromkeys(change for scene in SCENES.values() for change, _ in changed(scene)))
    lines = [
        "# Where the defaults come from",
        "",
        "Made by `benchmarks/defaults.py`; the runs are in `defaults.csv`. Best score (macro F1; R2 of values) of the",
        "validation part, mean of two seeds; one setting is changed at a time. First the defaults with both seeds,",
        "then the difference that a change makes. **Bold**: both seeds of the change are above, or below, both of the",
        "defaults. Empty: not measured. Two seeds show large differences only; the best epoch is chosen by the same",
        "score, so more epochs flatter a little. Test parts were not looked at.",
        "",
        *(f"* {name}: {SCENES[name].words}; {_chosen(rows, name)}" for name in names),
        "",
        f"| setting | {' | '.join(names)} |",
        f"|---{'|---' * len(names)}|",
    ]
    for change in changes:
        entries = [_entry(scores.get((name, change)), scores[name, UNCHANGED], change) for name in names]
        if any(entries):
            lines.append(f"| {change} | {' | '.join(entries)} |")
    return "\n".join([*lines, "", *_verdict(scores, names, changes), ""])


def _chosen(rows: list[dict[str, str]], name: str) -> str:
    found = [row for row in rows if (row["scene"], row["change"]) == (name, UNCHANGED)]
    epochs, seconds = (statistics.mean(float(row[key]) for row in found) for key in ("epochs", "seconds"))
    return f"{found[0]['settings']}, {epochs:.0f} were run in {seconds:.0f} s on one core."


def _entry(found: list[float] | None, default: list[float], change: str) -> str:
    if not found:
        return ""
    if change == UNCHANGED:
        return f"{statistics.mean(found):.3f} ({', '.join(f'{value:.3f}' for value in found)})"
    text = f"{statistics.mean(found) - statistics.mean(default):+.3f}"
    if len(found) < len(SEEDS):
        return f"{text} (one seed)"
    return f"**{text}**" if min(found) > max(default) or max(found) < min(default) else text


def _verdict(scores: dict[tuple[str, str], list[float]], names: list[str], changes: list[str]) -> Iterator[str]:
    """What the table says, in sentences."""

    def where(change: str, better: bool) -> list[str]:
        pairs = {
            name: (scores[name, change], scores[name, UNCHANGED])
            for name in names
            if len(scores.get((name, change), [])) == len(SEEDS)
        }
        first = (lambda new, old: min(new) > max(old)) if better else (lambda new, old: max(new) < min(old))
        return [name for name, (new, old) in pairs.items() if first(new, old)]

    for better, word in ((True, "better"), (False, "worse")):
        found = {change: where(change, better) for change in changes}
        texts = [f"{change} ({', '.join(there)})" for change, there in found.items() if there]
        yield f"* Clearly {word} than the defaults: {'; '.join(texts) or 'nothing'}."
    several = [change for change in changes if len(where(change, True)) > 1]
    yield f"* Clearly better on more than one scene: {', '.join(several) or 'nothing'}."
    if where(DICE, True):
        yield (
            f"* {DICE} is not the default all the same: it lifts rare classes, which macro F1 counts like the others, "
            "at the cost of\n  all cells taken together and of scores that are probabilities; `benchmarks/losses.py` "
            "prints how much. Confidence, entropy\n  and the mean scores of segments rely on them."
        )


def main(data: Path | None, names: list[str]) -> None:
    """Measure what is missing, and write the table."""
    if data:
        for name in names:
            measure(name, data)
    TABLE.write_text(table(runs()), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(*scene_arguments(__doc__, SCENES) if len(sys.argv) > 1 else (None, []))
