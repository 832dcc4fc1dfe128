"""Cards of models for tests."""

from __future__ import annotations

from pathlib import Path

from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass


def example(unit: str = "cell", method: str = "band") -> ModelCard:
    return ModelCard(
        backend="torch",
        weights="weights.safetensors",
        network=Network("unet", 2, 3, {"encoder": "resnet18", "hidden": [1, 2], "dropout": 0.25}),
        unit=unit,
        bands=(Band("red", "S2_4"), Band("map.2")),
        normalization=Normalization(method, *(((1.5, 2.0), (0.1, 300.0)) if method == "band" else ())),
        classes=ClassTable((MapClass(-7, "bare soil", (1, 2, 3)), MapClass(30, "Wässer", None), MapClass(400, ""))),
        patch=(64, 48),
        resolution=(0.25, 0.5),
        stride=32,
        reach=None if unit == "patch" else 17,
        projection={"name": "UTM", "epsg": 32632, "wkt": "PROJCRS[...]"},
        extent=(5.0, 45.0, 6.0, 46.5),
        training={"versions": {"torch": "2.15.0+cpu"}, "command": "r.learn.deep.train ..."},
        scores={"epochs": 3},
        created="2026-01-02T03:04:05Z",
    )


def written(directory: Path, card: ModelCard) -> Path:
    (directory / card.weights).write_bytes(b"")
    write_card(directory, card, "example")
    return directory
