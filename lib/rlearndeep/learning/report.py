"""report.html: one self-contained page about a trained model."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.files import write_text
from rlearndeep.learning.feeding import Part
from rlearndeep.learning.pretraining import outcome_text
from rlearndeep.learning.tasks import PRESENT, Measure, score_table
from rlearndeep.model import BRANCH, ModelCard, ModelSource
from rlearndeep.patches import PARTS
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import UNLABELLED, shortened
from rlearndeep.scene.inputs import Inputs

if TYPE_CHECKING:
    from rlearndeep.learning.training import Plan

_SAMPLES = 6
_SCATTER_CELLS = 65536
_SCATTER_POINTS = 4000
_SCATTER_BATCH = 16
_FEWEST_SCATTERED = 32
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
    plan: Plan,
    predictor: Any,
    pretraining: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page; pictures are inside it. ``pretraining`` is the history of what was learned without labels."""
    shown = next(part for part in reversed(PARTS) if card.scores["parts"][part])
    scores = card.scores["parts"][shown]
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p>{html.escape(_summary(card))}</p>",
        *[f"<p><b>{html.escape(remark)}</b></p>" for remark in card.training["remarks"]],
        f"<h2>Scores of the {shown} part</h2>",
        f"<pre>{html.escape(score_table(scores))}</pre>",
        _score_image(scores, card, plan.parts[shown], predictor),
        *_pretraining(pretraining, card.scores),
        "<h2>Training</h2>",
        _image(_curve_figure(history, card.scores["best_epoch"], plan.task.measure), "curves"),
        f"<h2>Samples of the {shown} part{', as the reference shows them' if card.sources else ''}</h2>",
        _image(_sample_figure(plan.parts[shown], card, predictor), "image, label and prediction"),
        "<h2>Patches</h2>",
        _value_table(card, plan.values) if plan.values else _count_table(card, plan.counts),
        _definitions({"sampling": card.training["sampling"], "commands": card.training["sampling_commands"]}),
        "<h2>Settings</h2>",
        _definitions({**card.training["settings"], "command": card.training["command"]}),
        _definitions(card.training["versions"]),
    ]
    _write_page(file, name, body)


def _write_page(file: Path, name: str, body: Sequence[str]) -> None:
    title = html.escape(name)
    page = f"<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style></head>"
    write_text(file, f"{page}<body>\n" + "\n".join(body) + "\n</body></html>\n")


def _summary(card: ModelCard) -> str:
    bands = ", ".join(map(str, card.bands))
    answer = _quantity(card) if card.quantity else f"{len(card.classes)} classes"
    further = "".join(map(_source, card.sources))
    own = f"{len(card.bands)} bands ({bands})"
    if not card.network.options.get("reference", True):
        own = "only the grid of the reference"
    return (
        f"{card.network.architecture}, {own}, {further}{answer}, patches of "
        f"{card.patch[0]} x {card.patch[1]} cells of {card.resolution[0]:g} x {card.resolution[1]:g} map units, a "
        f"label per {card.unit}. {card.scores['epochs']} epochs on {card.training['device']}, the best was "
        f"{card.scores['best_epoch']}. {card.created}"
    )


def _source(source: ModelSource) -> str:
    """A further source in words, with a comma behind it."""
    bands = ", ".join(map(str, source.bands))
    dates = f" of {len(source.dates)} dates from {source.dates[0]} to {source.dates[-1]}" if source.dates else ""
    use = "in a branch of its own" if source.use == BRANCH else f"resampled ({source.use})"
    return f"{source.name} ({bands}{dates}, cells of {source.resolution[0]:g} x {source.resolution[1]:g}) {use}, "


def write_pretraining_report(file: Path, name: str, card: ModelCard, history: Sequence[dict[str, Any]]) -> None:
    """Write the page of an encoder that has only been pre-trained."""
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p>{html.escape(_encoder_summary(card))}</p>",
        *[f"<p><b>{html.escape(remark)}</b></p>" for remark in card.training["remarks"]],
        *_pretraining(history, card.scores),
        "<h2>Patches</h2>",
        _definitions({"sampling": card.training["sampling"], "commands": card.training["sampling_commands"]}),
        "<h2>Settings</h2>",
        _definitions({**card.training["settings"], "command": card.training["command"]}),
        _definitions(card.training["versions"]),
    ]
    _write_page(file, name, body)


def _encoder_summary(card: ModelCard) -> str:
    bands = ", ".join(map(str, card.bands))
    return (
        f"Encoder of {card.network.architecture}, {len(card.bands)} bands ({bands}), learned without labels from "
        f"{card.training['parts']['training']} patches of {card.patch[0]} x {card.patch[1]} cells of "
        f"{card.resolution[0]:g} x {card.resolution[1]:g} map units, on {card.training['device']}. To begin a training "
        f"with it, give this directory as weights=. {card.created}"
    )


def _pretraining(history: Sequence[dict[str, Any]], scores: dict[str, Any]) -> list[str]:
    """What was learned without labels, for the page; nothing where nothing was."""
    if not history:
        return []
    figure = _figure(5, 3.2)
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    for key, label in (("training_loss", "training"), ("validation_loss", "patches held out")):
        axes.plot(epochs, [row[key] for row in history], marker=".", label=label)
    _mark_epochs(axes, scores["pretraining"]["best_epoch"])
    axes.set_ylabel("contrastive loss")
    axes.legend()
    text = html.escape(outcome_text(scores["pretraining"]))
    return ["<h2>Pre-training</h2>", f"<pre>{text}</pre>", _image(figure, "curve of pre-training")]


def _mark_epochs(axes: Any, best: int) -> None:
    """Whole epochs along the axis, and a line at the best one."""
    axes.axvline(best, color="0.7", linestyle=":")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")


def _figure(width: float, height: float) -> Any:
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # labels are anybody's text, dollars and all
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _image(figure: Any, text: str) -> str:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that letters are missing in the font
        figure.savefig(stream, format="png", dpi=90)
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'>"


def _quantity(card: ModelCard) -> str:
    if card.quantity is None:
        return ""
    return f"{card.quantity.name} ({card.quantity.units})" if card.quantity.units else card.quantity.name


def _score_image(scores: dict[str, Any], card: ModelCard, part: Part, predictor: Any) -> str:
    if card.task == "value":
        return _image(_scatter_figure(part, card, predictor), "actual against predicted")
    if card.task == "presence":
        return _image(_bar_figure(scores["classes"], _labels(card)), "scores of the classes")
    return _image(_matrix_figure(np.array(scores["confusion_matrix"]), _labels(card)), "confusion matrix")


def _curve_figure(history: list[dict[str, Any]], best: int, measure: Measure) -> Any:
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, keys in ((left, ("training_loss", "validation_loss")), (right, (measure.column,))):
        for key in keys:
            if history[0][key] is not None:
                axes.plot(epochs, [row[key] for row in history], marker=".", label=key.replace("_", " "))
        _mark_epochs(axes, best)
        if axes.lines[:-1]:
            axes.legend()
    if measure.sign > 0:
        right.set_ylim(0, 1)
    return figure


def _scatter_figure(part: Part, card: ModelCard, predictor: Any) -> Any:
    """Predicted against actual values of a sample of the part."""
    actual, said = _scattered(part, card, predictor)
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.scatter(actual, said, s=6, alpha=0.4)
    if len(actual):
        limits = [min(actual.min(), said.min()), max(actual.max(), said.max())]
        axes.plot(limits, limits, color="0.5", linewidth=1)
    axes.set_xlabel(f"actual {_quantity(card)}")
    axes.set_ylabel("predicted")
    axes.set_aspect("equal")
    return figure


def _scattered(part: Part, card: ModelCard, predictor: Any) -> tuple[NDArray, NDArray]:
    """Labels and answers of some labelled cells (or patches); of large patches there are still several."""
    cells = card.patch[0] * card.patch[1]
    sample = part.sample(max(_FEWEST_SCATTERED, _SCATTER_CELLS // (cells if card.unit == "cell" else 1)))
    pairs = []
    for images, labels in sample.batches(max(1, min(_SCATTER_BATCH, predictor.pixels_per_batch // cells))):
        pair = np.stack([labels.ravel(), predictor.predict(images).ravel()])
        pairs.append(_thinned(pair[:, ~np.isnan(pair[0])]))
    actual, said = _thinned(np.concatenate(pairs, axis=1))
    return actual, said


def _thinned(pairs: NDArray) -> NDArray:
    """Of (2, n) pairs so many as a figure can show."""
    return pairs[:, :: max(1, pairs.shape[1] // _SCATTER_POINTS)].copy()


def _bar_figure(entries: list[dict[str, Any]], labels: list[str]) -> Any:
    """Precision, recall and F1 per class."""
    figure = _figure(min(14.0, 3 + 0.6 * len(labels)), 3.5)
    axes = figure.subplots()
    for number, key in enumerate(("precision", "recall", "f1")):
        heights = [entry[key] or 0.0 for entry in entries]
        axes.bar(np.arange(len(labels)) + (number - 1) * 0.27, heights, width=0.27, label=key)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_ylim(0, 1)
    axes.legend()
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
    sample = part.sample(min(len(part), _SAMPLES))
    images, labels = sample.read(np.arange(len(sample)))
    answers = predictor.predict(images)
    rows = 3 if card.unit == "cell" else 1
    figure = _figure(1.6 * len(images) + 0.5, 1.7 * rows)
    grid = figure.subplots(rows, len(images), squeeze=False)
    for column, image in enumerate(images.images if isinstance(images, Inputs) else images):
        grid[0, column].imshow(_picture(image))
        if rows == 1:
            texts = _text(card, labels[column]), _text(card, _said(card, answers[column]))
            grid[0, column].set_title("{}\n> {}".format(*texts), fontsize=7)
    if rows > 1:
        _show_cells(grid, card, labels, answers)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _show_cells(grid: Any, card: ModelCard, labels: NDArray, answers: NDArray[np.float32]) -> None:
    """Labels in the second row, answers in the third; values share one scale."""
    options: dict[str, Any] = {}
    if card.task == "value":
        low, high = np.nanpercentile(answers if np.isnan(labels).all() else labels, (2, 98))
        options = {"vmin": low, "vmax": high, "cmap": "viridis"}
        pictures = labels, answers[:, 0]
    else:
        palette = np.array([*card.classes.colors, _UNLABELLED_COLOR], dtype=np.uint8)
        pictures = palette[labels], palette[answers.argmax(axis=1)]
    for row, title, values in ((1, "label", pictures[0]), (2, "prediction", pictures[1])):
        for axes, picture in zip(grid[row], values, strict=True):
            shown = axes.imshow(picture, **options)
            axes.set_title(title, fontsize=7)
    if options:
        grid[0, 0].figure.colorbar(shown, ax=grid[1:], label=_quantity(card))


def _said(card: ModelCard, answer: NDArray[np.float32]) -> NDArray:
    """An answer for a patch in the form of its label."""
    if card.task == "value":
        return answer[0]
    return (answer >= PRESENT).astype(np.int64) if card.task == "presence" else np.asarray(answer.argmax())


def _text(card: ModelCard, label: NDArray) -> str:
    """A label of a patch in words."""
    if card.task == "value":
        return f"{float(label):.4g}"
    if card.task == "presence":
        return ", ".join(name for name, there in zip(_labels(card), label, strict=True) if there == 1) or "none"
    return "-" if label == UNLABELLED else _labels(card)[int(label)]


def _labels(card: ModelCard) -> list[str]:
    """Labels of the classes, as far as pictures have room."""
    return [shortened(label) for label in card.classes.labels]


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


def _value_table(card: ModelCard, values: dict[str, BandStatistics]) -> str:
    unit = "cells" if card.unit == "cell" else "patches"
    names = (f"labelled {unit}", "mean", "standard deviation", "minimum", "maximum")
    lines = ["<tr><th>part</th>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for part, found in values.items():
        numbers = [found.mean, found.std, found.minimum, found.maximum] if found.count else []
        cells = "".join(f"<td>{number:.6g}</td>" for number in numbers)
        lines.append(f"<tr><td>{part}</td><td>{found.count}</td>{cells}</tr>")
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
