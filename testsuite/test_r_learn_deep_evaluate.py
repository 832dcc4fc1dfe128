"""r.learn.deep.evaluate on small maps whose answers are known."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Grass, new_mapset

TOOL = "r.learn.deep.evaluate"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
LABELS = "1:deforestation\n2:forest gain\n3:stable forest\n4:stable non-forest\n"
# Olofsson et al. (2014): sample counts with map classes in rows, reference classes in columns.
COUNTS = ((66, 0, 5, 4), (0, 55, 8, 12), (1, 0, 153, 11), (2, 1, 9, 313))
FIRST_CELLS = (1, 201, 351, 3551)
SIDE = 94868.32980505138  # 100 x 100 cells of 90 ha stand for the paper's 10,000,000 cells of 0.09 ha


def raster(session: Grass, name: str, expression: str) -> None:
    session.ok("r.mapcalc", f"expression={name} = {expression}", "--overwrite")


def sample_lines() -> str:
    """The paper's sample, each unit in a cell of its map class: east|north|cat|label|category|value."""
    names = [line.partition(":")[2] for line in LABELS.splitlines()]
    lines = []
    for stratum, cell in enumerate(FIRST_CELLS):
        for truth in range(4):
            for _ in range(COUNTS[stratum][truth]):
                row, col = divmod(cell - 1, 100)
                east, north = (col + 0.5) * SIDE / 100, SIDE - (row + 0.5) * SIDE / 100
                lines.append(f"{east}|{north}|{len(lines) + 1}|{names[truth]}|{truth + 1}|{truth + 1.5}\n")
                cell += 1
    return "".join(lines)


@pytest.fixture(scope="module")
def olofsson(tmp_path_factory, grass_env) -> Grass:
    """The map and the sample of the paper."""
    session = new_mapset(tmp_path_factory.mktemp("olofsson"), grass_env, "EPSG:32119")
    session.ok("g.region", f"n={SIDE}", "s=0", "w=0", f"e={SIDE}", "rows=100", "cols=100")
    raster(session, "n", "(row() - 1) * 100 + col()")
    raster(session, "classes", "if(n <= 200, 1, if(n <= 350, 2, if(n <= 3550, 3, 4)))")
    session.ok("r.category", "map=classes", "separator=:", "rules=-", stdin=LABELS)
    columns = "x double precision, y double precision, cat int, label varchar(30), number int, value double precision"
    session.ok("v.in.ascii", "input=-", "output=sample", "cat=3", f"columns={columns}", stdin=sample_lines())
    return session


@pytest.fixture(scope="module")
def small(tmp_path_factory, grass_env) -> Grass:
    """Maps of 4 x 6 cells in a project without coordinate system, and areas."""
    session = new_mapset(tmp_path_factory.mktemp("small"), grass_env)
    session.ok("g.region", "n=4", "s=0", "w=0", "e=6", "rows=4", "cols=6")
    raster(session, "truth", "if(col() <= 2, 1, if(col() <= 4, 2, if(row() == 4, null(), 3)))")
    raster(session, "good", "if(row() == 1, null(), if(col() == 3, 1, truth))")
    raster(session, "poor", "if(row() == 2, 3, truth)")
    raster(session, "values", "truth + 0.5")
    raster(session, "float_truth", "truth * 1.0")
    raster(session, "endless", "if(row() == 1 && col() == 1, exp(2.0, 2000), values)")
    raster(session, "objects", "(col() + 1) / 2")
    session.ok("r.category", "map=good", "separator=:", "rules=-", stdin="1:water\n2:forest\n3:field\n")
    session.ok("r.colors", "map=good", "rules=-", stdin="1 blue\n2 green\n3 yellow\n")
    session.ok("r.to.vect", "input=truth", "output=plots", "type=area", "column=number")
    session.ok("v.db.addcolumn", "map=plots", "columns=name varchar(20), height double precision")
    for number, name in ((1, "Water"), (2, "forest"), (3, "moor")):
        session.ok("v.db.update", "map=plots", "column=name", f"value={name}", f"where=number = {number}")
        session.ok("v.db.update", "map=plots", "column=height", f"value={number}.0", f"where=number = {number}")
    return session


def test_worked_example_of_the_paper_from_points(olofsson):
    result = olofsson.json(TOOL, "input=classes", "vector=sample", "column=label")
    entry = result["maps"][0]
    assert (result["points"], result["points_outside"], entry["units"]) == (640, 0, 640)
    assert entry["confusion_matrix"] == [list(row) for row in zip(*COUNTS, strict=True)]
    area = entry["area"]
    assert round(area["overall_accuracy"]["value"], 2) == 0.95
    assert [round(item["users_accuracy"]["value"], 2) for item in area["classes"]] == [0.88, 0.73, 0.93, 0.96]
    assert [round(item["producers_accuracy"]["value"], 2) for item in area["classes"]] == [0.75, 0.85, 0.93, 0.96]
    assert [round(item["mapped_area"] / 10000) for item in area["classes"]] == [18000, 13500, 288000, 580500]
    assert [round(item["area"]["value"] / 10000) for item in area["classes"]] == [21158, 11686, 285770, 581386]
    assert entry["classes"][0]["label"] == "deforestation"


def test_integer_column_and_explicit_strata_give_the_same(olofsson):
    by_label = olofsson.json(TOOL, "input=classes", "vector=sample", "column=label")["maps"][0]
    by_number = olofsson.json(TOOL, "input=classes", "vector=sample", "column=number", "strata=classes")["maps"][0]
    assert by_number == by_label


def test_plain_text_has_both_names_and_the_intervals(olofsson):
    text = olofsson.ok(TOOL, "input=classes", "vector=sample", "column=label", LC_ALL="C.UTF-8")
    assert "Precision is the user's accuracy, recall the producer's accuracy." in text
    assert "21,158 ± 6,158" in text
    assert "0.75 ± 0.21" in text
    assert "Overall accuracy        0.9172" in text


def test_plain_text_survives_any_locale(olofsson):
    text = olofsson.run(TOOL, "input=classes", "vector=sample", "column=label", LC_ALL="C", PYTHONUTF8="0")
    assert text.returncode == 0, text.stderr
    assert "0.9172" in text.stdout


def test_a_full_disk_ends_in_one_line(olofsson, tmp_path):
    # A limit on the size of files, in kilobytes, fails a write as a full disk does.
    command = f"{TOOL} input=classes vector=sample column=label report={tmp_path / 'report.html'}"
    done = olofsson.run("bash", "-c", f"trap '' XFSZ; ulimit -f 1; exec {command}")
    text = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert "Traceback" not in text and text.count("ERROR:") == 1 and "disk space" in text, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pygrass_which_gives_all_defaults_runs_the_tool(olofsson):
    code = f"""
from subprocess import PIPE
from grass.pygrass.modules import Module
tool = Module("{TOOL}", input="classes", vector="sample", column="label", format="json", stdout_=PIPE)
print(tool.outputs.stdout)
"""
    done = olofsson.run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == olofsson.json(TOOL, "input=classes", "vector=sample", "column=label")


def test_where_selects_points_and_those_outside_are_counted(olofsson):
    some = olofsson.json(TOOL, "input=classes", "vector=sample", "column=number", "where=cat <= 75")
    assert some["points"] == 75
    assert some["maps"][0]["area"]["unsampled"] > 0
    region = f"north: {SIDE}; south: 0; east: {SIDE / 2}; west: 0; rows: 100; cols: 50; proj: 99; zone: 0; "
    region += f"e-w resol: {SIDE / 100}; n-s resol: {SIDE / 100}"
    half = olofsson.json(TOOL, "input=classes", "vector=sample", "column=number", GRASS_REGION=region)
    assert half["points"] + half["points_outside"] == 640
    assert half["points_outside"] > 0


def test_points_with_values_score_a_value_map(olofsson):
    result = olofsson.json(TOOL, "input=classes", "vector=sample", "column=value", "where=label = 'stable forest'")
    assert result["kind"] == "values"
    # 5 cells mapped 1, 8 mapped 2, 153 mapped 3, 9 mapped 4 against 3.5
    errors = [-2.5] * 5 + [-1.5] * 8 + [-0.5] * 153 + [0.5] * 9
    assert result["maps"][0]["mae"] == pytest.approx(sum(map(abs, errors)) / 175)
    assert result["maps"][0]["bias"] == pytest.approx(sum(errors) / 175)


@pytest.mark.parametrize("column", ["value", "number"])
def test_points_have_no_difference_map(olofsson, column):
    arguments = ("input=classes", "vector=sample", f"column={column}", "difference=never")
    assert "needs a reference of cells" in olofsson.error(TOOL, *arguments)


def test_raster_reference_exact(small):
    result = small.json(TOOL, "input=good", "reference=truth")
    entry = result["maps"][0]
    assert (result["cells"], result["without_reference"], result["area_unit"]) == (24, 2, "square map units")
    assert (entry["units"], entry["null"]) == (16, 6)
    assert entry["confusion_matrix"] == [[6, 0, 0], [3, 3, 0], [0, 0, 4]]
    assert entry["overall_accuracy"] == pytest.approx(13 / 16)
    assert [item["label"] for item in entry["classes"]] == ["water", "forest", "field"]
    assert set(entry["classes"][0]) == {"category", "label", "precision", "recall", "f1", "iou", "support"}


def test_map_against_itself_scores_one(small):
    entry = small.json(TOOL, "input=truth", "reference=truth")["maps"][0]
    assert (entry["overall_accuracy"], entry["kappa"], entry["iou_mean"]) == (1.0, 1.0, 1.0)


def test_two_maps_side_by_side(small):
    result = small.json(TOOL, "input=good,poor", "reference=truth")
    found = result["comparisons"][0]
    assert found["maps"] == ["good", "poor"]
    assert found["right"] == {"both": 10, "first": 3, "second": 2, "neither": 1}
    assert found["units"] == 16
    assert found["mcnemar"]["test"] == "exact"
    assert found["difference"] == pytest.approx(1 / 16)


def test_areas_with_integers_equal_the_raster_they_came_from(small):
    by_raster = small.json(TOOL, "input=good", "reference=truth")["maps"][0]
    by_area = small.json(TOOL, "input=good", "vector=plots", "column=number")["maps"][0]
    assert by_area["confusion_matrix"] == by_raster["confusion_matrix"]


def test_areas_with_texts_are_matched_to_labels_and_unknown_ones_told(small):
    done = small.run(TOOL, "input=good", "vector=plots", "column=name", "format=json", GRASS_VERBOSE="1")
    entry = json.loads(done.stdout)["maps"][0]
    assert "moor" in done.stderr
    assert [(item["category"], item["label"]) for item in entry["classes"]][-1] == (4, "moor")
    assert entry["confusion_matrix"] == [[6, 0, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0]]


def test_capitals_do_not_matter_where_areas_overlap(small):
    edges = [("B", (left, 4), (left + 2, 4), (left + 2, 0), (left, 0), (left, 4)) for left in (0, 2, 4)]
    boundaries = "".join("B 5\n" + "".join(f" {x} {y}\n" for x, y in corners) for _, *corners in edges)
    centroids = "C 1 1\n 1 2\n 1 1\nC 1 2\n 3 2\n 1 1\n 1 2\nC 1 2\n 5 2\n 1 2\n 1 3\n"
    small.ok("v.in.ascii", "-n", "input=-", "output=raw", "format=standard", stdin=boundaries + centroids)
    small.ok("v.clean", "input=raw", "output=overlapping", "tool=break,rmdupl")
    small.ok("v.db.addtable", "map=overlapping", "columns=kind varchar(9)")
    for number, name in ((1, "Forest"), (2, "forest"), (3, "water")):
        small.ok("v.db.update", "map=overlapping", "column=kind", f"value={name}", f"where=cat = {number}")
    entry = small.json(TOOL, "input=good", "vector=overlapping", "column=kind")["maps"][0]
    assert [item["support"] for item in entry["classes"] if item["label"] == "forest"] == [12]
    assert entry["units"] == 12


def test_a_point_of_several_features_counts_once_and_not_where_they_disagree(small):
    points = "P 1 2\n 0.5 2.5\n 1 1\n 1 2\nP 1 2\n 5.5 2.5\n 1 3\n 1 1\nP 1 1\n 4.5 2.5\n 1 3\n"
    small.ok("v.in.ascii", "-n", "input=-", "output=shared", "format=standard", stdin=points)
    small.ok("v.db.addtable", "map=shared", "columns=kind varchar(9)")
    for number, name in ((1, "Forest"), (2, "forest"), (3, "water")):
        small.ok("v.db.update", "map=shared", "column=kind", f"value={name}", f"where=cat = {number}")
    entry = small.json(TOOL, "input=good", "vector=shared", "column=kind")["maps"][0]
    assert {item["label"]: item["support"] for item in entry["classes"] if item["support"]} == {"forest": 1, "water": 1}


def test_points_of_far_categories_and_values_beyond_categories(small):
    lines = "".join(f"{east}|2.5|{cat}|{kind}|{kind}e18\n" for east, cat, kind in ((0.5, 1, 1), (5.5, 100000000, 2)))
    columns = "columns=x double precision, y double precision, cat int, kind int, large double precision"
    small.ok("v.in.ascii", "input=-", "output=far", "cat=3", columns, stdin=lines)
    entry = small.json(TOOL, "input=good", "vector=far", "column=kind")["maps"][0]
    assert entry["confusion_matrix"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    done = small.run(TOOL, "input=good", "vector=far", "column=large", "format=json")
    assert "RuntimeWarning" not in done.stderr
    assert json.loads(done.stdout)["maps"][0]["mae"] == pytest.approx(1.5e18)


def test_a_text_that_several_categories_have_as_label_is_refused(small, tmp_path):
    small.ok("g.copy", "raster=good,doubled")
    small.ok("r.category", "map=doubled", "separator=:", "rules=-", stdin="1:water\n2:forest\n3:Water\n4:forest\n")
    arguments = ("input=doubled", "vector=plots", "column=name")
    assert "'water' is that of [1, 3]" in small.error(TOOL, *arguments)
    table = tmp_path / "levels.csv"
    table.write_text("kind,land\nwater,no\nforest,yes\nmoor,yes\n")
    entry = small.json(TOOL, *arguments, f"levels={table}")["maps"][0]
    assert entry["confusion_matrix"] == [[6, 0, 0], [3, 3, 0], [4, 0, 0]]
    # No cell of the region has the second category of that label.
    raster(small, "wide", "if(row() == 1 && col() == 1, 4, good)")
    small.ok("r.category", "map=wide", "separator=:", "rules=-", stdin="1:water\n2:forest\n3:moor\n4:forest\n")
    region = "north: 3; south: 0; east: 6; west: 0; rows: 3; cols: 6; e-w resol: 1; n-s resol: 1; proj: 0; zone: 0"
    entry = small.json(TOOL, "input=wide", "vector=plots", "column=name", GRASS_REGION=region)["maps"][0]
    assert entry["confusion_matrix"] == [[6, 0, 0], [3, 3, 0], [0, 0, 4]]


def test_a_class_that_no_cell_of_the_map_holds_keeps_its_category_and_label(small):
    raster(small, "poor", "if(good == 3, 2, good)")
    small.ok("r.category", "map=poor", "separator=:", "rules=-", stdin="1:water\n2:forest\n300:moor\n")
    small.ok("r.colors", "map=poor", "rules=-", stdin="1 blue\n2 green\n300 10:20:30\n")
    run = small.run(TOOL, "input=poor", "vector=plots", "column=name", "format=json")
    assert "no map has" not in run.stderr
    moor = json.loads(run.stdout)["maps"][0]["classes"][-1]
    assert (moor["category"], moor["label"], moor["recall"]) == (300, "moor", 0)
    raster(small, "unnamed", "if(good == 3, 300, good)")
    small.ok("r.category", "map=unnamed", "separator=:", "rules=-", stdin="1:\n")
    moor = small.json(TOOL, "input=poor", "reference=unnamed")["maps"][0]["classes"][-1]
    assert (moor["category"], moor["label"], moor["recall"]) == (300, "moor", 0)


def test_whole_numbers_in_a_floating_column_are_categories_for_class_maps(small):
    by_number = small.json(TOOL, "input=good", "vector=plots", "column=number")["maps"][0]
    by_height = small.json(TOOL, "input=good", "vector=plots", "column=height")["maps"][0]
    assert by_height == by_number


def test_packages_are_missed_before_anything_is_read_or_written(small, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    path = f"{tmp_path}:{small.env['PYTHONPATH']}"
    arguments = ("input=good", "reference=truth", f"matrix={tmp_path}/matrix.csv")
    error = small.error(TOOL, *arguments, f"report={tmp_path}/report.html", "difference=lost", PYTHONPATH=path)
    assert "report= needs the Python package 'matplotlib'" in error
    assert "lost" not in small.maps("raster") and not (tmp_path / "matrix.csv").exists()
    small.ok(TOOL, *arguments, PYTHONPATH=path)


def test_a_pipe_that_takes_no_more_does_not_end_in_a_traceback(small):
    read, write = os.pipe()
    os.close(read)
    for form in ("plain", "json"):
        command = [TOOL, "input=good", "vector=plots", "column=number", f"format={form}"]
        done = subprocess.run(command, env=small.env, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr
    os.close(write)


def test_footprints_that_are_closed_lines_are_filled(small):
    ring = "L 5 1\n 1.0 3.0\n 4.0 3.0\n 4.0 1.0\n 1.0 1.0\n 1.0 3.0\n 1 7\n"
    small.ok("v.in.ascii", "-n", "input=-", "output=rings", "format=standard", stdin=ring)
    small.ok("v.db.addtable", "map=rings", "columns=part varchar(10)")
    small.ok("v.db.update", "map=rings", "column=part", "value=training")
    zones = small.json(TOOL, "input=good", "reference=truth", "footprints=rings")["maps"][0]["training_footprints"]
    assert zones["inside"]["confusion_matrix"] == [[2, 0, 0], [2, 2, 0], [0, 0, 0]]


def test_areas_with_values_score_value_maps(small):
    entry = small.json(TOOL, "input=values", "vector=plots", "column=height")["maps"][0]
    assert (entry["units"], entry["rmse"], entry["bias"]) == (22, 0.5, 0.5)


def test_value_maps_and_their_difference(small):
    result = small.json(TOOL, "input=values,truth", "reference=float_truth", "difference=gap,none")
    assert [entry["rmse"] for entry in result["maps"]] == [0.5, 0.0]
    assert "min=0.5" in small.ok("r.info", "-r", "map=gap")
    rules = small.ok("r.colors.out", "map=gap").splitlines()
    assert rules[:3] == ["-0.5 0:0:255", "0 255:255:255", "0.5 255:0:0"]
    assert "Difference of values and float_truth" in small.ok("r.info", "-e", "map=gap")


def test_a_difference_map_may_be_named_with_its_mapset(small):
    small.ok(TOOL, "input=good", "reference=truth", "difference=full@PERMANENT")
    assert "full" in small.maps("raster")


def test_difference_maps_appear_together_or_not_at_all(grass):
    grass.ok("g.region", "n=4", "s=0", "w=0", "e=6", "rows=4", "cols=6")
    for number in (1, 2, 3):
        raster(grass, f"map{number}", f"{number}.5")
    colors = grass.mapset / "colr"
    colors.write_text("no map can have colours here")
    arguments = ("input=map1,map2", "reference=map3", "difference=one,two")
    assert "all maps are as they were before" in grass.error(TOOL, *arguments)
    assert grass.maps("raster") == ["map1", "map2", "map3"]
    colors.unlink()
    grass.ok(TOOL, *arguments)
    assert grass.maps("raster") == ["map1", "map2", "map3", "one", "two"]


def test_difference_map_has_pairs_labels_and_history(small):
    small.ok(TOOL, "input=good", "reference=truth", "difference=pairs")
    cells = small.ok("r.stats", "-cn", "input=pairs").split("\n")
    assert [line.split() for line in cells if line] == [["11", "6"], ["21", "3"], ["22", "3"], ["33", "4"]]
    labels = small.ok("r.category", "map=pairs", "separator=:")
    assert labels.split("\n")[:4] == ["11:water", "21:forest mapped as water", "22:forest", "33:field"]
    assert TOOL in small.ok("r.info", "-h", "map=pairs")


def test_labels_with_separators_stand_in_a_difference_map(small):
    for name in ("good", "truth"):
        small.ok("g.copy", f"raster={name},{name}_named")
        small.ok("r.category", f"map={name}_named", "separator=tab", "rules=-", stdin="1\twater: open\n2\ta|b, c\n")
    small.ok(TOOL, "input=good_named", "reference=truth_named", "difference=named_pairs")
    assert "21\ta|b, c mapped as water: open" in small.ok("r.category", "map=named_pairs", "separator=tab")


def test_virtual_maps_score_and_differ_like_those_they_are_made_of(small):
    for name in ("good", "truth"):
        for half, south in (("upper", 2), ("lower", 0)):
            small.ok("g.region", f"n={south + 2}", f"s={south}")
            raster(small, f"{name}_{half}", name)
        small.ok("g.region", "n=4", "s=0")
        small.ok("r.buildvrt", f"input={name}_upper,{name}_lower", f"output={name}_tiles")
        small.ok("r.colors", f"map={name}_tiles", f"raster={name}")
    expected = small.json(TOOL, "input=good", "reference=truth", "difference=pairs_of_maps")
    entry = small.json(TOOL, "input=good_tiles", "reference=truth_tiles", "difference=pairs_of_tiles")["maps"][0]
    assert entry["confusion_matrix"] == expected["maps"][0]["confusion_matrix"]
    listings = [small.ok("r.out.ascii", "-h", f"input=pairs_of_{kind}", "output=-") for kind in ("maps", "tiles")]
    assert listings[0] == listings[1]


def test_segments_count_as_objects(small):
    entry = small.json(TOOL, "input=good", "reference=truth", "segments=objects")["maps"][0]["segments"]
    assert entry["objects"] == 3
    # The second object is half right: of equals the class of the smaller category counts.
    assert entry["by_object"]["confusion_matrix"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert entry["by_area"]["confusion_matrix"] == [[8.0, 0, 0], [8.0, 0, 0], [0, 0, 8.0]]


def test_levels_of_a_table(small, tmp_path):
    table = tmp_path / "levels.csv"
    table.write_text("fine,coarse\n1,wet\n2,dry\n3,dry\n")
    every = small.json(TOOL, "input=good", "reference=truth", f"levels={table}")["maps"][0]
    assert [level["level"] for level in every["levels"]] == ["fine", "coarse"]
    assert every["levels"][1]["confusion_matrix"] == [[6, 0], [3, 7]]
    coarse = small.json(TOOL, "input=good", "reference=truth", f"levels={table}", "level=coarse")["maps"][0]
    assert coarse["confusion_matrix"] == [[6, 0], [3, 7]]
    assert [item["label"] for item in coarse["classes"]] == ["wet", "dry"]


def test_matrix_and_report_files(small, tmp_path):
    matrix, report = tmp_path / "matrix.csv", tmp_path / "report.html"
    small.ok(TOOL, "input=good", "reference=truth", f"matrix={matrix}", f"report={report}")
    rows = list(csv.reader(matrix.read_text().splitlines()))
    assert rows[0] == ["map", "reference", "1 water", "2 forest", "3 field", "total"]
    assert rows[2] == ["good", "2 forest", "3", "3", "0", "6"]
    assert rows[-1] == ["good", "total", "9", "3", "4", "16"]
    html = report.read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "http" not in html and 'src="data:' in html
    message = small.error(TOOL, "input=good", "reference=truth", f"matrix={matrix}")
    assert "exists" in message


def test_training_footprints_are_reported_apart(small):
    lines = "".join(
        f"{col + 0.5}|{3.5 - row}|{row * 6 + col + 1}|{'training' if row < 3 else 'test'}\n"
        for row in range(4)
        for col in range(6)
    )
    small.ok(
        "v.in.ascii",
        "input=-",
        "output=prints",
        "cat=3",
        "columns=x double precision, y double precision, cat int, part varchar(10)",
        stdin=lines,
    )
    done = small.run(TOOL, "input=good", "reference=truth", "footprints=prints", "format=json", GRASS_VERBOSE="1")
    zones = json.loads(done.stdout)["maps"][0]["training_footprints"]
    assert zones["inside"]["confusion_matrix"] == [[4, 0, 0], [2, 2, 0], [0, 0, 4]]
    assert zones["outside"]["confusion_matrix"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert "training footprints" in " ".join(done.stderr.split())


def test_misaligned_grids_are_said(small):
    region = "north: 4; south: 0; east: 6; west: 0; rows: 8; cols: 12; e-w resol: 0.5; n-s resol: 0.5; proj: 0; zone: 0"
    done = small.run(TOOL, "input=good", "reference=truth", "format=json", GRASS_REGION=region, GRASS_VERBOSE="1")
    assert "nearest neighbour" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["maps"][0]["units"] == 64
    done = small.run(TOOL, "input=good", "reference=truth", "segments=objects", "strata=poor", GRASS_REGION=region)
    said = " ".join(done.stderr.split())
    assert [said.count(f"<{name}> has cells of 1 x 1") for name in ("objects", "poor", "truth")] == [1, 1, 1]


def test_geographic_cells_weigh_by_their_area(grass_crs):
    session = grass_crs("EPSG:4326")
    session.ok("g.region", "n=60", "s=0", "w=0", "e=1", "rows=2", "cols=2")
    raster(session, "truth", "row()")
    raster(session, "map", "1")
    found = session.json(TOOL, "input=map", "reference=truth")["maps"][0]["confusion_matrix_area"]
    assert found[1][0] > 1.2 * found[0][0] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("input=nothing", "reference=truth"), "nothing"),
        (("input=good", "reference=nothing"), "nothing"),
        (("input=good",), "reference"),
        (("input=truth", "vector=plots", "column=name"), "none of Water, forest, moor is a label"),
        (("labels=plots", "column=name"), "model"),
        (("labels=plots", "column=name", "model=/nowhere", "matrix=m.csv"), "mutually exclusive"),
        (("labels=plots", "column=name", "model=/nowhere"), "model.json"),
        (("input=good", "reference=truth", "folds=3"), "requires"),
        (("input=good", "vector=nothing", "column=number"), "nothing"),
        (("input=good", "vector=plots", "column=colour"), "colour"),
        (("input=good", "vector=plots", "column=number", "where=number = 99"), "where="),
        (("input=good", "vector=plots", "column=number", "where=nonsense ="), "SQL"),
        (("input=values", "reference=truth"), "floating point"),
        (("input=values", "reference=float_truth", "segments=objects"), "segments="),
        (("input=good", "reference=truth", "segments=values"), "integers"),
        (("input=good", "reference=truth", "model=/nowhere"), "model.json"),
        (("input=good", "reference=truth", "matrix=/nowhere/m.csv"), "/nowhere"),
        (("input=good,poor", "reference=truth", "difference=one"), "one name per input map"),
        (("input=good,poor", "reference=truth", "difference=one,one"), "one name per input map"),
        (("input=good", "reference=truth", "difference=some@elsewhere"), "<some@elsewhere>"),
        (("input=good", "reference=truth", "difference=truth@PERMANENT", "--overwrite"), "not an input"),
        (("input=good", "reference=truth", "difference=MASK"), "<MASK>"),
        (("input=good", "reference=truth", "matrix=/tmp", "--overwrite"), "The option matrix= names a file"),
        (("input=good", "reference=truth", "report=/dev/null", "--overwrite"), "The option report= names a file"),
        (("input=good", "reference=truth", "matrix=same.txt", "report=same.txt"), "file of their own"),
        (("input=endless", "reference=float_truth"), "smaller than 1e+100"),
        (("input=values", "reference=endless"), "to inf"),
        (("input=good", "reference=truth", "footprints=plots"), "part"),
        (("input=good", "reference=truth", "memory=1.5"), "needs a whole number"),
    ],
)
def test_bad_input_is_one_line(small, arguments, words):
    assert words in small.error(TOOL, *arguments)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, grass_env) -> tuple[Grass, Path]:
    """Sixteen squares of two classes, of which number 6 has the wrong label; patches of cells and of 8 x 8 cells."""
    folder = tmp_path_factory.mktemp("labelled")
    session = new_mapset(folder, grass_env, "EPSG:32119")
    session.ok("g.region", "n=400", "s=0", "w=0", "e=400", "res=10")
    raster(session, "square", "((row() - 1) / 10) * 4 + (col() - 1) / 10")
    for band in (1, 2):
        raster(
            session,
            f"b{band}",
            f"1000 + 200 * ((square + square / 4) % 2 == {band - 1}) + (row() * 37 + col() * (60 + {band})) % 120",
        )
    session.ok("i.group", "group=scene", "input=b1,b2")
    session.ok("v.mkgrid", "map=squares", "grid=4,4")
    session.ok("v.db.addcolumn", "map=squares", "columns=use varchar(20)")
    for number, name in ((0, "meadow"), (1, "it''s wood")):
        where = f"where=((row - 1) * 4 + col - 1 + row - 1) % 2 = {number}"
        session.ok("v.db.update", "map=squares", "column=use", f"value={name}", where)
    session.ok("v.db.update", "map=squares", "column=use", "value=meadow", "where=row = 2 and col = 3")
    common = ("group=scene", "input=squares", "column=use", "split=none", "--quiet")
    session.ok("v.sample.patches", *common, "size=1", f"patches={folder}/cells", "output=cells")
    session.ok("v.sample.patches", *common, "size=8", "label=cells", f"patches={folder}/windows", "output=windows")
    for name in ("cells", "windows"):
        options = ("architecture=mlp", "hidden=8", "epochs=6", "learning_rate=0.02", "device=cpu", "--quiet")
        session.ok("r.learn.deep.train", f"patches={folder}/{name}", f"model={folder}/{name}_model", *options)
    keras = (f"patches={folder}/cells", f"model={folder}/keras_model", "backend=keras", *options)
    session.ok("r.learn.deep.train", *keras, **ONE_THREAD)
    return session, folder


@pytest.mark.parametrize("kind", ["cells", "windows", "keras"])
def test_a_wrong_label_is_found_and_written_to_the_vector(labelled, kind):
    session, folder = labelled
    wrong = int(session.ok("v.db.select", "-c", "map=squares", "columns=cat", "where=row = 2 and col = 3"))
    arguments = ("labels=squares", "column=use", f"model={folder}/{kind}_model", f"doubt={kind}", "folds=4")
    found = session.json(TOOL, *arguments, **ONE_THREAD)
    assert (found["folds"], len(found["areas"]), found["not_judged"]) == (4, 16, 0)
    worst = found["areas"][0]
    assert (worst["area"], worst["label"], worst["suggested"]["label"]) == (wrong, "meadow", "it's wood")
    assert worst["doubt"] > 0.5 > found["areas"][1]["doubt"]
    # Windows of 8 x 8 cells leave nothing of the 40 x 40 cells out.
    assert sum(row["cells"] for row in found["areas"]) == 1600
    assert {row["cells"] for row in found["areas"]} == {100}
    table = session.ok("v.db.select", "-c", "map=squares", f"columns=cat,{kind},{kind}_suggested,{kind}_cells")
    written = {int(row.split("|")[0]): row.split("|")[1:] for row in table.split("\n") if row}
    assert written[wrong][1:] == ["it's wood", "100"] and float(written[wrong][0]) == worst["doubt"]
    assert sum(bool(suggested) for _, suggested, _ in written.values()) == sum(
        row["suggested"] is not None for row in found["areas"]
    )
    assert "is not replaced unasked" in session.error(TOOL, *arguments)


def test_a_wrong_value_is_found_and_a_better_one_written(labelled):
    session, folder = labelled
    session.ok("v.db.addcolumn", "map=squares", "columns=height double precision")
    session.ok("v.db.update", "map=squares", "column=height", "query_column=20 + 10 * ((row + col) % 2)")
    wrong = int(session.ok("v.db.select", "-c", "map=squares", "columns=cat", "where=row = 3 and col = 2"))
    session.ok("v.db.update", "map=squares", "column=height", "value=20", f"where=cat = {wrong}")
    session.ok("v.db.update", "map=squares", "column=height", "query_column=NULL", "where=cat = 1")
    common = ("group=scene", "input=squares", "column=height", "split=none", "size=1", "--quiet")
    session.ok("v.sample.patches", *common, f"patches={folder}/heights", "output=heights")
    options = ("architecture=mlp", "hidden=8", "epochs=8", "learning_rate=0.02", "loss=mae", "device=cpu", "--quiet")
    session.ok("r.learn.deep.train", f"patches={folder}/heights", f"model={folder}/heights_model", *options)
    arguments = ("labels=squares", "column=height", f"model={folder}/heights_model", "doubt=odd", "folds=4")
    text = session.ok(TOOL, *arguments).split("\n")
    head, worst = (next(line.split() for line in text[number:] if line.strip()) for number in (3, 4))
    assert head == ["area", "label", "doubt", "suggested", "cells"]
    assert worst[:2] == [str(wrong), "20"] and float(worst[2]) > 3.5 and float(worst[3]) > 26 and worst[4] == "100"
    columns = "columns=odd,odd_suggested,odd_cells"
    table = session.ok("v.db.select", "-c", "map=squares", columns, f"where=cat in (1, {wrong})").split()
    assert table[0] == "||" and [float(entry) for entry in table[1].split("|")] == pytest.approx(
        [float(worst[2]), float(worst[3]), 100], rel=1e-4
    )


def test_labels_that_cannot_be_judged_are_refused(labelled):
    session, folder = labelled
    model = f"model={folder}/cells_model"
    assert "in use" in session.error(TOOL, "labels=squares", "column=use", model, "doubt=use", "--overwrite")
    assert "patch size" in session.error(
        TOOL, "labels=squares", "column=use", model, f"patches={folder}/windows", "doubt=other"
    )
    session.ok("g.mapset", "-c", "mapset=another", GIS_LOCK="1")
    try:
        session.ok("g.mapsets", "mapset=PERMANENT", "operation=add")
        assert "g.copy vector=squares@PERMANENT,squares" in session.error(TOOL, "labels=squares", "column=use", model)
    finally:
        session.ok("g.mapset", "mapset=PERMANENT", GIS_LOCK="1")


def test_no_overlap_is_refused_and_nothing_written(small):
    raster(small, "elsewhere", "if(isnull(good), 1, null())")
    message = small.error(TOOL, "input=good", "reference=elsewhere", "difference=never")
    assert "none in common" in message
    assert "never" not in small.maps("raster")


def test_unknown_level_and_broken_table_are_refused(small, tmp_path):
    table = tmp_path / "levels.csv"
    table.write_text("fine,coarse\n1,wet\n2,dry\n3,dry\n")
    assert "fine, coarse" in small.error(TOOL, "input=good", "reference=truth", f"levels={table}", "level=other")
    table.write_text("fine,coarse\n1,wet\n")
    assert "2 forest" in small.error(TOOL, "input=good", "reference=truth", f"levels={table}")


def test_temporary_maps_are_gone(small):
    small.ok(TOOL, "input=good", "vector=plots", "column=number")
    left = [name for kind in ("raster", "vector") for name in small.maps(kind) if name.startswith("tmp_")]
    assert left == []
    assert not list(Path(small.mapset).parent.glob("*.part"))
