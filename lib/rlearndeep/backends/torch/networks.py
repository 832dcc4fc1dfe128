"""Networks: built from a description, any number of bands, any size of input."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rlearndeep.backends import recipes
from rlearndeep.backends.fusing import FUSION, Fusing
from rlearndeep.backends.recipes import DECODER_WIDTHS, DEEPEST, listed, share, unet_depth, whole
from rlearndeep.backends.torch.fusion import FusedCells, FusedPatches, FusedUnet, enlarged, noise
from rlearndeep.backends.torch.libraries import library, quietly
from rlearndeep.backends.torch.sizes import (
    STRIDE,
    Sides,
    largest_of_encoder,
    multiple_of_encoder,
    of_classifier,
    of_encoder,
    sides_of_classifier,
)
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.inputs import Inputs

# Classes of segmentation-models-pytorch, which give scores per cell.
SEGMENTATION = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "segformer": "Segformer",
    "upernet": "UPerNet",
    "dpt": "DPT",
}

FUSION_DECODER = SEGMENTATION["unet"]

TRANSFORMER = "dpt"
"""The one whose encoder is a plain vision transformer, which never halves its features."""

# Short names for models of timm.
CLASSIFIERS = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
}

# Its first layer turns red, green and blue into frequencies by rules that are not learned.
_OF_THREE_BANDS = re.compile(r"csatv2")

# One network halves its input again three times.
_SMALLEST = {"pan": 128}

# Names like hf-hub:... or local-dir:... would make timm read elsewhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_USUAL = "resnet18, resnet50 or efficientnet-b0; architecture=dpt takes plain vision transformers"
_SUITABLE = {TRANSFORMER: "encoder=vit_small_patch16_224 or encoder=vit_base_patch16_224"}
_LARGEST_SIDE = 2048
_TRIAL_SIDE = 64


def answers(architecture: str) -> str:
    """What a network gives a score to: ``cell``, ``patch``, or ``either`` as its option ``unit`` says."""
    if architecture in ("mlp", FUSION):
        return "either"
    return "cell" if architecture in SEGMENTATION or architecture == "fcn_dilated" else "patch"


def check_name(architecture: str) -> None:
    """Refuse a name that no network has.

    Raises:
        DeepLearningError: it is neither one of ours nor one of timm.
        MissingPackage: ``timm``, which would know, is not installed.
    """
    if architecture in (*_OWN, FUSION, *SEGMENTATION, *CLASSIFIERS):
        return
    timm = library("timm", f"The architecture '{architecture}'")
    if not _NAME.fullmatch(architecture) or not timm.is_model(architecture):
        raise DeepLearningError(
            f"The architecture must be one of {', '.join(sorted([*_OWN, FUSION, *SEGMENTATION, *CLASSIFIERS]))} or a "
            f"model of timm, such as resnet18; got '{architecture[:100]}'. Choose one of them."
        )


def is_own(architecture: str) -> bool:
    """Whether the network is built here rather than by a library."""
    return architecture in _OWN


def has_encoder(network: Network) -> bool:
    """Whether a part of it is an encoder of segmentation-models-pytorch, ``inner.encoder`` of the network."""
    if network.architecture == FUSION:
        return bool(network.options.get("reference", True))
    return network.architecture in SEGMENTATION


def name_in_timm(network: Network) -> str:
    """What timm calls the network, or its encoder; empty where it is not of timm."""
    if not has_encoder(network):
        own = is_own(network.architecture) or network.architecture == FUSION
        return "" if own else CLASSIFIERS.get(network.architecture, network.architecture).partition(".")[0]
    segmentation = library("segmentation_models_pytorch", f"The architecture '{network.architecture}'")
    name = _encoder_name(segmentation, network)
    return name.removeprefix("tu-").partition(".")[0] if name.startswith("tu-") else ""


def stride(network: Network) -> int:
    """Rows and columns of the input are padded to multiples of this many cells.

    Of the fusion network they are those of a patch, whatever it has to be padded to.
    """
    if network.architecture == FUSION or is_own(network.architecture):
        return 1
    return _sides(network).multiple if has_encoder(network) else STRIDE


def largest(network: Network) -> tuple[int, int] | None:
    """Rows and columns of the largest picture that a network per cell can be shown; None for any."""
    side = _sides(network).largest if has_encoder(network) else None
    return (side, side) if side else None


def build(network: Network) -> nn.Module:
    """A network with random weights.

    Its input is (N, bands, rows, cols) of any size from one cell, or for the fusion network ``Inputs``; it gives
    logits, (N, classes, rows, cols) or (N, classes).

    Raises:
        DeepLearningError: unknown architecture, encoder or option value, or too large for any machine.
        MissingPackage: the library of the architecture is not installed.
    """
    if network.architecture in _OWN:
        return _OWN[network.architecture](network)
    if network.architecture == FUSION:
        return _fusion(network)
    if network.architecture in SEGMENTATION:
        return _segmentation(network)
    return _classifier(network)


def outlined(network: Network) -> nn.Module:
    """The network without memory for its weights, on the device ``meta``; for names and shapes.

    Raises:
        DeepLearningError, MissingPackage: as in :func:`build`.
    """
    return in_outline(lambda: build(network))


def in_outline(make: Callable[[], nn.Module]) -> nn.Module:
    """A network that a function makes, without memory for its weights."""
    with torch.device("meta"), _Outlining():
        return quietly(make)


class _Outlining(TorchFunctionMode):
    """Draws no weights, which have no memory here, and has the sequences computed that some encoders turn into rates.

    On the device ``meta`` PyTorch draws random numbers by means of its compiler, which takes seconds to import.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function; on the CPU where it makes a sequence, nothing where it draws."""
        if function in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        kwargs = kwargs or {}
        return function(*args, **({**kwargs, "device": "cpu"} if function is torch.linspace else kwargs))


def trial(network: Network, size: tuple[int, int]) -> Tensor | Inputs:
    """Noise of one patch, of ``size`` but 64 x 64 cells at most: for a look at how a network computes."""
    return noise_of(network, 1, (min(size[0], _TRIAL_SIDE), min(size[1], _TRIAL_SIDE)))


def noise_of(network: Network, count: int, size: tuple[int, int]) -> Tensor | Inputs:
    """Noise in place of as many patches, with small windows of further sources."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((count, network.bands, *size), generator=generator)
    return noise(network, images, generator) if network.architecture == FUSION else images


def published(network: Network) -> Mapping[str, Tensor]:
    """Weights of ImageNet for a network of the libraries with three bands, under the library's names.

    The library's loader reads its cache, or downloads; its errors pass through. The last layer is left out.
    """
    if has_encoder(network):
        segmentation = library("segmentation_models_pytorch", f"The architecture '{network.architecture}'")
        name = _encoder_name(segmentation, network)
        if network.architecture != TRANSFORMER:
            weights: Any = True if name.startswith("tu-") else "imagenet"
            depth = unet_depth(network)
            return quietly(
                lambda: segmentation.encoders.get_encoder(name, in_channels=3, depth=depth, weights=weights)
            ).state_dict()
        network = replace(network, architecture=name.removeprefix("tu-"), options={})
    module = _of_timm(network, pretrained=True)
    head = module.pretrained_cfg["classifier"]
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(heads)}


class Padded(nn.Module):
    """A network whose input is padded at the lower and right edge, and whose scores per cell are cropped again.

    Pictures of a classifier that are too large are made smaller.

    Args:
        inner: network for inputs of some sides.
        sides: of these inputs.
        mode: padding of ``torch.nn.functional.pad``.
    """

    def __init__(self, inner: nn.Module, sides: Sides, mode: str) -> None:
        super().__init__()
        self.inner = inner
        self.sides = sides
        self.mode = mode

    def forward(self, images: Tensor | Inputs) -> Tensor:
        """Scores of images, or of several sources, of any size."""
        rows, cols = images.shape[-2:]
        scores = self.inner(self.enlarged(images) if isinstance(images, Inputs) else self.padded(images))
        return (
            scores[..., :rows, :cols] if scores.dim() == 4 and (self._missing(rows) or self._missing(cols)) else scores
        )

    def padded(self, images: Tensor) -> Tensor:
        """Images of a size that the inner network takes."""
        largest = self.sides.largest
        if largest and max(images.shape[-2:]) > largest:
            size = (min(images.shape[-2], largest), min(images.shape[-1], largest))
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        below, right = self._missing(images.shape[-2]), self._missing(images.shape[-1])
        return functional.pad(images, (0, right, 0, below), mode=self.mode) if below or right else images

    def enlarged(self, inputs: Inputs) -> Inputs:
        """Several sources with a reference of a size that the inner network takes."""
        return enlarged(inputs, self.padded(inputs.images))

    def _missing(self, cells: int) -> int:
        return self.sides.enough(cells) - cells


class Mixed(Padded):
    """A network of few bands, which a layer before it mixes from all of them."""

    def __init__(self, inner: nn.Module, sides: Sides, mode: str, mixing: nn.Module) -> None:
        super().__init__(inner, sides, mode)
        self.mixing = mixing

    def padded(self, images: Tensor) -> Tensor:
        """The mixed bands, of a size that the inner network takes."""
        return super().padded(self.mixing(images))


class PerCell(nn.Sequential):
    """A perceptron on the bands of each cell, as convolutions of one cell; any size of input."""

    def __init__(self, bands: int, classes: int, hidden: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Conv2d(bands, width, 1), nn.ReLU(inplace=True)]
            layers += [nn.Dropout(dropout)] if dropout else []
            bands = width
        super().__init__(*layers, nn.Conv2d(bands, classes, 1))


class MeanOfCells(nn.Module):
    """Scores of a patch: the mean of the scores of its cells."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes)."""
        return self.inner(images).mean(dim=(-2, -1))


class DilatedFCN(nn.Module):
    """Fully convolutional network of dilated convolutions without down-sampling.

    A block is a convolution, ReLU, batch normalisation and a maximum of 3 x 3 cells, all of the size of the
    input; the outputs of all blocks together give the scores. With other dilations it is the FCN-DK of Persello
    and Stein (2017, IEEE Geoscience and Remote Sensing Letters 14:2325).

    Args:
        kernels: rows and columns of the convolution, per block; odd.
        dilations: per block.
    """

    def __init__(
        self, bands: int, classes: int, filters: int, kernels: Sequence[int], dilations: Sequence[int]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for kernel, dilation in zip(kernels, dilations, strict=True):
            convolution = nn.Conv2d(bands, filters, kernel, padding="same", dilation=dilation)
            self.blocks.append(
                nn.Sequential(convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(filters), nn.MaxPool2d(3, 1, 1))
            )
            bands = filters
        self.head = nn.Conv2d(filters * len(kernels), classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes, rows, cols)."""
        outputs = []
        for block in self.blocks:
            images = block(images)
            outputs.append(images)
        return self.head(torch.cat(outputs, dim=1))


class SmallCNN(nn.Sequential):
    """A small classifier of patches: blocks of two 3 x 3 convolutions, each twice as wide as the one before."""

    def __init__(self, bands: int, classes: int, widths: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            for inputs in (bands, width):
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
                layers += [nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
            bands = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(bands, classes))


def _mlp(network: Network) -> nn.Module:
    recipe = recipes.Perceptron.of(network)
    module = PerCell(network.bands, network.classes, recipe.hidden, recipe.dropout)
    return MeanOfCells(module) if recipe.per_patch else module


def _cnn(network: Network) -> nn.Module:
    recipe = recipes.SmallCNN.of(network)
    return SmallCNN(network.bands, network.classes, recipe.widths, recipe.dropout)


def _fcn_dilated(network: Network) -> nn.Module:
    recipe = recipes.DilatedFCN.of(network)
    return DilatedFCN(network.bands, network.classes, recipe.filters, recipe.kernels, recipe.dilations)


_OWN: dict[str, Callable[[Network], nn.Module]] = {"mlp": _mlp, "cnn": _cnn, "fcn_dilated": _fcn_dilated}


def _encoder_name(segmentation: Any, network: Network) -> str:
    encoder = str(network.options.get("encoder", "resnet18"))
    if encoder in segmentation.encoders.encoders:
        return encoder
    name = encoder.removeprefix("tu-")
    if not _NAME.fullmatch(name) or not library("timm", f"The encoder '{encoder}'").is_model(name):
        raise DeepLearningError(
            f"The encoder must be one of segmentation-models-pytorch or a model of timm; '{encoder[:100]}' is not. "
            "Choose e.g. resnet18, resnet50 or efficientnet-b0."
        )
    return f"tu-{name}"


def _sides(network: Network) -> Sides:
    """Of the input of a network with an encoder."""
    name = name_in_timm(network)
    multiple, most = multiple_of_encoder(name, unet_depth(network)), largest_of_encoder(name, _size(network))
    if network.architecture == TRANSFORMER:
        return Sides(multiple, multiple)
    return Sides(multiple, most or _SMALLEST.get(network.architecture, multiple), most)


def _segmentation(network: Network) -> nn.Module:
    return Padded(_of_segmentation(network, SEGMENTATION[network.architecture]), _sides(network), "replicate")


def _of_segmentation(network: Network, kind: str) -> Any:
    """A network of a class of segmentation-models-pytorch."""
    segmentation = library("segmentation_models_pytorch", f"The architecture '{network.architecture}'")
    encoder, depth = _encoder_name(segmentation, network), unet_depth(network)
    steps = of_encoder(name, _size(network)) if (name := name_in_timm(network)) else {}
    if network.architecture == TRANSFORMER:
        steps = {"dynamic_img_size": True}
    if depth != DEEPEST:
        steps["encoder_depth"] = depth
        if network.architecture != "linknet":
            steps["decoder_channels"] = DECODER_WIDTHS[-depth:]
    try:
        return quietly(
            lambda: getattr(segmentation, kind)(
                encoder_name=encoder,
                encoder_weights=None,
                in_channels=network.bands,
                classes=network.classes,
                **steps,
            )
        )
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise DeepLearningError(
            f"The encoder must be one that '{network.architecture}' can use; '{encoder}' is not "
            f"({first_line(error)}). Choose e.g. {_SUITABLE.get(network.architecture, _USUAL)}."
        ) from error


def _fusion(network: Network) -> nn.Module:
    recipe = Fusing.of(network)
    if not recipe.reference:
        kind = FusedPatches(recipe, network.classes, None) if recipe.per_patch else FusedCells(recipe, network.classes)
        return Padded(kind, Sides(1, 1), "replicate")
    inner, sides = _of_segmentation(network, FUSION_DECODER), _sides(network)
    if recipe.per_patch:
        return Padded(FusedPatches(recipe, network.classes, inner.encoder), sides, "replicate")
    return Padded(FusedUnet(recipe, inner), sides, "replicate")


def _classifier(network: Network) -> nn.Module:
    inner, arguments = _of_timm(network, pretrained=False), _timm_arguments(network)
    sides = sides_of_classifier(name_in_timm(network), arguments)
    if arguments["in_chans"] != network.bands:
        return Mixed(inner, sides, "constant", nn.Conv2d(network.bands, arguments["in_chans"], 1))
    return Padded(inner, sides, "constant")


def _of_timm(network: Network, pretrained: bool) -> Any:
    timm = library("timm", f"The architecture '{network.architecture}'")
    arguments = _timm_arguments(network)
    name = CLASSIFIERS.get(network.architecture, network.architecture)
    try:
        return quietly(lambda: timm.create_model(name, pretrained=pretrained, **arguments))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if pretrained:
            raise
        raise DeepLearningError(
            f"The architecture must accept {network.bands} bands and patches of any size; '{network.architecture}' "
            f"does not ({first_line(error)}). Choose another one, such as resnet18."
        ) from error


def _timm_arguments(network: Network) -> dict[str, Any]:
    check_name(network.architecture)
    timm = library("timm", f"The architecture '{network.architecture}'")
    name = CLASSIFIERS.get(network.architecture, network.architecture)
    bands = 3 if _OF_THREE_BANDS.match(name) else network.bands
    arguments: dict[str, Any] = {"in_chans": bands, "num_classes": network.classes}
    arguments["drop_rate"] = share(network.options.get("dropout", 0.0))
    return arguments | of_classifier(name, timm.get_pretrained_cfg(name), _size(network))


def _size(network: Network) -> tuple[int, int]:
    """Rows and columns of the patches that it learns from."""
    sides = [whole(side, "size", _LARGEST_SIDE) for side in listed(network.options.get("size", [224, 224]), "size")]
    return sides[0], sides[-1]


def first_line(error: Exception) -> str:
    """The beginning of what a library says, for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
