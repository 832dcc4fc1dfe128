"""Trains a small perceptron and writes its weights; started once, which may start a second process, or by torchrun.

two_processes.py PATCHES WEIGHTS DEVICES NODES BATCH_SIZE [EPOCHS]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import numpy as np
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.learning.feeding import Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.tasks import ClassTask
from rlearndeep.model import Network
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization


def main(patches: Path, weights: Path, devices: int, nodes: int, batch_size: int, epochs: int = 3) -> None:
    """Train as the first process, or help it."""
    torch.set_num_threads(1)
    sites = Sites.of([PatchDataset.open(patches)])
    normalization = Normalization.from_statistics("band", sites.statistics)
    training, validation = (sites.part(name, normalization) for name in ("training", "validation"))
    settings = Settings(
        architecture="mlp",
        network={"hidden": [8], "dropout": 0.0},
        device="cpu",
        devices=devices,
        nodes=nodes,
        batch_size=batch_size,
        epochs=epochs,
        patience=epochs,
        augment=("none",),
    )
    settings = resolved(settings, "cell", (4, 4), len(training))
    folder = weights.with_suffix(".run")
    folder.mkdir(exist_ok=True)
    result = backend.fit(
        Network("mlp", 4, 3, dict(settings.network or {})),
        training,
        validation,
        settings,
        task="class",
        target=None,
        class_weights=np.array([1.0, 2.0, 3.0]),
        spread=np.ones(4),
        measure=ClassTask(sites.classes).measure,
        folder=folder,
        progress=lambda row: print(
            row["epoch"], row["training_loss"], row["validation_loss"], row["validation_f1_macro"], flush=True
        ),
        warn=print,
    )
    if result is not None:
        backend.save(result.module, weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
