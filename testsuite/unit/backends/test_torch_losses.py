"""Laws of losses and augmentation."""

from __future__ import annotations

import pytest
import torch
from rlearndeep.backends.torch.augmentation import STEPS, augment
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED

LOSSES = ("cross_entropy", "focal", "dice", "jaccard", "cross_entropy+dice")
CLASSES = 3


def batch(seed: int = 1, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((4, CLASSES, size, size), generator=generator)
    labels = torch.randint(CLASSES, (4, size, size), generator=generator)
    return logits, labels


@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_unlabelled_cells_never_count(name: str) -> None:
    logits, labels = batch()
    labels[:, :3] = UNLABELLED
    loss = make_loss(name, torch.ones(CLASSES))
    other = logits.clone()
    other[:, :, :3] = 100 * torch.randn_like(other[:, :, :3])
    assert torch.equal(loss(logits, labels), loss(other, labels))
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :, 3:], labels[:, 3:]))


@pytest.mark.parametrize("name", LOSSES)
def test_unlabelled_cells_get_no_gradient(name: str) -> None:
    logits, labels = batch()
    labels[0, 0, 0] = UNLABELLED
    logits.requires_grad_()
    make_loss(name, torch.ones(CLASSES))(logits, labels).backward()
    assert not logits.grad[0, :, 0, 0].any()
    assert logits.grad[0, :, 0, 1].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_labels_has_no_loss(name: str) -> None:
    logits, labels = batch()
    assert make_loss(name, torch.ones(CLASSES))(logits, torch.full_like(labels, UNLABELLED)) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_answer_has_less_loss_than_the_wrong_one(name: str) -> None:
    _, labels = batch()
    right = 10 * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    loss = make_loss(name, torch.ones(CLASSES))
    assert loss(right, labels) < 0.01
    assert loss(right.roll(1, dims=1), labels) > 0.8


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_per_patch_is_a_label_of_one_cell(name: str) -> None:
    logits, labels = batch(size=1)
    loss = make_loss(name, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(loss(logits[..., 0, 0], labels[..., 0, 0]), loss(logits, labels))


def test_cross_entropy_is_that_of_the_library() -> None:
    logits, labels = batch()
    labels[0] = UNLABELLED
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = torch.nn.functional.cross_entropy(logits, labels, weights, ignore_index=UNLABELLED)
    torch.testing.assert_close(make_loss("cross_entropy", weights)(logits, labels), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_of_weight_zero_does_not_count(name: str) -> None:
    logits, labels = batch()
    loss = make_loss(name, torch.tensor([1.0, 1.0, 0.0]))
    swapped = torch.where(labels == 2, UNLABELLED, labels)
    if name in ("cross_entropy", "focal"):
        torch.testing.assert_close(loss(logits, labels), loss(logits, swapped))
    assert torch.isfinite(loss(logits, labels))


def test_an_unknown_loss_is_refused() -> None:
    for text in ("nonsense", "dice+dice", ""):
        with pytest.raises(DeepLearningError, match="The loss must be"):
            make_loss(text, torch.ones(CLASSES))


def pictures(size: tuple[int, int] = (12, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    """The label can be read off the first band, wherever a cell goes; one corner is null."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (6, *size), generator=generator)
    images = torch.stack([labels.float() * 10 + 5, *torch.randn((4, 6, *size), generator=generator)], dim=1)
    images[:, :, :3, :3] = 0
    labels[:, :3, :3] = UNLABELLED
    return images, labels


@pytest.mark.parametrize("size", ((12, 12), (12, 7)))
@pytest.mark.parametrize("name", ("flip", "rotate"))
def test_image_and_label_move_together(name: str, size: tuple[int, int]) -> None:
    images, labels = pictures(size)
    moved, marks = augment([name], images, labels, torch.ones(5), torch.Generator().manual_seed(3))
    known = marks != UNLABELLED
    assert torch.equal(moved[:, 0][known], marks[known].float() * 10 + 5)
    assert torch.equal(moved.flatten(2).sort(2)[0], images.flatten(2).sort(2)[0])
    assert not torch.equal(moved, images)


def test_rotation_reaches_all_eight_positions() -> None:
    image = torch.arange(4.0).reshape(1, 1, 2, 2)
    generator = torch.Generator().manual_seed(1)
    found = {
        tuple(augment(["flip", "rotate"], image, torch.zeros(1), torch.ones(1), generator)[0].flatten().tolist())
        for _ in range(200)
    }
    assert len(found) == 8


def test_a_crop_keeps_size_and_order_of_image_and_label() -> None:
    labels = torch.arange(16)[None, None].expand(3, 16, 16).clone()
    images = labels[:, None].float().clone()
    cropped, marks = augment(["crop"], images, labels, torch.ones(1), torch.Generator().manual_seed(1))
    assert cropped.shape == images.shape and marks.shape == labels.shape
    assert (cropped[:, 0] - marks).abs().max() <= 1
    assert not torch.equal(marks, labels)


@pytest.mark.parametrize("name", ("jitter", "noise", "blur"))
def test_null_stays_null_and_labels_stay_where_they_are(name: str) -> None:
    images, labels = pictures()
    changed, marks = augment([name], images, labels, torch.ones(5), torch.Generator().manual_seed(1))
    assert torch.equal(marks, labels)
    assert not changed[:, :, :3, :3].any()
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", ("jitter", "noise"))
def test_radiometric_changes_are_relative_to_the_spread_of_the_band(name: str) -> None:
    images = torch.full((200, 2, 4, 4), 1e-9)
    spread = torch.tensor([1.0, 100.0])
    changed, _ = augment([name], images, torch.zeros(200), spread, torch.Generator().manual_seed(1))
    deviation = changed.std(dim=(0, 2, 3))
    assert 80 < deviation[1] / deviation[0] < 125


def test_erased_cells_lose_their_labels() -> None:
    images, labels = pictures()
    changed, marks = augment(["erase"], images, labels, torch.ones(5), torch.Generator().manual_seed(1))
    erased = (changed != images).any(dim=1)
    assert erased.any()
    assert (marks[erased] == UNLABELLED).all()
    assert torch.equal(marks[~erased], labels[~erased])


@pytest.mark.parametrize("name", tuple(STEPS))
def test_single_cells_and_the_callers_batch_are_left_whole(name: str) -> None:
    for size in ((1, 1), (1, 4), (12, 12)):
        images, labels = pictures((12, 12))
        images, labels = images[..., -size[0] :, -size[1] :], labels[..., -size[0] :, -size[1] :]
        before = images.clone(), labels.clone()
        changed, marks = augment([name], images, labels, torch.ones(5), torch.Generator().manual_seed(1))
        assert changed.shape == images.shape and marks.shape == labels.shape and marks.dtype == labels.dtype
        assert torch.equal(images, before[0]) and torch.equal(labels, before[1])
