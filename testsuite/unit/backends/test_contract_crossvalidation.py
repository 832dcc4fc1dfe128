"""Labels made wrong on purpose are found by networks of both back-ends that never saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rlearndeep.accuracy.label_quality import doubts_of
from rlearndeep.backends import get_backend
from rlearndeep.learning import crossvalidation
from rlearndeep.learning.label_areas import LabelAreas
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.model import ModelCard, Network
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from synthetic_patches import CATEGORIES, make_patches

AREAS, PER_AREA, WRONG = 30, 8, (3, 7, 15, 25)
HOW = {"learning_rate": 0.02, "batch_size": 32, "augment": ("none",), "nprocs": 1}

# unit, rows and columns, task, settings
PROBLEMS = {
    "cells": ("cell", 1, "class", Settings("mlp", {"hidden": [16]}, epochs=10, **HOW)),
    "patches": ("patch", 4, "class", Settings("cnn", {"filters": 8, "blocks": 1}, epochs=10, **HOW)),
    "presence": ("patch", 8, "presence", Settings("cnn", {"filters": 8, "blocks": 1}, epochs=14, **HOW)),
    "values": ("cell", 1, "value", Settings("mlp", {"hidden": [16]}, loss="mae", epochs=20, **HOW)),
}


def mislabelled(path: Path, unit: str, size: int, task: str) -> LabelAreas:
    """Areas of eight patches, four of them with a wrong class or value."""
    count = AREAS * PER_AREA
    dataset = make_patches(path / "patches", unit, size, count, unlabelled=0.0, task=task)
    labels = np.array(dataset.labels)
    if task == "presence":
        number = _wrong_presence(labels)
    else:
        owner = np.empty(count, np.int32)
        owner[np.argsort(labels.reshape(count, -1)[:, 0], kind="stable")] = np.arange(count) // PER_AREA + 1
        number = np.broadcast_to(owner.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape)
        for area in range(1, AREAS + 1):
            mine = number == area
            values, often = np.unique(labels[mine], return_counts=True)
            labels[mine] = values[often.argmax()]
            if area in WRONG:
                labels[mine] = (labels[mine] + 1) % 3 if task == "class" else 100 + (labels[mine] - 90) % 30
    np.save(dataset.path / "labels.npy", labels)
    return LabelAreas.of(PatchDataset.open(dataset.path), np.arange(1, AREAS + 1), number)


def _wrong_presence(labels: np.ndarray) -> np.ndarray:
    """Each area claims the presence of one class in 24 patches; a wrong one that of a class which is absent."""
    patch, classes = np.indices(labels.shape)
    number = np.where(labels == 1, 1 + 10 * classes + patch // (3 * PER_AREA), 0).astype(np.int32)
    for area in WRONG:
        right = (area - 1) // 10
        wrong = (right + 1) % 3
        mine = np.flatnonzero((number[:, right] == area) & (labels[:, wrong] == 0))
        number[number[:, right] == area, right] = 0
        number[mine, wrong], labels[mine, wrong], labels[mine, right] = area, 1, 0
    return number


def card_of(areas: LabelAreas, settings: Settings) -> ModelCard:
    manifest = areas.dataset.manifest
    source = manifest.reference
    chosen = resolved(settings, manifest.unit, source.shape, len(areas.dataset), manifest.task)
    outputs = len(manifest.classes) or 1
    return ModelCard(
        "torch",
        "weights.safetensors",
        Network(chosen.architecture, len(source.bands), outputs, dict(chosen.network or {})),
        manifest.unit,
        source.bands,
        Normalization.from_statistics("band", source.statistics),
        manifest.classes,
        source.shape,
        source.resolution,
        training={"settings": chosen.to_json()},
        task=manifest.task,
        quantity=manifest.quantity,
    )


@pytest.mark.parametrize("name", ["torch", "keras"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_wrong_labels_are_the_most_doubtful(tmp_path, problem, name):
    unit, size, task, settings = PROBLEMS[problem]
    areas = mislabelled(tmp_path, unit, size, task)
    card = card_of(areas, settings)
    crossvalidation.check_patches(card, areas.dataset)
    chosen, backend = crossvalidation.model_settings(card, "cpu"), get_backend(name)
    folds = crossvalidation.make_folds(areas, 2, card.normalization, 1)

    doubts = doubts_of(task, areas.categories, card.classes)
    for held in crossvalidation.judge(folds, card, chosen, backend):
        doubts.add(*held)
    rows = doubts.result(card.classes)
    assert {row["area"] for row in rows} == set(range(1, AREAS + 1))
    worst = rows[: len(WRONG)]
    assert {row["area"] for row in worst} == set(WRONG)  # precision at 4 = 1
    if task == "value":
        assert worst[-1]["doubt"] > 1.2 * rows[len(WRONG)]["doubt"]
        assert all(abs(row["suggested"] - (100 + (row["value"] - 110) % 30)) < 5 for row in worst)
    if task == "presence":
        right = {area: CATEGORIES[(area - 1) // 10] for area in WRONG}
        assert {row["area"]: row["suggested"]["category"] for row in worst} == right
    assert all(row["suggested"] is not None for row in worst)
