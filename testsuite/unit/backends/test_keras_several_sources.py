"""Keras and several sources: a stack is one image; a further source with a branch is found, and lost if shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rlearndeep.backends import get_backend
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.layout import as_input
from rlearndeep.learning import training
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.sources import Choice
from rlearndeep.model import Network, read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.inputs import Further, Inputs
from synthetic_patches import make_sources

CHANCE = 0.45
QUICK: dict[str, Any] = {"learning_rate": 0.01, "batch_size": 12, "patience": 0, "nprocs": 1, "device": "cpu"}
SMALL: dict[str, Any] = {"filters": 8, "blocks": 2}
ALONE: dict[str, Any] = {"architecture": "fusion", "network": SMALL, "sources": ("auxiliary1",)}


@pytest.fixture(scope="module")
def backend() -> ModuleType:
    return get_backend("keras")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PatchDataset:
    """Only the auxiliary source shows the classes; its cells begin half a cell beside those of the patches."""
    directory = tmp_path_factory.mktemp("patches")
    return make_sources(directory / "p", "auxiliary1", size=8, count=120, names=("auxiliary1",), context=1, shift=10.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, backend: ModuleType, dataset: PatchDataset) -> Path:
    """A network of the auxiliary source alone."""
    directory = tmp_path_factory.mktemp("models") / "model"
    settings = Settings(**QUICK, **ALONE, epochs=10, augment=("flip", "rotate"))
    scores = training.train(training.prepare([dataset], settings, backend), directory, backend)
    assert scores is not None and scores["parts"]["test"]["f1_macro"] > 0.85
    return directory


def part_of(dataset: PatchDataset, name: str = "test", reference: bool = True) -> Part:
    names = (*(("reference",) if reference else ()), "auxiliary1")
    sites = Sites.of([dataset], Choice.of(dataset.manifest, "fusion", names, ""))
    return sites.part(name, Normalization.from_statistics("band", sites.statistics), sites.normalizations("band"))


def accuracy(predictor: Any, batches: Iterator[tuple[Inputs, np.ndarray]]) -> float:
    return float(np.mean([(predictor.predict(images).argmax(axis=1) == labels).mean() for images, labels in batches]))


def test_a_stack_is_learned(tmp_path: Path, backend: ModuleType) -> None:
    dataset = make_sources(tmp_path / "patches", "auxiliary1", size=4, count=60)
    settings = Settings(architecture="mlp", epochs=12, learning_rate=0.01, batch_size=4)
    scores = training.train(training.prepare([dataset], settings, backend), tmp_path / "model", backend)
    assert scores is not None and scores["parts"]["test"]["f1_macro"] > 0.9
    assert [source.use for source in read_card(tmp_path / "model").stacked] == ["nearest"]


def test_a_series_is_learned_by_its_dates(tmp_path: Path, backend: ModuleType) -> None:
    dataset = make_sources(tmp_path / "patches", "series", size=8, count=100, names=("series",))
    settings = Settings(**{**QUICK, **ALONE, "sources": ("series",)}, epochs=6, augment=("flip", "rotate"))
    scores = training.train(training.prepare([dataset], settings, backend), tmp_path / "model", backend)
    assert scores is not None and scores["parts"]["test"]["f1_macro"] > 0.85


def test_a_shuffled_source_and_a_moved_box_destroy_what_was_learned(
    model: Path, backend: ModuleType, dataset: PatchDataset
) -> None:
    predictor = backend.load(model, read_card(model), "cpu", "32")
    part = part_of(dataset)

    def batches(change: Any) -> Iterator[tuple[Inputs, np.ndarray]]:
        for images, labels in part.batches(24):
            yield Inputs(images.images, {"auxiliary1": change(images.further["auxiliary1"])}), labels

    def shuffled(source: Further) -> Further:
        return source.map(lambda array: np.roll(array, 5, axis=0))

    def moved(source: Further) -> Further:
        return Further(source.values, source.valid, source.box + np.float32([0.5, -0.5, 0, 0]), source.days)

    right = accuracy(predictor, batches(lambda source: source))
    assert right > 0.85 and accuracy(predictor, batches(shuffled)) < CHANCE
    assert accuracy(predictor, batches(moved)) < right - 0.1


def test_another_network_of_several_sources_begins_where_the_model_ended(
    tmp_path: Path, model: Path, backend: ModuleType, dataset: PatchDataset
) -> None:
    settings = Settings(**QUICK, **ALONE, weights=str(model), epochs=1, augment=("none",))
    plan = training.prepare([dataset], replace(settings, learning_rate=1e-7), backend)
    assert "33 of 33 arrays" in plan.initial.note and "3 of 3 classes" in plan.initial.note
    scores = training.train(plan, tmp_path / "model", backend)
    assert scores is not None and scores["parts"]["test"]["f1_macro"] > 0.85


def test_the_file_opens_without_the_suite_and_holds_no_code(
    model: Path, backend: ModuleType, dataset: PatchDataset
) -> None:
    card = read_card(model)
    images, _ = next(part_of(dataset).batches(4))
    opened = keras.saving.load_model(model / "model.keras")  # its safe mode is the default
    scores = np.asarray(keras.ops.softmax(opened.predict_on_batch(as_input(images, card.network))))
    predictor = backend.load(model, card, "cpu", "32")
    found, features = predictor.predict_with_features(images)
    np.testing.assert_allclose(np.moveaxis(scores, -1, 1), found, atol=1e-5)
    assert features.shape == (4, len(predictor.feature_weights), 8, 8)


class _Killed(Exception):
    """The end of a process."""


class _Accuracy:
    column, sign = "validation_accuracy", 1

    @staticmethod
    def of(matrix: np.ndarray) -> float:
        return float(np.diag(matrix).sum() / matrix.sum())


@pytest.mark.parametrize("reference", (False, True))
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, backend: ModuleType, dataset: PatchDataset, reference: bool
) -> None:
    part = part_of(dataset, reference=reference)
    epochs = 1 if reference else 2
    steps = ("flip", "rotate", "crop", "jitter", "noise", "blur", "erase")
    settings = resolved(Settings(**{**QUICK, **ALONE}, epochs=epochs, augment=steps), "cell", (8, 8), len(part))
    sources = [{"name": "auxiliary1", "bands": 1, "series": False}]
    network = Network("fusion", 3, 3, {**SMALL, "depth": 3, "reference": reference, "sources": sources})

    def fit(folder: str, stop: int = 0) -> Any:
        def progress(row: dict[str, Any]) -> None:
            if row["epoch"] == stop:
                raise _Killed

        (tmp_path / folder).mkdir(exist_ok=True)
        return backend.fit(
            network, part, None, settings, task="class", target=None, class_weights=np.ones(3),
            spread=np.ones(3), measure=_Accuracy(), folder=tmp_path / folder, progress=progress, warn=print,
        )  # fmt: skip

    whole = fit("whole")
    if reference:
        assert np.isfinite(whole.history[-1]["training_loss"])
        return
    with pytest.raises(_Killed):
        fit("killed", 1)
    again = fit("killed")
    assert [row["training_loss"] for row in whole.history] == [row["training_loss"] for row in again.history]
    images, _ = next(part.batches(4))
    assert np.array_equal(whole.module.logits(images), again.module.logits(images))
