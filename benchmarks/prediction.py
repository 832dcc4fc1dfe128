#!/usr/bin/env python3
"""Prediction from rasters to rasters against the forward pass alone of the same network.

benchmarks/prediction.py [side of the square scene in cells, default 2048]

The networks have random weights, five bands and seven classes. "tiles" is what the forward pass alone would need
for the tiles that were computed; "cells" what it would need for the cells of the map, as if no tile overlapped.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from session import arguments, project, restart_with_libraries, square

BANDS = 5
CLASSES = 7
RUNS = 3


def model_directory(place: Path, architecture: str, options: dict, **card_values):
    """A model of random weights and its card."""
    from rlearndeep.backends import get_backend
    from rlearndeep.model import ModelCard, Network, write_card
    from rlearndeep.scene.bands import Band, Normalization
    from rlearndeep.scene.classes import ClassTable, MapClass

    directory = place / architecture
    directory.mkdir()
    card = ModelCard(
        backend="torch",
        weights="weights.safetensors",
        network=Network(architecture, BANDS, CLASSES, options),
        bands=tuple(Band(f"band{number}") for number in range(1, BANDS + 1)),
        normalization=Normalization("band", (3000.0,) * BANDS, (500.0,) * BANDS),
        classes=ClassTable(tuple(MapClass(number, f"class {number}") for number in range(1, CLASSES + 1))),
        resolution=(1.0, 1.0),
        unit="cell",
        **card_values,
    )
    backend = get_backend("torch")
    backend.save(backend.build(card.network), directory / card.weights)
    write_card(directory, card, architecture)
    return directory, card


class Counting:
    """A predictor that notes how many cells it was given, and how long it took."""

    def __init__(self, predictor) -> None:
        self._predictor = predictor
        self.pixels_per_batch, self.is_apart = predictor.pixels_per_batch, predictor.is_apart
        self.cells = 0
        self.seconds = 0.0

    def predict(self, batch):
        """The scores of the predictor."""
        start = time.perf_counter()
        scores = self._predictor.predict(batch)
        self.seconds += time.perf_counter() - start
        self.cells += batch.shape[0] * batch.shape[2] * batch.shape[3]
        return scores


def forward_rate(predictor, cells: int) -> float:
    """Cells per second of the forward pass alone, on tiles of 512 x 512 cells."""
    import numpy as np

    batch = np.random.default_rng(0).normal(size=(1, BANDS, 512, 512)).astype(np.float32)
    repeats = max(2, cells // (512 * 512))
    start = time.perf_counter()
    for _ in range(repeats):
        predictor.predict(batch)
    return repeats * 512 * 512 / (time.perf_counter() - start)


def end_to_end(predictor, card, layers: list[str], overlap: int | None) -> tuple[float, int, float]:
    """Seconds, cells computed and seconds of forward passes of one prediction of the region."""
    from rlearndeep.gis.rasters import RasterStack, RasterWriter, cell_areas, extent_window
    from rlearndeep.gis.session import current_region
    from rlearndeep.prediction.answers import Member, Question, Subject
    from rlearndeep.prediction.journal import RowJournal
    from rlearndeep.prediction.maps import Layer, Sheets
    from rlearndeep.prediction.planning import make_plan, starts_per_chunk
    from rlearndeep.prediction.stream import Job, strips

    region = current_region()
    counting = Counting(predictor)
    start = time.perf_counter()
    plan = make_plan([card], overlap)
    names = [band.name for band in card.bands]
    reading, cores = plan.reading_window(region, region.window), os.cpu_count() or 1
    with RasterStack(names, region, reading, readers=cores) as source, ExitStack() as stack:
        question = Question(Subject.of(card))
        kept = sum(Layer(kind).bytes_kept(question.subject) for kind in layers)
        columns = starts_per_chunk(plan, region, BANDS, CLASSES, kept, 1000)
        extent = extent_window(region, [region])
        job = Job(source, region, extent, [Member(counting, card, tuple(range(BANDS)))], plan, question, columns)
        writers = []
        for number, kind in enumerate(layers):
            writer = RasterWriter(f"map{number}", region, "int32" if kind == "class" else "float32")
            writers.append((Layer(kind, max(0, number - 1)), stack.enter_context(writer)))
        journal = stack.enter_context(RowJournal(Path(os.environ["GISRC"]).parent / "journal", {}, resume=False))
        Sheets(question, writers, cell_areas(region), region.cols, threads=cores, behind=1).write(strips(job), journal)
    return time.perf_counter() - start, counting.cells, counting.seconds


def measure(label: str, predictor, card, layers: list[str], overlap: int | None, cells: int) -> None:
    """Print one row: the median of several runs, each beside a forward pass of its own."""
    results = []
    for _ in range(RUNS):
        rate = forward_rate(predictor, cells // 2)
        seconds, computed, inside = end_to_end(predictor, card, layers, overlap)
        results.append((computed / rate / seconds, cells / rate / seconds, cells / seconds, rate, inside / seconds))
    results.sort()
    tiles, of_cells, speed, rate, share = results[len(results) // 2]
    print(f"{label:34}{speed / 1e6:9.2f}{rate / 1e6:9.2f}{tiles:8.2f}{of_cells:8.2f}{share:9.2f}", flush=True)


def main(side: int) -> None:
    """Print speeds and ratios."""
    restart_with_libraries()
    from rlearndeep.backends import get_backend
    from rlearndeep.gis.rasters import write_fast

    with project(), tempfile.TemporaryDirectory() as place:
        subprocess.run(["g.region", *square(side)], check=True)
        for number in range(1, BANDS + 1):
            expression = f"band{number} = int(3000 + 800 * sin(row() * {number + 1}) + rand(0, 500))"
            subprocess.run(["r.mapcalc", "-s", expression], check=True)
        write_fast()
        unet = model_directory(Path(place), "unet", {"encoder": "resnet18"}, patch=(128, 128), stride=32, reach=32)
        mlp = model_directory(Path(place), "mlp", {"hidden": [128, 64]}, patch=(1, 1))
        print(f"{side} x {side} cells, million cells per second, medians of {RUNS}")
        print(f"{'':34}{'map':>9}{'forward':>9}{'tiles':>8}{'cells':>8}{'in nets':>9}")
        everything = ["class", *["probability"] * CLASSES]
        for precision in ("32", "auto"):
            predictor = get_backend("torch").load(*unet, precision=precision)
            name = f"U-Net {predictor.precision} on {predictor.device}"
            measure(name, predictor, unet[1], ["class"], None, side * side)
            measure(f"{name}, overlap=0", predictor, unet[1], ["class"], 0, side * side)
            measure(f"{name}, {len(everything)} maps", predictor, unet[1], everything, None, side * side)
            predictor = get_backend("torch").load(*mlp, precision=precision)
            measure(f"perceptron {predictor.precision}", predictor, mlp[1], ["class"], None, side * side)


if __name__ == "__main__":
    main(**arguments(__doc__, side=2048))
