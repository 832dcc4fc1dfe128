"""The demo: its invented village is an honest small problem, and the suite solves it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).resolve().parent.parent / "demo"
sys.path.insert(0, str(DEMO))

import village  # noqa: E402
import workflow  # noqa: E402

SIZE = workflow.SMALL.size
LOWEST_F1 = 0.50  # of the small village, on ground without labels
LEAST_DROP = 0.3
GROUND = "All ground without label"
PICTURES = ("image", "labels", "map", "segments", "truth", "certainty", "overview")


@pytest.fixture(scope="module")
def survey() -> village.Village:
    """The small village."""
    return village.build(SIZE)


@pytest.fixture(scope="module")
def session(new_project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A GRASS session in this process' environment, for the demo's own functions; gives a directory to work in."""
    project = new_project("EPSG:32632")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in project.env.items():
            patch.setenv(key, value)
        patch.setenv("GRASS_OVERWRITE", "1")
        directory = tmp_path_factory.mktemp("demo")
        workflow.use_tools_of_checkout(directory / "bin")
        workflow.build_scene(SIZE)
        yield directory


@pytest.fixture(scope="module")
def solved(session: Path) -> dict[str, list[dict]]:
    """Scores of the demo's steps on the small village."""
    workflow.make_maps(session / "solved", workflow.SMALL)
    return workflow.score()


def f1(scores: dict[str, list[dict]]) -> list[float]:
    """Mean F1 of the map by cells, and by segments."""
    return [entry["f1_macro"] for entry in scores[GROUND]]


def test_same_seed_gives_the_same_survey(survey: village.Village) -> None:
    again = village.build(SIZE)
    for band in village.BANDS:
        assert np.array_equal(again.bands[band], survey.bands[band])
    assert np.array_equal(again.surface, survey.surface, equal_nan=True)
    assert np.array_equal(again.truth, survey.truth)
    assert np.array_equal(again.mapped, survey.mapped)


def test_other_seed_gives_another_village(survey: village.Village) -> None:
    assert (village.build(SIZE, seed=5).truth != survey.truth).mean() > 0.02


def test_default_village_is_the_one_described() -> None:
    truth = village.build().truth
    shares = [round(float((truth == category).mean()), 2) for category in village.CLASSES]
    assert shares == pytest.approx([0.05, 0.75, 0.05, 0.11, 0.03], abs=0.02)


def test_every_class_is_on_the_ground_and_among_the_labels(survey: village.Village) -> None:
    assert set(np.unique(survey.truth)) == set(village.CLASSES)
    assert set(np.unique(survey.mapped)) == {0, *village.CLASSES}


def test_labels_leave_most_of_the_ground_open(survey: village.Village) -> None:
    assert 0.15 < (survey.mapped > 0).mean() < 0.5
    assert not survey.mapped[:, int(0.65 * SIZE) :].any()


def test_imagery_and_surface_have_null_margins_and_two_resolutions(survey: village.Village) -> None:
    empty = survey.bands["red"] == 0
    assert 0.005 < empty.mean() < 0.1
    assert all(np.array_equal(values == 0, empty) for values in survey.bands.values())
    assert survey.surface.shape == (SIZE // 2, SIZE // 2)
    assert 0.001 < np.isnan(survey.surface).mean() < 0.1


def test_bands_use_sixteen_bits_and_carry_noise(survey: village.Village) -> None:
    red = survey.bands["red"].astype(float)
    assert red.max() > 255
    assert np.abs(np.diff(red[survey.truth == 5])).mean() > 10


def test_shadows_lie_away_from_the_sun() -> None:
    height = np.zeros((80, 80), dtype=np.float32)
    height[40:44, 40:44] = 4.0
    rows, cols = np.nonzero(village.shadows(height))
    assert rows.mean() < 40 and cols.mean() > 43  # the sun stands in the south-south-west
    assert not village.shadows(np.full((9, 9), 3.0, dtype=np.float32)).any()


def test_digitised_areas_agree_with_the_truth(session: Path) -> None:
    workflow.quietly("v.to.rast", "input=labels", "output=drawn", "use=attr", "attribute_column=value", "type=area")
    workflow.quietly("r.mapcalc", "expression=agrees = drawn == truth")
    univar = dict(line.split("=") for line in workflow.quietly("r.univar", "-g", "agrees").split())
    assert 0.97 < float(univar["mean"]) < 1.0
    pairs = set(workflow.quietly("v.db.select", "-c", "map=labels", "columns=value,class").split())
    assert pairs == {f"{category}|{label}" for category, (label, _) in village.CLASSES.items()}


def test_segments_are_many_and_follow_the_null_margin(session: Path) -> None:
    univar = dict(line.split("=") for line in workflow.quietly("r.univar", "-g", "segments").split())
    assert float(univar["max"]) > 100
    assert int(univar["null_cells"]) > 0


def test_the_suite_solves_the_small_village(solved: dict[str, list[dict]]) -> None:
    assert min(f1(solved)) > LOWEST_F1
    assert all(entry["overall_accuracy"] > 0.65 for entry in solved[GROUND])


def test_wrong_band_order_ruins_the_map(session: Path, solved: dict[str, list[dict]]) -> None:
    for band, wrong in zip(village.BANDS, ("nir", "red", "green", "blue"), strict=True):
        workflow.quietly("r.support", f"map={band}", f"semantic_label={wrong}")
    model = session / "solved" / "model"
    outputs = ("output=cover", "segments=segments", "segments_output=cover_segments")
    try:
        workflow.quietly("r.learn.deep.predict", "group=survey", f"model={model}", *outputs)
        spoiled = workflow.score()
    finally:
        for band in village.BANDS:
            workflow.quietly("r.support", f"map={band}", f"semantic_label={band}")
    assert max(f1(spoiled)) < min(f1(solved)) - LEAST_DROP


def test_shifted_labels_ruin_the_map(session: Path, solved: dict[str, list[dict]]) -> None:
    workflow.quietly("v.transform", "input=labels", "output=shifted", "xshift=14", "yshift=14")
    workflow.make_maps(session / "shifted", workflow.SMALL, labels="shifted")
    assert max(f1(workflow.score())) < min(f1(solved)) - LEAST_DROP


def test_run_needs_nothing_around_it_and_leaves_only_pictures(grass_env: dict[str, str], tmp_path: Path) -> None:
    scratch, output = tmp_path / "scratch", tmp_path / "output"
    scratch.mkdir()
    env = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    env |= {"TMPDIR": str(scratch), "GRASS_ADDON_BASE": grass_env["GRASS_ADDON_BASE"], "GISRC": "/nonexistent"}
    done = subprocess.run(
        [DEMO / "run", "--small", "--epochs=1", f"--output={output}"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert GROUND in done.stdout
    assert "$ v.sample.patches" in done.stdout
    for name in PICTURES:
        assert (output / f"{name}.png").stat().st_size > 2000
    assert not list(scratch.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "output"}


def test_run_without_grass_says_so(tmp_path: Path) -> None:
    for program in ("dirname", "sh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = subprocess.run([DEMO / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "GRASS is needed" in done.stderr


def test_workflow_outside_grass_says_what_to_start() -> None:
    env = {key: value for key, value in os.environ.items() if key != "GISRC"}
    command = [sys.executable, str(DEMO / "workflow.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "start demo/run instead" in done.stderr
