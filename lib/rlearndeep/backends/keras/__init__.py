"""The Keras back-end; the functions here are the whole door."""

from __future__ import annotations

from rlearndeep.backends.beginning import Target
from rlearndeep.backends.checkpoint import epochs_done
from rlearndeep.backends.keras.fitting import check, check_pretraining, fit
from rlearndeep.backends.keras.module import build
from rlearndeep.backends.keras.networks import answers, check_name, largest, stride
from rlearndeep.backends.keras.onnx import check_onnx, export_onnx
from rlearndeep.backends.keras.prediction import Predictor, load
from rlearndeep.backends.keras.transfer import Initial, initial_weights
from rlearndeep.backends.keras.weights import FILE, save, versions
from rlearndeep.backends.running import Fitted

__all__ = [
    "FILE",
    "Fitted",
    "Initial",
    "Predictor",
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
    "save",
    "stride",
    "versions",
]
