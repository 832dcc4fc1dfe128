"""Labels made wrong on purpose are found by networks that never saw them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.accuracy.label_quality import LabelScores
from rlearndeep.backends import get_backend
from rlearndeep.learning import crossvalidation
from rlearndeep.learning.crossvalidation import LabelAreas
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.model import ModelCard, Network
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from synthetic_patches import CLASSES, make_patches

AREAS, PER_AREA, WRONG = 30, 8, (3, 7, 15, 25)


def mislabelled(path: Path, unit: str, size: int) -> LabelAreas:
    """Areas of eight patches, four of them with a wrong class."""
    count = AREAS * PER_AREA
    dataset = make_patches(path / "patches", unit, size, count, unlabelled=0.0)
    labels = np.array(dataset.labels)
    owner = np.empty(count, np.int32)
    owner[np.argsort(labels.reshape(count, -1)[:, 0], kind="stable")] = np.arange(count) // PER_AREA + 1
    truth = np.array([np.bincount(labels[owner == area].ravel()).argmax() for area in range(1, AREAS + 1)])
    truth[np.array(WRONG) - 1] = (truth[np.array(WRONG) - 1] + 1) % 3
    wrong = np.isin(owner, WRONG)
    labels[wrong] = truth[owner[wrong] - 1].reshape(-1, *[1] * (labels.ndim - 1))
    np.save(dataset.path / "labels.npy", labels)
    number = np.broadcast_to(owner.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
    return LabelAreas.of(PatchDataset.open(dataset.path), np.arange(1, AREAS + 1), number)


def card_of(areas: LabelAreas, settings: Settings) -> ModelCard:
    manifest = areas.dataset.manifest
    source = manifest.reference
    chosen = resolved(settings, manifest.unit, source.shape, len(areas.dataset))
    return ModelCard(
        "torch",
        "weights.safetensors",
        Network(chosen.architecture, len(source.bands), len(CLASSES), dict(chosen.network or {})),
        manifest.unit,
        source.bands,
        Normalization.from_statistics("band", source.statistics),
        CLASSES,
        source.shape,
        source.resolution,
        training={"settings": chosen.to_json()},
    )


@pytest.mark.parametrize(
    ("unit", "size", "settings"),
    [
        ("cell", 1, Settings("mlp", {"hidden": [16]}, epochs=10, learning_rate=0.02, batch_size=32)),
        ("patch", 4, Settings("cnn", {"filters": 8, "blocks": 1}, epochs=10, learning_rate=0.02, batch_size=32)),
    ],
)
def test_wrong_labels_are_the_most_doubtful(tmp_path, unit, size, settings):
    areas = mislabelled(tmp_path, unit, size)
    card = card_of(areas, replace(settings, augment=("none",), nprocs=1))
    chosen, backend = crossvalidation.model_settings(card, "cpu"), get_backend("torch")
    folds = crossvalidation.make_folds(areas, 2, card.normalization, 1)

    scores = LabelScores(areas.categories, len(CLASSES))
    for held in crossvalidation.judge(folds, card, chosen, backend):
        scores.add(*held)
    worst = scores.result(CLASSES)[: len(WRONG)]
    assert {row["area"] for row in worst} == set(WRONG)  # precision at 4 = 1
    assert all(row["suggested"] is not None for row in worst)
