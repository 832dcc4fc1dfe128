#!/usr/bin/env python3
"""Training and prediction of a U-Net on a GPU, from array to array, and how busy the GPU is meanwhile; needs no GRASS.

    benchmarks/gpu.py [side of the square scene in cells, default 8000] [device, default cuda] [patches, default 768]

Training: samples per second of the loop and of the same step repeated on one batch, patches of 256 x 256 cells of five
bands. Prediction: seconds from an array of five bands to an array of classes, start-up and a first tile not counted.
"Busy" is the mean of what nvidia-smi samples; a device that it does not know, such as cpu, is said to be unknown.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "testsuite"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import numpy as np
import training
from prediction import BANDS, CLASSES, model_directory
from prediction_scenes import Scene, Sheet, job_of, region_at
from rlearndeep.backends import get_backend
from rlearndeep.prediction.answers import Member, Question, Subject
from rlearndeep.prediction.maps import Layer, Sheets
from rlearndeep.prediction.planning import make_plan, starts_per_chunk
from rlearndeep.prediction.stream import strips
from session import arguments
from synthetic_patches import make_patches

SIDE = 256
MEMORY = 8000
RUNS = 3
EVERY = 0.1  # seconds


class Busy:
    """Samples how busy the first GPU is while the ``with`` block runs."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._samples: list[float] = []

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{statistics.mean(self._samples):.0f} %" if self._samples else "unknown"

    def _watch(self) -> None:
        command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(EVERY):
            try:
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                self._samples.append(float(text))
            except (OSError, subprocess.CalledProcessError, ValueError):
                return


def train(place: Path, device: str, count: int) -> None:
    """Print the speed of the loop, of the step alone, and how busy the GPU is during both."""
    make_patches(place / "patches", size=SIDE, count=count, bands=BANDS, shares=(1.0, 0.0, 0.0))
    part = training.training_part(place / "patches")
    training.REST = 0.0  # a GPU that rests is not busy
    with Busy() as busy:
        found = training.pairs(part, "unet", device)
    looped, alone = (len(part) / statistics.median(values) for values in zip(*found, strict=True))
    ratio = statistics.median(other / one for one, other in found)
    print(f"training: loop {looped:.1f}, plain step {alone:.1f} samples/s; loop / plain {ratio:.3f}; busy {busy}")


def predict(place: Path, device: str, side: int) -> None:
    """Print the seconds of a map, and how busy the GPU is."""
    directory, card = model_directory(place, "unet", {"encoder": "resnet18"}, patch=(128, 128), stride=32, reach=32)
    predictor = get_backend("torch").load(directory, card, device, "auto")
    values = np.random.default_rng(0).integers(2000, 4000, (BANDS, side, side)).astype(np.float32)
    region, plan = region_at(0, 0, side, side), make_plan([card])
    question, layer = Question(Subject.of(card)), Layer("class")
    columns = starts_per_chunk(plan, region, BANDS, CLASSES, layer.bytes_kept(question.subject), MEMORY)
    predictor.predict(np.zeros((1, BANDS, *plan.input_size), dtype=np.float32))
    seconds = []
    with Busy() as busy:
        for _ in range(RUNS):
            start = time.perf_counter()
            member = Member(predictor, card, tuple(range(BANDS)))
            job = job_of(Scene(values, region), region, [member], plan, columns, question=question)
            Sheets(question, [(layer, Sheet())], np.ones(side), side, behind=1).write(strips(job))
            seconds.append(time.perf_counter() - start)
    print(
        f"prediction of {side} x {side} x {BANDS}, {predictor.device}, {predictor.precision}: "
        f"{statistics.median(seconds):.2f} s; busy {busy}"
    )


def main(side: int, device: str, patches: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        train(Path(directory), device, patches)
        predict(Path(directory), device, side)


if __name__ == "__main__":
    main(**arguments(__doc__, side=8000, device="cuda", patches=768))
