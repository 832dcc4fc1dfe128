"""r.learn.deep.train as GRASS runs it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Grass
from rlearndeep.model import read_card
from synthetic_patches import make_patches

TOOL = "r.learn.deep.train"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def train(grass: Grass, patches: Path, model: Path, *arguments: str) -> dict:
    return grass.json(TOOL, f"patches={patches}", f"model={model}", *arguments, **ONE_THREAD)


@pytest.mark.parametrize(
    ("unit", "size", "count", "options", "least"),
    (
        ("cell", 1, 800, "epochs=6", 0.8),
        ("cell", 8, 60, "architecture=fcn_dilated filters=8 blocks=2 kernel=3 dilations=1 epochs=12", 0.6),
        ("patch", 8, 200, "architecture=cnn filters=8 epochs=15", 0.6),
    ),
)
def test_values_are_learned(grass: Grass, tmp_path: Path, unit: str, size: int, count: int, options: str, least: float):
    make_patches(tmp_path / "patches", unit, size, count, task="value")
    scores = train(grass, tmp_path / "patches", tmp_path / "model", *options.split())
    test = scores["parts"]["test"]
    assert set(test) == {"count", "rmse", "mae", "bias", "r2"} and test["r2"] >= least and test["rmse"] < 10
    assert scores["rmse_last10"] > 0
    card = read_card(tmp_path / "model")
    assert card.task == "value" and card.quantity.name == "height" and 100 < card.target.mean < 120
    assert "validation_rmse" in (tmp_path / "model" / "history.csv").read_text().splitlines()[0]
    assert "actual against predicted" in (tmp_path / "model" / "report.html").read_text()


def test_presence_is_learned_and_reported_per_class(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", "patch", 8, 150, task="presence")
    arguments = ("architecture=cnn", "filters=8", "epochs=12", "class_weights=balanced")
    text = grass.ok(TOOL, f"patches={tmp_path}/patches", f"model={tmp_path}/model", *arguments, **ONE_THREAD)
    assert "10 class 10" in text and "F1 macro" in text
    card = read_card(tmp_path / "model")
    assert card.task == "presence" and card.scores["parts"]["test"]["f1_macro"] > 0.85
    assert len(card.scores["parts"]["test"]["confusion_matrices"]) == 3


@pytest.mark.parametrize(
    ("unit", "size", "count", "architecture", "epochs", "least"),
    (
        ("cell", 1, 1500, "mlp", "15", 0.95),
        ("cell", 16, 60, "unet", "8", 0.80),
        ("patch", 16, 80, "resnet18", "6", 0.9),
    ),
)
def test_each_kind_of_patches_is_learned_with_its_default_network(
    grass: Grass, tmp_path: Path, unit: str, size: int, count: int, architecture: str, epochs: str, least: float
) -> None:
    make_patches(tmp_path / "patches", unit, size, count)
    scores = train(grass, tmp_path / "patches", tmp_path / "model", f"epochs={epochs}")
    assert scores["parts"]["test"]["f1_macro"] >= least
    card = read_card(tmp_path / "model")
    assert card.network.architecture == architecture and card.unit == unit
    assert card.scores == scores == json.loads((tmp_path / "model" / "scores.json").read_text())
    assert (card.reach is None) == (unit == "patch") and (card.reach == 0) == (architecture == "mlp")


def test_plain_output_is_the_classification_report(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=200)
    text = grass.ok(TOOL, f"patches={tmp_path}/patches", f"model={tmp_path}/model", "epochs=1", **ONE_THREAD)
    assert text.startswith("Scores of the test part")
    for word in ("precision", "recall", "10 class 10", "Overall accuracy", "Kappa", "F1 macro"):
        assert word in text


def test_the_same_seed_gives_the_same_weights_and_lost_standardization_is_noticed(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=600)
    scores = [
        train(grass, tmp_path / "patches", tmp_path / name, "epochs=4", *more)
        for name, more in (("a", ()), ("b", ()), ("raw", ("standardize=none",)))
    ]
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b", "raw")]
    assert weights[0] == weights[1] != weights[2]
    assert scores[0] == scores[1]
    assert scores[2]["parts"]["test"]["f1_macro"] < scores[0]["parts"]["test"]["f1_macro"] - 0.1


def test_checking_trains_nothing(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches")
    plan = train(grass, tmp_path / "patches", tmp_path / "model", "-c")
    assert plan["parts"] == {"training": 36, "validation": 12, "test": 12}
    assert plan["settings"]["architecture"] == "unet"
    assert not (tmp_path / "model").exists()


def test_bad_input_ends_in_one_line_and_writes_nothing(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches")
    model = f"model={tmp_path}/model"
    damaged = make_patches(tmp_path / "damaged", size=4).path
    (damaged / "labels.npy").write_bytes(b"\x93NUMPY")
    for arguments, fragment in (
        ((f"patches={tmp_path}/absent",), "has none"),
        ((f"patches={damaged}",), "is damaged"),
        ((f"patches={tmp_path}/patches", "architecture=nonsense"), "'nonsense'"),
        ((f"patches={tmp_path}/patches", "loss=nonsense"), "loss="),
        ((f"patches={tmp_path}/patches", "device=cuda:99", "architecture=mlp"), "device must exist"),
    ):
        assert fragment in grass.error(TOOL, *arguments, model, **ONE_THREAD)
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
    assert not (tmp_path / "model").exists()


def test_a_model_is_not_replaced_unasked(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=100)
    precious = tmp_path / "model"
    precious.mkdir()
    (precious / "model.json").write_text("{}")
    arguments = (f"patches={tmp_path}/patches", f"model={precious}", "epochs=1")
    assert "--overwrite" in grass.error(TOOL, *arguments, **ONE_THREAD)
    assert (precious / "model.json").read_text() == "{}"
    grass.ok(TOOL, *arguments, "--overwrite", **ONE_THREAD)
    assert read_card(precious).network.architecture == "mlp"


def test_a_missing_package_is_named_with_the_command_that_installs_it(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=100)
    (tmp_path / "path" / "torch").mkdir(parents=True)
    (tmp_path / "path" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')\n")
    error = grass.error(
        TOOL,
        f"patches={tmp_path}/patches",
        f"model={tmp_path}/model",
        PYTHONPATH=f"{tmp_path}/path:{grass.env['PYTHONPATH']}",
    )
    assert "-m pip install torch" in error and "no torch here" in error and "python" in error


def test_a_killed_run_goes_on_to_the_same_model(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=2000)
    arguments = (f"patches={tmp_path}/patches", "epochs=150", "patience=0", "hidden=8")
    whole = grass.json(TOOL, *arguments, f"model={tmp_path}/whole", **ONE_THREAD)
    command = [TOOL, *arguments, f"model={tmp_path}/model"]
    process = subprocess.Popen(command, env={**grass.env, **ONE_THREAD}, stderr=subprocess.PIPE, text=True)
    _wait_for_epoch(tmp_path / ".model.run" / "state.json", 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()
    assert "-r to go on" in grass.error(*command, **ONE_THREAD)
    assert "batch_size was" in grass.error(*command, "batch_size=7", "-r", **ONE_THREAD)
    process = subprocess.Popen(
        [*command, "-r"],
        env={**grass.env, **ONE_THREAD},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    _wait_for_epoch(tmp_path / ".model.run" / "state.json", 40, process)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate()
    text = " ".join(messages.split())
    assert process.returncode == 130 and "Traceback" not in text
    assert "To go on: r.learn.deep.train" in text and "-r -r" not in text
    assert grass.json(*command, "-r", **ONE_THREAD) == whole
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "model")]
    assert weights[0] == weights[1]
    curves = [
        [line.rpartition(",")[0] for line in (tmp_path / name / "history.csv").open()] for name in ("whole", "model")
    ]
    assert curves[0] == curves[1]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def _wait_for_epoch(state: Path, epoch: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(state.read_text())["epochs"] >= epoch:
                return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")
