#!/usr/bin/env python3
"""How many cells get another class than from the network as it was trained, run eagerly in fp32.

    benchmarks/precision.py MODEL...

For prediction batch normalisation is folded away, tensors lie channels last, ReLU and the enlargement of features are
computed by convolutions, and bf16 may be chosen. The cells are those of the patches that a model was trained on, as
its directory names them, 400 patches of each part at most. Models that do not answer with a class per cell are left
out by name.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import numpy as np
import torch
from rlearndeep.backends import get_backend
from rlearndeep.backends.torch.weights import load_network
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Sites
from rlearndeep.model import ModelCard, read_card
from rlearndeep.patches import PatchDataset
from session import command_line

PRECISIONS = ("32", "bf16")
PATCHES = 400
BATCH = 8


def batches(card: ModelCard):
    """Normalised patches (N, bands, rows, cols) that the model was trained on and scored with."""
    sites = Sites.of([PatchDataset.open(Path(place)) for place in card.training["patches"]])
    for name in ("training", "validation", "test"):
        part = sites.part(name, card.normalization)
        for first in range(0, min(len(part), PATCHES), BATCH):
            yield np.ascontiguousarray(part.read(np.arange(first, min(first + BATCH, len(part))))[0])


def changes(directory: Path) -> tuple[int, dict[str, int]]:
    """Cells, and how many of them change their class in each precision."""
    card = read_card(directory)
    if (card.backend, card.unit, card.task, len(card.branches)) != ("torch", "cell", "class", 0):
        raise DeepLearningError("not a model of PyTorch that gives each cell of one source a class")
    eager = load_network(card.network, directory / card.weights).eval()
    predictors = {name: get_backend("torch").load(directory, card, "cpu", name) for name in PRECISIONS}
    cells, found = 0, dict.fromkeys(PRECISIONS, 0)
    for images in batches(card):
        with torch.inference_mode():
            classes = eager(torch.from_numpy(images)).argmax(1).numpy()
        cells += classes.size
        for name, predictor in predictors.items():
            found[name] += int((predictor.predict(images).argmax(1) != classes).sum())
    return cells, found


def main(models: list[str]) -> None:
    """Print a line per model, and the sums."""
    total, sums = 0, dict.fromkeys(PRECISIONS, 0)
    for model in models:
        try:
            cells, found = changes(Path(model))
        except DeepLearningError as error:
            print(f"{model}: left out: {error}", flush=True)
            continue
        print(f"{model}: {cells} cells; " + ", ".join(f"{name}: {count} change" for name, count in found.items()))
        total += cells
        sums = {name: sums[name] + found[name] for name in sums}
    print(f"all: {total} cells; " + ", ".join(f"{name}: {count} change" for name, count in sums.items()))


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("model", nargs="+")
    main(parser.parse_args().model)
