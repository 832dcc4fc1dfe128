"""Nested values of tensors as arrays, and back, for what both back-ends share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def as_arrays(value: Any) -> Any:
    """Dictionaries and lists with a copy of each tensor on the CPU as an array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format).numpy()
    if isinstance(value, dict):
        return {key: as_arrays(entry) for key, entry in value.items()}
    return [as_arrays(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def as_tensors(value: Any) -> Any:
    """Inverse of :func:`as_arrays`; tuples come back as lists."""
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, dict):
        return {key: as_tensors(entry) for key, entry in value.items()}
    return [as_tensors(entry) for entry in value] if isinstance(value, list) else value
