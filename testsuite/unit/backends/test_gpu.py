"""A GPU does what a CPU does, where there is one. The other tests see none, so that they say the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VISIBLE_DEVICES

pytest.importorskip("torch")

TESTS = Path(__file__).with_name("on_a_gpu.py")


def _with_devices(device: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    shown = {} if VISIBLE_DEVICES is None else {"CUDA_VISIBLE_DEVICES": VISIBLE_DEVICES}
    return {**env, **shown, "RLEARNDEEP_TEST_DEVICE": device}


def _run(device: str, *chosen: str) -> None:
    """A process of its own: what it sees of the GPUs is settled when it first asks for them."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", str(TESTS), *chosen]
    done = subprocess.run(command, env=_with_devices(device), capture_output=True, text=True, check=False)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.timeout(3600)
def test_a_gpu_does_what_a_cpu_does() -> None:
    probe = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    found = subprocess.run(probe, env=_with_devices("cuda"), capture_output=True, text=True, check=True).stdout
    if found.strip() != "True":
        pytest.skip("PyTorch finds no CUDA device on this machine")
    _run("cuda")


def test_the_tests_of_a_gpu_hold_on_a_cpu() -> None:
    _run("cpu", "-k", "each_task_is_learned and not map or answers_as_on_a_cpu and (unet or cnn) or range_test")
