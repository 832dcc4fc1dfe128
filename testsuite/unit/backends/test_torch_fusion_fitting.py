"""Training on several sources: each is used, and runs repeat bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.feeding import on_device
from rlearndeep.backends.torch.fusion import FusedUnet
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.tasks import Measure
from rlearndeep.model import Network
from rlearndeep.scene.bands import BandStatistics, Normalization
from rlearndeep.scene.inputs import Further, Inputs
from synthetic_sources import SIDE, Feed, of_auxiliary, of_timing

ACCURACY = Measure("accuracy", "accuracy", 1, lambda matrix: float(np.diag(matrix).sum() / max(1, matrix.sum())))
RMSE = Measure("rmse", "rmse", -1, lambda sums: float((sums[1] / sums[0]) ** 0.5))

AUXILIARY = {"name": "auxiliary1", "bands": 1, "series": False}
SERIES = {"name": "series", "bands": 2, "series": True}
CELLS = Network("fusion", 2, 2, {"encoder": "resnet18", "depth": 3, "filters": 8, "sources": [AUXILIARY]})
TIMING = Network("fusion", 1, 2, {"unit": "patch", "reference": False, "filters": 8, "sources": [SERIES]})


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def fitted(directory: Path, network: Network, training: Feed, validation: Feed | None, **values: Any) -> Any:
    changes = {
        name: values.pop(name)
        for name in ("task", "target", "progress", "warn", "folder", "initial", "measure")
        if name in values
    }
    folder = changes.pop("folder", directory / f"run{len(list(directory.iterdir()))}")
    folder.mkdir(exist_ok=True)
    task = changes.pop("task", "class")
    unit = network.options.get("unit", "cell")
    chosen = {"epochs": 3, "batch_size": 16, "learning_rate": 0.005, "augment": ("none",), **values}
    settings = resolved(
        Settings(architecture="fusion", device="cpu", nprocs=1, **chosen), unit, (SIDE, SIDE), len(training), task
    )
    around: dict[str, Any] = {"target": None, "progress": lambda row: None, "warn": print, "measure": ACCURACY}
    return backend.fit(
        network,
        training,
        validation,
        settings,
        task=task,
        class_weights=np.ones(network.classes),
        spread=np.ones(network.bands),
        folder=folder,
        **{**around, **changes},
    )


def accuracy(module: torch.nn.Module, inputs: Inputs, labels: np.ndarray) -> float:
    with torch.inference_mode():
        said = module(inputs.map(torch.from_numpy)).argmax(dim=1).numpy()
    return float((said == labels).mean())


def shuffled(feed: Feed, name: str, *parts: str) -> Inputs:
    """Arrays of a source of the wrong places."""
    order = np.random.default_rng(5).permutation(len(feed))
    source = feed.inputs.further[name]
    mixed = replace(source, **{part: getattr(source, part)[order] for part in parts})
    return Inputs(feed.inputs.images, {**feed.inputs.further, name: mixed})


def test_what_only_an_auxiliary_source_shows_is_learned_where_it_lies(tmp_path: Path) -> None:
    validation = of_auxiliary(40, 1)
    options = {"epochs": 5, "batch_size": 8, "augment": ("flip", "rotate")}
    module = fitted(tmp_path, CELLS, of_auxiliary(96, 0), validation, **options).module
    assert accuracy(module, validation.inputs, validation.labels) > 0.97
    assert accuracy(module, shuffled(validation, "auxiliary1", "values"), validation.labels) < 0.6
    source = validation.inputs.further["auxiliary1"]
    moved = replace(source, box=source.box + np.array([1, 1, 0, 0], dtype=np.float32))
    apart = Inputs(validation.inputs.images, {"auxiliary1": moved})
    assert accuracy(module, apart, validation.labels) < 0.92


def test_what_only_the_timing_shows_is_learned_from_the_days(tmp_path: Path) -> None:
    validation = of_timing(60, 1)
    module = fitted(tmp_path, TIMING, of_timing(200, 0), validation, epochs=12).module
    assert accuracy(module, validation.inputs, validation.labels) > 0.97
    assert accuracy(module, shuffled(validation, "series", "values"), validation.labels) < 0.75
    source = validation.inputs.further["series"]
    backwards = replace(source, days=np.ascontiguousarray(source.days[:, ::-1]))
    assert accuracy(module, Inputs(validation.inputs.images, {"series": backwards}), validation.labels) < 0.1
    fewer = Further(source.values[:, ::2], source.valid[:, ::2], source.box, source.days[:, ::2])
    assert accuracy(module, Inputs(validation.inputs.images, {"series": fewer}), validation.labels) > 0.9


def test_a_network_copes_with_an_absent_source(tmp_path: Path) -> None:
    training, validation = of_auxiliary(96, 0, 0.4), of_auxiliary(30, 1, 0.4)
    source = validation.inputs.further["auxiliary1"]
    absent = Inputs(validation.inputs.images, {"auxiliary1": replace(source, valid=np.zeros_like(source.valid))})
    found = {}
    for dropout in (0.0, 0.3):
        network = replace(CELLS, options={**CELLS.options, "dropout": dropout})
        module = fitted(tmp_path, network, training, validation, epochs=5, batch_size=8).module
        assert accuracy(module, validation.inputs, validation.labels) > 0.97
        found[dropout] = accuracy(module, absent, validation.labels)
    assert found[0.3] > 0.9 and found[0.3] > found[0.0]


def test_values_are_learned_from_the_level_of_a_source(tmp_path: Path) -> None:
    feeds = []
    for count, seed in ((160, 0), (40, 1)):
        feed = of_auxiliary(count, seed)
        level = np.random.default_rng(seed).normal(size=count).astype(np.float32)
        source = feed.inputs.further["auxiliary1"]
        flat = np.broadcast_to(level[:, None, None, None], source.values.shape).copy()
        inputs = Inputs(feed.inputs.images, {"auxiliary1": replace(source, values=flat)})
        feeds.append(Feed(inputs, 50 + 10 * level))
        feeds[-1].unlabelled = float("nan")
    network = Network("fusion", 2, 1, {"unit": "patch", "reference": False, "filters": 8, "sources": [AUXILIARY]})
    target = BandStatistics.of(feeds[0].labels.astype(np.float64))
    result = fitted(tmp_path, network, *feeds, task="value", target=target, measure=RMSE, epochs=8)
    assert result.history[-1]["validation_rmse"] < 0.15


class _Stopped(Exception):
    """The end of a process."""


@pytest.mark.parametrize("network", (CELLS, TIMING), ids=("auxiliary", "series"))
def test_a_run_that_goes_on_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, network: Network) -> None:
    make = of_auxiliary if network is CELLS else of_timing
    options = {"augment": ("crop", "flip", "rotate", "blur", "jitter", "noise", "erase"), "batch_size": 7}

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise _Stopped

    whole = fitted(tmp_path, network, make(20, 0), make(9, 1), **options)
    with pytest.raises(_Stopped):
        fitted(tmp_path, network, make(20, 0), make(9, 1), folder=tmp_path / "run", progress=stop, **options)
    again = fitted(tmp_path, network, make(20, 0), make(9, 1), folder=tmp_path / "run", **options)
    for first, second in zip(whole.module.state_dict().values(), again.module.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    curves = [[{**row, "seconds": 0} for row in result.history] for result in (whole, again)]
    assert curves[0] == curves[1]


def test_a_batch_that_does_not_fit_is_computed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = replace(CELLS, options={**CELLS.options, "dropout": 0.0})
    forward, messages, sizes = FusedUnet.forward, [], []

    def limited(self: Any, inputs: Inputs) -> torch.Tensor:
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(FusedUnet, "forward", limited)
    result = fitted(tmp_path, network, of_auxiliary(9, 0), of_auxiliary(5, 1), epochs=1, warn=messages.append)
    assert len(messages) >= 2 and max(sizes) == 2
    assert np.isfinite(result.history[0]["training_loss"])


def test_one_place_is_enough(tmp_path: Path) -> None:
    assert len(fitted(tmp_path, CELLS, of_auxiliary(1, 0), None, epochs=1).history) == 1


def test_sources_on_the_device_are_normalised_each_for_itself() -> None:
    random = np.random.default_rng(1)
    values = random.integers(0, 9000, (3, 4, 2, 5, 6)).astype(np.uint16)
    valid = random.random((3, 4, 5, 6)) < 0.7
    box, days = np.ones((3, 4), dtype=np.float32), np.zeros((3, 4), dtype=np.float32)
    images = random.integers(0, 255, (3, 2, 8, 8)).astype(np.uint8)
    known = random.random((3, 8, 8)) < 0.7
    feed = Feed(Inputs(images, {"series": Further(values, valid, box, days)}), np.zeros(3, dtype=np.uint8))
    feed.normalization = Normalization("band", (100.0, 120.0), (30.0, 40.0))
    feed.normalizations = {"series": Normalization("band", (4000.0, 5000.0), (1000.0, 900.0))}
    raw = iter([(feed.inputs, known, feed.labels)])
    (inputs, labels), *_ = on_device(raw, feed, torch.device("cpu"))
    assert isinstance(inputs, Inputs)
    np.testing.assert_array_equal(inputs.images.numpy(), feed.normalization.apply(images, known))
    source = inputs.further["series"]
    np.testing.assert_array_equal(source.values.numpy(), feed.normalizations["series"].apply(values, valid))
    assert torch.equal(source.valid, torch.from_numpy(valid)) and labels.tolist() == [0, 0, 0]


def test_reduced_precision_learns(tmp_path: Path) -> None:
    training, validation = of_timing(120, 0), of_timing(30, 1)
    result = fitted(tmp_path, TIMING, training, validation, precision="bf16", epochs=12)
    assert result.history[-1]["validation_accuracy"] > 0.9
