"""Classes of a label source at a coarser level."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.levels import LevelTable, is_integer


@dataclass(frozen=True)
class Raised:
    """Classes at a level.

    Attributes:
        classes: with their parents in the coarser levels.
        category: of the class at this level, per category of the source.
        numbered: True when the categories were given here to texts and say nothing by themselves.
    """

    classes: ClassTable
    category: dict[int, int]
    numbered: bool


def raise_classes(table: LevelTable, classes: ClassTable, name: str) -> Raised:
    """Classes of a source at the level ``name``, or at their own for an empty name.

    The source's own level is the finest column in which all its classes stand, by category or label. Integers
    of a coarser column are categories; texts are numbered from 1 in sorted order over the whole table, so that every
    region has the same numbers.

    Raises:
        DeepLearningError: a class that stands in no column, no such level, or one finer than the source's own.
    """
    start = table.finest_column(classes)
    column = table.column(name) if name else start
    if column < start:
        raise DeepLearningError(
            f"Labels must know the level they are sampled at; their classes are those of '{table.names[start]}', which "
            f"is coarser than '{name}' in '{table.path}'. Choose a coarser level=."
        )
    if column == start:
        raised = [replace(entry, parents=_parents(table, table.key(entry, start), column)) for entry in classes]
        return Raised(ClassTable(tuple(raised)), {entry.category: entry.category for entry in classes}, False)
    texts = table.texts(column)
    numbered = not all(is_integer(text) for text in texts)
    number = {text: place for place, text in enumerate(sorted(texts), start=1)}
    parent = table.parents(start, column)
    found = {entry.category: parent[table.key(entry, start) or ""] for entry in classes}
    raised = [
        MapClass(
            number[text] if numbered else int(text),
            text if numbered else "",
            None,
            _parents(table, text.casefold(), column),
        )
        for text in sorted(set(found.values()))
    ]
    category = {old: number[text] if numbered else int(text) for old, text in found.items()}
    return Raised(ClassTable(tuple(raised)), category, numbered)


def _parents(table: LevelTable, key: str | None, column: int) -> tuple[tuple[str, str], ...]:
    """Classes in the coarser columns of a class of a column, with the columns' names."""
    return tuple(
        (table.names[coarser], table.parents(column, coarser)[key or ""])
        for coarser in range(column + 1, len(table.names))
    )
