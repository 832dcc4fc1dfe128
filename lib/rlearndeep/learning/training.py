"""From patches to a model: the one function behind r.learn.deep.train."""

from __future__ import annotations

import csv
import functools
import json
import operator
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

from rlearndeep.backends import is_helper
from rlearndeep.errors import DeepLearningError, check_installed
from rlearndeep.files import write_text
from rlearndeep.learning.context import reach
from rlearndeep.learning.enlargement import suffers
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.novelty import feature_space
from rlearndeep.learning.options import Settings, architecture_of, resolved
from rlearndeep.learning.pretraining import FOLDER as PRETRAINING
from rlearndeep.learning.pretraining import (
    Pretraining,
    done_of,
    gathered,
    of_ground,
    outcome,
    outcome_text,
    pretrained,
    settled,
)
from rlearndeep.learning.probe import linear_probe, measure_of
from rlearndeep.learning.progress import time_left
from rlearndeep.learning.remarks import (
    of_bands,
    of_labels,
    of_pictures,
    of_resolutions,
    of_scores,
    of_sites,
    of_sources,
    of_weights,
)
from rlearndeep.learning.report import write_report
from rlearndeep.learning.resuming import as_one_run, finished, mark_finished, record_of, run_folder
from rlearndeep.learning.sources import FUSION, Choice, model_source
from rlearndeep.learning.tasks import Task, score_table, task_of
from rlearndeep.model import (
    FEATURES,
    MANIFEST,
    ModelCard,
    ModelSource,
    Network,
    read_any_card,
    write_card,
    write_feature_space,
)
from rlearndeep.patches import PARTS, PatchDataset, replace_directory
from rlearndeep.scene.bands import BandStatistics, Normalization
from rlearndeep.scene.inputs import Images, Inputs

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
        task: what the labels say, and how answers are scored.
        counts: labelled cells (or patches) per class in each part; none for values.
        values: statistics of the labels in each part; None for classes.
        class_weights: per class, for the loss.
        remarks: what the user should know.
        initial: weights to begin with, of the back-end's ``initial_weights``; None for random ones.
        pretraining: what the encoder learns first, without labels; None for nothing.
    """

    sites: Sites
    settings: Settings
    network: Network
    parts: dict[str, Part]
    task: Task
    counts: dict[str, NDArray[np.int64]]
    values: dict[str, BandStatistics] | None
    class_weights: NDArray[np.float64]
    remarks: tuple[str, ...]
    initial: Any = None
    pretraining: Pretraining | None = None

    @property
    def unit(self) -> str:
        """``cell`` or ``patch``."""
        return self.sites.manifest.unit

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a patch."""
        return self.sites.manifest.reference.shape

    @property
    def target(self) -> BandStatistics | None:
        """Statistics of the training labels of a value; None for other tasks."""
        return self.values["training"] if self.values else None

    def text(self) -> str:
        """What is going to be trained, in a line."""
        counts = ", ".join(f"{len(part)} {name}" for name, part in self.parts.items())
        settings = self.settings
        answer = f"{len(self.sites.classes)} classes"
        if self.sites.manifest.quantity:
            answer = f"values of '{self.sites.manifest.quantity.name}'"
        return (
            f"{settings.architecture} on {self._inputs()}, {answer}, patches of "
            f"{self.shape[0]} x {self.shape[1]} cells ({counts}); at most {settings.epochs} epochs of "
            f"{self.parts['training'].steps(int(settings.batch_size or 1))} batches."
            f"{f' {self.initial.note}' if self.initial else ''}"
            f"{f' {self.pretraining.text()}' if self.pretraining else ''}"
        )

    def _inputs(self) -> str:
        """Bands of each source that the network looks at."""
        manifest, further = self.sites.manifest, self.sites.further
        bands = [f"{len(manifest.reference.bands)} bands"] if self.sites.choice.has_reference else []
        for source in (entry.source for entry in further):
            dates = f" of {len(source.dates)} dates" if source.dates else ""
            bands.append(f"{len(source.bands)} of {source.name}{dates}")
        return " and ".join(bands)

    def summary(self) -> dict[str, Any]:
        """The settings and the numbers of patches, as ``format=json`` prints them with ``-c``."""
        return {
            "settings": self.settings.to_json(),
            "bands": [band.to_json() for band in self.sites.bands],
            "sources": [source.to_json() for source in _model_sources(self)],
            "parts": {name: len(part) for name, part in self.parts.items()},
            "task": self.sites.manifest.task,
            "values": {name: part.to_json() for name, part in self.values.items()} if self.values else None,
            "classes": [
                {"category": entry.category, "label": label}
                | {name: int(counts[index]) for name, counts in self.counts.items()}
                for index, (entry, label) in enumerate(zip(self.sites.classes, self.sites.classes.labels, strict=True))
            ],
            "remarks": list(self.remarks),
            **({"pretraining": self.pretraining.summary()} if self.pretraining else {}),
        }


def prepare(datasets: Sequence[PatchDataset], settings: Settings, backend: ModuleType) -> Plan:
    """Check everything and make every choice; nothing is trained.

    Raises:
        DeepLearningError: the patches or the settings do not allow training.
        MissingPackage: what the scores or the report need is not installed.
    """
    check_installed("The report of a training", "sklearn", "matplotlib")
    sites, chosen = _looked_at(datasets, settings)
    manifest = sites.manifest
    counted = sites.part("training", Normalization("none"))
    _check_labels(counted, datasets)
    check_standardize(sites, chosen.standardize)
    normalization = Normalization.from_statistics(chosen.standardize, sites.statistics)
    normalizations = sites.normalizations(chosen.standardize)
    parts = {name: sites.part(name, normalization, normalizations) for name in PARTS}
    counts = {name: part.class_counts() for name, part in parts.items()}
    values = {name: part.label_statistics() for name, part in parts.items()} if manifest.quantity else None
    _check_variety(manifest.task, sites, counts["training"], values["training"] if values else None)
    chosen = resolved(chosen, manifest.unit, manifest.reference.shape, len(counted), manifest.task, sites.branch_cells)
    _check_answer(chosen.architecture, manifest.unit, backend)
    task = task_of(manifest, sites.classes, values["training"] if values else None)
    network = Network(chosen.architecture, len(sites.bands), task.outputs, {**(chosen.network or {}), **sites.network})
    backend.check(network, chosen, manifest.task, manifest.reference.shape)
    initial = backend.initial_weights(chosen.weights, _target(backend, network, sites))
    weights = class_weights(chosen.class_weights, manifest.task, counts["training"], len(counted))
    pretraining = _pretraining(settings, chosen, network, parts["training"], backend, initial)
    remarks = (
        *of_labels(sites, parts, counts),
        *of_bands(sites),
        *of_sites(datasets),
        *of_resolutions([*datasets, *(pretraining.datasets if pretraining else ())]),
        *of_sources(sites, parts, bool(settings.sources)),
        *of_weights(initial),
        *(of_ground(pretraining, datasets) if pretraining else ()),
    )
    return Plan(sites, chosen, network, parts, task, counts, values, weights, remarks, initial, pretraining)


def _pretraining(
    given: Settings, chosen: Settings, network: Network, part: Part, backend: ModuleType, initial: Any
) -> Pretraining | None:
    """What the encoder is to learn first; None for nothing."""
    if chosen.pretrain == "none":
        return None
    places = gathered(chosen.unlabelled, part.sites.manifest, part.sites.choice)
    normalized = replace(part, sites=places)
    return settled(given, chosen, network, normalized, backend, spread_of(part.sites, chosen), initial)


def _looked_at(datasets: Sequence[PatchDataset], settings: Settings) -> tuple[Sites, Settings]:
    """The patches with the sources that the network looks at, and the settings that say which."""
    manifest = datasets[0].manifest
    settings = _at_one_rate(settings, adopted(settings, manifest.unit))
    architecture = architecture_of(settings, manifest.unit, manifest.reference.shape)
    choice = Choice.of(manifest, architecture, settings.sources, settings.resampling)
    return Sites.of(datasets, choice), replace(settings, sources=choice.names, resampling=choice.resampling)


def adopted(settings: Settings, unit: str) -> Settings:
    """The settings with the network of the model that ``weights`` names, but for options that the user chose.

    Nothing of it is taken where the user chose another architecture, or labels carry something else.
    """
    directory = Path(settings.weights)
    if not (directory / MANIFEST).is_file():
        return settings
    card = read_any_card(directory)
    if card.unit != unit or settings.architecture not in ("", card.network.architecture):
        return settings
    chosen = settings.network or {}
    follows = ("unit", "size", "reference", "sources", *(("depth",) if "encoder" in chosen else ()))
    options = {name: value for name, value in card.network.options.items() if name not in follows}
    return replace(settings, architecture=card.network.architecture, network={**options, **chosen})


def _at_one_rate(given: Settings, settings: Settings) -> Settings:
    """Let all of a network that goes on as a whole learn at one rate, unless the user said otherwise.

    Where only an encoder comes with weights, it has learned more than the layers behind it, and they go first.
    """
    chosen = settings.encoder_rate is not None or settings.freeze == "encoder" or settings.pretrain != "none"
    if settings is given or chosen or read_any_card(Path(settings.weights)).task == FEATURES:
        return settings
    return replace(settings, encoder_rate=1.0)


def train(
    plan: Plan,
    target: Path,
    backend: ModuleType,
    *,
    command: str = "",
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = lambda done, total, message: None,
    warn: Warn = lambda message: None,
    onnx: Path | None = None,
) -> dict[str, Any] | None:
    """Train, score each part, and write the model directory.

    Args:
        plan: what :func:`prepare` settled.
        target: directory to write; it appears whole or not at all.
        backend: the room that knows the framework.
        command: for the model's record.
        overwrite: replace a model that stands there, forget an interrupted run.
        resume: go on from the checkpoint of an interrupted run where there is one; train nothing where its model
            stands.
        progress: called after each epoch with the number of epochs done, of epochs in all, and a text.
        warn: called with a message for the user.
        onnx: file that ``exporting.export`` will be asked for; the run can be resumed until it stands.

    Returns:
        The content of ``scores.json``; None in a process that only helped the first one.

    Raises:
        DeepLearningError: the target exists, training failed, or the interrupted run was another one.
    """
    folder = run_folder(target)
    if is_helper(plan.settings):
        if not (resume and finished(target)):
            fit(plan, folder, backend, progress, warn)
        return None
    check_target(target, overwrite, resume)
    unlabelled = plan.pretraining.datasets if plan.pretraining else ()
    record = record_of(plan.settings, [*(site.dataset for site in plan.sites.sites), *unlabelled])
    record["settings"]["backend"] = backend_name(backend)
    return as_one_run(
        target,
        record,
        lambda: done_of(backend, folder),
        lambda: _trained(plan, target, folder, backend, command, progress, warn, onnx),
        command=command,
        overwrite=overwrite,
        resume=resume,
        warn=warn,
        onnx=onnx,
    )


def _trained(
    plan: Plan,
    target: Path,
    run: Path,
    backend: ModuleType,
    command: str,
    progress: Progress,
    warn: Warn,
    onnx: Path | None,
) -> dict[str, Any]:
    """Train, then write the model."""
    with hidden_folder(run, target) as folder:
        started = datetime.now(UTC)
        plan, found = _pretrained(plan, run, backend, progress, warn)
        fitted = fit(plan, run, backend, progress, warn)
        backend.save(fitted.module, folder / backend.FILE)
        card = _card(plan, fitted, backend, command, started)
        predictor = backend.load(folder, card, plan.settings.device, "32")
        scores = {**_scores(plan, fitted, predictor), **_gain(plan, found, backend)}
        card = _finished(card, plan, backend, predictor, folder, scores)
        for remark in card.training["remarks"][len(plan.remarks) :]:
            warn(remark)
        write_history(folder / "history.csv", fitted.history)
        if found is not None:
            write_history(folder / "pretraining.csv", found.history)
        write_scores(folder, scores)
        write_report(
            folder / "report.html", target.name, card, fitted.history, plan, predictor, found.history if found else []
        )
        write_card(folder, card, target.name)
        mark_finished(run, folder, onnx)
        replace_directory(folder, target)
    return scores


def _pretrained(plan: Plan, run: Path, backend: ModuleType, progress: Progress, warn: Warn) -> tuple[Plan, Any]:
    """The plan with the weights of pre-training to begin with, and what pre-training made; None where there is none."""
    if plan.pretraining is None:
        return plan, None
    found = pretrained(plan.pretraining, run / PRETRAINING, backend, progress, warn)
    return replace(plan, initial=found.initial(_target(backend, plan.network, plan.sites), plan.initial)), found


def _target(backend: ModuleType, network: Network, sites: Sites) -> Any:
    """The network that is to begin with weights, as the back-end describes it."""
    return backend.Target(network, sites.bands, sites.classes, sites.manifest.task, sites.branch_bands)


def _gain(plan: Plan, found: Any, backend: ModuleType) -> dict[str, Any]:
    """What pre-training came to, with a linear probe of the encoder before and after it."""
    if found is None or plan.pretraining is None:
        return {}
    before, after = plan.pretraining.initial, plan.initial
    parts = plan.parts["training"], plan.parts["validation"]
    probes = [
        linear_probe(*parts, backend.Encoder(plan.network, plan.shape, initial, plan.settings))
        for initial in (after, before)
    ]
    began = "random" if before is None else "before"
    probe = {"score": measure_of(plan.sites.manifest.task), "pretrained": probes[0], began: probes[1]}
    return {"pretraining": {**outcome(found), "linear_probe": None if None in probes else probe}}


def score_text(scores: dict[str, Any]) -> str:
    """The report of the part that says most (test, else validation, else training), and the last epochs' mean."""
    name = next(part for part in reversed(PARTS) if scores["parts"][part])
    head = f"Scores of the {name} part, epoch {scores['best_epoch']} of {scores['epochs']}"
    text = f"{head}\n\n{score_table(scores['parts'][name])}"
    last = min(LAST_EPOCHS, scores["epochs"])
    for key, label in (("f1_macro_last10", "F1 macro"), ("rmse_last10", "RMSE")):
        if scores.get(key) is not None:
            text += f"\n\nValidation part, mean of the last {last} epochs: {label} {scores[key]:.4g}"
    return f"{text}\n\n{outcome_text(scores['pretraining'])}" if scores.get("pretraining") else text


def model_directory(name: str) -> Path:
    """The directory that a ``model=`` names; of a link to one, the directory itself, so that the link stays."""
    target = Path(name)
    return target.resolve() if target.is_symlink() else target


def check_target(target: Path, overwrite: bool, resume: bool = False) -> None:
    """Refuse a target that would destroy something; a run that is resumed may have made its model already.

    Raises:
        DeepLearningError: it exists and is not to be replaced, or it is no model directory.
    """
    stands = finished(target)
    if not target.exists() or (stands and resume):
        return
    if stands and not overwrite:
        raise DeepLearningError(
            f"A model directory is not replaced unasked; '{target}' is that of a run that did not come to its end. "
            "Add -r to finish it without training again, or --overwrite to start again."
        )
    if not overwrite:
        raise DeepLearningError(
            f"A model directory is not replaced unasked; '{target}' exists. Choose another name or add --overwrite."
        )
    if not target.is_dir() or (not (target / MANIFEST).is_file() and any(target.iterdir())):
        raise DeepLearningError(
            f"Only a model directory may be overwritten; '{target}' holds something else. Choose another name."
        )


def check_exportable(plan: Plan) -> None:
    """Refuse what no file of ONNX can hold, before it is trained.

    Raises:
        DeepLearningError: the network takes more than one image.
    """
    if plan.sites.sites[0].branches:
        raise DeepLearningError(
            f"A file of ONNX takes one image; '{plan.network.architecture}' takes each source in its own cells. Leave "
            "onnx= out, or choose an architecture that stacks the sources, e.g. unet."
        )


def fit(
    plan: Plan,
    folder: Path,
    backend: ModuleType,
    progress: Progress = lambda done, total, message: None,
    warn: Warn = lambda message: None,
) -> Any:
    """Train and nothing else; what the back-end's ``fit`` returns. The checkpoint is written into ``folder``."""
    epochs = int(plan.settings.epochs or 0)
    measure = plan.task.measure

    def report(row: dict[str, Any]) -> None:
        # GRASS breaks lines of 80 characters and more.
        text = f"Epoch {row['epoch']} of {epochs}: loss {row['training_loss']:.4f}"
        if row[measure.column] is not None:
            score = f"{row[measure.column]:.4f}" if measure.sign > 0 else f"{row[measure.column]:.4g}"
            text += f", validation {row['validation_loss']:.4f}, {measure.label} {score}"
        progress(row["epoch"], epochs, f"{text}, {time_left(row['epoch'], epochs, row['seconds'])}")

    return backend.fit(
        plan.network,
        plan.parts["training"],
        plan.parts["validation"] if len(plan.parts["validation"]) else None,
        plan.settings,
        task=plan.sites.manifest.task,
        target=plan.target,
        class_weights=plan.class_weights,
        spread=spread_of(plan.sites, plan.settings),
        measure=measure,
        folder=folder,
        progress=report,
        warn=warn,
        initial=plan.initial,
    )


def _scores(plan: Plan, fitted: Any, predictor: Any) -> dict[str, Any]:
    """Scores of each part by the saved weights; the test part is touched here, once."""
    parts: dict[str, Any] = {}
    for name, part in plan.parts.items():
        if len(part):
            parts[name] = plan.task.scores(_counts(part, predictor, plan.task))
    measure = plan.task.measure
    curve = [row[measure.column] for row in fitted.history if row[measure.column] is not None]
    return {
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "parts": {name: parts.get(name) for name in PARTS},
        f"{measure.key}_last10": float(np.mean(curve[-LAST_EPOCHS:])) if curve else None,
    }


def _counts(part: Part, predictor: Any, task: Task) -> Any:
    """Answers against labels of a part, in batches."""
    return functools.reduce(
        operator.add,
        (task.count(labels, predictor.predict(images)) for images, labels in part.batches(_volume(predictor, part))),
    )


def _volume(predictor: Any, part: Part) -> int:
    rows, cols = part.sites.manifest.reference.shape
    return int(max(1, min(65536, predictor.pixels_per_batch // (rows * cols))))


def _card(plan: Plan, fitted: Any, backend: ModuleType, command: str, started: datetime) -> ModelCard:
    manifests = [site.dataset.manifest for site in plan.sites.sites]
    first = manifests[0]
    return ModelCard(
        backend=backend_name(backend),
        weights=backend.FILE,
        network=plan.network,
        unit=plan.unit,
        bands=plan.sites.bands,
        normalization=plan.parts["training"].normalization,
        classes=plan.sites.classes,
        task=first.task,
        quantity=first.quantity,
        target=plan.target,
        sources=_model_sources(plan),
        patch=plan.shape,
        resolution=first.reference.resolution,
        stride=backend.stride(plan.network),
        largest=plan.shape if backend.largest(plan.network) else None,
        projection=first.projection,
        extent=joined_extent([manifest.extent for manifest in manifests]),
        training={
            "settings": plan.settings.to_json(),
            "versions": backend.versions(),
            "patches": [str(site.dataset.path.absolute()) for site in plan.sites.sites],
            "parts": {name: len(part) for name, part in plan.parts.items()},
            "rules": [manifest.rule for manifest in manifests],
            "sampling": [manifest.report for manifest in manifests],
            "sampling_commands": [manifest.command for manifest in manifests],
            "command": command,
            "learning_rate": fitted.learning_rate,
            "device": fitted.device,
            "precision": fitted.precision,
            "pretrained": plan.initial is not None,
            "weights": {"origin": plan.initial.origin, "licence": plan.initial.licence} if plan.initial else None,
            "remarks": list(plan.remarks),
            "started": started.isoformat(timespec="seconds"),
        },
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _model_sources(plan: Plan) -> tuple[ModelSource, ...]:
    normalizations = plan.parts["training"].normalizations
    return tuple(model_source(further, normalizations.get(further.source.name)) for further in plan.sites.further)


def backend_name(backend: ModuleType) -> str:
    """What a back-end is called."""
    return backend.__name__.rpartition(".")[2]


def _finished(
    card: ModelCard, plan: Plan, backend: ModuleType, predictor: Any, folder: Path, scores: dict[str, Any]
) -> ModelCard:
    """The card with what can be known only of a trained network: its reach, what bf16 changes, what it knows."""
    part = plan.parts["validation"] if len(plan.parts["validation"]) else plan.parts["training"]
    distance, largest = _surroundings(plan, part, predictor, card.largest)
    images, _ = part.read(_some(len(part), max(_TRIAL_PATCHES, _TRIAL_CELLS // (plan.shape[0] * plan.shape[1]))))
    if plan.unit == "cell" and not isinstance(images, Inputs) and card.largest is None:
        images = _side_by_side(images)
    changes = _changes(plan.task, predictor, backend.load(folder, card, plan.settings.device, "bf16"), images)
    space = feature_space(plan.parts["training"], plan.parts["validation"], predictor, plan.settings.seed)
    write_feature_space(folder, space)
    novelty = {"vectors": len(space.vectors), "mean_distance": space.mean_distance, "threshold": space.threshold}
    remarks = [
        *plan.remarks,
        *of_scores(scores["parts"]["training"], plan.unit),
        *of_pictures(None if card.branches else largest, bool(backend.largest(plan.network))),
    ]
    training = {**card.training, "bf16_changes": changes, "novelty": novelty, "remarks": remarks}
    return replace(card, reach=distance, largest=largest, training=training, scores=scores)


def _surroundings(
    plan: Plan, part: Part, predictor: Any, limit: tuple[int, int] | None
) -> tuple[int | None, tuple[int, int] | None]:
    """How far the network looks, and the largest input it is to get; see :class:`ModelCard`.

    Args:
        plan: of the training.
        part: whose patches it is shown.
        predictor: of the network.
        limit: the largest picture that it can be shown; None for any.
    """
    if plan.network.architecture == FUSION:
        # Further sources lie around a place as in training only if the place is as large as in training.
        return (None if plan.unit == "patch" else min(plan.shape) // 2), plan.shape
    if plan.unit == "patch":
        return None, None
    if plan.settings.architecture == "mlp":
        return 0, None
    if limit or suffers(part, predictor, plan.task, _FEW):
        return min(plan.shape) // 2, plan.shape
    # 0 is for networks that cannot look around; one that hardly does so still gives tiles edges.
    distance = reach(predictor, part.read(_some(len(part), _FEW))[0], plan.target.std if plan.target else 1.0)
    return max(1, distance), None


def _side_by_side(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches laid out as pictures of at least 64 x 64 cells; smaller ones are not computed in bf16."""
    count, bands, rows, cols = images.shape
    down, across = -(-_SMALLEST_SIDE // rows), -(-_SMALLEST_SIDE // cols)
    pictures = max(1, count // (down * across))
    chosen = images[np.arange(pictures * down * across) % count].reshape(pictures, down, across, bands, rows, cols)
    return chosen.transpose(0, 3, 1, 4, 2, 5).reshape(pictures, bands, down * rows, across * cols)


def _changes(task: Task, first: Any, second: Any, images: Images) -> float:
    """Share of answers that differ between two predictors."""
    differing = total = 0
    step = max(1, first.pixels_per_batch // (images.shape[-1] * images.shape[-2]))
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        differ = task.differ(first.predict(batch), second.predict(batch))
        differing += int(differ.sum())
        total += differ.size
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


def _check_variety(task: str, sites: Sites, counts: NDArray[np.int64], values: BandStatistics | None) -> None:
    if values is not None:
        if not np.isfinite(values.std) or not values.varies:
            raise DeepLearningError(
                f"Training needs labels of different values; those of the training part are all {values.mean:g}. "
                "Sample more places, or change the split."
            )
        return
    classes = [label for label, number in zip(sites.classes.labels, counts, strict=True) if number]
    fewest = 1 if task == "presence" else 2
    if len(classes) < fewest:
        raise DeepLearningError(
            f"Training needs at least {['', 'one class', 'two classes'][fewest]}; the training part has "
            f"{len(classes)} ({', '.join(classes)}). Sample more classes, or change the split."
        )


def _check_answer(architecture: str, unit: str, backend: ModuleType) -> None:
    answer = backend.answers(architecture)
    if answer not in (unit, "either"):
        backend.check_name(architecture)
        wanted = {"cell": "unet", "patch": "resnet18"}[unit]
        raise DeepLearningError(
            f"The architecture must answer for what carries the label; the patches have a label per {unit}, "
            f"'{architecture}' answers per {answer}. Choose e.g. architecture={wanted}, or sample with another label=."
        )


def check_standardize(sites: Sites, method: str) -> None:
    """Refuse to standardise cells over one band: nothing would be left of them.

    Raises:
        DeepLearningError: a source that the network looks at has one band.
    """
    widths = {"reference": len(sites.bands)} if sites.choice.has_reference else {}
    widths |= {source.source.name: len(source.source.bands) for source in sites.sites[0].branches}
    single = [name for name, bands in widths.items() if bands == 1]
    if method == "cell" and single:
        raise DeepLearningError(
            "The option standardize=cell compares the bands of each cell, and makes a single one 0; got one band in "
            f"{' and '.join(single)}. Choose standardize=band."
        )


def spread_of(sites: Sites, settings: Settings) -> NDArray[np.float64]:
    """Standard deviation of the network's input per band."""
    if settings.standardize == "none":
        return np.array([band.std for band in sites.statistics])
    return np.ones(len(sites.bands))


def class_weights(
    choice: str | tuple[float, ...], task: str, counts: NDArray[np.int64], patches: int
) -> NDArray[np.float64]:
    """Weight of each class in the loss; for presence, that of its presence against its absence."""
    if task == "value" and choice != "none":
        raise DeepLearningError(
            "Class weights need labels that are classes; those of the patches are values. Leave out class_weights=."
        )
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
    if task == "presence":
        present &= counts < patches
        weights[present] = (patches - counts[present]) / counts[present]
        return weights
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def joined_extent(
    extents: Sequence[tuple[float, float, float, float] | None],
) -> tuple[float, float, float, float] | None:
    """The extent of all, west, south, east, north; None where none is known."""
    known = np.array([extent for extent in extents if extent])
    if not len(known):
        return None
    west, south, _, _ = known.min(axis=0)
    _, _, east, north = known.max(axis=0)
    return float(west), float(south), float(east), float(north)


@contextmanager
def hidden_folder(run: Path, target: Path) -> Iterator[Path]:
    """A directory in the run's hidden one; it is gone afterwards unless it was given the target's name."""
    folder = run / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise DeepLearningError(
            f"The model could not be written to '{target}' ({error.strerror or error}). Free disk space and run the "
            "command again with -r, or choose another place."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_scores(folder: Path, scores: dict[str, Any]) -> None:
    """Write ``scores.json`` of a model directory."""
    write_text(folder / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))


def write_history(file: Path, history: list[dict[str, Any]]) -> None:
    """Write a row per epoch as CSV."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
