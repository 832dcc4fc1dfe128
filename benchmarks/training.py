#!/usr/bin/env python3
"""The training loop against its own step on a fixed batch, and the loader alone.

    benchmarks/training.py [patches, default 4000] [device, default auto]

Patches are 64 x 64 cells of five 16-bit bands. Prints samples per second of the loop and of the same step repeated
on one batch, in turns; patches per second of the loader; and how memory grows with the number of patches.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
from synthetic_patches import CLASSES, make_patches

BATCH = 32
LOADED = 64
STEPS = 24
EPOCHS = 3
TURNS = 3


def training_part(patches: Path, count: int | None = None) -> Part:
    """The training part, or some of its patches."""
    sites = Sites.of([PatchDataset.open(patches)])
    part = sites.part("training", Normalization.from_statistics("band", sites.statistics))
    return part.sample(count) if count else part


def loop(part: Part, architecture: str, device: str) -> float:
    """Samples per second of whole epochs but the first: reading, normalising, steps, history, checkpoint."""
    settings = Settings(architecture=architecture, epochs=EPOCHS, batch_size=BATCH, device=device, augment=("none",))
    settings = resolved(settings, "cell", (64, 64), len(part))
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        get_backend("torch").fit(
            Network(architecture, 5, len(CLASSES), dict(settings.network or {})),
            part,
            None,
            settings,
            task="class",
            target=None,
            class_weights=np.ones(len(CLASSES)),
            spread=np.ones(5),
            measure=ClassTask(CLASSES).measure,
            folder=Path(folder),
            progress=lambda row: seconds.append(time.perf_counter()),
            warn=print,
        )
    return len(part) * (EPOCHS - 1) / (seconds[-1] - seconds[0])


def step(part: Part, architecture: str, device: str) -> float:
    """Samples per second of plain PyTorch: the same step again and again on one batch that is on the device."""
    import torch
    from rlearndeep.backends.torch.devices import choose_device
    from torch.nn import functional

    torch.manual_seed(1)
    place = choose_device(device)
    settings = resolved(Settings(architecture=architecture), "cell", (64, 64), len(part))
    network = Network(architecture, 5, len(CLASSES), dict(settings.network or {}))
    module = get_backend("torch").build(network).to(place, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(module.parameters(), 0.001)
    images, labels = (torch.from_numpy(array).to(place) for array in part.read(np.arange(BATCH)))
    images = images.contiguous(memory_format=torch.channels_last)
    low = torch.autocast("cuda", torch.bfloat16, enabled=place.type == "cuda" and torch.cuda.is_bf16_supported())
    number = len(part) // BATCH
    for repetition in range(number + 2):
        if repetition == 2:  # the first ones warm up
            start = time.perf_counter()
        optimizer.zero_grad()
        with low:
            loss = functional.cross_entropy(module(images), labels, ignore_index=-1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
    if place.type == "cuda":
        torch.cuda.synchronize()
    return number * BATCH / (time.perf_counter() - start)


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


def main(count: int, device: str) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        patches = Path(directory) / "patches"
        make_patches(patches, size=64, count=count, bands=5, shares=(1.0, 0.0, 0.0))
        part = training_part(patches)
        loader(part)
        print(f"loader alone, {LOADED} of {count} patches at a time: {max(loader(part) for _ in range(TURNS)):,.0f} /s")
        few, all_ = (own_memory(patches, number) for number in (count // 8, count))
        print(f"memory of its own with {count // 8} and {count} patches: {few:.0f} and {all_:.0f} MB")
        some = part.sample(STEPS * BATCH)
        for architecture in ("unet", "fcn_dilated"):
            rates = [(loop(some, architecture, device), step(some, architecture, device)) for _ in range(TURNS)]
            looped, plain = (statistics.median(values) for values in zip(*rates, strict=True))
            ratio = statistics.median(one / other for one, other in rates)
            print(f"{architecture}: loop {looped:.1f}, plain step {plain:.1f} samples/s; ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000, sys.argv[2] if len(sys.argv) > 2 else "auto")
