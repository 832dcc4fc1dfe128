"""What a GPU must do as a CPU does; ``test_gpu.py`` runs this file where there is one.

RLEARNDEEP_TEST_DEVICE names the device; with ``cpu`` the same runs there, which tells whether the tests hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import prepare, train
from rlearndeep.model import read_card, read_feature_space
from synthetic_patches import make_patches, make_sources
from test_contract import PROBLEMS, ROOT, trained
from test_torch_fitting import fitted, parts, tensors
from test_torch_networks import CLASSIFIERS, SEGMENTATION, card, images, network, trained_a_little

DEVICE = os.environ["RLEARNDEEP_TEST_DEVICE"]
ON_CUDA = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason=f"device {DEVICE} is no CUDA device")
PRECISIONS = ("32", *(pytest.param(name, marks=ON_CUDA) for name in ("bf16", "16")))

CLOSELY = {"atol": 1e-3}


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of equal classes."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_task_is_learned(tmp_path: Path, problem: str) -> None:
    *_, key, _, least = PROBLEMS[problem]
    scores = trained(tmp_path, backend, problem, device=DEVICE)
    assert scores["parts"]["test"][key] >= least
    assert read_feature_space(tmp_path / backend.FILE) is not None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_model_from_here_answers_on_a_cpu_as_here(tmp_path: Path, unit: str, precision: str) -> None:
    dataset = make_patches(tmp_path / "patches", unit, 64, 80)
    settings = Settings(device=DEVICE, precision=precision, epochs=6, augment=("flip", "rotate", "jitter", "noise"))
    scores = train(prepare([dataset], settings, backend), tmp_path / "model", backend)
    assert scores is not None and scores["parts"]["test"]["overall_accuracy"] > 0.9
    manifest = read_card(tmp_path / "model")
    predictors = [backend.load(tmp_path / "model", manifest, *how) for how in ((DEVICE, precision), ("cpu", "32"))]
    here, there = (predictor.predict(images(3, 4, (64, 64))) for predictor in predictors)
    assert agreement(here, there) > 0.98
    np.testing.assert_allclose(here.sum(axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize("architecture", SEGMENTATION + CLASSIFIERS)
def test_an_architecture_answers_as_on_a_cpu(tmp_path: Path, architecture: str) -> None:
    built = network(architecture)
    backend.save(trained_a_little(backend.build(built), built.bands), tmp_path / backend.FILE)
    batch = images(3, built.bands)
    here, there = (backend.load(tmp_path, card(built), device, "32") for device in (DEVICE, "cpu"))
    np.testing.assert_allclose(here.predict(batch), there.predict(batch), **CLOSELY)
    assert agreement(here.predict(batch), there.predict(batch)) > 0.99
    outputs, features = here.predict_with_features(batch)
    expected_outputs, expected_features = there.predict_with_features(batch)
    np.testing.assert_allclose(outputs, expected_outputs, **CLOSELY)
    assert features.shape == expected_features.shape
    scale = np.abs(expected_features).mean()
    assert np.abs(features - expected_features).mean() < 0.05 * scale
    np.testing.assert_allclose(here.feature_weights, there.feature_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", (*SEGMENTATION, "dpt"))
def test_an_architecture_trains_here(tmp_path: Path, architecture: str) -> None:
    training, validation = parts(tmp_path, size=32, count=20)
    given = {"architecture": architecture, "shape": (32, 32), "batch_size": 5, "epochs": 2, "device": DEVICE}
    result = fitted(tmp_path, training, validation, **given)
    assert all(bool(torch.isfinite(tensor).all()) and tensor.device.type == "cpu" for tensor in tensors(result))
    losses = [row[name] for row in result.history for name in ("training_loss", "validation_loss")]
    assert np.isfinite(losses).all() and len(set(losses)) == 4


@pytest.mark.parametrize("optimizer", ("adamw", "adam", "sgd"))
@pytest.mark.parametrize("scheduler", ("none", "step", "cosine", "plateau", "onecycle"))
def test_optimizers_and_schedules_take_steps(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    given = {"optimizer": optimizer, "scheduler": scheduler, "learning_rate": 0.01, "device": DEVICE}
    first, last = (row["training_loss"] for row in fitted(tmp_path, training, validation, epochs=2, **given).history)
    assert last < first


@pytest.mark.parametrize("loss", ("cross_entropy", "focal", "dice", "jaccard", "cross_entropy+dice"))
def test_losses_are_learned_with_class_weights(tmp_path: Path, loss: str) -> None:
    training, validation = parts(tmp_path, size=4, count=40, null=0.1)
    given = {"class_weights": (1.0, 2.0, 0.5), "epochs": 8, "learning_rate": 0.02, "device": DEVICE}
    result = fitted(tmp_path, training, validation, loss=loss, **given)
    assert max(row["validation_accuracy"] for row in result.history) > 0.9


def test_the_rate_is_found_by_a_range_test(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    result = fitted(tmp_path, training, validation, learning_rate="auto", epochs=4, device=DEVICE)
    assert max(row["validation_accuracy"] for row in result.history) > 0.6


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    class Killed(Exception):
        """The end of a process."""

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    training, validation = parts(tmp_path, size=16, count=40)
    given = {"architecture": "unet", "shape": (16, 16), "epochs": 4, "device": DEVICE}
    whole = fitted(tmp_path, training, validation, **given)
    with pytest.raises(Killed):
        fitted(tmp_path, training, validation, folder=tmp_path / "run", progress=stop, **given)
    again = fitted(tmp_path, training, validation, folder=tmp_path / "run", **given)
    losses = [[row["training_loss"] for row in run.history] for run in (whole, again)]
    np.testing.assert_allclose(*losses, rtol=0.2)


def test_encoders_learn_without_labels(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", "patch", 16, 80)
    given = {"pretrain": "simclr", "unlabelled": (str(tmp_path / "patches"),), "pretrain_epochs": 2}
    settings = Settings("cnn", {"filters": 8, "blocks": 2}, **given, epochs=4, device=DEVICE)
    scores = train(prepare([dataset], settings, backend), tmp_path / "model", backend)
    assert scores is not None and np.isfinite(scores["pretraining"]["loss"])


@pytest.mark.parametrize(("task", "unit", "carrier"), (("value", "cell", "auxiliary1"), ("class", "patch", "series")))
def test_sources_are_fused(tmp_path: Path, task: str, unit: str, carrier: str) -> None:
    dataset = make_sources(tmp_path / "patches", carrier, unit, size=8, count=120, names=(carrier,), task=task)
    settings = Settings("fusion", epochs=12, batch_size=12, learning_rate=0.003, patience=0, device=DEVICE)
    scores = train(prepare([dataset], settings, backend), tmp_path / "model", backend)
    assert scores is not None
    assert scores["parts"]["test"]["r2" if task == "value" else "f1_macro"] > 0.7


@pytest.fixture
def little_memory() -> Iterator[None]:
    """700 MB beyond what is taken."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(DEVICE) + 700e6) / total, DEVICE)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    torch.cuda.empty_cache()


@ON_CUDA
def test_a_batch_beyond_the_memory_is_predicted_in_parts(tmp_path: Path, little_memory: None) -> None:
    built = network("unet")
    backend.save(backend.build(built), tmp_path / backend.FILE)
    predictor = backend.load(tmp_path, card(built), DEVICE, "32")
    predictor.pixels_per_batch = before = 256 * 256**2
    batch = images(256, built.bands, (256, 256))
    scores = predictor.predict(batch)
    assert predictor.pixels_per_batch < before
    np.testing.assert_allclose(scores[:2], predictor.predict(batch[:2]), **CLOSELY)


@ON_CUDA
def test_a_batch_beyond_the_memory_is_trained_in_parts(tmp_path: Path, little_memory: None) -> None:
    training, validation = parts(tmp_path, size=128, count=110)
    said: list[str] = []
    result = fitted(
        tmp_path, training, validation, architecture="unet", device=DEVICE, epochs=1, shape=(128, 128), batch_size=64,
        precision="32", warn=said.append,
    )  # fmt: skip
    assert any("memory" in text for text in said)
    assert np.isfinite(result.history[0]["training_loss"])


def test_the_benchmark_prints_how_fast_the_device_is() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "512", DEVICE, "96"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "training: loop" in done.stdout and "prediction of 512 x 512 x 5" in done.stdout
