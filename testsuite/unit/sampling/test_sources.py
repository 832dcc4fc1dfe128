"""Further sources: every window shows the ground of its patch, whatever the grids."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from array_scenes import ArrayScene, class_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rlearndeep.patches import PatchDataset, PatchWriter, Source
from rlearndeep.sampling.plan import complete, describe, make_plan, write_plan
from rlearndeep.sampling.report import add_contents, remarks, summarize
from rlearndeep.sampling.settings import Settings, Split
from rlearndeep.sampling.sources import patch_size
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.geometry import Region, Window


class Places:
    """A source whose two bands hold the coordinates of the cells' centres; null beyond its grid."""

    def __init__(self, name: str, region: Region, shape: tuple[int, int], dates: tuple[str, ...] = ()) -> None:
        bands = (Band("east"), Band("north"))
        resolution = (region.nsres, region.ewres)
        self.source = Source(name, bands, shape, resolution, "float64", dates=dates, region=region)
        self.open_now = 0

    def open(self, layer: int, region: Region):
        own = self.source.region
        cells = np.full((2, region.rows, region.cols), np.nan)
        east, north = region.centre(*np.mgrid[0 : region.rows, 0 : region.cols])
        inside = (east > own.west) & (east < own.east) & (north > own.south) & (north < own.north)
        cells[0], cells[1] = np.where(inside, east + 1e6 * layer, np.nan), np.where(inside, north, np.nan)
        scene = ArrayScene(cells, np.zeros(region.shape, dtype=int), null=float("nan"))
        return nullcontext(scene)


def write(scene, table, asked, further, path):
    """Plan and directory, and what the report says."""
    plan = make_plan([scene], table, asked)
    manifest = describe(plan, [scene], asked, further)
    with PatchWriter(path, manifest, len(plan.patches), overwrite=True) as writer:
        plan, sources = write_plan(plan, [scene], asked, writer, further=further)
        summary = summarize(plan, [scene], further)
        add_contents(summary, writer, plan.part)
        writer.commit(complete(describe(plan, [scene], asked, further), sources, summary, {}, None, ""))
    return plan, PatchDataset.open(path), summary


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([2.5, 4.0, 5.0, 10.0, 20.0, 28.5]),
    st.floats(-30, 30),
    st.floats(-30, 30),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_a_window_lies_around_the_centre_of_its_patch(tmp_path, res, right, up, rows, cols, duplicates):
    """For any resolution, alignment and size: cells are those at their coordinates, centres at most half a cell off."""
    scene, table = class_scene(np.random.default_rng(1).integers(1, 3, (12, 15)))
    if duplicates:
        scene.values = scene.values // 40
    own = Region(300.0 + up, 300.0 + up - 150 * res, right - 100 + 150 * res, right - 100, 150, 150)
    other = Places("auxiliary1", own, (rows, cols))
    asked = Settings(size=(3, 4), stride=(2, 3), split=Split(kind="none"), memory=1)
    _, dataset, _ = write(scene, table, asked, [other], tmp_path / "p")
    images, valid = dataset.images("auxiliary1"), dataset.valid("auxiliary1")
    east, north = dataset.index["east"][:, None, None], dataset.index["north"][:, None, None]
    across = (np.arange(cols) - (cols - 1) / 2) * res
    down = -(np.arange(rows)[:, None] - (rows - 1) / 2) * res
    for found, centre, offset in ((images[:, 0], east, across), (images[:, 1], north, down)):
        away = np.where(valid, found - centre - offset, 0)
        assert (np.abs(away) <= res / 2 + 1e-3).all()
        for patch, good in zip(away, valid, strict=True):
            assert np.ptp(patch[good]) < 1e-6 if good.any() else True
    assert (images[~np.broadcast_to(valid[:, None], images.shape)] == 0).all()


def test_a_centre_between_two_cells_goes_south_and_east():
    region = Region(100.0, 0.0, 100.0, 0.0, 10, 10)
    row, col = region.window_starts([50.0, 55.0, 54.999], [50.0, 45.0, 45.001], (1, 1))
    assert (row.tolist(), col.tolist()) == ([5, 5, 5], [5, 5, 5])
    row, col = region.window_starts([55.0], [45.0], (2, 2))
    assert (row.tolist(), col.tolist()) == ([5], [5])
    assert [int(edge[0]) for edge in region.window_starts([5.0], [95.0], (4, 4))] == [-1, -1]


@pytest.mark.parametrize(
    ("res", "expected"), [(10.0, (64, 32)), (20.0, (32, 16)), (5.0, (128, 64)), (30.0, (22, 11)), (1000.0, (1, 1))]
)
def test_by_default_the_ground_of_a_patch_is_covered(res, expected):
    region = Region(1000.0, 0.0, 1000.0, 0.0, 100, 100)
    own = Region(10 * res, 0.0, 10 * res, 0.0, 10, 10)
    assert patch_size((64, 32), region, own) == expected


def test_a_series_has_every_date_and_statistics_over_all_of_them(tmp_path):
    scene, table = class_scene(np.ones((12, 12), dtype=int))
    own = Region(120.0, 0.0, 120.0, 0.0, 12, 12)
    series = Places("series", own, (3, 3), ("2020-01-01", "2020-05-01", "2021-01-01"))
    asked = Settings(size=(3, 3), split=Split(kind="random"))
    plan, dataset, _ = write(scene, table, asked, [series], tmp_path / "p")
    images = dataset.images("series")
    assert images.shape == (16, 3, 2, 3, 3)
    for date in range(3):
        np.testing.assert_array_equal(images[:, date, 0] - 1e6 * date, images[:, 0, 0])
    training = images[plan.part == 0]
    found = dataset.manifest.sources[1].statistics[0]
    expected = BandStatistics.of(training[:, :, 0])
    assert found.count == expected.count
    assert (found.mean, found.std) == (pytest.approx(expected.mean), pytest.approx(expected.std))


def test_windows_of_several_acquisitions_stand_with_their_own_patches(tmp_path):
    """The order of the places in the source is not that of the patches."""
    scenes = [class_scene(np.ones((12, 12), dtype=int))[0] for _ in range(3)]
    for number, scene in enumerate(scenes):
        scene.values = scene.values + 1000 * number
    _, table = class_scene(np.ones((12, 12), dtype=int))
    asked = Settings(size=(3, 3), split=Split(kind="none"))
    other = Places("auxiliary1", Region(120.0, 0.0, 120.0, 0.0, 12, 12), (3, 3))
    plan = make_plan(scenes, table, asked, acquisitions=("a", "b", "c"))
    manifest = describe(plan, scenes, asked, [other])
    with PatchWriter(tmp_path / "p", manifest, len(plan.patches)) as writer:
        write_plan(plan, scenes, asked, writer, further=[other])
        writer.commit(manifest)
    dataset = PatchDataset.open(tmp_path / "p")
    assert len(dataset) == 48
    np.testing.assert_array_equal(dataset.images("auxiliary1")[:, 0, 1, 1], dataset.index["east"])
    np.testing.assert_array_equal(dataset.images("auxiliary1")[:, 1, 1, 1], dataset.index["north"])


def test_a_source_that_does_not_cover_the_places_is_said(tmp_path):
    scene, table = class_scene(np.ones((12, 12), dtype=int))
    half = Places("auxiliary1", Region(120.0, 60.0, 120.0, 0.0, 6, 12), (3, 3))
    asked = Settings(size=(3, 3), split=Split(kind="none"))
    plan, dataset, summary = write(scene, table, asked, [half], tmp_path / "p")
    assert summary["sources"][1]["patches_without"] == 8
    assert summary["sources"][1]["valid_percent"] == 50.0
    assert any("In 8 patches source 'auxiliary1' has no valid cell" in said for said in remarks(plan, asked, summary))
    assert dataset.manifest.sources[1].statistics[0].count == 8 * 9


def test_patches_that_differ_only_in_a_further_source_are_no_duplicates(tmp_path):
    scene, table = class_scene(np.ones((6, 6), dtype=int))
    scene.values = np.zeros_like(scene.values)
    asked = Settings(size=(3, 3), split=Split(kind="none"))
    other = Places("auxiliary1", Region(60.0, 0.0, 60.0, 0.0, 6, 6), (1, 1))
    assert len(write(scene, table, asked, [other], tmp_path / "p")[1]) == 4
    assert len(write(scene, table, asked, [], tmp_path / "q")[1]) == 1


def test_only_the_part_of_a_source_around_the_places_is_read(tmp_path):
    scene, table = class_scene(np.ones((6, 6), dtype=int))
    opened = []

    class Spy(Places):
        def open(self, layer, region):
            opened.append(region)
            return super().open(layer, region)

    other = Spy("auxiliary1", Region(10_060.0, -10_000.0, 10_060.0, -10_000.0, 2006, 2006), (3, 3))
    write(scene, table, Settings(size=(3, 3), split=Split(kind="none")), [other], tmp_path / "p")
    assert [region.shape for region in opened] == [(6, 6)]
    assert Window(0, 6, 0, 6) == opened[0].window
