"""What a network that begins with other weights has to offer them, whatever the framework."""

from __future__ import annotations

from dataclasses import dataclass

from rlearndeep.model import Network
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable


@dataclass(frozen=True)
class Target:
    """The network that is to begin with weights.

    Attributes:
        network: how it is built.
        bands: of its input.
        classes: of its output; none for a value.
        task: one of ``TASKS``.
    """

    network: Network
    bands: tuple[Band, ...]
    classes: ClassTable
    task: str = "class"
