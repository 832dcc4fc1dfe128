"""Laws of augmentation with NumPy, and that it does what that of PyTorch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rlearndeep.backends.keras import augmentation
from rlearndeep.backends.keras.augmentation import STEPS, augment
from rlearndeep.backends.strength import ORDER
from rlearndeep.backends.torch import augmentation as of_torch
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.inputs import Further, Inputs


def batch(count: int = 12, rows: int = 9, cols: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Images whose first band is the label, with a block of null cells."""
    random = np.random.default_rng(1)
    labels = random.integers(3, size=(count, rows, cols))
    images = random.normal(size=(count, 3, rows, cols)).astype(np.float32) + 5
    images[:, 0] = labels + 1
    images[:, :, :2, :2] = 0
    return images, labels


def changed(name: str, seed: int = 2, **size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    images, labels = batch(**size)
    spread = np.ones(3, dtype=np.float32)
    return images, labels, *augment((name,), images, labels, spread, np.random.default_rng(seed))


def test_both_back_ends_have_the_same_steps() -> None:
    assert set(STEPS) == set(of_torch.STEPS) == set(ORDER)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_changes_a_copy_and_the_seed_repeats_it(name: str) -> None:
    before, marks = batch()
    images, labels, first, truth = changed(name)
    _, _, second, _ = changed(name)
    assert np.array_equal(images, before) and np.array_equal(labels, marks)
    assert np.array_equal(first, second) and not np.array_equal(first, images)
    assert first.dtype == np.float32 and truth.dtype == labels.dtype and first.shape == images.shape


@pytest.mark.parametrize("name", ("flip", "rotate"))
@pytest.mark.parametrize("cols", (9, 6))
def test_image_and_label_move_together(name: str, cols: int) -> None:
    images, _, moved, truth = changed(name, cols=cols)
    known = moved[:, 0] != 0
    assert np.array_equal(moved[:, 0][known], truth[known] + 1)
    assert not np.array_equal(moved, images)
    assert all(
        np.array_equal(np.sort(one.ravel()), np.sort(other.ravel())) for one, other in zip(images, moved, strict=True)
    )


@pytest.mark.parametrize("name", ("jitter", "noise", "blur"))
def test_what_changes_values_keeps_null_and_labels(name: str) -> None:
    images, labels, moved, truth = changed(name)
    assert np.array_equal(labels, truth)
    assert np.array_equal((moved == 0).all(axis=1), (images == 0).all(axis=1))


def test_jitter_of_raw_values_is_relative_to_the_spread_of_the_band() -> None:
    random = np.random.default_rng(1)
    images = (30000 + 300 * random.standard_normal((400, 2, 8, 8))).astype(np.float32)
    images[:, :, :2] = 0
    moved, _ = augment(("jitter",), images, np.zeros(400), np.full(2, 300, np.float32), random)
    assert moved.dtype == np.float32 and not moved[:, :, :2].any()
    inner = (..., slice(2, None), slice(None))
    assert 0.08 < (moved - images)[inner].mean(axis=(2, 3)).std() / 300 < 0.13
    assert 0.08 < (moved[inner].std(axis=(2, 3)) / images[inner].std(axis=(2, 3))).std() < 0.12


def test_jitter_of_a_series_looks_at_dates_that_were_seen() -> None:
    random = np.random.default_rng(1)
    values = (30000 + 300 * random.standard_normal((200, 3, 2, 4, 4))).astype(np.float32)
    valid = random.random((200, 3, 4, 4)) < 0.5
    values *= valid[:, :, None]
    source = Further(values, valid, np.zeros((200, 4), np.float32), np.zeros((200, 3), np.float32))
    inputs = Inputs(np.ones((200, 1, 4, 4), np.float32), {"series": source})
    moved, _ = augment(("jitter",), inputs, np.zeros(200), np.ones(1, np.float32), random)
    change = (moved.further["series"].values - values)[np.broadcast_to(valid[:, :, None], values.shape)]
    assert 20 < change.std() < 40 and not moved.further["series"].values[~valid.any(axis=(1, 2, 3))].any()
    assert not np.moveaxis(moved.further["series"].values, 2, -1)[~valid].any()


def test_what_is_erased_has_no_label() -> None:
    images, labels, moved, truth = changed("erase")
    erased = (moved == 0).all(axis=1) & ~(images == 0).all(axis=1)
    assert erased.any() and (truth[erased] == UNLABELLED).all()
    assert np.array_equal(truth[truth != UNLABELLED], labels[truth != UNLABELLED])
    values = np.random.default_rng(1).normal(size=labels.shape).astype(np.float32)
    _, lost = augment(("erase",), images, values, np.ones(3, np.float32), np.random.default_rng(2))
    assert np.isnan(lost[erased]).all()


def test_an_enlarged_part_is_interpolated_as_pytorch_does_it() -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, 5, 7)).astype(np.float32)
    here = augmentation._enlarged(augmentation._enlarged(values, 8, 2), 9, 3)
    there = torch.nn.functional.interpolate(torch.from_numpy(values), (8, 9), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(here, there.numpy(), atol=1e-5)


def test_a_crop_keeps_label_and_image_at_the_same_place() -> None:
    images = np.zeros((6, 1, 40, 40), dtype=np.float32) + 1
    images[..., 20:] = 2
    labels = (images[:, 0] - 1).astype(np.int64)
    moved, truth = augment(("crop",), images, labels, np.ones(1, np.float32), np.random.default_rng(5))
    clear = np.abs(moved[:, 0] - np.round(moved[:, 0])) < 0.01
    assert clear.mean() > 0.9 and np.array_equal(truth[clear], np.round(moved[:, 0][clear]).astype(int) - 1)


def test_a_patch_smaller_than_the_filter_is_not_blurred() -> None:
    images = np.ones((4, 2, 2, 2), dtype=np.float32)
    same, _ = augment(("blur",), images, np.zeros(4, np.int64), np.ones(2, np.float32), np.random.default_rng(1))
    assert np.array_equal(images, same)
