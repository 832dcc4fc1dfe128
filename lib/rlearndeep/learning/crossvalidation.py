"""Scores of labels by networks that never saw them: cross-validation that leaves out whole label areas."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Sites
from rlearndeep.learning.label_areas import AreaPart, LabelAreas, claimed, class_of
from rlearndeep.learning.options import Settings
from rlearndeep.learning.tasks import task_of
from rlearndeep.learning.training import class_weights, spread_of
from rlearndeep.model import MANIFEST, ModelCard, read_any_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import BandStatistics, Normalization

Held = tuple[NDArray[np.int64], NDArray, NDArray[np.float32]]
"""Of labels that a network did not see: category of the area, class index or value, and the network's scores
(n, classes) or values (n, 1)."""

Progress = Callable[[int, int, str], None]

# Distances this much (of a cell) below a limit still count as the limit.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Fold:
    """One of the trainings: what is learnt, and what is judged.

    Attributes:
        training: patches with the labels of the other areas.
        held: patches with the labels of the areas left out.
        counts: labels per class to learn from; none for values.
        target: statistics of the values to learn from; None for other tasks.
        near: patches left out of training because they lie near those judged.
    """

    training: AreaPart
    held: AreaPart
    counts: NDArray[np.int64]
    target: BandStatistics | None
    near: int

    @property
    def is_teachable(self) -> bool:
        """Whether there is something to tell apart in what is learnt."""
        if self.target is not None:
            return self.target.count > 1 and self.target.std > 0
        return int((self.counts > 0).sum()) > (self.training.areas.dataset.manifest.task == "class")


def model_settings(card: ModelCard, device: str) -> Settings:
    """The settings a model was trained with, for as many epochs as its training ran.

    Not for as many as its best network had seen: wrong labels in the validation part choose a network that has
    learnt too little to doubt them.
    """
    known = {entry.name for entry in fields(Settings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in card.training["settings"].items()
        if name in known
    }
    settings = Settings(**values)
    epochs = card.scores.get("epochs") or settings.epochs
    # The curves in a directory of TensorBoard are those of the model.
    return replace(settings, device=device, devices=1, nodes=1, epochs=epochs, tensorboard="")


def check_patches(card: ModelCard, dataset: PatchDataset) -> None:
    """Refuse patches that the model was not trained with, or whose labels nobody can be asked for.

    Raises:
        DeepLearningError: they do not fit.
    """
    manifest = dataset.manifest
    if manifest.rule == "density":
        raise DeepLearningError(
            f"A label that is judged is a claim of one area or point; with label=density those of '{dataset.path}' "
            "count the points of each cell. Sample the points with label=center to judge what a column says of them."
        )
    if card.sources:
        raise DeepLearningError(
            f"Labels are judged with a model of one source; this one has {len(card.sources)} further ones. Train one "
            "with the imagery group alone."
        )
    pairs = (
        ("task", card.task, manifest.task),
        ("bands", [band.name for band in card.bands], [band.name for band in manifest.reference.bands]),
        ("classes", card.classes.names, manifest.classes.names),
        ("kind of label", card.unit, manifest.unit),
        ("patch size", tuple(card.patch), tuple(manifest.reference.shape)),
    )
    for what, mine, other in pairs:
        if mine != other:
            raise DeepLearningError(
                f"Labels are judged with patches like those the model was trained with; its {what}: {mine}, those of "
                f"'{dataset.path}': {other}. Give the patches of the model."
            )


def make_folds(areas: LabelAreas, number: int, normalization: Normalization, seed: int) -> list[Fold]:
    """Divide the areas; whole blocks of the split stay together where there are enough of them.

    With blocks, patches closer to a judged one than the buffer of the split are left out of training.

    Raises:
        DeepLearningError: there are fewer areas than folds.
    """
    sites = Sites.of([areas.dataset])
    groups, is_blocked = _groups(areas, number)
    fold_of = _divided(areas, groups, number, seed)
    folds = []
    for fold in range(number):
        # Nobody claims an absence; all may learn from it.
        held = np.append(False, areas.labelled & (fold_of == fold))
        seen = np.append(areas.dataset.manifest.task == "presence", areas.labelled & (fold_of != fold))
        judged, learnt = areas.having(held), areas.having(seen)
        near = _near(areas.dataset, learnt, judged) if is_blocked else np.zeros(len(learnt), dtype=bool)
        training = AreaPart(sites, normalization, (learnt[~near],), areas=areas, seen=seen)
        target = training.label_statistics() if areas.dataset.manifest.quantity else None
        part = AreaPart(sites, normalization, (judged,), areas=areas, seen=held)
        folds.append(Fold(training, part, training.class_counts(), target, int(near.sum())))
    return folds


def judge(
    folds: Sequence[Fold],
    card: ModelCard,
    settings: Settings,
    backend: ModuleType,
    *,
    progress: Progress = lambda done, total, message: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Held]:
    """Train a network like the model without the areas of each fold, and score their labels with it.

    Labels of a class that none of the other areas has are left out: no network could know it. Where several classes
    may be present, the scores of others that are said to be are 0: they are no alternative.

    Args:
        folds: of :func:`make_folds`.
        card: of the model.
        settings: of :func:`model_settings`.
        backend: the room that knows the framework.
        progress: called after each epoch with the number of epochs done, of epochs in all, and a text.
        warn: called with a message for the user.

    Raises:
        DeepLearningError: the areas that are not left out have fewer than two classes, or values.
    """
    if not all(fold.is_teachable for fold in folds):
        raise DeepLearningError(
            "Every training needs different classes, or values, in the areas that are not left out; one has fewer "
            "than two. Choose more folds=, or label more areas of each."
        )
    if settings.pretrain != "none":
        warn(
            "The model learned without labels first (pretrain=); the networks that judge its labels do not, and may "
            "know less. To have them begin alike, pre-train alone and train the model with weights=."
        )
    epochs = int(settings.epochs or 0)
    initial = _initial_weights(folds[0].training.areas.dataset, card, settings, backend)
    for number, fold in enumerate(folds):

        def report(row: dict[str, Any], number: int = number) -> None:
            text = f"Fold {number + 1} of {len(folds)}, epoch {row['epoch']}: loss {row['training_loss']:.4f}"
            progress(number * epochs + row["epoch"], len(folds) * epochs, text)

        with tempfile.TemporaryDirectory(prefix="rlearndeep_fold_") as name:
            how = {"folder": Path(name), "progress": report, "warn": warn, "initial": initial}
            predictor = _train(fold, card, settings, backend, how)
            yield from _scored(fold, predictor)


def _train(fold: Fold, card: ModelCard, settings: Settings, backend: ModuleType, how: dict[str, Any]) -> Any:
    """A predictor that never saw the areas of a fold; ``how`` are further arguments of the back-end."""
    fitted = backend.fit(
        card.network,
        fold.training,
        None,
        settings,
        task=card.task,
        target=fold.target,
        class_weights=class_weights(settings.class_weights, card.task, fold.counts, len(fold.training)),
        spread=spread_of(fold.training.sites, settings),
        measure=task_of(fold.training.sites.manifest, card.classes, fold.target).measure,
        **how,
    )
    backend.save(fitted.module, how["folder"] / backend.FILE)
    card = replace(card, weights=backend.FILE, target=fold.target)
    return backend.load(how["folder"], card, settings.device, "32")


def _initial_weights(dataset: PatchDataset, card: ModelCard, settings: Settings, backend: ModuleType) -> Any:
    """What the model began with, unless that has seen the labels itself."""
    if settings.weights == "none":
        return None
    for directory, before in _began_with(settings.weights):
        if dataset.path.absolute() in [Path(path).absolute() for path in before.training.get("patches", [])]:
            raise DeepLearningError(
                f"Labels are judged by networks that never saw them; the model began with the weights of "
                f"'{directory}', which was trained with '{dataset.path}' itself. Train a model with other "
                "weights=."
            )
    return backend.initial_weights(settings.weights, backend.Target(card.network, card.bands, card.classes, card.task))


def _began_with(weights: str) -> Iterator[tuple[Path, ModelCard]]:
    """The model whose weights are named, that which it began with itself, and so on, as far as they are still there."""
    met: set[Path] = set()
    while weights and (Path(weights) / MANIFEST).is_file() and Path(weights).absolute() not in met:
        met.add(Path(weights).absolute())
        card = read_any_card(Path(weights))
        yield Path(weights), card
        weights = str(card.training.get("settings", {}).get("weights", ""))


def _scored(fold: Fold, predictor: Any) -> Iterator[Held]:
    part = fold.held
    rows, cols = part.areas.dataset.manifest.reference.shape
    step = max(1, min(65536, predictor.pixels_per_batch // (rows * cols)))
    for start in range(0, len(part), step):
        numbers = np.arange(start, min(start + step, len(part)))
        images, labels = part.read(numbers)
        answers = np.moveaxis(predictor.predict(images), 1, -1)
        yield _judged(fold, part.numbers(numbers), labels, answers, part.positions[0][numbers])


def _judged(
    fold: Fold, number: NDArray[np.int32], labels: NDArray, answers: NDArray, positions: NDArray[np.int64]
) -> Held:
    """The labels among those of some patches that are judged; answers are on the last axis."""
    areas = fold.held.areas
    task = areas.dataset.manifest.task
    known, classes = claimed(labels, task), class_of(labels, task)
    if task == "value":
        return areas.categories[number[known] - 1], labels[known], answers[known]
    known[known] = fold.counts[classes[known]] > 0
    if task == "presence":
        patch, asked = np.nonzero(known)
        others = areas.dataset.read_labels(positions)[patch] == 1
        others[np.arange(len(patch)), asked] = False
        return areas.categories[number[known] - 1], asked, np.where(others, np.float32(0), answers[patch])
    return areas.categories[number[known] - 1], classes[known], answers[known]


def _groups(areas: LabelAreas, folds: int) -> tuple[NDArray[np.int64], bool]:
    """What stays together: blocks, if no class would lie in one of them only because of it; else each area."""
    single = np.arange(len(areas.categories))
    used = areas.labelled
    if used.sum() < folds:
        raise DeepLearningError(
            f"There must be at least as many label areas as folds; got {int(used.sum())} areas and folds={folds}. "
            "Choose fewer folds=."
        )
    label, block = areas.kinds[used], areas.blocks[used]
    enough = len(np.unique(block)) >= folds and block.min() > 0
    spread = all(len(np.unique(block[label == index])) > 1 or (label == index).sum() == 1 for index in np.unique(label))
    return (areas.blocks, True) if enough and spread else (single, False)


def _divided(areas: LabelAreas, groups: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Fold of each area, the classes spread as evenly as whole groups allow; -1 for one without labels."""
    from sklearn.model_selection import StratifiedGroupKFold

    used = np.flatnonzero(areas.labelled)
    label = areas.kinds[used]
    if np.bincount(label).max() < number:  # no class has an area for each fold: there is nothing to stratify by
        label = np.zeros(len(used), dtype=np.int64)
    fold_of = np.full(len(areas.categories), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that rare classes are not in every fold
        division = StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(used, label, groups[used])
        for fold, (_, chosen) in enumerate(division):
            fold_of[used[chosen]] = fold
    return fold_of


def _near(dataset: PatchDataset, positions: NDArray[np.int64], judged: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for each patch that lies closer to a judged one than the buffer of the split (Chebyshev's distance)."""
    buffer = dataset.manifest.report.get("split", {}).get("buffer") or 0.0
    if not buffer or not len(positions) or not len(judged):
        return np.zeros(len(positions), dtype=bool)
    region, shape = dataset.manifest.region, np.array(dataset.manifest.reference.shape)
    cell = np.array([region.nsres, region.ewres])
    reach = (shape - _TOLERANCE) * cell + buffer
    corners = [
        np.column_stack([dataset.index["row"][chosen], dataset.index["col"][chosen]]) * cell / reach
        for chosen in (positions, judged)
    ]
    distance, _ = cKDTree(corners[1]).query(corners[0], p=np.inf, distance_upper_bound=1.0)
    return distance < 1
