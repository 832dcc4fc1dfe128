"""Labels that are numbers, several labels, and no labels: what reaches the directory."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import ArrayScene, area_scene, class_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.sampling.labels import (
    PointPlane,
    density_table,
    empty_table,
    feature_table,
    value_raster_table,
    value_table,
)
from rlearndeep.sampling.plan import make_plan
from rlearndeep.sampling.report import few_whole_numbers, plain_text, remarks, summarize
from rlearndeep.sampling.settings import Settings, Split
from rlearndeep.scene.codes import FIRST_CODE, NOTHING
from rlearndeep.scene.geometry import Region, Window
from rlearndeep.scene.tasks import Quantity
from test_label_rules import MAP, sample

HEIGHT = Quantity("height", "m")


def number_scene(values: np.ndarray, **other) -> tuple[ArrayScene, object]:
    """A scene with a raster of values; not a number means no label."""
    codes = np.where(np.isnan(values), NOTHING, FIRST_CODE)
    cells = np.arange(values.size).reshape(1, *values.shape)
    return ArrayScene(cells, codes, labels=values, **other), value_raster_table(HEIGHT)


NUMBERS = np.where(MAP > 0, MAP * 1.5 + np.arange(36).reshape(6, 6) / 100, np.nan)


def test_values_of_cells_are_their_own(tmp_path):
    ignored = np.zeros((6, 6), dtype=bool)
    ignored[0, 0] = True
    scene, table = number_scene(NUMBERS, ignored=ignored)
    plan, _, dataset = sample(scene, table, tmp_path)
    expected = np.where(ignored, np.nan, NUMBERS).astype(np.float32)
    for entry, labels in zip(dataset.index, dataset.labels, strict=True):
        cut = np.s_[entry["row"] : entry["row"] + 3, entry["col"] : entry["col"] + 3]
        np.testing.assert_array_equal(labels, expected[cut])
    assert (dataset.manifest.task, dataset.manifest.quantity, len(dataset.manifest.classes)) == ("value", HEIGHT, 0)
    assert dataset.index["labelled"].tolist() == [8, 7, 1, 9]
    assert (dataset.index["class"] == -1).all()
    assert "patches" in plain_text(summarize(plan, [scene])).splitlines()[0]


def test_few_whole_numbers_may_be_classes():
    values = np.array([[3, np.nan], [1, 3]], dtype=np.float32)
    assert few_whole_numbers(values) == [1, 3]
    assert few_whole_numbers(np.append(values, 0.5)) is None
    assert few_whole_numbers(np.arange(100, dtype=np.float32)) is None


def test_majority_of_values_is_the_mean_of_the_labelled_cells(tmp_path):
    nulls = np.zeros((6, 6), dtype=bool)
    nulls[0, 0] = True
    _, _, dataset = sample(*number_scene(NUMBERS, nulls=nulls), tmp_path, rule="majority", max_null=20.0)
    known = np.where(nulls, np.nan, NUMBERS)
    expected = [np.nanmean(known[:3, :3]), np.nanmean(known[:3, 3:]), np.nanmean(known[3:, 3:])]
    np.testing.assert_allclose(dataset.labels, expected, rtol=1e-6)


def test_center_of_values_is_the_value_of_the_centre_cell(tmp_path):
    _, _, dataset = sample(*number_scene(NUMBERS), tmp_path, rule="center")
    np.testing.assert_array_equal(dataset.labels, NUMBERS[[1, 1, 4, 4], [1, 4, 1, 4]].astype(np.float32))


@pytest.mark.parametrize("rule", ["inside", "object"])
def test_a_patch_of_one_area_has_the_value_of_the_area(tmp_path, rule):
    areas = np.zeros((6, 6), dtype=int)
    areas[:3, :3], areas[3:, 3:], areas[4, 4] = 1, 2, 3
    scene, _ = area_scene(areas, {1: 1, 2: 2, 3: 3})
    table = value_table([(1,), (2,), (3,)], [1, 2, 3], {1: 0.1, 2: 7.25, 3: 9.5}, HEIGHT)
    _, _, dataset = sample(scene, table, tmp_path, rule=rule, size=(3, 3))
    found = dict(zip(dataset.index["area"].tolist(), dataset.labels.tolist(), strict=True))
    expected = {1: np.float32(0.1)} if rule == "inside" else {1: np.float32(0.1), 2: 7.25, 3: 9.5}
    assert found == expected


def test_where_features_meet_a_cell_has_their_mean_if_all_have_a_value():
    table = value_table([(1, 2), (1, 3), (3,), (9,)], [1, 2, 3], {1: 1.0, 2: 4.0}, HEIGHT)
    np.testing.assert_array_equal(table.values, [np.nan, np.nan, 2.5, np.nan, np.nan, np.nan])
    assert table.class_of.tolist() == [-1, -1, 0, -1, -1, -1]


def test_density_is_the_number_of_points_cut_at_a_percentile_of_the_cells_that_have_some(tmp_path):
    # Cells with 1, 2, 3, 4 and 10 points; the 75th percentile of these is 4.
    counts = {(0, 0): 1, (1, 1): 2, (2, 2): 3, (4, 1): 4, (5, 5): 10}
    places = [cell for cell, number in counts.items() for _ in range(number)]
    region = Region(60.0, 0.0, 60.0, 0.0, 6, 6)
    row, col = np.array(places).T
    plane = PointPlane.of(region, col * 10.0 + 5, 60 - row * 10.0 - 5, np.arange(len(places)))
    table, full = density_table(plane.counts, 75.0)
    assert (full, table.quantity) == (4.0, Quantity("density", "4 points per cell"))
    codes = plane.read(Window(0, 6, 0, 6))
    scene = ArrayScene(np.arange(36).reshape(1, 6, 6), codes)
    _, _, dataset = sample(scene, table, tmp_path, rule="density")
    expected = np.zeros((6, 6), dtype=np.float32)
    for cell, number in counts.items():
        expected[cell] = min(number, 4) / 4
    for entry, labels in zip(dataset.index, dataset.labels, strict=True):
        cut = np.s_[entry["row"] : entry["row"] + 3, entry["col"] : entry["col"] + 3]
        np.testing.assert_array_equal(labels, expected[cut])
    assert (dataset.index["labelled"] == 9).all()


def test_a_density_of_no_points_at_all_is_refused():
    plane = PointPlane.of(Region(2.0, 0.0, 2.0, 0.0, 2, 2), np.array([5.5]), np.array([1.5]), np.array([1]))
    with pytest.raises(DeepLearningError, match="none lies in the region"):
        density_table(plane.counts, 97.0)


def test_presence_says_of_each_class_whether_a_cell_has_it(tmp_path):
    full = np.where(MAP == 0, 4, MAP)
    plan, _, dataset = sample(*class_scene(full), tmp_path, rule="presence")
    assert dataset.labels.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 0]]
    assert plan.task == "presence"
    assert dataset.index["class"].tolist() == [0, 1, 3, 1]


def test_presence_needs_all_cells_labelled_unless_told_otherwise(tmp_path):
    _, _, dataset = sample(*class_scene(MAP), tmp_path, rule="presence")
    assert dataset.labels.tolist() == [[1, 0], [0, 1]]
    assert (dataset.index["labelled"] == 9).all()
    plan, _, dataset = sample(*class_scene(MAP), tmp_path, rule="presence", min_labelled=10.0)
    assert dataset.labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert len(plan.classes) == 3


def test_patches_without_labels_are_everywhere_and_all_for_training(tmp_path):
    nulls = np.zeros((6, 6), dtype=bool)
    nulls[0, 0] = True
    scene = ArrayScene(np.arange(36).reshape(1, 6, 6), np.zeros((6, 6), dtype=int), nulls)
    plan, _, dataset = sample(scene, empty_table(), tmp_path, split=Split())
    assert (len(dataset), plan.dropped.null) == (3, 1)
    assert (dataset.labels == 255).all() and dataset.labels.shape == (3,)
    assert (dataset.manifest.unit, dataset.manifest.rule, dataset.manifest.task) == ("patch", "none", "class")
    assert (plan.part == 0).all()
    assert remarks(plan, Settings(size=(3, 3)), summarize(plan, [scene])) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_equal_brute_force(tmp_path, data):
    """For any small scene with nulls, gaps and ignored cells: the labels are what a plain loop finds."""
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    rows, cols = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    size = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    rule = data.draw(st.sampled_from(["cells", "majority", "center"]))
    values = np.where(random.random((rows, cols)) < 0.3, np.nan, random.normal(5, 2, (rows, cols)))
    nulls, ignored = random.random((2, rows, cols)) < 0.1
    known = np.where(nulls | ignored, np.nan, values)
    expected = []
    for row in range(0, rows - size[0] + 1, size[0]):
        for col in range(0, cols - size[1] + 1, size[1]):
            cut = np.s_[row : row + size[0], col : col + size[1]]
            label = known[cut] if rule == "cells" else known[row + size[0] // 2, col + size[1] // 2]
            if rule == "majority" and not np.isnan(known[cut]).all():
                label = np.nanmean(known[cut])
            if not np.isnan(known[cut]).all() and not np.isnan(label).all():
                expected.append(label)
    scene, table = number_scene(values, nulls=nulls, ignored=ignored)
    wishes = {"size": size, "rule": rule, "max_null": 100.0, "min_labelled": 0.0}
    if not expected:
        with pytest.raises(DeepLearningError):
            sample(scene, table, tmp_path, **wishes)
        return
    _, _, dataset = sample(scene, table, tmp_path, **wishes)
    np.testing.assert_allclose(dataset.labels.reshape(len(dataset), -1), np.reshape(expected, (len(dataset), -1)), 1e-6)


@pytest.mark.parametrize(
    ("wishes", "has_areas", "words"),
    [
        ({"split": Split(kind="class")}, True, "split=class needs classes; <height>"),
        ({"per_class": 3}, True, "per_class= needs classes"),
        ({"background": 0}, True, "background= needs classes"),
        ({"rule": "presence"}, True, "label=presence needs classes"),
        ({"rule": "inside"}, False, "label=inside of a raster"),
    ],
)
def test_what_needs_classes_is_refused_for_values(wishes, has_areas, words):
    with pytest.raises(DeepLearningError, match=words):
        Settings(size=(2, 2), **wishes).check_values("height", has_areas)
    scene, table = number_scene(NUMBERS)
    if not has_areas:
        with pytest.raises(DeepLearningError, match=words):
            make_plan([scene], table, Settings(size=(2, 2), **wishes))


@pytest.mark.parametrize(
    "wishes",
    [{"rule": "inside"}, {"per_class": 3}, {"split": Split(kind="random")}, {"min_labelled": 3.0}, {"background": 0}],
)
def test_what_needs_labels_is_refused_without_them(wishes):
    with pytest.raises(DeepLearningError, match="neither input= nor raster="):
        Settings(size=(2, 2), **wishes).check_labels("", "", "", "")
    Settings(size=(2, 2)).check_labels("", "", "", "")


def test_density_takes_no_column_and_other_rules_need_one():
    with pytest.raises(DeepLearningError, match="no use for a column"):
        Settings(size=(2, 2), rule="density").check_labels("points", "", "height", "")
    with pytest.raises(DeepLearningError, match="need column="):
        Settings(size=(2, 2)).check_labels("points", "", "", "")
    Settings(size=(2, 2), rule="density").check_labels("points", "", "", "")


def test_density_cannot_be_split_by_features():
    with pytest.raises(DeepLearningError, match="split=column divides features; got label=density"):
        Settings(size=(2, 2), rule="density", split=Split(kind="column"))


def test_a_layer_needs_a_vector() -> None:
    for vector, raster, column in (("", "classes", ""), ("", "", "")):
        with pytest.raises(DeepLearningError, match="layer=2 without input="):
            Settings(size=(2, 2)).check_labels(vector, raster, column, "", "2")
        Settings(size=(2, 2)).check_labels(vector, raster, column, "", "1")
    Settings(size=(2, 2)).check_labels("areas", "", "class", "", "2")


def test_groups_of_values_can_be_split_by_a_column(tmp_path):
    table = value_table([(1,), (2,), (3,)], [1, 2, 3], {1: 1.0, 2: 2.0, 3: 3.0}, HEIGHT, {1: "a", 2: "b", 3: "c"})
    areas = np.kron(np.array([[1, 0, 2, 0, 3]]), np.ones((2, 2), dtype=int))
    scene, _ = area_scene(areas, {1: 1, 2: 1, 3: 1})
    split = Split(kind="column", validation=("b",), test=("c",), buffer=0.0)
    _, _, dataset = sample(scene, table, tmp_path, size=(2, 2), split=split)
    assert dict(zip(dataset.index["part"].tolist(), dataset.labels[:, 0, 0].tolist(), strict=True)) == {
        0: 1.0,
        1: 2.0,
        2: 3.0,
    }
    assert feature_table([(1,)], [1], table.classes, {1: 1}).quantity is None
