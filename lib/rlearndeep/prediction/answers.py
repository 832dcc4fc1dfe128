"""What networks say to a batch: several networks, each in several views, together.

The planes of an answer are the network's outputs and, behind them, what was asked for beside: the plane from
which the spread of the answers follows, and the novelty. All of them are means, so that they blend like scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard
from rlearndeep.prediction import confidence
from rlearndeep.prediction.branches import Branch, Places, Planes
from rlearndeep.prediction.views import VIEWS, View
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.inputs import Images, Inputs
from rlearndeep.scene.novelty import FeatureSpace

CELL_NULL = np.iinfo(np.int32).min
"""Null in integer maps; other maps use NaN."""

PRESENT = 0.5
"""Score from which on a class counts as present, where several may be."""


class Predictor(Protocol):
    """A network that a back-end loaded.

    Attributes:
        pixels_per_batch: a good volume of a batch in cells.
        is_apart: whether it computes elsewhere than on the CPU, which is free for other work meanwhile.
    """

    pixels_per_batch: int
    is_apart: bool

    def predict(self, batch: Images) -> NDArray[np.float32]:
        """Outputs (N, K, H, W) or (N, K) of normalised input (N, B, H, W); K is 1 for values. The caller owns them."""

    def predict_with_features(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, and what the last layer saw: (N, F, h, w), h and w not above H and W, or (N, F)."""


@dataclass(frozen=True)
class Subject:
    """What the outputs of a network stand for.

    Attributes:
        task: one of ``scene.tasks.TASKS``.
        classes: in the order of the outputs; none for values.
        centre, scale: of the values; only their spread is reckoned with them, for the sake of precision.
    """

    task: str
    classes: ClassTable
    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, card: ModelCard) -> Subject:
        """What the outputs of a model stand for."""
        if card.target is None:
            return cls(card.task, card.classes)
        return cls(card.task, card.classes, card.target.mean, card.target.std or 1.0)

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return 1 if self.task == "value" else len(self.classes)

    def inner(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of outputs (K, ...), what has to be averaged to know the spread of several answers, (...)."""
        if self.task == "class":
            return confidence.entropy(outputs)
        if self.task == "presence":
            return confidence.binary_entropy(outputs)
        with np.errstate(over="ignore"):  # a model may say that its labels are near 0 and answer with anything
            return np.square((outputs[0] - np.float32(self.centre)) / np.float32(self.scale))

    def spread(self, mean: NDArray[np.float32], inner: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spread of answers from the mean of their outputs (K, ...) and the mean of their :meth:`inner` plane.

        Values: standard deviation, in units of the values. Classes: the Jensen-Shannon divergence of the answers
        (Lin 1991), which is what the entropy of their mean exceeds the mean of their entropies by, 0..1.
        """
        difference = (inner - self.inner(mean)) if self.task == "value" else (self.inner(mean) - inner)
        np.maximum(difference, 0, out=difference)
        return np.sqrt(difference) * np.float32(self.scale) if self.task == "value" else difference


@dataclass(frozen=True)
class Question:
    """What is asked of the networks.

    Attributes:
        subject: what the outputs stand for.
        views: in which the image is shown; the first is the image as it is.
        spread: whether the plane for the spread of the answers is wanted.
        novelty: whether the distance to the training data is wanted.
    """

    subject: Subject
    views: tuple[View, ...] = VIEWS["none"]
    spread: bool = False
    novelty: bool = False

    @property
    def planes(self) -> int:
        """Planes of an answer."""
        return self.subject.outputs + self.spread + self.novelty


@dataclass(frozen=True)
class Member:
    """A model at work.

    Attributes:
        predictor: its network.
        card: what it was trained on.
        positions: of its bands among the bands of the source.
        space: its training data in feature space; None where novelty is not asked for.
        branches: for the further sources that it looks at in their own cells.
    """

    predictor: Predictor
    card: ModelCard
    positions: tuple[int, ...]
    space: FeatureSpace | None = None
    branches: tuple[Branch, ...] = ()

    def prepare(self, values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Network input (bands, rows, cols) of the source's values."""
        own = values if self.positions == tuple(range(len(values))) else values[list(self.positions)]
        with np.errstate(invalid="ignore", over="ignore"):
            return self.card.normalization.apply(own, valid)

    def shown(self, images: NDArray[np.float32], places: Places, around: Mapping[str, Planes]) -> Images:
        """A batch: images of some places, and what the branches see around them."""
        if not self.branches:
            return images
        names = [branch.source.name for branch in self.branches]
        seen = [branch.seen(places, around.get(name)) for name, branch in zip(names, self.branches, strict=True)]
        return Inputs(images, dict(zip(names, seen, strict=True)))

    def batch_size(self, cells: int, asked: int | None) -> int:
        """Number of inputs of so many cells per batch; fewer where a series is longer than in training."""
        growth = max((branch.growth for branch in self.branches), default=1.0)
        return asked or max(1, int(self.predictor.pixels_per_batch / growth) // cells)

    def answer(self, question: Question, batch: Images) -> NDArray[np.float32]:
        """Mean answer to a batch (N, bands, H, W) over the views, (N, planes, H, W) or (N, planes)."""
        outputs, novelty = self._straight(question, batch)
        if question.spread:
            outputs = _with_inner(question, outputs)
        if len(question.views) > 1:
            outputs = outputs / np.float32(len(question.views))
        for view in question.views[1:]:
            turned = view.back(self.predictor.predict(view.turn(batch)))
            turned = _with_inner(question, turned) if question.spread else turned
            outputs += turned / np.float32(len(question.views))
        return outputs if novelty is None else np.concatenate([outputs, novelty], axis=1)

    def _straight(self, question: Question, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if not question.novelty:
            return self.predictor.predict(batch), None
        outputs, features = self.predictor.predict_with_features(batch)
        return outputs, self._novelty(features, outputs)

    def _novelty(self, features: NDArray[np.float32], outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Plane (N, 1, H, W) or (N, 1)."""
        if self.space is None:
            raise ValueError("novelty needs the feature space of the model")
        plane = self.space.novelty(features)
        if outputs.ndim == 4 and plane.shape[-2:] != outputs.shape[-2:]:
            rows, cols = (
                np.arange(cells) * count // cells
                for cells, count in zip(outputs.shape[-2:], plane.shape[-2:], strict=True)
            )
            plane = plane[:, rows[:, None], cols]
        return plane[:, None]


def _with_inner(question: Question, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = question.subject.inner(np.moveaxis(outputs, 1, 0))
    return np.concatenate([outputs, inner[:, None]], axis=1)


def check_members(cards: Sequence[ModelCard], names: Sequence[str]) -> None:
    """See that the answers of several models can be averaged.

    Raises:
        DeepLearningError: the models have other classes or another quantity, or answer for other things.
    """
    first = cards[0]
    for card, name in zip(cards[1:], names[1:], strict=True):
        if card.task != first.task or card.quantity != first.quantity:
            raise DeepLearningError(
                f"Models that are averaged must predict the same; '{names[0]}' predicts {_predicted(first)}, "
                f"'{name}' {_predicted(card)}. Predict them one by one."
            )
        if card.classes.categories.tolist() != first.classes.categories.tolist():
            raise DeepLearningError(
                f"Models whose scores are averaged must have the same classes; '{names[0]}' has {len(first.classes)} "
                f"({_listed(first)}), '{name}' has {len(card.classes)} ({_listed(card)}). Predict them one by one."
            )
        if card.unit != first.unit or (card.unit == "patch" and card.patch != first.patch):
            raise DeepLearningError(
                f"Models whose scores are averaged must answer for the same cells; '{names[0]}' answers per "
                f"{first.unit} of {first.patch}, '{name}' per {card.unit} of {card.patch}. Predict them one by one."
            )
    fusing = [(card, name) for card, name in zip(cards, names, strict=True) if card.branches]
    for card, name in fusing[1:]:
        if card.patch != fusing[0][0].patch:
            raise DeepLearningError(
                "Models of several sources whose scores are averaged must have patches of one size; "
                f"'{fusing[0][1]}' has {fusing[0][0].patch}, '{name}' has {card.patch}. Predict them one by one."
            )


def label_remarks(cards: Sequence[ModelCard], names: Sequence[str]) -> list[str]:
    """What the user should know of models whose categories have other labels, so that they may mean other classes."""
    first = cards[0].classes
    return [
        f"Category {own.category} is '{own.label}' in '{names[0]}' and '{other.label}' in '{name}'; their scores are "
        "averaged, and the map has the labels of the first model. Predict them one by one if they mean other classes."
        for card, name in zip(cards[1:], names[1:], strict=True)
        for own, other in zip(first, card.classes, strict=True)
        if own.label and other.label and own.label != other.label
    ]


def tile_remarks(cards: Sequence[ModelCard], names: Sequence[str], tile: tuple[int, int]) -> list[str]:
    """What the user should know of models that are shown less than in training, for the sake of another one.

    Args:
        cards: models that answer per cell.
        names: of the models.
        tile: rows and columns of what all of them are shown.
    """
    rows, cols = tile
    return [
        f"'{name}' was trained on patches of {card.patch[0]} x {card.patch[1]} cells and is shown {rows} x {cols}, as "
        "another model takes no more; its answers may be poor. Predict them one by one and average their maps."
        for card, name in zip(cards, names, strict=True)
        if card.reach != 0 and (card.patch[0] > rows or card.patch[1] > cols)
    ]


def check_views(cards: Sequence[ModelCard], augment: str) -> None:
    """See that the networks can look at turned patches.

    Raises:
        DeepLearningError: a network for patches that are not square cannot look at them turned by a right angle.
    """
    for card in cards:
        if augment == "d4" and card.unit == "patch" and card.patch[0] != card.patch[1]:
            raise DeepLearningError(
                f"Patches that are turned by a right angle must be square; the model was trained on patches of "
                f"{card.patch[0]} x {card.patch[1]} cells. Choose augment=flips."
            )
        for rows, cols in (card.patch, *(source.shape for source in card.branches)) if augment == "d4" else ():
            if card.branches and rows != cols:
                raise DeepLearningError(
                    "Places that are turned by a right angle must be square in every source; the model was trained on "
                    f"{rows} x {cols} cells of one. Choose augment=flips."
                )


def _predicted(card: ModelCard) -> str:
    if card.quantity is not None:
        return f"values of {card.quantity.name}{f' in {card.quantity.units}' if card.quantity.units else ''}"
    return {"class": "one class of several", "presence": "the classes present"}[card.task]


def _listed(card: ModelCard) -> str:
    return ", ".join(str(category) for category in card.classes.categories)
