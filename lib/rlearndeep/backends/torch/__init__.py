"""The PyTorch back-end; the functions here are the whole door."""

from __future__ import annotations

from rlearndeep.backends.torch.context import reach
from rlearndeep.backends.torch.fitting import Fitted, check, fit
from rlearndeep.backends.torch.networks import answers, build, stride
from rlearndeep.backends.torch.prediction import Predictor, load
from rlearndeep.backends.torch.weights import FILE, save, versions

__all__ = [
    "FILE",
    "Fitted",
    "Predictor",
    "answers",
    "build",
    "check",
    "fit",
    "load",
    "reach",
    "save",
    "stride",
    "versions",
]
