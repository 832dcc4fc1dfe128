"""Class tables of an assessment: the classes of maps and reference together, and coarser levels of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED, ClassTable, MapClass
from rlearndeep.scene.levels import LevelTable, is_integer


@dataclass(frozen=True)
class Level:
    """One class table that maps and reference are compared in.

    Attributes:
        name: of the level; empty where the classes are the maps' own.
        classes: the K classes.
        reference: class index of each reference code and, last, of null; ``UNLABELLED`` for no class.
        maps: the same per map; None for a map that is coarser than this level.
    """

    name: str
    classes: ClassTable
    reference: NDArray[np.int64] | None
    maps: tuple[NDArray[np.int64] | None, ...]

    def restricted(self, present: NDArray[np.bool_]) -> Level:
        """The level with only the classes marked in ``present`` (K,)."""
        kept = np.flatnonzero(present)
        new = np.full(len(present) + 1, UNLABELLED)
        new[kept] = np.arange(len(kept))
        classes = ClassTable(tuple(self.classes[int(index)] for index in kept))
        return Level(
            self.name,
            classes,
            None if self.reference is None else new[self.reference],
            tuple(None if codes is None else new[codes] for codes in self.maps),
        )


def own_level(maps: Sequence[ClassTable], reference: ClassTable, named: Sequence[ClassTable] = ()) -> Level:
    """The classes of all maps and of the reference together.

    A category has the label and the colour of the first map that gives it one, else of the first of ``named`` (classes
    that maps have names for, but perhaps no cells), else the reference's.
    """
    merged: dict[int, MapClass] = {}
    held = {entry.category for table in (*maps, reference) for entry in table}
    entries = (entry for table in (*maps, *named, reference) for entry in table if entry.category in held)
    for entry in entries:
        known = merged.get(entry.category, entry)
        merged[entry.category] = MapClass(entry.category, known.label or entry.label, known.color or entry.color)
    classes = ClassTable(tuple(merged.values()))
    return Level(
        "",
        classes,
        _with_null(classes.indices_of(reference.categories)),
        tuple(_with_null(classes.indices_of(table.categories)) for table in maps),
    )


def vector_classes(
    labels: NDArray, maps: Sequence[ClassTable], taken: Sequence[int] = ()
) -> tuple[ClassTable, NDArray[np.int64], list[str]]:
    """Classes of a reference vector's labels.

    Integers are categories. A text is the class of the maps with that label (capitals do not
    matter); or, where it is an integer, that category, unless the maps call that another number; else a new class above
    all categories.

    Args:
        labels: (n,) integers or texts.
        maps: class tables of the maps.
        taken: further categories that a new class may not have.

    Returns:
        The K classes of the reference, the class index of each label (n,), and the texts that no map knows.
    """
    if labels.dtype.kind in "iu":
        categories = np.unique(labels)
        table = ClassTable(tuple(MapClass(int(category), "") for category in categories))
        return table, np.searchsorted(categories, labels), []
    known = {entry.label.casefold(): entry.category for table in reversed(maps) for entry in table if entry.label}
    used = {entry.category for table in maps for entry in table} | set(taken)
    renamed = {entry.category for table in maps for entry in table if _is_another_number(entry)}
    found: dict[str, int] = {}
    unknown = []
    for text in dict.fromkeys(labels.tolist()):
        category = known.get(text.casefold(), int(text) if is_integer(text) else None)
        if category is None or (text.casefold() not in known and category in renamed):
            category = max([0, *used, *found.values()]) + 1
            unknown.append(text)
        found[text] = category
    merged = {category: text for text, category in reversed(found.items())}
    table = ClassTable(tuple(MapClass(number, _name(text, number)) for number, text in merged.items()))
    return table, table.indices_of([found[text] for text in labels.tolist()]).astype(np.int64), unknown


def _is_another_number(entry: MapClass) -> bool:
    """True for a class whose label is a number, but not that of its category."""
    return is_integer(entry.label) and int(entry.label) != entry.category


def _name(text: str, category: int) -> str:
    """Label of a category that a text stands for: none where the text is the number of the category."""
    return "" if is_integer(text) and int(text) == category else text


def ambiguous_labels(labels: NDArray, maps: Sequence[ClassTable]) -> list[str]:
    """One text per label of a reference vector that several categories of the maps have; none for integers."""
    if labels.dtype.kind in "iu":
        return []
    found: dict[str, set[int]] = {text.casefold(): set() for text in labels.tolist()}
    for entry in (entry for table in maps for entry in table):
        if entry.label.casefold() in found:
            found[entry.label.casefold()].add(entry.category)
    return [f"'{text}' is that of {sorted(several)}" for text, several in found.items() if len(several) > 1]


def label_conflicts(maps: Sequence[ClassTable], reference: ClassTable) -> list[str]:
    """One sentence per category that a map and the reference give different labels."""
    theirs = {entry.category: entry.label for entry in reference if entry.label}
    conflicts = {
        entry.category: f"Category {entry.category} is '{entry.label}' in the map and "
        f"'{theirs[entry.category]}' in the reference; categories are compared, not labels. A table of labels "
        "(levels=) compares labels."
        for table in maps
        for entry in table
        if entry.label and theirs.get(entry.category, entry.label).casefold() != entry.label.casefold()
    }
    return list(conflicts.values())


def levels_of(table: LevelTable, maps: Sequence[ClassTable], reference: ClassTable) -> list[Level]:
    """One level per column, the finest first.

    Each raster's classes are looked up, by label and then by category, in the finest column that
    holds all of them; a raster takes part in that level and in the coarser ones.

    Raises:
        DeepLearningError: a class of a map or of the reference stands in no column.
    """
    sources = [*maps, reference]
    finest = [table.finest_column(source) for source in sources]
    return [_level(table, column, sources, finest) for column in range(len(table.names))]


def _level(table: LevelTable, column: int, sources: Sequence[ClassTable], finest: Sequence[int]) -> Level:
    entries = _entries(table, column, sources, finest)
    classes = ClassTable(tuple({entry.category: entry for entry in entries.values()}.values()))
    codes = [
        _indices(table, source, start, column, entries, classes) if start <= column else None
        for source, start in zip(sources, finest, strict=True)
    ]
    return Level(table.names[column], classes, codes[-1], tuple(codes[:-1]))


def _entries(
    table: LevelTable, column: int, sources: Sequence[ClassTable], finest: Sequence[int]
) -> dict[str, MapClass]:
    """Class of each text of a level, by the text in small letters.

    Integers are categories; texts are numbered unless a raster of that level is.
    """
    texts: dict[str, str] = {}
    for text in table.texts(column):
        texts.setdefault(text.casefold(), text)
    known = [entry for source, start in zip(sources, finest, strict=True) if start == column for entry in source]
    if all(is_integer(text) for text in texts):
        found = {table.key(entry, column): entry for entry in reversed(known)}
        return {key: _of_category(int(key), found.get(key)) for key in texts}
    claimed: dict[str | None, MapClass] = {}
    for entry in known:  # the maps stand first, and keep their categories
        if entry.category not in {other.category for other in claimed.values()}:
            claimed.setdefault(table.key(entry, column), entry)
    taken = {entry.category for entry in known}
    free = iter(sorted(set(range(1, len(texts) + len(taken) + 1)) - taken))
    return {key: claimed.get(key) or MapClass(next(free), texts[key]) for key in texts}


def _of_category(category: int, entry: MapClass | None) -> MapClass:
    """The class of a number; a map may know it by a category of its own."""
    if entry is not None and entry.category == category:
        return entry
    return MapClass(category, "", entry.color if entry else None)


def _indices(
    table: LevelTable,
    source: ClassTable,
    start: int,
    column: int,
    entries: dict[str, MapClass],
    classes: ClassTable,
) -> NDArray[np.int64]:
    parents = table.parents(start, column)
    categories = [entries[parents[table.key(entry, start) or ""].casefold()].category for entry in source]
    return _with_null(classes.indices_of(categories))


def common_levels(
    table: LevelTable, maps: Sequence[ClassTable], reference: ClassTable, name: str = ""
) -> tuple[Level, ...]:
    """The levels that the reference and at least one map take part in, the finest first; or the one named.

    Raises:
        DeepLearningError: no such level, or the reference or a map is coarser than it.
    """
    levels = levels_of(table, maps, reference)
    if not name:
        return tuple(
            level for level in levels if level.reference is not None and any(codes is not None for codes in level.maps)
        )
    level = levels[table.column(name)]
    if level.reference is None or any(codes is None for codes in level.maps):
        raise DeepLearningError(
            f"Maps and reference must know the level they are assessed at; one is coarser than '{name}' in "
            f"'{table.path}'. Choose a coarser level=."
        )
    return (level,)


def _with_null(indices: NDArray) -> NDArray[np.int64]:
    return np.append(indices, UNLABELLED).astype(np.int64)
