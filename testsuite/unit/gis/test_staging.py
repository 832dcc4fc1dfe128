"""New maps take their places together, and nothing of older ones is lost: after any error and after any kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.staging import KEEPER, Stage

NEW = ("cellhd", "cell", "colr", "cats", "hist", "cell_misc")
NAMES = ("one", "two", "three")


def make_map(directory: Path, name: str, text: str, elements: tuple[str, ...] = NEW) -> None:
    for element in elements:
        file = directory / element / name
        if element == "cell_misc":
            file /= "range"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def files(directory: Path) -> dict[str, str]:
    """Text of each file of the maps of a mapset."""
    found = (file for file in directory.rglob("*") if file.is_file() and KEEPER not in file.parts)
    return {str(file.relative_to(directory)): file.read_text() for file in found}


def hidden(mapset: Path) -> list[str]:
    return sorted(file.name for file in (mapset / KEEPER).iterdir())


@pytest.fixture
def mapset(tmp_path: Path) -> Path:
    """An older floating point raster ``two`` with a reclass, and a map of somebody else."""
    make_map(tmp_path, "two", "old", ("cellhd", "cell", "fcell", "colr", "cell_misc"))
    (tmp_path / "cell_misc" / "two" / "reclassed_to").write_text("child@here\n")
    make_map(tmp_path, "other", "untouched")
    return tmp_path


def staged(mapset: Path) -> Stage:
    stage = Stage(mapset)
    for name in NAMES:
        make_map(stage.directory, name, "new")
    return stage


def complete(mapset: Path) -> dict[str, str]:
    """The files of a mapset with the new maps."""
    place = mapset / "complete"
    make_map(place, "other", "untouched")
    for name in NAMES:
        make_map(place, name, "new")
    (place / "cell_misc" / "two" / "reclassed_to").write_text("child@here\n")
    expected = files(place)
    for file in sorted(place.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    place.rmdir()
    return expected


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, stop) -> None:
    """Call ``stop`` in place of the renaming of that number, counted from 0."""
    rename, count = Path.rename, iter(range(1000))

    def renamed(source: Path, target: Path) -> Path:
        if "plan" not in source.name and next(count) == number:
            stop()
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", renamed)


def full_disk() -> None:
    raise OSError(28, "No space left on device")


RENAMINGS = 5 + 3 * len(NEW)


def test_new_maps_replace_older_ones_with_all_that_belongs_to_them(mapset: Path) -> None:
    expected = complete(mapset)
    stage = staged(mapset)
    stage.put_in_place(NAMES, overwrite=True)
    stage.close()
    assert files(mapset) == expected
    assert hidden(mapset) == ["lock"]


@pytest.mark.parametrize("number", range(RENAMINGS))
def test_an_error_in_the_middle_leaves_all_as_it_was(mapset: Path, monkeypatch, number: int) -> None:
    before = files(mapset)
    stage = staged(mapset)
    with monkeypatch.context() as patch:
        stop_at(patch, number, full_disk)
        with pytest.raises(DeepLearningError, match=r"No space left on device.*as they were"):
            stage.put_in_place(NAMES, overwrite=True)
    stage.close()
    assert files(mapset) == before
    assert hidden(mapset) == ["lock"]


@pytest.mark.parametrize("number", range(RENAMINGS))
def test_what_a_kill_left_in_the_middle_is_finished_by_the_next_process(mapset: Path, monkeypatch, number: int) -> None:
    expected = complete(mapset)
    child = os.fork()
    if child == 0:
        stop_at(monkeypatch, number, lambda: os._exit(9))
        staged(mapset).put_in_place(NAMES, overwrite=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    Stage(mapset).close()
    assert files(mapset) == expected
    assert hidden(mapset) == ["lock"]


def test_a_killed_process_that_had_not_begun_is_forgotten_and_a_running_one_is_not(mapset: Path) -> None:
    before = files(mapset)
    child = os.fork()
    if child == 0:
        staged(mapset)
        os._exit(9)
    os.waitpid(child, 0)
    assert len(hidden(mapset)) == 2
    running = staged(mapset)
    Stage(mapset).close()
    assert hidden(mapset) == ["lock", running.directory.name]
    assert files(mapset) == before
    running.close()


def test_a_map_that_somebody_made_after_a_kill_stays(mapset: Path, monkeypatch) -> None:
    child = os.fork()
    if child == 0:
        stop_at(monkeypatch, 2, lambda: os._exit(9))
        staged(mapset).put_in_place(NAMES, overwrite=True)
        os._exit(0)
    os.waitpid(child, 0)
    make_map(mapset, "three", "mine, and newer")
    Stage(mapset).close()
    known = files(mapset)
    assert (known["cell/one"], known["cell/two"], known["cell/three"]) == ("new", "new", "mine, and newer")


def test_a_map_that_appeared_meanwhile_is_not_replaced_unasked(mapset: Path) -> None:
    stage = staged(mapset)
    make_map(mapset, "three", "of another process")
    before = files(mapset)
    with pytest.raises(DeepLearningError, match=r"<three> is not replaced unasked.*with -r"):
        stage.put_in_place(("one", "three"), overwrite=False)
    assert files(mapset) == before
    stage.put_in_place(NAMES, overwrite=True)
    stage.close()
    assert files(mapset)["cell/three"] == "new"


def test_rasters_that_a_mapset_writes_through_gdal_are_written_where_they_were(mapset: Path) -> None:
    (mapset / "GDAL").write_text("directory: tif\nextension: .tif\n")
    stage = Stage(mapset)
    assert (stage.directory / "GDAL").read_text() == f"directory: {mapset / 'tif'}\nextension: .tif\n"
    stage.close()


def test_a_raster_that_gdal_would_overwrite_at_once_is_refused(mapset: Path) -> None:
    (mapset / "cell_misc" / "two" / "gdal").write_text("file: /data/two.tif\n")
    stage = Stage(mapset)
    stage.check("two")
    stage.close()
    (mapset / "GDAL").write_text("directory: tif\nextension: .tif\n")
    stage = Stage(mapset)
    stage.check("one")
    stage.check("other")
    with pytest.raises(DeepLearningError, match=r"<two> are in a file that GDAL would overwrite"):
        stage.check("two")
    stage.close()
