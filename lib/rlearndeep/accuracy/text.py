"""The assessment as analysts know it: plain text, and the confusion matrices as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from rlearndeep.accuracy.area import HALF_WIDTH
from rlearndeep.accuracy.metrics import classification_report

_HECTARE = 10000.0
_WIDEST_LABEL = 24
_FIGURES = 4
_MOST_DECIMALS = 6


def plain_text(result: dict[str, Any]) -> str:
    """The whole assessment of r.learn.deep.evaluate as text."""
    parts = [_head(result)]
    for entry in result["maps"]:
        parts.append(_values(entry) if result["kind"] == "values" else _classes(entry, result))
        parts += [_level(level) for level in entry.get("levels", [])[1:]]  # the first one is printed in full
    parts += [_comparison(entry) for entry in result.get("comparisons", [])]
    return "\n\n".join(parts)


def matrix_table(result: dict[str, Any]) -> str:
    """The confusion matrices as CSV: a line per map and reference class, a column per map class.

    Every line and column is named by category and label; the last of each are totals. A map of another level has
    classes of its own; its lines are empty in the columns of the others.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = list(dict.fromkeys(name for entry in result["maps"] for name in class_names(entry["classes"])))
    writer.writerow(["map", "reference", *columns, "total"])
    for entry in result["maps"]:
        names, matrix = class_names(entry["classes"]), entry["confusion_matrix"]
        sums = [sum(column) for column in zip(*matrix, strict=True)]
        for name, row in zip([*names, "total"], [*matrix, sums], strict=True):
            cells = dict(zip(names, row, strict=True))
            writer.writerow([entry["map"], name, *(cells.get(column, "") for column in columns), sum(row)])
    return stream.getvalue()


def class_names(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Category and label of each class of a result."""
    return [
        entry["label"] if entry["label"] == str(entry["category"]) else f"{entry['category']} {entry['label']}"
        for entry in classes
    ]


def interval(estimate: dict[str, float | None], digits: int, factor: float = 1.0) -> str:
    """An estimate and half the width of its 95 % confidence interval, before the interval is cut."""
    value, error = estimate["value"], estimate["standard_error"]
    if value is None:
        return "-"
    if error is None:
        return f"{value * factor:,.{digits}f} ± ?"
    half = HALF_WIDTH * error
    return f"{value * factor:,.{digits}f} ± {half * factor:,.{digits}f}"


def area_unit(result: dict[str, Any]) -> tuple[str, float]:
    """Name of the unit areas are printed in, and the factor to it."""
    return ("ha", 1.0 / _HECTARE) if result["area_unit"] == "m2" else (result["area_unit"], 1.0)


def area_digits(area: dict[str, Any], factor: float) -> int:
    """Decimals with which the areas of a result are printed: the whole has four figures at least."""
    total = area["total"] * factor
    return min(max(_FIGURES - 1 - math.floor(math.log10(total)), 0), _MOST_DECIMALS) if total > 0 else 0


def percent(share: float) -> str:
    """A share as percentage with one decimal."""
    return f"{100.0 * share:.1f} %"


def _head(result: dict[str, Any]) -> str:
    kind = {"raster": "raster map", "areas": "areas of vector map", "points": "points of vector map"}
    lines = [f"Reference: {kind[result['reference_kind']]} <{result['reference']}>"]
    if result["reference_kind"] == "points":
        lines.append(f"Points in the region: {result['points']}, outside: {result['points_outside']}")
    else:
        lines.append(f"Cells in the region: {result['cells']}, without reference: {result['without_reference']}")
    return "\n".join(lines)


def _title(entry: dict[str, Any], level: str = "") -> str:
    title = f"Map <{entry['map']}>" + (f", level {level}" if level else "")
    return f"{title}\n{'-' * len(title)}"


def _classes(entry: dict[str, Any], result: dict[str, Any]) -> str:
    levels = entry.get("levels", [])
    lines = [
        _title(entry, levels[0]["level"] if levels else ""),
        f"Compared: {entry['units']} {result['unit']}; null in the map: {entry['null']}",
        "",
        classification_report(entry),
        "",
        "Precision is the user's accuracy, recall the producer's accuracy.",
        "",
        "Confusion matrix (rows: reference, columns: map)",
        _matrix(entry),
    ]
    for name, writer in (("area", _areas), ("training_footprints", _zones), ("segments", _segments)):
        if name in entry:
            lines += ["", writer(entry, result)]
    return "\n".join(lines)


def _level(entry: dict[str, Any]) -> str:
    title = f"Level {entry['level']}: {len(entry['classes'])} classes"
    return f"{title}\n{classification_report(entry)}"


def _matrix(entry: dict[str, Any]) -> str:
    names, matrix = class_names(entry["classes"]), entry["confusion_matrix"]
    categories = [str(item["category"]) for item in entry["classes"]]
    widths = [max(len(head), *(len(str(row[i])) for row in matrix)) for i, head in enumerate(categories)]
    first = min(max(map(len, names)), _WIDEST_LABEL)
    lines = [f"{'':{first}}  " + "  ".join(f"{head:>{width}}" for head, width in zip(categories, widths, strict=True))]
    for name, row in zip(names, matrix, strict=True):
        cells = "  ".join(f"{value:>{width}}" for value, width in zip(row, widths, strict=True))
        lines.append(f"{name[:first]:{first}}  {cells}")
    return "\n".join(lines)


def _areas(entry: dict[str, Any], result: dict[str, Any]) -> str:
    unit, factor = area_unit(result)
    names = class_names(entry["classes"])
    width = max(map(len, [*names, "Overall accuracy"]))
    area = entry["area"]
    digits = area_digits(area, factor)
    columns = ("mapped area", "area", "user's accuracy", "producer's accuracy")
    rows = [
        (
            f"{item['mapped_area'] * factor:,.{digits}f}",
            interval(item["area"], digits, factor),
            interval(item["users_accuracy"], 2),
            interval(item["producers_accuracy"], 2),
        )
        for item in area["classes"]
    ]
    widths = [max(len(head), *(len(row[i]) for row in rows)) for i, head in enumerate(columns)]
    lines = [
        f"Estimated from the sample, {area['strata']} strata, areas in {unit}, ± 95 % confidence "
        "(Olofsson et al. 2014)",
        f"{'':{width}}  " + "  ".join(f"{head:>{size}}" for head, size in zip(columns, widths, strict=True)),
    ]
    for name, row in zip(names, rows, strict=True):
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>{size}}" for cell, size in zip(row, widths, strict=True)))
    lines.append(f"{'Overall accuracy':{width}}  {interval(area['overall_accuracy'], 2)}")
    return "\n".join(lines)


def _zones(entry: dict[str, Any], result: dict[str, Any]) -> str:
    zones = entry["training_footprints"]
    lines = [f"{percent(zones['share'])} of the compared {result['unit']} lie inside training footprints"]
    for where in ("outside", "inside"):
        found = zones[where]
        lines.append(
            f"  {where:8}  overall accuracy {_number(found['overall_accuracy'])}  kappa {_number(found['kappa'])}  "
            f"F1 macro {_number(found['f1_macro'])}"
        )
    return "\n".join(lines)


def _segments(entry: dict[str, Any], result: dict[str, Any]) -> str:
    found = entry["segments"]
    lines = [f"Segments with reference: {found['objects']}"]
    for key, name in (("by_object", "each counts 1"), ("by_area", "weighted by area")):
        values = found[key]
        lines.append(
            f"  {name:16}  overall accuracy {_number(values['overall_accuracy'])}  kappa {_number(values['kappa'])}  "
            f"F1 macro {_number(values['f1_macro'])}"
        )
    return "\n".join(lines)


def _values(entry: dict[str, Any]) -> str:
    lines = [_title(entry), f"Compared: {entry['units']}; null in the map: {entry['null']}"]
    lines += [_value_line("all", entry)]
    if "training_footprints" in entry:
        zones = entry["training_footprints"]
        lines.append(f"{percent(zones['share'])} of them lie inside training footprints")
        lines += [_value_line(where, zones[where]) for where in ("outside", "inside")]
    return "\n".join(lines)


def _value_line(name: str, values: dict[str, Any]) -> str:
    texts = [f"{label} {_general(values[key])}" for key, label in VALUE_SCORES]
    return f"  {name:8}  " + "  ".join(texts)


VALUE_SCORES = (("rmse", "RMSE"), ("mae", "MAE"), ("bias", "bias"), ("r2", "R2"))
"""Keys and names of the scores of value maps."""


def _comparison(entry: dict[str, Any]) -> str:
    first, second = entry["maps"]
    test = entry["mcnemar"]
    right = entry["right"]
    level = f", level {entry['level']}" if "level" in entry else ""
    statistic = "" if test["statistic"] is None else f"chi-square {test['statistic']:.3f}, "
    return "\n".join(
        [
            f"<{first}> against <{second}>{level}: {entry['units']} compared in both",
            f"  overall accuracy {_number(entry['overall_accuracy'][0])} and {_number(entry['overall_accuracy'][1])}, "
            f"difference {_number(entry['difference'])}",
            f"  right in both {right['both']}, only in the first {right['first']}, only in the second "
            f"{right['second']}, in neither {right['neither']}",
            f"  McNemar's test ({test['test']}): {statistic}p = {test['p_value']:.4g}",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _general(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
