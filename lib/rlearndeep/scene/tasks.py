"""What a label says: a class, the classes present, or a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rlearndeep.scene.plain import text

TASKS = ("class", "presence", "value")
"""One class of several; for each class whether it is there (several labels); a number (regression)."""


@dataclass(frozen=True)
class Quantity:
    """What the values of a regression are, e.g. of a column ``height`` in metres."""

    name: str
    units: str = ""

    def to_json(self) -> dict:
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> Quantity:
        """Inverse of :meth:`to_json`."""
        return cls(text(values["name"]), text(values["units"]))
