"""The assessment as one HTML file with its pictures inside; it needs no other file and no network."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.text import VALUE_SCORES, area_digits, area_unit, class_names, interval, percent
from rlearndeep.scene.classes import shortened

Scatter = tuple[tuple[float, float], NDArray[np.int64]]
"""Limits of both axes, and (predicted, reference) counts."""

_BLUE, _ORANGE = "#0072b2", "#e69f00"
_LARGEST_ANNOTATED = 12
_MOST_NAMED = 100
_LARGEST_SIDE = 20.0
"""Inches; pictures of hundreds of classes would take gigabytes otherwise."""
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:.1em .3em}"
)


def html_report(result: dict[str, Any], scatters: Sequence[Scatter], command: str) -> str:
    """The report of a result.

    Args:
        result: the object of format=json.
        scatters: one per map of values; none for class maps.
        command: the GRASS command that made it.
    """
    body = [
        "<h1>Accuracy assessment</h1>",
        f"<p>Reference: <b>{escape(result['reference'])}</b> ({escape(result['reference_kind'])})</p>",
        f"<p><code>{escape(command)}</code></p>",
    ]
    for number, entry in enumerate(result["maps"]):
        body.append(f"<h2>{escape(entry['map'])}</h2>")
        body.append(f"<p>Compared: {entry['units']} {result['unit']}; null in the map: {entry['null']}.</p>")
        body += _values(entry, scatters[number]) if result["kind"] == "values" else _classes(entry, result)
    if result.get("comparisons"):
        body += ["<h2>Maps side by side</h2>", _comparisons(result["comparisons"])]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Accuracy assessment</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _classes(entry: dict[str, Any], result: dict[str, Any]) -> list[str]:
    parts = [_summary([("", entry)]), _class_table(entry), _picture(_matrix_figure(entry), "confusion matrix")]
    parts.append(_picture(_class_figure(entry), "scores per class"))
    if "area" in entry:
        parts += ["<h3>Estimated from the sample</h3>", _area_table(entry, result)]
        parts.append(_picture(_area_figure(entry, result), "class areas"))
    if "training_footprints" in entry:
        zones = entry["training_footprints"]
        parts += [
            "<h3>Training footprints</h3>",
            f"<p>{percent(zones['share'])} of what was compared lies inside.</p>",
            _summary([("outside", zones["outside"]), ("inside", zones["inside"])]),
        ]
    if "segments" in entry:
        found = entry["segments"]
        parts += [
            f"<h3>Segments ({found['objects']} with reference)</h3>",
            _summary([("each counts 1", found["by_object"]), ("weighted by area", found["by_area"])]),
        ]
    if len(entry.get("levels", [])) > 1:
        parts += ["<h3>Levels</h3>", _summary([(level["level"], level) for level in entry["levels"]])]
    return parts


def _values(entry: dict[str, Any], scatter: Scatter) -> list[str]:
    rows = [("all", entry)]
    if "training_footprints" in entry:
        rows += [(f"{key} training footprints", entry["training_footprints"][key]) for key in ("outside", "inside")]
    head = ["", *(name for _, name in VALUE_SCORES)]
    cells = [[name, *(_general(values[key]) for key, _ in VALUE_SCORES)] for name, values in rows]
    return [_table(head, cells), _picture(_scatter_figure(*scatter), "map against reference")]


def _summary(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    keys = ("overall_accuracy", "kappa", "f1_macro", "f1_weighted", "iou_mean")
    head = ["", "overall accuracy", "kappa", "F1 macro", "F1 weighted", "mean IoU"]
    return _table(head, [[name, *(_number(values[key]) for key in keys)] for name, values in rows])


def _class_table(entry: dict[str, Any]) -> str:
    head = ["class", "precision (user's accuracy)", "recall (producer's accuracy)", "F1", "IoU", "support"]
    keys = ("precision", "recall", "f1", "iou")
    rows = [
        [name, *(_number(item[key]) for key in keys), str(item["support"])]
        for name, item in zip(class_names(entry["classes"]), entry["classes"], strict=True)
    ]
    return _table(head, rows)


def _area_table(entry: dict[str, Any], result: dict[str, Any]) -> str:
    unit, factor = area_unit(result)
    digits = area_digits(entry["area"], factor)
    rows = [
        [
            name,
            f"{item['mapped_area'] * factor:,.{digits}f}",
            interval(item["area"], digits, factor),
            interval(item["users_accuracy"], 2),
            interval(item["producers_accuracy"], 2),
        ]
        for name, item in zip(class_names(entry["area"]["classes"]), entry["area"]["classes"], strict=True)
    ]
    head = ["class", f"mapped area ({unit})", f"area ({unit})", "user's accuracy", "producer's accuracy"]
    overall = interval(entry["area"]["overall_accuracy"], 2)
    return _table(head, rows) + f"<p>Overall accuracy {overall}; ± is the 95 % confidence interval.</p>"


def _comparisons(entries: Sequence[dict[str, Any]]) -> str:
    head = [
        "maps",
        "level",
        "compared",
        "accuracies",
        "difference",
        "only first right",
        "only second right",
        "McNemar p",
    ]
    rows = [
        [
            " / ".join(entry["maps"]),
            entry.get("level", ""),
            str(entry["units"]),
            " / ".join(_number(value) for value in entry["overall_accuracy"]),
            _number(entry["difference"]),
            str(entry["right"]["first"]),
            str(entry["right"]["second"]),
            f"{entry['mcnemar']['p_value']:.4g}",
        ]
        for entry in entries
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _figure(width: float, height: float):
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # labels are anybody's text, dollars and all
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _matrix_figure(entry: dict[str, Any]):
    """Rows are shares of the reference class, so that the diagonal is the recall."""
    matrix = np.array(entry["confusion_matrix"], dtype=np.float64)
    count = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-300)
    side = min(max(3.5, 0.55 * count + 2), _LARGEST_SIDE)
    figure, axes = _figure(side + 1, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= _MOST_NAMED:
        names = _names(entry["classes"])
        axes.set_xticks(range(count), names, rotation=45, ha="right")
        axes.set_yticks(range(count), names)
    axes.set_xlabel("map")
    axes.set_ylabel("reference")
    if count <= _LARGEST_ANNOTATED:
        for row, col in np.ndindex(shares.shape):
            color = "white" if shares[row, col] > 0.5 else "black"
            axes.text(col, row, f"{shares[row, col]:.2f}", ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, label="share of the reference class")
    return figure


def _names(classes: Sequence[dict[str, Any]]) -> list[str]:
    return [shortened(name) for name in class_names(classes)]


def _bar_figure(classes: Sequence[dict[str, Any]]):
    """A figure with a line for each class from above, its axes, and the places of the lines."""
    count = len(classes)
    figure, axes = _figure(8, max(2.0, 0.35 * min(count, _MOST_NAMED) + 1))
    places = np.arange(count)
    if count <= _MOST_NAMED:
        axes.set_yticks(places, _names(classes))
    axes.set_ylim(count - 0.5, -0.5)
    return figure, axes, places


def _class_figure(entry: dict[str, Any]):
    figure, axes, places = _bar_figure(entry["classes"])
    for shift, key, label, color in (
        (-0.2, "precision", "precision (user's accuracy)", _BLUE),
        (0.2, "recall", "recall (producer's accuracy)", _ORANGE),
    ):
        values = [item[key] or 0.0 for item in entry["classes"]]
        axes.barh(places + shift, values, height=0.38, label=label, color=color)
    axes.set_xlim(0, 1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    return figure


def _area_figure(entry: dict[str, Any], result: dict[str, Any]):
    unit, factor = area_unit(result)
    items = entry["area"]["classes"]
    figure, axes, places = _bar_figure(items)
    areas = [item["area"] for item in items]
    axes.barh(places, [item["mapped_area"] * factor for item in items], height=0.6, color="#cccccc", label="mapped")
    values = np.array([area["value"] or 0.0 for area in areas])
    low = np.array([area["value"] or 0.0 if area["low"] is None else area["low"] for area in areas])
    high = np.array([area["value"] or 0.0 if area["high"] is None else area["high"] for area in areas])
    axes.errorbar(
        values * factor,
        places,
        xerr=np.maximum(np.stack([values - low, high - values]), 0.0) * factor,
        fmt="o",
        color=_BLUE,
        capsize=3,
        label="estimated, 95 % confidence",
    )
    axes.set_xlabel(f"area ({unit})")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False)
    return figure


def _scatter_figure(limits: tuple[float, float], counts: NDArray[np.int64]):
    from matplotlib.colors import LogNorm

    figure, axes = _figure(6, 5)
    shown = np.ma.masked_equal(counts, 0)
    image = axes.imshow(
        shown, origin="lower", extent=(*limits, *limits), cmap="viridis", norm=LogNorm(1, max(int(counts.max()), 2))
    )
    axes.plot(limits, limits, color="black", linewidth=0.8)
    axes.set_xlabel("reference")
    axes.set_ylabel("map")
    figure.colorbar(image, label="units", format="%d")
    return figure


def _picture(figure, text: str) -> str:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that letters are missing in the font
        figure.savefig(stream, format="png", dpi=110)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{data}"></p>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _general(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
