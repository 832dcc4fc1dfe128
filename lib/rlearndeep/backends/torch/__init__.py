"""The PyTorch back-end; the functions here are the whole door."""

from __future__ import annotations

from rlearndeep.backends.beginning import Target
from rlearndeep.backends.checkpoint import epochs_done
from rlearndeep.backends.running import Fitted
from rlearndeep.backends.torch.contrast import Encoder, Pretrained, check_pretraining, pretrain
from rlearndeep.backends.torch.fitting import check, fit
from rlearndeep.backends.torch.networks import answers, build, check_name, largest, stride
from rlearndeep.backends.torch.onnx import check_onnx, export_onnx
from rlearndeep.backends.torch.prediction import Predictor, load
from rlearndeep.backends.torch.transfer import Initial, initial_weights
from rlearndeep.backends.torch.weights import FILE, save, versions

__all__ = [
    "FILE",
    "Encoder",
    "Fitted",
    "Initial",
    "Predictor",
    "Pretrained",
    "Target",
    "answers",
    "build",
    "check",
    "check_name",
    "check_onnx",
    "check_pretraining",
    "epochs_done",
    "export_onnx",
    "fit",
    "initial_weights",
    "largest",
    "load",
    "pretrain",
    "save",
    "stride",
    "versions",
]
