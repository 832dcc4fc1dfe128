"""Segments: sums on the stream equal sums over the whole array."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction import segments
from rlearndeep.prediction.answers import Subject
from rlearndeep.prediction.confidence import best_class
from rlearndeep.prediction.segments import (
    SegmentIndex,
    SegmentSums,
    segment_strips,
    segment_table,
    table_file,
)
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region

CLASSES = ClassTable((MapClass(3, "grass|land"), MapClass(8, ""), MapClass(-2, "wet")))
SUBJECT = Subject("class", CLASSES)


@settings(max_examples=60)
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
    sums = SegmentSums(segments, SUBJECT, aggregate)
    for rows in np.array_split(np.arange(shape[0]), pieces):
        sums.add(sums.share(ids[rows], segment[rows], scores[:, rows], valid[rows]))
    result = sums.result()

    assert result.ids.tolist() == sorted(set(ids[segment].tolist()))
    for position, number in enumerate(result.ids):
        own = segment & valid & (ids == number)
        assert result.cells[position] == own.sum()
        assert result.null_cells[position] == (segment & ~valid & (ids == number)).sum()
        if not own.any():
            assert result.index[position] == -1
            assert np.isnan(result.means[position]).all()
            continue
        votes = np.bincount(index[own], minlength=3) / own.sum()
        expected = scores[:, own].mean(axis=1) if aggregate == "mean" else votes
        np.testing.assert_allclose(result.means[position], expected, rtol=1e-5)
        assert result.index[position] == expected.argmax()
        assert result.confidence[position] == pytest.approx(expected.max())


def example() -> tuple[SegmentIndex, SegmentSums]:
    ids = np.array([[7, 7, 9]])
    scores = np.array([[[0.2, 0.4, 0.5]], [[0.7, 0.5, 0.3]], [[0.1, 0.1, 0.2]]], dtype=np.float32)
    valid = np.array([[True, True, False]])
    segments = SegmentIndex.of([ids])
    sums = SegmentSums(segments, SUBJECT)
    sums.add(sums.share(ids, np.ones_like(valid), scores, valid))
    return segments, sums


def test_the_table_has_the_columns_that_join():
    lines = list(segment_table(example()[1].result()))
    assert lines[0].strip() == "cat|class|label|confidence|cells|null_cells|p_-2|p_3|p_8"
    rows = list(csv.reader(lines, delimiter="|"))
    assert rows[1] == ["7", "3", "grass|land", "0.6", "2", "0", "0.3", "0.6", "0.1"]
    assert rows[2] == ["9", "", "", "", "0", "1", "", "", ""]


def test_cells_get_the_means_of_their_segments_and_nothing_elsewhere():
    segments, sums = example()
    ids = np.array([[9, 7], [7, 0]])
    strips = list(segment_strips(sums.result(), segments, lambda _: (ids, ids > 0), Region(2, 0, 2, 0, 2, 2)))
    assert len(strips) == 1
    np.testing.assert_array_equal(strips[0].valid, [[False, True], [True, False]])
    np.testing.assert_allclose(strips[0].planes[:, 0, 1], [0.3, 0.6, 0.1], atol=1e-6)
    np.testing.assert_array_equal(sums.result().index, [1, -1])


def test_no_segment_at_all_gives_an_empty_table():
    sums = SegmentSums(SegmentIndex.of([]), SUBJECT)
    nothing = np.zeros((1, 2), dtype=int)
    sums.add(sums.share(nothing, nothing > 0, np.zeros((3, 1, 2), np.float32), nothing == 0))
    result = sums.result()
    assert len(list(segment_table(result))) == 1
    assert result.index.size == 0


def test_a_table_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(RuntimeError), table_file(file, ["ne", "w"]):
        assert file.read_text() == "old"
        raise RuntimeError
    assert file.read_text() == "old"
    with table_file(file, ["ne", "w"]):
        pass
    assert file.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    with pytest.raises(DeepLearningError, match="writable"), table_file(tmp_path / "absent" / "t.csv", ["x"]):
        pass


def full_disk():
    yield "first line\n"
    raise OSError(28, "No space left on device")


def interrupted():
    yield "first line\n"
    raise KeyboardInterrupt


@pytest.mark.parametrize(("lines", "error"), [(full_disk, DeepLearningError), (interrupted, KeyboardInterrupt)])
def test_a_table_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path, lines, error):
    with pytest.raises(error), table_file(tmp_path / "table.csv", lines()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_table_whose_place_was_taken_meanwhile_is_refused_in_one_line(tmp_path):
    file = tmp_path / "table.csv"
    with pytest.raises(DeepLearningError, match=r"'.*table\.csv' is not \("), table_file(file, ["x"]):
        file.mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_a_table_of_many_segments_has_a_line_for_each(monkeypatch):
    ids = np.arange(1, 11).reshape(2, 5)
    sums = SegmentSums(SegmentIndex.of([ids]), SUBJECT)
    scores = np.stack([ids / 10, np.zeros((2, 5)), 1 - ids / 10]).astype(np.float32)
    sums.add(sums.share(ids, ids > 0, scores, ids != 4))
    whole = list(segment_table(sums.result()))
    monkeypatch.setattr(segments, "_TABLE_ROWS", 3)
    assert list(segment_table(sums.result())) == whole
    assert [line.split("|")[0] for line in whole[1:]] == [str(number) for number in range(1, 11)]
    assert whole[4] == "4||||0|1|||\n"


def test_values_of_segments_are_means_with_their_deviation():
    subject = Subject("value", ClassTable(()), 50.0, 5.0)
    ids = np.array([[4, 4, 4, 6]])
    values = np.array([[[48.0, 50.0, 52.0, 9.0]]], dtype=np.float32)
    valid = np.array([[True, True, True, False]])
    sums = SegmentSums(SegmentIndex.of([ids]), subject)
    sums.add(sums.share(ids, ids > 0, values, valid))
    lines = "".join(segment_table(sums.result())).splitlines()
    assert lines == ["cat|value|stddev|cells|null_cells", "4|50|1.63299|3|0", "6|||0|1"]


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", "0.55|0.3"), ("majority", "0.5|0.5")])
def test_each_class_of_a_segment_is_there_or_not_for_itself(aggregate, expected):
    subject = Subject("presence", ClassTable(CLASSES.classes[:2]))
    ids = np.array([[4, 4]])
    sums = SegmentSums(SegmentIndex.of([ids]), subject, aggregate)
    scores = np.array([[[0.2, 0.9]], [[0.6, 0.0]]], dtype=np.float32)
    sums.add(sums.share(ids, ids > 0, scores, ids > 0))
    lines = "".join(segment_table(sums.result())).splitlines()
    assert lines == ["cat|cells|null_cells|p_-2|p_3", f"4|2|0|{expected}"]
