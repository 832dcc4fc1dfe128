"""Networks with branches see every place as in training, and only what is there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prediction_scenes import (
    FusingPredictor,
    Scene,
    coordinates,
    fusing,
    job_of,
    make_card,
    make_source,
    member,
    random_values,
    region_at,
)
from rlearndeep.patches import PatchWriter, Source
from rlearndeep.prediction.answers import Question, Subject
from rlearndeep.prediction.blending import Blending
from rlearndeep.prediction.branches import Branch, FurtherSource, Places, Planes
from rlearndeep.prediction.crops import answer_segments
from rlearndeep.prediction.planning import BlockPlan, TilePlan, make_plan
from rlearndeep.prediction.segments import SegmentIndex
from rlearndeep.prediction.stream import Job, strips
from rlearndeep.prediction.views import VIEWS, View
from rlearndeep.sampling.sources import write_source
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.geometry import Region, Tiling, Window
from rlearndeep.scene.inputs import Further, Inputs, days_of
from synthetic_patches import make_patches

DATES = ("2019-03-01", "2019-06-01", "2020-01-15")
PLAN = TilePlan(Blending(Tiling((6, 6), (3, 3))), least=(6, 6), margin=None)


def grid(res: float, down: float, right: float, side: int = 60) -> Region:
    """A grid around the cells of ``region_at(0, 0, 30, 30)``, of other cells, shifted."""
    north, west = 20 + down, -20 + right
    return Region(north, north - side * res, west + side * res, west, side, side)


grids = st.builds(grid, st.sampled_from([0.5, 1.0, 2.5, 3.0]), st.floats(-3, 3), st.floats(-3, 3))


def run(job: Job, done: int = 0) -> tuple[NDArray, NDArray]:
    """Scores (NaN where nothing was written) and validity."""
    scores = np.full((job.question.planes, *job.region.shape), np.nan, dtype=np.float32)
    valid = np.zeros(job.region.shape, dtype=bool)
    for strip in strips(job, done):
        rows, cols = strip.window.slices
        scores[:, rows, cols], valid[rows, cols] = strip.planes, strip.valid
    return scores, valid


def two_sources(own: Region, other: Region, seed: int = 0, holes: float = 0.1):
    """A member with an auxiliary source and a series, and what is given of them."""
    sources = make_source("auxiliary1", own, (5, 4)), make_source("series", other, (3, 3), DATES)
    sources = tuple(replace(one, normalization=Normalization("band", (0.5, 0.1), (2.0, 3.0))) for one in sources)
    scenes = {
        "auxiliary1": Scene(random_values(seed, own.shape, 2, holes), own),
        "series": Scene(random_values(seed + 1, other.shape, 6, holes), other),
    }
    scenes["auxiliary1"].values[0, ::7, 3::5] = np.nan  # null in one band alone
    return sources, scenes


class Recorded:
    """Imagery for sampling: planes of one date."""

    null = float("nan")

    def __init__(self, scene: Scene, planes: slice, region: Region) -> None:
        own = scene.region
        self.planes, self.scene = planes, scene
        self.first = round((own.north - region.north) / own.nsres), round((region.west - own.west) / own.ewres)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self, window: Window) -> NDArray:
        return self.scene.read(window.shifted(*self.first))[self.planes].copy()


class Sampled:
    """The same source as sampling reads it."""

    def __init__(self, source: Source, scene: Scene) -> None:
        self.source, self.scene = source, scene

    def open(self, layer: int, region: Region) -> Recorded:
        return Recorded(self.scene, slice(2 * layer, 2 * layer + 2), region)


def stored(tmp_path, region: Region, east: NDArray, north: NDArray, sources, scenes) -> dict[str, tuple]:
    """Values and validity of the sources around places as v.sample.patches stores them, by name."""
    made = make_patches(tmp_path / "made", size=6, count=len(east)).manifest
    as_stored = tuple(
        Source(one.name, one.bands, one.shape, one.resolution, "float32", (), one.dates, scenes[one.name].region)
        for one in sources
    )
    manifest = replace(made, sources=(made.reference, *as_stored), region=region)
    with PatchWriter(tmp_path / "p", manifest, len(east)) as writer:
        for source in as_stored:
            write_source(Sampled(source, scenes[source.name]), east, north, writer, 100)
        return {one.name: (np.array(writer.images[one.name]), np.array(writer.valid[one.name])) for one in sources}


@pytest.mark.parametrize("shift", [0.0, 0.5, -1.3])
def test_tiles_and_blocks_and_crops_see_what_training_stores(tmp_path, shift):
    """The windows, their validity, and where the ground lies in them, with real sampling on the other side."""
    region = region_at(0, 0, 30, 30)
    sources, scenes = two_sources(grid(2.5, shift, 1), grid(0.5, 0.25, shift))
    sources = tuple(replace(one, normalization=Normalization("none")) for one in sources)
    reference = Scene(coordinates(region), region)
    ids = np.arange(900).reshape(30, 30) // 77 + 1
    index = SegmentIndex.of([ids])
    for unit in ("cell", "patch", "crop"):
        card = make_card("cell" if unit == "cell" else "patch", patch=(6, 6), reach=None)
        model, further = fusing(card, scenes, sources)
        plan = PLAN if unit == "cell" else BlockPlan((6, 6), (4, 5))
        job = job_of(reference, region, [model], plan, 2, further=further)
        if unit == "crop":
            answer_segments(job, index, lambda window: (ids[window.slices], ids[window.slices] > 0))
        else:
            run(job)
        batches = model.predictor.batches
        images = np.concatenate([batch.images for batch in batches])
        inside = images.any(axis=(1, 2, 3)) & (images[:, :, 2, 2] != 0).any(axis=1)
        # The middle of a place follows from the coordinates in its cell (2, 2).
        north, east = images[inside, 0, 2, 2] - 0.5, images[inside, 1, 2, 2] + 0.5
        known = stored(tmp_path / unit / str(shift), region, east, north, sources, scenes)
        assert inside.sum() > 10
        for name, (values, valid) in known.items():
            seen = [batch.further[name] for batch in batches]
            np.testing.assert_array_equal(np.concatenate([one.valid for one in seen])[inside], valid)
            values = np.where(np.expand_dims(valid, -3), values, 0)
            np.testing.assert_array_equal(np.concatenate([one.values for one in seen])[inside], values)
            own = scenes[name].region
            row, _ = own.window_starts(east, north, valid.shape[-2:])
            top = np.concatenate([one.box for one in seen])[inside, 0]
            np.testing.assert_allclose(own.north - (row + top) * own.nsres, north + 3, atol=1e-3)
            days = np.concatenate([one.days for one in seen])[inside]
            assert (days == days_of(DATES if name == "series" else ())).all()


def test_the_crop_of_a_padded_box_is_looked_at_around_the_middle_of_the_box():
    region = region_at(0, 0, 30, 30)
    own = grid(1.0, 0, 0)
    source = make_source("auxiliary1", own, (3, 3))
    scene = Scene(coordinates(own), own)
    model, further = fusing(make_card("patch", patch=(6, 6), reach=None), {"auxiliary1": scene}, (source,))
    job = job_of(Scene(random_values(0, (30, 30), holes=0), region), region, [model], BlockPlan((6, 6), (1, 1)))
    job = replace(job, further=further)
    ids = np.zeros((30, 30), dtype=int)
    ids[4:7, 10:15] = 1
    answer_segments(
        job, SegmentIndex.of([ids[ids > 0]]), lambda window: (ids[window.slices], ids[window.slices] > 0), True
    )
    (batch,) = model.predictor.batches
    np.testing.assert_array_equal(batch.further["auxiliary1"].values[0, :, 1, 1], [-5.5, 12.5])
    np.testing.assert_array_equal(batch.further["auxiliary1"].box[0], [0, -1, 6, 6])
    assert (batch.images[0, :, 3:] == 0).all()


@settings(max_examples=40)
@given(
    st.data(), grids, grids, st.tuples(st.integers(-40, 40), st.integers(-40, 40)), st.booleans(), st.integers(0, 99)
)
def test_a_part_predicted_alone_equals_that_part_of_the_whole(data, own, other, corner, blocks, seed):
    region = region_at(0, 0, 30, 30)
    part = Window(
        *sorted(data.draw(st.tuples(st.integers(0, 12), st.integers(13, 30)))), 5, data.draw(st.integers(6, 30))
    )
    values = random_values(seed, (30, 30))
    sources, scenes = two_sources(own, other, seed)
    card = make_card("patch" if blocks else "cell", patch=(6, 6), reach=None)
    plan = BlockPlan((6, 6), (2, 3)) if blocks else PLAN
    model, further = fusing(card, scenes, sources)
    whole, whole_valid = run(job_of(Scene(values, region), region, [model], plan, further=further))
    scene = Scene(values, region.subregion(part), (-part.row_start, -part.col_start))
    chunk = data.draw(st.integers(1, 5))
    job = job_of(scene, scene.region, [model], plan, chunk, further=further, batch_size=data.draw(st.integers(1, 9)))
    alone, alone_valid = run(job)
    rows, cols = part.slices
    np.testing.assert_array_equal(alone_valid, whole_valid[rows, cols])
    np.testing.assert_allclose(alone[:, alone_valid], whole[:, rows, cols][:, alone_valid], atol=1e-5)
    assert np.ptp(whole[0][whole_valid]) > 0.1


@pytest.mark.parametrize("done", [0, 7, 20])
def test_a_prediction_that_goes_on_gives_the_same_rows(done):
    region = region_at(3, 5, 30, 20)
    sources, scenes = two_sources(grid(2.5, 0.3, 1), grid(0.5, 0.1, 0))
    model, further = fusing(make_card(patch=(6, 6), reach=None), scenes, sources)
    job = job_of(Scene(random_values(1, (30, 20)), region), region, [model], PLAN, 3, further=further)
    whole, valid = run(job)
    rest, rest_valid = run(job, done)
    np.testing.assert_array_equal(rest_valid[done:], valid[done:])
    np.testing.assert_array_equal(rest[:, done:][:, valid[done:]], whole[:, done:][:, valid[done:]])


def test_null_cells_of_the_reference_are_null_and_those_of_further_sources_are_not():
    region = region_at(0, 0, 30, 30)
    sources, scenes = two_sources(grid(2.5, 0, 0), grid(0.5, 0, 0), holes=0.9)
    reference = Scene(random_values(1, (30, 30)), region)
    model, further = fusing(make_card(patch=(6, 6), reach=None), scenes, sources)
    scores, valid = run(job_of(reference, region, [model], PLAN, further=further))
    np.testing.assert_array_equal(valid, ~np.isnan(reference.values).any(axis=0))
    assert np.isfinite(scores[:, valid]).all()
    for batch in model.predictor.batches:
        for source in batch.further.values():
            hidden = ~np.broadcast_to(np.expand_dims(source.valid, -3), source.values.shape)
            assert (source.values[hidden] == 0).all()


@pytest.mark.parametrize("unit", ["cell", "patch"])
def test_a_source_that_is_absent_is_nowhere_valid(unit):
    region = region_at(0, 0, 30, 30)
    sources, scenes = two_sources(grid(2.0, 0, 0), grid(0.5, 0, 0))
    plan = PLAN if unit == "cell" else BlockPlan((6, 6), (2, 2))
    model, further = fusing(make_card(unit, patch=(6, 6), reach=None), {"auxiliary1": scenes["auxiliary1"]}, sources)
    _, valid = run(job_of(Scene(random_values(1, (30, 30)), region), region, [model], plan, further=further))
    assert valid.any()
    batch = model.predictor.batches[0]
    series = batch.further["series"]
    assert not series.valid.any() and not series.values.any()
    assert series.values.shape == (len(batch), 1, 2, 3, 3)
    assert (series.box == [(3 - 12) / 2, (3 - 12) / 2, 12, 12]).all()
    assert batch.further["auxiliary1"].valid.any()


def test_rows_of_further_sources_are_read_once_and_only_where_they_are_needed():
    region = region_at(0, 0, 30, 30)
    sources, scenes = two_sources(grid(2.5, 0, 0), grid(0.5, 0, 0, 160))
    values = random_values(1, (30, 30), holes=0)
    values[:, 18:] = np.nan
    model, further = fusing(make_card(patch=(6, 6), reach=None), scenes, sources)
    run(job_of(Scene(values, region), region, [model], PLAN, 99, further=further))
    for name, scene in scenes.items():
        rows = sorted((window.row_start, window.row_stop) for window in scene.read_cells)
        assert all(stop <= start for (_, stop), (start, _) in pairwise(rows)), name
        own, shape = scene.region, {one.name: one.shape for one in sources}[name]
        lowest = (own.north - region.north + 21) / own.nsres + shape[0]
        assert rows[-1][1] <= lowest


def test_a_branch_sees_its_bands_in_its_own_order():
    own = grid(1.0, 0, 0)
    scene = Scene(random_values(0, own.shape, 6, 0), own)
    source = make_source("series", own, (3, 4), DATES)
    planes = Planes(FurtherSource(scene, own, DATES[:2]), own.window, scene.values)
    places = Places.of(own, np.array([5]), np.array([7]), (3, 4))
    seen = Branch(source, (2, 0)).seen(places, planes).values[0]
    np.testing.assert_array_equal(seen, scene.values[:, 5:8, 7:11][[[2, 0], [5, 3]]])


def test_models_of_one_and_of_several_sources_are_averaged():
    region = region_at(0, 0, 20, 20)
    sources, scenes = two_sources(grid(2.5, 0, 0), grid(0.5, 0, 0))
    both, further = fusing(make_card(patch=(6, 6), reach=None), scenes, sources)
    second, _ = fusing(make_card(patch=(6, 6), reach=None), scenes, sources[1:])
    single = member(Alone(), make_card())
    reference = Scene(random_values(1, (20, 20)), region)
    answers = [run(job_of(reference, region, [one], PLAN, further=further))[0] for one in (both, second, single)]
    mean, valid = run(job_of(reference, region, [both, second, single], PLAN, further=further))
    np.testing.assert_allclose(mean[:, valid], np.mean(answers, axis=0)[:, valid], atol=1e-6)


class Alone(FusingPredictor):
    """A network of the reference alone."""

    def predict(self, batch: NDArray) -> NDArray:
        assert isinstance(batch, np.ndarray)
        return super().predict(Inputs(batch))


def sampled(inputs: Inputs, name: str) -> NDArray:
    """A source in the cells of the reference, (N, 1, rows, cols)."""
    rows, cols = inputs.shape[2:]
    return FusingPredictor.seen(inputs.further[name], rows, cols)[0][:, None]


@pytest.mark.parametrize("view", VIEWS["d4"])
def test_a_turned_place_shows_the_same_ground_in_every_source(view: View):
    generator = np.random.default_rng(0)
    further = Further(
        generator.normal(size=(2, 3, 2, 7, 5)).astype(np.float32),
        generator.random((2, 3, 7, 5)) < 0.8,
        np.array([[1, 2, 3, 3], [-1, 0.5, 6, 3]], dtype=np.float32),
        np.tile(days_of(DATES), (2, 1)),
    )
    inputs = Inputs(generator.normal(size=(2, 1, 12, 12)).astype(np.float32), {"series": further})
    turned = view.turn(inputs)
    np.testing.assert_array_equal(sampled(turned, "series"), view.turn(sampled(inputs, "series")))
    np.testing.assert_array_equal(turned.images, view.turn(inputs.images))
    np.testing.assert_array_equal(turned.further["series"].days, further.days)
    np.testing.assert_array_equal(turned.further["series"].valid, view.turn(further.valid))


def test_all_views_are_shown_to_a_network_of_several_sources():
    region = region_at(0, 0, 12, 12)
    sources, scenes = two_sources(grid(2.0, 0, 0), grid(0.5, 0, 0))
    model, further = fusing(make_card(patch=(6, 6), reach=None), scenes, sources)
    question = Question(Subject.of(model.card), VIEWS["flips"], spread=True)
    job = job_of(Scene(random_values(1, (12, 12)), region), region, [model], PLAN, question=question, further=further)
    _, valid = run(job)
    straight, across = model.predictor.batches[:2]
    assert valid.any()
    np.testing.assert_array_equal(across.further["series"].values, straight.further["series"].values[..., ::-1])


def test_tiles_of_networks_with_branches_are_patches():
    card = replace(make_card(patch=(8, 8), reach=4), largest=(8, 8))
    plan = make_plan([card])
    assert plan.tiling.size == plan.least == (8, 8)
    assert plan.cropped(Window(0, 8, 0, 8), Window(3, 4, 3, 4)) == Window(0, 8, 0, 8)
