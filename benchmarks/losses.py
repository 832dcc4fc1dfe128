#!/usr/bin/env python3
"""What a loss is good for: rare classes, all cells, or scores that are probabilities.

    benchmarks/losses.py DATA [scene...]      scenes: landcover, buildings

Trains the scenes of ``defaults.py`` with cross entropy and with dice beside it, one seed each, and prints of the
validation part the macro F1 (each class counts alike), the overall accuracy (each cell counts alike), and the log
loss of the scores (the smaller, the better they are as probabilities). One thread, ten minutes of processor time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from defaults import SCENES
from rlearndeep.backends import get_backend
from rlearndeep.learning.feeding import Part
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import fit, prepare
from rlearndeep.patches import PatchDataset
from session import project, scene_arguments

LOSSES = ("cross_entropy", "cross_entropy+dice")
BATCH = 8


def scores(module, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Scores (cells, classes) and class indices (cells,) of the labelled cells of a part."""
    import torch

    found, labels = [], []
    for first in range(0, len(part), BATCH):
        images, classes = part.read(np.arange(first, min(first + BATCH, len(part))))
        with torch.inference_mode():
            answer = torch.softmax(module(torch.from_numpy(np.ascontiguousarray(images))), dim=1).numpy()
        known = classes >= 0
        found.append(np.moveaxis(answer, 1, -1)[known])
        labels.append(classes[known])
    return np.concatenate(found), np.concatenate(labels)


def main(data: Path, names: list[str]) -> None:
    """Print a line per scene and loss."""
    backend = get_backend("torch")
    for name in names:
        with project(SCENES[name].crs) as directory:
            os.chdir(directory)
            SCENES[name].sample(data)
            dataset = PatchDataset.open(directory / "patches")
            for loss in LOSSES:
                plan = prepare([dataset], Settings(loss=loss, seed=1, device="cpu", nprocs=1), backend)
                with tempfile.TemporaryDirectory() as folder:
                    fitted = fit(plan, Path(folder), backend)
                best = max(row[plan.task.measure.column] for row in fitted.history)
                answer, labels = scores(fitted.module.eval(), plan.parts["validation"])
                accuracy = (answer.argmax(axis=1) == labels).mean()
                surprise = -np.log(np.maximum(answer[np.arange(len(labels)), labels], 1e-7)).mean()
                print(
                    f"{name}, {loss}: macro F1 {best:.3f}, overall accuracy {accuracy:.3f}, log loss {surprise:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(*scene_arguments(__doc__, ("landcover", "buildings")))
