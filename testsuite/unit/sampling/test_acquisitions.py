"""Several acquisitions of the same places: one part for a place, and honest counts where parts share ground."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from array_scenes import area_scene, class_scene
from hypothesis import given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.sampling.leakage import overlaps_between_parts
from rlearndeep.sampling.plan import describe, make_plan, write_plan
from rlearndeep.sampling.report import check_apart, plain_text, remarks, summarize
from rlearndeep.sampling.settings import Settings, Split

NAMES = ("spring", "summer", "autumn")


def dates(classes: np.ndarray, clouds: list[np.ndarray | None], nulls: list[np.ndarray | None]):
    """Scenes of one label map whose bands tell the date, and the table."""
    scenes = []
    for number, (cloud, null) in enumerate(zip(clouds, nulls, strict=True)):
        scene, table = class_scene(classes, bands=2, nulls=null)
        scene.values = scene.values + 20_000 * number
        scene.ignored = cloud
        scenes.append(scene)
    return scenes, table


def write(scenes, table, asked, path):
    """Plan and directory."""
    plan = make_plan(scenes, table, asked, acquisitions=NAMES[: len(scenes)])
    with PatchWriter(path, describe(plan, scenes, asked), len(plan.patches), overwrite=True) as writer:
        plan, _ = write_plan(plan, scenes, asked, writer)
        writer.commit(describe(plan, scenes, asked))
    return plan, PatchDataset.open(path)


def test_a_place_is_sampled_in_every_acquisition_where_it_can_be(tmp_path):
    classes = np.ones((8, 8), dtype=int)
    cloud, null = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    cloud[:4, :4], null[7, 7] = True, True
    scenes, table = dates(classes, [None, cloud, None], [None, None, null])
    plan, dataset = write(scenes, table, Settings(size=(4, 4), split=Split(kind="none")), tmp_path / "p")
    places = list(zip(*(dataset.index[name].tolist() for name in ("acquisition", "row", "col")), strict=True))
    assert places == [
        *((0, 0, 0), (0, 0, 4), (0, 4, 0), (0, 4, 4)),
        *((1, 0, 4), (1, 4, 0), (1, 4, 4)),
        *((2, 0, 0), (2, 0, 4), (2, 4, 0)),
    ]
    assert (plan.dropped.null, plan.dropped.unlabelled) == (1, 1)
    for (number, row, col), image in zip(places, dataset.images(), strict=True):
        np.testing.assert_array_equal(image, scenes[number].values[:, row : row + 4, col : col + 4])
    for scene in scenes:
        rows = [row for window in scene.reads for row in range(window.row_start, window.row_stop)]
        assert len(rows) == len(set(rows))


@settings(max_examples=30)
@given(
    st.sampled_from(["block", "random", "class", "column"]),
    st.integers(0, 5),
    st.integers(2, 5),
    st.sampled_from(["cells", "majority"]),
)
def test_no_place_stands_in_two_parts(kind, seed, stride, rule):
    """For any split but by acquisition: a place has one part, and keeps its distance at all dates."""
    random = np.random.default_rng(seed)
    areas = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((8, 8), dtype=int))
    clouds = [random.random((32, 32)) < 0.2 for _ in range(3)]
    scenes = []
    for cloud in clouds:
        scene, table = area_scene(areas, {area: 1 + area % 3 for area in range(1, 17)})
        scene.ignored = cloud
        scenes.append(scene)
    asked = Settings(
        size=(3, 3), stride=(stride, stride), rule=rule, min_labelled=0.0, split=Split(kind=kind, buffer=0.0), seed=seed
    )
    plan = make_plan(scenes, table, asked, acquisitions=NAMES)
    patches = plan.patches
    first, place = patches.places()
    np.testing.assert_array_equal(plan.part, plan.part[first][place])
    if kind in ("block", "column"):
        assert overlaps_between_parts(patches, plan.part, scenes[0].region) == (0, 0)
        check_apart(asked, summarize(plan, scenes))


def test_number_and_per_class_count_places():
    classes = np.ones((40, 40), dtype=int)
    classes[:, 20:] = 2
    scenes, table = dates(classes, [None] * 3, [None] * 3)
    plan = make_plan(scenes, table, Settings(size=(4, 4), number=7, split=Split(kind="none")), acquisitions=NAMES)
    assert (len(plan.patches), len(plan.patches.places()[0])) == (21, 7)
    asked = Settings(size=(4, 4), per_class=5, rule="majority", placement="random", split=Split(kind="none"))
    plan = make_plan(scenes, table, asked, acquisitions=NAMES)
    assert np.bincount(plan.patches.label).tolist() == [15, 15]
    assert not remarks(plan, asked, summarize(plan, scenes))


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        (Split(kind="acquisition"), [0, 1, 2]),
        (Split(kind="acquisition", test=("spring",)), [2, 0, 0]),
        (Split(kind="acquisition", validation=("spring",), test=("autumn",)), [1, 0, 2]),
        (Split(kind="acquisition", shares=(0.5, 0.0, 0.5)), [0, 0, 2]),
    ],
)
def test_whole_acquisitions_are_parts_the_last_ones_test(split, parts):
    scenes, table = dates(np.ones((12, 12), dtype=int), [None] * 3, [None] * 3)
    asked = Settings(size=(4, 4), split=split)
    plan = make_plan(scenes, table, asked, acquisitions=NAMES)
    assert [set(plan.part[plan.patches.of_acquisition(number)].tolist()) for number in range(3)] == [
        {part} for part in parts
    ]
    summary = summarize(plan, scenes)
    assert (summary["overlaps_between_parts"], summary["same_ground_between_parts"]) == (0, 27)
    assert any("27 of 27 patches show ground that another part shows" in said for said in remarks(plan, asked, summary))
    assert "27 in two parts" in plain_text(summary)


@pytest.mark.parametrize(
    ("count", "split", "words"),
    [
        (1, Split(kind="acquisition", test=("spring",)), "at least two acquisitions"),
        (2, Split(kind="acquisition"), "names 2 for 3 parts"),
        (3, Split(kind="acquisition", test=("winter",)), "'winter' is none of"),
        (2, Split(kind="acquisition", test=("spring", "summer")), "training part got none"),
    ],
)
def test_impossible_splits_by_acquisition_say_the_way_out(count, split, words):
    scenes, table = dates(np.ones((8, 8), dtype=int), [None] * count, [None] * count)
    with pytest.raises(DeepLearningError, match=words):
        make_plan(scenes, table, Settings(size=(4, 4), split=split), acquisitions=NAMES[:count])


def test_a_buffer_between_acquisitions_is_refused():
    with pytest.raises(DeepLearningError, match="Leave buffer= out"):
        Split(kind="acquisition", buffer=5.0)


def test_overlaps_of_one_acquisition_and_of_several_are_told_apart():
    scenes, table = dates(np.ones((8, 8), dtype=int), [None] * 2, [None] * 2)
    asked = Settings(size=(4, 4), stride=(2, 2), split=Split(kind="none"))
    plan = make_plan(scenes, table, asked, acquisitions=NAMES[:2])
    part = np.where((plan.patches.row == 0) & (plan.patches.col == 0), 2, 0).astype(np.int32)
    # Each of the two corners overlaps three neighbours of its own date; the same neighbours overlap it.
    assert overlaps_between_parts(plan.patches, part, scenes[0].region) == (8, 0)
    part = np.where(plan.patches.acquisition == 1, 2, 0).astype(np.int32)
    assert overlaps_between_parts(plan.patches, part, scenes[0].region) == (0, 18)


def test_the_box_of_an_object_is_the_same_at_all_dates(tmp_path):
    areas = np.zeros((8, 8), dtype=int)
    areas[1:5, 2:7] = 1
    scenes = []
    for column in (2, 6):
        scene, table = area_scene(areas, {1: 7})
        scene.ignored = np.zeros((8, 8), dtype=bool)
        scene.ignored[:, column] = True
        scenes.append(scene)
    plan, dataset = write(
        scenes,
        table,
        Settings(size=None, rule="object", split=Split(kind="none"), drop_duplicates=False),
        tmp_path / "p",
    )
    assert plan.size == (4, 5) and len(dataset) == 2
    assert dataset.index["labelled"].tolist() == [16, 16]
    assert (plan.patches.row.tolist(), plan.patches.col.tolist()) == ([1, 1], [2, 2])


def test_identical_patches_of_two_dates_are_duplicates(tmp_path):
    scenes, table = dates(np.ones((8, 8), dtype=int), [None] * 2, [None] * 2)
    scenes = [scenes[0], replace(scenes[0])]
    plan, dataset = write(scenes, table, Settings(size=(4, 4), split=Split(kind="none")), tmp_path / "p")
    assert (len(dataset), plan.duplicates) == (4, 4)
