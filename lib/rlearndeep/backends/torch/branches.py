"""The branch of a further source: a small U-Net at the source's own resolution, through time where it has dates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlearndeep.backends.torch.temporal import TemporalAttention, mean_of_dates
from rlearndeep.scene.inputs import Further

_GROUPS = 4
_HEADS = 8


class Convolutions(nn.Sequential):
    """Convolutions of 3 x 3 cells from width to width, each with ReLU and a normalisation that knows no other patch."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, width in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.GroupNorm(math.gcd(_GROUPS, width), width)]
            layers += [nn.ReLU(inplace=True)]
        super().__init__(*layers)


class Branch(nn.Module):
    """Feature maps of one further source.

    Every cell of every map lies exactly over the ground of the cells of the source that it was made of. A series goes
    date by date through the encoder; its dates are joined by temporal attention at the coarsest level, and by the
    same weights at the others, as in U-TAE (Garnot and Landrieu 2021, ICCV). The way back to the finest level adds
    what it meets, as in a feature pyramid (Lin et al. 2017, CVPR), which costs half of joining it. Normalisation over
    the window hides how high its values are on the whole, so the values themselves go around it, to every map.

    Args:
        bands: of the source.
        widths: filters of the levels, the finest first; each level has half the rows and columns of the one before.
        series: whether the source has dates.

    Attributes:
        width: channels of every map.
    """

    def __init__(self, bands: int, widths: Sequence[int], series: bool) -> None:
        super().__init__()
        self.series = series
        self.width = 2 * widths[0]
        inputs = (bands + 1, *widths[:-1])  # whether a cell is valid is told as a band of its own
        pairs = list(reversed(list(itertools.pairwise(widths))))
        self.down = nn.ModuleList(
            Convolutions(first, width, width) for first, width in zip(inputs, widths, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.up = nn.ModuleList(Convolutions(fine, fine) for fine, _ in pairs)
        self.around = nn.Conv2d(bands + 1, widths[0], 1)
        self.out = nn.ModuleList(nn.Conv2d(width + widths[0], self.width, 1) for width in widths)
        heads = math.gcd(_HEADS, widths[0])
        self.attention = TemporalAttention(widths[-1], heads) if series else None

    def forward(self, source: Further) -> list[Tensor]:
        """Maps (N, width, rows, cols), the finest first.

        The finest has the rows and columns of the source, made up to multiples of its cells in one of the coarsest;
        values that are not valid have no influence.
        """
        valid = self._padded(source.valid)
        values = self._padded(source.values)
        values = torch.where(valid.unsqueeze(-3), values, 0.0)
        frames = torch.cat([values, valid.unsqueeze(-3).to(values.dtype)], dim=-3)
        frames = frames.flatten(0, 1) if self.series else frames
        frames = frames.contiguous(memory_format=torch.channels_last)
        levels = [self.around(frames), *self._encoded(frames)]
        if self.attention is not None:
            levels = self._through_time(self.attention, levels, valid, source.days)
        return self._mapped(levels[0], self._decoded(levels[1:]))

    def _padded(self, array: Tensor) -> Tensor:
        step = 2 ** (len(self.down) - 1)
        below, right = (-cells % step for cells in array.shape[-2:])
        return functional.pad(array, (0, right, 0, below)) if below or right else array

    def _encoded(self, frames: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for block in self.down:
            frames = block(functional.max_pool2d(frames, 2) if levels else frames)
            levels.append(frames)
        return levels

    def _through_time(
        self, attention: TemporalAttention, levels: list[Tensor], valid: Tensor, days: Tensor
    ) -> list[Tensor]:
        series = [level.unflatten(0, valid.shape[:2]) for level in levels]
        known = valid.float()
        steps = (0, *range(len(self.down)))
        shares = [functional.avg_pool2d(known, 2**step) if step else known for step in steps]
        coarsest, weights = attention(series[-1], shares[-1], days)
        finer = zip(series[:-1], shares[:-1], strict=True)
        return [*(mean_of_dates(frames, share, weights) for frames, share in finer), coarsest]

    def _decoded(self, levels: list[Tensor]) -> list[Tensor]:
        maps = [levels[-1]]
        for narrow, block, skip in zip(self.narrow, self.up, reversed(levels[:-1]), strict=True):
            larger = functional.interpolate(narrow(maps[0]), scale_factor=2.0, mode="nearest")
            maps.insert(0, block(larger + skip))
        return maps

    def _mapped(self, around: Tensor, maps: list[Tensor]) -> list[Tensor]:
        found = []
        for number, (out, level) in enumerate(zip(self.out, maps, strict=True)):
            around = functional.avg_pool2d(around, 2) if number else around
            found.append(out(torch.cat([level, around], dim=1)))
        return found
