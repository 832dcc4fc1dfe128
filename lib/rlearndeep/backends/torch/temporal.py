"""Lightweight temporal attention over the dates of a series.

A compact form of L-TAE (Garnot and Landrieu 2020, Lightweight temporal self-attention for classifying satellite
image time series, Springer LNCS 12588:171-181) as U-TAE uses it (Garnot and Landrieu 2021, Panoptic segmentation of
satellite image time series with convolutional temporal attention networks, ICCV): the channels are shared out among
heads, each head asks one learned question of the keys of all dates, and the answer is the weighted mean of its
channels. The weights, enlarged, serve the finer levels too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_KEY = 4
_LONGEST = 1000.0  # of the wavelengths over 2 pi, in days
_NEVER = -1e4
_LEAST = 1e-6


def positions(days: Tensor, width: int) -> Tensor:
    """Sines and cosines of days at wavelengths from six days to seventeen years, (..., width)."""
    count = -(-width // 2)
    numbers = torch.arange(count, device=days.device, dtype=torch.float32)
    angles = days.float()[..., None] / _LONGEST ** (numbers / max(1, count))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :width]


class TemporalAttention(nn.Module):
    """Frames of several dates become one.

    Args:
        width: channels of a frame.
        heads: questions; they share out the channels evenly.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.keys = nn.Linear(width, heads * _KEY)
        self.query = nn.Parameter(torch.empty(heads, _KEY))
        nn.init.normal_(self.query, std=math.sqrt(2 / _KEY))
        self.out = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(inplace=True))

    def forward(self, frames: Tensor, share: Tensor, days: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the dates that each head attends to.

        Args:
            frames: (N, dates, C, rows, cols).
            share: of valid ground in each cell, (N, dates, rows, cols); a date without any is passed over.
            days: (N, dates).

        Returns:
            One frame (N, C, rows, cols), and the weights of the dates (N, dates, heads, rows, cols), which sum to 1
            over the dates, or are 0 where no date is valid.
        """
        tokens = self.norm(frames.movedim(2, -1))
        tokens = tokens + positions(days, tokens.shape[-1])[:, :, None, None]
        keys = self.keys(tokens).unflatten(-1, (self.heads, _KEY)).float()
        scores = (keys * self.query.float()).sum(dim=-1) / math.sqrt(_KEY)
        known = (share > 0)[..., None]
        scores = torch.where(known, scores + share.clamp(min=_LEAST).log()[..., None], _NEVER)
        weights = torch.softmax(scores, dim=1) * known
        values = tokens.unflatten(-1, (self.heads, -1))
        attended = (weights[..., None] * values).sum(dim=1).flatten(-2)
        return self.out(attended).movedim(-1, 1), weights.movedim(-1, 2)


def mean_of_dates(frames: Tensor, share: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of the dates of a finer level, (N, C, rows, cols).

    Args:
        frames: (N, dates, C, rows, cols).
        share: of valid ground, (N, dates, rows, cols).
        weights: of a coarser level, (N, dates, heads, h, w).
    """
    count, dates, heads = weights.shape[:3]
    size = frames.shape[-2:]
    larger = functional.interpolate(weights.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    larger = larger.unflatten(0, (count, dates)) * share[:, :, None]
    larger = larger / larger.sum(dim=1, keepdim=True).clamp(min=_LEAST)
    grouped = frames.unflatten(2, (heads, -1))
    return (grouped * larger[:, :, :, None]).sum(dim=1).flatten(1, 2)
