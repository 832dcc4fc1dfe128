"""Placement, balance, duplicates and the report of whole plans."""

from __future__ import annotations

import json

import numpy as np
import pytest
from array_scenes import area_scene, class_scene
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.sampling.labels import PointPlane, feature_table, number_classes
from rlearndeep.sampling.placement import Grid, places_of_points, priority, random_places
from rlearndeep.sampling.plan import complete, describe, make_plan, write_plan
from rlearndeep.sampling.report import plain_text, remarks, summarize
from rlearndeep.sampling.settings import Settings, Split
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.geometry import Region, Window

NO_SPLIT = Split(kind="none")


def write(scene, table, asked, path):
    """Plan a scene, write it, open it again."""
    plan = make_plan([scene], table, asked)
    with PatchWriter(path, describe(plan, [scene], asked), len(plan.patches), overwrite=True) as writer:
        plan, sources = write_plan(plan, [scene], asked, writer)
        manifest = complete(describe(plan, [scene], asked), sources, summarize(plan, [scene]), {}, None, "command")
        writer.commit(manifest)
    return plan, PatchDataset.open(path)


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.tuples(st.integers(1, 12), st.integers(1, 12)), st.data())
def test_a_grid_counts_every_place_once_whatever_the_strips(shape, stride, data):
    size = data.draw(st.integers(1, shape[0])), data.draw(st.integers(1, shape[1]))
    grid = Grid(shape, size, stride)
    cut = data.draw(st.integers(0, shape[0]))
    row, col = (np.concatenate(parts) for parts in zip(grid.within(0, cut), grid.within(cut, shape[0]), strict=True))
    expected = [
        (r, c)
        for r in range(0, shape[0], stride[0])
        for c in range(0, shape[1], stride[1])
        if r + size[0] <= shape[0] and c + size[1] <= shape[1]
    ]
    assert list(zip(row.tolist(), col.tolist(), strict=True)) == expected
    assert len(expected) + grid.reaching_out == -(-shape[0] // stride[0]) * -(-shape[1] // stride[1])


def test_random_places_are_different_and_fit():
    places = random_places((20, 30), (5, 6), 200, 1)
    assert len(set(zip(places.row.tolist(), places.col.tolist(), strict=True))) == len(places.row)
    assert places.row.max() <= 15 and places.col.max() <= 24
    assert len(random_places((20, 30), (5, 6), 10**6, 1).row) == 16 * 25


def test_points_lie_in_the_cell_below_and_right_of_the_middle_of_even_patches():
    places, edge = places_of_points(np.array([5, 0, 5]), np.array([5, 9, 5]), (10, 10), (4, 3))
    assert (places.row.tolist(), places.col.tolist(), edge) == ([3], [4], 1)


def test_priority_depends_on_seed_and_place_only():
    row, col = np.arange(1000) // 10, np.arange(1000) % 10
    assert len(np.unique(priority(1, row, col))) == 1000
    np.testing.assert_array_equal(priority(1, row, col)[::-1], priority(1, row[::-1], col[::-1]))
    assert (priority(1, row, col) != priority(2, row, col)).all()


@pytest.mark.parametrize("memory", [1, 300])
def test_number_is_a_random_choice_that_does_not_depend_on_the_strips(memory):
    scene, table = class_scene(np.ones((400, 300), dtype=int))
    asked = Settings(size=(1, 1), number=500, split=NO_SPLIT, memory=memory, drop_duplicates=False)
    plan = make_plan([scene], table, asked)
    assert len(plan.patches) == 500
    assert plan.found == 400 * 300
    again = make_plan([scene], table, Settings(size=(1, 1), number=500, split=NO_SPLIT, drop_duplicates=False))
    np.testing.assert_array_equal(plan.patches.row, again.patches.row)
    assert 150 < plan.patches.row.mean() < 250
    other = make_plan([scene], table, Settings(size=(1, 1), number=500, split=NO_SPLIT, seed=2, drop_duplicates=False))
    assert (other.patches.row != plan.patches.row).any()


def test_per_class_gives_each_class_its_number_or_all_it_has():
    classes = np.ones((60, 60), dtype=int)
    classes[:2, :5] = 2
    classes[30:] = 3
    scene, table = class_scene(classes)
    asked = Settings(size=(1, 1), per_class=50, split=NO_SPLIT)
    plan = make_plan([scene], table, asked)
    assert np.bincount(plan.patches.label).tolist() == [50, 10, 50]
    said = remarks(plan, asked, summarize(plan, [scene]))
    assert any("class '2' has 10" in sentence for sentence in said)


def test_per_class_of_cell_labels_counts_patches_that_hold_the_class():
    classes = np.ones((64, 64), dtype=int)
    classes[5, 5] = classes[40, 40] = 2
    scene, table = class_scene(classes)
    plan = make_plan([scene], table, Settings(size=(8, 8), per_class=3, split=NO_SPLIT))
    assert plan.patches.has_class(1).sum() == 2
    assert 3 <= len(plan.patches) <= 5


def test_random_placement_finds_what_is_rare():
    classes = np.zeros((300, 300), dtype=int)
    classes[100:104, 200:204] = 1
    scene, table = class_scene(classes)
    plan = make_plan([scene], table, Settings(size=(9, 9), placement="random", number=20, split=NO_SPLIT))
    assert len(plan.patches) == 20
    few = Settings(size=(9, 9), placement="random", number=500, split=NO_SPLIT)
    plan = make_plan([scene], table, few)
    assert len(plan.patches) == 12 * 12
    assert "144 were found" in remarks(plan, few, summarize(plan, [scene]))[0]


@pytest.mark.parametrize("size", [1, 2, 16])
def test_identical_patches_are_dropped_and_counted(tmp_path, size):
    classes = np.ones((64, 64), dtype=int)
    scene, table = class_scene(classes)
    pattern = np.random.default_rng(1).integers(0, 1000, (16, 32))
    scene.values = np.tile(pattern, (4, 2))[None]
    unique = (16 // size) * (32 // size)
    asked = Settings(size=(size, size), split=NO_SPLIT)
    plan, dataset = write(scene, table, asked, tmp_path / "p")
    if size > 1:
        assert len(dataset) == unique
    assert len(dataset) + plan.duplicates == (64 // size) ** 2
    images = dataset.images()[:, 0]
    assert len(np.unique(images.reshape(len(dataset), -1), axis=0)) == len(dataset)
    for entry, image in zip(dataset.index, images, strict=True):
        cut = scene.values[0, entry["row"] : entry["row"] + size, entry["col"] : entry["col"] + size]
        np.testing.assert_array_equal(image, cut)
    kept = Settings(size=(size, size), split=NO_SPLIT, drop_duplicates=False)
    plan_kept, dataset = write(scene, table, kept, tmp_path / "p")
    assert len(dataset) == (64 // size) ** 2
    assert plan_kept.duplicates == plan.duplicates


def coarse_scene(side: int, factor: int, classes: int = 3):
    """A scene whose bands and labels come from cells ``factor`` times as large as its own."""
    random = np.random.default_rng(4)
    fine = np.ones((factor, factor), dtype=int)
    scene, table = class_scene(np.kron(random.integers(1, classes + 1, (side // factor, side // factor)), fine))
    scene.values = np.kron(random.permutation((side // factor) ** 2).reshape(side // factor, -1), fine)[None]
    scene.repeats = True
    return scene, table


@pytest.mark.parametrize(("size", "number"), [(1, 100), (1, 250), (1, 1000), (2, 100)])
def test_identical_patches_are_found_before_the_choice_and_the_split(tmp_path, size, number):
    """On bands four times as fine as their cells the number and the shares asked for are met all the same."""
    scene, table = coarse_scene(64, 4)
    asked = Settings(size=(size, size), number=number, split=Split("random", (0.6, 0.2, 0.2)))
    plan, dataset = write(scene, table, asked, tmp_path / "p")
    contents = np.unique(dataset.images().reshape(len(dataset), -1), axis=0)
    assert len(dataset) == len(contents) == min(number, 16 * 16)
    parts = np.bincount(dataset.index["part"])
    assert np.abs(parts - len(dataset) * np.array([0.6, 0.2, 0.2])).max() < 1
    assert plan.found == (64 // size) ** 2
    # As many of those that were looked at as lie in the same coarse cells.
    assert 0 < plan.duplicates <= len(dataset) * ((4 // size) ** 2 - 1)
    if number == 1000:
        assert len(dataset) + plan.duplicates == plan.found
    said = remarks(plan, asked, summarize(plan, [scene]))
    assert any("256 different were found" in sentence for sentence in said) == (number == 1000)


def test_each_class_gets_its_number_of_different_patches():
    scene, table = coarse_scene(64, 4)
    plan = make_plan([scene], table, Settings(size=(1, 1), per_class=40, split=NO_SPLIT))
    assert np.bincount(plan.patches.label).tolist() == [40, 40, 40]
    row, col = plan.patches.row // 4, plan.patches.col // 4
    assert len(set(zip(row.tolist(), col.tolist(), strict=True))) == 120


def test_random_places_are_drawn_until_enough_are_different():
    scene, table = coarse_scene(64, 16)
    asked = Settings(size=(4, 4), placement="random", number=60, rule="majority", split=NO_SPLIT, max_null=0.0)
    plan = make_plan([scene], table, asked)
    cuts = [scene.values[0, r : r + 4, c : c + 4] for r, c in zip(plan.patches.row, plan.patches.col, strict=True)]
    assert len(plan.patches) == len(np.unique(np.array(cuts).reshape(len(cuts), -1), axis=0)) == 60


def test_same_bands_with_another_label_are_no_duplicates(tmp_path):
    scene, table = class_scene(np.array([[1, 2, 1, 2]]))
    scene.values = np.zeros((1, 1, 4), dtype=int)
    plan, dataset = write(scene, table, Settings(size=(1, 1), split=NO_SPLIT), tmp_path / "p")
    assert sorted(dataset.labels.ravel().tolist()) == [0, 1]
    assert plan.duplicates == 2


def test_of_identical_patches_the_one_in_the_test_part_stays(tmp_path):
    scene, table = area_scene(np.array([[1, 0, 0, 2, 0, 0, 3]]), {1: 1, 2: 1, 3: 1})
    scene.values = np.array([[[5, 0, 0, 5, 0, 0, 9]]])
    asked = Settings(size=(1, 1), split=Split(kind="column", test=("2",)))
    _, dataset = write(scene, table, asked, tmp_path / "p")
    assert sorted(dataset.index["area"].tolist()) == [2, 3]


@pytest.mark.parametrize("kind", ["int", "float"])
def test_statistics_are_those_of_valid_cells_of_the_training_part(tmp_path, kind):
    random = np.random.default_rng(7)
    nulls = random.random((60, 60)) < 0.1
    scene, table = class_scene(random.integers(1, 4, (60, 60)), bands=3, nulls=nulls)
    scene.values = random.integers(0, 60_000, (3, 60, 60))
    if kind == "float":
        scene.values = scene.values / 7 + 1e6
        scene.null, scene.dtype = float("nan"), np.dtype(np.float64)
    asked = Settings(size=(6, 6), max_null=50.0, split=Split(kind="random"))
    _, dataset = write(scene, table, asked, tmp_path / "p")
    positions = dataset.positions("training")
    images, valid = dataset.images()[positions], dataset.valid()[positions]
    for band, found in enumerate(dataset.manifest.reference.statistics):
        expected = BandStatistics.of(images[:, band][valid])
        assert found.count == expected.count
        assert found.mean == pytest.approx(expected.mean, rel=1e-5)
        assert found.std == pytest.approx(expected.std, rel=1e-4)
        assert (found.minimum, found.maximum) == (expected.minimum, expected.maximum)


def test_report_has_the_keys_of_the_contract_and_reads_well(tmp_path):
    random = np.random.default_rng(1)
    scene, table = class_scene(random.integers(1, 3, (128, 128)))
    _, dataset = write(scene, table, Settings(size=(8, 8)), tmp_path / "p")
    summary = json.loads((tmp_path / "p" / "dataset.json").read_text())["report"]
    assert set(summary) == {
        *("patches", "parts", "classes", "duplicates", "dropped", "overlaps_between_parts"),
        *("closest_parts_distance", "sources", "same_ground_between_parts", "acquisitions"),
    }
    assert sum(summary["parts"].values()) == summary["patches"] == len(dataset)
    assert summary["overlaps_between_parts"] == 0
    assert summary["closest_parts_distance"] >= 80.0
    assert f"patches                    {summary['patches']}" in plain_text(summary)


def test_a_percentage_that_is_met_exactly_is_met():
    classes = np.ones((10, 10), dtype=int)
    for percent in range(1, 100):
        cells = (np.arange(100) < percent).reshape(10, 10)
        scene, table = class_scene(np.where(cells, classes, 0))
        assert len(make_plan([scene], table, Settings(size=(10, 10), min_labelled=percent, split=NO_SPLIT)).patches)
        scene, table = class_scene(classes, nulls=cells)
        assert len(make_plan([scene], table, Settings(size=(10, 10), max_null=percent, split=NO_SPLIT)).patches)
        with pytest.raises(DeepLearningError):
            make_plan([scene], table, Settings(size=(10, 10), max_null=percent - 1, split=NO_SPLIT))


@pytest.mark.parametrize(("value", "kind"), [(np.inf, np.float64), (-3.4e38, np.float32), (1e200, np.float64)])
def test_values_without_a_spread_are_refused_by_the_name_of_their_band(tmp_path, value, kind):
    scene, table = class_scene(np.ones((8, 8), dtype=int), bands=2)
    scene.values, scene.dtype, scene.null = scene.values.astype(kind), np.dtype(kind), float("nan")
    scene.values[1, 3, 3] = value
    with pytest.raises(DeepLearningError, match="those of <b1> run from"):
        write(scene, table, Settings(size=(4, 4), split=NO_SPLIT), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_labels_that_number_objects_are_refused_and_few_of_them_are_classes():
    classes = np.arange(1, 200 * 200 + 1).reshape(200, 200)
    scene, table = class_scene(classes)
    with pytest.raises(DeepLearningError, match="at most 10000 classes; got 40000"):
        make_plan([scene], table, Settings(size=(1, 1), split=NO_SPLIT))
    asked = Settings(size=(1, 1), number=50, split=NO_SPLIT)
    plan = make_plan([scene], table, asked)
    patches = plan.patches
    np.testing.assert_array_equal(plan.classes.categories[patches.label], classes[patches.row, patches.col])
    said = remarks(plan, asked, summarize(plan, [scene]))
    assert len(said) == 1 and said[0].endswith("and 39930 more': left out of the dataset.")


def test_a_part_that_was_named_and_has_no_patch_is_said():
    areas = np.ones((8, 16), dtype=int)
    areas[:, 8:] = 2
    scene, table = area_scene(areas, {1: 1, 2: 1, 3: 1})
    asked = Settings(size=(4, 4), split=Split("column", validation=("2",), test=("3",), buffer=0))
    plan = make_plan([scene], table, asked)
    said = remarks(plan, asked, summarize(plan, [scene]))
    assert [sentence for sentence in said if "was asked for" in sentence] == [said[0]]
    assert said[0].startswith("The test part was asked for and has no patch")


def test_classes_whose_labels_differ_in_capitals_only_are_pointed_out():
    classes, category = number_classes({1: "Wood", 2: "field", 3: "wood"})
    table = feature_table([(1,), (2,), (3,)], [1, 2, 3], classes, category)
    scene, _ = class_scene(np.arange(12).reshape(3, 4) // 4 + 1)
    asked = Settings(size=(1, 1), split=NO_SPLIT)
    plan = make_plan([scene], table, asked)
    said = remarks(plan, asked, summarize(plan, [scene]))
    assert len(said) == 1 and said[0].startswith("Classes 1 'Wood' and 3 'wood' have one name")


def test_a_class_without_any_patch_is_left_out_and_named():
    classes = np.ones((8, 8), dtype=int)
    classes[7, 7] = 2
    scene, table = class_scene(classes)
    asked = Settings(size=(4, 4), rule="majority", split=NO_SPLIT)
    plan = make_plan([scene], table, asked)
    assert plan.classes.categories.tolist() == [1]
    assert any("'2'" in sentence for sentence in remarks(plan, asked, summarize(plan, [scene])))


@pytest.mark.parametrize(
    ("classes", "wishes", "words"),
    [
        (np.ones((5, 5), dtype=int), {"size": (6, 2)}, r"larger than the region \(5 rows, 5 columns\)"),
        (np.array([[1, 2], [2, 1]]), {"size": (2, 2), "rule": "inside"}, "labelled cells"),
        (np.ones((2, 4), dtype=int), {"size": (2, 2)}, "fewer blocks"),
    ],
)
def test_plans_that_cannot_be_made_say_the_way_out(classes, wishes, words):
    with pytest.raises(DeepLearningError, match=words):
        scene, table = class_scene(classes)
        make_plan([scene], table, Settings(**wishes))


def test_all_null_imagery_is_named_as_the_reason():
    scene, table = class_scene(np.ones((4, 4), dtype=int), nulls=np.ones((4, 4), dtype=bool))
    with pytest.raises(DeepLearningError, match="max_null="):
        make_plan([scene], table, Settings(size=(2, 2), split=NO_SPLIT))


def test_integers_are_categories_and_texts_are_numbered_in_sorted_order():
    classes, category = number_classes({1: 20, 2: 10, 3: None})
    assert (classes.categories.tolist(), category) == ([10, 20], {1: 20, 2: 10})
    classes, category = number_classes({1: "water", 2: "forest", 3: "", 4: "water"}, {4: (1, 2, 3)})
    assert (classes.labels, category) == (["forest", "water"], {1: 2, 2: 1, 4: 2})
    assert classes.colors[1] == (1, 2, 3)


def test_points_of_different_classes_in_one_cell_are_unlabelled_and_counted():
    region = Region(4.0, 0.0, 4.0, 0.0, 4, 4)
    plane = PointPlane.of(
        region, np.array([0.5, 0.7, 2.5, 9.0, 3.1, 3.2]), np.array([3.5, 3.2, 1.5, 1.0, 0.5, 0.6]), np.arange(1, 7)
    )
    assert plane.features == ((1, 2), (3,), (5, 6))
    classes, category = number_classes({1: 1, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1})
    table = feature_table(plane.features, range(1, 7), classes, category)
    found = table.class_of[plane.read(Window(0, 4, 0, 4))]
    np.testing.assert_array_equal(found, [[-1] * 4, [-1] * 4, [-1, -1, 1, -1], [-1, -1, -1, 0]])
    assert table.conflicts == 1
    np.testing.assert_array_equal(plane.read(Window(2, 5, 2, 6))[0], [3, 0, 0, 0])
