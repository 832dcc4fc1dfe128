"""What a model's manifest says to other programs: a STAC item with the extension for models (MLM)."""

from __future__ import annotations

import copy
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from model_cards import example, written
from rlearndeep.model import FEATURES, MANIFEST, MLM_SCHEMA, ModelCard, ModelSource, Network
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.tasks import Quantity

SERIES = ModelSource(
    "series", (Band("s.1", "red"), Band("s.2")), (5, 6), (10.0, 10.0), "branch",
    Normalization("band", (1.0, 2.0), (3.0, 4.0)), ("2025-05-01", "2025-06-01"),
)  # fmt: skip
HEIGHT = ModelSource("auxiliary1", (Band("height"),), (7, 7), (4.0, 4.0), "branch", Normalization("cell"))
VALUES = {
    "task": "value",
    "classes": ClassTable(()),
    "network": Network("unet", 2, 1, {}),
    "quantity": Quantity("height", "m"),
    "target": BandStatistics(4, 1.0, 2.0, 0.0, 3.0),
}
CARDS: dict[str, ModelCard] = {
    "classes of cells": example(),
    "classes of patches": example("patch"),
    "standardised cell by cell": example(method="cell"),
    "nothing standardised": example(method="none"),
    "presence": replace(example("patch"), task="presence"),
    "values of cells": replace(example(), **VALUES),
    "values of patches": replace(example("patch"), **VALUES),
    "only pre-trained": replace(example(), task=FEATURES),
    "several sources": replace(example(), sources=(HEIGHT, SERIES)),
    "from other weights": replace(example(), training={"pretrained": True, "weights": {"origin": "imagenet"}}),
    "of Keras": replace(example(), backend="keras", weights="weights.keras"),
}

PROPERTIES = {
    f"mlm:{name}"
    for name in [
        "name",
        "architecture",
        "tasks",
        "framework",
        "framework_version",
        "memory_size",
        "total_parameters",
        "pretrained",
        "pretrained_source",
        "batch_size_suggestion",
        "accelerator",
        "accelerator_constrained",
        "accelerator_summary",
        "accelerator_count",
        "input",
        "output",
        "hyperparameters",
    ]
}
OF_ASSETS = {"mlm:artifact_type", "mlm:compile_method", "mlm:entrypoint"}
TASKS = {"semantic-segmentation", "scene-classification", "classification", "regression", "similarity-search"}
VERSION = r"\d+\.\d+\.\d+(\+[0-9a-zA-Z.-]+)?"


def check_rules(item: dict[str, Any]) -> None:
    """What the extension's published JSON schema (1.4 and 1.5) demands of an item, in the words of this function."""
    properties = item["properties"]
    assert MLM_SCHEMA in item["stac_extensions"]
    assert {name for name in properties if name.startswith("mlm:")} <= PROPERTIES
    assert {f"mlm:{name}" for name in ("name", "architecture", "tasks", "input", "output")} <= set(properties)
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert isinstance(properties["mlm:architecture"], str)
    assert properties["mlm:framework"] in ("PyTorch", "Keras")
    assert re.fullmatch(VERSION, properties.get("mlm:framework_version", "1.0.0"))
    assert isinstance(properties["mlm:pretrained"], bool)
    assert isinstance(properties["mlm:pretrained_source"], str | None)
    for tasks in (properties["mlm:tasks"], *(output["tasks"] for output in properties["mlm:output"])):
        assert isinstance(tasks, list) and len(set(tasks)) == len(tasks) and set(tasks) <= TASKS
    known = [band["name"] for band in properties["bands"]]
    assert item["stac_version"] >= "1.1.0" and known and len(set(known)) == len(known)
    for entry in properties["mlm:input"]:
        assert entry["name"] and set(entry["bands"]) <= set(known)
        check_axes(entry["input"], has_bands=bool(entry["bands"]))
        assert entry["value_scaling"] is None or entry["value_scaling"]
        for scaling in entry["value_scaling"] or ():
            assert scaling["type"] == "z-score" and isinstance(scaling["mean"] + scaling["stddev"], float)
    for entry in properties["mlm:output"]:
        assert entry["name"]
        check_axes(entry["result"], has_bands=False)
        for one in entry.get("classification:classes", ()):
            assert isinstance(one["value"], int) and re.fullmatch(r"[0-9A-Za-z_-]+", one["name"]) and one["description"]
            assert re.fullmatch(r"[0-9A-F]{6}", one["color_hint"])
    assert any("mlm:model" in asset["roles"] for asset in item["assets"].values())
    for asset in item["assets"].values():
        assert {name for name in asset if name.startswith("mlm:")} <= OF_ASSETS | (PROPERTIES - {"mlm:name"})
        assert ("mlm:model" in asset["roles"]) == bool(asset.get("mlm:artifact_type"))


def check_axes(structure: dict[str, Any], has_bands: bool) -> None:
    """Of an input or a result."""
    axes, shape = structure["dim_order"], structure["shape"]
    assert len(set(axes)) == len(axes) == len(shape) and all(re.fullmatch("[a-z_-]+", axis) for axis in axes)
    assert ("bands" in axes) == has_bands
    assert all(isinstance(length, int) and length >= -1 for length in shape)
    assert structure["data_type"] == "float32"


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("name", ("example", "my model", "2020", "_x_", "Wäldchen", "a", "m.1"))
def test_an_item_keeps_the_rules_of_the_published_schema(card: ModelCard, name: str) -> None:
    check_rules(json.loads(json.dumps(card.to_json(name))))


BREAKS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda item: item["properties"].pop("mlm:output"),
    lambda item: item["properties"].update({"mlm:name": "2020"}),
    lambda item: item["properties"].update({"mlm:artifact_type": "safetensors"}),
    lambda item: item["properties"].update({"mlm:tasks": ["mapping"]}),
    lambda item: item["properties"]["bands"].pop(),
    lambda item: item["properties"].update({"mlm:reach": 32}),
    lambda item: item["properties"]["mlm:input"][0]["value_scaling"].clear(),
    lambda item: item["properties"]["mlm:input"][0]["input"].update(dim_order=["batch", "channel", "y", "x"]),
    lambda item: item["properties"]["mlm:output"][0]["result"]["shape"].pop(),
    lambda item: item["assets"]["weights"].pop("mlm:artifact_type"),
    lambda item: item["assets"]["weights"].update(roles=["data"]),
)


@pytest.mark.parametrize("change", BREAKS)
def test_the_rules_refuse_what_breaks_them(change: Callable[[dict[str, Any]], Any]) -> None:
    item = copy.deepcopy(example().to_json("example"))
    change(item)
    with pytest.raises((AssertionError, KeyError)):
        check_rules(item)


def test_an_item_says_what_goes_in_and_out() -> None:
    item = example().to_json("example")
    assert item["type"] == "Feature" and item["bbox"] == [5.0, 45.0, 6.0, 46.5]
    properties = item["properties"]
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert properties["mlm:input"][0]["bands"] == ["S2_4", "map.2"]
    assert properties["mlm:input"][0]["input"]["shape"] == [-1, 2, 64, 48]
    assert properties["mlm:output"][0]["result"]["shape"] == [-1, 3, 64, 48]
    assert [entry["value"] for entry in properties["mlm:output"][0]["classification:classes"]] == [0, 1, 2]


def test_every_source_of_a_network_is_an_input() -> None:
    properties = CARDS["several sources"].to_json("example")["properties"]
    reference, height, series = properties["mlm:input"]
    assert [one["name"] for one in (reference, height, series)] == ["reference", "auxiliary1", "series"]
    assert (height["bands"], height["input"]["shape"]) == (["height"], [-1, 1, 7, 7])
    assert height["value_scaling"] is None
    assert series["bands"] == ["red", "s.2"]
    assert series["input"]["shape"] == [-1, -1, 2, 5, 6]
    assert series["input"]["dim_order"] == ["batch", "time", "bands", "height", "width"]
    assert series["value_scaling"][1] == {"type": "z-score", "mean": 2.0, "stddev": 4.0}
    assert [band["name"] for band in properties["bands"]] == ["S2_4", "map.2", "height", "red", "s.2"]


def test_the_stac_library_reads_the_item(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="pystac reads STAC items; pip install pystac pystac-ext-mlm")
    mlm = pytest.importorskip("pystac.extensions.mlm", reason="pip install pystac-ext-mlm")
    for card in (CARDS["classes of cells"], CARDS["classes of patches"], CARDS["several sources"]):
        written(tmp_path, card)
        item = pystac.Item.from_file(str(tmp_path / MANIFEST))
        model = mlm.MLMExtension.ext(item)
        assert model.architecture == "unet" and model.framework == "PyTorch"
        assert model.input[0].input.shape == [-1, 2, 64, 48]
        assert model.output[0].result.dim_order[1] == "class"
        assert list(item.assets) == ["weights"]


@pytest.mark.parametrize("version", ("2.15.0", "2.15.0+cpu", "2.15.0a0+git1", "nightly", ""))
def test_a_version_is_named_only_where_it_is_one(version: str) -> None:
    card = replace(example(), training={"versions": {"torch": version}})
    found = card.to_json("example")["properties"].get("mlm:framework_version")
    assert found == (version if version in ("2.15.0", "2.15.0+cpu") else None)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_an_item_is_valid_stac_and_the_extensions_own_model_accepts_it(card: ModelCard) -> None:
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema", reason="pip install jsonschema")
    item = card.to_json("example")
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
    for card in CARDS.values():
        item = pystac.Item.from_dict(card.to_json("example"), preserve_dict=True)
        assert MLM_SCHEMA in item.validate()


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_an_item_keeps_the_schema_that_the_extensions_own_model_generates(card: ModelCard) -> None:
    """The JSON schema of the authors' model of the same fields, which a package has."""
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    model = pytest.importorskip("stac_model.schema", reason="pip install stac-model")
    schema = model.MLModelProperties.model_json_schema()
    # Generated from the attributes of a Python class, not from what stands in an item; those rules are tested above.
    schema["$defs"]["MLMClassification"] = {"type": "object", "required": ["value", "name"]}
    validator = jsonschema.Draft202012Validator(schema)
    properties = card.to_json("example")["properties"]
    validator.validate(properties)
    for name in ("mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"):
        assert not validator.is_valid({key: value for key, value in properties.items() if key != name})
        assert not validator.is_valid({**properties, name: 7})
