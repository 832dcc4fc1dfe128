"""report.html: one self-contained page about a trained model."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.metrics import classification_report
from rlearndeep.learning.feeding import Part
from rlearndeep.model import ModelCard
from rlearndeep.patches import PARTS, write_text
from rlearndeep.scene.classes import UNLABELLED

_SAMPLES = 6
_LARGEST_LABELLED_MATRIX = 25
_UNLABELLED_COLOR = (255, 255, 255)

_STYLE = """body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
img{max-width:100%}pre{background:#f4f4f4;padding:1em;overflow:auto}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top}"""


def write_report(
    file: Path,
    name: str,
    card: ModelCard,
    history: list[dict[str, Any]],
    parts: dict[str, Part],
    counts: dict[str, NDArray[np.int64]],
    predictor: Any,
) -> None:
    """Write the page; pictures are inside it."""
    shown = next(part for part in reversed(PARTS) if card.scores["parts"][part])
    scores = card.scores["parts"][shown]
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p>{html.escape(_summary(card))}</p>",
        *[f"<p><b>{html.escape(remark)}</b></p>" for remark in card.training["remarks"]],
        f"<h2>Scores of the {shown} part</h2>",
        f"<pre>{html.escape(classification_report(scores))}</pre>",
        _image(_matrix_figure(np.array(scores["confusion_matrix"]), card.classes.labels), "confusion matrix"),
        "<h2>Training</h2>",
        _image(_curve_figure(history, card.scores["best_epoch"]), "curves"),
        f"<h2>Samples of the {shown} part</h2>",
        _image(_sample_figure(parts[shown], card, predictor), "image, label and prediction"),
        "<h2>Patches</h2>",
        _count_table(card, counts),
        _definitions({"sampling": card.training["sampling"], "commands": card.training["sampling_commands"]}),
        "<h2>Settings</h2>",
        _definitions({**card.training["settings"], "command": card.training["command"]}),
        _definitions(card.training["versions"]),
    ]
    title = html.escape(name)
    page = f"<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style></head>"
    write_text(file, f"{page}<body>\n" + "\n".join(body) + "\n</body></html>\n")


def _summary(card: ModelCard) -> str:
    bands = ", ".join(map(str, card.bands))
    return (
        f"{card.network.architecture}, {len(card.bands)} bands ({bands}), {len(card.classes)} classes, patches of "
        f"{card.patch[0]} x {card.patch[1]} cells of {card.resolution[0]:g} x {card.resolution[1]:g} map units, a "
        f"label per {card.unit}. {card.scores['epochs']} epochs on {card.training['device']}, the best was "
        f"{card.scores['best_epoch']}. {card.created}"
    )


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _image(figure: Any, text: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'>"


def _curve_figure(history: list[dict[str, Any]], best: int) -> Any:
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, keys in ((left, ("training_loss", "validation_loss")), (right, ("validation_f1_macro",))):
        for key in keys:
            if history[0][key] is not None:
                axes.plot(epochs, [row[key] for row in history], marker=".", label=key.replace("_", " "))
        axes.axvline(best, color="0.7", linestyle=":")
        axes.set_xlabel("epoch")
        if axes.lines[:-1]:
            axes.legend()
    right.set_ylim(0, 1)
    return figure


def _matrix_figure(matrix: NDArray, labels: list[str]) -> Any:
    side = min(12.0, 2.5 + 0.55 * len(labels))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(picture, label="share of the reference")
    axes.set_xlabel("prediction")
    axes.set_ylabel("reference")
    if len(labels) <= _LARGEST_LABELLED_MATRIX:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        for (row, col), value in np.ndenumerate(matrix):
            color = "white" if shares[row, col] > 0.5 else "black"
            axes.text(col, row, f"{value:d}", ha="center", va="center", color=color, fontsize=7)
    return figure


def _sample_figure(part: Part, card: ModelCard, predictor: Any) -> Any:
    numbers = np.unique(np.linspace(0, len(part) - 1, min(len(part), _SAMPLES)).astype(np.int64))
    images, labels = part.read(numbers)
    predicted = predictor.predict(images).argmax(axis=1)
    rows = 3 if card.unit == "cell" else 1
    figure = _figure(1.6 * len(numbers) + 0.5, 1.7 * rows)
    grid = figure.subplots(rows, len(numbers), squeeze=False)
    palette = np.array([*card.classes.colors, _UNLABELLED_COLOR], dtype=np.uint8)
    for column, image in enumerate(images):
        grid[0, column].imshow(_picture(image))
        if rows == 1:
            truth = "-" if labels[column] == UNLABELLED else card.classes.labels[labels[column]]
            grid[0, column].set_title(f"{truth}\n> {card.classes.labels[predicted[column]]}", fontsize=7)
            continue
        for row, title, values in ((1, "label", labels), (2, "prediction", predicted)):
            grid[row, column].imshow(palette[values[column]])
            grid[row, column].set_title(title, fontsize=7)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _picture(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Red, green and blue of the third to first band where there are three, else grey; stretched to 2-98 %."""
    bands = image[2::-1] if len(image) >= 3 else image[[0, 0, 0]]
    low, high = np.percentile(bands, (2, 98), axis=(1, 2), keepdims=True)
    return np.clip((bands - low) / np.maximum(high - low, 1e-6), 0, 1).transpose(1, 2, 0)


def _count_table(card: ModelCard, counts: dict[str, NDArray[np.int64]]) -> str:
    unit = "cells" if card.unit == "cell" else "patches"
    head = "".join(f"<th>{part}, labelled {unit}</th>" for part in PARTS)
    lines = [f"<tr><th>category</th><th>label</th>{head}</tr>"]
    for index, (entry, label) in enumerate(zip(card.classes, card.classes.labels, strict=True)):
        cells = "".join(f"<td>{counts[part][index]}</td>" for part in PARTS)
        lines.append(f"<tr><td>{entry.category}</td><td>{html.escape(label)}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _definitions(values: Any) -> str:
    """Nested plain values as nested tables."""
    if isinstance(values, dict):
        lines = [
            f"<tr><td>{html.escape(str(key))}</td><td>{_definitions(value)}</td></tr>" for key, value in values.items()
        ]
        return f"<table>{''.join(lines)}</table>"
    if isinstance(values, list) and any(isinstance(value, (dict, list)) for value in values):
        return "".join(map(_definitions, values))
    return html.escape(", ".join(map(str, values)) if isinstance(values, list) else str(values))
