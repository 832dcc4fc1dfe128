"""New maps and all that belongs to them appear together."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Grass
from rlearndeep.model import Network
from rlearndeep.scene.classes import ClassTable, MapClass
from test_gis import inside
from test_r_learn_deep_predict import (
    TOOL,
    arguments,
    card_of,
    make_model,
    make_scene,
    models,  # noqa: F401 - a fixture
    start,
    wait_for_rows,
)

KEEPER = ".rlearndeep"
PREPARED = """
import os, resource, signal, threading, time
from rlearndeep.gis.publishing import Description, NewMaps, uninterrupted, viridis
from rlearndeep.gis.session import run

os.environ["GRASS_OVERWRITE"] = "1"
NAMES = ["one", "two"]
about = {"labels": {number: f"class {number}" for number in range(600)}, "source": "a group", "note": "a model"}

def make(before=lambda: None, **more):
    with NewMaps(region) as maps:
        for name in NAMES:
            maps.open(name, "int32").write(np.full(region.shape, 7))
        before()
        with uninterrupted():
            maps.publish({name: Description(**{"title": name, **about, **more}) for name in NAMES})
"""


@pytest.fixture
def small(grass: Grass) -> Grass:
    """A mapset with a region of few cells and an older map."""
    grass.ok("g.region", "n=2", "s=0", "w=0", "e=3", "res=1")
    grass.ok("r.mapcalc", "two = 1")
    grass.ok("r.support", "map=two", "title=older")
    return grass


def known(grass: Grass) -> dict[str, str]:
    """What the mapset holds of its rasters."""
    return {name: grass.ok("r.info", "-g", "-e", f"map={name}") for name in grass.maps("raster")}


def test_maps_come_with_labels_colours_history_and_units(small: Grass) -> None:
    colors = {number: (number % 256, 0, 1) for number in range(600)}
    inside(small, PREPARED + f"make(colors={colors}, units='metres')\nanswer = 0")
    assert small.ok("r.category", "map=one", "separator=:").splitlines() == ["7:class 7"]
    assert "255 0:0:1\n" not in small.ok("r.colors.out", "map=two") and (small.mapset / "colr" / "two").is_file()
    text = small.ok("r.info", "map=two")
    assert "metres" in text and "a model" in text and "older" not in text and KEEPER not in text
    assert "PERMANENT" in text


def test_labels_that_do_not_fit_on_the_disk_publish_nothing(small: Grass) -> None:
    before = known(small)
    told = inside(
        small,
        PREPARED
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    make(limit)
    answer = "published"
except DeepLearningError as error:
    answer = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
""",
    )
    assert "<one>" in told and "no map was published" in told and "disk space" in told
    assert known(small) == before
    assert [file.name for file in (small.mapset / KEEPER).iterdir()] == ["lock"]


def test_cells_that_grass_cannot_move_publish_nothing(small: Grass) -> None:
    before = known(small)
    status = inside(
        small,
        PREPARED
        + f"""
from pathlib import Path

def blocked():
    (stage,) = Path({str(small.mapset / KEEPER)!r}).glob("new_*")
    (stage / "cell" / "one" / "in the way").mkdir(parents=True)

child = os.fork()
if child == 0:
    make(blocked)
    os._exit(0)
answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
""",
    )
    assert status == 1
    assert known(small) == before
    assert [file.name for file in (small.mapset / KEEPER).iterdir()] == ["lock"]


def test_texts_of_any_kind_become_lines(small: Grass) -> None:
    labels = {1: "ä" * 1500, 2: " ", 3: "two\nlines", 4: "50%s"}
    texts = {"title": "of\n" + 400 * "model, ", "units": "metres\na day", "source": "a\ngroup", "labels": labels}
    inside(small, PREPARED + f"make(**{texts!r})\nanswer = 0")
    listed = small.ok("r.category", "map=one", "cats=1-4", "separator=pipe")
    assert listed.splitlines() == [f"1|{'ä' * 500}", "2|", "3|two lines", "4|50%s"]
    known = small.ok("r.info", "-e", "map=one")
    assert 'title="of model, model,' in known and "units=metres a day\n" in known and 'source1="a group"' in known


def test_a_map_that_a_killed_process_left_to_be_put_in_place_is_not_replaced_unasked(small: Grass) -> None:
    told = inside(
        small,
        PREPARED
        + """
from pathlib import Path

def killed(source, target, rename=Path.rename):
    return os._exit(9) if target.parent.name == "cellhd" else rename(source, target)

os.environ["GRASS_OVERWRITE"] = "0"
NAMES = ["one"]
child = os.fork()
if child == 0:
    Path.rename = killed
    make(note="the first")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
try:
    make(note="the second")
    answer = "published"
except DeepLearningError as error:
    answer = str(error)
""",
    )
    assert "<one> is not replaced unasked; it exists" in told
    assert "the first" in small.ok("r.info", "map=one")


def test_a_map_in_a_file_of_gdal_outlives_a_run_that_fails(small: Grass) -> None:
    (small.mapset / "tif").mkdir()
    small.ok("r.external.out", f"directory={small.mapset / 'tif'}", "extension=.tif", "format=GTiff")
    small.ok("r.mapcalc", "one = 5")
    told = inside(
        small,
        PREPARED
        + """
try:
    make(lambda: 1 / 0)
    answer = "published"
except (DeepLearningError, ZeroDivisionError) as error:
    answer = str(error)
""",
    )
    assert "<one> are in a file that GDAL would overwrite" in told
    assert "mean=5\n" in small.ok("r.univar", "-g", "map=one")
    inside(small, PREPARED + "NAMES = ['three']\nmake()\nanswer = 0")
    assert "mean=7\n" in small.ok("r.univar", "-g", "map=three")


@pytest.mark.parametrize("same", [0.0, 5.0, 1e-30, -3e38])
def test_a_map_with_one_value_has_colours(small: Grass, same: float) -> None:
    inside(small, PREPARED + f"make(ramp=viridis({same}, {same}))\nanswer = 0")
    assert "older" not in small.ok("r.info", "map=two") and (small.mapset / "colr" / "two").is_file()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_waits_until_the_block_is_left_whatever_thread_takes_it(small: Grass, number: str) -> None:
    order = inside(
        small,
        PREPARED
        + f"""
from rlearndeep.gis.session import _interrupt
answer = []
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, _interrupt)
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.{number})
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        answer.append("whole")
except KeyboardInterrupt:
    answer.append("interrupted")
""",
    )
    assert order == ["whole", "interrupted"]


CLASSES = 60


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many classes, so that publishing takes a while."""
    classes = ClassTable(tuple(MapClass(number, f"c{number}") for number in range(1, CLASSES + 1)))
    network = Network("mlp", 2, CLASSES, {"hidden": [], "dropout": 0.0})
    return make_model(tmp_path_factory.mktemp("many") / "many", card_of(network, classes=classes))


def publishing(grass: Grass, model: Path, *more: str) -> subprocess.Popen:
    """A prediction that is closing its maps."""
    process = start(grass, "group=scene", f"model={model}", "output=map", "probabilities=p", "precision=32", *more)
    while not list((grass.mapset / KEEPER).glob("new_*/cellhd/*")):
        assert process.poll() is None, process.communicate()
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_maps_are_published_finds_all_of_them_written(grass: Grass, many: Path, number) -> None:
    make_scene(grass)
    table = grass.mapset.parent / "table.csv"
    grass.ok("r.mapcalc", "ids = 1 + int(col() / 10)")
    process = publishing(grass, many, "nprocs=2", "segments=ids", f"segments_table={table}")
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "all outputs were written" in error and "Traceback" not in error, error
    assert len(set(grass.maps("raster")) - {"red", "nir", "ids"}) == CLASSES + 1
    assert len(list((grass.mapset / "colr").iterdir())) >= CLASSES + 1
    assert table.is_file()
    assert [file.name for file in (grass.mapset / KEEPER).iterdir()] == ["lock"]


def test_a_kill_while_maps_are_closed_leaves_none_and_the_prediction_goes_on(grass: Grass, many: Path) -> None:
    make_scene(grass)
    before = grass.maps("raster")
    process = publishing(grass, many)
    process.kill()
    process.communicate()
    assert grass.maps("raster") == before
    options = ["group=scene", f"model={many}", "output=map", "probabilities=p", "precision=32"]
    grass.ok(TOOL, *options, "-r")
    assert len(grass.maps("raster")) == len(before) + CLASSES + 1
    assert [file.name for file in (grass.mapset / KEEPER).iterdir()] == ["lock"]


def test_a_kill_while_maps_take_their_places_loses_none(grass: Grass, many: Path) -> None:
    make_scene(grass)
    options = ["group=scene", f"model={many}", "output=map", "probabilities=p", "precision=32", "--overwrite"]
    grass.ok("r.mapcalc", "p_60 = 7")
    process = publishing(grass, many, "--overwrite")
    while not (grass.mapset / "cellhd" / "p_1").exists():
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    grass.ok(TOOL, *options, "-r")
    assert len(set(grass.maps("raster")) - {"red", "nir"}) == CLASSES + 1
    assert "Probability of class c60" in grass.ok("r.info", "-e", "map=p_60")
    assert [file.name for file in (grass.mapset / KEEPER).iterdir()] == ["lock"]


def test_a_prediction_with_novelty_goes_on_with_the_same_training_features_only(grass: Grass, models: Path) -> None:  # noqa: F811
    from rlearndeep.model import write_feature_space
    from rlearndeep.scene.novelty import FeatureSpace

    make_scene(grass)
    grass.ok("g.region", "n=3000", "e=70", "res=1")
    vectors = np.random.default_rng(0).normal(size=(20, 48)).astype(np.float32)
    write_feature_space(models / "slow", FeatureSpace(np.ones(48, np.float32), vectors, 1.0, 1.0))
    options = [*arguments(models, "slow"), "novelty=novelty", "nprocs=1"]
    process = start(grass, *options)
    wait_for_rows(grass, process, "map")
    process.kill()
    process.communicate()
    write_feature_space(models / "slow", FeatureSpace(np.ones(48, np.float32), vectors, 1.0, 100.0))
    assert "changed since: model." in grass.error(TOOL, *options, "-r")


def test_a_map_that_another_prediction_made_meanwhile_is_not_replaced_unasked(grass: Grass, models: Path) -> None:  # noqa: F811
    make_scene(grass)
    grass.ok("g.region", "n=3000", "e=70", "res=1")
    slow = [*arguments(models, "slow", "first"), "confidence=sure", "nprocs=1"]
    process = start(grass, *slow)
    wait_for_rows(grass, process, "first")
    process.send_signal(signal.SIGSTOP)
    grass.ok(TOOL, *arguments(models, "known", "second"), "confidence=sure")
    second = grass.ok("r.info", "-e", "map=sure")
    process.send_signal(signal.SIGCONT)
    error = " ".join(process.communicate(timeout=120)[1].split())
    assert process.returncode == 1 and "<sure> is not replaced unasked" in error
    assert "first" not in grass.maps("raster") and grass.ok("r.info", "-e", "map=sure") == second
    grass.ok(TOOL, *slow, "-r", "--overwrite")
    assert grass.ok("r.info", "-e", "map=sure") != second


def test_a_worker_gets_the_name_of_the_mask(small: Grass) -> None:
    small.env["GRASS_MASK"] = "other"
    passed = inside(
        small,
        """
        import os
        from rlearndeep.gis.session import join_session, session_of
        session = session_of()
        del os.environ["GRASS_MASK"]
        join_session(session)
        answer = [os.environ["GRASS_MASK"], "GRASS_MASK" in open(os.environ["GISRC"]).read()]
        """,
    )
    assert passed == ["other", False]
