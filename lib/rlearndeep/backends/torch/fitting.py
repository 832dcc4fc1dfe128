"""Training: the machinery is Lightning's, the order of patches and all randomness are ours.

Everything random in an epoch follows from the seed and the number of the epoch.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlearndeep.backends import require
from rlearndeep.backends.torch.augmentation import augment
from rlearndeep.backends.torch.devices import choose_device, choose_precision, describe, keep_memory
from rlearndeep.backends.torch.losses import make_loss
from rlearndeep.backends.torch.networks import build
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network
from rlearndeep.scene.classes import UNLABELLED

_TRAINER_PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
_LARGEST_GRADIENT = 5.0


class Feed(Protocol):
    """Patches of one part, normalised."""

    def __len__(self) -> int: ...

    def batches(self, size: int, order: tuple[int, int] | None) -> Iterator[tuple[NDArray, NDArray]]:
        """Images (N, bands, rows, cols) float32 and labels (N, rows, cols) or (N,) int64.

        ``order`` is seed and epoch of a random order; None is the stored one.
        """

    def steps(self, size: int) -> int:
        """Number of batches."""


class Options(Protocol):
    """What fitting needs to know; see ``learning.options.Settings`` for the meanings."""

    loss: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float
    scheduler: str
    step: int
    gamma: float
    epochs: int
    batch_size: int
    patience: int
    augment: tuple[str, ...]
    precision: str
    device: str
    seed: int
    nprocs: int


@dataclass(frozen=True)
class Fitted:
    """What training made.

    Attributes:
        module: the network of the best epoch, on the CPU.
        history: a row per epoch: epoch, training_loss, validation_loss, validation_f1_macro, learning_rate, seconds.
        best_epoch: counted from 1; the last one where there is no validation part.
        device: text for messages.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
    """

    module: nn.Module
    history: list[dict[str, Any]]
    best_epoch: int
    device: str
    precision: str


def fit(
    network: Network,
    training: Feed,
    validation: Feed | None,
    options: Options,
    *,
    class_weights: NDArray[np.float64],
    spread: NDArray[np.float64],
    score: Callable[[NDArray[np.int64]], float],
    folder: Path,
    progress: Callable[[dict[str, Any]], None],
) -> Fitted:
    """Train a network from random weights.

    Args:
        network: what to build.
        training: patches to learn from.
        validation: patches that choose the best epoch, or None.
        options: how to train.
        class_weights: per class, for the loss.
        spread: standard deviation per band of the images.
        score: F1 macro of a confusion matrix.
        folder: where the machinery may write.
        progress: called with the row of the history after each epoch.

    Raises:
        DeepLearningError: the loss is not a number, or the device does not exist.
        MissingPackage: ``lightning`` is not installed.
    """
    if options.nprocs:
        torch.set_num_threads(options.nprocs)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_memory()
    with _quiet():
        lightning = require("lightning.pytorch", "Training with the back-end 'torch'", package="lightning")
        _silence()
        torch.manual_seed(options.seed)
        module = build(network).to(memory_format=torch.channels_last)
        task = _task(lightning, module, options, class_weights, spread, training.steps(options.batch_size))
        watch = _watch(lightning, task, options, score, validation is not None, progress)
        trainer = _trainer(lightning, device, options, folder, watch)
        try:
            trainer.fit(
                task,
                _Batches(training, options.batch_size, options.seed, trainer),
                None if validation is None else _Batches(validation, options.batch_size, None, trainer),
            )
        except SystemExit:
            raise KeyboardInterrupt from None  # what Lightning makes of Ctrl-C
    module.load_state_dict(watch.best)
    precision = _TRAINER_PRECISION[choose_training_precision(options.precision, device)]
    return Fitted(module.cpu().eval(), watch.history, watch.best_epoch, describe(device), precision)


def check(network: Network, options: Options) -> None:
    """Build the network, find the device and the loss, and train nothing.

    Raises:
        DeepLearningError: one of them does not exist.
        MissingPackage: a library is not installed.
    """
    choose_training_precision(options.precision, choose_device(options.device))
    make_loss(options.loss, torch.ones(network.classes))
    build(network)


def choose_training_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` trains in bf16 on a GPU that computes in it, and in 32-bit floating point on a CPU."""
    return choose_precision("32" if name == "auto" and device.type != "cuda" else name, device)


class _Batches:
    """One part as Lightning reads it; a new random order in each epoch where there is a seed."""

    def __init__(self, feed: Feed, size: int, seed: int | None, trainer: Any) -> None:
        self._feed, self._size, self._seed, self._trainer = feed, size, seed, trainer

    def __len__(self) -> int:
        return self._feed.steps(self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = None if self._seed is None else (self._seed, self._trainer.current_epoch)
        for images, labels in self._feed.batches(self._size, order):
            yield torch.from_numpy(images), torch.from_numpy(labels)


def _task(
    lightning: Any, module: nn.Module, options: Options, class_weights: NDArray, spread: NDArray, steps: int
) -> Any:
    """The Lightning module; a function, because Lightning is imported only when there is something to train."""

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32))
            self.register_buffer("spread", torch.tensor(spread, dtype=torch.float32))
            self.random = torch.Generator()
            self.losses: list[Tensor] = []
            self.validation_losses: list[Tensor] = []
            self.matrix = torch.zeros(0)

        def on_train_epoch_start(self) -> None:
            self.random.manual_seed(_mixed(options.seed, self.current_epoch))
            torch.manual_seed(_mixed(options.seed, self.current_epoch) + 1)
            self.losses = []

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            if len(images) == 1:  # batch normalisation needs two
                images, labels = images.repeat(2, 1, 1, 1), labels.repeat(2, *[1] * (labels.dim() - 1))
            images, labels = augment(options.augment, images, labels, self.spread, self.random)
            logits = module(images.contiguous(memory_format=torch.channels_last))
            loss = make_loss(options.loss, self.class_weights)(logits, labels)
            self.losses.append(loss.detach())
            return loss

        def on_validation_epoch_start(self) -> None:
            count = len(self.class_weights)
            self.matrix = torch.zeros((count, count), dtype=torch.int64, device=self.device)
            self.validation_losses = []

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            images, labels = batch
            logits = module(images.contiguous(memory_format=torch.channels_last))
            self.validation_losses.append(make_loss(options.loss, self.class_weights)(logits, labels))
            self.matrix += _matrix(labels, logits.max(1)[1], len(self.class_weights))

        def configure_optimizers(self) -> Any:
            return _optimizer(module, options, steps)

    return Task()


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint32)[0])


def _matrix(reference: Tensor, predicted: Tensor, classes: int) -> Tensor:
    known = reference != UNLABELLED
    codes = reference[known] * classes + predicted[known]
    return torch.bincount(codes, minlength=classes * classes).reshape(classes, classes)


def _optimizer(module: nn.Module, options: Options, steps: int) -> Any:
    rate, decay = options.learning_rate, options.weight_decay
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), rate, momentum=options.momentum, weight_decay=decay)
    else:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.optimizer]
        optimizer = kind(module.parameters(), rate, weight_decay=decay)
    if options.scheduler == "none":
        return optimizer
    schedulers = torch.optim.lr_scheduler
    total = max(2, options.epochs * steps)
    scheduler: Any
    interval = "epoch"
    if options.scheduler == "step":
        scheduler = schedulers.StepLR(optimizer, options.step, options.gamma)
    elif options.scheduler == "plateau":
        scheduler = schedulers.ReduceLROnPlateau(optimizer, "max", options.gamma, options.step)
    elif options.scheduler == "onecycle":
        # OneCycleLR divides by the length of the rise less one step: a fifth of five steps must not be chosen.
        rise = 0.2 if total > 5 else 0.3
        interval, scheduler = "step", schedulers.OneCycleLR(optimizer, rate, total, pct_start=rise)
    else:
        interval, scheduler = "step", schedulers.CosineAnnealingLR(optimizer, total)
    plan = {"scheduler": scheduler, "interval": interval, "monitor": "score", "strict": False}
    return {"optimizer": optimizer, "lr_scheduler": plan}


def _watch(
    lightning: Any,
    task: Any,
    options: Options,
    score: Callable[[NDArray[np.int64]], float],
    validated: bool,
    progress: Callable[[dict[str, Any]], None],
) -> Any:
    """The callback that keeps the history and the best epoch, and ends a run that has stopped learning."""

    class Watch(lightning.Callback):
        def __init__(self) -> None:
            self.history: list[dict[str, Any]] = []
            self.best: dict[str, Tensor] = {}
            self.best_epoch = 0
            self.best_score = (-math.inf, 0.0)
            self.started = time.monotonic()

        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            row = self._row(trainer)
            self.history.append(row)
            value = (row["validation_f1_macro"], -row["validation_loss"]) if validated else (row["epoch"], 0.0)
            if value > self.best_score or not self.best:
                self.best_score, self.best_epoch = value, row["epoch"]
                self.best = {key: tensor.detach().cpu().clone() for key, tensor in task.module.state_dict().items()}
            if validated and options.patience and row["epoch"] - self.best_epoch >= options.patience:
                trainer.should_stop = True
            progress(row)

        def _row(self, trainer: Any) -> dict[str, Any]:
            epoch = trainer.current_epoch + 1
            row = {
                "epoch": epoch,
                "training_loss": _finite_mean(task.losses, epoch, options),
                "validation_loss": None,
                "validation_f1_macro": None,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(time.monotonic() - self.started, 3),
            }
            if validated:
                row["validation_loss"] = _finite_mean(task.validation_losses, epoch, options)
                row["validation_f1_macro"] = score(task.matrix.cpu().numpy())
            return row

    return Watch()


def _finite_mean(losses: list[Tensor], epoch: int, options: Options) -> float:
    value = float(torch.stack(losses).mean())
    if not math.isfinite(value):
        raise DeepLearningError(
            f"The loss must be a number; it is {value} in epoch {epoch} with learning_rate={options.learning_rate:g}. "
            "Choose a smaller learning_rate=, standardize=band, or precision=32."
        )
    return value


def _trainer(lightning: Any, device: torch.device, options: Options, folder: Path, watch: Any) -> Any:
    return lightning.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device.type],
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=_TRAINER_PRECISION[choose_training_precision(options.precision, device)],
        max_epochs=options.epochs,
        callbacks=[watch],
        gradient_clip_val=_LARGEST_GRADIENT,
        default_root_dir=str(folder),
        deterministic="warn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _silence() -> None:
    """Importing Lightning makes it talkative; only errors shall pass."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the chatter of the machinery; warnings and messages to the user are ours."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
