#!/usr/bin/env python3
"""The training loop against its own step on a fixed batch, and the loader alone.

    benchmarks/training.py [patches, default 4000] [device, default auto] [steps of an epoch, default 24]

Patches are 64 x 64 cells of five 16-bit bands. Prints patches per second of the loader; how memory grows with the
number of patches; and samples per second of the loop and of the same step repeated on one batch, in turns, with the
median of their ratios. An epoch of 24 steps is the shortest that the default batch size leaves where there are enough
patches; what is done once per epoch, above all the checkpoint, weighs most then. Other programs disturb both alike,
but leave the machine alone for the figures themselves.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "testsuite"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import numpy as np
from rlearndeep.backends import get_backend
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.tasks import ClassTask
from rlearndeep.model import Network
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from session import arguments
from synthetic_patches import CLASSES, make_patches

BATCH = 32
ARCHITECTURES = ("unet", "mlp")  # a heavy step, and one that hides nothing
LOADED = 64
STEPS = 24
PAIRS = 4
TURNS = 5
THREADS = os.cpu_count() or 1
REST = 1.0  # seconds in which a checkpoint is written


def training_part(patches: Path, count: int | None = None) -> Part:
    """The training part, or some of its patches."""
    sites = Sites.of([PatchDataset.open(patches)])
    part = sites.part("training", Normalization.from_statistics("band", sites.statistics))
    return part.sample(count) if count else part


def prepared(part: Part, architecture: str, device: str) -> tuple[Network, Settings]:
    """A network and how to train it."""
    settings = Settings(
        architecture=architecture, epochs=2 * PAIRS, batch_size=BATCH, device=device, augment=("none",), nprocs=THREADS
    )
    settings = resolved(settings, "cell", part.read(np.arange(1))[0].shape[-2:], len(part))
    return Network(architecture, 5, len(CLASSES), dict(settings.network or {})), settings


def pairs(part: Part, architecture: str, device: str) -> list[tuple[float, float]]:
    """Seconds of an epoch of the loop, and of as many plain steps right after it, several times.

    The loop reads, normalises, steps, and writes history and checkpoint. It is timed in every second epoch, in which
    the checkpoint of the epoch before is still being written; the plain steps begin when all is written.
    """
    network, settings = prepared(part, architecture, device)
    steps = plain(part, network, device)
    times: list[float] = []
    found: list[tuple[float, float]] = []

    def after(row: dict[str, Any]) -> None:
        times.append(time.perf_counter())
        if row["epoch"] % 2 == 0:
            time.sleep(REST)
            found.append((times[-1] - times[-2], steps(len(part) // BATCH)))

    with tempfile.TemporaryDirectory() as folder:
        get_backend("torch").fit(
            network,
            part,
            None,
            settings,
            task="class",
            target=None,
            class_weights=np.ones(len(CLASSES)),
            spread=np.ones(5),
            measure=ClassTask(CLASSES).measure,
            folder=Path(folder),
            progress=after,
            warn=print,
        )
    return found


def plain(part: Part, network: Network, device: str) -> Callable[[int], float]:
    """Plain PyTorch: a function that takes the same step so often on one batch on the device; seconds."""
    import torch
    from rlearndeep.backends.torch.devices import choose_device
    from torch.nn import functional

    place = choose_device(device)
    torch.manual_seed(1)
    module = get_backend("torch").build(network).to(place, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(module.parameters(), 0.001, fused=True if place.type == "cpu" else None)
    images, labels = (torch.from_numpy(array).to(place) for array in part.read(np.arange(BATCH)))
    images = images.contiguous(memory_format=torch.channels_last)
    low = torch.autocast("cuda", torch.bfloat16, enabled=place.type == "cuda" and torch.cuda.is_bf16_supported())

    def steps(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            optimizer.zero_grad()
            with low:
                loss = functional.cross_entropy(module(images), labels, ignore_index=-1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
        if place.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    steps(2)
    return steps


def loader(part: Part) -> float:
    """Patches per second of random batches, nothing done with them."""
    start = time.perf_counter()
    count = sum(len(values) for values, _, _ in part.raw_batches(LOADED, (1, 0)))
    return count / (time.perf_counter() - start)


def own_memory(patches: Path, count: int) -> float:
    """Peak memory in MB, without pages of files, of a process that reads epochs of some of the patches."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import training, pathlib\n"
        f"part = training.training_part(pathlib.Path({str(patches)!r}), {count})\n"
        "print(max(training.loader(part) * 0 + training.anonymous() for _ in range(3)))"
    )
    return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def anonymous() -> float:
    """Memory in MB that is this process's own; pages of memory-mapped files belong to the system."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def main(count: int, device: str, steps: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        patches = Path(directory) / "patches"
        make_patches(patches, size=64, count=count, bands=5, shares=(1.0, 0.0, 0.0))
        part = training_part(patches)
        loader(part)
        rate = statistics.median(loader(part) for _ in range(TURNS))
        print(f"loader alone, {LOADED} of {count} patches at a time: {rate:,.0f} /s")
        few, all_ = (own_memory(patches, number) for number in (count // 8, count))
        print(f"memory of its own with {count // 8} and {count} patches: {few:.0f} and {all_:.0f} MB")
        some = part.sample(steps * BATCH)
        for architecture in ARCHITECTURES:
            found = pairs(some, architecture, device)
            looped, alone = (statistics.median(values) for values in zip(*found, strict=True))
            ratio = statistics.median(other / one for one, other in found)
            rates = f"loop {len(some) / looped:.1f}, plain step {len(some) / alone:.1f} samples/s"
            print(f"{architecture}, epochs of {steps} steps: {rates}; loop / plain {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main(**arguments(__doc__, count=4000, device="auto", steps=STEPS))
