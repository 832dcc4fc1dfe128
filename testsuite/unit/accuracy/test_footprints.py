"""Cells inside training footprints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rlearndeep.accuracy.footprints import Footprints, training_footprints
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.geometry import Region, Window
from synthetic_patches import make_patches

REGION = Region(north=100, south=0, east=200, west=0, rows=10, cols=20)


def test_a_cell_belongs_to_a_footprint_when_its_centre_does():
    footprints = Footprints.of_rectangles(np.array([[96.0, 74.0, 56.0, 24.0]]), REGION)
    mask = footprints.mask(REGION.window)
    rows, cols = np.nonzero(mask)
    east, north = REGION.centre(rows, cols)
    assert ((north < 96) & (north > 74) & (east > 24) & (east < 56)).all()
    assert mask.sum() == 3 * 4


def test_mask_of_a_strip_is_that_part_of_the_whole():
    random = np.random.default_rng(0)
    north, west = random.uniform(-20, 120, 30), random.uniform(-20, 220, 30)
    footprints = Footprints.of_rectangles(np.stack([north, north - 17, west + 23, west], axis=1), REGION)
    whole = footprints.mask(REGION.window)
    for start in range(0, 10, 3):
        window = Window(start, min(start + 3, 10), 0, 20)
        assert np.array_equal(footprints.mask(window), whole[window.slices])


def test_cells_of_the_own_grid_are_met_exactly():
    footprints = Footprints.of_rectangles(np.array([[90.0, 70.0, 50.0, 30.0]]), REGION)
    assert (footprints.rows.tolist(), footprints.cols.tolist()) == ([[1, 3]], [[3, 5]])


@pytest.mark.parametrize("west", [-370.0, -10.0, 350.0])
def test_on_the_globe_footprints_lie_in_the_turn_of_the_region(west):
    region = Region(north=10, south=0, east=10, west=-10, rows=2, cols=20)
    edges = np.array([[10.0, 5.0, west + 3, west], [5.0, 0.0, west + 25, west + 15], [5.0, 0.0, west + 2, west - 2]])
    mask = Footprints.of_rectangles(edges, region, turn=360.0).mask(region.window)
    expected = np.zeros((2, 20), dtype=bool)
    expected[0, :3], expected[1, 15:], expected[1, :2] = True, True, True
    assert np.array_equal(mask, expected)


def write_model(path, patches: list[str], dataset, **training) -> None:
    manifest = dataset.manifest
    card = ModelCard(
        backend="torch",
        weights="weights.safetensors",
        network=Network("unet", len(manifest.reference.bands), len(manifest.classes)),
        unit=manifest.unit,
        bands=manifest.reference.bands,
        normalization=Normalization("none"),
        classes=manifest.classes,
        patch=manifest.reference.shape,
        resolution=manifest.reference.resolution,
        training={"patches": patches, **training},
    )
    path.mkdir()
    (path / card.weights).touch()
    write_card(path, card, path.name)


def test_training_patches_of_a_model_are_its_footprints(tmp_path):
    dataset = make_patches(tmp_path / "patches", size=4, count=20)
    index = np.load(tmp_path / "patches" / "index.npy", mmap_mode="r+")
    index["row"], index["col"] = np.arange(20) * 4, (np.arange(20) * 7) % 90
    region = dataset.manifest.region
    height, width = np.full((2, 20), 4)
    height[3], width[4] = 2, 1  # padded to the size of the others
    index["east"], index["north"] = region.centre(index["row"] + (height - 1) / 2, index["col"] + (width - 1) / 2)
    index.flush()
    write_model(tmp_path / "model", ["patches"], dataset)
    mask = training_footprints([tmp_path / "model"], region).mask(region.window)
    expected = np.zeros(region.shape, dtype=bool)
    for number in np.flatnonzero(index["part"] == 0):
        row, col = index["row"][number], index["col"][number]
        expected[row : row + height[number], col : col + width[number]] = True
    assert np.array_equal(mask, expected)
    assert 0 < mask.sum() < 20 * 16


def test_patches_that_were_sampled_anew_are_refused(tmp_path):
    dataset = make_patches(tmp_path / "patches", size=4, count=10)
    report = dataset.manifest.report
    write_model(tmp_path / "model", ["patches"], dataset, sampling=[{**report, "seconds": 0.5}])
    training_footprints([tmp_path / "model"], REGION)
    write_model(tmp_path / "older", ["patches"], dataset, sampling=[{**report, "patches": 11}])
    with pytest.raises(DeepLearningError, match=r"sampled anew since .*older"):
        training_footprints([tmp_path / "older"], REGION)


def test_patches_of_another_coordinate_system_are_refused(tmp_path):
    dataset = make_patches(tmp_path / "patches", size=4, count=10)
    write_model(tmp_path / "model", ["patches"], dataset)
    file = tmp_path / "patches" / "dataset.json"
    values = json.loads(file.read_text())
    values["projection"] = {"name": "WGS 84 / UTM zone 32N", "epsg": 32632, "wkt": None}
    file.write_text(json.dumps(values))
    here = {"name": "UTM zone 32N", "epsg": 32632, "wkt": None}
    for project in (here, {**here, "epsg": None}, {}):
        training_footprints([tmp_path / "model"], REGION, project)
    for project in ({"name": "ETRS89 / LAEA Europe", "epsg": 3035}, {"name": "XY", "epsg": None}):
        with pytest.raises(DeepLearningError, match=f"the project {project['name']}"):
            training_footprints([tmp_path / "model"], REGION, project)


def test_patches_that_are_gone_are_named(tmp_path):
    dataset = make_patches(tmp_path / "patches", size=4, count=10)
    write_model(tmp_path / "model", [str(tmp_path / "moved")], dataset)
    with pytest.raises(DeepLearningError, match="moved"):
        training_footprints([tmp_path / "model"], REGION)
    write_model(tmp_path / "other", [], dataset)
    with pytest.raises(DeepLearningError, match="names none"):
        training_footprints([tmp_path / "other"], REGION)


def test_directory_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DeepLearningError, match=r"model\.json"):
        training_footprints([tmp_path], REGION)
