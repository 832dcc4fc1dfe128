"""What the processor under the tests has kernels for."""

from __future__ import annotations

import pytest
import torch
from rlearndeep.backends.torch.activations import ActivatedConvolution


def _has_kernels_in_bfloat16() -> bool:
    layer = ActivatedConvolution(1, 1, 1).to(torch.bfloat16)
    try:
        with torch.no_grad():
            layer(torch.zeros(1, 1, 8, 8))
    except RuntimeError:
        return False
    return True


KERNELS_IN_BFLOAT16 = pytest.mark.skipif(
    not _has_kernels_in_bfloat16(), reason="oneDNN's kernels in bf16 need AVX-512 or AMX, which this processor lacks"
)
