"""How much a model that never saw a label doubts it, per label area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.text import class_names
from rlearndeep.scene.classes import ClassTable

_MOST_PRINTED = 20
_DIGITS = 4


class LabelScores:
    """Sums of the scores that each label area got, in any number of steps.

    The doubt about an area is 1 - the mean score of its own class over its cells (or patches). That
    score is the self-confidence by which confident learning ranks labels: Northcutt, Jiang and Chuang (2021),
    Confident learning: estimating uncertainty in dataset labels, Journal of Artificial Intelligence Research 70,
    1373-1411. It has to come from a model that was trained without the area.

    Args:
        areas: categories of the areas.
        classes: number of classes.
    """

    def __init__(self, areas: Sequence[int], classes: int) -> None:
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

    def result(self, classes: ClassTable) -> list[dict[str, Any]]:
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


def judgement(
    rows: Sequence[dict[str, Any]], labels: Mapping[int, int | str | float | None], near: Sequence[int]
) -> dict[str, Any]:
    """What r.learn.deep.evaluate says of the labels of a vector.

    Args:
        rows: of :meth:`LabelScores.result`.
        labels: value of the label column per area: a category, or a label of a class.
        near: per fold, patches left out of training because they lie near those judged.

    Returns:
        ``folds``, ``areas`` (the rows), ``not_judged`` (labelled areas without a row), ``left_out_near_judged``
        and ``remarks``, a sentence per doubt.
    """
    labelled = {area: str(label).casefold() for area, label in labels.items() if label is not None and label != ""}
    judged = {row["area"] for row in rows}
    changed = sum(labelled.get(row["area"], "") not in (str(row["category"]), row["label"].casefold()) for row in rows)
    missing = len(labelled.keys() - judged)
    remarks = []
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


def doubt_text(result: Mapping[str, Any]) -> str:
    """The most doubtful labels as a table, then what could not be judged."""
    rows = result["areas"][:_MOST_PRINTED]
    lines = [
        f"Labels of <{result['vector']}> judged by models that never saw them ({result['folds']} folds)",
        f"Areas judged: {len(result['areas'])}, not judged: {result['not_judged']}",
        "",
    ]
    names, suggested = class_names(rows), [_suggested(row) for row in rows]
    first = max(map(len, ["label", *names]))
    second = max(map(len, ["suggested", *suggested]))
    lines.append(f"{'area':>10}  {'label':{first}}  {'doubt':>6}  {'suggested':{second}}  {'cells':>9}")
    for row, name, other in zip(rows, names, suggested, strict=True):
        lines.append(f"{row['area']:>10}  {name:{first}}  {row['doubt']:>6.4f}  {other:{second}}  {row['cells']:>9}")
    if len(result["areas"]) > len(rows):
        lines.append(f"and {len(result['areas']) - len(rows)} more with less doubt")
    return "\n".join(lines)


def _suggested(row: Mapping[str, Any]) -> str:
    return "-" if row["suggested"] is None else class_names([row["suggested"]])[0]
