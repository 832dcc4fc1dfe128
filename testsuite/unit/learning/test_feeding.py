"""Batches of one or several patch directories."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.classes import UNLABELLED, ClassTable, MapClass
from rlearndeep.scene.tasks import Quantity
from synthetic_patches import make_patches


def training(*datasets: PatchDataset) -> Part:
    sites = Sites.of(datasets)
    return sites.part("training", Normalization.from_statistics("band", sites.statistics))


def rows_of(part: Part, order: tuple[int, int] | None, size: int = 7) -> np.ndarray:
    return np.concatenate([values[:, 0, 0, 0] for values, _, _ in part.raw_batches(size, order)])


def test_an_epoch_has_every_patch_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    part = training(make_patches(tmp_path / "a"))
    stored = rows_of(part, None)
    first, again, next_epoch, other_seed = (rows_of(part, order) for order in ((1, 0), (1, 0), (1, 1), (2, 0)))
    np.testing.assert_array_equal(first, again)
    for shuffled in (first, next_epoch, other_seed):
        assert not np.array_equal(shuffled, stored)
        np.testing.assert_array_equal(np.sort(shuffled), np.sort(stored))
    assert not np.array_equal(first, next_epoch) and not np.array_equal(first, other_seed)


def test_memory_does_not_grow_with_the_number_of_patches(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 4000):
        part = training(make_patches(tmp_path / str(count), size=32, count=count, shares=(1.0, 0.0, 0.0)))
        stored = part.sites.sites[0].images.nbytes
        tracemalloc.start()
        for _ in part.raw_batches(16, (1, 0)):
            pass
        part.class_counts()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 16 * 4000 and peaks[1] < stored / 2  # the positions of the patches, twice


@pytest.mark.parametrize("size", (1, 2, 7, 12, 1000))
def test_steps_are_the_number_of_batches(tmp_path: Path, size: int) -> None:
    part = training(make_patches(tmp_path / "a"))
    lengths = [len(labels) for _, _, labels in part.raw_batches(size, (1, 0))]
    assert len(lengths) == part.steps(size)
    assert max(lengths) - min(lengths) <= 1 and max(lengths) <= size


def test_network_input_is_normalised_by_the_training_part(tmp_path: Path) -> None:
    images, _ = training(make_patches(tmp_path / "a")).read(np.arange(36))
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1, atol=1e-3)


def test_null_cells_are_zero_and_have_no_label(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a", null=0.2)
    images, labels = training(dataset).read(np.arange(5))
    null = ~dataset.valid()[dataset.positions("training")[:5]]
    assert null.any()
    assert not np.moveaxis(images, 1, -1)[null].any()
    assert (labels[null] == UNLABELLED).all()
    assert np.abs(images).max() < 10


def test_two_sites_are_one_part_with_common_statistics(tmp_path: Path) -> None:
    one, two = make_patches(tmp_path / "a", seed=1), make_patches(tmp_path / "b", seed=2)
    part = training(one, two)
    assert len(part) == len(training(one)) + len(training(two))
    images, labels = part.read(np.array([0, 40]))
    assert images.shape[0] == labels.shape[0] == 2
    np.testing.assert_array_equal(labels[1], two.read_labels(two.positions("training")[40 - 36 : 41 - 36])[0])
    raw = np.concatenate([each.images()[each.positions("training")] for each in (one, two)])
    np.testing.assert_allclose(part.normalization.mean, raw.mean(axis=(0, 2, 3)), rtol=1e-6)


def test_bands_in_another_order_are_put_right(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a")
    source = dataset.manifest.reference
    swapped = dataclasses.replace(
        source, bands=source.bands[::-1], statistics=source.statistics[::-1], name=source.name
    )
    manifest = dataclasses.replace(dataset.manifest, sources=(swapped,))
    with PatchWriter(tmp_path / "b", manifest, len(dataset)) as writer:
        writer.index[:] = dataset.index
        writer.labels[:] = dataset.labels
        writer.images["reference"][:] = dataset.images()[:, ::-1]
        writer.valid["reference"][:] = True
        writer.commit(manifest)
    images, _ = training(dataset, PatchDataset.open(tmp_path / "b")).read(np.array([3, 36 + 3]))
    np.testing.assert_allclose(images[0], images[1], atol=1e-5)


def test_patches_without_a_label_are_left_out(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a", unit="patch")
    labels = np.load(tmp_path / "a" / "labels.npy")
    labels[dataset.positions("training")[:5]] = 255
    np.save(tmp_path / "a" / "labels.npy", labels)
    assert len(training(PatchDataset.open(tmp_path / "a"))) == 36 - 5


def test_counts_are_of_labelled_cells(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a")
    labels = dataset.labels[dataset.positions("training")]
    expected = [int((labels == index).sum()) for index in range(3)]
    assert training(dataset).class_counts().tolist() == expected


def test_sites_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = make_patches(tmp_path / "a")
    for name, values, fragment in (
        ("size", {"size": 8}, "patch size"),
        ("unit", {"unit": "patch"}, "kind of label"),
        ("bands", {"bands": 3}, "same bands; reference of '.*bands' has 3"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            Sites.of([first, make_patches(tmp_path / name, **values)])
    other = make_patches(tmp_path / "classes")
    classes = ClassTable((MapClass(10, ""), MapClass(20, ""), MapClass(40, "")))
    changed = dataclasses.replace(other, manifest=dataclasses.replace(other.manifest, classes=classes))
    with pytest.raises(DeepLearningError, match="same classes"):
        Sites.of([first, changed])


def test_values_without_a_label_or_under_null_are_nan(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a", task="value", null=0.2, unlabelled=0.3)
    part = training(dataset)
    images, labels = part.read(np.arange(len(part)))
    positions = dataset.positions("training")
    np.testing.assert_array_equal(np.isnan(labels), np.isnan(dataset.labels[positions]) | ~dataset.valid()[positions])
    assert labels.dtype == np.float32 and np.isfinite(images).all()
    found = part.label_statistics()
    assert found.count == (~np.isnan(labels)).sum()
    assert found.mean == pytest.approx(np.nanmean(labels.astype(np.float64)))
    assert found.std == pytest.approx(np.nanstd(labels.astype(np.float64)))
    assert part.class_counts().tolist() == []


def test_a_value_under_a_null_cell_does_not_count(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a", task="value", null=0.3)
    labels = np.load(tmp_path / "a" / "labels.npy")
    labels[~dataset.valid()] = 1e9
    np.save(tmp_path / "a" / "labels.npy", labels)
    assert training(PatchDataset.open(tmp_path / "a")).label_statistics().maximum <= 120


@pytest.mark.parametrize("task", ("presence", "value"))
def test_patches_without_any_label_are_left_out(tmp_path: Path, task: str) -> None:
    dataset = make_patches(tmp_path / "a", unit="patch", task=task)
    labels = np.load(tmp_path / "a" / "labels.npy")
    labels[dataset.positions("training")[:5]] = dataset.manifest.unlabelled
    np.save(tmp_path / "a" / "labels.npy", labels)
    assert len(training(PatchDataset.open(tmp_path / "a"))) == 36 - 5


@pytest.mark.parametrize("task", ("class", "presence", "value"))
def test_a_part_may_be_empty(tmp_path: Path, task: str) -> None:
    sites = Sites.of([make_patches(tmp_path / "a", "patch", task=task, shares=(0.5, 0.5, 0.0))])
    part = sites.part("test", Normalization("none"))
    assert len(part) == 0 and list(part.batches(3)) == []
    assert part.class_counts().sum() == 0 and (task != "value" or part.label_statistics().count == 0)


def test_presence_is_counted_per_class(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a", unit="patch", size=8, task="presence")
    counted = training(dataset).class_counts()
    np.testing.assert_array_equal(counted, dataset.labels[dataset.positions("training")].sum(axis=0))


@pytest.mark.parametrize("task", ("class", "value"))
@pytest.mark.parametrize("pieces", (2, 3, 50))
def test_pieces_of_a_batch_make_the_batch(tmp_path: Path, pieces: int, task: str) -> None:
    part = training(make_patches(tmp_path / "a", size=4, task=task))
    streams = [part.raw_batches(7, (1, 2), (number, pieces)) for number in range(pieces)]
    for whole, *parts in zip(part.raw_batches(7, (1, 2)), *streams, strict=True):
        shown = [piece for piece in parts if not _is_empty(piece[2])]
        images = np.concatenate([piece[0] for piece in shown])
        assert sorted(images[:, 0, 0, 0]) == sorted(whole[0][:, 0, 0, 0])
        assert all(len(piece[0]) for piece in parts)


def _is_empty(labels: np.ndarray) -> bool:
    return bool(np.isnan(labels).all() if labels.dtype.kind == "f" else (labels == 255).all())


def test_a_sample_is_spread_over_all_sites(tmp_path: Path) -> None:
    part = training(make_patches(tmp_path / "a", seed=1), make_patches(tmp_path / "b", seed=2))
    sample = part.sample(5)
    assert [len(positions) for positions in sample.positions] == [3, 2]
    np.testing.assert_array_equal(
        sample.read(np.arange(5))[0], part.read(np.linspace(0, len(part) - 1, 5).astype(np.int64))[0]
    )
    assert len(part.sample(1000)) == len(part)


def test_sites_of_other_tasks_or_units_are_refused(tmp_path: Path) -> None:
    first = make_patches(tmp_path / "a", task="value")
    with pytest.raises(DeepLearningError, match="same task"):
        Sites.of([first, make_patches(tmp_path / "b")])
    other = make_patches(tmp_path / "c", task="value")
    manifest = dataclasses.replace(other.manifest, quantity=Quantity("height", "ft"))
    with pytest.raises(DeepLearningError, match="same units"):
        Sites.of([first, dataclasses.replace(other, manifest=manifest)])


def test_a_directory_that_is_given_twice_is_refused_under_any_name(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(DeepLearningError, match="link' is given twice"):
        Sites.of([dataset, make_patches(tmp_path / "b"), PatchDataset.open(tmp_path / "link")])


@pytest.mark.parametrize(
    ("unit", "task", "wrong"), (("cell", "class", 3), ("patch", "class", 200), ("patch", "presence", 2))
)
def test_labels_that_are_no_class_are_refused(tmp_path: Path, unit: str, task: str, wrong: int) -> None:
    labels = np.load(make_patches(tmp_path / "a", unit, 8, task=task).path / "labels.npy")
    labels.flat[0] = wrong
    np.save(tmp_path / "a" / "labels.npy", labels)
    with pytest.raises(DeepLearningError, match=f"labels.npy has {wrong}"):
        training(PatchDataset.open(tmp_path / "a")).class_counts()
