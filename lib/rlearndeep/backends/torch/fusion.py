"""A network of several sources, each in its own cells.

The reference goes through an encoder and the decoder of a U-Net, every further source through a :class:`Branch`; the
features of the branches are added, through a convolution of one cell, to those of the reference at every level of
the encoder and before the last layer, on the same ground. So it is with the two branches of the baseline of FLAIR #2
(Garioud et al. 2023, FLAIR: a country-scale land cover semantic segmentation dataset from multi-source optical
imagery, NeurIPS), whose second branch is U-TAE (Garnot and Landrieu 2021, ICCV).

Parts by name, of a built network: ``module.inner.encoder`` of the reference maps (N, bands, rows, cols) to feature
maps, the coarsest last; ``module.inner.branches[name]`` maps a ``Further`` to feature maps, the finest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rlearndeep.backends.fusing import Fusing
from rlearndeep.backends.torch.alignment import Placed
from rlearndeep.backends.torch.branches import Branch
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Further, Inputs

_POOLED = (8, 8)


class Joint(nn.Module):
    """Features of branches, on a grid of the reference.

    Args:
        channels: of the answer.
        width: channels of the branches.
        names: of the branches.
    """

    def __init__(self, channels: int, width: int, names: Sequence[str]) -> None:
        super().__init__()
        self.before = channels < width  # the layer and the interpolation may change places
        self.mix = nn.ModuleDict({name: nn.Conv2d(width, channels, 1) for name in names})

    def forward(self, placed: Mapping[str, Placed], shape: Sequence[int]) -> Tensor:
        """Their sum, (N, channels, *shape)."""
        parts = []
        for name, layer in self.mix.items():
            own = placed[name]
            parts.append(own.on(shape, layer) if self.before else layer(own.on(shape)))
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]


class Fused(nn.Module):
    """What every network of several sources has: branches, and what stands for a source that is absent.

    In training a source is left out of a share of the patches, so that the network copes without it.
    """

    def __init__(self, recipe: Fusing) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {source.name: Branch(source.bands, recipe.widths, source.series) for source in recipe.sources}
        )
        self.names = tuple(self.branches)
        self.width = 2 * recipe.widths[0]
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(self.width)) for name in self.names})
        self.reference = recipe.reference
        self.dropout = recipe.dropout if recipe.reference or len(self.names) > 1 else 0.0

    def placed(self, inputs: Inputs) -> dict[str, Placed]:
        """Feature maps of the branches and where the reference lies in them."""
        sources = [inputs.further[name] for name in self.names]
        seen = self._seen(torch.stack([source.valid.flatten(1).any(dim=1) for source in sources], dim=1))
        found = {}
        for number, (name, source) in enumerate(zip(self.names, sources, strict=True)):
            none, here = self.absent[name][:, None, None], seen[:, number, None, None, None]
            maps = [torch.where(here, features, none) for features in self.branches[name](source)]
            found[name] = Placed.of(maps, source.box)
        return found

    def _seen(self, present: Tensor) -> Tensor:
        """Which of the sources that are present (N, sources) this step looks at; never none of them without need."""
        if not self.training or not self.dropout:
            return present
        seen = present & (torch.rand(present.shape, device="cpu") >= self.dropout).to(present.device)
        return seen if self.reference else torch.where(seen.any(dim=1, keepdim=True), seen, present)


class FusedUnet(Fused):
    """Scores per cell of the reference, from its image and the further sources.

    Args:
        unet: of segmentation-models-pytorch; its parts keep their names, so that its weights fit.
    """

    def __init__(self, recipe: Fusing, unet: Any) -> None:
        super().__init__(recipe)
        self.encoder, self.decoder, self.segmentation_head = unet.encoder, unet.decoder, unet.segmentation_head
        channels = unet.encoder.out_channels
        self.joints = nn.ModuleDict(
            {
                str(level): Joint(count, self.width, self.names)
                for level, count in enumerate(channels)
                if level and count
            }
        )
        self.last = Joint(unet.segmentation_head[0].in_channels, self.width, self.names)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (N, classes, rows, cols)."""
        placed = self.placed(inputs)
        features = list(self.encoder(inputs.images))
        for level, joint in self.joints.items():
            own = features[int(level)]
            features[int(level)] = own + joint(placed, own.shape[-2:])
        decoded = self.decoder(features)
        return self.segmentation_head(decoded + self.last(placed, decoded.shape[-2:]))


class FusedCells(Fused):
    """Scores per cell of the reference, from further sources only."""

    def __init__(self, recipe: Fusing, classes: int) -> None:
        super().__init__(recipe)
        self.joint = Joint(self.width, self.width, self.names)
        self.decoder = nn.Sequential(nn.Conv2d(self.width, recipe.widths[0], 3, padding=1), nn.ReLU(inplace=True))
        self.segmentation_head = nn.Conv2d(recipe.widths[0], classes, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (N, classes, rows, cols)."""
        joined = self.joint(self.placed(inputs), inputs.images.shape[-2:])
        return self.segmentation_head(self.decoder(torch.relu(joined)))


class FusedPatches(Fused):
    """Scores per patch, from the further sources and, if there is an encoder, the image of the reference.

    Args:
        encoder: of segmentation-models-pytorch, or None.
    """

    def __init__(self, recipe: Fusing, classes: int, encoder: Any | None) -> None:
        super().__init__(recipe)
        self.encoder = encoder
        own = encoder.out_channels[-1] if encoder is not None else 0
        self.segmentation_head = nn.Linear(own + self.width * len(self.names), classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (N, classes)."""
        maps = [placed.on(_POOLED) for placed in self.placed(inputs).values()]
        if self.encoder is not None:
            maps.insert(0, self.encoder(inputs.images)[-1])
        return self.segmentation_head(torch.cat([features.mean(dim=(-2, -1)) for features in maps], dim=1))


def enlarged(inputs: Inputs, images: Tensor) -> Inputs:
    """The same places with more rows below and columns right in the reference.

    Args:
        images: of the reference, with the cells added.
    """
    old, new = inputs.images.shape[-2:], images.shape[-2:]
    factor = torch.tensor([1.0, 1.0, new[0] / old[0], new[1] / old[1]])
    further = {
        name: replace(source, box=source.box * factor.to(source.box.device)) for name, source in inputs.further.items()
    }
    return Inputs(images, further)


def noise(network: Network, images: Tensor, generator: torch.Generator) -> Inputs:
    """Small windows of noise of the further sources, around images of the reference."""
    count = len(images)
    further = {}
    for source in Fusing.of(network).sources:
        layers = (2,) if source.series else ()
        further[source.name] = Further(
            torch.randn((count, *layers, source.bands, *_POOLED), generator=generator),
            torch.ones((count, *layers, *_POOLED), dtype=torch.bool),
            torch.tensor([[0.0, 0.0, *map(float, _POOLED)]]).repeat(count, 1),
            torch.arange(float(sum(layers))).repeat(count, 1),
        )
    return Inputs(images, further)
