"""Devices and precision."""

from __future__ import annotations

from rlearndeep.backends.keras.engine import ENGINE, keras
from rlearndeep.backends.machine import PRECISIONS, has_fast_bfloat16
from rlearndeep.errors import DeepLearningError

# PyTorch takes cpu:0 for another device than the one where its tensors are, and copies them.
_CPU = "cpu" if ENGINE == "torch" else "cpu:0"

POLICIES = {"32": "float32", "bf16": "mixed_bfloat16", "16": "mixed_float16"}
"""What Keras calls the precisions."""


def choose_device(name: str) -> str:
    """Keras' name of the device of a ``device=`` value: auto, cpu, cuda or cuda:N, e.g. ``gpu:0``.

    Raises:
        DeepLearningError: no such device for the engine on this machine.
    """
    gpus = _gpus()
    if name == "cpu" or (name == "auto" and not gpus):
        return _CPU
    kind, _, number = name.partition(":")
    index = int(number) if number.isdigit() else 0
    if (name == "auto" or (kind == "cuda" and (not number or number.isdigit()))) and index < gpus:
        return f"gpu:{index}"
    names = ", ".join(["cpu", *(f"cuda:{index}" for index in range(gpus))])
    raise DeepLearningError(
        f"The device must exist on this machine for Keras with {ENGINE}; '{name}' was asked for, there are {names}. "
        "Choose one of them or device=auto."
    )


def _gpus() -> int:
    if ENGINE == "torch":
        import torch

        return torch.cuda.device_count()
    try:
        return len(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX without any
        return 0


def describe(device: str) -> str:
    """Text for messages, e.g. ``cpu (keras on tensorflow)``."""
    kind, _, index = device.partition(":")
    return f"{'cpu' if kind == 'cpu' else f'cuda:{index}'} (keras on {ENGINE})"


def choose_precision(name: str, device: str) -> str:
    """``32``, ``bf16`` or ``16`` of a ``precision=`` value; ``auto`` is bf16 where the CPU computes in it.

    Raises:
        DeepLearningError: no such precision on the device.
    """
    if name not in PRECISIONS:
        raise DeepLearningError(f"Precision must be one of {', '.join(PRECISIONS)}; got '{name}'. Choose one of them.")
    if name == "16" and device.startswith("cpu"):
        raise DeepLearningError("precision=16 needs a GPU; the device is cpu. Choose bf16 or 32.")
    if name == "auto":
        return "bf16" if device.startswith("cpu") and has_fast_bfloat16() else "32"
    return name


def choose_training_precision(name: str, device: str) -> str:
    """As :func:`choose_precision`, but ``auto`` trains in 32-bit floating point."""
    return choose_precision("32" if name == "auto" else name, device)
