"""What the user is told of a trained network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.accuracy.metrics import presence_scores, scores
from rlearndeep.backends import get_backend
from rlearndeep.learning.feeding import Sites
from rlearndeep.learning.options import Settings
from rlearndeep.learning.remarks import of_bands, of_resolutions, of_scores, of_sites
from rlearndeep.learning.training import prepare, train
from rlearndeep.model import read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import BandStatistics
from synthetic_patches import CLASSES, make_patches


def test_a_rare_class_that_is_never_found_is_named_with_a_way_out() -> None:
    (remark,) = of_scores(scores([[900, 50, 0], [50, 900, 0], [3, 7, 0]], CLASSES), "cell")
    assert "no cell of class 30 (0.52 % of the labels)" in remark and "cross_entropy+dice" in remark


def test_a_common_class_that_is_never_found_is_not_called_rare() -> None:
    (remark,) = of_scores(scores([[9, 0, 0], [5, 0, 0], [0, 0, 0]], CLASSES), "patch")
    assert "no patch of class 20 (36 %" in remark and "rare" not in remark and "class 30" not in remark


@pytest.mark.parametrize("found", ([[9, 0, 0], [8, 1, 0], [0, 0, 0]], np.zeros((3, 3))))
def test_classes_that_are_found_or_absent_are_not_named(found: np.ndarray) -> None:
    assert not list(of_scores(scores(found, CLASSES), "cell"))


def test_presence_that_is_never_found_is_named() -> None:
    tables = np.array([[[50, 1], [1, 48]], [[98, 0], [2, 0]], [[100, 0], [0, 0]]])
    (remark,) = of_scores(presence_scores(tables, CLASSES), "patch")
    assert "no patch of class 20 (3.9 %" in remark


def test_values_have_no_classes() -> None:
    assert not list(of_scores({"rmse": 1.0}, "cell"))


def test_a_class_that_costs_nothing_is_reported_as_never_found(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", "cell", 1, 400)
    settings = Settings("mlp", {"hidden": [16]}, epochs=8, learning_rate=0.01, class_weights=(1.0, 1.0, 0.0), nprocs=1)
    said: list[str] = []
    backend = get_backend("torch")
    train(prepare([dataset], settings, backend), tmp_path / "model", backend, warn=said.append)
    (remark,) = (text for text in said if "finds no cell of class 30" in text)
    assert remark in read_card(tmp_path / "model").training["remarks"]
    assert "finds no cell of class 30" in (tmp_path / "model" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "remark"),
    (
        ([7.0, 7.0], "learns nothing of b1:"),
        ([5e7, 5e7 + 0.1], "learns nothing of b1:"),
        ([5e6, 5e6 + 2.0], r"round off much of the differences in b1 \(mean 5e\+06, standard deviation 1\)"),
        ([5e6, 5e6 + 200.0], None),
        ([1e-9, 2e-9], None),
    ),
)
def test_bands_that_tell_little_are_named(tmp_path: Path, values: list[float], remark: str | None) -> None:
    dataset = make_patches(tmp_path / "patches", bands=2)
    (source,) = dataset.manifest.sources
    statistics = source.statistics[0], BandStatistics.of(np.array(values))
    manifest = replace(dataset.manifest, sources=(replace(source, statistics=statistics),))
    found = list(of_bands(Sites.of([replace(dataset, manifest=manifest)])))
    assert len(found) == (remark is not None)
    assert remark is None or re.search(remark, found[0])


def test_patches_of_a_test_part_over_training_patches_of_another_directory_are_counted(tmp_path: Path) -> None:
    """Patches are 160 map units wide. The first test patch lies 1 unit over a training patch, another touches one, as
    closely as rounded coordinates tell.
    """
    datasets = []
    for name, parts, easts in (("a", (0, 0, 2), (80.0, 2000.0, 1000.0)), ("b", (0, 2, 2), (5000.0, 239.0, 2159.99999))):
        dataset = make_patches(tmp_path / name, count=3)
        index = np.array(dataset.index)
        index["part"], index["east"], index["north"] = parts, easts, 80.0
        np.save(dataset.path / "index.npy", index)
        datasets.append(PatchDataset.open(dataset.path))
    (remark,) = of_sites(datasets)
    assert remark.startswith("1 patches of the test part lie over training patches of another directory")
    elsewhere = replace(datasets[1].manifest, projection={"name": "another", "epsg": 1, "wkt": None})
    assert not list(of_sites([datasets[0], replace(datasets[1], manifest=elsewhere)]))
    assert not list(of_sites(datasets[:1]))


def test_cells_of_another_size_than_those_of_the_first_directory_are_told(tmp_path: Path) -> None:
    first, *others = (make_patches(tmp_path / name, count=3) for name in "abc")
    side = first.manifest.reference.resolution[0]
    for dataset, factor, told in zip(others, (1.2, 0.5), (False, True), strict=True):
        reference = replace(dataset.manifest.reference, resolution=(side, factor * side))
        manifest = replace(dataset.manifest, sources=(reference,))
        found = list(of_resolutions([first, replace(dataset, manifest=manifest)]))
        assert [f"'{dataset.path}' have cells of {side:g} x {factor * side:g} map units" in one for one in found] == (
            [True] if told else []
        )
        elsewhere = replace(manifest, projection={"name": "another", "epsg": 1, "wkt": None})
        assert not list(of_resolutions([first, replace(dataset, manifest=elsewhere)]))
