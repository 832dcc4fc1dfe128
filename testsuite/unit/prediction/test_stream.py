"""The stream on fake networks, against computations of the whole array at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prediction_scenes import (
    BoxPredictor,
    ConstantPredictor,
    PatchPredictor,
    Scene,
    job_of,
    make_card,
    member,
    random_values,
    region_at,
)
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.answers import Member, check_members
from rlearndeep.prediction.blending import BLENDS, Blending
from rlearndeep.prediction.planning import BlockPlan, TilePlan, make_plan
from rlearndeep.prediction.stream import Here, Job, strips
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.geometry import Tiling, Window


def run(job: Job) -> tuple[NDArray, NDArray, NDArray]:
    """Scores, validity, and how often each cell was written."""
    scores = np.full((job.question.planes, *job.region.shape), np.nan, dtype=np.float32)
    valid = np.zeros(job.region.shape, dtype=bool)
    written = np.zeros(job.region.shape, dtype=int)
    last = (0, 0)
    for strip in strips(job):
        assert strip.planes.shape == (job.question.planes, *strip.window.shape)
        assert strip.valid.shape == strip.window.shape
        position = (strip.window.row_start, strip.window.col_start)
        assert position >= last
        last = position
        rows, cols = strip.window.slices
        scores[:, rows, cols] = strip.planes
        valid[rows, cols] = strip.valid
        written[rows, cols] += 1
    return scores, valid, written


shapes = st.tuples(st.integers(1, 30), st.integers(1, 30))
corners = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


@st.composite
def tile_plans(draw, reach: int, stride: int) -> TilePlan:
    """Plans whose overlap holds the network's reach."""
    blend = draw(st.sampled_from(BLENDS[:3]))
    overlap = -(-max(2 * reach, draw(st.integers(0, 6))) // stride) * stride
    sizes = [max(stride, 2 * overlap) + stride * draw(st.integers(0, 3)) for _ in range(2)]
    least = stride * draw(st.integers(1, 2))
    least = min(least, *sizes)
    margin = draw(st.sampled_from((overlap, None)))
    return TilePlan(Blending(Tiling((sizes[0], sizes[1]), (overlap, overlap)), blend), stride, (least, least), margin)


def tile_by_tile(job: Job, plan: TilePlan) -> NDArray:
    """Scores of whole tiles, blended over the whole region: simple, wasteful, and without any strip."""
    result = np.zeros((job.question.planes, *job.region.shape))
    for tile in plan.tiling.tiles(job.region):
        values = job.source.read(tile.window)
        prepared = job.members[0].prepare(values, ~np.isnan(values).any(axis=0))
        scores = job.members[0].predictor.predict(prepared[None])[0]
        inside = tile.window.intersection(job.region.window)
        own = inside.relative_to(tile.window).slices
        result[:, inside.slices[0], inside.slices[1]] += (scores * plan.blending.weights)[:, own[0], own[1]]
    return result


def at_once(job: Job, reach: int) -> NDArray:
    """Scores of the region computed without tiles."""
    values = job.source.read(job.region.window.expanded(reach, reach))
    prepared = job.members[0].prepare(values, ~np.isnan(values).any(axis=0))
    rows, cols = job.region.window.shifted(reach, reach).slices
    return job.members[0].predictor.predict(prepared[None])[0][:, rows, cols]


@settings(max_examples=200)
@given(st.data(), shapes, shapes, corners, corners, st.integers(0, 2), st.sampled_from((1, 2, 4)), st.integers(0, 99))
def test_the_stream_equals_computations_without_a_stream(
    data, shape, scene_shape, corner, scene_offset, reach, stride, seed
):
    plan = data.draw(tile_plans(reach, stride))
    region = region_at(*corner, *shape)
    scene = Scene(random_values(seed, scene_shape), region, (scene_offset[0] // 4, scene_offset[1] // 4))
    card = make_card(normalization=Normalization("band", (0.5, -0.5), (2.0, 0.5)), reach=reach, stride=stride)
    predictor = BoxPredictor(reach)
    chunk = data.draw(st.integers(1, 5))
    batch_size = data.draw(st.sampled_from((None, 1, 3)))
    job = job_of(scene, region, [member(predictor, card)], plan, chunk, batch_size=batch_size)

    scores, valid, written = run(job)
    shapes_seen = list(predictor.shapes)

    assert (written == 1).all()
    np.testing.assert_array_equal(valid, ~np.isnan(scene.read(region.window)).any(axis=0))
    np.testing.assert_allclose(scores[:, valid], tile_by_tile(job, plan)[:, valid], atol=1e-6)
    if plan.blending.blend == "crop" or reach == 0:
        np.testing.assert_allclose(scores[:, valid], at_once(job, reach)[:, valid], atol=1e-6)
    for _, _, rows, cols in shapes_seen:
        assert rows % stride == 0
        assert cols % stride == 0
        assert rows >= plan.least[0]
        assert cols >= plan.least[1]


@settings(max_examples=100)
@given(st.data(), shapes, corners, st.sampled_from(BLENDS), st.integers(1, 12), st.integers(1, 4))
def test_a_constant_network_gives_that_constant_in_every_cell(data, shape, corner, blend, size, chunk):
    overlap = 0 if blend == "none" else data.draw(st.integers(0, size // 2))
    plan = TilePlan(
        Blending(Tiling((size, size), (overlap, overlap)), blend), margin=data.draw(st.sampled_from((0, None)))
    )
    region = region_at(*corner, *shape)
    scene = Scene(np.ones((2, *shape), dtype=np.float32), region)
    models = [member(ConstantPredictor((0.2, 0.7, 0.1)), make_card()) for _ in range(data.draw(st.integers(1, 3)))]
    scores, valid, written = run(job_of(scene, region, models, plan, chunk))
    assert valid.all()
    assert (written == 1).all()
    np.testing.assert_allclose(
        scores, np.broadcast_to(np.array([0.2, 0.7, 0.1])[:, None, None], scores.shape), atol=1e-6
    )


@settings(max_examples=60)
@given(st.data(), corners, st.integers(0, 2), st.integers(0, 99))
def test_a_part_predicted_alone_equals_that_part_of_the_whole(data, corner, reach, seed):
    plan = data.draw(tile_plans(reach, 2))
    region = region_at(*corner, 26, 31)
    part = Window(
        *sorted(data.draw(st.tuples(st.integers(0, 12), st.integers(13, 26)))), 5, data.draw(st.integers(6, 31))
    )
    values = random_values(seed, (26, 31))
    card = make_card(reach=reach)
    whole_scene = Scene(values, region)
    whole, whole_valid, _ = run(job_of(whole_scene, region, [member(BoxPredictor(reach), card)], plan))
    scene = Scene(values, region.subregion(part), (-part.row_start, -part.col_start))
    alone, alone_valid, _ = run(job_of(scene, scene.region, [member(BoxPredictor(reach), card)], plan))
    rows, cols = part.slices
    np.testing.assert_array_equal(alone_valid, whole_valid[rows, cols])
    np.testing.assert_allclose(alone[:, alone_valid], whole[:, rows, cols][:, alone_valid], atol=1e-6)
    np.testing.assert_array_equal(alone.argmax(axis=0)[alone_valid], whole[:, rows, cols].argmax(axis=0)[alone_valid])


@settings(max_examples=150)
@given(st.data(), shapes, corners, st.integers(1, 7), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_patch_classifiers_answer_for_the_block_in_the_middle_of_the_patch(
    data, shape, corner, rows, cols, stride, seed
):
    plan = BlockPlan((rows, cols), (stride, stride))
    region = region_at(*corner, *shape)
    scene = Scene(random_values(seed, (20, 20)), region, (data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9))))
    card = make_card("patch", patch=(rows, cols), reach=None)
    scores, valid, written = run(
        job_of(scene, region, [member(PatchPredictor(), card)], plan, data.draw(st.integers(1, 4)))
    )
    assert (written == 1).all()
    np.testing.assert_array_equal(valid, ~np.isnan(scene.read(region.window)).any(axis=0))
    anchor_row, anchor_col = region.anchor
    for row, col in np.argwhere(valid):
        first_row = (row + anchor_row) // stride * stride - anchor_row - (rows - stride + 1) // 2
        first_col = (col + anchor_col) // stride * stride - anchor_col - (cols - stride + 1) // 2
        patch = np.nan_to_num(scene.read(Window(first_row, first_row + rows, first_col, first_col + cols)))
        np.testing.assert_allclose(scores[:, row, col], PatchPredictor().predict(patch[None])[0], atol=1e-6)


def test_a_hole_of_null_disturbs_only_cells_within_reach():
    region = region_at(3, 5, 40, 40)
    values = random_values(1, (40, 40), holes=0)
    hollow = values.copy()
    hollow[:, 18:22, 18:22] = np.nan
    plan = TilePlan(Blending(Tiling((16, 16), (6, 6))), margin=6)
    full, holed = (
        run(job_of(Scene(array, region), region, [member(BoxPredictor(2), make_card(reach=2))], plan))[0]
        for array in (values, hollow)
    )
    changed = np.abs(full - holed).max(axis=0) > 1e-6
    assert changed[16:24, 16:24].any()
    changed[16:24, 16:24] = False
    assert not changed.any()


def test_rows_are_read_once_and_tiles_without_data_are_not_predicted():
    region = region_at(0, 0, 64, 32)
    values = random_values(2, (64, 32), holes=0)
    values[:, 32:] = np.nan
    scene = Scene(values, region)
    predictor = BoxPredictor(2)
    plan = TilePlan(Blending(Tiling((16, 16), (4, 4))), margin=4)
    run(job_of(scene, region, [member(predictor, make_card(reach=2))], plan, 99))
    rows = [row for window in scene.read_cells for row in range(window.row_start, window.row_stop)]
    assert len(rows) == len(set(rows))
    everywhere = BoxPredictor(2)
    full = Scene(random_values(2, (64, 32), holes=0), region)
    run(job_of(full, region, [member(everywhere, make_card(reach=2))], plan, 99))
    cells, all_cells = (
        sum(shape[0] * shape[2] * shape[3] for shape in each.shapes) for each in (predictor, everywhere)
    )
    assert cells < 0.65 * all_cells


def test_several_models_are_averaged_with_their_own_bands_and_normalisation():
    region = region_at(0, 0, 9, 7)
    scene = Scene(random_values(3, (9, 7)), region)
    straight = make_card(reach=1, normalization=Normalization("band", (1.0, 0.0), (2.0, 1.0)))
    swapped = make_card(reach=1)
    plan = make_plan([straight, swapped])
    models = [Member(BoxPredictor(1), straight, (0, 1)), Member(BoxPredictor(1), swapped, (1, 0))]
    mean = run(job_of(scene, region, models, plan))[0]
    single = [run(job_of(scene, region, [model], plan))[0] for model in models]
    valid = ~np.isnan(scene.values).any(axis=0)
    np.testing.assert_allclose(mean[:, valid], (single[0] + single[1])[:, valid] / 2, atol=1e-6)
    assert np.abs(single[0] - single[1])[:, valid].max() > 0.1


def test_models_with_other_classes_or_another_unit_are_not_averaged():
    with pytest.raises(DeepLearningError, match=r"same classes.*'a' has 3 \(5, 15, 25\), 'b' has 2 \(5, 15\)"):
        check_members([make_card(), make_card(classes=2)], ["a", "b"])
    with pytest.raises(DeepLearningError, match="per cell of"):
        check_members([make_card(), make_card("patch")], ["a", "b"])
    check_members([make_card(), make_card(patch=(8, 8))], ["a", "b"])


@settings(max_examples=60)
@given(st.data(), corners, st.integers(0, 2), st.integers(0, 99), st.booleans())
def test_a_stream_that_begins_below_gives_the_same_rows(data, corner, reach, seed, patches):
    region = region_at(*corner, 50, 20)
    scene = Scene(random_values(seed, (50, 20)), region)
    if patches:
        plan, models = BlockPlan((4, 4), (3, 3)), [member(PatchPredictor(), make_card("patch", reach=None))]
    else:
        plan, models = data.draw(tile_plans(reach, 2)), [member(BoxPredictor(reach), make_card(reach=reach))]
    job = job_of(scene, region, models, plan, data.draw(st.integers(1, 5)))
    whole, valid, _ = run(job)
    done = data.draw(st.integers(0, 51))
    rest = list(strips(job, done))
    assert sum(strip.window.rows * strip.window.cols for strip in rest) == max(0, 50 - done) * 20
    for strip in rest:
        assert strip.window.row_start >= done
        rows, cols = strip.window.slices
        np.testing.assert_array_equal(strip.valid, valid[rows, cols])
        np.testing.assert_array_equal(strip.planes[:, strip.valid], whole[:, rows, cols][:, strip.valid])


@pytest.mark.parametrize("band", [0, 1])
def test_a_cell_that_is_null_in_any_band_has_no_answer(band):
    region = region_at(0, 0, 9, 7)
    values = random_values(3, (9, 7), holes=0)
    values[band, 4, 2] = np.nan
    valid = run(
        job_of(Scene(values, region), region, [member(BoxPredictor(0), make_card())], make_plan([make_card()]))
    )[1]
    assert np.argwhere(~valid).tolist() == [[4, 2]]


def test_each_model_gets_its_bands_in_its_own_order():
    values = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    valid = np.ones((2, 4), dtype=bool)
    prepared = Member(BoxPredictor(0), make_card(), (2, 0)).prepare(values, valid)
    np.testing.assert_array_equal(prepared, values[[2, 0]])


@given(st.data(), corners, st.integers(0, 2), st.integers(0, 99), st.booleans())
@settings(max_examples=30)
def test_pieces_computed_each_for_itself_make_the_same_map(data, corner, reach, seed, patches):
    region = region_at(*corner, *data.draw(shapes))
    scene = Scene(random_values(seed, region.shape), region)
    if patches:
        plan = BlockPlan((4, 4), (2, 3))
        models = [member(PatchPredictor(), make_card("patch", patch=(4, 4)))]
    else:
        plan = data.draw(tile_plans(reach, 1))
        card = make_card(reach=reach)
        models = [member(BoxPredictor(reach + more), card) for more in (0, 0)]
    job = job_of(scene, region, models, plan, data.draw(st.integers(1, 3)))
    pieces = list(job.pieces(job.row_starts))
    assert max(len(cols) for _, cols in pieces) <= job.starts_per_chunk
    chunks = {piece: Here(job).chunk(piece) for piece in reversed(pieces)}
    for chunk in chunks.values():
        chunk.planes.flags.writeable = False  # as what comes from another machine
    elsewhere = list(strips(job, chunks=lambda asked: (chunks[piece] for piece in asked)))
    for one, other in zip(strips(job), elsewhere, strict=True):
        assert one.window == other.window
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_array_equal(one.planes[:, one.valid], other.planes[:, other.valid])


def test_a_batch_is_blended_while_another_device_computes_the_next() -> None:
    class Apart(BoxPredictor):
        is_apart = True

        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            threads.add(threading.get_ident())
            return super().predict(batch)

    threads: set[int] = set()
    region = region_at(3, 5, 40, 50)
    scene = Scene(random_values(2, region.shape), region)
    plan = TilePlan(Blending(Tiling((12, 12), (4, 4)), BLENDS[0]), margin=None)
    here, apart = (
        job_of(scene, region, [member(kind(1), make_card(reach=1))] * 2, plan, 9) for kind in (BoxPredictor, Apart)
    )
    for expected, found in zip(run(here), run(apart), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert threading.get_ident() not in threads
