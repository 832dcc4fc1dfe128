"""Levels of classes: a table from the finest classes to their parents."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import ClassTable, MapClass

_DELIMITERS = ",;|\t"


@dataclass(frozen=True)
class LevelTable:
    """A table from the finest classes to their parents.

    Attributes:
        path: the file.
        names: a name per column, the finest level first.
        rows: a tuple of texts per finest class.
    """

    path: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, path: str | os.PathLike) -> LevelTable:
        """Read a CSV file with a header; the delimiter is a comma, semicolon, pipe or tabulator.

        Raises:
            DeepLearningError: no such file, fewer than two columns, rows of different length, or a
                class that stands in it twice.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DeepLearningError(
                f"The table of levels must be a readable text file; '{path}' is not ({error}). Check levels=."
            ) from error
        header = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=header.count)
        table = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
        if len(table) < 2 or len(table[0]) < 2:
            raise DeepLearningError(
                f"A table of levels needs a header and two columns, class and parent; '{path}' has "
                f"{len(table[0]) if table else 0} column(s) and {max(len(table) - 1, 0)} class(es). "
                "Write one line per class."
            )
        names, rows = tuple(table[0]), tuple(tuple(row) for row in table[1:])
        uneven = [row for row in rows if len(row) != len(names) or not all(row)]
        if uneven:
            raise DeepLearningError(
                f"Every line of a table of levels has one value per column; '{path}' has {len(names)} columns and the "
                f"line '{delimiter.join(uneven[0])}'. Complete it."
            )
        finest = [row[0] for row in rows]
        if len(set(finest)) != len(finest):
            double = next(value for value in finest if finest.count(value) > 1)
            raise DeepLearningError(
                f"Every class stands once in a table of levels; '{path}' has '{double}' twice. Remove one line."
            )
        return cls(str(path), names, rows)

    @property
    def numbers(self) -> list[int]:
        """All integers of the table."""
        return [int(text) for row in self.rows for text in row if is_integer(text)]

    def column(self, name: str) -> int:
        """Position of a level.

        Raises:
            DeepLearningError: there is no such level.
        """
        if name not in self.names:
            raise DeepLearningError(
                f"A level must be a column of '{self.path}'; got '{name}', the columns are {', '.join(self.names)}. "
                "Choose one of them."
            )
        return self.names.index(name)

    def texts(self, column: int) -> list[str]:
        """The classes of a level as they are written, in the order of the table."""
        return list(dict.fromkeys(row[column] for row in self.rows))

    def parents(self, start: int, column: int) -> dict[str, str]:
        """Class of a coarser (or the same) column per class of column ``start``, in small letters.

        Raises:
            DeepLearningError: a class has two parents.
        """
        parents: dict[str, str] = {}
        for row in self.rows:
            key = row[start].casefold()
            if parents.setdefault(key, row[column]) != row[column]:
                raise DeepLearningError(
                    f"A class has one parent in each coarser level; '{row[start]}' has '{parents[key]}' and "
                    f"'{row[column]}' in column {self.names[column]} of '{self.path}'. Correct the table of levels."
                )
        return parents

    def finest_column(self, table: ClassTable) -> int:
        """Position of the finest level in which every class stands, by label or category.

        A coarser one where all stand by labels that the lines with their categories contradict: classes of a coarser
        level often have small numbers of their own, which mean something else among the finest ones.

        Raises:
            DeepLearningError: there is no such level, or a class of the table has two parents.
        """
        found = [
            column for column in range(len(self.names)) if all(self.key(entry, column) is not None for entry in table)
        ]
        if found:
            return next((column for column in found[1:] if self._contradicts(table, found[0], column)), found[0])
        known = {row[0].casefold() for row in self.rows}
        missing = [
            f"{entry.category} {entry.label}".strip()
            for entry in table
            if str(entry.category) not in known and entry.label.casefold() not in known
        ]
        raise DeepLearningError(
            f"Every class of maps and reference must stand in the table of levels; '{self.path}' has no "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. Add a line for each, by category or label."
        )

    def _contradicts(self, table: ClassTable, finest: int, column: int) -> bool:
        """Whether all classes stand in a column by label, but not in the lines that have them in the finest one."""
        labels = [entry.label.casefold() for entry in table]
        texts = {row[column].casefold() for row in self.rows}
        if any(label not in texts or is_integer(label) for label in labels):
            return False
        parents = self.parents(finest, column)
        return any(
            parents[self.key(entry, finest) or ""].casefold() != label
            for entry, label in zip(table, labels, strict=True)
        )

    def key(self, entry: MapClass, column: int) -> str | None:
        """How a class is written in a column, in small letters: its label or its category; None if it is not.

        The label goes first: of texts that are numbers, as "311", the category is only their place in sorted order.
        """
        texts = {row[column].casefold() for row in self.rows}
        for text in (entry.label.casefold(), str(entry.category)):
            if text and text in texts:
                return text
        return None


def is_integer(text: str) -> bool:
    """True for a text that is a whole number."""
    return text.removeprefix("-").isdecimal()
