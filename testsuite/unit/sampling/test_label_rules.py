"""Each label rule on hand-made maps of 6x6 cells, and against brute force on random scenes."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import area_scene, class_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.sampling.labels import feature_table
from rlearndeep.sampling.plan import describe, make_plan, write_plan
from rlearndeep.sampling.settings import Settings, Split

NO_SPLIT = Split(kind="none")

MAP = np.array(
    [
        [1, 1, 1, 0, 2, 2],
        [1, 1, 1, 0, 2, 2],
        [1, 1, 1, 2, 2, 2],
        [0, 0, 0, 2, 2, 2],
        [0, 3, 0, 2, 2, 2],
        [0, 0, 0, 2, 2, 2],
    ]
)


@pytest.fixture(autouse=True)
def narrow_strips(monkeypatch):
    """Patches cross the borders of many strips."""
    for room in ("survey", "writing"):
        monkeypatch.setattr(f"rlearndeep.sampling.{room}.strip_rows", lambda *_: 2)


def sample(scene, table, tmp_path, points=None, **wishes):
    """Plan and directory of a scene; parts none, duplicates kept unless wished otherwise."""
    wishes = {"size": (3, 3), "split": NO_SPLIT, "drop_duplicates": False, "memory": 1} | wishes
    asked = Settings(**wishes)
    plan = make_plan([scene], table, asked, points)
    with PatchWriter(tmp_path / "p", describe(plan, [scene], asked), len(plan.patches), overwrite=True) as writer:
        plan, sources = write_plan(plan, [scene], asked, writer)
        writer.commit(describe(plan, [scene], asked))
    return plan, sources[0].statistics, PatchDataset.open(tmp_path / "p")


def test_cells_carry_their_own_classes_and_unlabelled_cells_none(tmp_path):
    _, _, dataset = sample(*class_scene(MAP), tmp_path)
    assert dataset.index["row"].tolist() == [0, 0, 3, 3]
    expected = np.stack([MAP[:3, :3], MAP[:3, 3:], MAP[3:, :3], MAP[3:, 3:]]).astype(int) - 1
    np.testing.assert_array_equal(dataset.read_labels(np.arange(4)), expected)
    assert dataset.index["labelled"].tolist() == [9, 7, 1, 9]
    assert dataset.index["class"].tolist() == [0, 1, 2, 1]


def test_majority_needs_half_of_the_cells_unless_told_otherwise(tmp_path):
    _, _, dataset = sample(*class_scene(MAP), tmp_path, rule="majority")
    assert dataset.labels.tolist() == [0, 1, 1]
    _, _, dataset = sample(*class_scene(MAP), tmp_path, rule="majority", min_labelled=10.0)
    assert dataset.labels.tolist() == [0, 1, 2, 1]


def test_majority_of_a_tie_is_the_smaller_category(tmp_path):
    tie = np.array([[2, 1], [2, 1]])
    plan, _, dataset = sample(*class_scene(tie), tmp_path, rule="majority", size=(2, 2))
    assert plan.classes.categories[dataset.labels[0]] == 1


@pytest.mark.parametrize(("size", "cell"), [(3, (1, 1)), (2, (1, 1)), (5, (2, 2)), (4, (2, 2)), (1, (0, 0))])
def test_center_takes_the_middle_cell_or_the_one_below_and_right_of_the_middle(tmp_path, size, cell):
    marked = np.zeros((size, size), dtype=int)
    marked[cell] = 1
    _, _, dataset = sample(*class_scene(marked), tmp_path, rule="center", size=(size, size))
    assert dataset.labels.tolist() == [0]


def test_inside_means_not_one_cell_outside_the_area_nor_in_a_second_one(tmp_path):
    areas = np.array(
        [
            [1, 1, 1, 2, 2, 2],
            [1, 1, 1, 2, 2, 2],
            [1, 1, 1, 2, 2, 0],
            [3, 3, 4, 5, 5, 5],
            [3, 3, 4, 5, 5, 5],
            [3, 3, 4, 5, 5, 6],
        ]
    )
    # Areas 3 and 4 have one class; code 6 is where the areas 5 and 7 overlap.
    classes = {1: 10, 2: 20, 3: 30, 4: 30, 5: 40, 7: 40}
    scene, table = area_scene(areas, classes, {6: (5, 7)})
    plan, _, dataset = sample(scene, table, tmp_path, rule="inside")
    assert [(row["row"], row["col"], row["area"]) for row in dataset.index] == [(0, 0, 1)]
    assert plan.dropped.unlabelled == 3
    assert plan.classes.categories.tolist() == [10]


@pytest.mark.parametrize("how", ["uncovered", "ignored", "null", "without label"])
def test_inside_counts_cells_that_have_no_label_too(tmp_path, how):
    """One cell of the patch that is not of the area, for whatever reason, and the patch is not inside."""
    areas = np.ones((3, 6), dtype=int)
    if how in ("uncovered", "without label"):
        areas[1, 1] = 0 if how == "uncovered" else 2
    scene, table = area_scene(areas, {1: 10} | ({2: 20} if how == "without label" else {}))
    if how == "without label":
        table = feature_table([(1,), (2,)], [1, 2], table.classes, {1: 10})
    if how == "ignored":
        scene.ignored = np.zeros((3, 6), dtype=bool)
        scene.ignored[1, 1] = True
    nulls = np.zeros((3, 6), dtype=bool)
    nulls[1, 1] = how == "null"
    scene.nulls = nulls
    _, _, dataset = sample(scene, table, tmp_path, rule="inside", max_null=50.0)
    # A null of the imagery lies in the area all the same.
    assert dataset.index["col"].tolist() == ([0, 3] if how == "null" else [3])


def test_object_is_the_box_of_an_area_in_the_upper_left_corner_padded(tmp_path):
    areas = np.zeros((6, 6), dtype=int)
    areas[1:3, 2:5] = 1
    areas[4, 0] = 2
    areas[5, 1] = 2
    scene, table = area_scene(areas, {1: 7, 2: 8})
    plan, _, dataset = sample(scene, table, tmp_path, rule="object", size=None)
    assert plan.size == (2, 3)
    valid, image = dataset.valid(), dataset.images()[:, 0]
    assert dataset.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(image[0], scene.values[0, 1:3, 2:5])
    np.testing.assert_array_equal(image[1], [[24, 25, 0], [30, 31, 0]])
    np.testing.assert_array_equal(valid[1], [[True, True, False]] * 2)
    assert valid[0].all()


def test_the_box_of_an_object_reaches_where_it_overlaps_another(tmp_path):
    # Area 1 fills rows 0-2, area 2 rows 2-4, area 3 lies within area 1, area 4 has another class than area 2.
    areas = np.zeros((8, 6), dtype=int)
    areas[0:2, 0:4], areas[2, 0:4], areas[3:5, 0:4], areas[1, 1] = 1, 5, 2, 3
    areas[3, 3], areas[3, 4:6] = 7, 4
    members = {5: (1, 2), 3: (1, 3), 7: (2, 4)}
    scene, table = area_scene(areas, {1: 7, 2: 7, 3: 7, 4: 8}, members)
    _, _, dataset = sample(scene, table, tmp_path, rule="object", size=(4, 5), max_null=100.0)
    index = dataset.index[np.argsort(dataset.index["area"])]
    assert index["area"].tolist() == [1, 2, 3, 4]
    assert list(zip(index["row"].tolist(), index["col"].tolist(), strict=True)) == [(0, 0), (2, 0), (1, 1), (3, 3)]
    shapes = {area: valid.nonzero() for area, valid in zip(dataset.index["area"], dataset.valid(), strict=True)}
    ends = [(shapes[area][0].max() + 1, shapes[area][1].max() + 1) for area in (1, 2, 3, 4)]
    assert ends == [(3, 4), (3, 4), (1, 1), (1, 3)]
    assert index["labelled"].tolist() == [12, 11, 1, 2]
    assert dataset.manifest.classes.categories[index["class"]].tolist() == [7, 7, 7, 8]


def test_an_object_larger_than_size_is_left_out_and_counted(tmp_path):
    areas = np.zeros((6, 6), dtype=int)
    areas[0:4, 0:4] = 1
    areas[5, 5] = 2
    plan, _, dataset = sample(*area_scene(areas, {1: 7, 2: 8}), tmp_path, rule="object", size=(2, 2))
    assert dataset.index["area"].tolist() == [2]
    assert plan.dropped.edge == 1
    assert not dataset.valid()[0, 1].any()


def test_null_cells_are_stored_as_zero_and_have_no_label(tmp_path):
    nulls = np.zeros((6, 6), dtype=bool)
    nulls[1, 1] = True
    plan, statistics, dataset = sample(*class_scene(MAP, nulls=nulls), tmp_path, max_null=20.0)
    assert not dataset.valid()[0, 1, 1]
    assert dataset.images()[0, 0, 1, 1] == 0
    assert dataset.read_labels(np.array([0]))[0, 1, 1] == -1
    assert dataset.index["labelled"][0] == 8
    assert statistics[0].count == 35
    assert statistics[0].mean == pytest.approx(np.delete(np.arange(36), 7).mean())
    plan, _, _ = sample(*class_scene(MAP, nulls=nulls), tmp_path, max_null=0.0)
    assert plan.dropped.null == 1
    assert len(plan.patches) == 3


@pytest.mark.parametrize("rule", ["cells", "presence", "majority"])
def test_a_class_that_only_null_cells_have_is_no_class_of_the_patch(tmp_path, rule):
    classes = np.full((2, 4), 1)
    classes[0, 0], classes[0, 2] = 2, 2
    nulls = np.zeros((2, 4), dtype=bool)
    nulls[0, 0] = True
    scene, table = class_scene(classes, nulls=nulls)
    plan, _, _ = sample(scene, table, tmp_path, size=(2, 2), rule=rule, max_null=50.0, min_labelled=10.0)
    if rule == "majority":
        assert plan.classes.categories.tolist() == [1]
    else:
        assert plan.patches.counts.tolist() == [[3, 0], [3, 1]]


def test_background_fills_only_what_no_label_covers(tmp_path):
    areas = np.array([[1, 1, 0], [2, 2, 0], [3, 3, 3]])
    # Area 2 was selected but has no label; area 3 was not selected.
    scene, table = area_scene(areas, {1: 5})
    table = feature_table([(1,), (2,), (3,)], [1, 2], table.classes, {1: 5})
    plan, _, dataset = sample(scene, table, tmp_path, background=0)
    assert plan.classes.labels == ["background", "5"]
    np.testing.assert_array_equal(dataset.read_labels(np.array([0]))[0], [[1, 1, 0], [-1, -1, 0], [0, 0, 0]])


def test_background_needs_a_free_category(tmp_path):
    with pytest.raises(DeepLearningError, match="no class has; 1 is"):
        sample(*class_scene(MAP), tmp_path, background=1)


def test_points_placement_puts_the_point_in_the_centre(tmp_path):
    points = np.array([1, 4, 0]), np.array([1, 4, 5])
    plan, _, dataset = sample(*class_scene(MAP), tmp_path, points=points, placement="points", rule="center")
    assert [(row["row"], row["col"]) for row in dataset.index] == [(0, 0), (3, 3)]
    assert plan.dropped.edge == 1
    assert dataset.index["east"].tolist() == [15.0, 45.0]
    assert dataset.index["north"].tolist() == [45.0, 15.0]


def test_single_cells_are_the_labelled_ones_only(tmp_path):
    plan, _, dataset = sample(*class_scene(MAP), tmp_path, size=(1, 1))
    row, col = np.nonzero(MAP)
    assert dataset.index["row"].tolist() == row.tolist()
    assert dataset.index["col"].tolist() == col.tolist()
    np.testing.assert_array_equal(dataset.labels[:, 0, 0], MAP[row, col] - 1)
    np.testing.assert_array_equal(dataset.images()[:, 0, 0, 0], row * 6 + col)
    assert plan.dropped.total == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_labels_equal_brute_force_and_no_place_is_lost(tmp_path, data):
    """For any small scene: kept and dropped places are the grid, labels are what a plain loop finds."""
    rows, cols = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    size = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    stride = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 1000))
    rule = data.draw(st.sampled_from(["cells", "majority", "center", "inside"]))
    max_null = data.draw(st.sampled_from([0.0, 20.0]))
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (-(-rows // 3), -(-cols // 3)))
    classes = np.kron(coarse, np.ones((3, 3), dtype=int))[:rows, :cols]
    if not classes.any():
        return
    nulls = random.random((rows, cols)) < 0.05
    scene, table = class_scene(classes, bands=2, nulls=nulls)
    expected, places = brute_force(classes, nulls, size, stride, rule, max_null)
    wishes = {"size": size, "stride": stride, "rule": rule, "max_null": max_null, "min_labelled": 0.0}
    if not expected:
        with pytest.raises(DeepLearningError):
            sample(scene, table, tmp_path, **wishes)
        return
    plan, _, dataset = sample(scene, table, tmp_path, **wishes)
    if size != (1, 1):
        assert len(plan.patches) + plan.dropped.total == places
    assert [(row["row"], row["col"]) for row in dataset.index] == [place for place, _ in expected]
    categories = np.append(plan.classes.categories, 0)
    for number, (place, label) in enumerate(expected):
        found = categories[dataset.read_labels(np.array([number]))[0]]
        np.testing.assert_array_equal(found, label)
        cut = np.s_[:, place[0] : place[0] + size[0], place[1] : place[1] + size[1]]
        np.testing.assert_array_equal(dataset.images()[number], np.where(nulls, 0, scene.values)[cut])


def brute_force(classes, nulls, size, stride, rule, max_null):
    """Places with their label (categories, 0 for none), by a loop over the grid; and the number of places."""
    labels = np.where(nulls, 0, classes)
    kept, places = [], 0
    for row in range(0, classes.shape[0], stride[0]):
        for col in range(0, classes.shape[1], stride[1]):
            places += 1
            cut = np.s_[row : row + size[0], col : col + size[1]]
            if labels[cut].shape != size or nulls[cut].sum() > max_null / 100 * size[0] * size[1]:
                continue
            present, counts = np.unique(labels[cut][labels[cut] > 0], return_counts=True)
            if not len(present):
                continue
            label = labels[cut] if rule == "cells" else present[counts.argmax()]
            if rule == "center":
                label = labels[row + size[0] // 2, col + size[1] // 2]
            if rule == "inside":
                label = present[0] if len(np.unique(classes[cut])) == 1 else 0
            if np.any(label):
                kept.append(((row, col), label))
    return kept, places


def test_rows_are_read_once_whatever_the_strips(tmp_path):
    random = np.random.default_rng(3)
    scene, table = class_scene(random.integers(1, 3, (300, 40)))
    sample(scene, table, tmp_path, size=(7, 5), placement="random", number=100, memory=1)
    rows = [row for window in scene.reads for row in range(window.row_start, window.row_stop)]
    assert len(rows) == len(set(rows))


def test_values_that_do_not_fit_the_type_are_refused_not_wrapped(tmp_path):
    scene, table = class_scene(MAP)
    scene.values = scene.values + 70_000
    with pytest.raises(DeepLearningError, match=r"r\.support -s"):
        sample(scene, table, tmp_path)
    assert not (tmp_path / "p").exists()
    assert not list(tmp_path.glob(".*"))
