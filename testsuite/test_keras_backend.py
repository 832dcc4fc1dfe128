"""The Keras back-end as GRASS runs it: training, prediction, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from conftest import Grass
from rlearndeep.model import read_card
from synthetic_patches import make_patches

TOOL = "r.learn.deep.train"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def scene(grass: Grass) -> None:
    """Three strips of classes 10, 20, 30 in bands like those of the patches; the last column is null in one band."""
    grass.ok("g.region", "n=12", "s=0", "e=30", "w=0", "res=1")
    grass.ok("r.mapcalc", "truth = 10 * (1 + (col() - 1) / 10)")
    for number in range(4):
        grass.ok(
            "r.mapcalc",
            f"b{number} = if(col() == 30 && {number} == 2, null(), 2000 + 300 * (truth == {10 * number + 10}))",
        )
    grass.ok("i.group", "group=bands", "input=b0,b1,b2,b3")


def test_a_model_of_keras_is_trained_and_predicts_a_map(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=600)
    arguments = (f"patches={tmp_path}/patches", f"model={tmp_path}/model", "backend=keras", "epochs=15")
    trained = grass.run(TOOL, *arguments, "learning_rate=0.01", **ONE_THREAD)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("Scores of the test part") and "WARNING" not in trained.stderr
    assert "oneDNN" not in trained.stderr and "INFO" not in trained.stderr  # the engine is silent
    card = read_card(tmp_path / "model")
    assert (card.backend, card.weights, card.reach) == ("keras", "model.keras", 0)
    scene(grass)
    arguments = ("group=bands", f"model={tmp_path}/model", "output=map", "confidence=sure", "novelty=far")
    report = grass.json("r.learn.deep.predict", *arguments, "precision=32", **ONE_THREAD)
    assert report["device"] == "cpu (keras on tensorflow)" and report["null_cells"] == 12
    assert grass.ok("r.stats", "-cn", "input=truth,map").split("\n")[:-1] == ["10 10 120", "20 20 120", "30 30 108"]
    assert "30|class 30" in grass.ok("r.category", "map=map", "separator=pipe")


def test_what_keras_cannot_serve_is_refused_before_training(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=60)
    common = (f"patches={tmp_path}/patches", f"model={tmp_path}/model", "backend=keras")
    error = grass.error(TOOL, *common, f"onnx={tmp_path}/model.onnx", **ONE_THREAD)
    assert "onnx=" in error and "backend=torch" in error
    assert not (tmp_path / "model").exists()


def test_a_missing_engine_is_named_with_the_command_that_installs_it(grass: Grass, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches", size=1, count=60)
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text(
        "raise ModuleNotFoundError('no tensorflow here', name='tensorflow')\n"
    )
    error = grass.error(
        TOOL,
        f"patches={tmp_path}/patches",
        f"model={tmp_path}/model",
        "backend=keras",
        PYTHONPATH=f"{tmp_path}/path:{grass.env['PYTHONPATH']}",
    )
    assert "-m pip install tensorflow" in error and "no tensorflow here" in error
