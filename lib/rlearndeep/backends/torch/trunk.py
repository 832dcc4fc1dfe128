"""What a network sees in a whole patch: a vector of features of each source, from its encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlearndeep.backends.fusing import FUSION, Fusing
from rlearndeep.backends.torch.features import aligned, captured, head_name
from rlearndeep.backends.torch.feeding import Batch
from rlearndeep.backends.torch.networks import SEGMENTATION, build
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Inputs

REFERENCE = "reference"


class Trunk(nn.Module):
    """A network as its encoders.

    Of a segmentation network the features are the deepest ones of its encoder, of a fusion network those too, and of
    each branch the maps of all levels; of any other network what the last layer sees. They are averaged over the
    patch. The names of the network's tensors are those of ``build``, after ``network.``.
    """

    def __init__(self, network: Network, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = build(network)
        branches = Fusing.of(network) if network.architecture == FUSION else None
        self._branches = tuple(source.name for source in branches.sources) if branches else ()
        self._encoder = branches.reference if branches else network.architecture in SEGMENTATION
        self._head = ""
        if not self._branches and not self._encoder:
            self._head = head_name(self.network.eval(), torch.zeros((1, network.bands, *size)))
        self.widths = self._widths(network, size)

    def _widths(self, network: Network, size: tuple[int, int]) -> dict[str, int]:
        """Number of features of each source."""
        module: Any = self.network
        if self._head:
            with torch.inference_mode():
                found = self.eval()(torch.zeros((1, network.bands, *size)))
            self.train()
            return {name: features.shape[1] for name, features in found.items()}
        own = {REFERENCE: module.inner.encoder.out_channels[-1]} if self._encoder else {}
        branches = {name: module.inner.branches[name] for name in self._branches}
        return own | {name: branch.width * len(branch.out) for name, branch in branches.items()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Features (N, F) of each source by its name; the first one is the reference where it is looked at."""
        images = batch.images if isinstance(batch, Inputs) else batch
        found: dict[str, Tensor] = {}
        network: Any = self.network
        if self._encoder:
            maps = network.inner.encoder(network.padded(images))
            maps = maps[0] if isinstance(maps, tuple) else maps  # beside tokens that have no place
            found[REFERENCE] = maps[-1].mean(dim=(-2, -1))
        if isinstance(batch, Inputs):
            for name in self._branches:
                maps = network.inner.branches[name](batch.further[name])
                found[name] = torch.cat([features.mean(dim=(-2, -1)) for features in maps], dim=1)
        if found:
            return found
        with captured([self.network], self._head) as inputs:
            self.network(images)
        return {REFERENCE: aligned(self.network, inputs[0], 2, (images.shape[-2], images.shape[-1]))}


def check_trunk(network: Network) -> None:
    """Refuse a network that has no encoder to pre-train.

    Raises:
        DeepLearningError: it has none.
    """
    if network.architecture == "mlp":
        raise DeepLearningError(
            "Pre-training needs a network with an encoder that sees the surroundings of a cell; architecture=mlp has "
            "none. Leave pretrain= out, or choose another architecture=, such as unet or cnn, and larger patches."
        )
