#!/usr/bin/env python3
"""The four commands on real scenes, scored on ground that no training patch touched.

    benchmarks/real_scenes.py DATA [scene...]      scenes: aber, massachusetts, north_carolina, areas,
                                                   zion, injune

Prints a row per score, with the baseline it has to beat where there is one, and the seconds of the scene. Maps are
written as PNG beside each other into the folder ``real_scenes`` of the current directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from session import project, scene_arguments

Scores = list[tuple[str, float, float | None]]
"""What is scored, the score, and the one to beat."""

PICTURES = Path.cwd() / "real_scenes"


def grass(module: str, *arguments: str) -> str:
    """Standard output of a module."""
    return subprocess.run([module, *arguments], check=True, capture_output=True, text=True).stdout


def answer(tool: str, *arguments: str) -> dict:
    """What a tool prints with format=json; its messages go to the terminal."""
    print("  ", tool, *arguments, flush=True)
    done = subprocess.run([tool, *arguments, "format=json"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def picture(name: str, *layers: tuple[str, ...]) -> None:
    """Draw layers, each a module with arguments, into one PNG."""
    PICTURES.mkdir(exist_ok=True)
    file = PICTURES / f"{name}.png"
    file.unlink(missing_ok=True)
    env = dict(os.environ, GRASS_RENDER_IMMEDIATE="cairo", GRASS_RENDER_FILE=str(file), GRASS_RENDER_FILE_READ="TRUE")
    for layer in layers:
        subprocess.run(layer, check=True, env=env)


def import_bands(file: Path, output: str) -> None:
    """Import a file with many bands and put the rasters into a group of the same name."""
    grass("r.in.gdal", "-o", f"input={file}", f"output={output}")
    bands = sorted(
        grass("g.list", "type=raster", f"pattern={output}.*").split(), key=lambda name: int(name.split(".")[-1])
    )
    grass("i.group", f"group={output}", f"input={','.join(bands)}")
    grass("g.region", f"raster={bands[0]}")


def aber(data: Path) -> Scores:
    """Perceptron on single cells, five folds of whole polygons; accuracy of cells, maps and maps per segment."""
    import_bands(data / "aber_sentinel2/sen2_20210527_aber.tif", "s2")
    grass("v.in.ogr", "-o", f"input={data}/aber_sentinel2/training_polygons.gpkg", "output=polygons")
    grass("i.segment", "group=s2", "output=segments", "threshold=0.02", "minsize=9")
    polygons = sorted(int(cat) for cat in grass("v.db.select", "-c", "map=polygons", "columns=cat").split())
    matrices: list[list] = [[], [], []]
    for fold in range(5):
        held_out = ",".join(str(cat) for cat in polygons if cat % 5 == fold)
        watched = ",".join(str(cat) for cat in polygons if cat % 5 == (fold + 1) % 5)
        answer(
            *("v.sample.patches", "group=s2", "input=polygons", "column=class", "size=1", "split=column"),
            *("split_column=cat", f"test={held_out}", f"validation={watched}"),
            *("buffer=0", f"patches=aber{fold}", f"output=aber{fold}"),
        )
        scores = answer("r.learn.deep.train", f"patches=aber{fold}", f"model=aber_model{fold}", "seed=1")
        answer(
            *("r.learn.deep.predict", "group=s2", f"model=aber_model{fold}", f"output=aber_map{fold}"),
            *("segments=segments", f"segments_output=aber_objects{fold}", f"segments_table=aber{fold}.csv"),
        )
        grass("v.extract", "input=polygons", f"cats={held_out}", f"output=held_out{fold}")
        assessed = answer(
            *("r.learn.deep.evaluate", f"input=aber_map{fold},aber_objects{fold}", f"vector=held_out{fold}"),
            "column=class",
        )
        matrices[0].append(scores["parts"]["test"]["confusion_matrix"])
        for own, scored in zip(matrices[1:], assessed["maps"], strict=True):
            own.append(scored["confusion_matrix"])
    picture("aber_map", ("d.rast", "map=aber_map0"), ("d.legend", "raster=aber_map0"))
    picture("aber_objects", ("d.rast", "map=aber_objects0"), ("d.vect", "map=polygons", "fill_color=none"))
    cells, by_cell, by_segment = map(pooled_accuracy, matrices)
    return [
        ("aber: polygons left out, overall accuracy", cells, 0.977),
        ("aber: the same ground, map", by_cell, None),
        ("aber: the same ground, map per segment of i.segment", by_segment, None),
    ]


def pooled_accuracy(matrices: list) -> float:
    """Overall accuracy of several confusion matrices together."""
    right = sum(row[index] for matrix in matrices for index, row in enumerate(matrix))
    return right / sum(sum(map(sum, matrix)) for matrix in matrices)


def massachusetts(data: Path) -> Scores:
    """U-Net on the west of the scene; F1 of buildings on the east, which no patch touched."""
    import_bands(data / "massachusetts/23429155_15.tif", "rgb")
    grass("v.in.ogr", "-o", f"input={data}/massachusetts/23429155_15.gpkg", "output=buildings")
    grass("g.region", "raster=rgb.1", "e=w+700")
    answer(
        *("v.sample.patches", "group=rgb", "input=buildings", "column=class", "background=0", "size=64", "stride=32"),
        *("split=block", "shares=80,20,0", "block_size=128", "patches=mass", "output=mass"),
    )
    answer("r.learn.deep.train", "patches=mass", "model=mass_model", "seed=1")
    grass("g.region", "raster=rgb.1")
    answer("r.learn.deep.predict", "group=rgb", "model=mass_model", "output=mass_map", "confidence=mass_confidence")
    picture(
        "massachusetts",
        ("d.rast", "map=mass_map"),
        ("d.vect", "map=buildings", "fill_color=none", "color=black"),
    )
    grass("g.region", "raster=rgb.1", "w=w+700")
    grass("v.to.rast", "input=buildings", "output=buildings", "use=val", "value=1")
    grass("r.mapcalc", "truth = if(isnull(buildings), 0, 1)")
    scores = answer("r.learn.deep.evaluate", "input=mass_map", "reference=truth")
    building = next(entry for entry in scores["maps"][0]["classes"] if entry["category"] == 1)
    return [("massachusetts: unseen ground, F1 of buildings", building["f1"], 0.70)]


def _north_carolina(data: Path) -> None:
    folder = data / "north_carolina"
    for band in (10, 20, 30, 40, 50, 70):
        grass("r.in.gdal", "-o", f"input={folder}/lsat7_2000_{band}.tif", f"output=lsat7_2000_{band}")
    grass("r.in.gdal", "-o", f"input={folder}/landclass96.tif", "output=landclass96")
    grass("v.in.ogr", "-o", f"input={folder}/landsat96_polygons.shp", "output=polygons")
    grass("g.region", "raster=lsat7_2000_10")
    grass("i.group", "group=lsat7_2000", "input=" + ",".join(f"lsat7_2000_{band}" for band in (10, 20, 30, 40, 50, 70)))


def north_carolina(data: Path) -> Scores:
    """U-Net under the label raster; overall accuracy of the map on the test blocks."""
    _north_carolina(data)
    answer(
        *("v.sample.patches", "group=lsat7_2000", "raster=landclass96", "size=32", "stride=16"),
        *("patches=nc", "output=nc", "split=block", "seed=1"),
    )
    answer("r.learn.deep.train", "patches=nc", "model=nc_model", "seed=1")
    answer("r.learn.deep.predict", "group=lsat7_2000", "model=nc_model", "output=nc_map")
    grass("v.to.rast", "input=nc", "output=nc_test", "use=val", "value=1", "type=area", "where=part = 'test'")
    grass("r.mapcalc", "expression=truth = if(isnull(nc_test), null(), landclass96)")
    scores = answer("r.learn.deep.evaluate", "input=nc_map", "reference=truth")
    picture("north_carolina", ("d.rast", "map=nc_map"), ("d.legend", "raster=nc_map"))
    picture("north_carolina_reference", ("d.rast", "map=landclass96"))
    return [("north_carolina: test blocks, overall accuracy", scores["maps"][0]["overall_accuracy"], 0.652)]


def areas(data: Path) -> Scores:
    """Small CNN on patches in areas, whole polygons held out in five folds; pooled overall accuracy."""
    _north_carolina(data)
    polygons = sorted(int(cat) for cat in grass("v.db.select", "-c", "map=polygons", "columns=cat").split())
    matrices = []
    for fold in range(5):
        held_out = [str(cat) for cat in polygons if cat % 5 == fold]
        watched = [str(cat) for cat in polygons if cat % 5 == (fold + 1) % 5]
        answer(
            *("v.sample.patches", "group=lsat7_2000", "input=polygons", "column=label", "label=center", "size=7"),
            *("stride=2", "split=column", "split_column=cat", f"test={','.join(held_out)}"),
            *(f"validation={','.join(watched)}", "buffer=0", f"patches=areas{fold}", f"output=areas{fold}"),
        )
        scores = answer("r.learn.deep.train", f"patches=areas{fold}", f"model=areas_model{fold}", "seed=1")
        matrices.append(scores["parts"]["test"]["confusion_matrix"])
    answer("r.learn.deep.predict", "group=lsat7_2000", "model=areas_model0", "output=areas_map", "stride=2")
    picture("areas", ("d.rast", "map=areas_map"), ("d.legend", "raster=areas_map"))
    return [("north_carolina polygons left out, overall accuracy", pooled_accuracy(matrices), 0.712)]


def zion(data: Path) -> Scores:
    """U-Net under a land cover raster of another grid: one half of a checkerboard to learn from, the other to score."""
    folder = data / "zion_landsat8"
    for band in range(2, 6):
        grass("r.in.gdal", "-o", f"input={folder}/landsat_b{band}.tif", f"output=landsat_b{band}")
    grass("i.group", "group=landsat", "input=" + ",".join(f"landsat_b{band}" for band in range(2, 6)))
    grass("g.region", "raster=landsat_b2")
    grass("r.import", f"input={folder}/nlcd.tif", "output=nlcd", "resample=nearest")
    grass("r.mapcalc", "expression=board = (int((row() - 1) / 128) + int((col() - 1) / 128)) % 2")
    grass("r.mapcalc", "expression=known = if(board == 0, nlcd, null())")
    grass("r.mapcalc", "expression=truth = if(board == 1, nlcd, null())")
    answer(
        *("v.sample.patches", "group=landsat", "raster=known", "size=64", "stride=32", "min_labelled=25"),
        *("split=block", "shares=80,20,0", "block_size=3840", "patches=zion", "output=zion", "seed=1"),
    )
    answer("r.learn.deep.train", "patches=zion", "model=zion_model", "seed=1")
    answer("r.learn.deep.predict", "group=landsat", "model=zion_model", "output=zion_map")
    scores = answer("r.learn.deep.evaluate", "input=zion_map", "reference=truth")["maps"][0]
    picture("zion", ("d.rast", "map=zion_map"), ("d.legend", "raster=zion_map"))
    return [
        ("zion: other half of a checkerboard, overall accuracy", scores["overall_accuracy"], 0.747),
        ("zion: the same, macro F1", scores["f1_macro"], 0.396),
    ]


def _injune(data: Path) -> None:
    """Squares of 10 m that are areas with the number of their stems, and a fold each: blocks of 5 x 5 squares."""
    import_bands(data / "injune_stems/injune_p142_casi.tif", "casi")
    grass("v.in.ogr", "-o", f"input={data}/injune_stems/stems.gpkg", "output=stems")
    grass("v.mkgrid", "map=squares", "box=10,10")
    grass("v.vect.stats", "points=stems", "areas=squares", "count_column=counted")
    grass("v.db.addcolumn", "map=squares", "columns=stems double precision, fold integer")
    grass("v.db.update", "map=squares", "column=stems", "query_column=counted")
    grass("v.db.update", "map=squares", "column=fold", "query_column=((row - 1) / 5 * 2 + (col - 1) / 5) % 5")


def injune(data: Path) -> Scores:
    """Number of stems in squares of 10 m from patches of 1 m, five folds of whole blocks; pooled R2."""
    _injune(data)
    squares = [float(text) for text in grass("v.db.select", "-c", "map=squares", "columns=stems").split()]
    errors = 0.0
    for fold in range(5):
        answer(
            *("v.sample.patches", "group=casi", "input=squares", "column=stems", "label=center", "size=10"),
            *("stride=10", "split=column", "split_column=fold", f"test={fold}", f"validation={(fold + 1) % 5}"),
            *("buffer=0", f"patches=stems{fold}", f"output=stems{fold}"),
        )
        scores = answer("r.learn.deep.train", f"patches=stems{fold}", f"model=stems_model{fold}", "seed=1")
        test = scores["parts"]["test"]
        errors += test["count"] * test["rmse"] ** 2
    mean = sum(squares) / len(squares)
    return [("injune: squares left out, pooled R2", 1 - errors / sum((value - mean) ** 2 for value in squares), 0.20)]


SCENES: dict[str, tuple[str, Callable[[Path], Scores]]] = {
    "aber": ("EPSG:27700", aber),
    "massachusetts": ("EPSG:26986", massachusetts),
    "north_carolina": ("EPSG:32119", north_carolina),
    "areas": ("EPSG:32119", areas),
    "zion": ("EPSG:32612", zion),
    "injune": ("EPSG:32755", injune),
}


def main(data: Path, names: list[str]) -> None:
    """Run the scenes and print their scores."""
    rows = []
    for name in names:
        crs, run = SCENES[name]
        start = time.perf_counter()
        with project(crs) as directory:
            here = Path.cwd()
            os.chdir(directory)
            try:
                scores = run(data)
                rows += [(*score, time.perf_counter() - start) for score in scores]
            finally:
                os.chdir(here)
    print(f"{'':56}{'score':>8}{'to beat':>9}{'seconds':>9}")
    for label, score, baseline, seconds in rows:
        beat = "" if baseline is None else f"{baseline:.3f}"
        print(f"{label:56}{score:8.3f}{beat:>9}{seconds:9.0f}")


if __name__ == "__main__":
    main(*scene_arguments(__doc__, SCENES))
