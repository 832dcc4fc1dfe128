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
from synthetic_patches import make_patches, make_sources
from textures import make_textures

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
        ("patch", 8, 80, "cnn", "6", 0.9),
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


@pytest.mark.parametrize("stands", (True, False))
def test_a_link_stays_and_the_directory_behind_it_is_written(grass: Grass, tmp_path: Path, stands: bool) -> None:
    make_patches(tmp_path / "patches", size=1, count=100)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    if stands:
        train(grass, tmp_path / "patches", tmp_path / "disk" / "model", "epochs=1", "hidden=4")
    train(grass, tmp_path / "patches", tmp_path / "link", "epochs=1", "hidden=8", "--overwrite")
    assert (tmp_path / "link").is_symlink()
    assert read_card(tmp_path / "disk" / "model").network.options["hidden"] == [8]
    assert not [*tmp_path.glob(".*"), *(tmp_path / "disk").glob(".*")]


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


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_packages_of_the_report_are_missed_before_the_first_epoch(
    grass: Grass, tmp_path: Path, module: str, package: str
) -> None:
    make_patches(tmp_path / "patches", size=1, count=100)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules['{module}'] = None\n")
    path = f"{tmp_path}:{grass.env['PYTHONPATH']}"
    error = grass.error(TOOL, f"patches={tmp_path}/patches", f"model={tmp_path}/model", PYTHONPATH=path)
    assert f"The report of a training needs the Python package '{package}'" in error
    assert not [*tmp_path.glob("model*"), *tmp_path.glob(".model*")]


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


def test_a_run_that_is_killed_in_its_export_has_told_its_scores_and_finishes_it(grass: Grass, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    make_patches(tmp_path / "patches", size=1, count=200)
    command = [
        TOOL,
        f"patches={tmp_path}/patches",
        f"model={tmp_path}/model",
        f"onnx={tmp_path}/model.onnx",
        "epochs=2",
    ]
    process = subprocess.Popen(command, env={**grass.env, **ONE_THREAD}, stdout=subprocess.PIPE, text=True)
    with process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read()
    assert first.startswith("Scores of the test part") and "Kappa" in told
    assert not (tmp_path / "model.onnx").exists()
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    assert "Add -r to finish it" in grass.error(*command, **ONE_THREAD)
    assert grass.ok(*command, "-r", **ONE_THREAD).strip() == (first + told).strip()
    assert (tmp_path / "model.onnx").stat().st_size > 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_epochs_score_and_time_left_are_told_unless_the_user_wants_quiet(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=200)
    command = [
        TOOL,
        f"patches={tmp_path}/patches",
        f"model={tmp_path}/model",
        "epochs=100",
        "patience=0",
        "--overwrite",
    ]
    told = {level: grass.run(*command, GRASS_VERBOSE=level, **ONE_THREAD).stderr.split("Epoch ")[1:] for level in "023"}
    assert 20 <= len(told["2"]) <= 32 and len(told["3"]) == 100 and told["0"] == []
    for place, number in ((0, 1), (-1, 100)):
        text = told["2"][place].splitlines()[0]
        assert text.startswith(f"{number} of 100: loss") and ", F1 " in text and " s left" in text


def _wait_for_epoch(state: Path, epoch: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(state.read_text())["epochs"] >= epoch:
                return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


def test_sources_are_stacked_or_fused_or_left_out(grass: Grass, tmp_path: Path) -> None:
    make_sources(tmp_path / "patches", "auxiliary1", size=8, count=40, shift=10.0)
    plan = train(grass, tmp_path / "patches", tmp_path / "model", "-c", "architecture=unet", "resampling=bilinear")
    assert [band["name"] for band in plan["bands"]] == ["b_0", "b_1", "b_2", "auxiliary1_0"]
    assert plan["settings"]["sources"] == ["reference", "auxiliary1"]
    assert any("architecture=fusion looks at it" in remark for remark in plan["remarks"])
    arguments = ("architecture=mlp", "epochs=15", "learning_rate=0.003", "batch_size=4")
    stacked = train(grass, tmp_path / "patches", tmp_path / "stacked", *arguments)
    alone = train(grass, tmp_path / "patches", tmp_path / "alone", "sources=reference", *arguments)
    assert stacked["parts"]["test"]["f1_macro"] > 0.9 > 0.5 > alone["parts"]["test"]["f1_macro"]
    card = read_card(tmp_path / "stacked")
    assert [(source.name, source.use, source.resolution) for source in card.sources] == [
        ("auxiliary1", "nearest", (20.0, 20.0))
    ]
    model = (f"patches={tmp_path}/patches", f"model={tmp_path}/none")
    for more, fragment in (
        (("sources=auxiliary2",), "got 'auxiliary2'"),
        (("sources=reference,series",), "needs a network that knows dates"),
        (("architecture=fusion", "resampling=nearest"), "Leave it out"),
        (("architecture=fusion", f"onnx={tmp_path}/model.onnx"), "takes one image"),
    ):
        assert fragment in grass.error(TOOL, *model, *more, **ONE_THREAD)


def test_a_map_s_group_its_auxiliary_group_and_a_series_become_one_model(grass: Grass, tmp_path: Path) -> None:
    """From rasters of three grids to a model: only the series, of 20 m on a shifted grid, knows the classes."""
    grass.ok("g.region", "n=490", "s=-70", "e=550", "w=-10", "res=80")
    grass.ok("r.mapcalc", "expression=classes = rand(1, 3)", "seed=3")
    grass.ok("g.region", "n=480", "s=0", "e=480", "w=0", "res=10")
    grass.ok("r.mapcalc", "expression=grey = rand(0, 100)", "seed=1")
    grass.ok("i.group", "group=image", "input=grey")
    grass.ok("g.region", "n=490", "s=-10", "e=490", "w=-10", "res=20")
    grass.ok("r.mapcalc", "expression=height = rand(0.0, 9.0)", "seed=2")
    grass.ok("i.group", "group=surface", "input=height")
    for day in range(3):
        cloud = f"x() > {150 * day} && x() < {150 * day + 60}"
        grass.ok("r.mapcalc", f"expression=day{day} = if({cloud}, null(), 100 * (classes == {1 + day % 2}))")
        grass.ok("r.support", f"map=day{day}", "semantic_label=NDVI")
        grass.ok("i.group", f"group=day{day}", f"input=day{day}")
    grass.ok("g.region", "n=480", "s=0", "e=480", "w=0", "res=10")
    grass.ok(
        *("v.sample.patches", "group=image", "auxiliary=surface", "series=day0,day1,day2", "raster=classes"),
        *("dates=2024-03-01,2024-06-01,2024-09-01", "size=8", "stride=4", "output=footprints"),
        *(f"patches={tmp_path}/patches", "split=block", "block_size=120", "buffer=0"),
    )
    arguments = ("architecture=fusion", "epochs=12", "learning_rate=0.003", "batch_size=12", "augment=flip", "nprocs=1")
    scores = train(grass, tmp_path / "patches", tmp_path / "model", *arguments)
    assert scores["parts"]["test"]["f1_macro"] > 0.85
    card = read_card(tmp_path / "model")
    assert [source.name for source in card.branches] == ["auxiliary1", "series"]
    assert card.sources[1].dates == ("2024-03-01", "2024-06-01", "2024-09-01") and card.largest == (8, 8)


def test_an_encoder_learns_without_labels_alone_or_before_training(grass: Grass, tmp_path: Path) -> None:
    make_textures(tmp_path / "places", 64, seed=1, labelled=False)
    make_textures(tmp_path / "patches", 24, 12, seed=2)
    pretraining = ("pretrain=simclr", f"unlabelled={tmp_path}/places", "pretrain_epochs=1", "nprocs=1")
    network = ("architecture=cnn", "filters=8", "blocks=2")
    encoder = f"model={tmp_path}/encoder"
    alone = grass.json(TOOL, encoder, *pretraining, *network, **ONE_THREAD)
    assert set(alone) == {"pretraining"} and alone["pretraining"]["epochs"] == 1
    both = train(grass, tmp_path / "patches", tmp_path / "both", *pretraining, *network, "epochs=1")
    assert both["pretraining"]["epochs"] == 1
    assert {"pretrained", "random"} <= set(both["pretraining"]["linear_probe"])
    later = train(grass, tmp_path / "patches", tmp_path / "later", f"weights={tmp_path}/encoder", "epochs=1")
    assert "pretraining" not in later and read_card(tmp_path / "later").network.architecture == "cnn"
    for options, fragment in (
        ((f"patches={tmp_path}/patches", "pretrain=simclr"), "no unlabelled="),
        ((f"unlabelled={tmp_path}/places",), "got pretrain=none"),
        ((*pretraining, "backend=keras"), "got pretrain for 'unet'"),
        ((*pretraining, "loss=focal"), "The option loss= is for training with labels"),
        ((*pretraining, "architecture=mlp"), "sees the surroundings"),
    ):
        assert fragment in grass.error(TOOL, f"model={tmp_path}/none", *options, **ONE_THREAD)
