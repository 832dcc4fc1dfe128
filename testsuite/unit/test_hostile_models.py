"""Model directories that somebody damaged or made up: an error in one line, soon, and nothing else."""

from __future__ import annotations

import builtins
import copy
import json
import os
import pickle
import resource
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import (
    MANIFEST,
    NOVELTY,
    ModelCard,
    Network,
    read_card,
    read_feature_space,
    write_card,
    write_feature_space,
)
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.novelty import FeatureSpace
from rlearndeep.scene.tasks import Quantity

WEIGHTS = backend.FILE
SECONDS = 10.0
WRONG = (
    None, True, -1, 0, 10**9, 10**30, 1.5, float("nan"), float("inf"), -float("inf"), "", "x", "../../x", "/etc/passwd",
    "a\nb", "\x00", "9" * 500, [], [None], [[[]]], [1] * 1000, {}, {"a": 1},
)  # fmt: skip


def card(network: Network, task: str = "class") -> ModelCard:
    value = task == "value"
    return ModelCard(
        backend="torch",
        weights=WEIGHTS,
        network=network,
        unit="cell",
        bands=(Band("red", "S2_4"), Band("nir", "S2_8")),
        normalization=Normalization("band", (1.5, 2.0), (0.5, 3.0)),
        classes=ClassTable(() if value else (MapClass(3, "bare", (1, 2, 3)), MapClass(30, "water"))),
        patch=(8, 8),
        resolution=(10.0, 10.0),
        extent=(5.0, 45.0, 6.0, 46.5),
        training={"versions": {"torch": "2.15.0"}, "bf16_changes": 0.001},
        task=task,
        quantity=Quantity("height", "m") if value else None,
        target=BandStatistics(5, 2.0, 1.0, 0.0, 4.0) if value else None,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that can be loaded."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("models") / "whole"
    directory.mkdir()
    network = Network("mlp", 2, 2, {"hidden": [4], "dropout": 0.0, "unit": "cell"})
    backend.save(backend.build(network), directory / WEIGHTS)
    write_card(directory, card(network), "whole")
    opened(directory)
    backend.build(Network("unet", 2, 2))  # imports of the libraries take seconds
    return directory


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"a connection was tried: {arguments}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def opened(directory: Path) -> None:
    """What a prediction does before it reads the map."""
    backend.load(directory, read_card(directory), "cpu", "32")


def refused(directory: Path) -> str:
    """The message for a model that must be refused, soon and with little memory; empty where it was loaded."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        opened(directory)
        message = ""
    except DeepLearningError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 4000
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    return message


def made(directory: Path, item: Any, weights: bytes) -> Path:
    directory.mkdir()
    (directory / MANIFEST).write_text(json.dumps(item))
    (directory / WEIGHTS).write_bytes(weights)
    return directory


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place inside a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(item: dict, path: tuple, value: Any) -> dict:
    item = copy.deepcopy(item)
    place: Any = item
    for key in path[:-1]:
        place = place[key]
    if value is Ellipsis:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return item


@pytest.mark.parametrize("task", ("class", "value"))
def test_no_wrong_value_anywhere_ends_otherwise_than_in_one_line(tmp_path: Path, whole: Path, task: str) -> None:
    """A value that does no harm, such as another name, may be loaded."""
    outputs = 1 if task == "value" else 2
    network = Network("mlp", 2, outputs, {"hidden": [4], "dropout": 0.0, "unit": "cell"})
    item = card(network, task).to_json("whole")
    weights = (whole / WEIGHTS).read_bytes() if task == "class" else b""
    ours = [path for path in places(item) if len(path) > 1 and str(path[1]).startswith("rlearndeep:")]
    count = loaded = 0
    for path in [*ours, ("properties",), ("bbox",), ("bbox", 0), ("properties", "datetime")]:
        for value in (..., *WRONG):
            message = refused(made(tmp_path / str(count), changed(item, path, value), weights))
            count, loaded = count + 1, loaded + (not message)
    assert count > 1000
    assert loaded < count / 2


@pytest.mark.parametrize(
    ("architecture", "options"),
    (
        ("mlp", {"hidden": [65536] * 100}),
        ("mlp", {"hidden": [10**12]}),
        ("mlp", {"hidden": [4] * 10**6}),
        ("cnn", {"filters": 65536, "blocks": 12}),
        ("cnn", {"filters": 10**6}),
        ("fcn_dilated", {"filters": 65536, "kernel": [99], "blocks": 100}),
        ("fcn_dilated", {"blocks": 10**9}),
        ("fcn_dilated", {"dilations": [10**9]}),
        ("unet", {"encoder": "tu-hf-hub:someone/something"}),
        ("unet", {"encoder": "hf-hub:someone/something"}),
        ("unet", {"encoder": "local-dir:/etc"}),
        ("unet", {"encoder": "tu-../../etc/passwd"}),
        ("unet", {"encoder": "resnet18", "depth": 10**9}),
        ("unet", {"encoder": ["resnet18"]}),
        ("fpn", {"encoder": "resnet18", "depth": 3}),
        ("swin_t", {"size": [10**9, 10**9]}),
        ("swin_t", {"size": [2**40]}),
        ("resnet18", {"dropout": float("nan")}),
        ("resnet18", {"dropout": "0.1"}),
        ("hf-hub:someone/something", {}),
        ("hf_hub:someone/something", {}),
        ("local-dir:/etc", {}),
        ("https://example.org/model", {}),
        ("os.system", {}),
        ("__class__", {}),
        ("", {}),
    ),
)
def test_an_absurd_network_is_refused(tmp_path: Path, whole: Path, architecture: str, options: dict) -> None:
    item = card(Network(architecture, 2, 2, options)).to_json("x")
    message = refused(made(tmp_path / "m", item, (whole / WEIGHTS).read_bytes()))
    assert message


def test_a_million_bands_take_no_memory(tmp_path: Path, whole: Path) -> None:
    item = card(Network("resnet18", 2, 2, {})).to_json("x")
    values = item["properties"]
    values["rlearndeep:unit"] = "patch"
    values["rlearndeep:bands"] = [{"name": ""}] * 200_000
    values["rlearndeep:network"]["bands"] = 200_000
    values["rlearndeep:normalization"] = {"method": "none", "mean": [], "std": []}
    assert refused(made(tmp_path / "m", item, (whole / WEIGHTS).read_bytes()))


class Code:
    """Its unpickling would leave a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.file), "w")


def header(entries: dict, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def damages(weights: bytes, witness: Path) -> dict[str, bytes]:
    big = {"0.weight": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}
    cut = {f"cut at {at}": weights[:at] for at in (0, 1, 7, 8, 9, 50, 200, len(weights) - 1)}
    flipped = {f"bit {at}": weights[:at] + bytes([weights[at] ^ 0x41]) + weights[at + 1 :] for at in range(0, 60, 3)}
    return {
        **cut,
        **flipped,
        "longer": weights + b"x",
        "pickle": pickle.dumps(Code(witness)),
        "huge header": header({}, 2**63),
        "negative": header({}, 2**64 - 1),
        "long header": header({}, 100 * 1024**2),
        "huge tensor": header(big),
        "overlapping": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
        "no tensors": header({}),
        "not json": struct.pack("<Q", 4) + b"\xff\xfe\x00{",
        "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
    }


def test_damaged_weights_are_refused_and_no_code_is_run(tmp_path: Path, whole: Path) -> None:
    item = json.loads((whole / MANIFEST).read_text())
    for number, (name, content) in enumerate(damages((whole / WEIGHTS).read_bytes(), tmp_path / "ran").items()):
        assert refused(made(tmp_path / str(number), item, content)) or name.startswith("bit"), name
    assert not (tmp_path / "ran").exists()


def test_a_damaged_space_of_novelty_is_refused_and_no_code_is_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    good = FeatureSpace(np.ones(4, np.float32), random.normal(size=(9, 4)).astype(np.float32), 1.0, 2.0)
    write_feature_space(tmp_path, good)
    assert read_feature_space(tmp_path).edge == 2
    content = (tmp_path / NOVELTY).read_bytes()
    half = len(content) // 2
    more = {f"inner {at}": content[:at] + b"\xff" * 8 + content[at + 8 :] for at in range(half, len(content) - 8, 8)}
    for name, damaged in {**damages(content, tmp_path / "ran"), **more}.items():
        (tmp_path / NOVELTY).write_bytes(damaged)
        try:
            read_feature_space(tmp_path).check()
        except DeepLearningError as error:
            assert "\n" not in str(error), name
        else:
            assert name.startswith(("bit", "inner")), name
    assert not (tmp_path / "ran").exists()
    for absurd in (replace(good, threshold=0.0), replace(good, mean_distance=float("nan")), replace(good, vectors=[])):
        write_feature_space(tmp_path, replace(absurd, vectors=np.asarray(absurd.vectors, np.float32)))
        with pytest.raises(DeepLearningError, match="damaged"):
            read_feature_space(tmp_path)
    with pytest.raises(DeepLearningError, match="the network has 5, the model's file describes 4"):
        good.novelty(np.zeros((1, 5, 2, 2), np.float32))


def test_values_that_are_not_finite_are_refused(tmp_path: Path, whole: Path) -> None:
    directory = made(tmp_path / "m", json.loads((whole / MANIFEST).read_text()), b"")
    for value in (float("nan"), float("inf")):
        module = backend.build(read_card(whole).network)
        torch.nn.init.constant_(next(module.parameters()), value)
        backend.save(module, directory / WEIGHTS)
        assert "not finite" in refused(directory)


def test_weights_outside_the_directory_are_refused(tmp_path: Path, whole: Path) -> None:
    item = json.loads((whole / MANIFEST).read_text())
    directory = made(tmp_path / "m", item, b"")
    (directory / WEIGHTS).unlink()
    (directory / WEIGHTS).symlink_to(whole / WEIGHTS)
    assert "outside" in refused(directory)
    (directory / WEIGHTS).unlink()
    os.mkfifo(directory / WEIGHTS)  # reading it would wait for ever
    assert "missing" in refused(directory)
    for number, name in enumerate(("../whole/" + WEIGHTS, str(whole / WEIGHTS), "..", ".", "")):
        elsewhere = changed(item, ("properties", "rlearndeep:weights"), name)
        assert refused(made(tmp_path / str(number), elsewhere, b""))


def test_a_directory_behind_a_link_is_a_model(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "link").symlink_to(whole)
    assert not refused(tmp_path / "link")
