"""The tool v.sample.patches in GRASS: labels, georeference, footprints, bad input, real scenes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import scene
from rlearndeep.patches import PARTS, PatchDataset

TOOL = "v.sample.patches"

# Three areas in a region of 24 x 30 cells of 10 m: a square, one that overlaps it, and one far away.
AREAS = """B 5
 600000 200000
 600000 200120
 600120 200120
 600120 200000
 600000 200000
C 1 1
 600050 200050
 1 1
B 5
 600200 200100
 600200 200200
 600300 200200
 600300 200100
 600200 200100
C 1 1
 600250 200150
 1 2
"""

# Two squares of 120 m that share a square of 60 m.
OVERLAPPING = """B 5
 600000 200000
 600000 200120
 600120 200120
 600120 200000
 600000 200000
B 5
 600060 200060
 600060 200180
 600180 200180
 600180 200060
 600060 200060
C 1 1
 600030 200030
 1 1
C 1 1
 600150 200150
 1 2
C 1 2
 600090 200090
 1 1
 1 2
"""


@pytest.fixture(scope="module")
def prepared(new_project):
    """A project with two bands that hold their coordinates, label areas, and a label raster."""
    grass = new_project("EPSG:32119")
    grass.ok("g.region", "n=200240", "s=200000", "w=600000", "e=600300", "res=10")
    grass.ok("r.mapcalc", "east = int(x() - 600000)")
    grass.ok("r.mapcalc", "north = int(y() - 200000)")
    grass.ok("r.mapcalc", "classes = if(col() <= 15, 3, 8)")
    grass.ok("r.category", "map=classes", "separator=:", "rules=-", stdin="3:wood\n8:field\n")
    grass.ok("r.colors", "map=classes", "rules=-", stdin="3 0:100:0\n8 250:250:0\n")
    grass.ok("i.group", "group=g", "input=east,north")
    grass.ok("v.in.ascii", "-n", "input=-", "output=areas", "format=standard", stdin=AREAS)
    columns = "kind varchar(20), code integer, blank integer, share double precision"
    grass.ok("v.db.addtable", "map=areas", f"columns={columns}")
    values = "kind='wood', code=3, share=0.5 where cat=1", "kind='field', code=8, share=0.1 where cat=2"
    grass.ok("db.execute", "input=-", stdin="".join(f"update areas set {value};\n" for value in values))
    return grass


@pytest.fixture
def field(prepared, tmp_path):
    """A copy of the prepared project for one test."""
    project = tmp_path / "project"
    shutil.copytree(prepared.mapset.parent, project)
    rc = tmp_path / "gisrc"
    rc.write_text(f"GISDBASE: {tmp_path}\nLOCATION_NAME: project\nMAPSET: PERMANENT\nGUI: text\n")
    return type(prepared)(project / "PERMANENT", {**prepared.env, "GISRC": str(rc)})


def directory(grass, name: str = "p") -> str:
    """Path of a patch directory beside the project."""
    return str(grass.mapset.parent.parent / name)


def run(grass, *arguments: str, name: str = "p", output: str = "fp") -> dict:
    """JSON of the tool, whose directory and footprints are named."""
    return grass.json(TOOL, "group=g", f"output={output}", f"patches={directory(grass, name)}", *arguments)


def test_the_cells_of_every_patch_are_those_at_its_coordinates(field):
    answer = run(field, "raster=classes", "size=4,6", "stride=3,5", "split=none")
    dataset = PatchDataset.open(directory(field))
    assert answer["patches"] == len(dataset) == 7 * 5
    for entry, image, labels in zip(dataset.index, dataset.images(), dataset.labels, strict=True):
        east, north = entry["east"] - 600000, entry["north"] - 200000
        np.testing.assert_array_equal(image[0], np.tile(east + (np.arange(6) - 2.5) * 10, (4, 1)).astype(int))
        np.testing.assert_array_equal(image[1], np.tile((north - (np.arange(4)[:, None] - 1.5) * 10), 6).astype(int))
        np.testing.assert_array_equal(labels, (image[0] > 150).astype(int))
    assert [(entry.category, entry.label, entry.color) for entry in dataset.manifest.classes] == [
        (3, "wood", (0, 100, 0)),
        (8, "field", (250, 250, 0)),
    ]


def test_the_manifest_tells_where_and_how(field):
    run(field, "raster=classes", "size=1", "number=50", "split=random")
    manifest = PatchDataset.open(directory(field)).manifest
    assert manifest.command.startswith("v.sample.patches") and "raster=classes" in manifest.command
    assert manifest.projection["epsg"] == 32119
    west, south, east, north = manifest.extent
    assert -80 < west < east < -78 and 35 < south < north < 36.5
    assert [band.name for band in manifest.reference.bands] == ["east", "north"]
    assert manifest.report["seed"] == 1 and manifest.report["split"]["kind"] == "random"
    assert manifest.region.rows == 24


def test_footprints_are_areas_with_part_class_and_label(field):
    answer = run(field, "raster=classes", "size=4", "split=random")
    dataset = PatchDataset.open(directory(field))
    rows = field.ok("v.db.select", "-c", "map=fp", "separator=comma").splitlines()
    assert len(rows) == answer["patches"]
    for row, entry in zip(rows, dataset.index, strict=True):
        cat, part, category, label, _, _, labelled = row.split(",")
        assert int(cat) == entry["id"] and part == PARTS[entry["part"]] and int(labelled) == 16
        assert (int(category), label) == [(3, "wood"), (8, "field")][entry["class"]]
    info = field.ok("v.info", "-t", "map=fp")
    assert f"centroids={answer['patches']}" in info and f"areas={answer['patches']}" in info
    field.ok("v.to.rast", "input=fp", "output=where", "use=cat", "type=area")
    cells = {
        int(cat): int(count) for cat, count in (r.split() for r in field.ok("r.stats", "-cn", "where").splitlines())
    }
    assert cells == {int(number): 16 for number in dataset.index["id"]}
    assert "v.sample.patches" in field.ok("v.info", "-h", "map=fp")


def test_overlapping_footprints_share_areas_with_several_categories(field):
    answer = run(field, "raster=classes", "size=4", "stride=2", "split=none")
    categories = field.ok("v.category", "input=fp", "option=print", "type=centroid").split()
    covered = [part for entry in categories for part in entry.split("/")]
    assert len(covered) == 4 * answer["patches"]
    assert len(set(covered)) == answer["patches"]


def test_footprints_of_single_cells_are_points(field):
    answer = run(field, "raster=classes", "size=1", "number=40", "split=none")
    assert f"points={answer['patches']}" in field.ok("v.info", "-t", "map=fp")
    lines = field.ok("v.out.ascii", "input=fp", "columns=class", "separator=pipe").splitlines()
    for east, _, _, category in (line.split("|") for line in lines):
        assert int(category) == (3 if float(east) < 600150 else 8)


def test_areas_label_the_cells_whose_centres_they_hold(field):
    answer = run(field, "input=areas", "column=kind", "size=1", "split=column", "split_column=cat", "shares=50,0,50")
    dataset = PatchDataset.open(directory(field))
    assert dataset.manifest.classes.labels == ["field", "wood"]
    assert [sum(entry["count"].values()) for entry in answer["classes"]] == [100, 144]
    assert set(dataset.index["area"].tolist()) == {1, 2}
    inside = dataset.images()[:, :, 0, 0]
    in_first = (inside[:, 0] < 120) & (inside[:, 1] < 120)
    np.testing.assert_array_equal(dataset.index["area"] == 1, in_first)
    for area in (1, 2):
        assert len(set(dataset.index["part"][dataset.index["area"] == area].tolist())) == 1


def test_where_areas_overlap_a_cell_lies_inside_none(field):
    field.ok("v.in.ascii", "-n", "input=-", "output=raw", "format=standard", stdin=OVERLAPPING)
    field.ok("v.clean", "input=raw", "output=overlap", "tool=break,rmdupl", "type=boundary")
    field.ok("v.db.addtable", "map=overlap", "columns=code integer")
    field.ok("v.db.update", "map=overlap", "column=code", "query_column=cat")
    labels = ("input=overlap", "column=code", "size=6", "stride=1", "label=inside", "split=none")
    run(field, *labels)
    index = PatchDataset.open(directory(field)).index
    assert set(index["area"].tolist()) == {1, 2}
    for entry in index:
        east, north = entry["east"] - 600000, entry["north"] - 200000
        in_overlap = east + 30 > 60 and east - 30 < 120 and north + 30 > 60 and north - 30 < 120
        assert not in_overlap


def test_points_become_labelled_cells_and_centres(field):
    points = "600005|200235|1\n600145|200125|2\n600155|200125|1\n"
    field.ok(
        "v.in.ascii",
        "input=-",
        "output=points",
        "columns=x double precision, y double precision, code integer",
        stdin=points,
    )
    run(field, "input=points", "column=code", "size=1", "split=none")
    dataset = PatchDataset.open(directory(field))
    assert dataset.images()[:, :, 0, 0].tolist() == [[5, 235], [145, 125], [155, 125]]
    assert (dataset.labels[:, 0, 0] + 1).tolist() == [1, 2, 1]
    answer = run(
        field, "input=points", "column=code", "size=3", "label=center", "placement=points", "split=none", "--o"
    )
    assert (answer["patches"], answer["dropped"]["edge"]) == (2, 1)
    assert PatchDataset.open(directory(field)).images()[:, 0, 1, 1].tolist() == [145, 155]


def test_ignored_cells_and_background(field):
    field.ok("r.mapcalc", "cloud = if(row() <= 2, 9, null())")
    field.ok("r.mapcalc", "scene = if(row() <= 2, 9, if(row() == 3, 8, 1))")
    everything = 24 * 30
    cells = ("input=areas", "column=code", "size=1", "background=0", "split=none", "duplicates=keep")
    assert run(field, *cells)["patches"] == everything
    assert run(field, *cells, "ignore=cloud", "--o")["patches"] == everything - 60
    answer = run(field, *cells, "ignore=scene", "ignore_values=8,9", "--o")
    assert answer["patches"] == everything - 90
    assert [(entry["category"], entry["label"]) for entry in answer["classes"]] == [
        (0, "background"),
        (3, "3"),
        (8, "8"),
    ]
    assert PatchDataset.open(directory(field)).manifest.classes.labels[0] == "background"


def test_null_cells_and_the_mask_are_left_out(field):
    field.ok("r.mapcalc", "east = if(col() == 1, null(), east)", "--o")
    assert run(field, "raster=classes", "size=4", "split=none")["dropped"]["null"] == 6
    field.ok("r.mask", "raster=classes", "maskcats=3")
    assert run(field, "raster=classes", "size=1", "split=none", "--o")["patches"] == 24 * 14


def test_a_coarser_misaligned_label_raster_is_read_by_nearest_neighbour_and_said_so(field):
    field.ok("g.region", "n=200245", "s=199985", "w=599985", "e=600315", "res=30")
    field.ok("r.mapcalc", "coarse = if(col() <= 5, 1, 2)")
    field.ok("g.region", "raster=east")
    done = field.run(
        TOOL,
        "group=g",
        "raster=coarse",
        "size=1",
        "split=none",
        "output=fp",
        f"patches={directory(field)}",
        GRASS_VERBOSE="1",
    )
    assert done.returncode == 0 and "another grid" in " ".join(done.stderr.split())
    dataset = PatchDataset.open(directory(field))
    np.testing.assert_array_equal(dataset.labels[:, 0, 0] == 1, dataset.images()[:, 0, 0, 0] > 135)


def test_float_and_large_values_keep_their_type(field):
    field.ok("r.mapcalc", "half = double(x()) / 3")
    field.ok("r.mapcalc", "large = 2000000001 + col()")
    for name, bands, dtype in (("h", "half", "float64"), ("m", "large,east", "int32"), ("u", "east", "int16")):
        field.ok("i.group", f"group={name}", f"input={bands}")
        field.json(
            TOOL,
            f"group={name}",
            "raster=classes",
            "size=5",
            "split=none",
            f"output=fp_{name}",
            f"patches={directory(field, name)}",
        )
        dataset = PatchDataset.open(directory(field, name))
        expected = {"h": (600000 + dataset.index["east"][0] % 600000 - 20) / 3, "m": 2000000002, "u": 5}[name]
        assert dataset.images().dtype == dtype
        assert dataset.images()[0, 0, 0, 0] == pytest.approx(expected, rel=1e-12)


def test_plan_only_writes_nothing_and_agrees_with_the_run(field):
    wishes = ("raster=classes", "size=2", "block_size=60", "buffer=0", "duplicates=keep")
    plan = run(field, *wishes, "-n")
    assert not os.path.exists(directory(field)) and "fp" not in field.maps("vector")
    real = run(field, *wishes)
    for key in (
        "patches",
        "parts",
        "classes",
        "dropped",
        "overlaps_between_parts",
        "closest_parts_distance",
        "sources",
    ):
        assert plan[key] == real[key]
    assert plan["duplicates"] is None and real["duplicates"] == 0
    assert set(real) == {*plan} and "seconds" in real
    assert set(real["dropped"]) == {"null", "unlabelled", "buffer", "edge"}


def test_the_same_command_makes_the_same_patches(field):
    wishes = ("raster=classes", "size=3", "placement=random", "number=20", "split=class")
    run(field, *wishes, name="a", output="a")
    run(field, *wishes, name="b", output="b")
    first, second = (PatchDataset.open(directory(field, name)) for name in "ab")
    np.testing.assert_array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.images(), second.images())


def test_a_split_by_chance_that_overlaps_is_warned_of(field):
    done = field.run(
        *(TOOL, "group=g", "raster=classes", "size=4", "stride=2", "split=random", "output=fp", "format=json"),
        f"patches={directory(field)}",
        GRASS_VERBOSE="1",
    )
    overlaps = json.loads(done.stdout)["overlaps_between_parts"]
    assert overlaps > 0
    assert f"{overlaps} patches overlap a patch of another part" in " ".join(done.stderr.split())


POINTS = "600005|200235|0.5\n600006|200236|1.5\n600145|200125|7\n600145|200126|3\n600144|200127|2\n600255|200005|4\n"


def add_points(grass) -> None:
    """Points with a floating point column: two in the first cell, three in a second, one in a third."""
    columns = "x double precision, y double precision, height double precision"
    grass.ok("v.in.ascii", "input=-", "output=points", f"columns={columns}", stdin=POINTS)


def test_values_of_a_raster_and_of_areas_are_labels(field):
    field.ok("r.mapcalc", "height = if(row() == 1, null(), double(x() - 600000) / 8)")
    field.ok("r.support", "map=height", "units=m")
    answer = run(field, "raster=height", "size=4", "split=none")
    dataset = PatchDataset.open(directory(field))
    assert (dataset.manifest.task, dataset.manifest.quantity.name, dataset.manifest.quantity.units) == (
        "value",
        "height",
        "m",
    )
    assert answer["classes"] == [] and len(dataset.manifest.classes) == 0
    assert answer["values"]["training"]["maximum"] == pytest.approx(275 / 8)
    expected = np.where(dataset.images()[:, 1] > 230, np.nan, dataset.images()[:, 0] / 8)
    np.testing.assert_allclose(dataset.labels, expected, rtol=1e-6)
    rows = field.ok("v.db.select", "-c", "map=fp", "columns=value", "separator=comma").split()
    np.testing.assert_allclose([float(row) for row in rows], np.nanmean(expected, axis=(1, 2)), rtol=1e-6)
    run(field, "input=areas", "column=share", "size=6", "stride=2", "label=inside", "split=none", "--o")
    dataset = PatchDataset.open(directory(field))
    np.testing.assert_array_equal(dataset.labels, np.where(dataset.index["area"] == 1, 0.5, 0.1).astype(np.float32))


def test_a_floating_point_map_of_classes_is_pointed_out_and_one_with_its_no_data_refused(field):
    field.ok("r.mapcalc", "float_classes = float(classes)")
    wishes = "group=g", "size=4", "split=none", "output=fp", f"patches={directory(field)}", "--overwrite"
    done = field.run(TOOL, *wishes, "raster=float_classes")
    assert "quantities of float_classes (regression), all of them whole numbers: 3, 8." in " ".join(done.stderr.split())
    field.ok("r.mapcalc", "with_nodata = if(row() == 5, float(-3.4e38), x())")
    assert "run from -3.4e+38 to" in field.error(TOOL, *wishes, "raster=with_nodata")
    assert len(PatchDataset.open(directory(field))) == 42


def test_points_that_meet_in_a_cell_give_their_mean_or_their_number(field):
    add_points(field)
    run(field, "input=points", "column=height", "size=1", "split=none")
    dataset = PatchDataset.open(directory(field))
    assert dataset.labels[:, 0, 0].tolist() == [1.0, 4.0, 4.0]
    answer = run(field, "input=points", "label=density", "percentile=50", "size=6", "split=none", "--o")
    dataset = PatchDataset.open(directory(field))
    assert dataset.manifest.quantity.units == "2 points per cell"
    assert answer["patches"] == 20 and dataset.labels.shape == (20, 6, 6)
    full = np.zeros((24, 30))
    full[0, 0], full[11, 14], full[23, 25] = 1, 1, 0.5
    for entry, labels in zip(dataset.index, dataset.labels, strict=True):
        np.testing.assert_array_equal(
            labels, full[entry["row"] : entry["row"] + 6, entry["col"] : entry["col"] + 6].astype(np.float32)
        )


POINTS_OF_SEVERAL = """P 1 3
 600055 200055
 1 100
 1 1
 2 7
P 1 1
 600155 200055
 1 2
"""


def test_a_point_that_belongs_to_several_features_has_the_label_of_each(field):
    field.ok("v.in.ascii", "-n", "input=-", "output=several", "format=standard", stdin=POINTS_OF_SEVERAL)
    field.ok("v.db.addtable", "map=several", "columns=share double precision")
    field.ok(
        "db.execute", "input=-", stdin="".join(f"update several set share={n} where cat={n};\n" for n in (1, 2, 100))
    )
    wishes = "input=several", "column=share", "size=1", "split=none", "--overwrite"
    run(field, *wishes)
    assert sorted(PatchDataset.open(directory(field)).labels.ravel().tolist()) == [2, 50.5]
    run(field, *wishes, "where=cat < 100")
    assert sorted(PatchDataset.open(directory(field)).labels.ravel().tolist()) == [1, 2]
    run(field, "input=several", "label=density", "size=24,30", "split=none", "--overwrite")
    labels = PatchDataset.open(directory(field)).labels
    assert labels.max() == 1 and np.count_nonzero(labels) == 2


def test_points_given_in_another_turn_of_the_globe_are_found(grass_crs):
    grass = grass_crs("EPSG:4326")
    grass.ok("g.region", "n=10", "s=-10", "w=170", "e=190", "res=1")
    grass.ok("r.mapcalc", "band = int(x() * 100)")
    grass.ok("i.group", "group=g", "input=band")
    columns = "columns=x double precision,y double precision,code integer"
    grass.ok("v.in.ascii", "input=-", "output=points", columns, stdin="175.5|5.5|1\n-175.5|5.5|2\n")
    run(grass, "input=points", "column=code", "size=1", "split=none")
    dataset = PatchDataset.open(directory(grass))
    assert dict(zip(dataset.labels.ravel().tolist(), dataset.images().ravel().tolist(), strict=True)) == {
        0: 17550,
        1: 18450,
    }


def test_presence_lists_the_classes_of_a_patch(field):
    answer = run(field, "raster=classes", "size=4", "label=presence", "split=none")
    dataset = PatchDataset.open(directory(field))
    assert dataset.manifest.task == "presence" and dataset.labels.shape == (answer["patches"], 2)
    inside = dataset.images()[:, 0]
    expected = np.stack([(inside < 150).any(axis=(1, 2)), (inside > 150).any(axis=(1, 2))], axis=1)
    np.testing.assert_array_equal(dataset.labels == 1, expected)
    assert "wood, field" in field.ok("v.db.select", "-c", "map=fp", "columns=label")


def add_acquisitions(grass) -> None:
    """Groups of two more dates; in the second the bands have other names, another order, and a cloud."""
    for name, step in (("late", 1000), ("later", 2000)):
        grass.ok("r.mapcalc", f"{name}_e = if(row() <= 4 && col() <= 4 && {step} == 1000, null(), east + {step})")
        grass.ok("r.mapcalc", f"{name}_n = north + {step}")
        grass.ok("i.group", f"group={name}", f"input={name}_n,{name}_e")
    for label, maps in (("a", "east,late_e,later_e"), ("b", "north,late_n,later_n")):
        for band in maps.split(","):
            grass.ok("r.semantic.label", f"map={band}", f"semantic_label={label}", "operation=add")


def test_every_place_is_sampled_in_each_acquisition_and_has_one_part(field):
    add_acquisitions(field)
    groups = "group=g,late,later"
    wishes = ("raster=classes", "size=4", "block_size=80", "buffer=0")
    answer = field.json(TOOL, groups, *wishes, "output=fp", f"patches={directory(field)}", "duplicates=keep")
    dataset = PatchDataset.open(directory(field))
    index, images = dataset.index, dataset.images()
    assert len(dataset) == 3 * 42 - 1 and answer["dropped"]["null"] == 1
    for number, step in enumerate((0, 1000, 2000)):
        own = index["acquisition"] == number
        east = index["east"][own] - 600000
        np.testing.assert_array_equal(images[own][:, 0, 0, 0], (east - 15 + step).astype(int))
        np.testing.assert_array_equal(images[own][:, 1, 0, 0] - step, index["north"][own] - 200000 + 15)
    for place in set(zip(index["row"].tolist(), index["col"].tolist(), strict=True)):
        same = (index["row"] == place[0]) & (index["col"] == place[1])
        assert len(set(index["part"][same].tolist())) == 1
    assert answer["overlaps_between_parts"] == answer["same_ground_between_parts"] == 0
    assert [entry["name"] for entry in answer["acquisitions"]] == ["g", "late", "later"]
    names = field.ok("v.db.select", "-c", "map=fp", "columns=acquisition").split()
    assert [names.count(name) for name in ("g", "late", "later")] == [42, 41, 42]


def test_whole_acquisitions_may_be_parts_and_the_report_says_what_that_means(field):
    add_acquisitions(field)
    wishes = ("raster=classes", "size=4", "split=acquisition", "number=10", "output=fp", "format=json")
    done = field.run(TOOL, "group=g,late,later", *wishes, f"patches={directory(field)}", GRASS_VERBOSE="1")
    answer = json.loads(done.stdout)
    assert answer["overlaps_between_parts"] == 0 and answer["same_ground_between_parts"] == answer["patches"] >= 29
    assert "show ground that another part shows at another date" in " ".join(done.stderr.split())
    index = PatchDataset.open(directory(field)).index
    assert len(set(zip(index["row"].tolist(), index["col"].tolist(), strict=True))) == 10
    np.testing.assert_array_equal(index["part"], index["acquisition"])
    field.json(TOOL, "group=g,late,later", *wishes[:-1], "validation=g", f"patches={directory(field)}", "--o")
    assert set(PatchDataset.open(directory(field)).index["part"].tolist()) == {0, 1}


def test_each_acquisition_may_have_its_own_ignored_cells(field):
    add_acquisitions(field)
    field.ok("r.mapcalc", "cloud1 = if(row() <= 2, 1, 0)")
    field.ok("r.mapcalc", "cloud2 = if(row() <= 4, 1, 0)")
    where = ("output=fp", f"patches={directory(field)}", "raster=classes", "size=1", "split=none", "--o")
    cells = 24 * 30
    ignored = "ignore_values=1"
    assert field.json(TOOL, "group=g,later", "ignore=cloud1,cloud2", ignored, *where)["patches"] == 2 * cells - 180
    assert field.json(TOOL, "group=g,later", "ignore=cloud1", ignored, *where)["patches"] == 2 * cells - 120


def test_levels_turn_classes_into_their_parents(field, tmp_path):
    table = tmp_path / "levels.csv"
    table.write_text("fine,main,use\nwood,green,land\nfield,green,land\nsea,blue,water\n")
    answer = run(field, "raster=classes", "size=4", "split=none", f"levels={table}")
    assert [entry["label"] for entry in answer["classes"]] == ["wood", "field"]
    classes = PatchDataset.open(directory(field)).manifest.classes
    assert classes[0].parents == (("main", "green"), ("use", "land"))
    run(field, "raster=classes", "size=4", "split=none", f"levels={table}", "level=main", "--o")
    dataset = PatchDataset.open(directory(field))
    # Texts are numbered over the whole table: blue is 1, green is 2.
    assert [(entry.category, entry.label, entry.parents) for entry in dataset.manifest.classes] == [
        (2, "green", (("use", "land"),))
    ]
    assert (dataset.labels == 0).all()
    run(field, "input=areas", "column=kind", "size=1", "split=none", f"levels={table}", "level=main", "--o")
    assert PatchDataset.open(directory(field)).manifest.classes.labels == ["green"]
    message = field.error(
        TOOL, "group=g", "raster=classes", f"levels={table}", "level=absent", "output=a", f"patches={tmp_path}/a"
    )
    assert "the columns are fine, main, use" in message


def test_cells_on_which_two_mappers_disagree_are_unlabelled(field):
    field.ok("r.mapcalc", "second = if(row() <= 6, 8, if(row() > 20, null(), classes))")
    answer = run(field, "raster=classes", "agreement=second", "size=1", "split=none", "duplicates=keep")
    both, same = 20 * 30, 6 * 15 + 14 * 30
    assert answer["agreement"] == {"cells": both, "agreeing": same, "percent": round(100 * same / both, 2)}
    assert answer["patches"] == same
    field.ok("g.copy", "vector=areas,other")
    field.ok("v.db.update", "map=other", "column=kind", "value=wood")
    field.ok("v.db.update", "map=other", "column=code", "value=3")
    for column in ("kind", "code"):
        answer = run(field, "input=areas", f"column={column}", "agreement=other", "size=1", "split=none", "--o")
        assert (answer["agreement"]["cells"], answer["patches"]) == (244, 144)
    text = field.ok(
        *(TOOL, "-n", "group=g", "input=areas", "column=kind", "agreement=other", "size=1", "split=none"),
        *("output=n", f"patches={directory(field, 'n')}"),
    )
    assert "59.02 % of 244 cells" in text
    points = "600055|200055|1|3\n600065|200055|2|8\n600155|200055|3|3\n"
    columns = "columns=x double precision,y double precision,cat integer,code integer"
    field.ok("v.in.ascii", "input=-", "output=plots", columns, "cat=3", stdin=points)
    wishes = "label=center", "placement=points", "size=3", "agreement=areas", "split=none", "--o"
    answer = run(field, "input=plots", "column=code", *wishes)
    assert (answer["agreement"]["cells"], answer["agreement"]["agreeing"], answer["patches"]) == (2, 1, 1)


@pytest.mark.parametrize(("res", "shift"), [(5, 0), (10, 5), (20, 0), (30, 7), (4, 1)])
def test_an_auxiliary_source_shows_the_same_ground_in_its_own_cells(field, res, shift):
    west, north = 600000 - 10 * res + shift, 200240 + 10 * res - shift
    field.ok("g.region", f"w={west}", f"n={north}", f"e={west + 100 * res}", f"s={north - 100 * res}", f"res={res}")
    field.ok("r.mapcalc", "aux_e = double(x() - 600000)")
    field.ok("r.mapcalc", "aux_n = double(y() - 200000)")
    field.ok("i.group", "group=aux", "input=aux_e,aux_n")
    field.ok("g.region", "raster=east")
    answer = run(field, "raster=classes", "size=4,6", "stride=3,5", "split=none", "auxiliary=aux")
    dataset = PatchDataset.open(directory(field))
    source = dataset.manifest.sources[1]
    assert source.name == "auxiliary1" and source.resolution == (res, res)
    assert source.shape == (-(-40 // res), -(-60 // res))
    assert answer["sources"][1]["valid_percent"] == 100
    cells = dataset.images("auxiliary1")
    for entry, image in zip(dataset.index, cells, strict=True):
        centre = image[:, [0, -1], [0, -1]].mean(axis=1)
        away = np.abs(centre - [entry["east"] - 600000, entry["north"] - 200000])
        assert (away <= res / 2 + 1e-9).all()
    steps = np.diff(cells[:, 0], axis=2)
    assert (steps == res).all() and (np.diff(cells[:, 1], axis=1) == -res).all()


def test_context_beyond_an_auxiliary_map_is_not_valid(field):
    field.ok("i.group", "group=aux", "input=east")
    answer = run(field, "raster=classes", "size=4", "split=none", "auxiliary=aux", "auxiliary_size=10")
    dataset = PatchDataset.open(directory(field))
    valid, images = dataset.valid("auxiliary1"), dataset.images("auxiliary1")
    assert images.shape == (42, 1, 10, 10)
    np.testing.assert_array_equal(valid[0], np.add.outer(np.arange(10) >= 3, 1 * (np.arange(10) >= 3)) == 2)
    assert (images[0, 0][~valid[0]] == 0).all()
    np.testing.assert_array_equal(images[0, 0, 3, 3:], np.arange(7) * 10 + 5)
    assert answer["sources"][1]["valid_percent"] < 100
    assert dataset.manifest.sources[1].statistics[0].count == valid.sum()


def test_a_series_has_dates_in_order(field):
    field.ok("g.region", "res=20")
    for number, stamp in enumerate(("5 jan 2020", "7 mar 2020 10:00:00", "2 dec 2021"), start=1):
        field.ok("r.mapcalc", f"ndvi{number} = float({number}) + (x() - 600000) / 1000")
        field.ok("r.timestamp", f"map=ndvi{number}", f"date={stamp}")
        field.ok("r.semantic.label", f"map=ndvi{number}", "semantic_label=ndvi", "operation=add")
        field.ok("i.group", f"group=t{number}", f"input=ndvi{number}")
    field.ok("g.region", "raster=east")
    run(field, "raster=classes", "size=4", "split=none", "series=t1,t2,t3", "auxiliary_size=3", "nprocs=2")
    dataset = PatchDataset.open(directory(field))
    source = dataset.manifest.sources[1]
    assert source.dates == ("2020-01-05", "2020-03-07", "2021-12-02")
    images = dataset.images("series")
    assert images.shape == (42, 3, 1, 3, 3) and dataset.valid("series").shape == (42, 3, 3, 3)
    inside = dataset.valid("series").all(axis=(1, 2, 3))
    np.testing.assert_allclose(images[inside][:, 2] - images[inside][:, 0], 2, rtol=1e-5)
    wishes = ("raster=classes", "size=4", "output=x", f"patches={directory(field, 'x')}", "series=t2,t1")
    assert "in the order of its dates" in field.error(TOOL, "group=g", *wishes)


def test_patches_may_have_no_labels_at_all(field):
    answer = run(field, "size=4", "number=9")
    dataset = PatchDataset.open(directory(field))
    assert answer["patches"] == len(dataset) == 9 and answer["parts"]["training"] == 9
    assert dataset.manifest.rule == "none" and len(dataset.manifest.classes) == 0
    assert (dataset.read_labels(np.arange(9)) == -1).all()
    assert (dataset.index["labelled"] == 0).all() and (dataset.index["class"] == -1).all()


@pytest.mark.parametrize("mask", [False, True])
def test_several_readers_read_the_same(field, mask):
    if mask:
        field.ok("r.mask", "raster=classes", "maskcats=3")
    run(field, "raster=classes", "size=3", "split=none", name="a", output="a")
    run(field, "raster=classes", "size=3", "split=none", "nprocs=4", name="b", output="b")
    first, second = (PatchDataset.open(directory(field, name)) for name in "ab")
    np.testing.assert_array_equal(first.images(), second.images())
    np.testing.assert_array_equal(first.index, second.index)


def test_virtual_bands_give_the_same_patches_with_several_readers(field):
    for band in ("east", "north"):
        field.ok("g.region", "w=600000", "e=600150")
        field.ok("r.mapcalc", f"{band}_1 = if(row() == 9, null(), {band})")
        field.ok("g.region", "w=600150", "e=600300")
        field.ok("r.mapcalc", f"{band}_2 = {band}")
        field.ok("r.buildvrt", f"input={band}_1,{band}_2", f"output={band}_tiled")
    field.ok("g.region", "raster=east")
    for band in ("east", "north"):
        field.ok("r.mapcalc", f"{band}_whole = {band}_tiled + 0")
    for kind in ("whole", "tiled"):
        field.ok("i.group", f"group={kind}", f"input=east_{kind},north_{kind}")
        place = f"patches={directory(field, kind)}"
        field.ok(TOOL, f"group={kind}", "raster=classes", "size=3", "split=none", "nprocs=4", f"output={kind}", place)
    first, second = (PatchDataset.open(directory(field, kind)) for kind in ("whole", "tiled"))
    np.testing.assert_array_equal(first.images(), second.images())
    np.testing.assert_array_equal(first.index, second.index)


def test_labels_that_fit_into_memory_are_read_once_and_are_the_same(field):
    field.ok("g.region", "n=200245", "s=199985", "w=599985", "e=600315", "res=30")
    field.ok("r.mapcalc", "coarse = if(row() == 3, null(), if(col() <= 5, 1, 2))")
    field.ok("g.region", "raster=east")
    run(field, "raster=coarse", "size=3", "split=none", "memory=1", name="a", output="a")
    run(field, "raster=coarse", "size=3", "split=none", "memory=300", name="b", output="b")
    first, second = (PatchDataset.open(directory(field, name)) for name in "ab")
    np.testing.assert_array_equal(first.labels, second.labels)
    assert len(np.unique(first.labels)) == 3


def test_cells_of_coarse_bands_are_different_ones_in_the_number_asked_for(field):
    field.ok("g.region", "res=40", "n=200240")
    for band in ("east", "north"):
        field.ok("r.mapcalc", f"{band}40 = {band}", "--o")
    field.ok("i.group", "group=c", "input=east40,north40")
    field.ok("g.region", "raster=east")
    wishes = "group=c", "raster=classes", "size=1", "number=30", "output=fp"
    answer = field.json(TOOL, *wishes, "split=random", f"patches={directory(field)}")
    assert answer["patches"] == 30 and answer["duplicates"] > 0
    assert sorted(answer["parts"].values()) == [4, 5, 21]
    images = PatchDataset.open(directory(field)).images()[:, :, 0, 0]
    assert len(np.unique(images, axis=0)) == 30
    plan = field.json(TOOL, "-n", *wishes, "split=none", f"patches={directory(field, 'q')}", "--overwrite")
    assert plan["duplicates"] is None


@pytest.mark.parametrize("seconds", [0.6, 1.2, 1.8, 2.4])
def test_a_killed_run_leaves_directory_and_vector_as_a_pair(field, seconds):
    """Whatever the moment: the old pair stands, or the new one."""
    run(field, "raster=classes", "size=4", "split=none")
    places = "output=fp", f"patches={directory(field)}", "--overwrite"
    command = [TOOL, "group=g", "raster=classes", "size=6", "split=none", *places]
    with subprocess.Popen(command, env=field.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    held = len(PatchDataset.open(directory(field)))
    assert held in (42, 20)
    assert f"centroids={held}" in field.ok("v.info", "-t", "map=fp")
    assert len(field.ok("v.db.select", "-c", "map=fp", "columns=cat").split()) == held


def test_an_interruption_in_the_last_moment_leaves_the_new_pair_and_nothing_else(field):
    run(field, "raster=classes", "size=4", "split=none")
    places = "output=fp", f"patches={directory(field)}", "--overwrite"
    command = [TOOL, "group=g", "raster=classes", "size=6", "split=none", *places]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, env=field.env, **streams) as process:
        while not list((field.mapset / "vector").glob("tmp_rlearndeep_replaced*")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the programs that the tool started hear it, too
        error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error, error
    assert len(PatchDataset.open(directory(field))) == 20
    assert not [name for name in field.maps("vector") if name.startswith("tmp_")]
    assert len(field.ok("v.db.select", "-c", "map=fp", "columns=cat").split()) == 20


def test_a_terminal_that_is_closed_leaves_nothing(field):
    command = [TOOL, "group=g", "raster=classes", "size=6", "split=none", "output=fp", f"patches={directory(field)}"]
    vectors = field.mapset / "vector"
    with subprocess.Popen(command, env=field.env, stderr=subprocess.PIPE, text=True) as process:
        while not list(vectors.glob("tmp_rlearndeep_footprints*")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGHUP)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "nothing was left half-written" in error
    assert [file.name for file in vectors.iterdir()] == ["areas"]
    assert not [name for name in os.listdir(os.path.dirname(directory(field))) if name.startswith(".p.")]
    assert "fp" not in field.ok("db.tables", "-p").split()


def test_a_vector_that_another_process_made_meanwhile_is_not_replaced_unasked(field):
    command = [TOOL, "group=g", "raster=classes", "size=6", "split=none", "output=fp", f"patches={directory(field)}"]
    vectors = field.mapset / "vector"
    with subprocess.Popen(command, env=field.env, stderr=subprocess.PIPE, text=True) as process:
        while not list(vectors.glob("tmp_rlearndeep_footprints*")):
            assert process.poll() is None
            time.sleep(0.005)
        shutil.copytree(vectors / "areas", vectors / "fp")
        error = " ".join(process.communicate(timeout=60)[1].split())
    assert process.returncode == 1 and "<fp> was made while this run was under way" in error
    assert not os.path.exists(directory(field))
    assert sorted(file.name for file in vectors.iterdir()) == ["areas", "fp"]
    assert "fp" not in field.ok("db.tables", "-p").split()


def test_a_table_that_another_process_made_meanwhile_is_not_dropped(field, tmp_path):
    field.ok("db.execute", "sql=create table fp (cat integer)")
    blind = tmp_path / "db.tables"  # as if the table had not been there yet
    blind.write_text("#!/bin/sh\n", encoding="utf-8")
    blind.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{field.env['PATH']}"
    wishes = "group=g", "raster=classes", "size=6", "split=none", "output=fp", f"patches={directory(field)}"
    assert "table fp already exists" in field.error(TOOL, *wishes, PATH=path)
    assert "fp" in field.ok("db.tables", "-p").split()


BAD_TABLES = [
    ("update areas set kind = cast(x'57e46c64' as text) where cat = 1", "kind", "must be in UTF-8"),
    ("update areas set share = 9e999 where cat = 1", "share", "numbers finite"),
    ('alter table areas add column "order" integer', "order", "A word of SQL is no name for a column"),
    (
        "drop index areas_cat; insert into areas (cat, code) values (2, 3)",
        "code",
        "category 2 of <areas> has '8' and '3' in <code>",
    ),
]


@pytest.mark.parametrize(("statement", "column", "words"), BAD_TABLES)
def test_a_table_that_cannot_be_read_without_doubt_is_refused(field, statement, column, words):
    with closing(sqlite3.connect(field.mapset / "sqlite" / "sqlite.db")) as database:
        database.executescript(statement)
    wishes = "group=g", "input=areas", f"column={column}", "size=4", "output=fp", f"patches={directory(field)}"
    assert words in field.error(TOOL, *wishes)


def test_rows_without_category_and_rows_that_repeat_another_do_no_harm(field):
    field.ok("db.execute", "sql=drop index areas_cat")
    field.ok("db.execute", "sql=insert into areas (code) values (5)")
    field.ok("db.execute", "sql=insert into areas (cat, code, kind) values (2, 8, 'other')")
    answer = run(field, "input=areas", "column=code", "size=1", "split=none")
    assert [(entry["category"], entry["count"]["training"]) for entry in answer["classes"]] == [(3, 144), (8, 100)]


def test_a_map_that_grass_cannot_read_is_no_traceback(field):
    with closing(sqlite3.connect(field.mapset / "sqlite" / "sqlite.db")) as database:
        database.executescript("drop table areas")
    wishes = "group=g", "input=areas", "column=code", "size=4", "output=fp", f"patches={directory(field)}"
    done = field.run(TOOL, *wishes)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "ended with an error. Mend the map" in " ".join(done.stderr.split())


def test_texts_become_labels_and_groups_of_one_line(field):
    with closing(sqlite3.connect(field.mapset / "sqlite" / "sqlite.db")) as database, database:
        database.execute("update areas set kind = ' old\nwood, \"oak\" ' || cat || ' '")
    wishes = "input=areas", "column=kind", "size=1", "split=column", "split_column=kind", "shares=50,0,50"
    answer = run(field, *wishes, "buffer=0")
    assert [entry["label"] for entry in answer["classes"]] == ['old wood, "oak" 1', 'old wood, "oak" 2']
    labels = field.ok("v.db.select", "-c", "map=fp", "columns=label", "group=label").splitlines()
    assert labels == ['old wood, "oak" 1', 'old wood, "oak" 2']


def test_shares_have_no_say_beside_a_column_that_names_the_parts(field):
    with closing(sqlite3.connect(field.mapset / "sqlite" / "sqlite.db")) as database, database:
        database.execute("update areas set kind = case cat when 1 then 'training' else 'test' end")
    wishes = "group=g", "input=areas", "column=code", "size=1", "split=column", "split_column=kind", "output=fp"
    done = field.run(TOOL, *wishes, f"patches={directory(field)}", "shares=50,0,50")
    assert "column <kind> names the part of each. Leave it out" in " ".join(done.stderr.split())
    assert not Path(directory(field)).exists()
    field.ok(TOOL, *wishes, f"patches={directory(field)}")


def test_points_beside_areas_are_left_out_with_a_word(field):
    mixed = AREAS + "P 1 1\n 600155 200055\n 1 2\n"
    field.ok("v.in.ascii", "-n", "input=-", "output=mixed", "format=standard", stdin=mixed)
    field.ok("v.db.addtable", "map=mixed", "columns=code integer")
    field.ok("v.db.update", "map=mixed", "column=code", "value=1")
    places = "split=none", "output=fp", f"patches={directory(field)}"
    done = field.run(TOOL, "group=g", "input=mixed", "column=code", "size=1", *places)
    assert "holds areas and 1 points; labels come from the areas alone" in " ".join(done.stderr.split())
    assert len(PatchDataset.open(directory(field))) == 244


def test_categories_at_the_limits_of_a_raster_are_read(field):
    field.ok("r.mapcalc", "low = if(col() <= 15, -2147483647, -2147483000)")
    for memory in ("300", "1"):
        answer = run(field, "raster=low", "size=3", "split=none", f"memory={memory}", "--overwrite")
        assert [entry["category"] for entry in answer["classes"]] == [-2147483647, -2147483000]


BAD_INPUT = [
    (("group=nothing", "raster=classes"), "Imagery group <nothing> must exist"),
    (("group=empty", "raster=classes"), "must hold at least one raster"),
    (("group=g", "label=inside"), "neither input= nor raster="),
    (("group=g", "split=random"), "neither input= nor raster="),
    (("group=g", "input=areas"), "need column="),
    (("group=g", "input=areas", "column=absent"), "<absent> does not. It has: cat, kind"),
    (("group=g", "input=areas", "column=blank"), "are null"),
    (("group=g", "input=areas", "column=share", "split=class", "size=4"), "split=class needs classes"),
    (("group=g", "input=areas", "column=share", "per_class=3", "size=4"), "per_class= needs classes"),
    (("group=g", "input=areas", "column=share", "label=presence", "size=4"), "label=presence needs classes"),
    (("group=g", "raster=half", "background=0", "size=4"), "background= needs classes"),
    (("group=g", "raster=half", "label=inside", "size=4"), "label=inside of a raster needs classes"),
    (("group=g", "input=areas", "label=density", "size=4"), "label=density needs points"),
    (("group=g", "input=areas", "column=kind", "label=density"), "no use for a column"),
    (("group=g,g", "raster=classes"), "named once; <g>"),
    (("group=g,g@PERMANENT", "raster=classes"), "named once; <g>"),
    (("group=g", "raster=classes", "auxiliary=g,g@PERMANENT"), "named once; <g>"),
    (("group=g,other", "raster=classes"), "must have the same bands; <g> has 2"),
    (("group=g", "raster=classes", "ignore=east,north"), "got 2 for 1 groups"),
    (("group=g", "raster=classes", "size=4", "split=acquisition"), "at least two acquisitions"),
    (("group=g", "raster=classes", "size=4", "split=acquisition", "buffer=10"), "Leave buffer= out"),
    (("group=g", "raster=classes", "series=g"), "the maps of <g> have no time stamp"),
    (("group=g", "raster=classes", "series=g", "dates=2020-13-01"), "holds days as YYYY-MM-DD"),
    (("group=g", "raster=classes", "series=g", "dates=2020-01-01,2020-02-01"), "got 2 dates= for 1 groups"),
    (("group=g", "raster=classes", "auxiliary=g", "auxiliary_size=3,4"), "got 3,4"),
    (("group=g", "raster=classes", "auxiliary=nothing"), "Imagery group <nothing> must exist"),
    (("group=g", "raster=half", "agreement=classes", "size=4"), "agreement= compares classes"),
    (("group=g", "raster=classes", "agreement=absent", "size=4"), "Raster map <absent> must exist"),
    (("group=g", "raster=classes", "validation=a", "split=block"), "or groups; got split=block"),
    (("group=g", "input=absent", "column=kind"), "Vector map <absent> must exist"),
    (("group=g", "input=areas", "column=kind", "where=absent = 1"), "where= must be a condition of SQL"),
    (("group=g", "input=areas", "column=kind", "where=cat = 99"), "selects none"),
    (("group=g", "input=areas", "column=kind", "layer=7"), "layer 7 of <areas> has none"),
    (("group=g", "input=areas", "column=kind", "split=column"), "belong together"),
    (("group=g", "raster=absent"), "Raster map <absent> must exist"),
    (("group=g", "raster=void"), "is null in all of it"),
    (("group=g", "input=far", "column=code", "size=4"), "no place in the region has them"),
    (("group=g", "raster=classes", "size=25"), "larger than the region (24 rows, 30 columns)"),
    (("group=g", "raster=classes", "size=1,2,3"), "one or two numbers"),
    (("group=g", "raster=classes", "size=4", "shares=1,2"), "Shares are three numbers"),
    (("group=g", "raster=classes", "size=4", "split=none", "shares=70,15,15"), "divide places among the parts"),
    (("group=g", "raster=classes", "size=4", "percentile=90"), "of label=density"),
    (("group=g", "raster=classes", "size=4", "placement=random", "number=9", "stride=2"), "the step of a grid"),
    (("group=g", "raster=classes", "size=4", "split=random", "block_size=50"), "the blocks of split=block"),
    (("group=g", "raster=classes", "size=4", "block_size=5000"), "fewer blocks"),
    (("group=g", "raster=classes", "size=4", "block_size=40", "buffer=5000"), "leaves no"),
    (("group=g", "raster=classes", "size=4", "buffer=nan"), "buffer= must not be negative; got nan"),
    (("group=g", "raster=classes", "size=4", "seed=-1"), "seed= must not be negative; got -1"),
    (("group=g", "raster=classes", "size=4", "nprocs=-1"), "nprocs= must be above 0; got -1"),
    (("group=g", "raster=classes", "size=4.5"), "The option size= needs a whole number; got '4.5'"),
    (("group=g", "raster=classes", "nprocs=2.5"), "The option nprocs= needs a whole number"),
    (("group=g", "raster=classes", "ignore=void", "ignore_values=1-3"), "The option ignore_values= needs"),
    (("group=g", "raster=classes", "auxiliary=other", "auxiliary_size=2.5"), "The option auxiliary_size= needs"),
    (("group=g", "raster=classes", "max_null=1x"), "The option max_null= needs a number; got '1x'"),
]


def test_bad_input_is_one_sentence_and_leaves_nothing(field):
    field.ok("r.mapcalc", "half = 0.5")
    field.ok("r.mapcalc", "void = int(null())")
    field.ok("i.group", "group=empty", "input=east")
    field.ok("i.group", "-r", "group=empty", "input=east")
    far = AREAS.replace("600", "700")
    field.ok("v.in.ascii", "-n", "input=-", "output=far", "format=standard", stdin=far)
    field.ok("v.db.addtable", "map=far", "columns=code integer")
    field.ok("v.db.update", "map=far", "column=code", "value=1")
    field.ok("i.group", "group=other", "input=half")
    before = field.maps("raster"), field.maps("vector")
    for arguments, words in BAD_INPUT:
        message = field.error(TOOL, *arguments, "output=fp", f"patches={directory(field)}")
        assert words in message, f"{arguments}: {message}"
        assert not os.path.exists(directory(field))
    assert before == (field.maps("raster"), field.maps("vector"))
    assert not [name for name in os.listdir(field.mapset.parent.parent) if name.startswith(".")]


def test_fewer_patches_than_asked_for_are_said(field):
    done = field.run(
        *(TOOL, "group=g", "raster=classes", "size=4", "number=100", "split=none", "output=fp"),
        f"patches={directory(field)}",
        GRASS_VERBOSE="1",
    )
    assert done.returncode == 0
    assert "number= asked for 100 patches; 42 were found" in " ".join(done.stderr.split())


def test_a_stale_range_is_refused_with_the_cure(field):
    field.ok("r.mapcalc", "stale = 7")
    file = field.mapset / "cell_misc" / "stale" / "range"
    field.ok("r.mapcalc", "stale = 70000", "--o")
    field.ok("r.mapcalc", "small = 7")
    file.write_bytes((field.mapset / "cell_misc" / "small" / "range").read_bytes())
    field.ok("i.group", "group=s", "input=stale")
    message = field.error(
        TOOL, "group=s", "raster=classes", "size=4", "output=fp", f"patches={directory(field)}", "split=none"
    )
    assert "r.support -s map=stale" in message
    assert not os.path.exists(directory(field)) and "fp" not in field.maps("vector")


def test_directory_and_vector_stay_as_a_pair(field):
    wishes = ("raster=classes", "size=4", "split=none")
    run(field, *wishes)
    message = field.error(TOOL, "group=g", *wishes, "output=other", f"patches={directory(field)}")
    assert "--overwrite" in message and "other" not in field.maps("vector")
    message = field.error(TOOL, "group=g", *wishes, "output=fp", f"patches={directory(field, 'q')}")
    assert "fp" in message and not os.path.exists(directory(field, "q"))
    # A failure after the new pair was almost ready: the directory cannot take its name.
    failing = "size=30", "--overwrite"
    field.error(TOOL, "group=g", "raster=classes", *failing, "output=fp", f"patches={directory(field)}")
    assert len(PatchDataset.open(directory(field))) == 42
    assert "centroids=42" in field.ok("v.info", "-t", "map=fp")
    answer = run(field, "raster=classes", "size=6", "split=none", "--overwrite")
    assert len(PatchDataset.open(directory(field))) == answer["patches"] == 20
    assert "centroids=20" in field.ok("v.info", "-t", "map=fp")
    assert field.maps("vector") == ["areas", "fp"]
    assert len(field.ok("db.tables", "-p").split()) == 2


def test_footprints_never_replace_the_labels_they_come_from(field):
    wishes = "group=g", "input=areas", "column=code", "size=1", "split=none", f"patches={directory(field)}"
    field.ok("g.copy", "vector=areas,second")
    for output, more in (("areas", ()), ("areas", ("input=areas@PERMANENT",)), ("second", ("agreement=second",))):
        message = field.error(
            TOOL, *{key.split("=")[0]: key for key in (*wishes, *more)}.values(), f"output={output}", "--o"
        )
        assert f"both <{output}>" in message
    assert "CHARACTER|kind" in field.ok("v.info", "-c", "map=areas") and not os.path.exists(directory(field))


@pytest.mark.parametrize("name", ["2021_fp", "my-fp", "a.b", "or", "fp@PERMANENT"])
def test_a_name_that_no_vector_can_have_is_refused_before_anything_is_read(field, name):
    message = field.error(TOOL, "group=g", "raster=classes", "size=4", f"output={name}", f"patches={directory(field)}")
    assert f"got output={name}." in message


def test_the_table_of_footprints_has_a_name_that_the_database_takes(field):
    for number, name in enumerate(("order", "fp", "FP")):
        run(field, "raster=classes", "size=4", "split=none", name=str(number), output=name)
        assert len(field.ok("v.db.select", "-c", f"map={name}", "columns=part").split()) == 42
    assert sorted(field.ok("db.tables", "-p").split()) == ["FP_1", "areas", "fp", "order_1"]


def test_footprints_have_their_table_in_a_database_of_dbf_files(field):
    field.ok("db.connect", "driver=dbf", "database=$GISDBASE/$LOCATION_NAME/$MAPSET/dbf/")
    run(field, "raster=classes", "size=4", "split=none")
    rows = field.ok("v.db.select", "-c", "map=fp", "columns=cat,part,class,label,acquisitio,labelled").splitlines()
    assert len(rows) == 42 and rows[0] == "1|training|3|wood|g|16"


def test_a_new_mapset_needs_no_database_beforehand(field):
    mapset = field.mapset.parent / "fresh"
    mapset.mkdir()
    shutil.copy(field.mapset / "WIND", mapset)
    rc = mapset.parent.parent / "gisrc_fresh"
    rc.write_text(f"GISDBASE: {mapset.parent.parent}\nLOCATION_NAME: project\nMAPSET: fresh\nGUI: text\n")
    fresh = type(field)(mapset, {**field.env, "GISRC": str(rc)})
    wishes = "group=g@PERMANENT", "raster=classes@PERMANENT", "size=4", "split=none"
    fresh.ok(TOOL, *wishes, "output=fp", f"patches={directory(fresh)}")
    assert len(fresh.ok("v.db.select", "-c", "map=fp@fresh", "columns=part").split()) == 42


def test_a_table_that_cannot_be_written_is_one_sentence_and_leaves_nothing(field):
    field.ok("db.connect", "driver=sqlite", f"database={field.mapset}/no/such/directory.db")
    message = field.error(
        TOOL, "group=g", "raster=classes", "size=4", "split=none", "output=fp", f"patches={directory(field)}"
    )
    assert "db.connect -p" in message
    assert field.maps("vector") == ["areas"] and not os.path.exists(directory(field))


def test_when_the_directory_cannot_be_placed_the_old_vector_comes_back(field, monkeypatch):
    run(field, "raster=classes", "size=4", "split=none")
    run(field, "raster=classes", "size=6", "split=none", name="q", output="new")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from rlearndeep.gis.footprints import publish
def refuse():
    raise RuntimeError("no")
try:
    publish("new", "fp", refuse)
except RuntimeError:
    print("refused")
"""
    library = os.path.join(os.path.dirname(__file__), os.pardir, "lib")
    done = field.run(sys.executable, "-c", code, library, CMDLINE="v.sample.patches", GRASS_OVERWRITE="1")
    assert done.stdout.strip() == "refused", done.stderr
    assert "centroids=42" in field.ok("v.info", "-t", "map=fp")
    assert len(field.ok("v.db.select", "-c", "map=fp", "columns=cat").split()) == 42


def test_plain_output_is_the_same_report(field):
    text = field.ok(
        TOOL, "group=g", "raster=classes", "size=4", "split=none", "output=fp", f"patches={directory(field)}"
    )
    assert "patches                    42" in text and "wood" in text


def test_a_region_with_corners_off_the_globe_has_no_extent_in_degrees(grass_crs):
    grass = grass_crs("EPSG:32119")
    grass.ok("g.proj", "-c", "proj4=+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs")
    grass.ok("g.region", "n=10007554", "s=8895604", "w=-20015109", "e=-18903158", "rows=8", "cols=8")
    grass.ok("r.mapcalc", "band = row() * 8 + col()")
    grass.ok("i.group", "group=g", "input=band")
    run(grass, "raster=band", "size=4", "split=none")
    assert PatchDataset.open(directory(grass)).manifest.extent is None


@pytest.mark.parametrize(
    ("name", "labels", "wishes"),
    [
        (
            "aber_sentinel2",
            "training_polygons.gpkg",
            ("input=labels", "column=class", "split=column", "split_column=cat", "size=1"),
        ),
        ("massachusetts", "23429155_15.gpkg", ("input=labels", "column=class", "background=0", "size=32")),
        (
            "north_carolina",
            "landsat96_points.shp",
            ("input=labels", "column=label", "size=5", "label=center", "placement=points"),
        ),
        ("zion_landsat8", "nlcd.tif", ("raster=labels", "size=32", "stride=64")),
    ],
)
def test_real_scenes_give_all_three_parts(name, labels, wishes, grass_crs):
    folder = scene(name)
    image = {
        "aber_sentinel2": "sen2_20210527_aber.tif",
        "massachusetts": "23429155_15.tif",
        "north_carolina": "lsat7_2000_40.tif",
        "zion_landsat8": "landsat_b4.tif",
    }[name]
    codes = {"aber_sentinel2": 27700, "massachusetts": 26986, "north_carolina": 32119, "zion_landsat8": 32612}
    grass = grass_crs(f"EPSG:{codes[name]}")
    grass.ok("r.in.gdal", "-o", f"input={folder / image}", "output=image")
    module = "r.in.gdal" if labels.endswith(".tif") else "v.in.ogr"
    grass.ok(module, "-o", f"input={folder / labels}", "output=labels")
    bands = [band for band in grass.maps("raster") if band.startswith("image")]
    grass.ok("g.region", f"raster={bands[0]}")
    grass.ok("i.group", "group=g", f"input={','.join(bands)}")
    answer = run(grass, *wishes)
    assert min(answer["parts"].values()) > 0
    assert answer["overlaps_between_parts"] == 0
    dataset = PatchDataset.open(directory(grass))
    assert len(dataset) == answer["patches"]
    assert dataset.images().shape[1] == len(bands)


def test_bands_of_three_resolutions_and_shifted_labels_cover_the_same_ground(grass_crs):
    folder = scene("north_carolina")
    grass = grass_crs("EPSG:32119")
    for band in ("30", "61", "80"):
        grass.ok("r.in.gdal", "-o", f"input={folder / f'lsat7_2000_{band}.tif'}", f"output=b{band}")
    grass.ok("r.in.gdal", "-o", f"input={folder / 'landclass96.tif'}", "output=labels")
    for group, band in (("g", "b30"), ("thermal", "b61"), ("fine", "b80")):
        grass.ok("i.group", f"group={group}", f"input={band}")
    grass.ok("g.region", "raster=b30")
    answer = run(grass, "raster=labels", "size=32", "stride=64", "auxiliary=thermal,fine")
    dataset = PatchDataset.open(directory(grass))
    assert len(dataset) == answer["patches"] > 20
    images = {source.shape: np.array(dataset.images(source.name)[:, 0], float) for source in dataset.manifest.sources}
    assert sorted(images) == [(16, 16), (32, 32), (64, 64)]
    panchromatic = images[64, 64].reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))

    def likeness(down: int, right: int) -> float:
        shifted = np.roll(panchromatic, (down, right), axis=(1, 2))
        return float(np.corrcoef(images[32, 32].ravel(), shifted.ravel())[0, 1])

    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert max(steps, key=lambda step: likeness(*step)) == (0, 0)
    assert likeness(0, 0) > 0.6


def test_stems_of_a_real_forest_become_a_density_with_the_image_beside_it(grass_crs):
    folder = scene("injune_stems")
    grass = grass_crs("EPSG:32755")
    grass.ok("r.in.gdal", "-o", f"input={folder / 'injune_p142_casi.tif'}", "output=casi")
    grass.ok("v.in.ogr", "-o", f"input={folder / 'stems.gpkg'}", "output=stems", "columns=TR_ID")
    grass.ok("i.group", "group=g", "input=casi.1,casi.7")
    grass.ok("g.region", "raster=casi.1")
    grass.ok("g.region", "res=10", "-a")
    wishes = ("input=stems", "label=density", "size=4", "stride=2", "buffer=0", "auxiliary=g", "max_null=30")
    answer = run(grass, *wishes)
    dataset = PatchDataset.open(directory(grass))
    assert dataset.images("auxiliary1").shape[1:] == (2, 40, 40)
    assert answer["sources"][1]["valid_percent"] > 80
    full = float(dataset.manifest.quantity.units.split()[0])
    labels, valid = np.asarray(dataset.labels), np.asarray(dataset.valid())
    assert full > 3 and np.nanmax(labels) == 1 and np.isnan(labels[~valid]).all()
    stems = labels[valid] * full
    np.testing.assert_allclose(stems, np.rint(stems), atol=1e-4)


def test_real_dates_are_acquisitions_or_a_series(grass_crs):
    folder = scene("slovenia_series")
    grass = grass_crs("EPSG:32633")
    for date in (2, 3, 4):
        grass.ok("r.in.gdal", "-o", f"input={folder / f's2_l1c_scene{date}_13b.tif'}", "band=3,4,8", f"output=s{date}")
        for band in (3, 4, 8):
            grass.ok("r.semantic.label", f"map=s{date}.{band}", f"semantic_label=S2_{band}", "operation=add")
        grass.ok("i.group", f"group=s{date}", f"input=s{date}.3,s{date}.4,s{date}.8")
    grass.ok("r.in.gdal", "-o", f"input={folder / 'lulc.tif'}", "output=lulc")
    grass.ok("g.region", "raster=s2.3")
    where = ("raster=lulc", "size=10", "buffer=0", "output=fp", f"patches={directory(grass)}", "--o")
    answer = grass.json(TOOL, "group=s2,s3,s4", *where)
    assert min(answer["parts"].values()) > 0 and answer["patches"] == 300
    assert answer["overlaps_between_parts"] == answer["same_ground_between_parts"] == 0
    grass.json(TOOL, "group=s2", "series=s2,s3,s4", "dates=2015-07-11,2015-08-20,2015-09-09", *where)
    dataset = PatchDataset.open(directory(grass))
    assert dataset.images("series").shape == (100, 3, 3, 10, 10)
    np.testing.assert_array_equal(dataset.images("series")[:, 0], dataset.images())
