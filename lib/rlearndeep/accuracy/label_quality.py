"""How much a model that never saw a label doubts it, per label area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.text import class_names
from rlearndeep.scene.classes import ClassTable

_MOST_PRINTED = 20
_DIGITS = 4

# A normal distribution's standard deviation in units of the median, and of the mean, of the absolute deviations.
_MEDIAN_TO_DEVIATION = 1.4826
_MEAN_TO_DEVIATION = 1.2533

# Values in files have the precision of 32-bit floating point.
_SAME_VALUE = 1e-5

Rows = list[dict[str, Any]]


class Doubts(Protocol):
    """What networks that did not see labels say of them, summed up in any number of steps."""

    def add(self, areas: NDArray[np.int64], labels: NDArray, answers: NDArray[np.floating]) -> None:
        """Add cells (or patches): category of the area, label and answers (n, outputs) of each."""

    def result(self, classes: ClassTable) -> Rows:
        """A row per area that was judged, the most doubtful first."""


def doubts_of(task: str, areas: Sequence[int] | NDArray[np.int64], classes: ClassTable) -> Doubts:
    """The doubts for labels of a task, one of ``TASKS``."""
    return ValueErrors(areas) if task == "value" else LabelScores(areas, len(classes))


class LabelScores:
    """Sums of the scores that each label area got, in any number of steps.

    The doubt about an area is 1 - the mean score of its own class over its cells (or patches). That
    score is the self-confidence by which confident learning ranks labels: Northcutt, Jiang and Chuang (2021),
    Confident learning: estimating uncertainty in dataset labels, Journal of Artificial Intelligence Research 70,
    1373-1411. It has to come from a model that was trained without the area. Where several classes may be present,
    the doubt is about the presence that an area claims.

    Args:
        areas: categories of the areas.
        classes: number of classes.
    """

    def __init__(self, areas: Sequence[int] | NDArray[np.int64], classes: int) -> None:
        self.areas = np.unique(np.asarray(areas, dtype=np.int64))
        self._labels = np.zeros((len(self.areas), classes), dtype=np.int64)
        self._own = np.zeros(len(self.areas))
        self._sums = np.zeros((len(self.areas), classes))

    def add(self, areas: NDArray[np.int64], labels: NDArray[np.int64], scores: NDArray[np.floating]) -> None:
        """Add cells (or patches).

        Args:
            areas: category of the area of each, (n,).
            labels: class index each is labelled with, (n,).
            scores: of every class, (n, classes).
        """
        where = np.searchsorted(self.areas, areas)
        np.add.at(self._labels, (where, labels), 1)
        np.add.at(self._own, where, np.take_along_axis(scores, labels[:, None], axis=1)[:, 0])
        np.add.at(self._sums, where, scores)

    def result(self, classes: ClassTable) -> Rows:
        """A row per area that was scored, the most doubtful first.

        Returns:
            ``area``, ``category`` and ``label`` (its commonest class), ``doubt``, ``suggested`` (``category``
            and ``label`` of the class with the highest mean score, None where that is its own) and ``cells``.
        """
        names = [
            {"category": entry.category, "label": label} for entry, label in zip(classes, classes.labels, strict=True)
        ]
        cells = self._labels.sum(axis=1)
        own, best = self._labels.argmax(axis=1), self._sums.argmax(axis=1)
        doubt = 1.0 - self._own / np.maximum(cells, 1)
        order = np.lexsort((self.areas, -doubt))
        return [
            {
                "area": int(self.areas[number]),
                **names[own[number]],
                "doubt": round(float(np.clip(doubt[number], 0.0, 1.0)), _DIGITS),
                "suggested": None if best[number] == own[number] else names[best[number]],
                "cells": int(cells[number]),
            }
            for number in order[cells[order] > 0].tolist()
        ]


class ValueErrors:
    """Sums of the values that were predicted for each label area, in any number of steps.

    The doubt about an area is the distance of its error (mean prediction - mean label) from the median error of all
    areas, in robust standard deviations of these errors: 1.4826 times the median of their absolute distances from
    the median, which up to half of the labels may be wrong without moving. It is the modified z-score of Iglewicz
    and Hoaglin (1993), How to detect and handle outliers, ASQC Quality Press, who call what is above 3.5 an outlier,
    of deleted residuals (Belsley, Kuh and Welsch 1980, Regression diagnostics, Wiley): predictions have to come from
    models that were trained without the area.

    Args:
        areas: categories of the areas.
    """

    def __init__(self, areas: Sequence[int] | NDArray[np.int64]) -> None:
        self.areas = np.unique(np.asarray(areas, dtype=np.int64))
        self._cells = np.zeros(len(self.areas), dtype=np.int64)
        self._labels, self._predicted = np.zeros((2, len(self.areas)))

    def add(self, areas: NDArray[np.int64], labels: NDArray[np.floating], predicted: NDArray[np.floating]) -> None:
        """Add cells (or patches).

        Args:
            areas: category of the area of each, (n,).
            labels: value each is labelled with, (n,).
            predicted: (n, 1).
        """
        where = np.searchsorted(self.areas, areas)
        np.add.at(self._cells, where, 1)
        np.add.at(self._labels, where, labels)
        np.add.at(self._predicted, where, predicted[:, 0])

    def result(self, classes: ClassTable) -> Rows:
        """A row per area that was predicted, the most doubtful first.

        Returns:
            ``area``, ``value`` (its mean label), ``doubt``, ``suggested`` (the mean prediction) and ``cells``.
        """
        used = np.flatnonzero(self._cells)
        labels, predicted = (sums[used] / self._cells[used] for sums in (self._labels, self._predicted))
        doubt = _modified_z_scores(predicted - labels)
        return [
            {
                "area": int(self.areas[used[number]]),
                "value": float(labels[number]),
                "doubt": round(float(doubt[number]), _DIGITS),
                "suggested": float(predicted[number]),
                "cells": int(self._cells[used[number]]),
            }
            for number in np.lexsort((self.areas[used], -doubt)).tolist()
        ]


def _modified_z_scores(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from the median in robust standard deviations; 0 where all errors are equal."""
    distances = np.abs(errors - np.median(errors))
    # Where most errors are equal their median says nothing.
    spread = _MEDIAN_TO_DEVIATION * np.median(distances) or _MEAN_TO_DEVIATION * distances.mean()
    return distances / spread if spread > 0 else distances


def judgement(
    rows: Sequence[dict[str, Any]],
    labels: Mapping[int, int | str | float | None],
    near: Sequence[int],
    classes: ClassTable,
) -> dict[str, Any]:
    """What r.learn.deep.evaluate says of the labels of a vector.

    Args:
        rows: of :meth:`Doubts.result`.
        labels: value of the label column per area: a category, a label of a class, or a number.
        near: per fold, patches left out of training because they lie near those judged.
        classes: of the model; none for values.

    Returns:
        ``folds``, ``areas`` (the rows), ``not_judged`` (labelled areas without a row), ``left_out_near_judged``
        and ``remarks``, a sentence per doubt.
    """
    labelled = {area: label for area, label in labels.items() if label is not None and label != ""}
    judged = {row["area"] for row in rows}
    others = [label for row in rows if not _is_label(row, label := labelled.get(row["area"], ""))]
    known = {name.casefold() for entry in classes for name in (str(entry.category), entry.label)}
    strange = sum(str(label).casefold() not in known | {""} for label in others) if classes else 0
    changed = len(others) - strange
    missing = len(labelled.keys() - judged)
    remarks = []
    if strange:
        remarks.append(
            f"{strange} areas have labels that are no class of the model: they were sampled at another level (level=), "
            "or have another label since. The doubt is about the class they had then."
        )
    if changed:
        remarks.append(
            f"{changed} areas have another label now than when the patches were sampled; the doubt is about the older "
            "one. Sample and train again to judge the new one."
        )
    if missing:
        remarks.append(
            f"{missing} labelled areas could not be judged: they gave no label to the patches, or share each of theirs "
            "with other areas, or no other area has their class."
        )
    return {
        "folds": len(near),
        "areas": list(rows),
        "not_judged": missing,
        "left_out_near_judged": sum(near),
        "remarks": remarks,
    }


def _is_label(row: Mapping[str, Any], label: int | str | float) -> bool:
    """Whether a row speaks of a label of the vector."""
    if "value" in row:
        return label != "" and bool(np.isclose(float(label), row["value"], rtol=_SAME_VALUE, atol=0.0))
    names = [str(row["category"]), row["label"]]
    return str(label).casefold() in [name.casefold() for name in names]


def doubt_text(result: Mapping[str, Any]) -> str:
    """The most doubtful labels as a table, then what could not be judged."""
    rows = result["areas"][:_MOST_PRINTED]
    lines = [
        f"Labels of <{result['vector']}> judged by models that never saw them ({result['folds']} folds)",
        f"Areas judged: {len(result['areas'])}, not judged: {result['not_judged']}",
        "",
    ]
    table = [_HEAD, *(_line(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sides = ">>>>>" if rows and "value" in rows[0] else "><><>"
    for line in table:
        cells = (f"{text:{side}{width}}" for text, side, width in zip(line, sides, widths, strict=True))
        lines.append("  ".join(cells))
    if len(result["areas"]) > len(rows):
        lines.append(f"and {len(result['areas']) - len(rows)} more with less doubt")
    return "\n".join(lines)


_HEAD = ("area", "label", "doubt", "suggested", "cells")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as texts, in the order of ``_HEAD``."""
    if "value" in row:
        names = f"{row['value']:.6g}", f"{row['suggested']:.6g}"
    else:
        names = class_names([row])[0], class_names([row["suggested"]])[0] if row["suggested"] else "-"
    return str(row["area"]), names[0], f"{row['doubt']:.4f}", names[1], str(row["cells"])
