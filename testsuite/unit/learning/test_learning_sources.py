"""Several sources of one place: chosen, stacked into the cells of the reference, or side by side in their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import from_options, resolved
from rlearndeep.learning.sources import Choice
from rlearndeep.model import BRANCH
from rlearndeep.patches import Manifest, PatchDataset, PatchWriter, Source
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.geometry import Region
from rlearndeep.scene.inputs import Inputs
from synthetic_patches import CLASSES, make_sources

REGION = Region(north=100, south=0, east=100, west=0, rows=10, cols=10)


def by_hand(
    path: Path,
    *further: tuple[Source, np.ndarray, np.ndarray],
    size: int = 4,
    middles: list[tuple[float, float]] | None = None,
) -> PatchDataset:
    """Two patches, at rows 0 and 2 and columns 0 and 4; the reference counts its cells.

    Where patches are padded, ``middles`` are east and north of what they show.
    """
    count = 2
    statistics = (BandStatistics(10, 0.0, 1.0, 0.0, 1.0),)
    reference = Source("reference", (Band("r"),), (size, size), (10.0, 10.0), "uint8", statistics)
    manifest = Manifest("cell", "cells", (reference, *(source for source, _, _ in further)), CLASSES, REGION)
    with PatchWriter(path, manifest, count) as writer:
        writer.index[:] = np.zeros((), dtype=writer.index.dtype)
        writer.index["row"], writer.index["col"] = (0, 2), (0, 4)
        centres = REGION.centre(*(writer.index[axis] + (size - 1) / 2 for axis in ("row", "col")))
        writer.index["east"], writer.index["north"] = centres if middles is None else np.transpose(middles)
        writer.index["labelled"] = size * size
        writer.labels[:] = 1
        writer.images["reference"][:] = np.arange(count * size * size).reshape(count, 1, size, size)
        writer.valid["reference"][:] = True
        writer.valid["reference"][0, 0, 0] = False
        for source, values, valid in further:
            writer.images[source.name][:] = values
            writer.valid[source.name][:] = valid
        writer.commit(manifest)
    return PatchDataset.open(path)


def coarse(shift: float = 0.0, shape: tuple[int, int] = (2, 2), name: str = "auxiliary1", **values: object) -> Source:
    """A source of 20 m whose grid begins ``shift`` south and east of that of the reference."""
    region = Region(100 - shift, -20 - shift, 120 + shift, 0 + shift, 6, 6)
    statistics = (BandStatistics(5, 10.0, 2.0, 0.0, 20.0),)
    return Source(name, (Band("a"),), shape, (20.0, 20.0), "float32", statistics, region=region, **values)


def stacked(dataset: PatchDataset, use: str = "nearest") -> Part:
    return Sites.of([dataset], Choice(("reference", "auxiliary1"), {"auxiliary1": use})).part(
        "training", Normalization("none")
    )


def test_coarse_cells_are_repeated_under_the_cells_of_the_reference(tmp_path: Path) -> None:
    values = np.array([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]], dtype=np.float32)
    part = stacked(by_hand(tmp_path / "p", (coarse(), values, np.ones((2, 2, 2), bool))))
    images, valid, labels = part.raw(np.arange(2))
    assert images.shape == (2, 2, 4, 4) and images.dtype == np.float32
    np.testing.assert_array_equal(images[0, 1], np.array([[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2))
    np.testing.assert_array_equal(images[1, 1], np.array([[5, 5, 6, 6]] * 2 + [[7, 7, 8, 8]] * 2))
    np.testing.assert_array_equal(images[:, 0].ravel(), np.arange(32))
    assert not valid[0, 0, 0] and valid.sum() == 31 and (labels == 1).all()


def test_a_grid_shifted_by_half_a_coarse_cell_is_followed_on_the_ground(tmp_path: Path) -> None:
    # Cells of the source begin at 10, 30, 50 m: the window of two around the middle of a patch, at 20 m, begins at 10.
    values = np.array([[[[1, 2], [3, 4]]]] * 2, dtype=np.float32)
    part = stacked(by_hand(tmp_path / "p", (coarse(10.0), values, np.ones((2, 2, 2), bool))))
    images, valid, _ = part.raw(np.arange(2))
    known = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]], dtype=bool)
    np.testing.assert_array_equal(valid, np.stack([known, known]))
    np.testing.assert_array_equal(images[0, 1][1:, 1:], [[1, 1, 2], [1, 1, 2], [3, 3, 4]])
    assert part.class_counts().tolist() == [0, 18, 0]
    assert part.hidden_cells() == (31, 13)


def test_sources_of_padded_patches_lie_around_what_the_patches_show(tmp_path: Path) -> None:
    # The second patch shows its first row, the middle of which is 60, 75: its window of the source begins at 40, 100.
    values = np.array([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]], dtype=np.float32)
    dataset = by_hand(
        tmp_path / "p", (coarse(), values, np.ones((2, 2, 2), bool)), middles=[(20.0, 80.0), (60.0, 75.0)]
    )
    images, valid, _ = stacked(dataset).raw(np.arange(2))
    np.testing.assert_array_equal(images[1, 1, :2], np.array([[7, 7, 8, 8]] * 2))
    assert valid[1, :2].all() and not valid[1, 2:].any() and valid[0].sum() == 15
    found, _, _ = branches(dataset, "reference", "auxiliary1").raw(np.arange(2))
    np.testing.assert_allclose(found.further["auxiliary1"].box, [[0, 0, 2, 2], [1, 0, 2, 2]])


def test_bilinear_is_the_mean_of_the_four_nearest_by_nearness(tmp_path: Path) -> None:
    values = np.array([[[[0, 8], [16, 24]]]] * 2, dtype=np.float32)
    part = stacked(by_hand(tmp_path / "p", (coarse(), values, np.ones((2, 2, 2), bool))), "bilinear")
    images, _, _ = part.raw(np.arange(1))
    # Centres of the reference's cells lie at 0.25, 0.75, 1.25, 1.75 in cells of the source, whose own are at 0.5, 1.5.
    along = np.array([0, 2, 6, 8])
    np.testing.assert_allclose(images[0, 1], along[None, :] + 2 * along[:, None], rtol=1e-5, atol=1e-4)


def test_a_null_of_a_stacked_source_is_a_null_of_the_cell(tmp_path: Path) -> None:
    valid = np.ones((2, 2, 2), bool)
    valid[0, 1, 1] = False
    part = stacked(by_hand(tmp_path / "p", (coarse(), np.ones((2, 1, 2, 2), np.float32), valid)))
    images, labels = part.read(np.arange(2))
    assert not images[0, :, 2:, 2:].any() and (labels[0, 2:, 2:] == UNLABELLED).all()
    assert (labels == 1).sum() == 32 - 4 - 1 == part.class_counts()[1]


@pytest.mark.parametrize("use", ["nearest", "bilinear"])
def test_single_cells_are_stacked_too(tmp_path: Path, use: str) -> None:
    values = np.array([[[[7]]], [[[9]]]], dtype=np.float32)
    dataset = by_hand(tmp_path / "p", (coarse(shape=(1, 1)), values, np.ones((2, 1, 1), bool)), size=1)
    images, _, _ = stacked(dataset, use).raw(np.arange(2))
    np.testing.assert_allclose(images[:, :, 0, 0], [[0, 7], [1, 9]])


def test_statistics_of_a_stack_are_those_of_its_sources(tmp_path: Path) -> None:
    dataset = by_hand(tmp_path / "p", (coarse(), np.ones((2, 1, 2, 2), np.float32), np.ones((2, 2, 2), bool)))
    sites = stacked(dataset).sites
    assert [band.mean for band in sites.statistics] == [0.0, 10.0]
    assert [band.name for band in sites.bands] == ["r", "a"]


def test_patches_without_a_stacked_source_are_left_out(tmp_path: Path) -> None:
    valid = np.ones((2, 2, 2), bool)
    valid[1] = False
    dataset = by_hand(tmp_path / "p", (coarse(), np.ones((2, 1, 2, 2), np.float32), valid))
    part = stacked(dataset)
    assert len(part) == 1 and part.sites.labelled("training") == 2


def branches(dataset: PatchDataset, *names: str) -> Part:
    choice = Choice(names, {name: BRANCH for name in names if name != "reference"})
    sites = Sites.of([dataset], choice)
    return sites.part("training", Normalization.from_statistics("band", sites.statistics), sites.normalizations("band"))


def test_branches_keep_their_own_cells_and_say_where_the_reference_lies(tmp_path: Path) -> None:
    values = np.arange(2 * 2 * 9, dtype=np.float32).reshape(2, 2, 1, 3, 3)
    valid = np.ones((2, 2, 3, 3), bool)
    valid[0, 1] = False
    series = coarse(5.0, (3, 3), "series", dates=("2021-03-01", "2021-12-31"))
    part = branches(by_hand(tmp_path / "p", (series, values, valid)), "reference", "series")
    raw, known, _ = part.raw(np.arange(2))
    assert isinstance(raw, Inputs) and raw.images.dtype == np.uint8 and known.shape == (2, 4, 4)
    found = raw.further["series"]
    np.testing.assert_array_equal(found.values, values)
    # The middle of the first patch, 20 m, is 0.75 of a cell from the grid's edge; a window of three begins at -1.
    np.testing.assert_allclose(found.box[0], [0.75, 0.75, 2, 2])
    np.testing.assert_array_equal(found.days, [[59, 364]] * 2)
    inputs, _ = part.read(np.arange(2))
    np.testing.assert_allclose(inputs.further["series"].values[1], (values[1] - 10) / 2)
    assert not inputs.further["series"].values[0, 1].any() and inputs.images.dtype == np.float32
    assert set(part.normalizations) == {"series"}


def test_an_absent_source_keeps_the_patch_unless_nothing_else_is_looked_at(tmp_path: Path) -> None:
    valid = np.ones((2, 2, 2), bool)
    valid[0] = False
    dataset = by_hand(tmp_path / "p", (coarse(), np.ones((2, 1, 2, 2), np.float32), valid))
    assert len(branches(dataset, "reference", "auxiliary1")) == 2
    assert len(branches(dataset, "auxiliary1")) == 1


def test_batches_of_two_sites_are_joined_with_their_own_dates(tmp_path: Path) -> None:
    one = make_sources(tmp_path / "a", count=10, seed=1)
    later = (*(day.replace("2021", "2022") for day in one.manifest.sources[2].dates[:-1]), "2022-12-01")
    two = make_sources(tmp_path / "b", count=10, seed=2, dates=later)
    choice = Choice(("reference", "auxiliary1", "series"), {"auxiliary1": BRANCH, "series": BRANCH})
    sites = Sites.of([one, two], choice)
    part = sites.part("training", Normalization("none"), sites.normalizations("none"))
    whole, _, labels = part.raw(np.arange(len(part)))
    assert len(whole) == len(labels) == 12
    assert whole.further["series"].days[0, -1] != whole.further["series"].days[-1, -1]
    for position, dataset in ((0, one), (6, two)):
        stored = dataset.images("series")[dataset.positions("training")[0]]
        np.testing.assert_array_equal(whole.further["series"].values[position], stored)
    pieces = [raw for raw, _, _ in part.raw_batches(5, (1, 0))]
    assert sum(map(len, pieces)) == 12 and all(isinstance(piece, Inputs) for piece in pieces)


def test_sites_with_other_sources_are_refused(tmp_path: Path) -> None:
    first = make_sources(tmp_path / "a", count=10)
    choice = Choice(("reference", "series"), {"series": BRANCH})
    for name, values, fragment in (
        ("b", {"names": ("auxiliary1",)}, "has no series"),
        ("c", {"context": 1}, "patch size of a source"),
        ("d", {"dates": ("2021-02-10", "2021-06-01", "2021-10-01")}, "number of dates"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            Sites.of([first, make_sources(tmp_path / name, count=10, **values)], choice)
    Sites.of([first, make_sources(tmp_path / "e", count=10, names=("auxiliary1",))])


def test_sources_are_chosen_as_the_network_can_look_at_them(tmp_path: Path) -> None:
    manifest = make_sources(tmp_path / "a", count=10).manifest
    assert Choice.of(manifest, "unet", (), "").uses == {"auxiliary1": "nearest"}
    assert Choice.of(manifest, "unet", (), "bilinear").uses == {"auxiliary1": "bilinear"}
    assert Choice.of(manifest, "unet", ("reference",), "").uses == {}
    everything = Choice.of(manifest, "fusion", (), "")
    assert everything.names == ("reference", "auxiliary1", "series") and set(everything.uses.values()) == {BRANCH}
    alone = Choice.of(manifest, "fusion", ("series",), "")
    assert alone.network(manifest) == {"reference": False, "sources": [{"name": "series", "bands": 1, "series": True}]}
    for architecture, names, resampling, fragment in (
        ("unet", ("auxiliary2",), "", "got 'auxiliary2'"),
        ("unet", ("reference", "series"), "", "knows dates"),
        ("unet", ("auxiliary1",), "", "Add reference"),
        ("fusion", ("reference",), "", "beside the reference"),
        ("fusion", (), "bilinear", "Leave it out"),
        ("unet", ("reference",), "nearest", "Leave it out"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            Choice.of(manifest, architecture, names, resampling)


@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_what_only_the_auxiliary_source_shows_stands_under_the_labels(tmp_path: Path, shift: float) -> None:
    dataset = make_sources(tmp_path / "a", count=20, shift=shift)
    images, labels = stacked(dataset).read(np.arange(12))
    known = labels != UNLABELLED
    said = np.round((images[:, 3] - 1000) / 400)
    assert known.mean() > 0.8
    np.testing.assert_array_equal(said[known], labels[known])


def test_options_say_which_sources() -> None:
    settings = from_options({"sources": "reference,auxiliary1", "resampling": "bilinear", "architecture": "unet"})
    assert settings.sources == ("reference", "auxiliary1") and settings.resampling == "bilinear"
    assert from_options({}).sources == () and from_options({}).resampling == ""
    with pytest.raises(DeepLearningError, match="resampling="):
        from_options({"resampling": "cubic"})
    options = from_options({"architecture": "fusion", "filters": "8", "blocks": "2", "dropout": "0.3"})
    network = resolved(options, "patch", (16, 16), 100).network
    given = {"filters": 8, "blocks": 2, "dropout": 0.3}
    assert network == {**given, "unit": "patch", "encoder": "resnet18", "depth": 3, "size": [16, 16]}


def test_a_batch_counts_the_cells_of_every_branch() -> None:
    sizes = [
        resolved(from_options({}), "cell", (64, 64), 10**4, further=cells).batch_size for cells in (0, 8192, 10**7)
    ]
    assert sizes == [32, 10, 4]
