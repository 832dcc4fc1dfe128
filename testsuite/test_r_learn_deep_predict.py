"""r.learn.deep.predict in GRASS: exact maps of networks with known weights, and every refusal."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.tasks import Quantity

TOOL = "r.learn.deep.predict"
CLASSES = ClassTable((MapClass(2, "red wins", (255, 0, 0)), MapClass(5, "nir wins", (0, 255, 0)), MapClass(11, "dark")))
CATEGORIES = np.array([2, 5, 11])

# Class 0 likes the first band, class 1 the second, class 2 is likely where both are low.
WEIGHT = np.array([[0.2, 0.0], [0.0, 0.2], [0.0, 0.0]], dtype=np.float32)
BIAS = np.array([0.0, 0.0, 2.5], dtype=np.float32)
MEAN = np.array([10.0, 20.0])
STD = np.array([2.0, 4.0])

# A value is 50 + 10 times (0.3 of the first band's deviation less 0.2 of the second's, plus 0.5).
VALUE_WEIGHT = np.array([[0.3, -0.2]], dtype=np.float32)
VALUE_BIAS = np.array([0.5], dtype=np.float32)
HEIGHT_MEAN, HEIGHT_STD = 50.0, 10.0

ROWS, COLS = 20, 30


def card_of(network: Network, **changes) -> ModelCard:
    card = ModelCard(
        backend="torch",
        weights="weights.safetensors",
        network=network,
        unit="cell",
        bands=(Band("red"), Band("nir")),
        normalization=Normalization("band", tuple(MEAN), tuple(STD)),
        classes=CLASSES,
        patch=(1, 1),
        resolution=(1.0, 1.0),
    )
    return replace(card, **changes)


def make_model(directory: Path, card: ModelCard, seed: int = 0, weights: tuple | None = None, layer: str = "0") -> Path:
    """A model directory with random weights, or with those of a single layer."""
    torch = pytest.importorskip("torch")
    from rlearndeep.backends import get_backend

    backend = get_backend(card.backend)
    directory.mkdir()
    torch.manual_seed(seed)
    module = backend.build(card.network)
    if weights:
        matrix, bias = (torch.from_numpy(array.copy()) for array in weights)
        module.load_state_dict({f"{layer}.weight": matrix[:, :, None, None], f"{layer}.bias": bias})
    backend.save(module, directory / card.weights)
    write_card(directory, card, directory.name)
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the models ``known``, ``mirrored``, ``context`` and ``patches``."""
    place = tmp_path_factory.mktemp("models")
    single = Network("mlp", 2, 3, {"hidden": [], "dropout": 0.0})
    make_model(place / "known", card_of(single), weights=(WEIGHT * STD.astype(np.float32), BIAS))
    exchanged = WEIGHT[[1, 0, 2]] * STD.astype(np.float32)
    make_model(place / "mirrored", card_of(single), weights=(exchanged, BIAS))
    dilated = Network("fcn_dilated", 2, 3, {"filters": 8, "blocks": 2, "kernel": [3], "dilations": [1]})
    make_model(place / "context", card_of(dilated, patch=(8, 8), reach=4))
    small = Network("cnn", 2, 3, {"filters": 4, "blocks": 1})
    make_model(place / "patches", card_of(small, unit="patch", patch=(6, 6), reach=None))
    slow = Network("fcn_dilated", 2, 3, {"filters": 16, "blocks": 3, "kernel": [5], "dilations": [1]})
    make_model(place / "slow", card_of(slow, patch=(8, 8), reach=8))
    value = Network("mlp", 2, 1, {"hidden": [], "dropout": 0.0})
    target = BandStatistics(9, HEIGHT_MEAN, HEIGHT_STD, 0.0, 99.0)
    regression = card_of(
        value, task="value", classes=ClassTable(()), quantity=Quantity("height", "metres"), target=target
    )
    make_model(place / "value", regression, weights=(VALUE_WEIGHT, VALUE_BIAS))
    make_model(place / "value2", regression, weights=(VALUE_WEIGHT * 2, VALUE_BIAS))
    several = Network("mlp", 2, 3, {"hidden": [], "unit": "patch"})
    card = card_of(several, unit="patch", patch=(1, 1), reach=None, task="presence")
    make_model(place / "presence", card, weights=(WEIGHT * STD.astype(np.float32), BIAS), layer="inner.0")
    return place


def cells(grass, name: str, dtype: type = float) -> NDArray:
    """Values of a raster in the current region, NaN is null."""
    text = grass.ok("r.out.ascii", "-h", f"input={name}", "output=-", "null_value=nan", "precision=9")
    return np.array([line.split() for line in text.splitlines()], dtype=dtype)


def make_scene(grass) -> tuple[NDArray, NDArray]:
    """The group ``scene`` of two bands with a hole and a null cell in one of them; returns their values."""
    grass.ok("g.region", f"n={ROWS}", "s=0", "w=0", f"e={COLS}", "res=1")
    holes = "(row() > 4 && row() < 7 && col() > 9 && col() < 13)"
    grass.ok("r.mapcalc", f"red = if({holes}, null(), int(25 * sin(col() * 12.) + 20))")
    grass.ok("r.mapcalc", "nir = if(row() == 20 && col() == 1, null(), float(row() * 2.25 + col() % 3))")
    grass.ok("i.group", "group=scene", "input=red,nir")
    return cells(grass, "red"), cells(grass, "nir")


def expected_values(red: NDArray, nir: NDArray, factor: float = 1) -> NDArray:
    """Values of the model ``value``, (rows, cols)."""
    inputs = (np.stack([red, nir]) - MEAN[:, None, None]) / STD[:, None, None]
    return HEIGHT_MEAN + HEIGHT_STD * (factor * np.einsum("b,brc->rc", VALUE_WEIGHT[0].astype(float), inputs) + 0.5)


def expected_scores(red: NDArray, nir: NDArray) -> NDArray:
    """Scores of the model ``known``, (classes, rows, cols)."""
    raw = np.stack([red, nir]) - MEAN[:, None, None]
    logits = np.einsum("kb,brc->krc", WEIGHT.astype(float), raw) + BIAS[:, None, None]
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def best_category(scores: NDArray) -> NDArray:
    """Category of the best class, NaN where there is none."""
    best = CATEGORIES[np.nan_to_num(scores).argmax(axis=0)]
    return np.where(np.isnan(scores[0]), np.nan, best)


def arguments(models: Path, model: str = "known", output: str = "map") -> list[str]:
    return ["group=scene", f"model={models / model}", f"output={output}", "precision=32"]


def test_the_map_is_exact_and_carries_categories_colours_nulls_and_history(grass, models):
    scores = expected_scores(*make_scene(grass))
    region = grass.ok("g.region", "-g")
    report = grass.json(
        TOOL, *arguments(models), "probabilities=score", "confidence=sure", "margin=gap", "entropy=doubt"
    )
    valid = ~np.isnan(scores[0])
    best = best_category(scores)
    np.testing.assert_array_equal(cells(grass, "map"), best)
    assert len(set(best[valid])) == 3
    assert (~valid).sum() == 7

    maps = [cells(grass, f"score_{category}") for category in CATEGORIES]
    np.testing.assert_allclose(maps, scores, atol=5.1e-4)
    np.testing.assert_allclose(np.sum(maps, axis=0)[valid], 1, atol=2e-3)
    ordered = np.sort(scores, axis=0)
    np.testing.assert_allclose(cells(grass, "sure"), ordered[-1], atol=5.1e-4)
    np.testing.assert_allclose(cells(grass, "gap"), ordered[-1] - ordered[-2], atol=5.1e-4)
    np.testing.assert_allclose(cells(grass, "doubt"), -(scores * np.log(scores)).sum(axis=0) / np.log(3), atol=5.1e-4)

    assert grass.ok("r.category", "map=map", "separator=pipe").split("\n")[:3] == [
        "2|red wins",
        "5|nir wins",
        "11|dark",
    ]
    colors = grass.ok("r.colors.out", "map=map").splitlines()
    assert {"2 255:0:0", "5 0:255:0"} <= set(colors)
    info = grass.ok("r.info", "-e", "map=map") + grass.ok("r.info", "-g", "map=map")
    assert "known" in info
    assert TOOL in info
    assert "imagery group scene" in info
    assert "datatype=CELL" in info
    details = grass.ok("r.info", "-e", "map=score_5") + grass.ok("r.info", "-g", "map=score_5")
    assert "Probability of class nir wins" in details
    assert "units=probability" in details
    assert "datatype=FCELL" in details
    assert grass.ok("r.colors.out", "map=score_5").startswith("0 68:1:84")

    assert grass.ok("g.region", "-g") == region
    assert sorted(grass.maps("raster")) == sorted(
        ["red", "nir", "map", "score_2", "score_5", "score_11", "sure", "gap", "doubt"]
    )
    assert list(report) == [
        "cells", "null_cells", "classes", "seconds", "cells_per_second", "device", "precision", "precision_changes",
        "batch_size", "peak_memory_mb",
    ]  # fmt: skip
    assert (report["cells"], report["null_cells"], report["device"]) == (ROWS * COLS, 7, "cpu")
    assert [list(entry) for entry in report["classes"]] == [["category", "label", "cells", "area"]] * 3
    assert [entry["cells"] for entry in report["classes"]] == [int((best == value).sum()) for value in CATEGORIES]


@pytest.mark.parametrize("option", ["probabilities", "confidence", "margin", "entropy", "spread"])
def test_a_map_of_certainty_is_made_alone_with_units_that_it_has(grass, models, option):
    make_scene(grass)
    before = set(grass.maps("raster"))
    alone = ["group=scene", f"model={models / 'known'},{models / 'mirrored'}", f"{option}=alone"]
    assert "2|red wins|" in grass.ok(TOOL, *alone)
    names = [f"alone_{category}" for category in CATEGORIES] if option == "probabilities" else ["alone"]
    assert set(grass.maps("raster")) - before == set(names)
    units = '"none"' if option in ("entropy", "spread") else "probability"
    assert f"units={units}" in grass.ok("r.info", "-e", f"map={names[0]}") + grass.ok("r.info", "-g", f"map={names[0]}")


def test_plain_output_names_device_time_and_classes(grass, models):
    make_scene(grass)
    text = grass.ok(TOOL, *arguments(models), "memory=50", "nprocs=1", "batch_size=2")
    assert "Device: cpu" in text
    assert "cells per second" in text
    assert "2|red wins|" in text
    areas = [line.split("|") for line in text.splitlines() if line.count("|") == 3][1:]
    assert sum(int(line[2]) for line in areas) == ROWS * COLS - 7
    assert "differ" not in text


def test_what_a_reduced_precision_changes_is_said(grass, models, tmp_path):
    make_scene(grass)
    shutil.copytree(models / "known", tmp_path / "known")
    card = tmp_path / "known" / "model.json"
    text = json.loads(card.read_text())
    text["properties"]["rlearndeep:training"]["bf16_changes"] = 0.0123
    card.write_text(json.dumps(text))
    given = ("group=scene", f"model={tmp_path / 'known'}", "output=map", "--overwrite", "--quiet")
    assert "precision bf16" in grass.ok(TOOL, *given, "precision=bf16")
    assert "(1.23% of the answers" in grass.ok(TOOL, *given, "precision=bf16")
    report = grass.json(TOOL, *given, "precision=32")
    assert (report["precision"], report["precision_changes"]) == ("32", 0)


@pytest.mark.parametrize(("asked", "found"), [({}, "LZ4"), ({"GRASS_COMPRESSOR": "ZLIB"}, "ZLIB")])
def test_maps_are_compressed_fast_unless_the_user_chose_a_method(grass, models, asked, found):
    make_scene(grass)
    grass.ok(TOOL, *arguments(models), "probabilities=score", **asked)
    assert grass.ok("r.compress", "-g", "map=map,score_2").split() == [
        f"map|CELL|{found}|YES",
        f"score_2|FCELL|{found}|YES",
    ]


@pytest.mark.parametrize("model", ["context", "patches"])
def test_a_part_and_a_wider_region_give_the_same_map_as_the_whole(grass, models, model):
    make_scene(grass)
    grass.ok(TOOL, *arguments(models, model, "whole"), "probabilities=whole")
    grass.ok("g.region", "n=17", "s=6", "w=7", "e=22")
    grass.ok(TOOL, *arguments(models, model, "part"), "probabilities=part")
    assert np.isnan(cells(grass, "part")).sum() == 6
    np.testing.assert_array_equal(cells(grass, "part"), cells(grass, "whole"))
    for category in CATEGORIES:
        np.testing.assert_allclose(cells(grass, f"part_{category}"), cells(grass, f"whole_{category}"), atol=1.1e-3)
    assert len(np.unique(cells(grass, "whole_2"))) > 10
    grass.ok("g.region", "n=50", "s=-40", "w=-33", "e=95")
    report = grass.json(TOOL, *arguments(models, model, "wide"))
    assert report["null_cells"] == 90 * 128 - ROWS * COLS + 7
    grass.ok("g.region", "raster=red")
    np.testing.assert_array_equal(cells(grass, "wide"), cells(grass, "whole"))


def test_a_region_without_data_gives_a_null_map_and_a_warning(grass, models):
    make_scene(grass)
    grass.ok("g.region", "n=500", "s=490", "w=200", "e=203")
    done = grass.run(TOOL, *arguments(models))
    assert done.returncode == 0, done.stderr
    assert "null everywhere" in " ".join(done.stderr.split())
    assert np.isnan(cells(grass, "map")).all()


def test_the_mask_is_honoured_and_left_alone(grass, models):
    scores = expected_scores(*make_scene(grass))
    grass.ok("r.mapcalc", "window = if(row() < 12 && col() > 3, 1, null())")
    grass.ok("r.mask", "raster=window")
    grass.ok(TOOL, *arguments(models, output="masked"))
    assert "MASK" in grass.maps("raster")
    grass.ok("r.mask", "-r")
    inside = np.zeros((ROWS, COLS), dtype=bool)
    inside[:11, 3:] = True
    np.testing.assert_array_equal(cells(grass, "masked"), np.where(inside, best_category(scores), np.nan))


def test_coarser_cells_are_predicted_with_a_warning_that_shows_both_sizes(grass, models):
    make_scene(grass)
    grass.ok("g.region", "res=2")
    done = grass.run(TOOL, *arguments(models))
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stderr.split())
    assert "cells of 2 x 2 map units, the model was trained on 1 x 1" in text
    assert "nearest neighbour" in text
    scores = expected_scores(cells(grass, "red"), cells(grass, "nir"))
    np.testing.assert_array_equal(cells(grass, "map"), best_category(scores))


def test_sizes_of_cells_are_compared_on_the_ground(grass_crs, tmp_path):
    grass = grass_crs("EPSG:2264")  # US survey feet
    grass.ok("g.region", "n=80", "s=0", "w=0", "e=80", "res=4")
    for name in ("red", "nir"):
        grass.ok("r.mapcalc", f"{name} = row() + col()")
    grass.ok("i.group", "group=scene", "input=red,nir")
    metre = {"wkt": 'PROJCRS["x",LENGTHUNIT["metre",1]]'}
    degree = {"projection": {"wkt": 'GEOGCRS["x",ANGLEUNIT["degree",0.0174]]'}, "extent": (0.0, 59.5, 1.0, 60.5)}
    network = Network("mlp", 2, 3, {"hidden": []})
    for number, (side, told, card) in enumerate(
        (
            ((1.22, 1.22), "", {"projection": metre}),
            ((4.0, 4.0), "4 x 4 map units, the model was trained on 13.1233 x 13.1233", {"projection": metre}),
            ((1.0965e-5, 2.193e-5), "", degree),
            ((4.0, 4.0), "", {}),
        )
    ):
        model = make_model(tmp_path / str(number), card_of(network, resolution=side, **card))
        done = grass.run(TOOL, "group=scene", f"model={model}", f"output=map{number}")
        assert done.returncode == 0, done.stderr
        text = " ".join(done.stderr.split())
        assert told in text and bool(told) == ("the model was trained on" in text)


def test_models_that_were_shown_other_crops_do_not_answer_a_segment_together(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "segments = row() / 6 * 100 + col() / 6")
    small = Network("cnn", 2, 3, {"filters": 4, "blocks": 1})
    boxes = card_of(small, unit="patch", patch=(6, 6), reach=None, training={"rules": ["object"]})
    both = f"model={models / 'patches'},{make_model(tmp_path / 'boxes', boxes)}"
    message = grass.error(TOOL, "group=scene", both, "segments=segments", "segments_output=objects")
    assert "boxes' was trained on boxes of areas" in message and "patches' on patches" in message
    grass.ok(TOOL, "group=scene", both, "output=map")


def test_finer_segments_are_read_with_a_warning(grass, models):
    make_scene(grass)
    grass.ok("g.region", "res=0.5")
    grass.ok("r.mapcalc", "segments = row() * 100 + col()")
    grass.ok("g.region", "res=1")
    done = grass.run(TOOL, *arguments(models), "segments=segments", "segments_output=objects")
    assert done.returncode == 0
    assert "<segments@PERMANENT> has cells of 0.5 x 0.5" in " ".join(done.stderr.split())


def test_bands_are_matched_by_semantic_label_whatever_their_order(grass, models, tmp_path):
    scores = expected_scores(*make_scene(grass))
    labelled = card_of(
        Network("mlp", 2, 3, {"hidden": [], "dropout": 0.0}), bands=(Band("x", "S2_4"), Band("y", "S2_8"))
    )
    shutil.copytree(models / "known", tmp_path / "labelled")
    write_card(tmp_path / "labelled", labelled, "labelled")
    grass.ok("g.copy", "raster=nir,second")
    grass.ok("g.copy", "raster=red,first")
    grass.ok("r.support", "map=second", "semantic_label=S2_8")
    grass.ok("r.support", "map=first", "semantic_label=S2_4")
    grass.ok("i.group", "group=swapped", "input=second,first")
    grass.ok(TOOL, "group=swapped", f"model={tmp_path / 'labelled'}", "output=again", "precision=32")
    np.testing.assert_array_equal(cells(grass, "again"), best_category(scores))


def test_scores_of_several_models_are_averaged(grass, models):
    red, nir = make_scene(grass)
    both = f"{models / 'known'},{models / 'mirrored'}"
    grass.ok(TOOL, "group=scene", f"model={both}", "output=both", "probabilities=both", "precision=32")
    # The model ``mirrored`` has the weights of the first two classes exchanged.
    scores = expected_scores(red, nir)
    mean = (scores + scores[[1, 0, 2]]) / 2
    for index, category in enumerate(CATEGORIES):
        np.testing.assert_allclose(cells(grass, f"both_{category}"), mean[index], atol=5.1e-4)


def test_models_with_other_labels_are_averaged_with_a_warning(grass, models, tmp_path):
    make_scene(grass)
    shutil.copytree(models / "known", tmp_path / "other")
    manifest = tmp_path / "other" / "model.json"
    manifest.write_text(manifest.read_text().replace('"red wins"', '"water"'))
    both = f"model={models / 'known'},{tmp_path / 'other'}"
    done = grass.run(TOOL, "group=scene", both, "output=map", GRASS_VERBOSE="1")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    words = " ".join(done.stderr.split())
    assert "Category 2 is 'red wins' in" in words and "and 'water' in" in words
    assert "2|red wins" in grass.ok("r.category", "map=map", "separator=pipe")


def test_a_label_that_no_map_can_hold_leaves_an_older_map_as_it_was(grass, models, tmp_path):
    red, _ = make_scene(grass)
    grass.ok("r.mapcalc", "map = red")
    shutil.copytree(models / "known", tmp_path / "other")
    manifest = tmp_path / "other" / "model.json"
    manifest.write_text(manifest.read_text().replace('"red wins"', '"\\ud800"'))
    message = grass.error(TOOL, "group=scene", f"model={tmp_path / 'other'}", "output=map", "--overwrite")
    assert "model.json' is damaged" in message
    np.testing.assert_array_equal(cells(grass, "map"), red)


def test_a_patch_classifier_answers_in_blocks_of_the_stride(grass, models):
    make_scene(grass)
    grass.ok("g.region", "n=19", "w=1")
    grass.ok(TOOL, *arguments(models, "patches"), "stride=4", "probabilities=p")
    score = cells(grass, "p_2")
    red, nir = cells(grass, "red"), cells(grass, "nir")
    np.testing.assert_array_equal(np.isnan(score), np.isnan(red) | np.isnan(nir))
    blocks = {}
    for (row, col), value in np.ndenumerate(score):
        # The first row of the region lies one row below a multiple of the stride in map coordinates.
        blocks.setdefault(((row + 1) // 4, (col + 1) // 4), []).append(value)
    assert all(len(set(np.array(values)[~np.isnan(values)])) <= 1 for values in blocks.values())
    assert len({values[0] for values in blocks.values()}) > 10


@pytest.mark.parametrize("aggregate", ["mean", "majority"])
def test_segments_get_one_class_in_a_map_and_a_table(grass, models, tmp_path, aggregate):
    scores = expected_scores(*make_scene(grass))
    grass.ok("r.mapcalc", "ids = if(col() == 30, null(), 7 + 1000000 * int(row() / 4) + int(col() / 6))")
    # One segment lies within the hole of the first band.
    grass.ok("r.mapcalc", "segments = if(row() == 5 && col() == 10, 3, ids)")
    file = tmp_path / "segments.csv"
    grass.ok(
        TOOL, *arguments(models), "segments=segments", "segments_output=objects", f"segments_table={file}",
        f"aggregate={aggregate}", "--quiet",
    )  # fmt: skip
    ids, objects = cells(grass, "segments"), cells(grass, "objects")
    valid = ~np.isnan(scores[0])
    rows = {int(row["cat"]): row for row in csv.DictReader(file.read_text().splitlines(), delimiter="|")}
    assert file.read_text().splitlines()[0] == "cat|class|label|confidence|cells|null_cells|p_2|p_5|p_11"
    assert sorted(rows) == sorted(set(ids[~np.isnan(ids)].astype(int)))
    assert np.isnan(objects[np.isnan(ids)]).all()
    for number, row in rows.items():
        own = (ids == number) & valid
        assert int(row["cells"]) == own.sum()
        assert int(row["null_cells"]) == ((ids == number) & ~valid).sum()
        if not own.any():
            assert row["class"] == row["label"] == row["p_2"] == ""
            assert np.isnan(objects[ids == number]).all()
            continue
        votes = np.bincount(scores[:, own].argmax(axis=0), minlength=3) / own.sum()
        shares = scores[:, own].mean(axis=1) if aggregate == "mean" else votes
        np.testing.assert_allclose([float(row[f"p_{category}"]) for category in CATEGORIES], shares, atol=1e-5)
        assert int(row["class"]) == CATEGORIES[shares.argmax()]
        assert float(row["confidence"]) == pytest.approx(shares.max(), abs=1e-5)
        assert set(objects[ids == number]) == {CATEGORIES[shares.argmax()]}
    assert rows[3]["null_cells"] == "1"
    assert "2|red wins" in grass.ok("r.category", "map=objects", "separator=pipe")
    assert "2 255:0:0" in grass.ok("r.colors.out", "map=objects")


@pytest.mark.parametrize("more", [(), ("confidence=sure",)])
def test_without_a_map_of_cells_the_report_is_that_of_the_segments(grass, models, more):
    make_scene(grass)
    grass.ok("r.mapcalc", "segments = if(col() > 20, null(), int(row() / 4) * 10 + int(col() / 6))")
    known = ["group=scene", f"model={models / 'known'}", "segments=segments", "segments_output=objects"]
    report = grass.json(TOOL, *known, *more)
    objects = cells(grass, "objects")
    assert report["null_cells"] == np.isnan(objects).sum() >= 10 * ROWS
    assert [entry["cells"] for entry in report["classes"]] == [(objects == category).sum() for category in CATEGORIES]


def test_values_of_segments_alone_have_the_colours_and_the_range_of_their_map(grass, models):
    make_scene(grass)
    grass.ok("r.mapcalc", "segments = int(row() / 4) * 10 + int(col() / 6)")
    report = grass.json(
        TOOL, "group=scene", f"model={models / 'value'}", "segments=segments", "segments_output=objects"
    )["values"]
    objects = cells(grass, "objects")
    assert (report["minimum"], report["maximum"]) == pytest.approx((np.nanmin(objects), np.nanmax(objects)), rel=1e-5)
    colors = grass.ok("r.colors.out", "map=objects").splitlines()
    assert float(colors[0].split()[0]) == pytest.approx(np.nanmin(objects), rel=1e-5)


def test_overwriting_needs_to_be_asked_for_also_for_derived_names(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "p_5 = 42")
    before = sorted(grass.maps("raster"))
    assert "<p_5>" in grass.error(TOOL, *arguments(models), "probabilities=p")
    assert sorted(grass.maps("raster")) == before
    grass.ok(TOOL, *arguments(models), "probabilities=p", "--overwrite")
    assert np.nanmax(cells(grass, "p_5")) <= 1
    assert "map" in grass.error(TOOL, *arguments(models))


def test_a_group_of_another_mapset_is_found_and_names_may_tell_the_current_one(grass, models):
    make_scene(grass)
    grass.ok("g.mapset", "-c", "mapset=mine", GIS_LOCK="1")
    grass.ok("g.region", f"n={ROWS}", "s=0", "w=0", f"e={COLS}", "res=1")
    grass.ok(TOOL, *arguments(models, "presence", "is@mine"), "probabilities=p@mine", "entropy=doubt@mine")
    wanted = [f"{name}_{category}" for name in ("is", "p") for category in CATEGORIES]
    assert sorted(grass.maps("raster")) == sorted([*wanted, "doubt"])
    assert "<other@PERMANENT>" in grass.error(TOOL, *arguments(models, output="other@PERMANENT"))


def test_bad_input_is_refused_in_one_line_and_leaves_nothing(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "floats = 1.5")
    grass.ok("r.mapcalc", "ids = 1")
    grass.ok("i.group", "group=short", "input=red")
    before = sorted(grass.maps("raster"))
    good = arguments(models)

    def refused(*changes: str, model: Path | None = None) -> str:
        changed = {text.split("=")[0] for text in changes}
        kept = [
            text for text in good if text.split("=")[0] not in changed and not (model and text.startswith("model="))
        ]
        return grass.error(TOOL, *kept, *changes, *([f"model={model}"] if model else []))

    assert "model.json" in refused(model=tmp_path / "absent")
    damaged = tmp_path / "damaged"
    shutil.copytree(models / "known", damaged)
    (damaged / "weights.safetensors").write_bytes(b"rubbish")
    assert "Train the model again" in refused(model=damaged)
    item = json.loads((damaged / "model.json").read_text())
    item["properties"]["rlearndeep:version"] = 99
    (damaged / "model.json").write_text(json.dumps(item))
    assert "version 99" in refused(model=damaged)
    two = card_of(Network("mlp", 2, 2, {"hidden": []}), classes=ClassTable(CLASSES.classes[:2]))
    make_model(tmp_path / "two", two)
    assert "same classes" in refused(f"model={models / 'known'},{tmp_path / 'two'}")

    assert "<absent> must exist" in refused("group=absent")
    message = refused("group=short")
    assert "2 [red, nir]" in message
    assert "1 [red]" in message

    assert "not an input" in refused("output=red", "--overwrite")
    assert "name of its own" in refused("confidence=same", "margin=same")
    assert "no dots" in refused("probabilities=a.b")
    assert "overlap" in refused("overlap=5000")
    assert "stride" in refused("stride=3")
    assert "at least 0" in refused("overlap=-1")
    assert "needs a whole number; got '1.5'" in refused("stride=1.5")
    assert "batch_size" in refused("batch_size=many")
    assert "batch_size" in refused("batch_size=²")
    assert "name of its own" in refused("confidence=MASK")
    assert "at most 240 characters" in refused(f"probabilities={'p' * 239}")
    assert "blend=none" in refused("blend=none", "overlap=4")
    assert "cuda:7" in refused("device=cuda:7")

    assert "<absent>" in refused("segments=absent", "segments_output=objects")
    assert "integer ids" in refused("segments=floats", "segments_output=objects")
    assert "segments" in refused("segments_output=objects")
    assert "segments" in refused("aggregate=majority")
    assert "not an input" in refused("segments=ids", "segments_output=ids", "--overwrite")
    assert "names a file" in refused("segments=ids", "segments_table=-")
    for length in (241, 999):
        assert "at most 240 bytes" in refused("segments=ids", f"segments_table={tmp_path / ('t' * length)}")
    assert "majority is of classes" in refused(
        "segments=ids", "segments_output=o", "aggregate=majority", model=models / "value"
    )
    assert "blend=" in refused("blend=cosine", model=models / "patches")
    assert "may be written to" in refused("segments=ids", f"segments_table={tmp_path / 'absent' / 'x.csv'}")

    assert sorted(grass.maps("raster")) == before


def test_without_torch_the_message_says_how_to_get_it(grass, models, tmp_path):
    make_scene(grass)
    hidden = tmp_path / "hidden"
    (hidden / "torch").mkdir(parents=True)
    (hidden / "torch" / "__init__.py").write_text("raise ImportError('hidden by a test')\n")
    path = f"{hidden}:{grass.env['PYTHONPATH']}"
    message = grass.error(TOOL, *arguments(models), PYTHONPATH=path, RLEARNDEEP_PYTHON="")
    assert "pip install torch" in message
    assert "map" not in grass.maps("raster")


def test_a_full_disk_ends_in_one_line_and_the_older_map_stays(grass, models):
    grass.ok("g.region", "n=300", "s=0", "w=0", "e=300", "res=1")
    for band in ("red", "nir"):
        grass.ok("r.mapcalc", f"{band} = rand(0, 50)", "seed=1")
    grass.ok("i.group", "group=scene", "input=red,nir")
    grass.ok("r.mapcalc", "map = 7")
    before = set(grass.maps("raster"))
    # A limit on the size of files, in kilobytes, fails a write as a full disk does.
    tool = " ".join([TOOL, *arguments(models), "probabilities=score", "--overwrite"])
    done = grass.run("bash", "-c", f"trap '' XFSZ; ulimit -f 20; exec {tool}")
    text = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert "Traceback" not in text and text.count("ERROR:") == 1 and "disk space" in text, done.stderr
    assert set(grass.maps("raster")) == before
    assert set(np.unique(cells(grass, "map"))) == {7}


def test_values_come_in_their_units_with_title_and_colours_and_are_averaged_over_segments(grass, models, tmp_path):
    values = expected_values(*make_scene(grass))
    grass.ok("r.mapcalc", "segments = if(row() == 5 && col() == 10, 99, 7 + int(col() / 6))")
    file = tmp_path / "segments.csv"
    report = grass.json(
        TOOL, *arguments(models, "value"), "segments=segments", "segments_output=objects", f"segments_table={file}"
    )
    np.testing.assert_allclose(cells(grass, "map"), values, rtol=1e-5)
    assert (report["classes"], report["null_cells"]) == ([], 7)
    assert report["values"]["name"] == "height"
    assert report["values"]["units"] == "metres"
    for key, function in (("minimum", np.nanmin), ("maximum", np.nanmax), ("mean", np.nanmean), ("stddev", np.nanstd)):
        assert report["values"][key] == pytest.approx(function(values), rel=1e-4)
    info = grass.ok("r.info", "-e", "map=map") + grass.ok("r.info", "-g", "map=map")
    assert "height predicted with value" in info
    assert "units=metres" in info
    assert "datatype=FCELL" in info
    colors = grass.ok("r.colors.out", "map=map").splitlines()
    assert float(colors[0].split()[0]) == pytest.approx(np.nanmin(values), rel=1e-4)
    assert colors[0].endswith("68:1:84")

    ids, objects = cells(grass, "segments"), cells(grass, "objects")
    rows = {int(row["cat"]): row for row in csv.DictReader(file.read_text().splitlines(), delimiter="|")}
    assert file.read_text().splitlines()[0] == "cat|value|stddev|cells|null_cells"
    for number in np.unique(ids).astype(int):
        own = values[ids == number]
        if number == 99:
            assert rows[number] == {"cat": "99", "value": "", "stddev": "", "cells": "0", "null_cells": "1"}
            assert np.isnan(objects[ids == number]).all()
            continue
        assert float(rows[number]["value"]) == pytest.approx(np.nanmean(own), rel=1e-5)
        assert float(rows[number]["stddev"]) == pytest.approx(np.nanstd(own), rel=1e-3)
        np.testing.assert_allclose(objects[ids == number], np.nanmean(own), rtol=1e-5)
    text = grass.ok(TOOL, *arguments(models, "value"), "--overwrite")
    assert "height|metres|" in text


def test_several_models_of_a_value_have_a_mean_and_a_spread(grass, models):
    red, nir = make_scene(grass)
    both = [expected_values(red, nir, factor) for factor in (1, 2)]
    two = f"model={models / 'value'},{models / 'value2'}"
    grass.ok(TOOL, "group=scene", two, "output=map", "spread=differ", "precision=32")
    np.testing.assert_allclose(cells(grass, "map"), np.mean(both, axis=0), rtol=1e-5)
    np.testing.assert_allclose(cells(grass, "differ"), np.std(both, axis=0), atol=2e-2)
    assert "units=metres" in grass.ok("r.info", "-e", "map=differ") + grass.ok("r.info", "-g", "map=differ")
    assert "must predict the same" in grass.error(
        TOOL, "group=scene", f"model={models / 'value'},{models / 'known'}", "output=no"
    )
    for option in ("confidence", "entropy", "margin", "probabilities"):
        assert f"{option}=x" in grass.error(TOOL, *arguments(models, "value", "no"), f"{option}=x")
    assert "several answers" in grass.error(TOOL, *arguments(models, "value", "no"), "spread=x")


def test_each_class_that_may_be_there_has_a_map_of_its_own(grass, models, tmp_path):
    red, nir = make_scene(grass)
    raw = np.stack([red, nir]) - MEAN[:, None, None]
    scores = 1 / (1 + np.exp(-(np.einsum("kb,brc->krc", WEIGHT.astype(float), raw) + BIAS[:, None, None])))
    grass.ok("r.mapcalc", "segments = row()")
    file = tmp_path / "segments.csv"
    report = grass.json(
        TOOL, *arguments(models, "presence", "is"), "stride=1", "probabilities=p", "entropy=doubt",
        "segments=segments", "segments_output=objects", f"segments_table={file}",
    )  # fmt: skip
    valid = ~np.isnan(scores[0])
    for index, category in enumerate(CATEGORIES):
        np.testing.assert_array_equal(cells(grass, f"is_{category}"), np.where(valid, scores[index] >= 0.5, np.nan))
        np.testing.assert_allclose(cells(grass, f"p_{category}"), scores[index], atol=5.1e-4)
        assert report["classes"][index]["cells"] == (scores[index][valid] >= 0.5).sum()
    assert grass.ok("r.category", "map=is_5", "separator=pipe").splitlines()[:2] == ["0|no nir wins", "1|nir wins"]
    assert "1 0:255:0" in grass.ok("r.colors.out", "map=is_5")
    bits = np.nan_to_num(scores, nan=0.5)
    entropy = -(bits * np.log2(bits) + (1 - bits) * np.log2(1 - bits)).mean(axis=0)
    np.testing.assert_allclose(cells(grass, "doubt"), np.where(valid, entropy, np.nan), atol=5.1e-4)
    assert file.read_text().splitlines()[0] == "cat|cells|null_cells|p_2|p_5|p_11"
    # A segment is answered once, from the cell in its middle.
    for row in csv.DictReader(file.read_text().splitlines(), delimiter="|"):
        assert float(row["p_2"]) == pytest.approx(scores[0, int(row["cat"]) - 1, COLS // 2], abs=1e-5)
    assert set(np.unique(cells(grass, "objects_2"))) <= {0, 1}


def test_a_patch_classifier_answers_segments_once_and_needs_no_map_of_cells(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "segments = if(row() == 5 && col() == 10, 3, if(col() == 30, null(), 1000 + int(row() / 7)))")
    file = tmp_path / "segments.csv"
    only = ["group=scene", f"model={models / 'patches'}", "precision=32", "segments=segments"]
    report = grass.json(TOOL, *only, "segments_output=objects", f"segments_table={file}")
    assert sorted(set(grass.maps("raster")) - {"red", "nir", "segments"}) == ["objects"]
    ids, objects = cells(grass, "segments"), cells(grass, "objects")
    rows = {int(row["cat"]): row for row in csv.DictReader(file.read_text().splitlines(), delimiter="|")}
    assert rows[3]["class"] == ""
    for number in set(rows) - {3}:
        assert set(objects[ids == number]) == {float(rows[number]["class"])}
    assert np.isnan(objects[(ids == 3) | np.isnan(ids)]).all()
    assert report["null_cells"] == np.isnan(objects).sum()
    assert sum(entry["cells"] for entry in report["classes"]) == (~np.isnan(objects)).sum()
    grass.ok(TOOL, *only, "output=map", "segments_output=again", "stride=2")
    np.testing.assert_array_equal(cells(grass, "again"), objects)
    assert "once, from a crop" in grass.error(TOOL, *only, "output=x", "segments_output=y", "aggregate=mean")
    assert "output" in grass.error(TOOL, "group=scene", f"model={models / 'patches'}")


def test_blocks_whose_patch_lies_far_outside_the_region_see_it_beside_segments_too(grass, models):
    make_scene(grass)
    wide = [*arguments(models, "patches"), "stride=30"]
    grass.ok(TOOL, *wide, "probabilities=whole")
    grass.ok("g.region", "n=2", "s=0", "w=0", "e=2", "res=1")
    grass.ok("r.mapcalc", "segments = 1")
    grass.ok(TOOL, *wide, "probabilities=part", "segments=segments", "segments_output=objects", "--overwrite")
    for category in CATEGORIES:
        np.testing.assert_array_equal(cells(grass, f"part_{category}"), cells(grass, f"whole_{category}"))


def test_segments_of_a_network_with_context_equal_means_of_its_scores(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("g.region", "n=18", "s=3", "w=4", "e=25")
    grass.ok("r.mapcalc", "segments = int(row() / 5) * 10 + int(col() / 8)")
    file = tmp_path / "segments.csv"
    grass.ok(TOOL, *arguments(models, "context"), "probabilities=p", "segments=segments", f"segments_table={file}")
    ids, scores = cells(grass, "segments"), cells(grass, "p_2")
    for row in csv.DictReader(file.read_text().splitlines(), delimiter="|"):
        assert float(row["p_2"]) == pytest.approx(np.nanmean(scores[ids == int(row["cat"])]), abs=1e-3)


def test_the_mean_of_all_views_does_not_change_when_the_scene_is_turned(grass, models):
    red, nir = make_scene(grass)
    # Cropped, the answer of each cell is that of the one tile that sees all its context.
    views = ["augment=d4", "probabilities=p", "spread=differ", "blend=crop"]
    grass.ok(TOOL, *arguments(models, "context"), *views)
    straight, spread = cells(grass, "p_2"), cells(grass, "differ")
    for name, values in (("red", red), ("nir", nir)):
        turned = np.rot90(values)
        grass.ok("g.region", f"n={COLS}", "s=0", "w=0", f"e={ROWS}", "res=1")
        text = "\n".join(" ".join("*" if np.isnan(value) else f"{value:.9g}" for value in row) for row in turned)
        header = f"north: {COLS}\nsouth: 0\neast: {ROWS}\nwest: 0\nrows: {COLS}\ncols: {ROWS}\n"
        grass.ok("r.in.ascii", "input=-", f"output={name}", "--overwrite", stdin=header + text)
    grass.ok(TOOL, *arguments(models, "context"), *views, "--overwrite")
    np.testing.assert_allclose(cells(grass, "p_2"), np.rot90(straight), atol=1.1e-3)
    np.testing.assert_allclose(cells(grass, "differ"), np.rot90(spread), atol=1.1e-3)
    assert np.nanmax(spread) > 0.001
    grass.ok(TOOL, *arguments(models, "context"), "probabilities=p", "blend=crop", "--overwrite")
    assert np.nanmax(np.abs(cells(grass, "p_2") - np.rot90(straight))) > 0.002


def make_long_scene(grass) -> None:
    """The group ``scene`` in a region of many strips."""
    grass.ok("g.region", "n=3000", "s=0", "w=0", "e=70", "res=1")
    for band in ("red", "nir"):
        grass.ok("r.mapcalc", f"{band} = rand(0, 50)", "seed=1")
    grass.ok("i.group", "group=scene", "input=red,nir")


def start(grass, *more: str) -> subprocess.Popen:
    """A prediction that runs beside the test; it heeds Ctrl-C even where the tests run in the background."""
    return subprocess.Popen(
        [TOOL, *more],
        env={**grass.env, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_rows(grass, process: subprocess.Popen, output: str) -> None:
    """Return when a prediction has finished some rows, and not all."""
    kept = grass.mapset / ".rlearndeep" / f"predict_{output}"
    until = time.monotonic() + 120
    while not list(kept.glob("*.arrays")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_prediction_leaves_nothing_and_goes_on(grass, models, number):
    make_long_scene(grass)
    options = [*arguments(models, "slow"), "entropy=doubt", "nprocs=1"]
    before = sorted(grass.maps("raster"))
    process = start(grass, *options)
    wait_for_rows(grass, process, "map")
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert sorted(grass.maps("raster")) == before
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "Continue with -r" in error
        assert "Traceback" not in error
    changed = grass.error(TOOL, *options[:-2], "margin=doubt", "-r")
    assert "changed since: maps" in changed
    assert "changed since: blend=, augment=. " in grass.error(TOOL, *options, "blend=crop", "augment=flips", "-r")
    grass.ok(TOOL, *options, "-r")
    assert not (grass.mapset / ".rlearndeep" / "predict_map").exists()
    assert "2|red wins" in grass.ok("r.category", "map=map", "separator=pipe")
    if number == signal.SIGKILL:
        whole = [*arguments(models, "slow", "whole"), "entropy=whole_doubt", "nprocs=1"]
        grass.ok(TOOL, *whole)
        for one, other in (("map", "whole"), ("doubt", "whole_doubt")):
            np.testing.assert_array_equal(cells(grass, one), cells(grass, other))
    assert "none of this output" in grass.error(TOOL, *options, "-r", "--overwrite")


def test_two_predictions_in_one_mapset_do_not_disturb_each_other(grass, models):
    make_scene(grass)
    processes = [start(grass, *arguments(models, model, model)) for model in ("known", "mirrored")]
    for process in processes:
        assert process.wait(timeout=120) == 0, process.communicate()
    scores = expected_scores(cells(grass, "red"), cells(grass, "nir"))
    np.testing.assert_array_equal(cells(grass, "known"), best_category(scores))
    np.testing.assert_array_equal(cells(grass, "mirrored"), best_category(scores[[1, 0, 2]]))


def test_the_workers_of_a_cluster_make_the_same_map_even_when_one_is_killed(grass, models, tmp_path):
    pytest.importorskip("distributed")
    make_long_scene(grass)
    options = ["group=scene", f"model={models / 'slow'}", "precision=32", "nprocs=1"]
    grass.ok(TOOL, *options, "output=here", "probabilities=here", OMP_NUM_THREADS="1")
    env = {**grass.env, "OMP_NUM_THREADS": "1"}
    address = f"tcp://127.0.0.1:{_free_port()}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", address]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
              "--no-dashboard", "--local-directory", str(tmp_path)]  # fmt: skip
    running = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for command in (dask, worker, worker)]
    try:
        process = start(grass, *options, "output=there", "probabilities=there", f"scheduler={address}")
        wait_for_rows(grass, process, "there")
        running[1].kill()
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error
    finally:
        for one in running:
            one.kill()
            one.wait()
    for suffix in ("", "_2", "_11"):
        np.testing.assert_array_equal(cells(grass, f"there{suffix}"), cells(grass, f"here{suffix}"))


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
