"""Each branch is really used: one source carries the classes, the others are noise, and training finds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlearndeep.backends import get_backend
from rlearndeep.learning import training
from rlearndeep.learning.options import Settings
from rlearndeep.model import read_card, read_feature_space
from rlearndeep.prediction.answers import Member, Question, Subject
from rlearndeep.scene.inputs import Inputs
from synthetic_patches import make_sources

CHANCE = 0.45


def scores(directory: Path, carrier: str, settings: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Macro F1 of the parts, trained on patches of which only ``carrier`` shows the classes."""
    backend = get_backend("torch")
    dataset = make_sources(directory / "patches", carrier, size=8, **values)
    quick: dict[str, Any] = {"batch_size": 12, "learning_rate": 0.003, "augment": ("flip", "rotate")}
    chosen = Settings(**{"architecture": "fusion", "epochs": 12, "nprocs": 1, "patience": 0, **quick, **settings})
    found = training.train(training.prepare([dataset], chosen, backend), directory / "model", backend)
    assert found is not None
    return {name: part["f1_macro"] for name, part in found["parts"].items()}


@pytest.mark.parametrize(
    ("carrier", "settings", "values"),
    (
        ("auxiliary1", {}, {"names": ("auxiliary1",), "context": 1, "shift": 10.0}),
        ("series", {}, {"names": ("series",)}),
        ("series", {"epochs": 20, "sources": ("series",)}, {}),
        ("series", {}, {"unit": "patch"}),
        ("auxiliary1", {"architecture": "mlp", "batch_size": 4}, {}),
    ),
    ids=("auxiliary", "series", "series alone", "series of a patch", "stack"),
)
def test_the_source_that_carries_the_classes_is_found(
    tmp_path: Path, carrier: str, settings: dict[str, Any], values: dict[str, Any]
) -> None:
    found = scores(tmp_path, carrier, settings, count=120, **values)
    assert found["test"] > 0.85, found


def test_without_the_source_that_carries_the_classes_there_is_nothing_to_learn(tmp_path: Path) -> None:
    settings = {"epochs": 6, "sources": ("reference", "auxiliary1")}
    assert scores(tmp_path, "series", settings, count=120, unit="patch")["test"] < CHANCE


def test_the_model_predicts_what_it_scored(tmp_path: Path) -> None:
    scores(tmp_path, "reference", {"epochs": 1}, count=20)
    card = read_card(tmp_path / "model")
    assert [source.name for source in card.branches] == ["auxiliary1", "series"] and card.stride == 1
    predictor = get_backend("torch").load(tmp_path / "model", card, "cpu", "32")
    assert predictor.pixels_per_batch >= 1


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_what_is_strange_in_a_further_source_is_novel(tmp_path: Path, unit: str) -> None:
    backend = get_backend("torch")
    dataset = make_sources(tmp_path / "patches", "auxiliary1", unit, size=8, count=80)
    settings = Settings(architecture="fusion", epochs=3, nprocs=1, patience=0, augment=("flip",), learning_rate=0.003)
    plan = training.prepare([dataset], settings, backend)
    training.train(plan, tmp_path / "model", backend)
    card = read_card(tmp_path / "model")
    predictor = backend.load(tmp_path / "model", card, "cpu", "32")
    member = Member(predictor, card, (0, 1, 2), read_feature_space(tmp_path / "model"))
    question = Question(Subject.of(card), novelty=True)
    known, _ = plan.parts["validation"].read(np.arange(len(plan.parts["validation"])))
    assert isinstance(known, Inputs)
    heights = known.further["auxiliary1"]
    strange = replace(known, further={**known.further, "auxiliary1": replace(heights, values=heights.values + 20)})
    usual, odd = (member.answer(question, inputs)[:, -1] for inputs in (known, strange))
    assert np.median(usual) < 1 < np.median(odd)
