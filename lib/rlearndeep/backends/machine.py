"""What the processor and the C library of this machine allow, whatever the framework."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

_NO_MEMORY = ("out of memory", "allocate memory", "alloc_failed", "allocation_failed", "resource_exhausted")

PRECISIONS = ("auto", "32", "bf16", "16")

RARE_CHANGES = 0.005
"""bf16 is chosen unasked only where at most this share of the validation cells changed its class in training."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def cpu_pixels(architecture: str) -> int:
    """Cells of a batch on a CPU; more lose a quarter of the speed and up to half: activations no longer fit its caches.

    A perceptron keeps all its features for every cell.
    """
    return (64 if architecture == "mlp" else 256) * 1024


def has_fast_bfloat16() -> bool:
    """True where the processor computes in bf16 rather than emulating it."""
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


@functools.cache
def keep_memory() -> None:
    """Let the C library keep the memory of big tensors instead of returning it at each step.

    Mapping and unmapping them costs up to a third of the time of a forward pass. Without glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError, TypeError):
        return


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of any framework or its libraries, says that memory does not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError"):
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)
