"""One answer per segment."""

from __future__ import annotations

import numpy as np
import pytest
from prediction_scenes import PatchPredictor, Scene, job_of, make_card, member, random_values, region_at
from rlearndeep.prediction.crops import answer_segments
from rlearndeep.prediction.planning import BlockPlan
from rlearndeep.prediction.segments import SegmentIndex
from rlearndeep.scene.geometry import Window


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("patch", [(4, 4), (5, 3), (40, 40)])
def test_every_segment_is_answered_from_the_crop_in_its_middle(boxed, patch):
    rows, cols = 530, 20
    region = region_at(2, 3, rows, cols)
    scene = Scene(random_values(5, (rows, cols)), region)
    generator = np.random.default_rng(0)
    ids = np.zeros((rows, cols), dtype=np.int32)
    for number in range(1, 60):
        row, col = generator.integers(rows - 8), generator.integers(cols - 6)
        ids[row : row + generator.integers(1, 9), col : col + generator.integers(1, 7)] = number * 7
    scene.values[:, ids == 7 * 5] = np.nan
    card = make_card("patch", patch=patch, reach=None)
    job = job_of(scene, region, [member(PatchPredictor(), card)], BlockPlan(patch, (1, 1)))
    index = SegmentIndex.of([ids[ids > 0]])
    result = answer_segments(job, index, lambda window: (ids[window.slices], ids[window.slices] > 0), boxed)

    valid = ~np.isnan(scene.values).any(axis=0)
    for position, number in enumerate(index.ids):
        own = ids == number
        assert result.cells[position] == (own & valid).sum()
        assert result.null_cells[position] == (own & ~valid).sum()
        if not (own & valid).any():
            assert np.isnan(result.means[position]).all()
            assert result.index[position] == -1
            continue
        where = np.argwhere(own)
        first, last = where.min(axis=0), where.max(axis=0) + 1
        size = np.array(patch)
        top, left = first + np.maximum(last - first - size, 0) // 2 if boxed else (first + last) // 2 - size // 2
        crop = np.nan_to_num(scene.read(Window(top, top + patch[0], left, left + patch[1])))
        holes = np.isnan(scene.read(Window(top, top + patch[0], left, left + patch[1]))).any(axis=0)
        crop[:, holes] = 0
        if boxed:
            crop[:, last[0] - top :] = 0
            crop[:, :, last[1] - left :] = 0
        np.testing.assert_allclose(result.means[position], PatchPredictor().predict(crop[None])[0], atol=1e-6)


def test_no_segment_gives_no_answer():
    region = region_at(0, 0, 5, 5)
    scene = Scene(random_values(5, (5, 5)), region)
    card = make_card("patch", patch=(3, 3), reach=None)
    job = job_of(scene, region, [member(PatchPredictor(), card)], BlockPlan((3, 3), (1, 1)))
    nothing = np.zeros((5, 5), dtype=np.int32)
    result = answer_segments(
        job, SegmentIndex.of([]), lambda window: (nothing[window.slices], nothing[window.slices] > 0)
    )
    assert result.means.shape == (0, 3)
