#!/usr/bin/env python3
"""The same network with both back-ends, and each against the bare framework on the same arrays.

benchmarks/backends.py [network, default unet] [patches, default 320]

Training: patches of 64 x 64 cells and five bands in batches of 16, in samples per second, without augmentation and
validation; bare is ``fit`` of Keras, or a plain loop of PyTorch, on the same arrays in memory. Prediction: tiles of
256 x 256 cells, in million cells per second; bare is ``predict_on_batch``, or the module in ``inference_mode``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from session import arguments

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "testsuite")]

SIZE, BANDS, BATCH, EPOCHS, TILE, TILES = 64, 5, 16, 3, 256, 4
RUNS = 3


def prepared(place: Path, network: str, count: int) -> tuple[Any, Any]:
    """Training patches and settings."""
    from rlearndeep.backends import get_backend
    from rlearndeep.learning.options import Settings
    from rlearndeep.learning.training import prepare
    from synthetic_patches import make_patches

    dataset = make_patches(place / "patches", size=SIZE, count=count, bands=BANDS, shares=(1.0, 0.0, 0.0))
    settings = Settings(
        architecture=network, epochs=EPOCHS, batch_size=BATCH, augment=("none",), scheduler="none", device="cpu"
    )
    return prepare([dataset], settings, get_backend("keras")), settings


def ours(plan: Any, name: str, place: Path) -> tuple[float, Any]:
    """Samples per second after the first epoch, in which functions are traced; and the trained network."""
    from rlearndeep.backends import get_backend
    from rlearndeep.learning.training import fit

    folder = place / f"run-{name}-{time.time_ns()}"
    folder.mkdir()
    times: list[float] = []
    fitted = fit(plan, folder, get_backend(name), lambda *_: times.append(time.perf_counter()))
    return len(plan.parts["training"]) * (len(times) - 1) / (times[-1] - times[0]), fitted.module


def arrays(plan: Any) -> tuple[Any, Any]:
    """All images and labels in memory."""
    import numpy as np

    images, labels = zip(*plan.parts["training"].batches(BATCH), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def bare_keras(plan: Any) -> float:
    """Samples per second of ``fit``."""
    import numpy as np
    from rlearndeep.backends import get_backend
    from rlearndeep.backends.keras.engine import keras

    images, labels = arrays(plan)
    images, weights = np.ascontiguousarray(np.moveaxis(images, 1, -1)), (labels >= 0).astype(np.float32)
    model = get_backend("keras").build(plan.network).model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(0.001, global_clipnorm=5.0)
    model.compile(optimizer, loss, jit_compile=False)
    times: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: times.append(time.perf_counter()))
    model.fit(images, labels.clip(0), BATCH, EPOCHS, verbose=0, sample_weight=weights, callbacks=[note], shuffle=True)
    return len(images) * (len(times) - 1) / (times[-1] - times[0])


def bare_torch(plan: Any) -> float:
    """Samples per second of a plain loop."""
    import torch
    from rlearndeep.backends import get_backend

    images, labels = map(torch.from_numpy, arrays(plan))
    model = get_backend("torch").build(plan.network).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 0.001)
    times = []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            batch = images[chosen].contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(model(batch), labels[chosen], ignore_index=-1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
        times.append(time.perf_counter())
    return len(images) * (len(times) - 1) / (times[-1] - times[0])


def predictions(plan: Any, name: str, module: Any, place: Path) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """The predictor of a back-end and the bare framework, each as a function of a batch."""
    import numpy as np
    from rlearndeep.backends import get_backend
    from rlearndeep.learning.training import _card

    backend = get_backend(name)
    folder = place / f"model-{name}"
    folder.mkdir(exist_ok=True)
    backend.save(module, folder / backend.FILE)
    fitted = type("Fitted", (), {"learning_rate": 0.0, "device": "cpu", "precision": "32", "module": module})
    from datetime import datetime

    card = _card(plan, fitted, backend, "", datetime.now())
    yield "ours", backend.load(folder, card, "cpu", "32").predict
    if name == "keras":
        yield "bare", lambda batch: module.model.predict_on_batch(np.moveaxis(batch, 1, -1))
        return
    import torch

    module = module.eval().to(memory_format=torch.channels_last)

    def bare(batch: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)).numpy()

    yield "bare", bare


def cells_per_second(answer: Callable[[Any], Any]) -> float:
    """Million cells per second."""
    import numpy as np

    batch = np.random.default_rng(1).normal(size=(TILES, BANDS, TILE, TILE)).astype(np.float32)
    answer(batch)
    start = time.perf_counter()
    for _ in range(4):
        answer(batch)
    return 4 * TILES * TILE * TILE / (time.perf_counter() - start) / 1e6


def main(network: str, patches: int) -> None:
    """Print speeds and ratios, medians of several runs."""
    from statistics import median

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        plan, _ = prepared(place, network, patches)
        print(f"{network}, {patches} patches, medians of {RUNS} runs")
        print(f"{'':10}{'training':>10}{'bare':>10}{'ratio':>8}{'prediction':>12}{'bare':>10}{'ratio':>8}")
        for backend, bare in (("torch", bare_torch), ("keras", bare_keras)):
            runs = [(ours(plan, backend, place), bare(plan)) for _ in range(RUNS)]
            module = runs[-1][0][1]
            rates = [(mine[0], other, mine[0] / other) for mine, other in runs]
            answers = dict(predictions(plan, backend, module, place))
            speeds = [[cells_per_second(answers[who]) for who in ("ours", "bare")] for _ in range(RUNS)]
            row = [median(values) for values in zip(*rates, strict=True)]
            row += [median(values) for values in zip(*((*pair, pair[0] / pair[1]) for pair in speeds), strict=True)]
            print(f"{backend:10}{row[0]:10.1f}{row[1]:10.1f}{row[2]:8.2f}{row[3]:12.2f}{row[4]:10.2f}{row[5]:8.2f}")


if __name__ == "__main__":
    main(**arguments(__doc__, network="unet", patches=320))
