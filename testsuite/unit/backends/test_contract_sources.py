"""What both back-ends learn from several sources: values and presence, beside classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rlearndeep.backends import BACKENDS, get_backend
from rlearndeep.learning import training
from rlearndeep.learning.options import Settings
from synthetic_patches import make_sources


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("task", "unit", "carrier", "score", "least"),
    (
        ("value", "cell", "auxiliary1", "r2", 0.8),
        ("presence", "patch", "series", "f1_macro", 0.85),
    ),
)
def test_each_task_is_learned_from_the_source_that_carries_it(
    backend: str, task: str, unit: str, carrier: str, score: str, least: float, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    room = get_backend(backend)
    dataset = make_sources(tmp_path / "patches", carrier, unit, size=8, count=120, names=(carrier,), task=task)
    options: dict[str, Any] = {"epochs": 15, "batch_size": 12, "learning_rate": 0.003, "patience": 0, "nprocs": 1}
    settings = Settings(architecture="fusion", augment=("flip", "rotate"), **options)
    found = training.train(training.prepare([dataset], settings, room), tmp_path / "model", room)
    assert found is not None
    assert found["parts"]["test"][score] > least, found["parts"]["test"]
