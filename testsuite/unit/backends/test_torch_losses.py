"""Laws of losses and augmentation."""

from __future__ import annotations

import pytest
import torch
from rlearndeep.backends.torch.augmentation import STEPS, augment
from rlearndeep.backends.torch.losses import loss_weight, make_loss
from rlearndeep.backends.torch.tasks import counts, decoded, standardized
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.tasks import ClassTask, PresenceTask, ValueTask
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import UNLABELLED
from synthetic_patches import CLASSES as CLASS_TABLE

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


PRESENCE = ("bce", "focal", "dice", "jaccard", "bce+dice")
VALUES = ("mse", "mae", "huber", "mse+mae")


def several(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((20, CLASSES), generator=generator), torch.randint(2, (20, CLASSES), generator=generator)


def numbers(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((4, 1, 6, 6), generator=generator), torch.randn((4, 6, 6), generator=generator)


@pytest.mark.parametrize("name", PRESENCE)
def test_unknown_presence_never_counts(name: str) -> None:
    logits, labels = several()
    labels[:5] = UNLABELLED
    labels[7, 1] = UNLABELLED
    loss = make_loss(name, torch.ones(CLASSES), "presence")
    other = logits.clone()
    other[:5] = 50.0
    other[7, 1] = -50.0
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert torch.equal(loss(logits, labels), loss(other, labels))
    assert not logits.grad[:5].any() and not logits.grad[7, 1] and logits.grad[7, 0]
    assert loss(logits, torch.full_like(labels, UNLABELLED)) == 0


@pytest.mark.parametrize("name", VALUES)
def test_unknown_values_never_count_and_leave_no_nan(name: str) -> None:
    logits, labels = numbers()
    labels[:, :2] = torch.nan
    loss = make_loss(name, torch.ones(0), "value")
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :, 2:], labels[:, 2:]))
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert not logits.grad[:, :, :2].any() and torch.isfinite(logits.grad).all() and logits.grad[:, :, 2:].all()
    assert loss(logits, torch.full_like(labels, torch.nan)) == 0


@pytest.mark.parametrize(("task", "names"), (("presence", PRESENCE), ("value", VALUES)))
def test_the_right_presence_or_value_has_less_loss(task: str, names: tuple[str, ...]) -> None:
    _, labels = several() if task == "presence" else numbers()
    right = 20.0 * (labels * 2 - 1) if task == "presence" else labels[:, None]
    for name in names:
        loss = make_loss(name, torch.ones(CLASSES), task)
        assert loss(right, labels) < 0.01
        assert loss(-right + 1, labels) > 0.5


def test_losses_of_presence_and_values_are_those_of_the_library() -> None:
    functional = torch.nn.functional
    logits, labels = several()
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights)
    torch.testing.assert_close(make_loss("bce", weights, "presence")(logits, labels), expected)
    logits, values = numbers()
    for name, function in (("mse", functional.mse_loss), ("mae", functional.l1_loss), ("huber", functional.huber_loss)):
        torch.testing.assert_close(make_loss(name, weights, "value")(logits, values), function(logits[:, 0], values))


@pytest.mark.parametrize(("task", "name"), (("class", "cross_entropy"), ("presence", "bce"), ("value", "mse")))
def test_weighted_losses_of_pieces_add_up_to_that_of_the_batch(task: str, name: str) -> None:
    logits, labels = {"class": batch, "presence": several, "value": numbers}[task]()
    labels[0] = torch.nan if task == "value" else UNLABELLED
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = make_loss(name, weights, task)
    pieces = [(slice(0, 1), 1), (slice(1, None), 1)]
    shares = [loss_weight(labels[piece], weights, task) for piece, _ in pieces]
    total = sum(loss(logits[piece], labels[piece]) * share for (piece, _), share in zip(pieces, shares, strict=True))
    torch.testing.assert_close(total / sum(shares), loss(logits, labels))


@pytest.mark.parametrize("task", ("class", "presence", "value"))
def test_the_back_end_counts_as_the_scores_do(task: str) -> None:
    logits, labels = {"class": batch, "presence": several, "value": numbers}[task]()
    labels[0] = torch.nan if task == "value" else UNLABELLED
    target = BandStatistics(10, 50.0, 4.0, 0.0, 100.0)
    said = decoded(logits, task, target if task == "value" else None).numpy()
    found = counts(logits, labels, task).numpy()
    if task == "value":
        raw = labels.numpy() * target.std + target.mean
        assert standardized(torch.from_numpy(raw), target).numpy() == pytest.approx(
            labels.numpy(), nan_ok=True, abs=1e-5
        )
        learned = ValueTask(target)
        assert learned.measure.of(found) == pytest.approx(learned.scores(learned.count(raw, said))["rmse"], rel=1e-5)
    else:
        learned = ClassTask(CLASS_TABLE) if task == "class" else PresenceTask(CLASS_TABLE)
        assert (found == learned.count(labels.numpy(), said)).all()


@pytest.mark.parametrize("name", tuple(STEPS))
def test_values_move_with_their_cells_and_presence_stays(name: str) -> None:
    images, labels = pictures()
    values = torch.where(labels == UNLABELLED, torch.nan, labels.double() + 0.25).float()
    _, marks = augment([name], images, labels, torch.ones(5), torch.Generator().manual_seed(3))
    _, moved = augment([name], images, values, torch.ones(5), torch.Generator().manual_seed(3))
    assert torch.equal(torch.isnan(moved), marks == UNLABELLED)
    assert torch.equal(moved[marks != UNLABELLED], marks[marks != UNLABELLED].float() + 0.25)
    presence = torch.randint(2, (6, CLASSES))
    _, same = augment([name], images, presence, torch.ones(5), torch.Generator().manual_seed(3))
    assert torch.equal(same, presence)


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


@pytest.mark.parametrize("size", (8, 1))
def test_jitter_of_raw_values_is_relative_to_the_spread_too_and_changes_the_contrast(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = 30000 + 300 * torch.randn((400, 2, size, size), generator=generator)
    images[:, :, : size // 4] = 0
    changed, _ = augment(["jitter"], images, torch.zeros(400), torch.full((2,), 300.0), generator)
    shift = (changed - images)[:, :, size // 4 :]
    assert 0.08 < shift.mean(dim=(2, 3)).std() / 300 < 0.16
    assert not changed[:, :, : size // 4].any()
    if size > 1:
        contrast = changed[:, :, size // 4 :].std(dim=(2, 3)) / images[:, :, size // 4 :].std(dim=(2, 3))
        assert 0.08 < contrast.std() < 0.12


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
