"""Augmentation of several sources: what moves the ground moves all of them alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rlearndeep.backends.torch.alignment import Placed
from rlearndeep.backends.torch.augmentation import STEPS, augment
from rlearndeep.scene.classes import UNLABELLED
from rlearndeep.scene.inputs import Further, Inputs

COUNT = 24
GEOMETRIC = ("flip", "rotate", "crop")


def smooth(rows: torch.Tensor, cols: torch.Tensor, number: int) -> torch.Tensor:
    """A picture of the ground without any symmetry, of places in cells of the reference."""
    return torch.sin(0.21 * rows + 0.5 * number) + torch.cos(0.17 * cols - 0.3 * number) + 0.002 * rows * cols


def picture(size: tuple[int, int], resolution: float, origin: tuple[float, float], number: int) -> torch.Tensor:
    rows = origin[0] + (torch.arange(size[0]) + 0.5) * resolution
    cols = origin[1] + (torch.arange(size[1]) + 0.5) * resolution
    return smooth(rows[:, None], cols[None], number)


def scene(shape: tuple[int, int] = (16, 16), window: tuple[int, int] = (20, 20), dates: int = 0) -> Inputs:
    """The same ground in cells of 1, and of 1.5 with context around and an origin between the cells."""
    images = torch.stack([picture(shape, 1.0, (0, 0), number)[None] for number in range(COUNT)])
    origin = (-7.25, -6.0)
    other = torch.stack([picture(window, 1.5, origin, number)[None] for number in range(COUNT)])
    box = torch.tensor([[-origin[0] / 1.5, -origin[1] / 1.5, shape[0] / 1.5, shape[1] / 1.5]]).repeat(COUNT, 1)
    valid = torch.ones((COUNT, *window), dtype=torch.bool)
    days = torch.arange(float(dates)).repeat(COUNT, 1)
    if dates:
        other = other[:, None].repeat(1, dates, 1, 1, 1)
        valid = valid[:, None].repeat(1, dates, 1, 1)
    return Inputs(images, {"further": Further(other, valid, box, days)})


def apart(inputs: Inputs) -> float:
    """How far the further source, brought to the ground of the reference, is from it."""
    source = inputs.further["further"]
    values = source.values[:, -1] if source.values.dim() == 5 else source.values
    rows, cols = inputs.images.shape[-2:]
    inner = (..., slice(2, rows - 2), slice(2, cols - 2))
    found = torch.cat(
        [Placed.of([value[None]], box[None]).on((rows, cols)) for value, box in zip(values, source.box, strict=True)]
    )
    return float((found - inputs.images)[inner].abs().max())


@pytest.mark.parametrize("dates", (0, 3))
@pytest.mark.parametrize(
    ("shape", "window"), (((16, 16), (20, 20)), ((16, 12), (20, 20)), ((16, 16), (21, 20)), ((12, 16), (20, 22)))
)
@pytest.mark.parametrize("names", (*((name,) for name in GEOMETRIC), GEOMETRIC))
def test_the_same_ground_stays_the_same_ground(
    names: tuple[str, ...], shape: tuple[int, int], window: tuple[int, int], dates: int
) -> None:
    before = scene(shape, window, dates)
    numbers = torch.arange(COUNT)
    assert apart(before) < 0.05
    after, _ = augment(names, before, numbers, torch.ones(1), torch.Generator().manual_seed(2))
    assert apart(after) < 0.05
    assert not torch.equal(after.images, before.images)
    assert after.further["further"].values.shape == before.further["further"].values.shape
    stale = replace(after.further["further"], box=before.further["further"].box)
    assert apart(Inputs(after.images, {"further": stale})) > 0.3


@pytest.mark.parametrize("names", [(name,) for name in STEPS])
def test_the_reference_is_changed_as_it_would_be_alone(names: tuple[str, ...]) -> None:
    inputs = scene()
    labels = torch.arange(256).reshape(1, 16, 16).repeat(COUNT, 1, 1)
    alone, marks = augment(names, inputs.images, labels, torch.ones(1), torch.Generator().manual_seed(4))
    both, others = augment(names, inputs, labels, torch.ones(1), torch.Generator().manual_seed(4))
    if names[0] in GEOMETRIC:
        assert torch.equal(both.images, alone) and torch.equal(others, marks)
    assert both.images.shape == alone.shape


@pytest.mark.parametrize("dates", (0, 3))
def test_values_change_and_null_stays_null(dates: int) -> None:
    inputs = scene(dates=dates)
    source = inputs.further["further"]
    valid = torch.rand(source.valid.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    source = replace(source, valid=valid, values=torch.where(valid.unsqueeze(-3), source.values, 0.0))
    inputs = Inputs(inputs.images, {"further": source})
    before = source.values.clone()
    numbers = torch.arange(COUNT)
    for name in ("jitter", "noise", "blur"):
        after, labels = augment((name,), inputs, numbers, torch.ones(1), torch.Generator().manual_seed(3))
        found = after.further["further"]
        assert torch.equal(found.valid, valid) and torch.equal(found.box, source.box)
        assert not found.values[~valid.unsqueeze(-3)].any() and not torch.equal(found.values, before)
        assert torch.equal(labels, numbers) and torch.equal(source.values, before)


def test_what_is_erased_of_a_source_is_not_valid_and_costs_no_label() -> None:
    inputs = scene(dates=2)
    labels = torch.ones((COUNT, 16, 16), dtype=torch.int64)
    after, marks = augment(("erase",), inputs, labels, torch.ones(1), torch.Generator().manual_seed(3))
    found = after.further["further"]
    erased = ~found.valid
    assert erased.any() and torch.equal(erased[:, 0], erased[:, 1])
    assert not found.values[erased.unsqueeze(-3)].any()
    assert torch.equal(marks == UNLABELLED, (after.images == 0).all(dim=1))
    assert inputs.further["further"].valid.all()


def test_jitter_of_a_series_looks_at_dates_that_were_seen() -> None:
    generator = torch.Generator().manual_seed(1)
    valid = torch.rand((200, 3, 4, 4), generator=generator) < 0.5
    values = (30000 + 300 * torch.randn((200, 3, 2, 4, 4), generator=generator)) * valid[:, :, None]
    source = Further(values, valid, torch.zeros((200, 4)), torch.zeros((200, 3)))
    inputs = Inputs(torch.ones((200, 1, 4, 4)), {"series": source})
    changed = augment(("jitter",), inputs, torch.zeros(200), torch.ones(1), generator)[0].further["series"].values
    seen = valid[:, :, None].expand_as(values)
    assert 20 < (changed - values)[seen].std() < 40 and not changed[~seen].any()
