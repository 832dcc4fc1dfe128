"""Devices and precision."""

from __future__ import annotations

import torch

from rlearndeep.backends import machine
from rlearndeep.backends.machine import PRECISIONS
from rlearndeep.errors import DeepLearningError


def choose_device(name: str) -> torch.device:
    """The device of a ``device=`` value: auto, cpu, cuda, cuda:N or mps.

    Raises:
        DeepLearningError: no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind == "mps" and not number and torch.backends.mps.is_available():
        return torch.device("mps")
    if kind == "cuda" and torch.cuda.is_available() and (not number or number.isdigit()):
        index = int(number or 0)
        if index < torch.cuda.device_count():
            return torch.device("cuda", index)
    raise DeepLearningError(
        f"The device must exist on this machine; '{name}' was asked for, there are {', '.join(_devices())}. "
        "Choose one of them or device=auto."
    )


def _devices() -> list[str]:
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def describe(device: torch.device) -> str:
    """Text for messages, e.g. ``cpu`` or ``cuda:0 NVIDIA H200``."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return str(device)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type in which convolutions are computed, of a ``precision=`` value: auto, 32, bf16 or 16.

    ``auto`` is bf16 where the hardware computes in it, else 32-bit floating point.
    """
    if name not in PRECISIONS:
        raise DeepLearningError(f"Precision must be one of {', '.join(PRECISIONS)}; got '{name}'. Choose one of them.")
    if name == "16" and device.type == "cpu":
        raise DeepLearningError("precision=16 needs a GPU; the device is cpu. Choose bf16 or 32.")
    if name == "auto":
        name = "bf16" if has_fast_bfloat16(device) else "32"
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[name]


def multiply_in(dtype: torch.dtype, device: torch.device) -> None:
    """See that a GPU multiplies all of 32-bit numbers where ``dtype`` is that.

    PyTorch's convolutions round them to ten bits of mantissa (TF32) otherwise, so that a map differs from a CPU's.
    """
    if device.type == "cuda" and dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False


def has_fast_bfloat16(device: torch.device) -> bool:
    """True where bf16 is computed by the hardware rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and machine.has_fast_bfloat16()
