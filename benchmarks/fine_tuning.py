#!/usr/bin/env python3
"""What a model of one region is worth to the next one, and how fast it should learn there.

    benchmarks/fine_tuning.py DATA [scene...]      scenes: buildings, buildings_back,
                                                  landcover

A scene is cut in three: a U-Net learns on the first piece, goes on with the labels of a strip beside it, and its map
of the third piece is scored. Prints Cohen's kappa of that map, of two seeds and their mean: of the first model as it
is, of one that learns from the strip alone, and of rates for one that goes on. These scores chose the defaults.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from real_scenes import _north_carolina, answer, grass, import_bands
from session import project, scene_arguments

SEEDS = (1, 2)
GOES_ON = "weights=first_model"
RATES = {
    "defaults": (),
    "encoder_rate=0.1": ("encoder_rate=0.1",),
    "learning_rate=0.0003": ("learning_rate=0.0003",),
    "learning_rate=0.0001": ("learning_rate=0.0001",),
    "learning_rate=0.0003 encoder_rate=0.1": ("learning_rate=0.0003", "encoder_rate=0.1"),
}


@dataclass(frozen=True)
class Scene:
    """A scene in three pieces.

    Attributes:
        crs: of the project.
        build: makes the group, the labels and the map ``truth``.
        group: of the imagery.
        pieces: region of each, as arguments of *g.region* that follow ``raster=truth``.
        labels, first, strip: arguments of sampling, and of the training on the two pieces.
    """

    crs: str
    build: Callable[[Path], None]
    group: str
    pieces: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    first: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()


def buildings(data: Path) -> None:
    """Aerial image with the outlines of buildings."""
    import_bands(data / "massachusetts/23429155_15.tif", "rgb")
    grass("v.in.ogr", "-o", f"input={data}/massachusetts/23429155_15.gpkg", "output=areas")
    grass("v.to.rast", "input=areas", "output=mapped", "use=val", "value=1")
    grass("r.mapcalc", "expression=truth = if(isnull(mapped), 0, 1)")


def landcover(data: Path) -> None:
    """Landsat 7 with a label raster."""
    _north_carolina(data)
    grass("r.mapcalc", "expression=truth = landclass96")


_WEST, _STRIP, _EAST = ("s=n-512", "e=w+512"), ("s=n-512", "w=w+512", "e=w+704"), ("s=n-512", "w=w+704", "e=w+960")
_BUILDINGS = (
    ("input=areas", "column=class", "background=0", "size=64", "stride=32", "block_size=64", "shares=80,20,0"),
    ("augment=flip,rotate,jitter", "epochs=10"),
    ("augment=flip,rotate,jitter", "epochs=8"),
)

SCENES = {
    "buildings": Scene("EPSG:26986", buildings, "rgb", (_WEST, _STRIP, _EAST), *_BUILDINGS),
    "buildings_back": Scene("EPSG:26986", buildings, "rgb", (_EAST, _STRIP, _WEST), *_BUILDINGS),
    "landcover": Scene(
        "EPSG:32119",
        landcover,
        "lsat7_2000",
        (("e=w+7000",), ("w=w+7000", "e=w+10000"), ("w=w+10000",)),
        ("raster=landclass96", "size=32", "stride=32", "shares=70,30,0"),
    ),
}


def score(model: str, group: str) -> float:
    """Kappa of a model's map of the region."""
    answer("r.learn.deep.predict", f"group={group}", f"model={model}", "output=map", "--overwrite", "--quiet")
    return answer("r.learn.deep.evaluate", "input=map", "reference=truth", "--quiet")["maps"][0]["kappa"]


def kappas(scene: Scene, data: Path) -> dict[str, list[float]]:
    """Scores on the third piece, one per seed."""
    scene.build(data)
    for name, piece in zip(("first", "strip"), scene.pieces, strict=False):
        set_region(piece)
        where = ("split=block", "buffer=0", f"patches={name}", f"output={name}")
        answer("v.sample.patches", f"group={scene.group}", *scene.labels, *where)
    set_region(scene.pieces[2])
    network = "architecture=unet"
    answer("r.learn.deep.train", "patches=first", "model=first_model", network, *scene.first)
    found = {"as it is": [score("first_model", scene.group)]}
    runs = {"strip alone": (network,), **{rate: (GOES_ON, *given) for rate, given in RATES.items()}}
    for name, given in runs.items():
        for seed in SEEDS:
            where = ("patches=strip", "model=model", f"seed={seed}", "--overwrite")
            answer("r.learn.deep.train", *where, *given, *scene.strip)
            found.setdefault(name, []).append(score("model", scene.group))
    return found


def set_region(piece: tuple[str, ...]) -> None:
    """The region of a piece; each bound is counted from the edges of the whole, so the whole is set before each."""
    grass("g.region", "raster=truth")
    west = float(dict(line.split("=") for line in grass("g.region", "-g").split())["w"])
    bounds = [f"{bound[0]}={west + float(bound[4:])}" if bound[2] == "w" else bound for bound in piece]
    grass("g.region", *bounds, "align=truth")


def main(data: Path, names: list[str]) -> None:
    """Run the scenes and print their scores."""
    here = Path.cwd()
    found = {}
    for name in names:
        with project(SCENES[name].crs) as directory:
            os.chdir(directory)
            try:
                found[name] = kappas(SCENES[name], data)
            finally:
                os.chdir(here)
    for name, scores in found.items():
        print(f"\n{name:<44}{'kappa':>8}")
        for model, values in scores.items():
            print(f"{model:<44}{statistics.mean(values):8.3f}   {', '.join(f'{value:.3f}' for value in values)}")


if __name__ == "__main__":
    main(*scene_arguments(__doc__, SCENES))
