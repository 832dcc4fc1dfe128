"""The tool v.sample.patches in GRASS: labels, georeference, footprints, bad input, real scenes."""

from __future__ import annotations

import json
import os
import shutil
import sys

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


BAD_INPUT = [
    (("group=nothing", "raster=classes"), "Imagery group <nothing> must exist"),
    (("group=empty", "raster=classes"), "must hold at least one raster"),
    (("group=g",), "neither input= nor raster="),
    (("group=g", "input=areas"), "need column="),
    (("group=g", "input=areas", "column=absent"), "<absent> does not. It has: cat, kind"),
    (("group=g", "input=areas", "column=blank"), "are null"),
    (("group=g", "input=areas", "column=share"), "floating point"),
    (("group=g", "input=absent", "column=kind"), "Vector map <absent> must exist"),
    (("group=g", "input=areas", "column=kind", "where=absent = 1"), "where= must be a condition of SQL"),
    (("group=g", "input=areas", "column=kind", "where=cat = 99"), "selects none"),
    (("group=g", "input=areas", "column=kind", "layer=7"), "layer 7 of <areas> has none"),
    (("group=g", "input=areas", "column=kind", "split=column"), "belong together"),
    (("group=g", "raster=absent"), "Raster map <absent> must exist"),
    (("group=g", "raster=half"), "integers (CELL)"),
    (("group=g", "raster=void"), "is null in all of it"),
    (("group=g", "input=far", "column=code", "size=4"), "no place in the region has them"),
    (("group=g", "raster=classes", "size=25"), "larger than the region (24 rows, 30 columns)"),
    (("group=g", "raster=classes", "size=1,2,3"), "one or two numbers"),
    (("group=g", "raster=classes", "size=4", "shares=1,2"), "Shares are three numbers"),
    (("group=g", "raster=classes", "size=4", "block_size=5000"), "fewer blocks"),
    (("group=g", "raster=classes", "size=4", "block_size=40", "buffer=5000"), "leaves no"),
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
    done = field.run(sys.executable, "-c", code, library, CMDLINE="v.sample.patches")
    assert done.stdout.strip() == "refused", done.stderr
    assert "centroids=42" in field.ok("v.info", "-t", "map=fp")
    assert len(field.ok("v.db.select", "-c", "map=fp", "columns=cat").split()) == 42


def test_plain_output_is_the_same_report(field):
    text = field.ok(
        TOOL, "group=g", "raster=classes", "size=4", "split=none", "output=fp", f"patches={directory(field)}"
    )
    assert "patches                    42" in text and "wood" in text


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
        ("zion_landsat8", "", ("raster=labels", "size=32", "stride=64")),
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
    if labels:
        grass.ok("v.in.ogr", "-o", f"input={folder / labels}", "output=labels")
    bands = [band for band in grass.maps("raster") if band.startswith("image")]
    grass.ok("g.region", f"raster={bands[0]}")
    if not labels:
        grass.ok("r.mapcalc", f"labels = int({bands[0]} / 2000)")
    grass.ok("i.group", "group=g", f"input={','.join(bands)}")
    answer = run(grass, *wishes)
    assert min(answer["parts"].values()) > 0
    assert answer["overlaps_between_parts"] == 0
    dataset = PatchDataset.open(directory(grass))
    assert len(dataset) == answer["patches"]
    assert dataset.images().shape[1] == len(bands)
