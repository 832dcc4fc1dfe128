"""Convolutions of one cell with a step, whose gradients oneDNN fails at."""

from __future__ import annotations

import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.striding import without_steps
from rlearndeep.model import Network


@pytest.mark.parametrize(("channels", "size"), ((1, (8, 8)), (4, (16, 16)), (7, (9, 12)), (15, (16, 16))))
@pytest.mark.parametrize("step", (2, (2, 3)))
def test_a_thinned_convolution_has_the_answer_and_the_gradient_of_one_with_a_step(
    channels: int, size: tuple[int, int], step: int | tuple[int, int]
) -> None:
    torch.manual_seed(1)
    layer = without_steps(torch.nn.Conv2d(channels, 8, 1, step).to(memory_format=torch.channels_last))
    images = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last)
    answer = layer(images)
    answer.square().sum().backward()
    rows, cols = torch.nn.modules.utils._pair(step)
    seen = images[:, :, ::rows, ::cols]
    expected = torch.einsum("nchw,kc->nkhw", seen, layer.weight.detach()[:, :, 0, 0]) + layer.bias[:, None, None]
    torch.testing.assert_close(answer, expected)
    gradient = 2 * torch.einsum("nchw,nkhw->kc", seen, answer.detach())
    torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], gradient, rtol=1e-4, atol=1e-3)


def test_a_network_answers_as_before_under_the_same_names() -> None:
    network = Network("repvgg_a0", 4, 3, {"size": [32, 32]})
    torch.manual_seed(1)
    module, images = backend.build(network).eval(), torch.randn(2, 4, 32, 32)
    names = list(module.state_dict())
    with torch.no_grad():
        before = module(images)
        torch.testing.assert_close(without_steps(module)(images), before)
    assert list(module.state_dict()) == names
    assert module.inner.stem.conv_1x1.conv.stride == (1, 1) and module.inner.stem.conv_kxk.conv.stride == (2, 2)
