"""r.learn.deep.predict on workers that outlive it, and what it says when the cluster fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_gis import inside
from test_r_learn_deep_predict import (  # noqa: F401 - a fixture
    TOOL,
    _free_port,
    arguments,
    cells,
    make_long_scene,
    make_scene,
    models,
    start,
    wait_for_rows,
)

pytest.importorskip("distributed")


@contextmanager
def dask(grass, place: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a scheduler, and the processes of the scheduler and of its one worker."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    scheduler = ["dask_scheduler", "--no-dashboard", "--host", address]
    worker = ["dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", place]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:]],
            env={**grass.env, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for command in (scheduler, worker)
    ]
    try:
        yield address, running
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_a_worker_sees_maps_models_and_masks_that_changed_since_the_last_prediction(grass, models, tmp_path):  # noqa: F811
    make_scene(grass)
    model = tmp_path / "model"
    shutil.copytree(models / "known", model)
    given = ["group=scene", f"model={model}", "precision=32", "probabilities=p", "--overwrite"]
    seen = []
    with dask(grass, tmp_path) as (address, _):

        def compare() -> None:
            grass.ok(TOOL, *given, "output=here")
            here = cells(grass, "here")
            grass.ok(TOOL, *given, "output=there", f"scheduler={address}")
            np.testing.assert_array_equal(cells(grass, "there"), here)
            assert all(not np.array_equal(here, other, equal_nan=True) for other in seen)
            seen.append(here)

        compare()
        grass.ok("r.mapcalc", "red = int(row() * 2)", "--overwrite")
        compare()
        shutil.rmtree(model)
        shutil.copytree(models / "mirrored", model)
        compare()
        for rows in ("row() < 5", "row() > 9"):
            grass.ok("r.mapcalc", f"seen = if({rows}, 1, null())", "--overwrite")
            grass.ok("r.mask", "raster=seen", "--overwrite")
            compare()


def test_a_worker_serves_one_project_after_another(grass, new_project, models, tmp_path):  # noqa: F811
    globe = new_project("EPSG:4326")
    for project in (grass, globe):
        make_scene(project)
    with dask(grass, tmp_path) as (address, _):
        for project in (grass, globe, grass):
            given = [*arguments(models), "--overwrite"]
            project.ok(TOOL, *given, f"scheduler={address}")
            project.ok(TOOL, *arguments(models, output="here"), "--overwrite")
            np.testing.assert_array_equal(cells(project, "map"), cells(project, "here"))


def test_a_worker_closes_the_maps_of_a_model_that_it_cannot_load(grass, models, tmp_path):  # noqa: F811
    make_scene(grass)
    shutil.copytree(models / "known", tmp_path / "broken")
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"")
    tool = next((ROOT / TOOL).glob("*.py"))
    left_open = inside(
        grass,
        f"""
        import sys
        from importlib.util import module_from_spec, spec_from_file_location
        from rlearndeep.gis import rasters
        from rlearndeep.gis.session import session_of
        place = spec_from_file_location("tool", {str(tool)!r})
        tool = sys.modules["tool"] = module_from_spec(place)
        place.loader.exec_module(tool)
        given = dict.fromkeys(tool.Settings.__annotations__, "")
        options = given | dict(group="scene", model={str(tmp_path / "broken")!r}, output="map", probabilities="",
            batch_size="auto", memory="1000", nprocs="0", blend="linear", augment="none", precision="32", device="cpu",
            **dict.fromkeys(("margin", "confidence", "entropy", "spread", "novelty", "segments_output"), ""))
        request = dict(options=options, flags=dict(r=False), region=region.to_json(), precision="32",
            session=session_of(), run="")
        try:
            tool.remote("", request, None)
        except DeepLearningError as error:
            answer = [len(rasters._open_stacks), "weights" in str(error)]
        """,
    )
    assert left_open == [0, True]


def test_rows_outlive_a_scheduler_that_dies(grass, models, tmp_path):  # noqa: F811
    make_long_scene(grass)
    given = [*arguments(models, "slow"), "nprocs=1"]
    with dask(grass, tmp_path) as (address, running):
        process = start(grass, *given, f"scheduler={address}")
        wait_for_rows(grass, process, "map")
        running[0].kill()
        error = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert "the connection to it was lost" in " ".join(error.split())
    assert "Traceback" not in error
    assert "distributed" not in error
    assert "map" not in grass.maps("raster")
    grass.ok(TOOL, *given, "-r", OMP_NUM_THREADS="1")
    grass.ok(TOOL, *arguments(models, "slow", "whole"), "nprocs=1", OMP_NUM_THREADS="1")
    np.testing.assert_array_equal(cells(grass, "map"), cells(grass, "whole"))


def test_an_address_of_another_protocol_ends_the_tool_at_once(grass, models):  # noqa: F811
    make_scene(grass)
    started = time.monotonic()
    error = grass.error(TOOL, *arguments(models), "scheduler=tls://127.0.0.1:1")
    assert "must be that of a Dask scheduler" in " ".join(error.split())
    assert "Traceback" not in error
    assert time.monotonic() - started < 50
