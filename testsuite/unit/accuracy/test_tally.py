"""Counting by codes equals counting cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.accuracy import tally
from rlearndeep.accuracy.tally import AreaTally, Coding, Counter, Layout, Tally, Units
from rlearndeep.errors import DeepLearningError

NULL = np.iinfo(np.int32).min


def test_codes_follow_the_categories_and_null_is_last():
    cells = np.array([5, 7, 6, 8, NULL, 4, np.iinfo(np.int32).max], np.int32)
    assert Coding.of([5, 6, 7]).encode(cells).tolist() == [0, 2, 1, 3, 3, 3, 3]
    assert Coding.of([5, 7]).encode(cells).tolist() == [0, 1, 2, 2, 2, 2, 2]


def test_negative_categories_have_codes():
    assert Coding.of([-9999, 3]).encode(np.array([3, -9999, 0, NULL], np.int32)).tolist() == [1, 0, 2, 2]


def test_several_values_may_share_a_code():
    coding = Coding(np.array([10, 20, 30]), np.array([1, 0, 1]), 2)
    assert coding.encode(np.array([30, 20, 10, 15], np.int32)).tolist() == [1, 0, 1, 2]


def test_no_value_at_all_is_null_everywhere():
    assert Coding(np.empty(0, np.int64), np.empty(0, np.int64), 2).encode(np.array([0, 1], np.int32)).tolist() == [2, 2]


def test_absurd_range_of_categories_is_refused():
    with pytest.raises(DeepLearningError, match=r"r\.reclass"):
        Coding.of([1, 2**30])


@pytest.mark.parametrize(("dense", "large"), [(1, 1), (1, 10**9), (10**9, 10**9)])
def test_all_ways_to_count_agree(monkeypatch, dense, large):
    monkeypatch.setattr(tally, "_DENSE", dense)
    monkeypatch.setattr(tally, "_LARGE", large)
    monkeypatch.setattr(tally, "_MERGE_AT", 50)
    random = np.random.default_rng(1)
    counter = Counter((5, 7), weighted=True)
    expected, sums = np.zeros((5, 7), int), np.zeros((5, 7))
    for _ in range(20):
        first, second, weights = random.integers(0, 5, 40), random.integers(0, 7, 40), random.random(40)
        counter.add(counter.join([first, second]), weights)
        np.add.at(expected, (first, second), 1)
        np.add.at(sums, (first, second), weights)
    keys, counts, weights = counter.entries()
    found, found_sums = np.zeros((5, 7), int), np.zeros((5, 7))
    found[tuple(keys.T)], found_sums[tuple(keys.T)] = counts, weights
    assert np.array_equal(found, expected)
    assert np.allclose(found_sums, sums)


def test_counting_in_pieces_changes_nothing(monkeypatch):
    random = np.random.default_rng(2)
    layout = Layout((Coding.of([1, 2]), Coding.of([1, 2, 3])), Coding.of([0, 1, 2]), Coding.of([4, 5]), (10, 12), True)
    units = Units(
        [random.integers(0, 3, 500).astype(np.uint32), random.integers(0, 4, 500).astype(np.uint32)],
        random.integers(0, 4, 500).astype(np.uint32),
        strata=random.integers(0, 3, 500).astype(np.uint32),
        segments=np.where(random.random(500) < 0.1, NULL, random.integers(10, 13, 500)).astype(np.int32),
        inside=random.random(500) < 0.3,
    )
    whole = Tally(layout)
    whole.add(units)
    monkeypatch.setattr(tally, "_PIECE", 33)
    monkeypatch.setattr(tally, "_piece_size", lambda _: 33)
    parts = Tally(layout)
    parts.add(units)
    for first, second in zip(
        [*whole.pairs, *whole.strata, *sum(whole.segments, ()), *whole.joint.values()],
        [*parts.pairs, *parts.strata, *sum(parts.segments, ()), *parts.joint.values()],
        strict=True,
    ):
        assert all(np.array_equal(a, b) for a, b in zip(first.entries(), second.entries(), strict=True))
    keys, counts, _ = whole.joint[0, 1].entries()
    case = (keys == [1, 0, 2]).all(axis=1)
    assert counts[case].sum() == ((units.reference == 1) & (units.maps[0] == 0) & (units.maps[1] == 2)).sum()


def test_areas_of_unequal_cells_are_summed():
    layout = Layout((Coding.of([1, 2]),), Coding.of([1]))
    areas = AreaTally(layout, None)
    areas.add(Units([np.array([0, 1, 1, 2])], np.zeros(4, np.uint32), areas=np.array([1.0, 2.0, 3.0, 4.0])))
    assert areas.of_map(0)[1].tolist() == [1.0, 5.0, 0.0]


@pytest.mark.parametrize("cell_area", [None, 1.0])
def test_areas_of_strata_are_those_where_the_map_is_known(cell_area):
    layout = Layout((Coding.of([1, 2]),), Coding.of([1]), strata=Coding.of([7, 9]))
    areas = AreaTally(layout, cell_area)
    codes, strata = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 1, 1, 2], np.uint32)
    areas.add(Units([codes], np.zeros(5, np.uint32), strata=strata, areas=None if cell_area else np.ones(5)))
    by_stratum, by_class = areas.of_map(0)
    assert (by_stratum.tolist(), by_class.tolist()) == ([1.0, 2.0], [1.0, 2.0, 0.0])
