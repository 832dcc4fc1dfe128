"""Rows remembered on disk: a prediction that was interrupted anywhere ends as one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prediction_scenes import BoxPredictor, Scene, Sheet, job_of, make_card, member, random_values, region_at
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.blending import Blending
from rlearndeep.prediction.journal import UNREADABLE, RowJournal, _arrays, _read, digest
from rlearndeep.prediction.maps import Layer, Sheets
from rlearndeep.prediction.planning import TilePlan
from rlearndeep.prediction.segments import SegmentIndex, SegmentSums
from rlearndeep.prediction.stream import strips
from rlearndeep.scene.geometry import Tiling

ROWS, COLS = 300, 40
JOB = {"model": "a", "region": [1, 2]}


class Killed(Exception):
    """Stands for a kill."""


def predict(directory: Path, resume: bool = False, kill_after: int | None = None, chunk: int = 9):
    """Maps, counts and segments of a prediction that may be killed after some appended rows; cells computed."""
    region = region_at(3, 5, ROWS, COLS)
    scene = Scene(random_values(1, (ROWS, COLS)), region)
    predictor = BoxPredictor(2)
    plan = TilePlan(Blending(Tiling((32, 32), (8, 8))), margin=None)
    job = job_of(scene, region, [member(predictor, make_card(reach=4))], plan, chunk)
    ids = np.arange(ROWS * COLS).reshape(ROWS, COLS) // 500
    sums = SegmentSums(SegmentIndex.of([ids]), job.question.subject)
    layers = [(Layer("class"), Sheet()), (Layer("probability", 1), Sheet())]

    def at(window):
        part = ids[window.slices]
        return part, part >= 0

    sheets = Sheets(job.question, layers, np.ones(ROWS), COLS, (sums, at))
    with RowJournal(directory, JOB, resume) as journal:
        if kill_after is not None:
            append, appended = journal.append, []

            def counting(rows):
                append(rows)
                appended.append(rows)
                if len(appended) > kill_after:
                    raise Killed

            journal.append = counting
        tally = sheets.write(strips(job, journal.done), journal)
    result = sums.result()
    arrays = [np.array(sheet.rows) for _, sheet in layers]
    cells = sum(shape[0] * shape[2] * shape[3] for shape in predictor.shapes)
    return [*arrays, tally.per_class, tally.area, np.array(tally.null_cells), result.means, result.null_cells], cells


@pytest.mark.parametrize("chunk", [9, 1])
@pytest.mark.parametrize("kill_after", [0, 3, 7])
def test_a_killed_prediction_goes_on_and_ends_the_same(tmp_path, chunk, kill_after):
    whole, all_cells = predict(tmp_path / "whole", chunk=chunk)
    with pytest.raises(Killed):
        predict(tmp_path / "part", kill_after=kill_after, chunk=chunk)
    again, cells = predict(tmp_path / "part", resume=True, chunk=chunk)
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert cells < all_cells
    assert not (tmp_path / "part").exists()
    assert not (tmp_path / "whole").exists()


def test_a_damaged_file_ends_what_is_remembered(tmp_path):
    with pytest.raises(Killed):
        predict(tmp_path, kill_after=5)
    files = sorted(tmp_path.glob("*.arrays"))
    files[3].write_bytes(files[3].read_bytes()[: files[3].stat().st_size // 2])
    with RowJournal(tmp_path, JOB, resume=True) as journal:
        assert len(list(journal)) == 3
        assert journal.done == int(files[2].stem)
        assert sorted(tmp_path.glob("*.arrays")) == files[:3]


def test_rows_behind_a_gap_are_not_used(tmp_path):
    with pytest.raises(Killed):
        predict(tmp_path, kill_after=5)
    files = sorted(tmp_path.glob("*.arrays"))
    files[1].unlink()
    with RowJournal(tmp_path, JOB, resume=True) as journal:
        assert journal.done == int(files[0].stem)


def test_a_flipped_bit_is_seen_wherever_it_changes_anything(tmp_path):
    with pytest.raises(Killed):
        predict(tmp_path, kill_after=2)
    file = sorted(tmp_path.glob("*.arrays"))[1]
    data, rows = file.read_bytes(), _arrays(_read(file))
    refused = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        file.write_bytes(bytes(damaged))
        try:
            found = _read(file)
        except UNREADABLE:
            refused += 1
        else:  # the padding of a header or of the file, or "<" that became "="
            np.testing.assert_equal(_arrays(found), rows)
    assert refused > len(data.rstrip(b"\0")) / 2
    data = data[: len(data) // 3]
    file.write_bytes(data)
    with RowJournal(tmp_path, JOB, resume=True) as journal:
        assert len(list(journal)) == 1


def test_another_job_is_not_continued_and_says_what_changed(tmp_path):
    with pytest.raises(Killed):
        predict(tmp_path, kill_after=1)
    with pytest.raises(DeepLearningError, match=r"changed since: model\. "):
        RowJournal(tmp_path, {**JOB, "model": "b"}, resume=True)
    with pytest.raises(DeepLearningError, match=r"nothing|none of this output"):
        RowJournal(tmp_path / "absent", JOB, resume=True)
    assert not (tmp_path / "absent").exists()
    assert len(list(tmp_path.glob("*.arrays"))) == 2
    with RowJournal(tmp_path, {**JOB, "model": "b"}, resume=False) as journal:
        assert journal.done == 0
        assert not list(tmp_path.glob("*.arrays"))


def test_an_output_is_written_by_one_at_a_time(tmp_path):
    with (
        RowJournal(tmp_path, JOB, resume=False),
        pytest.raises(DeepLearningError, match="one prediction at a time"),
    ):
        RowJournal(tmp_path, JOB, resume=False)


def test_a_digest_tells_contents_apart(tmp_path):
    for name, text in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / name).write_text(text)
    assert digest(tmp_path / "a") == digest(tmp_path / "c") != digest(tmp_path / "b")
