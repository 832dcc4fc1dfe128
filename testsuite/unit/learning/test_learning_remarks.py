"""What the user is told of a trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rlearndeep.accuracy.metrics import presence_scores, scores
from rlearndeep.backends import get_backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.remarks import of_scores
from rlearndeep.learning.training import prepare, train
from rlearndeep.model import read_card
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
