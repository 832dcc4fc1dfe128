"""The patch directory: whole or absent, never half; damage and other versions are refused in one line."""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import (
    INDEX_DTYPE,
    Manifest,
    PatchDataset,
    PatchWriter,
    Source,
    batches,
    common_classes,
    remove_abandoned,
)
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region

CLASSES = ClassTable((MapClass(1, "forest", (0, 100, 0)), MapClass(7, "water")))


def manifest(unit: str = "cell", classes: ClassTable = CLASSES) -> Manifest:
    """A manifest of patches of 2x3 cells and two bands."""
    statistics = (BandStatistics(4, 1.0, 0.5, 0.0, 2.0), BandStatistics.of(np.empty(0)))
    source = Source("reference", (Band("red", "S2_4"), Band("nir")), (2, 3), (10.0, 5.0), "uint16", statistics)
    region = Region(100.0, 0.0, 50.0, 0.0, 10, 10)
    return Manifest(
        unit, "cells", (source,), classes, region, {"name": "XY"}, (1.0, 2.0, 3.0, 4.0), {"patches": 5}, "cmd"
    )


def write(path: Path, count: int = 5, unit: str = "cell", overwrite: bool = False, first: int = 0) -> None:
    """A directory whose patch i is full of the number ``first + i``."""
    with PatchWriter(path, manifest(unit), count, overwrite) as writer:
        for number in range(count):
            writer.index[number]["id"] = number + 1
            writer.images["reference"][number] = first + number
            writer.valid["reference"][number] = True
            writer.labels[number] = number % 2
        writer.commit(manifest(unit))


@pytest.mark.parametrize("unit", ["cell", "patch"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_written_is_read(tmp_path, unit, count):
    write(tmp_path / "p", count, unit)
    dataset = PatchDataset.open(tmp_path / "p")
    assert len(dataset) == count
    assert dataset.manifest == manifest(unit)
    assert dataset.images().dtype == np.uint16
    assert dataset.images()[:, 0, 0, 0].tolist() == list(range(count))
    assert dataset.labels.shape == ((count, 2, 3) if unit == "cell" else (count,))
    assert sorted(os.listdir(tmp_path)) == ["p"]


def test_nothing_stands_under_the_name_before_the_commit(tmp_path):
    with PatchWriter(tmp_path / "p", manifest(), 3) as writer:
        writer.images["reference"][:] = 1
        assert not (tmp_path / "p").exists()
        writer.finish(manifest())
        assert not (tmp_path / "p").exists()
    assert os.listdir(tmp_path) == []


def test_released_memory_keeps_what_was_written(tmp_path):
    with PatchWriter(tmp_path / "p", manifest(), 3000) as writer:
        writer.images["reference"][:] = np.arange(3000)[:, None, None, None]
        writer.release()
        writer.labels[:] = 1
        writer.release()
        assert writer.images["reference"][2999, 1, 1, 2] == 2999
        writer.commit(manifest())
    dataset = PatchDataset.open(tmp_path / "p")
    assert dataset.images()[:, 0, 0, 0].tolist() == list(range(3000))
    assert (dataset.labels == 1).all()


def test_an_exception_leaves_the_old_directory_as_it_was(tmp_path):
    write(tmp_path / "p", first=100)
    with pytest.raises(RuntimeError), PatchWriter(tmp_path / "p", manifest(), 3, overwrite=True):
        raise RuntimeError
    assert PatchDataset.open(tmp_path / "p").images()[0, 0, 0, 0] == 100
    assert os.listdir(tmp_path) == ["p"]


def test_overwrite_has_to_be_asked_for(tmp_path):
    write(tmp_path / "p", first=100)
    with pytest.raises(DeepLearningError, match="--overwrite"):
        write(tmp_path / "p")
    write(tmp_path / "p", 2, first=7, overwrite=True)
    dataset = PatchDataset.open(tmp_path / "p")
    assert (len(dataset), dataset.images()[0, 0, 0, 0]) == (2, 7)
    assert os.listdir(tmp_path) == ["p"]


def test_other_peoples_directories_and_files_are_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("text")
    (tmp_path / "hidden" / ".git").mkdir(parents=True)
    for name in ("home", "file", "hidden"):
        with pytest.raises(DeepLearningError, match="holds other files"):
            write(tmp_path / name, overwrite=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    assert (tmp_path / "file").read_text() == "text"


def test_what_stands_beside_the_patches_in_their_directory_is_not_lost(tmp_path):
    write(tmp_path / "p")
    (tmp_path / "p" / ".DS_Store").write_text("")
    write(tmp_path / "p", overwrite=True)
    (tmp_path / "p" / "model").mkdir()
    with pytest.raises(DeepLearningError, match=r"holds other files \(model\)"):
        write(tmp_path / "p", overwrite=True)
    assert (tmp_path / "p" / "model").is_dir()


def test_a_link_to_a_patch_directory_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "p").symlink_to(tmp_path / "disk" / "patches")
    write(tmp_path / "p", 3)
    write(tmp_path / "p", 2, first=7, overwrite=True)
    assert (tmp_path / "p").is_symlink() and len(PatchDataset.open(tmp_path / "disk" / "patches")) == 2
    assert (sorted(os.listdir(tmp_path)), os.listdir(tmp_path / "disk")) == (["disk", "p"], ["patches"])


def test_a_killed_writer_leaves_no_dataset(tmp_path):
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(sys.modules["rlearndeep"].__path__[0]).parent)]!r}
from test_patches import manifest
from rlearndeep.patches import PatchWriter
writer = PatchWriter({str(tmp_path / "p")!r}, manifest(), 1000)
writer.images["reference"][:500] = 1
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with pytest.raises(DeepLearningError, match=r"dataset\.json"):
        PatchDataset.open(tmp_path / "p")
    write(tmp_path / "p")
    assert len(PatchDataset.open(tmp_path / "p")) == 5
    assert os.listdir(tmp_path) == ["p"]


def test_what_killed_writers_left_is_removed_by_the_next_one(tmp_path):
    write(tmp_path / "p")
    node, dead = platform.node(), 2**22 + 1
    left = [f".p.{node}.{dead}.part", f".p.{node}.{dead}.old", f".p.{node}.{os.getpid()}.part"]
    stay = [f".p.{node}.1.part", f".p.elsewhere.{dead}.part", f".q.{node}.{dead}.part", f".p.{node}.{dead}.parts"]
    for name in (*left, *stay):
        (tmp_path / name).mkdir()
    write(tmp_path / "p", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted([*stay, "p"])


def test_what_was_replaced_when_the_power_went_is_kept_until_a_new_one_stands(tmp_path):
    old = tmp_path / f".p.{platform.node()}.{2**22 + 1}.old"
    old.mkdir()
    remove_abandoned(tmp_path / "p")
    assert old.exists()
    write(tmp_path / "p")
    remove_abandoned(tmp_path / "p")
    assert not old.exists()


def test_space_is_taken_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    write(tmp_path / "p", 700)
    dataset = PatchDataset.open(tmp_path / "p")
    assert dataset.images()[-1, 0, 0, 0] == 699
    file = tmp_path / "p" / "reference.npy"
    assert file.stat().st_blocks * 512 >= 700 * 12 * 2


def test_a_series_has_an_axis_of_dates(tmp_path):
    region = Region(100.0, 0.0, 50.0, 0.0, 10, 10)
    series = Source(
        "series", (Band("ndvi"),), (3, 3), (20.0, 20.0), "float32", dates=("2020-01-01", "2020-06-01"), region=region
    )
    whole = replace(manifest(), sources=(*manifest().sources, series))
    with PatchWriter(tmp_path / "p", whole, 4) as writer:
        assert writer.images["series"].shape == (4, 2, 1, 3, 3)
        assert writer.valid["series"].shape == (4, 2, 3, 3)
        writer.images["series"][:] = np.arange(4)[:, None, None, None, None]
        writer.index["id"] = np.arange(4)
        writer.remove(np.array([1]))
        writer.commit(whole)
    dataset = PatchDataset.open(tmp_path / "p")
    assert dataset.manifest == whole
    assert dataset.images("series")[:, 1, 0, 2, 2].tolist() == dataset.index["id"].tolist()


def test_a_manifest_of_before_there_were_series_is_read(tmp_path):
    write(tmp_path / "p")
    edit(tmp_path / "p", lambda values: [values["sources"][0].pop(key) for key in ("dates", "region")])
    assert PatchDataset.open(tmp_path / "p").manifest == manifest()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 80), st.data())
def test_removed_patches_are_gone_and_all_others_stay(tmp_path, count, data):
    gone = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))), dtype=np.int64)
    with PatchWriter(tmp_path / "p", manifest(), count, overwrite=True) as writer:
        writer.images["reference"][:] = np.arange(count)[:, None, None, None]
        writer.index["id"] = np.arange(count)
        order = writer.remove(gone)
        writer.labels[:] = 1
        writer.commit(manifest())
    dataset = PatchDataset.open(tmp_path / "p")
    assert sorted(order.tolist()) == sorted(set(range(count)) - set(gone.tolist()))
    assert dataset.index["id"].tolist() == order.tolist()
    assert dataset.images()[:, 1, 1, 2].tolist() == order.tolist()
    assert (dataset.labels == 1).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "labels.npy").unlink(),
        lambda path: (path / "reference.npy").write_bytes(b"\x93NUMPY"),
        lambda path: os.truncate(path / "reference.npy", 200),
        lambda path: np.save(path / "labels.npy", np.zeros(3)),
        lambda path: np.save(path / "index.npy", np.zeros(5)),
        lambda path: np.save(path / "reference_valid.npy", np.zeros((5, 1, 1), dtype=bool)),
        lambda path: (path / "dataset.json").write_text("{"),
        lambda path: (path / "dataset.json").write_text("[]"),
        lambda path: edit(path, lambda values: values.pop("sources")),
        lambda path: edit(path, lambda values: values["region"].pop("rows")),
        lambda path: edit(path, lambda values: values["sources"][0].update(bands=["red"])),
        lambda path: retype(path / "labels.npy", np.int64),
        lambda path: retype(path / "reference.npy", np.complex64),
        lambda path: retype(path / "reference_valid.npy", np.uint8),
        lambda path: edit(path, lambda values: values["sources"][0]["statistics"].append(STATISTICS)),
        lambda path: edit(path, lambda values: values["sources"][0].update(resolution=["a", "b"])),
        lambda path: edit(path, lambda values: values.update(extent=[1.0, 2.0])),
        lambda path: edit(path, lambda values: values.update(report=[])),
        lambda path: (path / "dataset.json").write_text("[" * 100000),
    ],
)
def test_damage_is_one_sentence_with_the_way_out(tmp_path, damage):
    write(tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(DeepLearningError, match=r"is damaged .*Sample the patches again") as caught:
        PatchDataset.open(tmp_path / "p")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["labels", "index", "reference", "reference_valid"])
def test_a_flipped_bit_in_a_header_is_one_sentence_or_changes_nothing(tmp_path, name):
    write(tmp_path / "p")
    file = tmp_path / "p" / f"{name}.npy"
    data = file.read_bytes()
    refused = 0
    for place, bit in itertools.product(range(128), (0, 1, 4, 6)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        file.write_bytes(bytes(damaged))
        try:
            PatchDataset.open(tmp_path / "p")
        except DeepLearningError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 128


STATISTICS = {"count": 1, "mean": 0.0, "std": 0.0, "minimum": 0.0, "maximum": 0.0}


def retype(file: Path, dtype: type) -> None:
    """Store an array in another type."""
    np.save(file, np.load(file).astype(dtype))


def edit(path: Path, change) -> None:
    """Change the manifest of a directory."""
    values = json.loads((path / "dataset.json").read_text())
    change(values)
    (path / "dataset.json").write_text(json.dumps(values))


@pytest.mark.parametrize("change", [{"version": 99}, {"format": "other"}])
def test_another_version_is_refused(tmp_path, change):
    write(tmp_path / "p")
    edit(tmp_path / "p", lambda values: values.update(change))
    with pytest.raises(DeepLearningError, match="This version reads rlearndeep-patches 1"):
        PatchDataset.open(tmp_path / "p")


def test_pickles_are_not_loaded(tmp_path):
    write(tmp_path / "p")
    np.save(tmp_path / "p" / "labels.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DeepLearningError, match="damaged"):
        PatchDataset.open(tmp_path / "p")


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path):
    with pytest.raises(DeepLearningError, match=r"The patches need .* MB; the disk"):
        PatchWriter(tmp_path / "p", manifest(), 10**14)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepLearningError, match="must be writable"):
        PatchWriter(tmp_path / "file" / "p", manifest(), 1)


@given(st.integers(0, 500), st.integers(1, 64))
def test_batches_cover_all_and_none_is_left_alone(count, size):
    cut = list(batches(np.arange(count), size))
    assert [value for batch in cut for value in batch.tolist()] == list(range(count))
    assert all(1 <= len(batch) <= size for batch in cut)
    assert size == 1 or count <= 1 or (count == 3 and size == 2) or min(map(len, cut)) > 1 or size == 2


@pytest.mark.parametrize("changed", (MapClass(8, "water"), MapClass(7, "grass"), MapClass(7, "")))
def test_sites_with_other_classes_are_refused(tmp_path, changed):
    write(tmp_path / "a")
    other = ClassTable((CLASSES[0], changed))
    with PatchWriter(tmp_path / "b", manifest(classes=other), 1) as writer:
        writer.commit(manifest(classes=other))
    datasets = [PatchDataset.open(tmp_path / name) for name in "ab"]
    assert common_classes(datasets[:1]) == CLASSES
    with pytest.raises(DeepLearningError, match="must have the same classes") as caught:
        common_classes(datasets)
    assert all(name in str(caught.value) for name in (*CLASSES.names, *other.names))


def test_sites_whose_classes_differ_in_colour_only_are_one(tmp_path):
    write(tmp_path / "a")
    other = ClassTable(tuple(MapClass(entry.category, entry.label, (1, 2, 3)) for entry in CLASSES))
    with PatchWriter(tmp_path / "b", manifest(classes=other), 1) as writer:
        writer.commit(manifest(classes=other))
    assert common_classes([PatchDataset.open(tmp_path / name) for name in "ab"]) == CLASSES


def test_read_labels_mark_what_has_none(tmp_path):
    with PatchWriter(tmp_path / "p", manifest("patch"), 2) as writer:
        writer.labels[:] = [1, 255]
        writer.commit(manifest("patch"))
    dataset = PatchDataset.open(tmp_path / "p")
    assert dataset.manifest.unlabelled == 255
    assert dataset.read_labels(np.array([1, 0])).tolist() == [-1, 1]


def test_the_index_is_what_it_says():
    assert INDEX_DTYPE.names == (
        *("id", "east", "north", "row", "col", "class", "part", "block", "acquisition", "area", "labelled"),
    )
