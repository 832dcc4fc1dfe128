"""Labels judged by networks that never saw them; the back-end here remembers every cell it has seen."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlearndeep.accuracy.label_quality import LabelScores
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning import crossvalidation
from rlearndeep.learning.label_areas import LabelAreas
from rlearndeep.learning.options import Settings
from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.classes import UNLABELLED
from scipy.spatial import cKDTree
from synthetic_patches import CLASSES, make_patches

SETTINGS = Settings(architecture="mlp", epochs=1, batch_size=8)


class Memory:
    """Mixes the labels of the seven seen cells (or patches) that are most alike; one that was seen has its own."""

    pixels_per_batch = 640

    def __init__(self, part: Any) -> None:
        found = [rows(images, labels) for images, labels in part.batches(7)]
        self.seen, self.labels = (np.concatenate(column) for column in zip(*found, strict=True))

    def predict(self, images: np.ndarray) -> np.ndarray:
        per_cell = self.seen.shape[1] == images.shape[1]
        asked = images.transpose(0, 2, 3, 1) if per_cell else images
        asked = asked.reshape(-1, self.seen.shape[1])
        distance, nearest = cKDTree(self.seen).query(asked, 7)
        weights = 1.0 / (distance + 1e-9)
        scores = np.einsum("nk,nkc->nc", weights, np.eye(len(CLASSES))[self.labels[nearest]])
        scores = (scores / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        if per_cell:
            return scores.reshape(len(images), *images.shape[2:], -1).transpose(0, 3, 1, 2)
        return scores


def rows(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and label of each label that is seen."""
    if labels.ndim == 1:
        known = labels != UNLABELLED
        return images.reshape(len(images), -1)[known], labels[known]
    cells = images.transpose(0, 2, 3, 1).reshape(-1, images.shape[1])
    known = labels.ravel() != UNLABELLED
    return cells[known], labels.ravel()[known]


def memory_backend() -> types.ModuleType:
    backend = types.ModuleType("rlearndeep.backends.memory")
    state: dict[str, Memory] = {}

    def fit(network: Any, training: Any, validation: Any, options: Any, **values: Any) -> Any:
        state["last"] = Memory(training)
        values["progress"]({"epoch": 1, "training_loss": 0.0})
        return types.SimpleNamespace(module=None)

    backend.__dict__.update(FILE="weights", fit=fit, save=lambda *_: None, load=lambda *_: state["last"])
    return backend


def card_of(dataset: PatchDataset) -> ModelCard:
    source = dataset.manifest.reference
    return ModelCard(
        "torch",
        "weights.safetensors",
        Network("mlp", len(source.bands), len(CLASSES)),
        dataset.manifest.unit,
        source.bands,
        Normalization.from_statistics("band", source.statistics),
        CLASSES,
        source.shape,
        source.resolution,
        training={"settings": SETTINGS.to_json()},
    )


def changed(dataset: PatchDataset, **columns: Any) -> PatchDataset:
    """The directory with other columns in its index."""
    index = np.array(dataset.index)
    for name, values in columns.items():
        index[name] = values
    np.save(dataset.path / "index.npy", index)
    return PatchDataset.open(dataset.path)


def cell_areas(path: Path, **values: Any) -> LabelAreas:
    """Patches of 8 x 8 cells; in three patches at a time the cells of one class are one area."""
    dataset = make_patches(path / "patches", size=8, count=30, **values)
    labels = dataset.read_labels(np.arange(30))
    number = 1 + 3 * (np.arange(30) // 3)[:, None, None] + labels
    number = np.where(labels == UNLABELLED, 0, number).astype(np.int32)
    return LabelAreas.of(dataset, np.arange(1, 31) * 10, number)


def patch_areas(path: Path) -> LabelAreas:
    """A label per patch; three patches of one class are one area."""
    dataset = make_patches(path / "patches", unit="patch", size=2, count=60)
    number = np.zeros(60, np.int32)
    order = np.argsort(dataset.labels, kind="stable")
    label = np.asarray(dataset.labels)[order]
    start = np.searchsorted(label, label)
    number[order] = 1 + 10 * label + np.minimum((np.arange(60) - start) // 3, 9)
    return LabelAreas.of(dataset, np.arange(1, 31), number)


def relabelled(areas: LabelAreas, wrong: np.ndarray) -> LabelAreas:
    """The labels of some areas replaced by the next class."""
    labels = np.load(areas.dataset.path / "labels.npy")
    hit = np.isin(areas.number, wrong) & (labels != 255)
    labels[hit] = (labels[hit] + 1) % len(CLASSES)
    np.save(areas.dataset.path / "labels.npy", labels)
    return LabelAreas.of(PatchDataset.open(areas.dataset.path), areas.categories, np.asarray(areas.number))


def folds_of(areas: LabelAreas, number: int = 4) -> list[crossvalidation.Fold]:
    return crossvalidation.make_folds(areas, number, card_of(areas.dataset).normalization, 1)


def doubts(areas: LabelAreas, folds: list[crossvalidation.Fold]) -> list[dict]:
    card = card_of(areas.dataset)
    scores = LabelScores(areas.categories, len(CLASSES))
    for held in crossvalidation.judge(folds, card, SETTINGS, memory_backend()):
        scores.add(*held)
    return scores.result(CLASSES)


@pytest.mark.parametrize("make", [cell_areas, patch_areas])
def test_each_label_is_judged_once_and_never_learnt_in_its_own_fold(tmp_path, make):
    areas = make(tmp_path)
    judged = 0
    for fold in folds_of(areas):
        assert not (fold.training.seen & fold.held.seen).any()
        for part in (fold.training, fold.held):
            numbers = np.arange(len(part))
            labels, owner = part.read(numbers)[1], part.numbers(numbers)
            np.testing.assert_array_equal(labels != UNLABELLED, part.seen[owner] & (owner > 0))
        judged += int((fold.held.read(np.arange(len(fold.held)))[1] != UNLABELLED).sum())
        shown = fold.training.read(np.arange(len(fold.training)))[1]
        assert fold.counts.tolist() == [int((shown == index).sum()) for index in range(3)]
    assert judged == (np.asarray(areas.number) > 0).sum() == sum(row["cells"] for row in doubts(areas, folds_of(areas)))


@pytest.mark.parametrize("make", [cell_areas, patch_areas])
def test_wrong_labels_stand_on_top_and_the_right_class_is_suggested(tmp_path, make):
    areas = make(tmp_path)
    wrong = np.flatnonzero(areas.labelled)[[2, 9, 17]] + 1
    right = {int(areas.categories[number - 1]): int(areas.counts[number].argmax()) for number in wrong}
    areas = relabelled(areas, wrong)
    rows = doubts(areas, folds_of(areas))
    assert {row["area"] for row in rows[:3]} == set(right)
    assert all(row["suggested"]["category"] == CLASSES[right[row["area"]]].category for row in rows[:3])


def test_a_network_that_saw_the_labels_would_not_find_them(tmp_path):
    areas = cell_areas(tmp_path)
    wrong = np.flatnonzero(areas.labelled)[[2, 9, 17]] + 1
    areas = relabelled(areas, wrong)
    everything = np.append(False, areas.labelled)
    leaking = [replace(fold, training=replace(fold.held, seen=everything)) for fold in folds_of(areas)]
    assert max(row["doubt"] for row in doubts(areas, leaking)) < 0.001


def test_cells_of_several_areas_are_neither_learnt_nor_judged(tmp_path):
    areas = cell_areas(tmp_path)
    number = np.array(areas.number)
    number[4] = 0
    areas = LabelAreas.of(areas.dataset, areas.categories, number)
    for fold in folds_of(areas):
        assert 4 not in fold.training.positions[0] and 4 not in fold.held.positions[0]


def test_whole_blocks_stay_together_and_their_neighbours_out(tmp_path):
    dataset = make_patches(tmp_path / "patches", unit="patch", size=1, count=60, shares=(1.0, 0.0, 0.0))
    dataset = changed(dataset, row=np.arange(60) // 10 * 3, col=np.arange(60) % 10, block=np.arange(60) // 10 + 1)
    dataset.manifest.report["split"] = {"buffer": 25.0}
    areas = LabelAreas.of(dataset, np.arange(1, 61), np.arange(1, 61).astype(np.int32))
    for fold in folds_of(areas, 3):
        blocks = [set(dataset.index["block"][part.positions[0]]) for part in (fold.held, fold.training)]
        assert len(blocks[0]) == 2 and not blocks[0] & blocks[1]
        near = {block for held in blocks[0] for block in (held - 1, held + 1)} - blocks[0]
        # Rows of blocks lie two cells of 10 m apart, closer than 25 m.
        assert not near & blocks[1]
        assert fold.near == 10 * len(near & set(range(1, 7)))


def test_without_enough_blocks_each_area_stands_for_itself(tmp_path):
    dataset = make_patches(tmp_path / "patches", unit="patch", size=1, count=40)
    dataset = changed(dataset, block=np.arange(40) % 3 + 1)
    areas = LabelAreas.of(dataset, np.arange(1, 41), np.arange(1, 41).astype(np.int32))
    assert sorted(len(fold.held) for fold in folds_of(areas, 4)) == [10, 10, 10, 10]
    assert all(fold.near == 0 for fold in folds_of(areas, 4))


def test_folds_share_the_classes(tmp_path):
    for fold in folds_of(patch_areas(tmp_path), 3):
        assert (fold.counts > 0).all()


def test_a_class_of_a_single_area_cannot_be_judged(tmp_path):
    areas = patch_areas(tmp_path)
    labels = np.asarray(areas.dataset.labels)
    number = np.where(labels == 2, 30, areas.number).astype(np.int32)
    areas = LabelAreas.of(areas.dataset, areas.categories, number)
    assert 30 not in {row["area"] for row in doubts(areas, folds_of(areas))}


def test_what_cannot_be_judged_is_refused(tmp_path):
    areas = patch_areas(tmp_path)
    with pytest.raises(DeepLearningError, match="as many label areas as folds"):
        folds_of(areas, 50)
    with pytest.raises(DeepLearningError, match="several areas"):
        LabelAreas.of(areas.dataset, areas.categories, np.zeros(60, np.int32))
    card = card_of(areas.dataset)
    crossvalidation.check_patches(card, areas.dataset)
    for other, word in (
        (replace(card, patch=(9, 9)), "patch size"),
        (replace(card, unit="cell"), "kind of label"),
        (replace(card, bands=card.bands[::-1]), "bands"),
        (replace(card, classes=type(CLASSES)(tuple(CLASSES)[:2])), "classes"),
        (replace(card, classes=type(CLASSES)(tuple(replace(entry, label="other") for entry in CLASSES))), "classes"),
        (replace(card, task="presence"), "task"),
        (replace(card, sources=(object(),)), "one source"),
    ):
        with pytest.raises(DeepLearningError, match=word):
            crossvalidation.check_patches(other, areas.dataset)


def test_labels_that_count_points_are_refused(tmp_path):
    areas = patch_areas(tmp_path)
    dataset = replace(areas.dataset, manifest=replace(areas.dataset.manifest, rule="density"))
    with pytest.raises(DeepLearningError, match="label=density"):
        crossvalidation.check_patches(card_of(dataset), dataset)


def test_presence_is_claimed_by_areas_and_absence_seen_by_all(tmp_path):
    dataset = make_patches(tmp_path / "patches", "patch", 8, 60, task="presence")
    labels = dataset.read_labels(np.arange(60))
    # Ten areas of each class; those of patch 7 belong to several areas.
    number = np.where(labels == 1, 1 + np.arange(60)[:, None] // 6 + 10 * np.arange(3), 0).astype(np.int32)
    number[7] = 0
    areas = LabelAreas.of(dataset, np.arange(1, 31), number)
    assert areas.counts.sum() == (labels == 1).sum() and areas.kinds.tolist() == np.repeat(range(3), 10).tolist()
    judged = 0
    for fold in folds_of(areas, 3):
        seen = fold.training.read(np.arange(len(fold.training)))[1]
        own = labels[fold.training.positions[0]]
        assert (seen[own == 0] == 0).all()
        claims = (own == 1) & (fold.training.numbers(np.arange(len(fold.training))) > 0)
        assert fold.counts.tolist() == (seen == 1).sum(axis=0).tolist() and (seen[(own == 1) & ~claims] == -1).all()
        held = fold.held.read(np.arange(len(fold.held)))[1]
        assert set(np.unique(held)) == {-1, 1} and 7 not in fold.held.positions[0]
        assert (seen == 1).sum() + (held == 1).sum() == (number > 0).sum()
        judged += int((held == 1).sum())
    assert judged == (number > 0).sum()


def test_values_are_divided_evenly_and_learnt_in_the_statistics_of_each_fold(tmp_path):
    dataset = make_patches(tmp_path / "patches", size=4, count=40, task="value")
    labels = dataset.read_labels(np.arange(40))
    number = np.where(np.isnan(labels), 0, 1 + np.arange(40)[:, None, None] // 2).astype(np.int32)
    areas = LabelAreas.of(dataset, np.arange(1, 21), number)
    assert np.bincount(areas.kinds).min() >= 1 and areas.counts.shape == (21, 1)
    for fold in folds_of(areas, 4):
        shown = fold.training.read(np.arange(len(fold.training)))[1]
        assert fold.is_teachable and fold.target.count == (~np.isnan(shown)).sum() < (~np.isnan(labels)).sum()
        assert fold.target.mean == pytest.approx(np.nanmean(shown))
    np.save(dataset.path / "labels.npy", np.where(np.isnan(labels), labels, 5))
    same = LabelAreas.of(PatchDataset.open(dataset.path), areas.categories, number)
    with pytest.raises(DeepLearningError, match="different classes, or values"):
        list(crossvalidation.judge(folds_of(same), card_of(dataset), SETTINGS, memory_backend()))


def test_settings_are_the_models_for_as_many_epochs_as_its_training_ran(tmp_path):
    card = card_of(patch_areas(tmp_path).dataset)
    card = replace(card, scores={"epochs": 7, "best_epoch": 2})
    card.training["settings"] |= {"augment": ["flip"], "tensorboard": str(tmp_path / "curves")}
    settings = crossvalidation.model_settings(card, "cpu")
    assert settings == replace(SETTINGS, epochs=7, device="cpu", augment=("flip",))


def test_pre_training_that_is_not_repeated_is_told(tmp_path):
    areas, told = patch_areas(tmp_path), []
    settings = replace(SETTINGS, pretrain="simclr", unlabelled=("places",))
    for changed in (SETTINGS, settings):
        list(
            crossvalidation.judge(folds_of(areas), card_of(areas.dataset), changed, memory_backend(), warn=told.append)
        )
    (message,) = told
    assert "pretrain=" in message and "weights=" in message


def test_a_network_that_begins_with_weights_that_saw_the_labels_is_refused(tmp_path):
    areas = patch_areas(tmp_path)
    card = card_of(areas.dataset)
    first, second = tmp_path / "first", tmp_path / "second"
    of_others = {"patches": ["elsewhere"], "settings": {"weights": str(first)}}
    for directory, training in ((first, {"patches": [str(areas.dataset.path)]}), (second, of_others)):
        directory.mkdir()
        (directory / "weights.safetensors").write_bytes(b"")
        write_card(directory, replace(card, training=training), directory.name)
        settings = replace(SETTINGS, weights=str(directory))
        with pytest.raises(DeepLearningError, match=r"never saw them; .* the weights of '.*first'"):
            list(crossvalidation.judge(folds_of(areas), card, settings, memory_backend()))


def test_balanced_class_weights_follow_what_a_fold_shows():
    weights = crossvalidation.class_weights("balanced", "class", np.array([10, 30, 0]), 40)
    assert weights.tolist() == [2.0, 40 / 60, 1.0]
    assert crossvalidation.class_weights((1.0, 2.0, 3.0), "class", np.zeros(3), 0).tolist() == [1.0, 2.0, 3.0]
