"""Splits keep what they promise, and the leak report sees what brute force sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.sampling.blocks import LEFT_OUT, blocks_of, default_block_sizes, from_both_ends, kept_apart, stratify
from rlearndeep.sampling.leakage import closest, closest_parts, overlaps_between_parts, too_close
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.settings import Settings, Split, shares_of
from rlearndeep.sampling.splits import divide, names_parts
from rlearndeep.scene.geometry import Region

REGION = Region(1000.0, 0.0, 1000.0, 0.0, 100, 100)


def patch_set(row, col, size=(1, 1), label=None, group=None, height=None, width=None) -> PatchSet:
    """Patches of one size, or of given sizes."""
    count = len(row)

    def column(values, default):
        return np.asarray(np.full(count, default) if values is None else values, dtype=np.int32)

    return PatchSet(
        np.asarray(row, dtype=np.int64),
        np.asarray(col, dtype=np.int64),
        column(height, size[0]),
        column(width, size[1]),
        column(label, 0),
        column(None, -1),
        column(group, -1),
        np.ones(count, dtype=np.int64),
    )


@st.composite
def patch_sets(draw, fewest=3, most=40):
    """Random places with one size, or with a size each."""
    number = draw(st.integers(fewest, most))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    several = draw(st.booleans())
    sizes = random.integers(1, 8, (2, number)) if several else np.array([[height], [width]]).repeat(number, 1)
    row, col = random.integers(0, 92, (2, number))
    return patch_set(row, col, label=random.integers(0, 3, number), height=sizes[0], width=sizes[1])


def gap(one: PatchSet, first: int, other: PatchSet, second: int, region: Region) -> float:
    """Distance between two footprints, negative when they overlap."""
    down = max(
        one.row[first] - other.row[second] - other.height[second],
        other.row[second] - one.row[first] - one.height[first],
    )
    right = max(
        one.col[first] - other.col[second] - other.width[second], other.col[second] - one.col[first] - one.width[first]
    )
    return max(down * region.nsres, right * region.ewres)


@given(patch_sets(), patch_sets(), st.sampled_from([0.0, 5.0, 10.0, 25.0, 40.0]), st.booleans())
def test_distances_equal_those_of_all_pairs(patches, others, distance, oblong):
    region = Region(1000.0, 0.0, 500.0, 0.0, 100, 100) if oblong else REGION
    gaps = np.array([[gap(patches, a, others, b, region) for b in range(len(others))] for a in range(len(patches))])
    np.testing.assert_array_equal(too_close(patches, others, region, distance), (gaps < distance).any(axis=1))
    assert closest(patches, others, region) == pytest.approx(max(0.0, gaps.min()))


def test_touching_patches_have_distance_zero_and_do_not_overlap():
    patches, part = patch_set([0, 0], [0, 4], (4, 4)), np.array([0, 2])
    assert overlaps_between_parts(patches, part, REGION) == (0, 0)
    assert closest_parts(patches, part, REGION) == 0.0
    assert overlaps_between_parts(patch_set([0, 3], [0, 3], (4, 4)), part, REGION) == (2, 0)
    assert closest_parts(patches, np.array([1, 1]), REGION) is None


@settings(max_examples=60)
@given(
    patch_sets(12, 80),
    st.sampled_from([None, 0.0, 30.0]),
    st.sampled_from([None, 100.0]),
    st.integers(0, 5),
)
def test_no_two_parts_come_closer_than_the_buffer(patches, buffer, block_size, seed):
    """For any patches: a block split keeps its distance, keeps blocks whole, and accounts for every patch."""
    split = Split(kind="block", buffer=buffer, block_size=block_size)
    try:
        division = divide(patches, split, REGION, (), 3, seed)
    except DeepLearningError:
        assume(False)
    kept = division.part != LEFT_OUT
    part, left = division.part[kept], patches.take(kept)
    assert overlaps_between_parts(left, part, REGION) == (0, 0)
    assert closest_parts(left, part, REGION) >= division.buffer - 1e-9
    assert division.close == (~kept).sum()
    for block in np.unique(division.block):
        assert len(np.unique(division.part[kept & (division.block == block)])) <= 1
    assert set(part.tolist()) == {0, 1, 2}


def test_the_buffer_takes_from_training_first_then_from_validation():
    patches = patch_set([0, 0, 0, 0], [0, 5, 10, 50], (4, 4))
    part, close = kept_apart(patches, np.array([0, 1, 2, 0], dtype=np.int32), REGION, 20.0)
    assert part.tolist() == [LEFT_OUT, LEFT_OUT, 2, 0]
    assert close == 2


def test_a_patch_belongs_to_the_block_of_its_centre_counted_from_the_origin_of_coordinates():
    region = Region(1030.0, 30.0, 1030.0, 30.0, 100, 100)
    # Corners of blocks lie at multiples of 100; the first full row of cells of the next block begins at north 1000.
    patches = patch_set([0, 1, 2, 2], [0, 0, 0, 7], (2, 2))
    assert blocks_of(patches, region, 100.0).tolist() == [1, 1, 12, 13]


def test_default_blocks_are_whole_patches():
    large = Region(8000.0, 0.0, 8000.0, 0.0, 8000, 8000)
    assert default_block_sizes(large, (64.0, 64.0)) == [64.0 * 20]
    assert default_block_sizes(REGION, (100.0, 50.0))[0] == 400.0


@given(st.integers(3, 60), st.integers(1, 5), st.integers(0, 100))
def test_every_class_reaches_as_many_parts_as_it_has_groups(groups, classes, seed):
    """With a group per class at a time nothing stands in the way of any class."""
    random = np.random.default_rng(seed)
    owner = random.integers(0, classes, groups)
    amounts = np.zeros((groups, classes), dtype=np.int64)
    amounts[np.arange(groups), owner] = random.integers(1, 1000, groups)
    part = stratify(amounts, (0.7, 0.15, 0.15), seed)
    assert set(part.tolist()) == {0, 1, 2}
    for number in range(classes):
        members = part[owner == number]
        if groups >= 3 * classes and len(members) >= 3:
            assert set(members.tolist()) == {0, 1, 2}


@settings(max_examples=20)
@given(st.integers(0, 200), st.booleans())
def test_a_class_in_three_distant_places_reaches_all_three_parts(seed, with_counts):
    """Rare classes go first, whatever the common ones would like."""
    random = np.random.default_rng(seed)
    row, col = (grid.ravel() * 2 for grid in np.mgrid[0:48, 0:48])
    label = random.integers(0, 3, len(row))
    for place in (5, 1150, 2290):
        label[place] = 3
    patches = patch_set(row, col, (2, 2), label=label)
    if with_counts:
        patches = replace(patches, counts=np.eye(4, dtype=np.int32)[label] * 4)
    part = divide(patches, Split(kind="block", block_size=100.0, buffer=20.0), REGION, (), 4, seed).part
    assert sorted(part[label == 3].tolist()) == [0, 1, 2]


def test_shares_are_met_as_closely_as_equal_groups_allow():
    amounts = np.ones((40, 1), dtype=np.int64)
    part = stratify(amounts, (0.7, 0.15, 0.15), 1)
    assert np.bincount(part).tolist() == [28, 6, 6]
    assert set(stratify(amounts, (0.8, 0.2, 0.0), 1).tolist()) == {0, 1}


def test_seeds_divide_groups_differently_though_no_two_hold_the_same():
    amounts = np.arange(1000, 1040)[:, None] ** 2
    divisions = [stratify(amounts, (0.7, 0.15, 0.15), seed) for seed in range(6)]
    assert len({part.tobytes() for part in divisions}) == 6
    for part in divisions:
        shares = np.bincount(part, amounts[:, 0]) / amounts.sum()
        np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.02)


@pytest.mark.parametrize("split", [Split(block_size=100.0, buffer=0.0), Split()])
def test_seeds_divide_blocks_differently(split):
    """Where some draws lose little, and where compact divisions, of which there are four, lose least."""
    row, col = (grid.ravel() * 2 for grid in np.mgrid[0:48, 0:48])
    counts = np.stack([row + 1, 100 - row, col + 1, 100 - col], axis=1).astype(np.int32)
    patches = replace(patch_set(row, col, (2, 2), label=counts.argmax(axis=1)), counts=counts)
    found = {divide(patches, split, REGION, (), 4, seed).part.tobytes() for seed in range(6)}
    assert len(found) >= 3


def test_compact_divisions_take_validation_and_test_from_opposite_ends():
    assert from_both_ends(np.full(10, 5), (0.6, 0.2, 0.2)).tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 2, 2]
    assert from_both_ends(np.full(5, 5), (0.8, 0.2, 0.0)).tolist() == [1, 0, 0, 0, 0]


@given(st.lists(st.integers(0, 3), min_size=6, max_size=200), st.integers(0, 50))
def test_class_split_meets_the_shares_within_each_class(labels, seed):
    patches = patch_set(np.arange(len(labels)) % 90, np.arange(len(labels)) // 90, label=labels)
    try:
        part = divide(patches, Split(kind="class", shares=(0.5, 0.25, 0.25)), REGION, (), 4, seed).part
    except DeepLearningError:
        assume(False)
    for label in set(labels):
        members = part[np.array(labels) == label]
        counts = np.bincount(members, minlength=3)
        if len(members) >= 4:
            assert (np.abs(counts - np.array([0.5, 0.25, 0.25]) * len(members)) <= 1).all()


def test_random_split_has_no_buffer_unless_asked():
    row, col = (grid.ravel() for grid in np.mgrid[0:20, 0:20])
    patches = patch_set(row, col)
    assert divide(patches, Split(kind="random"), REGION, (), 1, 1).close == 0
    assert divide(patches, Split(kind="random", shares=(0.98, 0.01, 0.01), buffer=10.0), REGION, (), 1, 1).close > 0


def test_column_split_keeps_groups_whole_and_patches_of_two_groups_out():
    group = np.repeat(np.arange(10), 4)
    group[7] = -2
    patches = patch_set(np.tile([0, 1, 2, 3], 10), np.repeat(np.arange(10) * 9, 4), group=group)
    names = tuple(f"site {number}" for number in range(10))
    division = divide(patches, Split(kind="column"), REGION, names, 1, 1)
    assert division.part[7] == LEFT_OUT
    assert division.straddling == 1
    for number in range(10):
        members = division.part[(group == number)]
        assert len(set(members.tolist())) == 1
    assert np.bincount(division.part[division.part >= 0]).tolist() == [27, 8, 4] or set(division.part) == {-1, 0, 1, 2}


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (("train", "Validation", "TEST"), Split(kind="column"), [0, 1, 2]),
        (("a", "b", "c"), Split(kind="column", test=("a",), validation=("c",)), [2, 0, 1]),
        (("a", "b", "c"), Split(kind="column", test=("a",)), [2, 0, 0]),
    ],
)
def test_a_column_may_name_the_parts(names, split, expected):
    patches = patch_set([0, 10, 20], [0, 0, 0], group=[0, 1, 2])
    assert divide(patches, split, REGION, names, 1, 1).part.tolist() == expected
    assert names_parts(split, names)


@pytest.mark.parametrize(
    ("split", "names", "words"),
    [
        (Split(kind="block", block_size=5000.0), (), "fewer blocks than the 3 parts"),
        (Split(kind="column"), ("a", "b"), "have 2 for 3 parts"),
        (Split(kind="column", test=("z",)), ("a", "b"), "'z' is none of its 2 values"),
        (
            Split(kind="column"),
            ("Test", "spare", "training"),
            r"beside 2 values \('Test', 'training'\) it has 1 values",
        ),
        (Split(kind="block", block_size=100.0, buffer=900.0), (), "leaves no"),
        (Split(kind="column", test=("a", "b")), ("a", "b"), "training part got none"),
    ],
)
def test_impossible_splits_say_the_way_out(split, names, words):
    row, col = (grid.ravel() * 10 for grid in np.mgrid[0:9, 0:9])
    patches = patch_set(row, col, (2, 2), group=(row >= 50).astype(int))
    with pytest.raises(DeepLearningError, match=words):
        divide(patches, split, REGION, names, 1, 1)


@pytest.mark.parametrize("text", ["70,30", "a,b,c", "70,-1,31", "0,0,0", "0,50,50", "nan,1,1", ""])
def test_impossible_shares_are_refused(text):
    with pytest.raises(DeepLearningError, match="share"):
        shares_of(text)


def test_shares_sum_to_one():
    assert shares_of("70,15,15") == pytest.approx((0.7, 0.15, 0.15))
    assert sum(shares_of("3,1,1")) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"size": (0, 4)}, "size"),
        ({"size": (4, 4), "placement": "random"}, "number="),
        ({"size": (4, 4), "number": 3, "per_class": 3}, "exclude"),
        ({"size": (4, 4), "max_null": 120.0}, "percentage"),
        ({"size": None}, "size="),
        ({"size": (4, 4), "rule": "other"}, "label="),
        ({"size": (4, 4), "background": 0, "split": Split(kind="column")}, "background="),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wishes, words):
    with pytest.raises(DeepLearningError, match=words):
        Settings(**wishes)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"percentile": 90.0}, "label=density"),
        ({"stride": (2, 2), "placement": "random", "number": 5}, "placement=random"),
        ({"stride": (2, 2), "placement": "points"}, "placement=points"),
        ({"stride": (2, 2), "rule": "object"}, "label=object"),
    ],
)
def test_a_wish_that_would_change_nothing_is_refused(wish, words):
    with pytest.raises(DeepLearningError, match=words):
        Settings(size=(4, 4), **wish)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"kind": "random", "block_size": 100.0}, "split=random"),
        ({"kind": "none", "buffer": 10.0}, "split=none"),
    ],
)
def test_a_split_has_no_use_for_what_belongs_to_others(wish, words):
    with pytest.raises(DeepLearningError, match=words):
        Split(**wish)


@pytest.mark.parametrize("split", [Split(kind="none"), Split(kind="column", validation=("a",))])
def test_shares_that_have_no_say_are_refused(split):
    with pytest.raises(DeepLearningError, match="shares="):
        split.check_shares()
    Split(kind="column").check_shares()
