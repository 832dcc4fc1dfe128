"""r.learn.deep.predict with several sources in GRASS: groups of other resolutions, series, refusals, workers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rlearndeep.model import ModelSource, Network
from rlearndeep.scene.bands import Band, Normalization
from test_r_learn_deep_predict import (
    BIAS,
    CATEGORIES,
    MEAN,
    STD,
    TOOL,
    _free_port,
    best_category,
    card_of,
    cells,
    make_model,
    start,
    wait_for_rows,
)

# Weights for red, nir and height, as those of the model ``known`` with a third band.
WEIGHT = np.array([[0.2, 0.0, 0.1], [0.0, 0.2, -0.1], [0.0, 0.0, 0.0]], dtype=np.float32)
HEIGHT_MEAN, HEIGHT_STD = 15.0, 5.0
DAYS = ("2021-03-01", "2021-06-01", "2021-09-01")


def make_scene(grass) -> None:
    """The group ``scene`` (cells of 1), ``heights`` (cells of 2, shifted by half a cell, with a hole), and a series."""
    grass.ok("g.region", "n=24", "s=0", "w=0", "e=30", "res=1")
    grass.ok("r.mapcalc", "red = int(25 * sin(col() * 12.) + 20)")
    grass.ok("r.mapcalc", "nir = if(row() == 20 && col() == 1, null(), float(row() * 2.25 + col() % 3))")
    grass.ok("i.group", "group=scene", "input=red,nir")
    grass.ok("g.region", "n=24.5", "s=-1.5", "w=-0.5", "e=27.5", "res=2")
    grass.ok("r.mapcalc", "height = if(row() == 3 && col() == 5, null(), 10 * sin(row() * 40.) + col())")
    grass.ok("r.mapcalc", "unused = 1")
    grass.ok("i.group", "group=heights", "input=unused,height")
    grass.ok("g.region", "n=25", "s=-1", "w=-1", "e=31", "res=4", "-a")
    for number, day in enumerate(DAYS):
        grass.ok(
            "r.mapcalc", f"ndvi_{number} = if(row() == {number + 2}, null(), sin((row() + 2 * col()) * 30.) + {number})"
        )
        grass.ok("i.group", f"group=date_{number}", f"input=ndvi_{number}")
        year, month, date = day.split("-")
        name = {"03": "mar", "06": "jun", "09": "sep"}[month]
        grass.ok("r.timestamp", f"map=ndvi_{number}", f"date={int(date)} {name} {year}")
        grass.ok("r.support", f"map=ndvi_{number}", "semantic_label=NDVI")
    grass.ok("g.region", "n=24", "s=0", "w=0", "e=30", "res=1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the models ``nearest`` and ``bilinear`` of a stack, ``fusion`` and ``fusion_patch``."""
    place = tmp_path_factory.mktemp("models")
    std = np.array([*STD, HEIGHT_STD], dtype=np.float32)
    normalization = Normalization("band", (*MEAN, HEIGHT_MEAN), tuple(float(value) for value in std))
    bands = (Band("red"), Band("nir"), Band("height"))
    single = Network("mlp", 3, 3, {"hidden": [], "dropout": 0.0})
    for use in ("nearest", "bilinear"):
        source = ModelSource("auxiliary1", bands[2:], (2, 2), (2.0, 2.0), use)
        card = card_of(single, bands=bands, normalization=normalization, sources=(source,))
        make_model(place / use, card, weights=(WEIGHT * std, BIAS))
    sources = (
        ModelSource("auxiliary1", bands[2:], (6, 6), (2.0, 2.0), normalization=Normalization("band", (15.0,), (5.0,))),
        ModelSource("series", (Band("ndvi", "NDVI"),), (4, 4), (4.0, 4.0), dates=DAYS[:2]),
    )
    described = [{"name": one.name, "bands": 1, "series": bool(one.dates)} for one in sources]
    for unit, name in (("cell", "fusion"), ("patch", "fusion_patch")):
        options = {"encoder": "resnet18", "depth": 3, "unit": unit, "reference": True, "sources": described}
        card = card_of(Network("fusion", 2, 3, options), patch=(8, 8), sources=sources, unit=unit, largest=(8, 8))
        make_model(place / name, replace(card, reach=4 if unit == "cell" else None))
    return place


def expected(grass, heights: NDArray) -> NDArray:
    """Scores of the stacked models, (classes, rows, cols)."""
    raw = np.stack([cells(grass, "red"), cells(grass, "nir"), heights])
    raw -= np.array([*MEAN, HEIGHT_MEAN])[:, None, None]
    logits = np.einsum("kb,brc->krc", WEIGHT.astype(float), raw) + BIAS[:, None, None]
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def test_a_stacked_source_is_read_in_the_cells_of_the_reference(grass, models):
    make_scene(grass)
    scene = ["group=scene", "precision=32", "auxiliary=heights"]
    grass.ok(TOOL, *scene, f"model={models / 'nearest'}", "output=near", "probabilities=near")
    scores = expected(grass, cells(grass, "height"))
    assert np.isnan(scores[0]).sum() > 60
    np.testing.assert_array_equal(cells(grass, "near"), best_category(scores))
    for index, category in enumerate(CATEGORIES):
        np.testing.assert_allclose(cells(grass, f"near_{category}"), scores[index], atol=5.1e-4)
    assert "heights" in grass.ok("r.info", "-e", "map=near")
    grass.ok(TOOL, *scene, f"model={models / 'bilinear'}", "output=smooth", "probabilities=smooth")
    np.testing.assert_array_equal(np.isnan(cells(grass, "smooth")), np.isnan(scores[0]))
    grass.ok("r.resamp.interp", "input=height", "output=between", "method=bilinear")
    known = expected(grass, cells(grass, "between"))
    inside = ~np.isnan(known[0]) & ~np.isnan(scores[0])
    assert inside.sum() > 400
    np.testing.assert_allclose(cells(grass, "smooth_2")[inside], known[0][inside], atol=2e-3)
    both = f"model={models / 'nearest'},{models / 'bilinear'}"
    grass.ok(TOOL, *scene, both, "output=both", "probabilities=both")
    mean = (cells(grass, "near_2") + cells(grass, "smooth_2")) / 2
    np.testing.assert_allclose(cells(grass, "both_2"), mean, atol=1.6e-3)


def test_a_stacked_source_under_a_mask_and_for_segments(grass, models):
    make_scene(grass)
    grass.ok("r.mapcalc", "window = if(row() < 12 && col() > 3, 1, null())")
    grass.ok("r.mapcalc", "segments = int(row() / 5) * 10 + int(col() / 8)")
    scores = expected(grass, cells(grass, "height"))
    grass.ok("r.mask", "raster=window")
    options = ["group=scene", "precision=32", "auxiliary=heights", f"model={models / 'nearest'}", "output=map"]
    grass.ok(TOOL, *options, "segments=segments", "segments_output=objects")
    grass.ok("r.mask", "-r")
    inside = np.zeros(scores[0].shape, dtype=bool)
    inside[:11, 3:] = True
    np.testing.assert_array_equal(cells(grass, "map"), np.where(inside, best_category(scores), np.nan))
    ids, objects = cells(grass, "segments"), cells(grass, "objects")
    for number in np.unique(ids[inside]):
        mean = np.nanmean(scores[:, (ids == number) & inside], axis=1)
        assert set(objects[(ids == number) & inside & ~np.isnan(objects)]) <= {CATEGORIES[mean.argmax()]}


@pytest.mark.parametrize("model", ["fusion", "fusion_patch"])
def test_a_part_equals_that_part_of_the_whole_and_null_follows_the_reference(grass, models, model):
    make_scene(grass)
    given = ["group=scene", "auxiliary=heights", "series=date_0,date_1,date_2", f"model={models / model}"]
    given += ["precision=32"]
    grass.ok(TOOL, *given, "output=whole", "probabilities=whole")
    whole = cells(grass, "whole_2")
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(cells(grass, "nir")))
    assert len(np.unique(whole)) > 10
    grass.ok(TOOL, *given[:1], *given[3:], "output=bare", "probabilities=bare")
    assert np.nanmax(np.abs(cells(grass, "bare_2") - whole)) > 0.002
    grass.ok("g.region", "n=17", "s=6", "w=7", "e=22")
    grass.ok(TOOL, *given, "output=part", "probabilities=part")
    np.testing.assert_array_equal(cells(grass, "part"), cells(grass, "whole"))
    for category in CATEGORIES:
        np.testing.assert_allclose(cells(grass, f"part_{category}"), cells(grass, f"whole_{category}"), atol=1.1e-3)


def test_views_and_segments_of_several_sources(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "segments = int(row() / 5) * 10 + int(col() / 8)")
    file = tmp_path / "segments.csv"
    given = ["group=scene", "auxiliary=heights", "series=date_0,date_2", "dates=2021-04-01,2022-01-02"]
    models_of_cells = f"model={models / 'fusion'},{models / 'nearest'}"
    grass.ok(TOOL, *given, models_of_cells, "output=map", "augment=d4", "spread=differ", "precision=32")
    assert np.nanmax(cells(grass, "differ")) > 0.001
    grass.ok(
        TOOL, *given, f"model={models / 'fusion_patch'}", "segments=segments", f"segments_table={file}", "augment=flips"
    )
    assert len(file.read_text().splitlines()) == 1 + len(np.unique(cells(grass, "segments")))


def test_what_does_not_fit_is_refused_and_what_is_poor_is_warned_of(grass, models):
    make_scene(grass)
    before = sorted(grass.maps("raster"))

    def refused(model: str, *given: str) -> str:
        return grass.error(TOOL, "group=scene", f"model={models / model}", "output=map", *given)

    message = refused("nearest")
    assert "auxiliary1 1 [height]; given beside the reference: nothing" in message
    message = refused("nearest", "auxiliary=heights,date_0")
    assert "auxiliary1 1 [height]; given" in message and "<date_0> 1 [ndvi_0 (NDVI)]" in message
    assert "series" in refused("nearest", "auxiliary=heights", "series=date_0")
    assert "<absent>" in refused("nearest", "auxiliary=absent")
    assert "order of its dates" in refused("fusion", "series=date_1,date_0")
    assert "2 dates=" in refused("fusion", "series=date_0", "dates=2021-01-01,2021-02-01")
    assert "memory=" in refused("fusion", "auxiliary=heights", "memory=0")
    assert "not an input" in refused("nearest", "auxiliary=heights", "confidence=height", "--overwrite")
    assert sorted(grass.maps("raster")) == before

    grass.ok("g.region", "n=24", "s=0", "w=0", "e=30", "res=6")
    grass.ok("r.mapcalc", "height = row()", "--overwrite")
    grass.ok("g.region", "res=1")
    done = grass.run(TOOL, "group=scene", f"model={models / 'fusion'}", "auxiliary=heights", "output=map")
    text = " ".join(done.stderr.split())
    assert done.returncode == 0, done.stderr
    assert "auxiliary1 <heights> has cells of 6 x 6 map units, the model was trained on 2 x 2" in text
    assert "trained with the source series, which was not given" in text


def test_an_interrupted_prediction_goes_on_with_the_same_sources(grass, models):
    make_scene(grass)
    grass.ok("g.region", "n=24", "s=-400", "w=0", "e=30", "res=1")
    grass.ok("r.mapcalc", "red = row() % 50", "--overwrite")
    grass.ok("r.mapcalc", "nir = col() + row() % 7", "--overwrite")
    given = ["group=scene", "auxiliary=heights", "series=date_0,date_1,date_2", f"model={models / 'fusion'}"]
    given += ["precision=32", "nprocs=1", "output=map", "probabilities=p"]
    process = start(grass, *given)
    wait_for_rows(grass, process, "map")
    process.kill()
    process.communicate()
    assert "changed since: dates" in grass.error(TOOL, *given, "-r", "dates=2021-01-01,2021-02-01,2021-05-01")
    assert "changed since: bands" in grass.error(TOOL, *given[:2], *given[3:], "-r")
    grass.ok(TOOL, *given, "-r")
    grass.ok(TOOL, *given[:-2], "output=whole", "probabilities=w")
    for one, other in (("map", "whole"), ("p_2", "w_2")):
        np.testing.assert_array_equal(cells(grass, one), cells(grass, other))


def test_workers_open_the_further_sources_themselves(grass, models, tmp_path):
    pytest.importorskip("distributed")
    make_scene(grass)
    given = ["group=scene", "auxiliary=heights", "series=date_0,date_1,date_2", f"model={models / 'fusion'}"]
    given += ["precision=32", "nprocs=1"]
    grass.ok(TOOL, *given, "output=here", "probabilities=here", OMP_NUM_THREADS="1")
    env = {**grass.env, "OMP_NUM_THREADS": "1"}
    address = f"tcp://127.0.0.1:{_free_port()}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", address]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
              "--no-dashboard", "--local-directory", str(tmp_path)]  # fmt: skip
    running = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for command in (dask, worker)]
    try:
        process = start(grass, *given, "output=there", "probabilities=there", f"scheduler={address}")
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error
    finally:
        for one in running:
            one.kill()
            one.wait()
    for suffix in ("", "_2", "_11"):
        np.testing.assert_array_equal(cells(grass, f"there{suffix}"), cells(grass, f"here{suffix}"))
