"""Networks rewritten for prediction: the same answers, and nothing touched that cannot be traced."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from processor import KERNELS_IN_BFLOAT16
from rlearndeep.backends.torch import activations, networks, perceptron
from rlearndeep.backends.torch.activations import ActivatedConvolution
from rlearndeep.backends.torch.features import captured, head_name
from rlearndeep.backends.torch.folding import fold_batch_norm
from rlearndeep.backends.torch.perceptron import CachedPerceptron
from rlearndeep.backends.torch.rewriting import rewrite
from rlearndeep.backends.torch.upsampling import DoublingConvolution, UpsampledConvolution
from rlearndeep.model import Network
from torch import Tensor, nn
from torch.nn import functional

TRIAL = torch.randn((1, 3, 24, 20), generator=torch.Generator().manual_seed(1))
LARGER = torch.randn((2, 3, 40, 52), generator=torch.Generator().manual_seed(2))


class Residual(nn.Module):
    """One ReLU in two places, one of them behind a sum, as in residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.relu(self.first(images))
        return self.relu(images + self.second(inner))


class Shared(Residual):
    """What one convolution gives is used twice, so it must stand before ReLU and after it; the other may be joined."""

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        return self.relu(self.second(functional.relu(values))) + values


class Twice(Residual):
    """One convolution runs twice, once with ReLU behind it."""

    def forward(self, images: Tensor) -> Tensor:
        return self.first(self.relu(self.first(images)))


class BySize(Residual):
    """What it does depends on the size of the image; its parts can be traced, itself not."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        values = self.part(images)
        return values.flip(-1) if images.shape[-1] > 30 else values


class Asked(nn.Module):
    """Its surroundings ask for more of it than its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.part = BlockWithWidth()

    def forward(self, images: Tensor) -> Tensor:
        return self.part(images) if self.part.width == 3 and images.shape[0] else images


class BlockWithWidth(Residual):
    @property
    def width(self) -> int:
        return 3


class BlockWithSkip(Residual):
    def forward(self, images: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.relu(self.first(images if skip is None else images + torch.cat([skip])))


class WithoutSkip(nn.Module):
    """While it is traced, a part takes for given what it does not get, and fails aloud when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.part = BlockWithSkip()

    def forward(self, images: Tensor) -> Tensor:
        return self.part(images) if images.shape[0] else images


class ByType(Residual):
    """While it is traced, it takes its input for no tensor, and does something else."""

    def forward(self, images: Tensor) -> Tensor:
        values = self.relu(self.first(images))
        return values if isinstance(images, Tensor) else values * 2


def activated(module: nn.Module) -> int:
    return sum(isinstance(layer, ActivatedConvolution) for layer in module.modules())


def doubling(module: nn.Module) -> int:
    return sum(isinstance(layer, DoublingConvolution) for layer in module.modules())


def rewritten(module: nn.Module) -> nn.Module:
    """The rewritten module, after a look whether it answers as before, and whether the module was left alone."""
    module = module.eval().requires_grad_(False)
    before = copy.deepcopy(module)
    found = rewrite(module, TRIAL)
    for images in (TRIAL, LARGER, LARGER.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(found(images), before(images), rtol=1e-5, atol=5e-5)
        torch.testing.assert_close(module(images), before(images), rtol=0, atol=0)
    return found


@pytest.mark.parametrize(
    ("architecture", "options", "least", "doubled"),
    (
        ("mlp", {"hidden": [8, 8]}, 2, 0),
        ("cnn", {}, 3, 0),
        ("resnet18", {}, 17, 0),
        ("unet", {"encoder": "resnet18"}, 27, 5),
        ("unet", {"encoder": "efficientnet-b0"}, 10, 5),
        ("unetplusplus", {"encoder": "resnet18"}, 22, 11),
        ("deeplabv3plus", {"encoder": "resnet18"}, 25, 0),
        ("fpn", {"encoder": "resnet18"}, 16, 0),
        ("convnext_atto", {}, 0, 0),
    ),
)
def test_a_network_answers_as_before(architecture: str, options: dict, least: int, doubled: int) -> None:
    torch.manual_seed(1)
    module = networks.build(Network(architecture, 3, 4, options)).eval()
    found = rewritten(fold_batch_norm(module, TRIAL))
    assert activated(found) >= least
    assert doubling(found) == doubled


@pytest.mark.parametrize(
    ("kind", "count"), ((Residual, 2), (Shared, 1), (Twice, 0), (BySize, 1), (Asked, 0), (WithoutSkip, 0), (ByType, 0))
)
def test_only_what_may_be_joined_is_joined(kind: type[nn.Module], count: int, capfd: pytest.CaptureFixture) -> None:
    torch.manual_seed(1)
    assert activated(rewritten(kind())) == count
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", ({"padding_mode": "reflect", "padding": 1}, {"padding": "same"}))
def test_padding_that_the_kernel_does_not_know_stays(options: dict) -> None:
    torch.manual_seed(1)
    assert activated(rewritten(nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.ReLU()))) == 0


@pytest.mark.parametrize("kind", [Residual, lambda: networks.PerCell(3, 4, (8,), 0.0)])
def test_without_the_kernel_a_network_stays_as_it_is(kind: Callable, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    class Nothing:
        mkldnn = None

    monkeypatch.setattr(activations.torch, "ops", Nothing)
    module = kind().eval()
    assert rewrite(module, TRIAL) is module
    assert capfd.readouterr().err == ""


class Decoder(nn.Module):
    """Enlarged features, others beside them, a convolution and ReLU.

    Args:
        size: of the enlarged features, by the size of the others; None for the double by a factor.
        ways: to join and to enlarge, other than the usual.
    """

    def __init__(self, beside: int = 1, size: Callable | None = None, kernel: int = 3, **ways) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.joined = nn.Conv2d(4 + 3 * beside, 5, kernel, padding=kernel // 2, bias=ways.pop("bias", True))
        self.beside, self.size = beside, size
        self.order, self.ways = ways.pop("order", 1), ways

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.first(images))
        how = {"size": self.size(images)} if self.size else {"scale_factor": 2.0}
        features = functional.interpolate(features, **how | self.ways)
        parts = [features, *[images] * self.beside][:: self.order]
        return functional.relu(self.joined(torch.cat(parts, 1) if self.beside else features))


def as_large(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


@pytest.mark.parametrize("beside", (0, 1, 2))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("size", (None, as_large))
def test_a_convolution_enlarges_what_it_takes(beside: int, bias: bool, size: Callable | None) -> None:
    torch.manual_seed(1)
    found = rewritten(Decoder(beside, size, bias=bias))
    assert doubling(found) == 1
    assert not any(node.target is functional.interpolate for node in found.graph.nodes)


@pytest.mark.parametrize(
    "ways", ({"kernel": 5}, {"order": -1}, {"mode": "bilinear"}, {"scale_factor": 4.0, "beside": 0}, {"kernel": 1})
)
def test_what_is_not_a_doubling_before_a_convolution_stays(ways: dict) -> None:
    torch.manual_seed(1)
    found = rewritten(Decoder(**ways))
    assert (activated(found), doubling(found)) == (2, 0)


def test_features_that_are_not_enlarged_to_the_double_are_convolved_as_they_are() -> None:
    torch.manual_seed(1)
    found = rewritten(Decoder(0, lambda images: (images.shape[2] + 2, images.shape[3])))
    assert any(isinstance(layer, UpsampledConvolution) for layer in found.modules())
    assert doubling(found) == 0


def test_features_that_are_joined_by_their_rows_stay() -> None:
    class Rows(Decoder):
        def forward(self, images: Tensor) -> Tensor:
            larger = functional.interpolate(functional.relu(self.first(images)), scale_factor=2)
            return functional.relu(self.joined(torch.cat([larger, larger.flip(2)], 2)))

    torch.manual_seed(1)
    found = rewritten(Rows(0))
    assert (activated(found), doubling(found)) == (2, 0)


def test_features_that_others_take_too_stay_there_for_them() -> None:
    class Both(Decoder):
        def forward(self, images: Tensor) -> Tensor:
            larger = functional.interpolate(functional.relu(self.first(images)), scale_factor=2)
            return functional.relu(self.joined(larger)) * larger.sum(1, keepdim=True)

    torch.manual_seed(1)
    assert doubling(rewritten(Both(0))) == 1


@pytest.mark.parametrize("shape", [(1, 3, 40, 52), (2, 3, 25, 13), (5, 3, 4, 4), (1, 3, 1, 1), (1, 3, 1, 130)])
def test_a_perceptron_answers_some_cells_after_the_others(monkeypatch: pytest.MonkeyPatch, shape: tuple) -> None:
    monkeypatch.setattr(perceptron, "_CELLS_PER_THREAD", 100 // torch.get_num_threads())
    torch.manual_seed(1)
    plain = networks.PerCell(3, 4, (16, 8), 0.1).eval().requires_grad_(False)
    found = rewritten(plain)
    assert isinstance(found, CachedPerceptron)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found(images), plain(images), rtol=1e-5, atol=1e-5)
    name = head_name(plain, TRIAL)
    assert head_name(found, TRIAL) == name
    with captured([plain, found], name) as features:
        plain(images)
        expected = features[0].clone()
        answers = found(images)
    torch.testing.assert_close(features[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers, plain(images), rtol=1e-5, atol=1e-5)


@KERNELS_IN_BFLOAT16
def test_a_rewritten_network_computes_in_bfloat16_what_autocast_makes_of_the_plain_one() -> None:
    torch.manual_seed(1)
    plain = nn.Sequential(Residual(), Decoder(), nn.Conv2d(5, 4, 1)).eval().requires_grad_(False)
    found = copy.deepcopy(rewrite(plain, TRIAL))
    assert activated(found) >= 4
    assert doubling(found) == 1
    for layer in found.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(torch.bfloat16)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low, expected = found(images), plain(images)
    assert low.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected.float(), rtol=0.05, atol=0.05)
