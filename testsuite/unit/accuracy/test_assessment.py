"""From strips to the result, against counting by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rlearndeep.accuracy.assessment import Assessment, value_result
from rlearndeep.accuracy.counting import ClassCounting, Layers, Points, ValueCounting, codings_of
from rlearndeep.accuracy.difference import DifferenceCoding
from rlearndeep.accuracy.levels import LevelTable, common_levels, own_level
from rlearndeep.accuracy.metrics import count_pairs
from rlearndeep.accuracy.remarks import remarks
from rlearndeep.accuracy.report import html_report
from rlearndeep.accuracy.tally import Coding, Layout
from rlearndeep.accuracy.text import area_digits, matrix_table, plain_text
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Window

NULL = np.iinfo(np.int32).min
TABLE = ClassTable((MapClass(1, "water"), MapClass(2, "forest"), MapClass(3, "field")))
HEAD = {
    "kind": "classes",
    "reference": "truth",
    "reference_kind": "raster",
    "unit": "cells",
    "cells": 600,
    "area_unit": "m2",
}


def scene(seed: int, layers: int = 2) -> np.ndarray:
    """Class rasters of 20 x 30 cells that agree in most cells, a tenth of each null."""
    random = np.random.default_rng(seed)
    truth = random.integers(1, 4, (20, 30))
    values = [np.where(random.random(truth.shape) < 0.7, truth, random.integers(1, 4, truth.shape))]
    values += [np.where(random.random(truth.shape) < 0.5, truth, random.integers(1, 4, truth.shape))] * (layers - 2)
    stack = np.stack([*values, truth]).astype(np.int32)
    stack[random.random(stack.shape) < 0.1] = NULL
    return stack


def strips(stack: np.ndarray, rows: int = 7):
    for start in range(0, stack.shape[1], rows):
        window = Window(start, min(start + rows, stack.shape[1]), 0, stack.shape[2])
        yield window, stack[:, window.row_start : window.row_stop]


def assess(stack, layers, layout_options=None, areas=None, sample=False, training=None):
    codings = codings_of([TABLE.categories] * layers.maps)
    layout = Layout(codings, Coding.of(TABLE.categories), **(layout_options or {}))
    areas = np.full(stack.shape[1], 4.0) if areas is None else areas
    counts = ClassCounting(layers, layout, areas, training).cells(strips(stack))
    names = tuple(f"map{number}" for number in range(layers.maps))
    return Assessment(names, counts, (own_level([TABLE] * layers.maps, TABLE),), sample).result()


def test_matrix_equals_counting_the_arrays():
    stack = scene(1)
    result = assess(stack, Layers(1, 1))
    expected = count_pairs(TABLE.indices_of(stack[1]), TABLE.indices_of(stack[0]), 3)
    entry = result["maps"][0]
    assert entry["confusion_matrix"] == expected.tolist()
    assert entry["confusion_matrix_area"] == (expected * 4.0).tolist()
    assert entry["units"] == expected.sum()
    assert entry["null"] == ((stack[0] == NULL) & (stack[1] != NULL)).sum()
    assert result["without_reference"] == (stack[1] == NULL).sum()


def test_areas_of_unequal_rows_weigh_the_area_matrix():
    stack, areas = scene(2), np.linspace(1, 2, 20)
    found = np.array(assess(stack, Layers(1, 1), areas=areas)["maps"][0]["confusion_matrix_area"])
    cells = np.repeat(areas[:, None], 30, axis=1)
    assert found[0, 1] == pytest.approx(cells[(stack[1] == 1) & (stack[0] == 2)].sum())


def test_two_maps_are_compared_on_cells_both_know():
    stack = scene(3, 3)
    found = assess(stack, Layers(2, 2))["comparisons"][0]
    known = (stack != NULL).all(axis=0)
    right = [(stack[number] == stack[2]) & known for number in (0, 1)]
    assert found["units"] == known.sum()
    assert found["right"]["first"] == (right[0] & ~right[1]).sum()
    assert found["right"]["neither"] == (known & ~right[0] & ~right[1]).sum()


def test_cells_inside_training_footprints_are_reported_apart():
    stack = scene(4)
    mask = np.zeros(stack.shape[1:], dtype=bool)
    mask[5:12, 3:20] = True
    result = assess(stack, Layers(1, 1), {"zones": True}, training=lambda window: mask[window.slices])
    zones = result["maps"][0]["training_footprints"]
    inside = count_pairs(TABLE.indices_of(stack[1])[mask], TABLE.indices_of(stack[0])[mask], 3)
    assert zones["inside"]["confusion_matrix"] == inside.tolist()
    assert zones["units"] == inside.sum()
    total = np.array(zones["inside"]["confusion_matrix"]) + np.array(zones["outside"]["confusion_matrix"])
    assert total.tolist() == result["maps"][0]["confusion_matrix"]
    assert "inside training footprints" in remarks({**HEAD, **result})[0]


def test_each_segment_is_one_object():
    segments = np.array([[5, 5, 5, 6, 6, 8]], np.int32)
    truth = np.array([[1, 1, 2, 2, NULL, NULL]], np.int32)
    mapped = np.array([[1, 2, 1, 3, 3, 1]], np.int32)
    stack = np.stack([mapped, truth, segments])
    found = assess(stack, Layers(1, 1, segments=2), {"segments": (5, 8)})["maps"][0]["segments"]
    assert (found["objects"], found["without_reference"]) == (2, 1)
    assert found["by_object"]["confusion_matrix"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert found["by_area"]["confusion_matrix"] == [[12.0, 0, 0], [0, 0, 8.0], [0, 0, 0]]


def test_points_count_once_each_and_areas_come_from_the_whole_map():
    stack = np.array([[[1, 1, 1, 2], [1, 1, 2, NULL]]], np.int32)
    points = Points(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 3, 0, 2, 3]), np.array([1, 2, 2, 1, 2, 1]))
    layout = Layout(codings_of([TABLE.categories]), Coding.of(TABLE.categories))
    counts = ClassCounting(Layers(1), layout, np.full(2, 10.0)).points(strips(stack, 1), points)
    result = Assessment(("m",), counts, (own_level([TABLE], TABLE),), True).result()
    entry = result["maps"][0]
    assert entry["confusion_matrix"] == [[2, 0], [1, 2]]
    assert entry["null"] == 1
    assert [item["mapped_area"] for item in entry["area"]["classes"]] == [50.0, 20.0]
    assert entry["area"]["classes"][0]["area"]["value"] == pytest.approx(50 * 2 / 3)


def test_given_strata_weight_a_sample_of_cells():
    mapped = np.array([[1, 1, 2, 2, 1, 1, 2, 2]], np.int32)
    truth = np.array([[1, 2, 2, 2, NULL, NULL, NULL, NULL]], np.int32)
    strata = np.array([[9, 9, 7, 7, 7, 7, 7, 7]], np.int32)
    found = assess(
        np.stack([mapped, truth, strata]), Layers(1, 1, strata=2), {"strata": Coding.of([7, 9])}, sample=True
    )["maps"][0]["area"]
    assert found["overall_accuracy"]["value"] == pytest.approx(6 / 8 * 1.0 + 2 / 8 * 0.5)


def test_estimates_speak_of_the_ground_that_map_and_strata_know():
    mapped = np.array([[1, 1, 2, 2, NULL, NULL, NULL, 2, 3]], np.int32)
    truth = np.array([[1, 2, 2, NULL, 1, NULL, NULL, 2, NULL]], np.int32)
    strata = np.array([[9, 9, 7, 7, 7, 7, 7, NULL, NULL]], np.int32)
    found = assess(
        np.stack([mapped, truth, strata]), Layers(1, 1, strata=2), {"strata": Coding.of([7, 9])}, sample=True
    )["maps"][0]["area"]
    assert (found["strata"], found["without_stratum"], found["total"]) == (2, 1, 16.0)
    assert found["overall_accuracy"]["value"] == pytest.approx(0.75)
    assert [(item["category"], item["mapped_area"]) for item in found["classes"]] == [(1, 8.0), (2, 8.0)]


def test_maps_without_common_cells_are_refused():
    stack = np.array([[[1, NULL]], [[NULL, 1]]], np.int32)
    with pytest.raises(DeepLearningError, match="none in common"):
        assess(stack, Layers(1, 1))


def test_difference_codes_say_which_class_is_mapped_as_which():
    level = own_level([TABLE], ClassTable((MapClass(2, ""), MapClass(12, ""))))
    coding = DifferenceCoding.at(level, 0, NULL)
    assert coding.base == 100
    table = coding.table().reshape(3, 4)
    assert table[0].tolist() == [201, 202, 203, NULL]
    assert table[1].tolist() == [1201, 1202, 1203, NULL]
    assert set(table[2].tolist()) == {NULL}
    labels = {entry.category: entry.label for entry in coding.class_table(np.array([202, 201]))}
    assert labels == {202: "forest", 201: "forest mapped as water"}


def test_difference_of_negative_categories_counts_positions():
    table = ClassTable((MapClass(-5, ""), MapClass(4, "")))
    assert DifferenceCoding.at(own_level([table], table), 0, NULL).numbers.tolist() == [1, 2]


def test_values_are_scored_and_nulls_counted():
    stack = np.array([[[1.0, 2.0, np.nan, 4.0]], [[1.0, 4.0, 3.0, np.nan]]])
    counts = ValueCounting(Layers(1, 1), (0.0, 4.0)).cells(strips(stack))
    entry = value_result(["v"], counts, zones=False)["maps"][0]
    assert (entry["units"], entry["null"], entry["bias"]) == (2, 1, -1.0)
    assert entry["rmse"] == pytest.approx(np.sqrt(2.0))
    assert counts[0].scatter.sum() == 2
    assert counts[0].without_reference == 1


def test_values_inside_training_footprints_are_summed_apart():
    stack = np.array([[[1.0, 2.0, 3.0, 9.0]], [[1.0, 4.0, 3.0, 5.0]]])
    mask = np.array([[False, True, False, True]])
    counts = ValueCounting(Layers(1, 1), (0.0, 9.0), lambda window: mask).cells(strips(stack))
    entry = value_result(["v"], counts, zones=True)["maps"][0]
    zones = entry["training_footprints"]
    assert (zones["units"], zones["share"], zones["inside"]["mae"], zones["outside"]["mae"]) == (2, 0.5, 3.0, 0.0)
    assert entry["mae"] == 1.5


def test_areas_of_values_give_their_value_to_their_cells():
    stack = np.array([[[1.0, 2.0, 3.0]], [[5.0, 7.0, 6.0]]])
    values = np.array([5, 7]), np.array([1.5, 2.0])
    entry = ValueCounting(Layers(1, 1), (0.0, 3.0), values=values).cells(strips(stack))[0]
    assert (entry.outside.count, entry.outside.error, entry.without_reference) == (2, -0.5, 1)


def test_result_is_json_text_and_a_report_without_links():
    stack = scene(5, 3)
    stack = np.concatenate([stack, np.full((1, 20, 30), 4, np.int32)])

    def half(window: Window) -> np.ndarray:
        return np.full(window.shape, window.row_start == 0)

    found = assess(stack, Layers(2, 2, segments=3), {"segments": (4, 4), "zones": True}, training=half)
    result = {**HEAD, **found}
    json.dumps(result, allow_nan=False)
    text = plain_text(result)
    assert "McNemar" in text and "user's accuracy" in text and "1 water" in text
    html = html_report(result, [], "r.learn.deep.evaluate <b>")
    assert html.count("data:image/png;base64,") == 4
    assert "http" not in html and "<script" not in html and "&lt;b&gt;" in html


def test_matrix_table_names_rows_and_columns():
    stack = scene(6)
    lines = matrix_table({**HEAD, **assess(stack, Layers(1, 1))}).splitlines()
    assert lines[0] == "map,reference,1 water,2 forest,3 field,total"
    known = (stack != NULL).all(axis=0)
    assert lines[1].startswith("map0,1 water,")
    assert lines[-1].split(",")[-1] == str(known.sum())
    rows = np.array([line.split(",")[2:] for line in lines[1:]], dtype=int)
    assert rows[-1].tolist() == rows[:-1].sum(axis=0).tolist() and (rows[:, -1] == rows[:, :-1].sum(axis=1)).all()
    assert rows[:3, :3].tolist() != rows[:3, :3].T.tolist()  # or lines and columns could be exchanged unseen


@pytest.mark.parametrize(
    ("hectares", "digits"), [(900000, 0), (1000, 0), (999, 1), (9.29, 3), (0.02, 5), (1e-9, 6), (0, 0)]
)
def test_areas_are_printed_with_four_figures_at_least(hectares, digits):
    assert area_digits({"total": hectares * 10000.0}, 1e-4) == digits


def test_maps_of_different_levels_have_columns_of_their_own_in_the_matrix_table():
    def entry(name: str, matrix: list, *classes: tuple[int, str]) -> dict:
        listed = [{"category": category, "label": label} for category, label in classes]
        return {"map": name, "classes": listed, "confusion_matrix": matrix}

    fine = entry("fine", [[8, 4, 0], [0, 2, 4], [0, 0, 6]], (1, "a"), (2, "b"), (3, "3"))
    coarse = entry("coarse", [[9, 9], [0, 6]], (10, "10"), (3, "3"))
    assert matrix_table({"maps": [fine, coarse]}).splitlines() == [
        "map,reference,1 a,2 b,3,10,total",
        "fine,1 a,8,4,0,,12",
        "fine,2 b,0,2,4,,6",
        "fine,3,0,0,6,,6",
        "fine,total,8,6,10,,24",
        "coarse,10,,,9,9,18",
        "coarse,3,,,6,0,6",
        "coarse,total,,,15,9,24",
    ]


CORINE = (2, 4, 3, 2, 3, 3, 1, 4, 3, 4, 5, 2, 3, 2, 3)
"""Classes of the third level in each of the fifteen of the second one."""

MIDDLE = (11, 12, 13, 14, 21, 22, 23, 24, 31, 32, 33, 41, 42, 51, 52)


def test_agreement_at_five_fifteen_and_forty_four_classes(tmp_path):
    fine = [
        10 * middle + number for middle, count in zip(MIDDLE, CORINE, strict=True) for number in range(1, count + 1)
    ]
    file = tmp_path / "corine.csv"
    file.write_text("fine,middle,broad\n" + "".join(f"{code},{code // 10},{code // 100}\n" for code in fine))
    random = np.random.default_rng(4)
    truth = random.choice(fine, (20, 60))
    mapped = np.where(random.random(truth.shape) < 0.5, truth, random.choice(fine, truth.shape))
    coarse = np.where(random.random(truth.shape) < 0.5, truth // 10, random.choice(MIDDLE, truth.shape))
    stack = np.stack([mapped, coarse, truth]).astype(np.int32)
    tables = [ClassTable(tuple(MapClass(code, "") for code in codes)) for codes in (fine, MIDDLE, fine)]
    levels = common_levels(LevelTable.read(file), tables[:2], tables[2])
    layout = Layout(codings_of([table.categories for table in tables[:2]]), Coding.of(tables[2].categories))
    counts = ClassCounting(Layers(2, 2), layout, np.full(20, 1.0)).cells(strips(stack))
    result = Assessment(("new", "old"), counts, levels).result()
    found = [{level["level"]: level for level in entry["levels"]} for entry in result["maps"]]
    assert [len(level["classes"]) for level in found[0].values()] == [44, 15, 5]
    assert list(found[1]) == ["middle", "broad"]  # a coarser map takes part from its level on
    for name, factor in (("fine", 1), ("middle", 10), ("broad", 100)):
        assert found[0][name]["overall_accuracy"] == pytest.approx((mapped // factor == truth // factor).mean())
    for name, factor in (("middle", 10), ("broad", 100)):
        assert found[1][name]["overall_accuracy"] == pytest.approx((coarse * 10 // factor == truth // factor).mean())
    assert [pair["level"] for pair in result["comparisons"]] == ["middle", "broad"]
