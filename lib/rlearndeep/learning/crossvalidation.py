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
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings
from rlearndeep.learning.tasks import ClassTask
from rlearndeep.learning.training import class_weights, spread_of
from rlearndeep.model import MANIFEST, ModelCard, read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.classes import UNLABELLED

Held = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Category of the area, class index of the label, and scores (n, classes) of labels that a network did not see."""

Progress = Callable[[int, int, str], None]

_PATCHES_AT_ONCE = 1024
# Distances this much (of a cell) below a limit still count as the limit.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LabelAreas:
    """Which area gave each label of a patch directory.

    Attributes:
        dataset: the directory.
        categories: of the areas, ascending.
        number: per label (a patch, or a cell of one) 1 + the position of its area in ``categories``; 0 where
            there is no label or several areas gave it. (patches,) or (patches, rows, cols); may be a memory map.
        counts: labels per area, 0 first, and class; (areas + 1, classes).
        blocks: per area, the block of the split in which most of its labels lie; 0 without blocks.
    """

    dataset: PatchDataset
    categories: NDArray[np.int64]
    number: NDArray[np.int32]
    counts: NDArray[np.int64]
    blocks: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: PatchDataset, categories: NDArray[np.int64], number: NDArray[np.int32]) -> LabelAreas:
        """Count the labels of each area.

        Raises:
            DeepLearningError: fewer than two areas gave a label.
        """
        size = len(categories) + 1
        blocks, block = np.unique(dataset.index["block"], return_inverse=True)
        counts = np.zeros((size, len(dataset.manifest.classes)), dtype=np.int64)
        in_block = np.zeros((size, len(blocks)), dtype=np.int64)
        for start in range(0, len(dataset), _PATCHES_AT_ONCE):
            chosen = np.arange(start, min(start + _PATCHES_AT_ONCE, len(dataset)))
            labels, areas = dataset.read_labels(chosen), np.asarray(number[chosen])
            known = labels != UNLABELLED
            np.add.at(counts, (areas[known], labels[known]), 1)
            owner = np.broadcast_to(block[chosen].reshape(-1, *[1] * (areas.ndim - 1)), areas.shape)
            np.add.at(in_block, (areas[known], owner[known]), 1)
        if (counts[1:].sum(axis=1) > 0).sum() < 2:
            raise DeepLearningError(
                f"Judging labels needs patches whose labels came from several areas or points; those of "
                f"'{dataset.path}' came from {int((counts[1:].sum(axis=1) > 0).sum())}. "
                "Sample them from a label vector, with label=cells or label=inside."
            )
        return cls(dataset, categories, number, counts, blocks[in_block[1:].argmax(axis=1)])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """True for each area that gave a label, (areas,)."""
        return self.counts[1:].sum(axis=1) > 0

    def having(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Positions of the patches that have a label of the areas that are ``wanted``, (areas + 1,)."""
        found = []
        for start in range(0, len(self.dataset), _PATCHES_AT_ONCE):
            chosen = np.arange(start, min(start + _PATCHES_AT_ONCE, len(self.dataset)))
            mine = wanted[self.number[chosen]] & (self.dataset.read_labels(chosen) != UNLABELLED)
            found.append(chosen[mine.reshape(len(chosen), -1).any(axis=1)])
        return np.concatenate(found)


@dataclass(frozen=True)
class AreaPart(Part):
    """Patches of which only the labels of some areas are seen.

    Attributes:
        areas: which area gave each label.
        seen: True for each area whose labels are seen, (areas + 1,).
    """

    areas: LabelAreas
    seen: NDArray[np.bool_]

    def raw(self, numbers: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.bool_], NDArray]:
        """As :meth:`Part.raw`; labels of other areas are ``unlabelled``."""
        values, valid, labels = super().raw(numbers)
        seen = self.seen[self.numbers(numbers)]
        return values, valid, np.where(seen, labels, labels.dtype.type(self.unlabelled))

    def numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Number of the area of each label of some patches, in the order of :meth:`read`."""
        return np.asarray(self.areas.number[self.positions[0][np.sort(numbers)]])


@dataclass(frozen=True)
class Fold:
    """One of the trainings: what is learnt, and what is judged.

    Attributes:
        training: patches with the labels of the other areas.
        held: patches with the labels of the areas left out.
        counts: labels per class to learn from.
        near: patches left out of training because they lie near those judged.
    """

    training: AreaPart
    held: AreaPart
    counts: NDArray[np.int64]
    near: int


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
    return replace(settings, device=device, devices=1, nodes=1, epochs=card.scores.get("epochs") or settings.epochs)


def check_patches(card: ModelCard, dataset: PatchDataset) -> None:
    """Refuse patches that the model was not trained with, or whose labels are no classes.

    Raises:
        DeepLearningError: they do not fit.
    """
    manifest = dataset.manifest
    if manifest.task != "class" or card.task != "class":
        raise DeepLearningError(
            f"Labels are judged where every label is one class; the patches hold '{manifest.task}', the model says "
            f"'{card.task}'. Sample with label=cells, inside, majority, center or object."
        )
    pairs = (
        ("bands", [band.name for band in card.bands], [band.name for band in manifest.reference.bands]),
        ("classes", card.classes.categories.tolist(), manifest.classes.categories.tolist()),
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
        held, seen = (np.append(False, areas.labelled & which) for which in (fold_of == fold, fold_of != fold))
        judged, learnt = areas.having(held), areas.having(seen)
        near = _near(areas.dataset, learnt, judged) if is_blocked else np.zeros(len(learnt), dtype=bool)
        training = AreaPart(sites, normalization, (learnt[~near],), areas, seen)
        counts = _class_counts(training)
        folds.append(Fold(training, AreaPart(sites, normalization, (judged,), areas, held), counts, int(near.sum())))
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

    Labels of a class that none of the other areas has are left out: no network could know it.

    Args:
        folds: of :func:`make_folds`.
        card: of the model.
        settings: of :func:`model_settings`.
        backend: the room that knows the framework.
        progress: called after each epoch with the number of epochs done, of epochs in all, and a text.
        warn: called with a message for the user.

    Raises:
        DeepLearningError: the areas that are not left out have fewer than two classes.
    """
    for fold in folds:
        classes = int((fold.counts > 0).sum())
        if classes < 2:
            raise DeepLearningError(
                f"Every training needs at least two classes in the areas that are not left out; one has {classes}. "
                "Choose more folds=, or label more areas of each class."
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
        task="class",
        target=None,
        class_weights=class_weights(settings.class_weights, "class", fold.counts, len(fold.training)),
        spread=spread_of(fold.training.sites, settings),
        measure=ClassTask(card.classes).measure,
        **how,
    )
    backend.save(fitted.module, how["folder"] / backend.FILE)
    return backend.load(how["folder"], replace(card, weights=backend.FILE), settings.device, "32")


def _initial_weights(dataset: PatchDataset, card: ModelCard, settings: Settings, backend: ModuleType) -> Any:
    """What the model began with, unless that has seen the labels itself."""
    if settings.weights == "none":
        return None
    directory = Path(settings.weights)
    if (directory / MANIFEST).is_file():
        seen = [Path(path).absolute() for path in read_card(directory).training.get("patches", [])]
        if dataset.path.absolute() in seen:
            raise DeepLearningError(
                f"Labels are judged by networks that never saw them; the model began with the weights of "
                f"'{settings.weights}', which was trained with '{dataset.path}' itself. Train a model with other "
                "weights=."
            )
    return backend.initial_weights(settings.weights, backend.Target(card.network, card.bands, card.classes, card.task))


def _scored(fold: Fold, predictor: Any) -> Iterator[Held]:
    part = fold.held
    rows, cols = part.areas.dataset.manifest.reference.shape
    step = max(1, min(65536, predictor.pixels_per_batch // (rows * cols)))
    for start in range(0, len(part), step):
        numbers = np.arange(start, min(start + step, len(part)))
        images, labels = part.read(numbers)
        scores = np.moveaxis(predictor.predict(images), 1, -1)
        known = labels != UNLABELLED
        known[known] = fold.counts[labels[known]] > 0
        yield part.areas.categories[part.numbers(numbers)[known] - 1], labels[known], scores[known]


def _groups(areas: LabelAreas, folds: int) -> tuple[NDArray[np.int64], bool]:
    """What stays together: blocks, if no class would lie in one of them only because of it; else each area."""
    single = np.arange(len(areas.categories))
    used = areas.labelled
    if used.sum() < folds:
        raise DeepLearningError(
            f"There must be at least as many label areas as folds; got {int(used.sum())} areas and folds={folds}. "
            "Choose fewer folds=."
        )
    label, block = areas.counts[1:].argmax(axis=1)[used], areas.blocks[used]
    enough = len(np.unique(block)) >= folds and block.min() > 0
    spread = all(len(np.unique(block[label == index])) > 1 or (label == index).sum() == 1 for index in np.unique(label))
    return (areas.blocks, True) if enough and spread else (single, False)


def _divided(areas: LabelAreas, groups: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Fold of each area, the classes spread as evenly as whole groups allow; -1 for one without labels."""
    from sklearn.model_selection import StratifiedGroupKFold

    used = np.flatnonzero(areas.labelled)
    label = areas.counts[1:].argmax(axis=1)[used]
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


def _class_counts(part: AreaPart) -> NDArray[np.int64]:
    """Labels per class that a part shows."""
    dataset, positions = part.areas.dataset, part.positions[0]
    total = np.zeros(len(dataset.manifest.classes), dtype=np.int64)
    for start in range(0, len(positions), _PATCHES_AT_ONCE):
        chosen = positions[start : start + _PATCHES_AT_ONCE]
        labels = dataset.read_labels(chosen)
        labels = labels[part.seen[part.areas.number[chosen]] & (labels != UNLABELLED)]
        total += np.bincount(labels, minlength=len(total))
    return total
