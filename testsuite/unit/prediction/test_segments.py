"""Segments: sums on the stream equal sums over the whole array."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.confidence import best_class
from rlearndeep.prediction.segments import SegmentIndex, SegmentSums, segment_table, table_file
from rlearndeep.scene.classes import ClassTable, MapClass

CLASSES = ClassTable((MapClass(3, "grass|land"), MapClass(8, ""), MapClass(-2, "wet")))
NULL = -(2**31)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999), st.sampled_from(("mean", "majority")), st.integers(1, 40), st.sampled_from((1, 10**8, 2**30))
)
def test_sums_over_pieces_equal_a_loop_over_segments(seed, aggregate, pieces, spread):
    generator = np.random.default_rng(seed)
    shape = (40, 15)
    ids = generator.integers(-3, 12, shape) * spread // 2
    segment = generator.random(shape) > 0.1
    valid = generator.random(shape) > 0.3
    valid[ids == ids[0, 0]] = False
    scores = generator.dirichlet(np.ones(3), shape).transpose(2, 0, 1).astype(np.float32)
    index, _ = best_class(scores, valid)
    segments = SegmentIndex.of(np.array_split(ids[segment], 5))
    sums = SegmentSums(segments, 3, aggregate)
    for rows in np.array_split(np.arange(shape[0]), pieces):
        sums.add(ids[rows], segment[rows], scores[:, rows], index[rows], valid[rows])
    result = sums.result()

    assert result.ids.tolist() == sorted(set(ids[segment].tolist()))
    for position, number in enumerate(result.ids):
        own = segment & valid & (ids == number)
        assert result.cells[position] == own.sum()
        assert result.null_cells[position] == (segment & ~valid & (ids == number)).sum()
        if not own.any():
            assert result.index[position] == -1
            assert np.isnan(result.probabilities[position]).all()
            continue
        votes = np.bincount(index[own], minlength=3) / own.sum()
        expected = scores[:, own].mean(axis=1) if aggregate == "mean" else votes
        np.testing.assert_allclose(result.probabilities[position], expected, rtol=1e-5)
        assert result.index[position] == expected.argmax()
        assert result.confidence[position] == pytest.approx(expected.max())


def example() -> tuple[SegmentIndex, SegmentSums]:
    ids = np.array([[7, 7, 9]])
    scores = np.array([[[0.2, 0.4, 0.5]], [[0.7, 0.5, 0.3]], [[0.1, 0.1, 0.2]]], dtype=np.float32)
    valid = np.array([[True, True, False]])
    segments = SegmentIndex.of([ids])
    sums = SegmentSums(segments, 3)
    sums.add(ids, np.ones_like(valid), scores, best_class(scores, valid)[0], valid)
    return segments, sums


def test_the_table_has_the_columns_that_join():
    text = segment_table(example()[1].result(), CLASSES)
    assert text.splitlines()[0] == "cat|class|label|confidence|cells|null_cells|p_-2|p_3|p_8"
    rows = list(csv.reader(text.splitlines(), delimiter="|"))
    assert rows[1] == ["7", "3", "grass|land", "0.6", "2", "0", "0.3", "0.6", "0.1"]
    assert rows[2] == ["9", "", "", "", "0", "1", "", "", ""]


def test_segments_without_a_valid_cell_have_no_category():
    _, sums = example()
    assert sums.result().categories(CLASSES, NULL).tolist() == [3, NULL]


def test_no_segment_at_all_gives_an_empty_table():
    sums = SegmentSums(SegmentIndex.of([]), 3)
    nothing = np.zeros((1, 2), dtype=int)
    sums.add(nothing, nothing > 0, np.zeros((3, 1, 2), np.float32), nothing, nothing == 0)
    result = sums.result()
    assert len(segment_table(result, CLASSES).splitlines()) == 1
    assert result.categories(CLASSES, NULL).size == 0


def test_a_table_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(RuntimeError), table_file(file, "new"):
        assert file.read_text() == "old"
        raise RuntimeError
    assert file.read_text() == "old"
    with table_file(file, "new"):
        pass
    assert file.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    with pytest.raises(DeepLearningError, match="writable"), table_file(tmp_path / "absent" / "t.csv", "x"):
        pass
