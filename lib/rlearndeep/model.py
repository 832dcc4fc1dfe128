"""The model directory: what passes from learning to prediction.

::

    model.json            a STAC item with the machine learning model extension (MLM)
    weights.safetensors   (or the weights file of another back-end)
    history.csv  scores.json  report.html

Everything that prediction needs stands in ``model.json``: bands, normalisation, classes with colours,
patch size, overlap. What MLM has no field for goes under keys that begin with ``rlearndeep:``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import UNITS, write_text
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.tasks import TASKS, Quantity

VERSION = 1
MANIFEST = "model.json"
STAC_VERSION = "1.1.0"
MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"

# A manifest beyond this size was not written by this suite.
_LARGEST_MANIFEST = 16 * 1024**2
_LARGEST_PATCH = 65536

# What MLM calls the tasks; it has no word of its own for several labels.
_MLM_TASKS = {
    ("class", "cell"): "semantic-segmentation",
    ("class", "patch"): "scene-classification",
    ("presence", "patch"): "classification",
    ("value", "cell"): "regression",
    ("value", "patch"): "regression",
}


@dataclass(frozen=True)
class Network:
    """What a back-end needs to build a network.

    Attributes:
        architecture: e.g. ``unet``, ``resnet18``, ``mlp``.
        bands: number of input bands.
        classes: number of outputs: of classes, or 1 for a value.
        options: JSON values, e.g. ``{"encoder": "resnet18"}`` or ``{"hidden": [128, 64], "dropout": 0.2}``.
    """

    architecture: str
    bands: int
    classes: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says.

    Attributes:
        backend: ``torch`` or ``keras``.
        weights: file name inside the directory.
        network: how to build the network.
        unit: ``cell`` (scores per cell of a patch) or ``patch`` (scores per patch).
        bands: in the order of the network's input.
        normalization: from raw values to network input.
        classes: in the order of the network's output; none for the task ``value``.
        patch: rows and columns of the training patches.
        resolution: height and width of a cell in map units.
        stride: rows and columns of network input must be multiples of it; tiles start at multiples of it.
        reach: distance in cells beyond which the network's answer for a cell is practically independent
            of the input; 0 for single cells, None where it has no meaning (one answer per patch).
        projection: as in the patch directory.
        extent: west, south, east, north of the training data in degrees, or None.
        training: how the model was trained: options, versions, parts, command, times.
        scores: the content of ``scores.json``.
        created: ISO 8601 in UTC.
        task: what the network says, one of ``TASKS``: scores of classes that exclude each other, scores of
            classes each for itself, or a value.
        quantity: what the values are; None for other tasks.
        target: statistics of the training labels of a value; the network gives values with mean 0 and
            standard deviation 1 on them. None for other tasks.
    """

    backend: str
    weights: str
    network: Network
    unit: str
    bands: tuple[Band, ...]
    normalization: Normalization
    classes: ClassTable
    patch: tuple[int, int]
    resolution: tuple[float, float]
    stride: int = 1
    reach: int | None = 0
    projection: dict[str, Any] = field(default_factory=dict)
    extent: tuple[float, float, float, float] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    task: str = "class"
    quantity: Quantity | None = None
    target: BandStatistics | None = None

    def to_json(self, name: str) -> dict:
        """The STAC item."""
        west, south, east, north = self.extent or (None,) * 4
        geometry = (
            {
                "type": "Polygon",
                "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
            }
            if self.extent
            else None
        )
        item = {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": [MLM_SCHEMA],
            "id": name,
            "geometry": geometry,
            **({"bbox": list(self.extent)} if self.extent else {}),
            "properties": self._properties(name),
            "links": [],
            "assets": {
                "weights": {
                    "href": f"./{self.weights}",
                    "title": "Trained weights",
                    "type": "application/octet-stream",
                    "roles": ["mlm:model", "mlm:weights"],
                    "mlm:artifact_type": "safetensors" if self.weights.endswith(".safetensors") else "keras",
                }
            },
        }
        return item

    def _properties(self, name: str) -> dict:
        task = _MLM_TASKS[self.task, self.unit]
        return {
            "datetime": self.created or None,
            "mlm:name": name,
            "mlm:architecture": self.network.architecture,
            "mlm:tasks": [task],
            "mlm:framework": {"torch": "PyTorch", "keras": "Keras"}[self.backend],
            "mlm:framework_version": str(self.training.get("versions", {}).get(self.backend, "unknown")),
            "mlm:pretrained": bool(self.training.get("pretrained", False)),
            "mlm:input": [self._input()],
            "mlm:output": [self._output(task)],
            "rlearndeep:version": VERSION,
            "rlearndeep:backend": self.backend,
            "rlearndeep:weights": self.weights,
            "rlearndeep:network": {
                "architecture": self.network.architecture,
                "bands": self.network.bands,
                "classes": self.network.classes,
                "options": self.network.options,
            },
            "rlearndeep:unit": self.unit,
            "rlearndeep:task": self.task,
            "rlearndeep:quantity": self.quantity.to_json() if self.quantity else None,
            "rlearndeep:target": self.target.to_json() if self.target else None,
            "rlearndeep:bands": [band.to_json() for band in self.bands],
            "rlearndeep:normalization": self.normalization.to_json(),
            "rlearndeep:classes": self.classes.to_json(),
            "rlearndeep:patch": list(self.patch),
            "rlearndeep:resolution": list(self.resolution),
            "rlearndeep:stride": self.stride,
            "rlearndeep:reach": self.reach,
            "rlearndeep:projection": self.projection,
            "rlearndeep:training": self.training,
            "rlearndeep:scores": self.scores,
        }

    def _input(self) -> dict:
        return {
            "name": "reference",
            "bands": [str(band.semantic_label or band.name) for band in self.bands],
            "input": {
                "shape": [-1, len(self.bands), *self.patch],
                "dim_order": ["batch", "bands", "height", "width"],
                "data_type": "float32",
            },
            "value_scaling": self._scaling(),
        }

    def _output(self, task: str) -> dict:
        axis = "value" if self.task == "value" else "class"
        shape, order = [-1, self.network.classes], ["batch", axis]
        if self.unit == "cell":
            shape, order = [*shape, *self.patch], [*order, "height", "width"]
        return {
            "name": "values" if self.task == "value" else "scores",
            "tasks": [task],
            "result": {"shape": shape, "dim_order": order, "data_type": "float32"},
            "classification:classes": [
                {
                    "value": index,
                    "name": str(entry.category),
                    "description": label,
                    "color_hint": "{:02X}{:02X}{:02X}".format(*color),
                }
                for index, (entry, label, color) in enumerate(
                    zip(self.classes, self.classes.labels, self.classes.colors, strict=True)
                )
            ],
        }

    def _scaling(self) -> list[dict] | None:
        if self.normalization.method != "band":
            return None
        return [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(self.normalization.mean, self.normalization.std, strict=True)
        ]

    @classmethod
    def from_json(cls, item: dict) -> ModelCard:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: the item is not a model of this suite.
        """
        values = {
            key.removeprefix("rlearndeep:"): value
            for key, value in item["properties"].items()
            if key.startswith("rlearndeep:")
        }
        network = values["network"]
        card = cls(
            backend=str(values["backend"]),
            weights=str(values["weights"]),
            network=Network(
                str(network["architecture"]), int(network["bands"]), int(network["classes"]), dict(network["options"])
            ),
            unit=str(values["unit"]),
            bands=tuple(Band.from_json(band) for band in values["bands"]),
            normalization=Normalization.from_json(values["normalization"]),
            classes=ClassTable.from_json(values["classes"]),
            patch=(int(values["patch"][0]), int(values["patch"][1])),
            resolution=(float(values["resolution"][0]), float(values["resolution"][1])),
            stride=int(values["stride"]),
            reach=None if values["reach"] is None else int(values["reach"]),
            projection=dict(values["projection"]),
            extent=tuple(item["bbox"]) if item.get("bbox") else None,
            training=dict(values["training"]),
            scores=dict(values["scores"]),
            created=str(item["properties"].get("datetime") or ""),
            task=str(values["task"]),
            quantity=Quantity.from_json(values["quantity"]) if values["quantity"] else None,
            target=BandStatistics.from_json(values["target"]) if values["target"] else None,
        )
        card._check()
        return card

    def _check(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit '{self.unit}'")
        if self.task not in TASKS or (self.task == "value") != (self.quantity is not None and self.target is not None):
            raise ValueError(f"task '{self.task}' does not fit quantity or target")
        outputs = 1 if self.task == "value" else len(self.classes)
        if len(self.bands) != self.network.bands or outputs != self.network.classes:
            raise ValueError("bands or classes do not fit the network")
        if self.normalization.method == "band" and len(self.normalization.mean) != len(self.bands):
            raise ValueError("normalisation does not fit the bands")
        if not all(1 <= side <= _LARGEST_PATCH for side in (*self.patch, self.stride)):
            raise ValueError(f"patch {self.patch} or stride {self.stride} is absurd")
        if Path(self.weights).name != self.weights:
            raise ValueError(f"weights file '{self.weights}' lies outside the model directory")


def write_card(directory: Path, card: ModelCard, name: str) -> None:
    """Write ``model.json``; call it last, when all other files of the directory stand."""
    write_text(directory / MANIFEST, json.dumps(card.to_json(name), indent=1, ensure_ascii=False))


def read_card(path: str | os.PathLike) -> ModelCard:
    """Read ``model.json`` of a model directory; no code in it can run.

    Raises:
        DeepLearningError: no directory, no manifest, another version, or damaged.
    """
    directory = Path(path)
    file = directory / MANIFEST
    if not file.is_file():
        raise DeepLearningError(
            f"A model directory holds a {MANIFEST}; '{directory}' has none. Train a model with r.learn.deep.train."
        )
    try:
        if file.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError(f"{MANIFEST} is larger than {_LARGEST_MANIFEST} bytes")
        item = json.loads(file.read_text(encoding="utf-8"))
        version = item["properties"]["rlearndeep:version"]
        if version != VERSION:
            raise DeepLearningError(
                f"This version reads models of version {VERSION}; '{directory}' has version {version}. "
                "Train the model again with r.learn.deep.train, or update the add-on."
            )
        card = ModelCard.from_json(item)
        if not (directory / card.weights).is_file():
            raise ValueError(f"{card.weights} is missing")
    except DeepLearningError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DeepLearningError(
            f"A model directory must be whole; '{directory}' is damaged ({type(error).__name__}: {error}). "
            "Train the model again with r.learn.deep.train."
        ) from error
    return card
