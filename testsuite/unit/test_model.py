"""The model directory: what is written is read, and what is not a model is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from model_cards import example, written
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import MANIFEST, read_card


@pytest.mark.parametrize("method", ("band", "cell", "none"))
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_card_survives_writing(tmp_path: Path, unit: str, method: str) -> None:
    card = example(unit, method)
    assert read_card(written(tmp_path, card)) == card


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
