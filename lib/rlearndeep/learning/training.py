"""From patches to a model: the one function behind r.learn.deep.train."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy import metrics
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.report import write_report
from rlearndeep.model import MANIFEST, ModelCard, Network, write_card
from rlearndeep.patches import PARTS, PatchDataset, replace_directory, write_text
from rlearndeep.scene.bands import Normalization

LAST_EPOCHS = 10

_TRIAL_PATCHES = 64
_TRIAL_CELLS = 16384
_SMALLEST_SIDE = 64
_FEW = 32

Progress = Callable[[int, int, str], None]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before training begins.

    Attributes:
        sites: the patch directories.
        settings: every choice made.
        network: what to build.
        parts: patches by the name of the part.
        counts: labelled cells (or patches) per class in each part.
        class_weights: per class, for the loss.
        remarks: what the user should know.
    """

    sites: Sites
    settings: Settings
    network: Network
    parts: dict[str, Part]
    counts: dict[str, NDArray[np.int64]]
    class_weights: NDArray[np.float64]
    remarks: tuple[str, ...]

    @property
    def unit(self) -> str:
        """``cell`` or ``patch``."""
        return self.sites.sites[0].dataset.manifest.unit

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a patch."""
        return self.sites.sites[0].dataset.manifest.reference.shape

    def text(self) -> str:
        """What is going to be trained, in a line."""
        counts = ", ".join(f"{len(part)} {name}" for name, part in self.parts.items())
        settings = self.settings
        return (
            f"{settings.architecture} on {len(self.sites.bands)} bands, {len(self.sites.classes)} classes, patches of "
            f"{self.shape[0]} x {self.shape[1]} cells ({counts}); at most {settings.epochs} epochs of "
            f"{self.parts['training'].steps(int(settings.batch_size or 1))} batches."
        )

    def summary(self) -> dict[str, Any]:
        """The settings and the numbers of patches, as ``format=json`` prints them with ``-c``."""
        return {
            "settings": self.settings.to_json(),
            "bands": [band.to_json() for band in self.sites.bands],
            "parts": {name: len(part) for name, part in self.parts.items()},
            "classes": [
                {"category": entry.category, "label": label}
                | {name: int(counts[index]) for name, counts in self.counts.items()}
                for index, (entry, label) in enumerate(zip(self.sites.classes, self.sites.classes.labels, strict=True))
            ],
            "remarks": list(self.remarks),
        }


def prepare(datasets: Sequence[PatchDataset], settings: Settings, backend: ModuleType) -> Plan:
    """Check everything and make every choice; nothing is trained.

    Raises:
        DeepLearningError: the patches or the settings do not allow training.
    """
    sites = Sites.of(datasets)
    manifest = datasets[0].manifest
    counted = sites.part("training", Normalization("none"))
    _check_labels(counted, datasets)
    normalization = Normalization.from_statistics(settings.standardize, sites.statistics)
    parts = {name: sites.part(name, normalization) for name in PARTS}
    counts = {name: part.class_counts() for name, part in parts.items()}
    classes = [label for label, number in zip(sites.classes.labels, counts["training"], strict=True) if number]
    if len(classes) < 2:
        raise DeepLearningError(
            f"Training needs at least two classes; the training part has {len(classes)} ({', '.join(classes)}). "
            "Sample more classes, or change the split."
        )
    chosen = resolved(settings, manifest.unit, manifest.reference.shape, len(counted))
    _check_answer(chosen.architecture, manifest.unit, backend)
    network = Network(chosen.architecture, len(sites.bands), len(sites.classes), dict(chosen.network or {}))
    backend.check(network, chosen)
    weights = _weights(chosen.class_weights, counts["training"])
    return Plan(sites, chosen, network, parts, counts, weights, tuple(_remarks(sites, parts, counts)))


def train(
    plan: Plan,
    target: Path,
    backend: ModuleType,
    *,
    command: str = "",
    overwrite: bool = False,
    progress: Progress = lambda done, total, message: None,
) -> dict[str, Any]:
    """Train, score each part, and write the model directory.

    Args:
        plan: what :func:`prepare` settled.
        target: directory to write; it appears whole or not at all.
        backend: the room that knows the framework.
        command: for the model's record.
        overwrite: replace a model that stands there.
        progress: called after each epoch with the number of epochs done, of epochs in all, and a text.

    Returns:
        The content of ``scores.json``.

    Raises:
        DeepLearningError: the target exists, or training failed.
    """
    check_target(target, overwrite)
    with _hidden(target) as folder:
        started = datetime.now(UTC)
        fitted = _fit(plan, folder, backend, progress)
        backend.save(fitted.module, folder / backend.FILE)
        card = _card(plan, fitted, backend, command, started)
        predictor = backend.load(folder, card, plan.settings.device, "32")
        scores = _scores(plan, fitted, predictor)
        card = _finished(card, plan, fitted, backend, predictor, folder, scores)
        _write_history(folder / "history.csv", fitted.history)
        write_text(folder / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))
        write_report(folder / "report.html", target.name, card, fitted.history, plan.parts, plan.counts, predictor)
        write_card(folder, card, target.name)
        replace_directory(folder, target)
    return scores


def score_text(scores: dict[str, Any]) -> str:
    """The classification report of the part that says most: test, else validation, else training."""
    name = next(part for part in reversed(PARTS) if scores["parts"][part])
    return f"Scores of the {name} part, epoch {scores['best_epoch']} of {scores['epochs']}\n\n" + (
        metrics.classification_report(scores["parts"][name])
    )


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that would destroy something.

    Raises:
        DeepLearningError: it exists and is not to be replaced, or it is no model directory.
    """
    if not target.exists():
        return
    if not overwrite:
        raise DeepLearningError(
            f"A model directory is not replaced unasked; '{target}' exists. Choose another name or add --overwrite."
        )
    if not target.is_dir() or (not (target / MANIFEST).is_file() and any(target.iterdir())):
        raise DeepLearningError(
            f"Only a model directory may be overwritten; '{target}' holds something else. Choose another name."
        )


def _fit(plan: Plan, folder: Path, backend: ModuleType, progress: Progress) -> Any:
    epochs = int(plan.settings.epochs or 0)
    spread = np.ones(len(plan.sites.bands))
    if plan.settings.standardize == "none":
        spread = np.array([band.std for band in plan.sites.statistics])

    def report(row: dict[str, Any]) -> None:
        text = f"Epoch {row['epoch']} of {epochs}: training loss {row['training_loss']:.4f}"
        if row["validation_f1_macro"] is not None:
            text += f", validation loss {row['validation_loss']:.4f}, F1 {row['validation_f1_macro']:.4f}"
        left = row["seconds"] / row["epoch"] * (epochs - row["epoch"])
        progress(row["epoch"], epochs, f"{text}, {_duration(left)} left")

    return backend.fit(
        plan.network,
        plan.parts["training"],
        plan.parts["validation"] if len(plan.parts["validation"]) else None,
        plan.settings,
        class_weights=plan.class_weights,
        spread=spread,
        score=lambda matrix: float(metrics.scores(matrix, plan.sites.classes)["f1_macro"] or 0.0),
        folder=folder,
        progress=report,
    )


def _scores(plan: Plan, fitted: Any, predictor: Any) -> dict[str, Any]:
    """Scores of each part by the saved weights; the test part is touched here, once."""
    parts: dict[str, Any] = {}
    for name, part in plan.parts.items():
        if len(part):
            matrix = confusion_matrix(part, predictor, len(plan.sites.classes))
            parts[name] = metrics.scores(matrix, plan.sites.classes)
    curve = [row["validation_f1_macro"] for row in fitted.history if row["validation_f1_macro"] is not None]
    return {
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "parts": {name: parts.get(name) for name in PARTS},
        "f1_macro_last10": float(np.mean(curve[-LAST_EPOCHS:])) if curve else None,
    }


def confusion_matrix(part: Part, predictor: Any, classes: int) -> NDArray[np.int64]:
    """Predicted against reference classes of a part, in batches; rows = reference."""
    total = np.zeros((classes, classes), dtype=np.int64)
    for images, labels in part.batches(_volume(predictor, part)):
        total += metrics.count_pairs(labels, predictor.predict(images).argmax(axis=1), classes)
    return total


def _volume(predictor: Any, part: Part) -> int:
    rows, cols = part.sites.sites[0].images.shape[-2:]
    return int(max(1, min(65536, predictor.pixels_per_batch // (rows * cols))))


def _card(plan: Plan, fitted: Any, backend: ModuleType, command: str, started: datetime) -> ModelCard:
    manifests = [site.dataset.manifest for site in plan.sites.sites]
    first = manifests[0]
    return ModelCard(
        backend=backend.__name__.rpartition(".")[2],
        weights=backend.FILE,
        network=plan.network,
        unit=plan.unit,
        bands=plan.sites.bands,
        normalization=plan.parts["training"].normalization,
        classes=plan.sites.classes,
        patch=plan.shape,
        resolution=first.reference.resolution,
        stride=backend.stride(plan.settings.architecture),
        projection=first.projection,
        extent=_joined([manifest.extent for manifest in manifests]),
        training={
            "settings": plan.settings.to_json(),
            "versions": backend.versions(),
            "patches": [str(site.dataset.path) for site in plan.sites.sites],
            "parts": {name: len(part) for name, part in plan.parts.items()},
            "sampling": [manifest.report for manifest in manifests],
            "sampling_commands": [manifest.command for manifest in manifests],
            "command": command,
            "device": fitted.device,
            "precision": fitted.precision,
            "remarks": list(plan.remarks),
            "started": started.isoformat(timespec="seconds"),
        },
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _finished(
    card: ModelCard,
    plan: Plan,
    fitted: Any,
    backend: ModuleType,
    predictor: Any,
    folder: Path,
    scores: dict[str, Any],
) -> ModelCard:
    """The card with what can be known only of a trained network: its reach, and what bf16 changes."""
    part = plan.parts["validation"] if len(plan.parts["validation"]) else plan.parts["training"]
    reach: int | None = None
    if plan.unit == "cell":
        reach = 0
        if plan.settings.architecture != "mlp":
            reach = backend.reach(fitted.module, part.read(_some(len(part), _FEW))[0])
    images, _ = part.read(_some(len(part), max(_TRIAL_PATCHES, _TRIAL_CELLS // (plan.shape[0] * plan.shape[1]))))
    if plan.unit == "cell":
        images = _side_by_side(images)
    changes = _changes(predictor, backend.load(folder, card, plan.settings.device, "bf16"), images)
    training = {**card.training, "bf16_changes": changes}
    return replace(card, reach=reach, training=training, scores=scores)


def _side_by_side(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches laid out as pictures of at least 64 x 64 cells; smaller ones are not computed in bf16."""
    count, bands, rows, cols = images.shape
    down, across = -(-_SMALLEST_SIDE // rows), -(-_SMALLEST_SIDE // cols)
    pictures = max(1, count // (down * across))
    chosen = images[np.arange(pictures * down * across) % count].reshape(pictures, down, across, bands, rows, cols)
    return chosen.transpose(0, 3, 1, 4, 2, 5).reshape(pictures, bands, down * rows, across * cols)


def _changes(first: Any, second: Any, images: NDArray[np.float32]) -> float:
    """Share of answers whose class differs between two predictors."""
    differing = total = 0
    step = max(1, first.pixels_per_batch // (images.shape[-1] * images.shape[-2]))
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        classes = [predictor.predict(batch).argmax(axis=1) for predictor in (first, second)]
        differing += int((classes[0] != classes[1]).sum())
        total += classes[0].size
    return differing / max(1, total)


def _some(count: int, wanted: int) -> NDArray[np.int64]:
    """Numbers spread evenly over ``count`` patches."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))


def _check_labels(training: Part, datasets: Sequence[PatchDataset]) -> None:
    if not len(training):
        names = ", ".join(f"'{dataset.path}'" for dataset in datasets)
        raise DeepLearningError(
            f"Training needs labelled patches in the training part; {names} has none. "
            "Sample with other shares= or label areas that lie in the region."
        )


def _check_answer(architecture: str, unit: str, backend: ModuleType) -> None:
    answer = backend.answers(architecture)
    if answer not in (unit, "either"):
        wanted = {"cell": "unet", "patch": "resnet18"}[unit]
        raise DeepLearningError(
            f"The architecture must answer for what carries the label; the patches have a label per {unit}, "
            f"'{architecture}' answers per {answer}. Choose e.g. architecture={wanted}, or sample with another label=."
        )


def _weights(choice: str | tuple[float, ...], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    if isinstance(choice, tuple):
        if len(choice) != len(counts):
            raise DeepLearningError(
                f"There must be one class weight per class; got {len(choice)} for {len(counts)} classes. "
                "Give one number per class in the order of the categories."
            )
        return np.array(choice, dtype=np.float64)
    if choice == "none":
        return np.ones(len(counts))
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def _remarks(sites: Sites, parts: dict[str, Part], counts: dict[str, NDArray[np.int64]]) -> Iterator[str]:
    absent = [label for label, number in zip(sites.classes.labels, counts["training"], strict=True) if not number]
    if absent:
        yield f"The training part has no label of: {', '.join(absent)}. The model will not know these classes."
    if not len(parts["validation"]):
        yield "There is no validation part: all epochs are trained and the last one is kept."
    if not len(parts["validation"]) and not len(parts["test"]):
        yield "There is neither a validation nor a test part: the scores are those of the training part."


def _joined(extents: Sequence[tuple[float, float, float, float] | None]) -> tuple[float, float, float, float] | None:
    known = np.array([extent for extent in extents if extent])
    if not len(known):
        return None
    west, south, _, _ = known.min(axis=0)
    _, _, east, north = known.max(axis=0)
    return float(west), float(south), float(east), float(north)


@contextmanager
def _hidden(target: Path) -> Iterator[Path]:
    """A hidden directory beside the target; it is gone afterwards unless it was given the target's name."""
    folder = target.absolute().with_name(f".{target.name}.{os.getpid()}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise DeepLearningError(
            f"The model directory must be writable; '{target}' is not ({error.strerror or error}). "
            "Choose another place."
        ) from error
    try:
        yield folder
    except OSError as error:
        raise DeepLearningError(
            f"The model could not be written to '{target}' ({error.strerror or error}). Free disk space or choose "
            "another place."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_history(file: Path, history: list[dict[str, Any]]) -> None:
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
