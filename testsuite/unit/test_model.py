"""The model directory: what is written is read, and what is not a model is refused."""

from __future__ import annotations

import copy
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import MANIFEST, MLM_SCHEMA, ModelCard, Network, read_card, write_card
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


@pytest.mark.parametrize("method", ("band", "cell", "none"))
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_card_survives_writing(tmp_path: Path, unit: str, method: str) -> None:
    card = example(unit, method)
    assert read_card(written(tmp_path, card)) == card


def test_a_model_is_a_stac_item_with_the_extension_for_models(tmp_path: Path) -> None:
    written(tmp_path, example())
    item = json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8"))
    assert item["type"] == "Feature" and item["stac_extensions"][0].endswith("/mlm/v1.4.0/schema.json")
    assert item["bbox"] == [5.0, 45.0, 6.0, 46.5]
    properties = item["properties"]
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert properties["mlm:input"][0]["bands"] == ["S2_4", "map.2"]
    assert properties["mlm:input"][0]["input"]["shape"] == [-1, 2, 64, 48]
    assert properties["mlm:output"][0]["result"]["shape"] == [-1, 3, 64, 48]
    assert [entry["value"] for entry in properties["mlm:output"][0]["classification:classes"]] == [0, 1, 2]


def test_the_stac_library_reads_the_item(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="pystac reads STAC items; pip install pystac pystac-ext-mlm")
    mlm = pytest.importorskip("pystac.extensions.mlm", reason="pip install pystac-ext-mlm")
    for unit in ("cell", "patch"):
        written(tmp_path, example(unit))
        item = pystac.Item.from_file(str(tmp_path / MANIFEST))
        model = mlm.MLMExtension.ext(item)
        assert model.architecture == "unet" and model.framework == "PyTorch"
        assert model.input[0].input.shape == [-1, 2, 64, 48]
        assert model.output[0].result.dim_order[1] == "class"
        assert list(item.assets) == ["weights"]


MLM_TASKS = {"semantic-segmentation", "scene-classification", "classification", "regression"}


@pytest.mark.parametrize("name", ("example", "my model", "2020", "_x_", "Wäldchen", "a", "m.1"))
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_an_item_keeps_the_rules_of_the_published_schema(tmp_path: Path, unit: str, name: str) -> None:
    """The rules of version 1.4 of the extension that its JSON schema states, in the words of this test."""
    item = example(unit).to_json(name)
    properties = item["properties"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert set(properties["mlm:tasks"]) <= MLM_TASKS and "mlm:architecture" in properties
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+[0-9a-zA-Z.-]+)?", properties.get("mlm:framework_version", "1.0.0"))
    assert properties["mlm:pretrained"] is False and properties["mlm:pretrained_source"] is None
    known = {band["name"] for band in properties["bands"]}  # STAC 1.1; the input refers to them
    assert known >= set(properties["mlm:input"][0]["bands"]) and known
    assert all(set(scaling) == {"type", "mean", "stddev"} for scaling in properties["mlm:input"][0]["value_scaling"])
    for entry in (properties["mlm:input"][0]["input"], properties["mlm:output"][0]["result"]):
        assert len(entry["shape"]) == len(entry["dim_order"]) and entry["data_type"] == "float32"
        assert min(entry["shape"]) >= -1
    for entry in properties["mlm:output"][0]["classification:classes"]:
        assert re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"]) and entry["description"]
        assert re.fullmatch(r"[0-9A-F]{6}", entry["color_hint"])
    assert sum("mlm:model" in asset["roles"] for asset in item["assets"].values()) == 1


@pytest.mark.parametrize("version", ("2.15.0", "2.15.0+cpu", "2.15.0a0+git1", "nightly", ""))
def test_a_version_is_named_only_where_it_is_one(version: str) -> None:
    card = replace(example(), training={"versions": {"torch": version}})
    found = card.to_json("example")["properties"].get("mlm:framework_version")
    assert found == (version if version in ("2.15.0", "2.15.0+cpu") else None)


def test_an_item_is_valid_stac_and_the_extensions_own_model_accepts_it(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema", reason="pip install jsonschema")
    for unit in ("cell", "patch"):
        item = example(unit).to_json("example")
        found = pystac.Item.from_dict({**item, "stac_extensions": []}, preserve_dict=True)
        found.validate()  # against the schemas of STAC that come with the library
        schema = pytest.importorskip("stac_model.schema", reason="pip install stac-model")
        schema.MLModelProperties.model_validate(item["properties"])


def test_an_item_is_valid_by_the_published_schema_where_that_can_be_reached() -> None:
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema", reason="pip install jsonschema")
    try:
        socket.create_connection((urlsplit(MLM_SCHEMA).hostname, 443), timeout=5).close()
    except OSError as error:
        pytest.skip(f"{MLM_SCHEMA} comes with no package and cannot be reached: {error}")
    for unit in ("cell", "patch"):
        item = pystac.Item.from_dict(example(unit).to_json("example"), preserve_dict=True)
        assert MLM_SCHEMA in item.validate()


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_an_item_keeps_the_schema_that_the_extensions_own_model_generates(unit: str) -> None:
    """The JSON schema of the authors' model of the same fields, which a package has."""
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    model = pytest.importorskip("stac_model.schema", reason="pip install stac-model")
    schema = model.MLModelProperties.model_json_schema()
    # Generated from the attributes of a Python class, not from what stands in an item; those rules are tested above.
    schema["$defs"]["MLMClassification"] = {"type": "object", "required": ["value", "name"]}
    validator = jsonschema.Draft202012Validator(schema)
    properties = example(unit).to_json("example")["properties"]
    validator.validate(properties)
    for name in ("mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"):
        assert not validator.is_valid({key: value for key, value in properties.items() if key != name})
        assert not validator.is_valid({**properties, name: 7})


def edited(directory: Path, *path: str | int, value: Any) -> Path:
    """The example with one value of its manifest changed; ``...`` removes it."""
    item = example().to_json("example")
    place: Any = item
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (directory / "weights.safetensors").write_bytes(b"")
    (directory / MANIFEST).write_text(json.dumps(item))
    return directory


@pytest.mark.parametrize(
    ("key", "value"),
    (
        ("rlearndeep:bands", ...),
        ("rlearndeep:bands", []),
        ("rlearndeep:bands", "red"),
        ("rlearndeep:classes", []),
        ("rlearndeep:classes", [{"category": 1, "label": "a"}, {"category": 1, "label": "b"}, {"category": 2}]),
        ("rlearndeep:network", {"architecture": "unet", "bands": 10**9, "classes": 3, "options": {}}),
        ("rlearndeep:network", {"architecture": "unet", "bands": 2, "classes": 3, "options": 7}),
        ("rlearndeep:network", None),
        ("rlearndeep:unit", "pixel"),
        ("rlearndeep:patch", [0, 64]),
        ("rlearndeep:patch", [10**9, 64]),
        ("rlearndeep:patch", 64),
        ("rlearndeep:stride", 0),
        ("rlearndeep:normalization", {"method": "band", "mean": [1.0], "std": [1.0]}),
        ("rlearndeep:normalization", {"method": "magic", "mean": [], "std": []}),
        ("rlearndeep:weights", "../../etc/passwd"),
        ("rlearndeep:weights", "/etc/passwd"),
        ("rlearndeep:weights", ".."),
        ("rlearndeep:weights", "absent.safetensors"),
        ("rlearndeep:training", ["x"]),
    ),
)
def test_hostile_values_are_refused_in_one_line(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(DeepLearningError) as caught:
        read_card(edited(tmp_path, "properties", key, value=value))
    assert "\n" not in str(caught.value)


def test_a_model_of_another_version_names_both(tmp_path: Path) -> None:
    with pytest.raises(DeepLearningError, match=r"version 1; .* version 99"):
        read_card(edited(tmp_path, "properties", "rlearndeep:version", value=99))


@pytest.mark.parametrize("text", ("", "{", "[]", "null", '"model"', "[" * 100_000, '{"properties": 3}', "\x00"))
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DeepLearningError, match="damaged"):
        read_card(tmp_path)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DeepLearningError, match="has none"):
            read_card(place)


def test_a_manifest_without_its_weights_is_refused(tmp_path: Path) -> None:
    (written(tmp_path, example()) / "weights.safetensors").unlink()
    with pytest.raises(DeepLearningError, match="missing"):
        read_card(tmp_path)


def test_an_item_of_another_program_is_refused(tmp_path: Path) -> None:
    item = copy.deepcopy(example().to_json("example"))
    item["properties"] = {key: value for key, value in item["properties"].items() if key.startswith("mlm:")}
    (tmp_path / MANIFEST).write_text(json.dumps(item))
    with pytest.raises(DeepLearningError, match="damaged"):
        read_card(tmp_path)
