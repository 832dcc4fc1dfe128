"""Weights that the libraries of networks publish."""

from __future__ import annotations

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from rlearndeep.backends.fusing import FUSION
from rlearndeep.backends.torch.libraries import library
from rlearndeep.backends.torch.networks import CLASSIFIERS, has_encoder, is_own, published
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

_PATIENCE = 5.0  # seconds

_FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")

# segmentation-models-pytorch does not say it in a form that a program could read.
_TERMS_OF_ENCODERS = {
    "mit_b": "NVIDIA Source Code License for SegFormer, non-commercial",
    "mobileone_s": "mobileone-license",
}


def imagenet_weights(network: Network) -> tuple[Mapping[str, Tensor], str]:
    """Weights of a network's twin for red, green and blue, and their licence where it is not free.

    The library's own loader fetches them, or finds them in its cache.

    Raises:
        DeepLearningError: there are none, or they are neither in the cache nor to be fetched.
        MissingPackage: the library is not installed.
    """
    if is_own(network.architecture) or (network.architecture == FUSION and not has_encoder(network)):
        raise DeepLearningError(
            f"ImageNet weights exist for networks of the libraries; '{network.architecture}' is not one of them. "
            "Choose another architecture=, weights=none, or the directory of a model."
        )
    name, place, licence = _published(network)
    try:
        with _short_of_waiting():
            state = published(replace(network, bands=3))
    except DeepLearningError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _not_to_be_had(name, place, error) from error
    return state, licence


@contextmanager
def _short_of_waiting() -> Iterator[None]:
    """Without a connection only the cache is read: the library would try for most of a minute."""
    from huggingface_hub import constants

    talkative = logging.getLogger("huggingface_hub")
    level, offline = talkative.level, constants.HF_HUB_OFFLINE
    talkative.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        talkative.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def _is_reachable(address: str) -> bool:
    host = urllib.parse.urlparse(address)
    if urllib.request.getproxies():
        return True  # the proxy finds the host, we need not
    try:
        socket.create_connection((host.hostname or "", host.port or 443), _PATIENCE).close()
    except OSError:
        return False
    return True


def _published(network: Network) -> tuple[str, str, str]:
    """Name in the library, file in its repository, and licence of what ``imagenet`` means."""
    encoder = str(network.options.get("encoder", "resnet18"))
    if has_encoder(network):
        segmentation = library("segmentation_models_pytorch", f"The architecture '{network.architecture}'")
        if encoder in segmentation.encoders.encoders:
            settings = segmentation.encoders.encoders[encoder].get("pretrained_settings", {})
            if "imagenet" not in settings:
                raise _none_published(encoder)
            terms = [text for begin, text in _TERMS_OF_ENCODERS.items() if encoder.startswith(begin)]
            return encoder, f"model.safetensors of {settings['imagenet']['repo_id']}", "".join(terms)
        name = encoder.removeprefix("tu-")
    else:
        name = network.architecture
    return _of_timm(name)


def _of_timm(name: str) -> tuple[str, str, str]:
    timm = library("timm", f"ImageNet weights of '{name}'")
    name = CLASSIFIERS.get(name, name)
    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise _none_published(name)
    stated = str(config.license or "not stated").lower()
    licence = "" if stated in _FREE else str(config.license or "not stated by the library")
    return name, f"{config.hf_hub_filename or 'model.safetensors'} of {config.hf_hub_id or config.url}", licence


def _none_published(name: str) -> DeepLearningError:
    return DeepLearningError(
        f"ImageNet weights must be published by the library; there are none for '{name}'. Choose another encoder= or "
        "architecture=, or weights=none."
    )


def _not_to_be_had(name: str, place: str, error: Exception) -> DeepLearningError:
    from huggingface_hub.constants import HF_HUB_CACHE

    reason = type(error).__name__
    return DeepLearningError(
        f"The ImageNet weights of '{name}' must be in the cache or to be downloaded; neither worked ({reason}). On a "
        f"computer with internet, fetch the file {place.rsplit('/', 2)[-1] if '://' in place else place} and give it "
        f"as weights=FILE, or let it be cached there and copy the cache to '{HF_HUB_CACHE}'."
    )
