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
from collections.abc import Callable, Iterator
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
    ModelSource,
    Network,
    read_card,
    read_feature_space,
    write_card,
    write_feature_space,
)
from rlearndeep.prediction.answers import Member, Question, Subject, check_views
from rlearndeep.prediction.branches import Places
from rlearndeep.prediction.matching import Offer, arrange
from rlearndeep.prediction.planning import make_plan
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region
from rlearndeep.scene.novelty import FeatureSpace
from rlearndeep.scene.tasks import Quantity

WEIGHTS = backend.FILE
SECONDS = 10.0
WRONG = (
    None, True, -1, 0, 10**9, 10**30, 1.5, float("nan"), float("inf"), -float("inf"), "", "x", "../../x", "/etc/passwd",
    "a\nb", "\x00", "9" * 500, [], [None], [[[]]], [1] * 1000, {}, {"a": 1},
)  # fmt: skip


def card(network: Network, task: str = "class") -> ModelCard:
    """A card of two bands, or of the kinds of ``NETWORKS``, that fits a network."""
    value = task == "value"
    bands, sources = (Band("red", "S2_4"), Band("nir", "S2_8")), ()
    if task == "stacked":
        sources = (ModelSource("auxiliary1", (Band("height"),), (4, 4), (20.0, 20.0), "bilinear"),)
    if task == "fusion":
        days = ("2020-03-01", "2020-06-01")
        sources = (
            ModelSource("auxiliary1", (Band("height"),), (4, 4), (20.0, 20.0), "branch", Normalization("cell")),
            ModelSource("series", (Band("ndvi", "NDVI"),), (2, 2), (40.0, 40.0), dates=days),
        )
    bands = (*bands, *(band for source in sources if source.use != "branch" for band in source.bands))
    answer = backend.answers(network.architecture)
    return ModelCard(
        backend="torch",
        weights=WEIGHTS,
        network=network,
        unit=answer if answer != "either" else network.options.get("unit", "cell"),
        bands=bands,
        normalization=Normalization("band", (1.5, 2.0, 4.0)[: len(bands)], (0.5, 3.0, 1.0)[: len(bands)]),
        classes=ClassTable(() if value else (MapClass(3, "bare", (1, 2, 3)), MapClass(30, "water"))),
        patch=(8, 8),
        resolution=(10.0, 10.0),
        extent=(5.0, 45.0, 6.0, 46.5),
        training={"versions": {"torch": "2.15.0"}, "bf16_changes": 0.001, "rules": ["object"], "patches": ["/data"]},
        task="presence" if task == "presence" else "value" if value else "class",
        quantity=Quantity("height", "m") if value else None,
        target=BandStatistics(5, 2.0, 1.0, 0.0, 4.0) if value else None,
        largest=(8, 8) if task == "fusion" else None,
        sources=sources,
    )


def perceptron(bands: int, outputs: int, unit: str = "cell") -> Network:
    return Network("mlp", bands, outputs, {"hidden": [4], "dropout": 0.0, "unit": unit})


LOOKED_AT = [{"name": "auxiliary1", "bands": 1, "series": False}, {"name": "series", "bands": 1, "series": True}]
NETWORKS = {
    "class": perceptron(2, 2),
    "value": perceptron(2, 1),
    "presence": perceptron(2, 2, "patch"),
    "stacked": perceptron(3, 2),
    "fusion": Network(
        "fusion", 2, 2, {"filters": 2, "blocks": 1, "unit": "cell", "reference": False, "sources": LOOKED_AT}
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a small model of every kind, each of which can predict."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("models")
    for task, network in NETWORKS.items():
        directory = place / task
        directory.mkdir()
        backend.save(backend.build(network), directory / WEIGHTS)
        write_card(directory, card(network, task), "whole")
        opened(directory)
    backend.build(Network("unet", 2, 2))  # imports of the libraries take seconds
    return place


@pytest.fixture
def whole(models: Path) -> Path:
    """A small model of classes."""
    return models / "class"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"a connection was tried: {arguments}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def opened(directory: Path) -> ModelCard:
    """What a prediction does with a model, for one small window of the map that the models were made for."""
    card = read_card(directory)
    check_views([card], "none")
    make_plan([card], None, "linear", None)
    offers = []
    if card.sources:
        offers = [Offer("aux", (Band("height"),))]
    if len(card.sources) > 1:
        offers.append(Offer("dates", (Band("ndvi", "NDVI"),), ("2021-03-01",)))
    arrangement = arrange([card], (Band("red", "S2_4"), Band("nir", "S2_8")), offers)
    predictor = backend.load(directory, card, "cpu", "32")
    member = Member(predictor, card, arrangement.positions[0], branches=arrangement.branches[0])
    rows, cols = (min(side, 8) for side in card.patch)
    values = np.random.default_rng(1).normal(size=(len(card.bands), rows, cols)).astype(np.float32)
    places = Places.of(Region(80, 0, 80, 0, 8, 8), np.array([0]), np.array([0]), (rows, cols))
    images = member.prepare(values, np.ones((rows, cols), dtype=bool))[None]
    question = Question(Subject.of(card), spread=True)
    answer = member.answer(question, member.shown(images, places, {}))
    assert answer.shape == (1, question.planes, *((rows, cols) if card.unit == "cell" else ()))
    assert np.isfinite(answer[:, : question.subject.outputs]).all()
    assert isinstance("object" in card.training.get("rules", []), bool)
    return card


def loaded(directory: Path) -> None:
    """What a prediction does with a model after the bands were matched."""
    backend.load(directory, read_card(directory), "cpu", "32")


def refused(directory: Path, use: Callable[[Path], Any] = opened) -> str:
    """The message for a model that must be refused, soon and with little memory; empty where it was used."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        use(directory)
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


def at(item: Any, path: tuple) -> Any:
    for key in path:
        item = item[key]
    return item


def is_same(value: Any, other: Any) -> bool:
    """Whether JSON values are the same; a whole number may stand for itself with a decimal point."""
    if type(value) in (int, float) and type(other) in (int, float):
        return float(value) == float(other)
    return type(value) is type(other) and value == other


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


# What may be missing, and records of the training, of which prediction needs nothing.
OPTIONAL = {"rlearndeep:sources", "color", "semantic_label", "dropout", "unit", "series", "filters", "datetime", "bbox"}
RECORDS = {"rlearndeep:training", "rlearndeep:projection", "rlearndeep:scores"}


@pytest.mark.parametrize("task", NETWORKS)
def test_a_wrong_value_is_refused_in_one_line_or_taken_as_it_stands(tmp_path: Path, models: Path, task: str) -> None:
    """A value that does no harm, such as another name, is taken; none is taken for another value."""
    item = json.loads((models / task / MANIFEST).read_text())
    weights = (models / task / WEIGHTS).read_bytes()
    ours = [path for path in places(item) if len(path) > 1 and str(path[1]).startswith("rlearndeep:")]
    if task == "fusion":
        ours = [path for path in ours if path[1] not in RECORDS]
    count = taken = 0
    for path in [*ours, ("properties",), ("bbox",), ("bbox", 0), ("properties", "datetime")]:
        for value in (..., *WRONG):
            directory = made(tmp_path / str(count), changed(item, path, value), weights)
            message = refused(directory)
            count, taken = count + 1, taken + (not message)
            if message or RECORDS.intersection(path):
                continue
            if value is ...:
                assert path[-1] in OPTIONAL or path[-2] == "dates", path
            elif path[0] != "bbox" and path[-1] != "datetime":
                again = read_card(directory).to_json("whole")
                assert is_same(at(again, path), value), (path, value)
    assert count > 1000
    assert taken < count / 2


OTHER_BANDS = [{"name": "height", "semantic_label": None}, {"name": "slope", "semantic_label": None}]


@pytest.mark.parametrize(
    ("task", "path", "value"),
    (
        ("class", ("rlearndeep:unit",), "patch"),
        ("presence", ("rlearndeep:unit",), "cell"),
        ("fusion", ("rlearndeep:unit",), "patch"),
        ("class", ("rlearndeep:sources",), "those of fusion"),
        ("stacked", ("rlearndeep:sources", 0, "use"), "branch"),
        ("stacked", ("rlearndeep:sources", 0, "bands"), OTHER_BANDS * 2),
        ("fusion", ("rlearndeep:sources",), []),
        ("fusion", ("rlearndeep:sources", 0, "name"), "auxiliary2"),
        ("fusion", ("rlearndeep:sources", 0, "bands"), OTHER_BANDS),
        ("fusion", ("rlearndeep:sources", 0, "use"), "nearest"),
        ("class", ("rlearndeep:classes", 0, "category"), 31),
        ("class", ("rlearndeep:training", "rules"), 5),
        ("class", ("rlearndeep:training", "rules"), None),
        ("class", ("rlearndeep:bands", 0, "name"), "red\0"),
        ("class", ("rlearndeep:bands", 0, "semantic_label"), ["S2_4"]),
        ("class", ("rlearndeep:classes", 0, "label"), "\ud800"),
        ("value", ("rlearndeep:quantity", "name"), "\ud800"),
        ("value", ("rlearndeep:quantity", "units"), "m\0"),
        *(
            ("class", ("rlearndeep:classes", 0, "category"), category)
            for category in (2**32 + 7, 2**53, -(2**31), 2**31, 1.7, True)
        ),
    ),
)
def test_parts_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, models: Path, task: str, path: tuple, value: Any
) -> None:
    item = json.loads((models / task / MANIFEST).read_text())
    if value == "those of fusion":
        value = json.loads((models / "fusion" / MANIFEST).read_text())["properties"]["rlearndeep:sources"]
    weights = (models / task / WEIGHTS).read_bytes()
    directory = made(tmp_path / "m", changed(item, ("properties", *path), value), weights)
    message = refused(directory, loaded)
    assert f"'{directory / MANIFEST}'" in message and "Train the model again" in message


@pytest.mark.parametrize("largest", (None, (33, 8)))
def test_a_network_made_for_one_size_is_refused_for_larger_pictures(
    tmp_path: Path, whole: Path, largest: tuple[int, int] | None
) -> None:
    network = Network("unet", 2, 2, {"encoder": "coat_lite_tiny", "size": [8, 8]})
    item = replace(card(network), largest=largest).to_json("x")
    message = refused(made(tmp_path / "m", item, (whole / WEIGHTS).read_bytes()), loaded)
    assert f"rlearndeep:largest is {largest}, its network is made for 32 x 32 cells" in message


def test_a_model_without_classes_is_refused(tmp_path: Path, whole: Path) -> None:
    item = card(NETWORKS["class"]).to_json("x")
    item["properties"]["rlearndeep:network"]["classes"] = 0
    item["properties"]["rlearndeep:classes"] = []
    assert "0 classes" in refused(made(tmp_path / "m", item, (whole / WEIGHTS).read_bytes()))


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
    directory = made(tmp_path / "m", item, (whole / WEIGHTS).read_bytes())
    assert "shape" in refused(directory, loaded) or "missing" in refused(directory, loaded)
    assert "200000" in refused(directory)


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
    many = replace(good, vectors=np.zeros((1_000_000, 4), np.float32))
    for absurd in (
        many,
        replace(good, threshold=0.0),
        replace(good, mean_distance=float("nan")),
        replace(good, vectors=[]),
    ):
        write_feature_space(tmp_path, replace(absurd, vectors=np.asarray(absurd.vectors, np.float32)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DeepLearningError, match="damaged"):
            read_feature_space(tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000  # kilobytes
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
