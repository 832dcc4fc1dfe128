"""Views of patches for contrastive learning: what may change without making it another place.

The steps of Chen et al. (2020, ICML) for any number of bands of any range: a crop of another size, enlarged; flips and
quarter turns, because images from above have no upside; brightness, contrast and the balance of the bands relative to
the spread of each band; blur, noise and an erased rectangle. Of a series some dates are missing besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from rlearndeep.backends.torch.augmentation import augment
from rlearndeep.backends.torch.feeding import Batch
from rlearndeep.scene.inputs import Further, Inputs

_SMALLEST_AREA = 0.25
"""Of a crop, as a share of the patch; Chen et al. take 0.08 of photographs, whose object fills the picture."""

_STRETCH = 0.2
"""Rows against columns of a crop, at most, as a power of e."""

_CONTRAST, _BALANCE = 0.25, 0.1
"""Standard deviations of the factor that all bands have in common, and of that of each band."""

_BRIGHTNESS, _TINT = 0.4, 0.15
"""Standard deviations of the shift that all bands have in common, and of that of each band, in spreads of a band."""

_MISSING = 0.3
"""Share of the dates of a series that are left out."""

_TURNS = ("flip", "rotate")
_DISTURBANCES = ("blur", "noise")


def view(batch: Batch, spread: Tensor, generator: Generator) -> Batch:
    """Another view of each patch; of several sources each changes for itself, and stays over the same place.

    Args:
        batch: (N, bands, rows, cols), normalised, 0 in all bands where null, and it stays so; or ``Inputs``, of which
            the boxes have no meaning afterwards.
        spread: standard deviation per band of the images.
        generator: source of all randomness, on the CPU.
    """
    if isinstance(batch, Inputs):
        further = {name: _of_source(source, generator) for name, source in batch.further.items()}
        return Inputs(_of_images(batch.images, spread, generator), further)
    return _of_images(batch, spread, generator)


def _of_images(images: Tensor, spread: Tensor, generator: Generator) -> Tensor:
    changed = _radiometry(_moved(images, generator), spread, generator)
    return augment((*_DISTURBANCES, "erase"), changed, _no_labels(images), spread, generator)[0]


def _of_source(source: Further, generator: Generator) -> Further:
    """A view of a further source; the dates of a series are changed like further bands."""
    flat = source.values.flatten(1, -3)
    known = source.valid if source.valid.dim() > 3 else source.valid[:, None]
    moved = _moved(torch.cat([flat, known.to(flat.dtype)], dim=1), generator)
    flat, known = moved[:, : flat.shape[1]], moved[:, flat.shape[1] :] > 0.5
    spread = torch.ones(flat.shape[1], device=flat.device)
    flat = augment(_DISTURBANCES, _radiometry(flat, spread, generator), _no_labels(flat), spread, generator)[0]
    valid = known.reshape(source.valid.shape)
    if source.days.shape[1]:
        valid = valid & ~_missing(source.valid, generator)
    return replace(source, values=torch.where(valid.unsqueeze(-3), flat.reshape(source.values.shape), 0.0), valid=valid)


def _no_labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def _missing(valid: Tensor, generator: Generator) -> Tensor:
    """Dates that are left out, (N, dates, 1, 1): never all that have something to see."""
    seen = valid.flatten(2).any(dim=2)
    chosen = (torch.rand(valid.shape[:2], generator=generator) < _MISSING).to(valid.device)
    chosen &= (seen & ~chosen).any(dim=1, keepdim=True)
    return chosen[..., None, None]


def _moved(images: Tensor, generator: Generator) -> Tensor:
    """A window of each patch, of its own size and place, enlarged to the full size and turned."""
    count = len(images)
    draws = torch.rand((4, count), generator=generator)
    side = (_SMALLEST_AREA + (1 - _SMALLEST_AREA) * draws[0]).sqrt()
    stretch = torch.exp(_STRETCH * (2 * draws[1] - 1))
    scales = torch.stack([side * stretch, side / stretch]).clamp(max=1.0)
    shifts = (1 - scales) * (2 * draws[2:] - 1)
    corners = torch.zeros((count, 2, 3))
    corners[:, 0, 0], corners[:, 1, 1] = scales
    corners[:, 0, 2], corners[:, 1, 2] = shifts
    grid = functional.affine_grid(corners.to(images.device), list(images.shape), align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    spread = torch.ones(images.shape[1], device=images.device)
    return augment(_TURNS, cropped, _no_labels(images), spread, generator)[0]


def _radiometry(images: Tensor, spread: Tensor, generator: Generator) -> Tensor:
    """Another contrast about the patch's own mean and another brightness; null stays null."""
    known = (images != 0).any(dim=1, keepdim=True)
    mean = images.sum(dim=(-2, -1), keepdim=True) / known.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    gain, shift = _drawn(images, _CONTRAST, _BALANCE, generator), _drawn(images, _BRIGHTNESS, _TINT, generator)
    changed = mean + (images - mean) * (1 + gain).clamp(min=0.1) + shift * spread[:, None, None]
    return torch.where(known, changed, 0.0)


def _drawn(images: Tensor, common: float, own: float, generator: Generator) -> Tensor:
    """Random numbers (N, bands, 1, 1) around 0, with standard deviations of what bands share and of their own."""
    count, bands = images.shape[:2]
    shared, each = torch.randn((count, 1), generator=generator), torch.randn((count, bands), generator=generator)
    return (common * shared + own * each)[..., None, None].to(images.device)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of the same sources behind each other."""
    images = torch.cat([batch.images if isinstance(batch, Inputs) else batch for batch in batches])
    several = [batch for batch in batches if isinstance(batch, Inputs)]
    if not several:
        return images
    further = {
        name: Further(
            *(
                torch.cat([getattr(batch.further[name], part) for batch in several])
                for part in ("values", "valid", "box", "days")
            )
        )
        for name in several[0].further
    }
    return Inputs(images, further)
