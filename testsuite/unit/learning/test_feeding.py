"""Batches of one or several patch directories."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.classes import UNLABELLED, ClassTable, MapClass
from synthetic_patches import make_patches


def training(*datasets: PatchDataset) -> Part:
    sites = Sites.of(datasets)
    return sites.part("training", Normalization.from_statistics("band", sites.statistics))


def rows_of(part: Part, order: tuple[int, int] | None, size: int = 7) -> np.ndarray:
    return np.concatenate([images[:, 0, 0, 0] for images, _ in part.batches(size, order)])


def test_an_epoch_has_every_patch_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    part = training(make_patches(tmp_path / "a"))
    stored = rows_of(part, None)
    first, again, next_epoch, other_seed = (rows_of(part, order) for order in ((1, 0), (1, 0), (1, 1), (2, 0)))
    np.testing.assert_array_equal(first, again)
    for shuffled in (first, next_epoch, other_seed):
        assert not np.array_equal(shuffled, stored)
        np.testing.assert_array_equal(np.sort(shuffled), np.sort(stored))
    assert not np.array_equal(first, next_epoch) and not np.array_equal(first, other_seed)


@pytest.mark.parametrize("size", (1, 2, 7, 12, 1000))
def test_steps_are_the_number_of_batches(tmp_path: Path, size: int) -> None:
    part = training(make_patches(tmp_path / "a"))
    lengths = [len(labels) for _, labels in part.batches(size, (1, 0))]
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
        ("bands", {"bands": 3}, "Bands must match"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            Sites.of([first, make_patches(tmp_path / name, **values)])
    other = make_patches(tmp_path / "classes")
    classes = ClassTable((MapClass(10, ""), MapClass(20, ""), MapClass(40, "")))
    changed = dataclasses.replace(other, manifest=dataclasses.replace(other.manifest, classes=classes))
    with pytest.raises(DeepLearningError, match="same classes"):
        Sites.of([first, changed])
