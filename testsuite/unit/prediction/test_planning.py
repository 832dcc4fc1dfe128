"""How a region is cut: derived from the model and the options, never from the region or the memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network
from rlearndeep.prediction.blending import Blending
from rlearndeep.prediction.planning import Beside, BlockPlan, TilePlan, make_plan, starts_per_chunk
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region, Tiling, Window

CARD = ModelCard(
    backend="torch",
    weights="weights.safetensors",
    network=Network("unet", 1, 1),
    unit="cell",
    bands=(Band("b"),),
    normalization=Normalization("none"),
    classes=ClassTable((MapClass(1, "one"),)),
    patch=(128, 128),
    resolution=(1.0, 1.0),
    stride=32,
    reach=50,
)


def region_of(rows: int, cols: int) -> Region:
    return Region(rows, 0, cols, 0, rows, cols)


@given(
    st.integers(1, 700), st.integers(1, 64), st.one_of(st.none(), st.integers(0, 500)), st.sampled_from((None, 0, 30))
)
def test_tiles_are_multiples_of_the_stride_and_hold_patch_and_overlap(patch, stride, reach, overlap):
    plan = make_plan([replace(CARD, patch=(patch, patch), stride=stride, reach=reach)], overlap)
    assert plan.tiling.size[0] % stride == 0
    assert plan.tiling.step[0] % stride == 0
    assert plan.least[0] % stride == 0
    assert patch <= plan.least[0] <= plan.tiling.size[0]
    assert 2 * plan.tiling.overlap[0] <= plan.tiling.size[0]


def test_the_overlap_is_twice_the_reach_in_strides():
    assert make_plan([CARD]).tiling.overlap == (128, 128)
    assert make_plan([replace(CARD, reach=48)]).tiling.overlap == (96, 96)
    assert make_plan([CARD], blend="none").tiling.overlap == (0, 0)
    assert make_plan([CARD], overlap=33).tiling.overlap == (64, 64)
    single = make_plan([replace(CARD, patch=(1, 1), stride=1, reach=0)])
    assert single.tiling.overlap == (0, 0)
    assert single.margin == 0


def test_a_network_that_is_lost_in_larger_pictures_gets_tiles_of_the_size_of_a_patch():
    plan = make_plan([CARD, replace(CARD, patch=(64, 64), reach=32, largest=(64, 64))], blend="linear")
    assert plan.tiling.size == (64, 64)
    assert plan.tiling.overlap == (32, 32)


@pytest.mark.parametrize("reach", [48, None])
def test_what_a_tile_holds_does_not_depend_on_the_region_when_context_matters(reach):
    plan = make_plan([replace(CARD, reach=reach)])
    data = Window(-5000, 5000, -5000, 5000)
    part = Region(north=1500, south=1450, west=700, east=760, rows=50, cols=60)
    assert plan.useful_window(part, data) == plan.tiling.reading_window(part)


def test_what_is_computed_twice_is_a_small_share():
    for reach, most in ((16, 1.1), (32, 1.15), (64, 1.25)):
        tiling = make_plan([replace(CARD, reach=reach)]).tiling
        assert tiling.size[0] * tiling.size[1] <= most * tiling.step[0] * tiling.step[1]
    assert make_plan([replace(CARD, patch=(1, 1), stride=1, reach=0)]).tiling.size == (256, 256)


def test_several_models_are_served_by_the_largest_reach_and_the_common_stride():
    plan = make_plan([replace(CARD, stride=4, reach=10), replace(CARD, stride=6, reach=2)])
    assert plan.stride == 12
    assert plan.tiling.overlap == (24, 24)


@given(
    st.integers(-100, 100),
    st.integers(1, 200),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(2, 6),
)
def test_a_cropped_tile_holds_the_useful_cells(start, length, steps, stride, least, size):
    tile = Window(0, size * 4 * stride, 0, size * 4 * stride)
    useful = Window(start, start + length, start // 2, start // 2 + steps)
    plan = TilePlan(Blending(Tiling(tile.shape, (0, 0))), stride, (min(least, size) * stride, stride))
    cropped = plan.cropped(tile, useful)
    assert tile.contains(cropped) or cropped.is_empty
    common = tile.intersection(useful)
    if common.is_empty:
        assert cropped.is_empty
        return
    assert cropped.contains(common)
    assert cropped.row_start % stride == cropped.rows % stride == 0
    assert cropped.rows >= plan.least[0]
    assert cropped.rows <= max(common.rows + 2 * stride, plan.least[0] + 2 * stride)


def test_the_block_lies_in_the_middle_of_its_patch():
    assert BlockPlan((5, 5), (1, 1)).lead == (2, 2)
    assert BlockPlan((4, 4), (1, 1)).lead == (2, 2)
    assert BlockPlan((64, 32), (16, 8)).lead == (24, 12)
    assert BlockPlan((5, 5), (2, 2)).lead == (2, 2)
    assert make_plan([replace(CARD, unit="patch", patch=(64, 3))]).stride == (16, 1)
    assert make_plan([replace(CARD, unit="patch")], stride=7).stride == (7, 7)


def test_options_that_do_not_fit_the_model_are_refused():
    with pytest.raises(DeepLearningError, match="overlap=3"):
        make_plan([replace(CARD, unit="patch")], overlap=3)
    with pytest.raises(DeepLearningError, match="blend=crop"):
        make_plan([replace(CARD, unit="patch")], blend="crop")
    with pytest.raises(DeepLearningError, match="stride=3"):
        make_plan([CARD], stride=3)
    with pytest.raises(DeepLearningError, match="at most half a tile"):
        make_plan([CARD], overlap=4000)
    with pytest.raises(DeepLearningError, match="at least one cell"):
        make_plan([replace(CARD, unit="patch")], stride=0)


def test_a_region_too_wide_for_the_memory_is_cut_into_columns():
    plan = make_plan([CARD])
    wide = region_of(1000, 50_000)
    everything = len(plan.tiling.tile_cols(wide))
    assert starts_per_chunk(plan, wide, 5, 7, 1, 10_000) == everything
    few = starts_per_chunk(plan, wide, 5, 7, 1, 1500)
    assert 1 <= few < everything
    assert starts_per_chunk(plan, wide, 5, 7, 1, 3000) > few
    narrow = region_of(6000, 6000)
    assert starts_per_chunk(plan, narrow, 5, 7, 8, 1500) == len(plan.tiling.tile_cols(narrow))


def test_the_width_that_memory_allows_depends_on_the_maps_that_are_asked_for():
    plan = make_plan([CARD])
    wide = region_of(1000, 40_000)
    assert starts_per_chunk(plan, wide, 5, 7, 1, 1000) >= 1
    with pytest.raises(DeepLearningError, match="ask for fewer maps"):
        starts_per_chunk(plan, wide, 5, 7, 15, 1000)


def test_too_little_memory_is_refused_with_the_memory_that_would_do():
    plan = make_plan([CARD])
    wide = region_of(1000, 100_000)
    with pytest.raises(DeepLearningError, match=r"memory=\d+") as refusal:
        starts_per_chunk(plan, wide, 5, 7, 1, 50)
    needed = int(str(refusal.value).split("memory=")[1].split(",")[0])
    assert starts_per_chunk(plan, wide, 5, 7, 1, needed) >= 1
    assert starts_per_chunk(BlockPlan((64, 64), (16, 16)), wide, 5, 7, 1, 300) >= 1


def test_cells_of_a_further_source_are_counted_in_its_own_grid():
    fine = Beside(3, Region(100, 0, 100, 0, 400, 200), (7, 9))
    assert fine.cells(region_of(100, 100), 10, 20) == 3 * (10 * 4 + 8) * (20 * 2 + 10)


def test_further_sources_count_in_the_memory_of_a_strip():
    plan = make_plan([replace(CARD, patch=(64, 64), largest=(64, 64), stride=1, reach=32)])
    wide = region_of(1000, 50_000)
    fine = Region(1000, 0, 50_000, 0, 4000, 200_000)
    everything = len(plan.tiling.tile_cols(wide))
    assert starts_per_chunk(plan, wide, 5, 7, 1, 1000) == everything
    some = starts_per_chunk(plan, wide, 5, 7, 1, 1000, [Beside(4, fine, (256, 256))])
    few = starts_per_chunk(plan, wide, 5, 7, 1, 1000, [Beside(30, fine, (256, 256))])
    assert 1 <= few < some < everything
    assert starts_per_chunk(plan, wide, 5, 7, 1, 1000, [Beside(1, region_of(10, 500), (9, 9))]) == everything
    with pytest.raises(DeepLearningError, match=r"5 bands, 300 bands of further sources and.*memory=\d+") as refusal:
        starts_per_chunk(plan, wide, 5, 7, 1, 200, [Beside(300, fine, (256, 256))])
    needed = int(str(refusal.value).split("memory=")[1].split(",")[0])
    assert starts_per_chunk(plan, wide, 5, 7, 1, needed, [Beside(300, fine, (256, 256))]) >= 1
