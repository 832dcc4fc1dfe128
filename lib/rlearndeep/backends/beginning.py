"""Weights that a network begins with, and how its parts learn then, whatever the framework."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Self, TypeVar

from rlearndeep.backends.fusing import Branches
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network, read_any_card
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.spectrum import counterparts

Array = TypeVar("Array")

Rows = Mapping[str, tuple[tuple[int, ...], Array]]

_FEWEST = 0.5


@dataclass(frozen=True)
class Target:
    """The network that is to begin with weights.

    Attributes:
        network: how it is built.
        bands: of its input.
        classes: of its output; none for a value.
        task: one of ``TASKS``.
        branches: bands of each source that the network has a branch for, by its name.
    """

    network: Network
    bands: tuple[Band, ...]
    classes: ClassTable
    task: str = "class"
    branches: Branches = field(default_factory=dict)

    def bands_of(self, branch: str) -> tuple[Band, ...]:
        """Bands of a branch, or of the reference where its name is empty."""
        return self.branches[branch] if branch else self.bands


@dataclass(frozen=True)
class Source(Generic[Array]):
    """Weights to take.

    Attributes:
        arrays: of the framework, by name.
        origin: what messages call them.
        bands: of their input, or None where unknown.
        classes: of their output; None where they have no meaning here.
        task: of the model they come from, or None.
        licence: to be shown to the user, or empty.
        square: whether the patches that it learned from had as many rows as columns.
        branches: bands of each source that it has a branch for, by its name; none where unknown.
    """

    arrays: Mapping[str, Array]
    origin: str
    bands: tuple[Band, ...] | None = None
    classes: ClassTable | None = None
    task: str | None = None
    licence: str = ""
    square: bool = True
    branches: Branches = field(default_factory=dict)

    def bands_of(self, branch: str) -> tuple[Band, ...]:
        """Bands of a branch, or of the reference where its name is empty; none where unknown."""
        return self.branches.get(branch, ()) if branch else self.bands or ()

    def shared_outputs(self, target: Target, here: int, there: int) -> list[tuple[int, int]]:
        """Outputs of a last layer that mean the same: pairs of position in the target and in the source.

        Classes are the same by category and label; a value has one output.

        Args:
            target: the network.
            here: number of outputs of the layer there.
            there: number of outputs of the layer in the source.
        """
        if self.task != target.task or self.classes is None:
            return []
        if target.task == "value":
            return [(0, 0)] if here == there == 1 else []
        if there != len(self.classes) or here != len(target.classes):
            return []
        known = {(entry.category, entry.label): index for index, entry in enumerate(self.classes)}
        return [
            (index, known[entry.category, entry.label])
            for index, entry in enumerate(target.classes)
            if (entry.category, entry.label) in known
        ]


@dataclass(frozen=True)
class Initial(Generic[Array]):
    """What a network begins with.

    Attributes:
        arrays: of the framework, by name in the network; in shapes of the network.
        renewed: names of what met other bands than those of the source.
        rows: classes that keep what the last layer had learned of them, by the names of its arrays.
        origin: what messages call the source.
        note: what was taken, in a line.
        licence: to be shown to the user, or empty.
    """

    arrays: Mapping[str, Array]
    renewed: frozenset[str]
    rows: Rows[Array]
    origin: str
    note: str
    licence: str = ""


def read_model(directory: Path, backend: str) -> ModelCard:
    """What a model directory says, whose weights a network is to begin with.

    Raises:
        DeepLearningError: unreadable, or of another back-end.
    """
    card = read_any_card(directory)
    if card.backend != backend:
        raise DeepLearningError(
            f"Weights must come from the back-end that uses them, {backend}; '{directory}' was trained with "
            f"{card.backend}. Choose another model."
        )
    return card


def is_enough(taken: int, needed: int) -> bool:
    """Whether so many arrays of an encoder's are worth beginning with."""
    return taken >= max(1, _FEWEST * needed)


def are_the_same(wanted: Sequence[Band], offered: Sequence[Band]) -> bool:
    """Whether bands differ in nothing but their order: a first layer has nothing to learn of them then."""
    return len(wanted) == len(offered) and None not in counterparts(wanted, offered)


def note_of(
    source: Source[Array], target: Target, taken: str, renewed: Collection[str], rows: Rows[Array], anew: int = 0
) -> str:
    """What was taken from a source, in a line that begins with ``taken``, e.g. ``3 of 4 arrays``.

    Args:
        source: the weights.
        target: the network.
        taken: how many arrays.
        renewed: names of those that other bands changed.
        rows: classes that the last layer knows, by the names of its arrays.
        anew: arrays of the encoder that did not come with the weights.
    """
    parts = [f"{taken} of the network come from {source.origin}"]
    if anew:
        parts.append(f"{anew} of its encoder do not, begin at random and learn like the layers after it")
    if renewed:
        parts.append(_bands_known(source, target))
    if source.classes is not None and len(target.classes):
        count = max((len(indices) for indices, _ in rows.values()), default=0)
        parts.append(f"the last layer knows {count} of {len(target.classes)} classes")
    return "; ".join(parts) + "."


def _bands_known(source: Source[Array], target: Target) -> str:
    """How many bands the first layers have met, in words."""
    layers = ["", *(target.branches if source.branches else ())][not target.network.options.get("reference", True) :]
    pairs = [(target.bands_of(branch), source.bands_of(branch)) for branch in layers]
    met = sum(at is not None for pair in pairs for at in counterparts(*pair))
    know = "first layer knows" if len(pairs) == 1 else "first layers know"
    return f"the {know} {met} of {sum(len(wanted) for wanted, _ in pairs)} bands"


@dataclass(frozen=True)
class Learning:
    """How the parts of a network learn.

    Attributes:
        encoder: names of what came with the weights' encoder.
        factor: of the learning rate, for the encoder.
        frozen_epochs: epochs in which the encoder does not learn; None is all.
    """

    encoder: frozenset[str]
    factor: float
    frozen_epochs: int | None

    @classmethod
    def chosen(cls, encoder: Iterable[str], freeze: str, factor: float) -> Self:
        """The tuning of ``freeze=`` (none, encoder, or a number of epochs) and ``encoder_rate=``."""
        epochs = {"none": 0, "encoder": None}
        return cls(frozenset(encoder), factor, epochs[freeze] if freeze in epochs else int(freeze))

    @classmethod
    def alike(cls) -> Self:
        """All parts learn from the first epoch at the same rate."""
        return cls(frozenset(), 1.0, 0)

    def is_ever_frozen(self) -> bool:
        """Whether there are epochs in which the encoder does not learn."""
        return bool(self.encoder) and self.frozen_epochs != 0

    def learns(self, epoch: int) -> bool:
        """Whether the encoder learns in an epoch, counted from 0."""
        return self.frozen_epochs is not None and epoch >= self.frozen_epochs
