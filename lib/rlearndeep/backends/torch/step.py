"""One step of training on noise: whether a network of the libraries works with patches of a size at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlearndeep.backends.machine import is_out_of_memory
from rlearndeep.backends.torch.feeding import Batch, laid_out, module_laid_out
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.backends.torch.machinery import quietly
from rlearndeep.backends.torch.networks import build, first_line, has_encoder, largest, noise_of, stride
from rlearndeep.backends.torch.striding import without_steps
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

# Batch normalisation needs two.
_PATCHES = 2

# What the code of networks raises when it meets a size that it was not written for.
_FAILURES = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


def check_step(
    network: Network, task: str, size: tuple[int, int], loss: str, device: torch.device, dtype: torch.dtype
) -> None:
    """Compute the gradients of a loss of two patches, and with an encoder the scores of a larger picture too.

    Args:
        network: what to build; its weights are random.
        task: what a label says, one of ``TASKS``.
        size: rows and columns of a patch.
        loss: of ``loss=``.
        device: to compute on.
        dtype: of autocast; 32-bit floating point is none.

    Raises:
        DeepLearningError: the network does not work with such patches, or they do not fit the memory.
    """
    module = without_steps(build(network))
    try:
        with quietly(device), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            module = module_laid_out(module.to(device))
            _learn(module.train(), network, task, size, loss, device)
            if has_encoder(network) and not largest(network):
                _look_further(module.eval(), network, size, device)
    except _FAILURES as error:
        if isinstance(error, DeepLearningError):
            raise
        raise _refused(network, size, device, error) from error


def _learn(
    module: nn.Module, network: Network, task: str, size: tuple[int, int], loss: str, device: torch.device
) -> None:
    logits = module(_noise(network, _PATCHES, size, device))
    _check_shape(logits, _PATCHES, network, size)
    labels = _labels(logits, task)
    make_loss(loss, torch.ones(network.classes, device=device), task)(logits, labels).backward()
    module.zero_grad(set_to_none=True)


def _look_further(module: nn.Module, network: Network, size: tuple[int, int], device: torch.device) -> None:
    """Maps are made from larger pictures than patches where that serves them."""
    step = max(1, stride(network))
    larger = (size[0] + step, size[1] + step)
    with torch.no_grad():
        _check_shape(module(_noise(network, 1, larger, device)), 1, network, larger)


def _noise(network: Network, count: int, size: tuple[int, int], device: torch.device) -> Batch:
    batch = noise_of(network, count, size)
    return laid_out(batch.to(device) if isinstance(batch, Tensor) else batch.map(lambda tensor: tensor.to(device)))


def _labels(logits: Tensor, task: str) -> Tensor:
    """Labels that say the same everywhere."""
    if task == "presence":
        return torch.zeros_like(logits, dtype=torch.int64)
    return torch.zeros_like(logits[:, 0], dtype=torch.float32 if task == "value" else torch.int64)


def _check_shape(logits: Tensor, count: int, network: Network, size: tuple[int, int]) -> None:
    shape = tuple(logits.shape)
    if shape not in ((count, network.classes), (count, network.classes, *size)):
        raise ValueError(f"scores of shape {shape}")


def _refused(network: Network, size: tuple[int, int], device: torch.device, error: Exception) -> DeepLearningError:
    encoder = network.options.get("encoder") if has_encoder(network) else None
    title = f"'{network.architecture}'" + (f" with encoder={encoder}" if encoder else "")
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return DeepLearningError(
            f"The network and {_PATCHES} patches must fit the memory of {device}; {title} and patches of {size[0]} x "
            f"{size[1]} cells do not. Choose a smaller network, or patches of a smaller size=."
        )
    way_out = (
        "encoder=, such as resnet18" if encoder else "architecture=, such as resnet18, or patches of another size="
    )
    return DeepLearningError(
        f"A network must work with patches of {size[0]} x {size[1]} cells{' and larger pictures' if encoder else ''}; "
        f"{title} does not ({first_line(error)}). Choose another {way_out}."
    )
