"""The exported network gives what ours gives, from raw values, and says what Deepness wants to know."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.onnx import metadata, tile
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.tasks import Quantity

pytest.importorskip("onnx", reason="pip install onnx onnxscript onnxruntime")
pytest.importorskip("onnxscript", reason="pip install onnxscript")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

METHODS = {"band": Normalization("band", (100.0, 2000.0), (5.0, 300.0)), "cell": Normalization("cell")}
UTM = 'PROJCRS["x",BASEGEOGCRS["y",ANGLEUNIT["degree",0.01745]],CS[Cartesian,2],LENGTHUNIT["metre",1]]'
FEET = 'PROJCS["x",GEOGCS["y",UNIT["degree",0.01745]],UNIT["US survey foot",0.3048006]]'


def card(network: Network, task: str = "class", unit: str = "cell", method: str = "band") -> ModelCard:
    value = task == "value"
    return ModelCard(
        backend="torch",
        weights=backend.FILE,
        network=network,
        unit=unit,
        bands=(Band("a", "red"), Band("b")),
        normalization=METHODS[method],
        classes=ClassTable(() if value else (MapClass(-3, "Wässer"), MapClass(7, ""), MapClass(9, "c"))),
        patch=(32, 32),
        resolution=(0.5, 0.5),
        stride=32,
        reach=None if unit == "patch" else 20,
        projection={"name": "UTM", "epsg": 1, "wkt": UTM},
        task=task,
        quantity=Quantity("height", "m") if value else None,
        target=BandStatistics(9, 12.0, 3.0, 0.0, 30.0) if value else None,
    )


def exported(directory: Path, model: ModelCard) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    backend.save(backend.build(model.network), directory / backend.FILE)
    backend.export_onnx(directory, model, directory / "model.onnx")
    return onnxruntime.InferenceSession(str(directory / "model.onnx"))


@pytest.mark.parametrize(
    ("architecture", "task", "unit", "method"),
    (
        ("unet", "class", "cell", "band"),
        ("mlp", "value", "cell", "cell"),
        ("cnn", "presence", "patch", "band"),
    ),
)
def test_onnxruntime_gives_our_scores_from_raw_values(
    tmp_path: Path, architecture: str, task: str, unit: str, method: str
) -> None:
    outputs = 1 if task == "value" else 3
    options = {"mlp": {"unit": unit}, "unet": {"depth": 3}}.get(architecture, {})
    model = card(Network(architecture, 2, outputs, options), task, unit, method)
    session = exported(tmp_path, model)
    count = 1 if task == "value" else 3
    random = np.random.default_rng(1)
    raw = (random.normal(size=(count, 2, *tile(model))) * [[[5]], [[300]]] + [[[100]], [[2000]]]).astype(np.float32)
    valid = random.random((count, *tile(model))) > 0.1
    expected = backend.load(tmp_path, model, "cpu", "32").predict(model.normalization.apply(raw, valid))
    (found,) = session.run(None, {"images": np.where(valid[:, None], raw, np.float32(np.nan))})
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_small_numbers_are_standardised_over_the_bands_of_a_cell_in_the_file_too(tmp_path: Path) -> None:
    model = card(Network("mlp", 2, 3, {"hidden": [4]}), method="cell")
    session = exported(tmp_path, model)
    raw = np.random.default_rng(1).normal(3e-9, 1e-9, (1, 2, *tile(model))).astype(np.float32)
    images = model.normalization.apply(raw, np.ones((1, *tile(model)), dtype=bool))
    expected = backend.load(tmp_path, model, "cpu", "32").predict(images)
    np.testing.assert_allclose(session.run(None, {"images": raw})[0], expected, atol=1e-4)


def test_what_the_plugin_divides_by_255_is_raw_again() -> None:
    found = metadata(card(Network("unet", 2, 3)))
    pixels = np.array([0, 17, 255], dtype=np.uint8)[:, None] * np.ones(2)
    prepared = (np.float32(pixels / 255) - found["standardization_mean"]) / found["standardization_std"]
    np.testing.assert_allclose(prepared, pixels, rtol=1e-6)


def test_the_metadata_say_what_the_plugin_asks(tmp_path: Path) -> None:
    session = exported(tmp_path, card(Network("mlp", 2, 3, {"hidden": [4]})))
    found = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert found["model_type"] == "Segmentor"
    assert found["class_names"] == {"0": "Wässer", "1": "7", "2": "c"} and found["categories"] == [-3, 7, 9]
    assert found["resolution"] == 50.0 and found["tiles_size"] == found["tile_size"] == 256
    assert found["tiles_overlap"] == 16  # two times 20 of 256 cells
    assert found["seg_thresh"] == 0 and found["seg_small_segment"] == 0
    assert session.get_inputs()[0].shape == ["batch", 2, 256, 256]
    assert session.get_outputs()[0].shape[1:] == [3, 256, 256]


def test_units_of_the_map_become_centimetres() -> None:
    model = card(Network("unet", 2, 3))
    feet = dataclasses.replace(model, projection={"wkt": FEET})
    assert metadata(feet)["resolution"] == pytest.approx(0.5 * 30.48006)
    for wkt in (None, "", 'GEOGCS["y",UNIT["degree",0.01745]]'):
        assert "resolution" not in metadata(dataclasses.replace(model, projection={"wkt": wkt}))


def test_values_are_for_the_regressor_and_patches_for_none() -> None:
    assert metadata(card(Network("unet", 2, 1), "value"))["model_type"] == "Regressor"
    assert "model_type" not in metadata(card(Network("cnn", 2, 3), "class", "patch"))


def test_a_file_is_replaced_only_when_asked_and_a_place_must_exist(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("precious")
    with pytest.raises(DeepLearningError, match="--overwrite"):
        backend.check_onnx(tmp_path / "m.onnx", False)
    backend.check_onnx(tmp_path / "m.onnx", True)
    for place in (tmp_path, tmp_path / "absent" / "m.onnx"):
        with pytest.raises(DeepLearningError, match="Choose another place"):
            backend.check_onnx(place, True)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = card(Network("mlp", 2, 3, {"hidden": [4]}))

    def full(model: Any, file: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx.save", full)
    (tmp_path / "model.onnx").write_text("precious")
    with pytest.raises(DeepLearningError, match="No space left"):
        exported(tmp_path, model)
    assert (tmp_path / "model.onnx").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", backend.FILE]
