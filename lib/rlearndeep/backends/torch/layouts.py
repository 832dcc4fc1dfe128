"""What files of other libraries call the tensors of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rlearndeep.backends.torch.libraries import library
from rlearndeep.backends.torch.networks import in_outline, name_in_timm
from rlearndeep.model import Network

# Networks that torchvision and timm compute alike, but name otherwise.
_TORCHVISION = {
    "mobilenetv2_100": "mobilenet_v2",
    **{f"efficientnet_b{size}": f"efficientnet_b{size}" for size in range(5)},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"swin_{size}_patch4_window7_224": f"swin_{size[0]}" for size in ("tiny", "small", "base")},
}

_COMPUTED = ("num_batches_tracked", "relative_position_index")
_FLATTENED = re.compile(r"_(\d+)(?=\.)")


def unflattened(name: str) -> str:
    """The name in a whole network of timm for that in an encoder, which has ``stages_0.`` for ``stages.0.``."""
    return _FLATTENED.sub(r".\1", name)


def in_names_of(
    network: Network, expected: Mapping[str, torch.Size], found: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Tensors of a file of torchvision by the names in a network; of any other file as they are.

    Both libraries define their layers in the order in which they compute.

    Args:
        network: that the tensors are for.
        expected: shapes of its tensors by their names, in order.
        found: tensors by their names in the file.
    """
    model = _TORCHVISION.get(name_in_timm(network))
    if model is None:
        return found
    torchvision = library("torchvision", "A weights file of torchvision")
    theirs = _in_timms_order(in_outline(lambda: torchvision.models.get_model(model)).state_dict())
    before = next((name.removesuffix(theirs[0]) for name in found if name.endswith(theirs[0])), None)
    if before is None or any(before + name not in found for name in theirs[: len(theirs) // 2]):
        return found
    ours = [name for name in expected if name.startswith(_beginning(expected)) and not name.endswith(_COMPUTED)]
    return {
        name: _shaped(found[before + other], expected[name])
        for name, other in zip(ours, theirs, strict=False)
        if before + other in found
    }


def that_fits(network: Network) -> str:
    """What file would fit, for a message."""
    name = name_in_timm(network)
    files = f"a file of timm for {name}" if name else "other weights"
    model = _TORCHVISION.get(name)
    return f"{files} or of torchvision for {model}" if model else files


def _in_timms_order(names: Iterable[str]) -> Sequence[str]:
    """Names of torchvision's tensors; where windows are merged it defines the layer before its normalisation."""
    ordered = [name for name in names if not name.endswith(_COMPUTED)]
    for at in [at for at, name in enumerate(ordered) if ".reduction." in name]:
        ordered[at : at + 3] = [*ordered[at + 1 : at + 3], ordered[at]]
    return ordered


def _beginning(expected: Mapping[str, torch.Size]) -> str:
    return "inner.encoder." if any(name.startswith("inner.encoder.") for name in expected) else "inner."


def _shaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Without the sides of one that only one of the libraries gives a scale of channels."""
    return tensor.flatten() if tensor.dim() > 1 and tensor.flatten().shape == shape else tensor
