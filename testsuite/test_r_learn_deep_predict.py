"""r.learn.deep.predict in GRASS: exact maps of networks with known weights, and every refusal."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass

TOOL = "r.learn.deep.predict"
CLASSES = ClassTable((MapClass(2, "red wins", (255, 0, 0)), MapClass(5, "nir wins", (0, 255, 0)), MapClass(11, "dark")))
CATEGORIES = np.array([2, 5, 11])

# Class 0 likes the first band, class 1 the second, class 2 is likely where both are low.
WEIGHT = np.array([[0.2, 0.0], [0.0, 0.2], [0.0, 0.0]], dtype=np.float32)
BIAS = np.array([0.0, 0.0, 2.5], dtype=np.float32)
MEAN = np.array([10.0, 20.0])
STD = np.array([2.0, 4.0])

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


def make_model(directory: Path, card: ModelCard, seed: int = 0, weights: tuple | None = None) -> Path:
    """A model directory with random weights, or with those of a single layer."""
    torch = pytest.importorskip("torch")
    from rlearndeep.backends import get_backend

    backend = get_backend(card.backend)
    directory.mkdir()
    torch.manual_seed(seed)
    module = backend.build(card.network)
    if weights:
        matrix, bias = (torch.from_numpy(array.copy()) for array in weights)
        module.load_state_dict({"0.weight": matrix[:, :, None, None], "0.bias": bias})
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
        "cells", "null_cells", "classes", "seconds", "cells_per_second", "device", "batch_size", "peak_memory_mb",
    ]  # fmt: skip
    assert (report["cells"], report["null_cells"], report["device"]) == (ROWS * COLS, 7, "cpu")
    assert [list(entry) for entry in report["classes"]] == [["category", "label", "cells", "area"]] * 3
    assert [entry["cells"] for entry in report["classes"]] == [int((best == value).sum()) for value in CATEGORIES]


def test_plain_output_names_device_time_and_classes(grass, models):
    make_scene(grass)
    text = grass.ok(TOOL, *arguments(models), "memory=50", "nprocs=1", "batch_size=2")
    assert "Device: cpu" in text
    assert "cells per second" in text
    assert "2|red wins|" in text
    areas = [line.split("|") for line in text.splitlines() if line.count("|") == 3][1:]
    assert sum(int(line[2]) for line in areas) == ROWS * COLS - 7


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


def test_overwriting_needs_to_be_asked_for_also_for_derived_names(grass, models, tmp_path):
    make_scene(grass)
    grass.ok("r.mapcalc", "p_5 = 42")
    before = sorted(grass.maps("raster"))
    assert "<p_5>" in grass.error(TOOL, *arguments(models), "probabilities=p")
    assert sorted(grass.maps("raster")) == before
    grass.ok(TOOL, *arguments(models), "probabilities=p", "--overwrite")
    assert np.nanmax(cells(grass, "p_5")) <= 1
    assert "map" in grass.error(TOOL, *arguments(models))


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
    assert "batch_size" in refused("batch_size=many")
    assert "blend=none" in refused("blend=none", "overlap=4")
    assert "cuda:7" in refused("device=cuda:7")

    assert "<absent>" in refused("segments=absent", "segments_output=objects")
    assert "integer ids" in refused("segments=floats", "segments_output=objects")
    assert "segments" in refused("segments_output=objects")
    assert "segments" in refused("aggregate=majority")
    assert "not an input" in refused("segments=ids", "segments_output=ids", "--overwrite")
    assert "writable" in refused("segments=ids", f"segments_table={tmp_path / 'absent' / 'x.csv'}")

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
