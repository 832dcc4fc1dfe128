"""The model directory: what passes from learning to prediction.

::

    model.json            a STAC item with the machine learning model extension (MLM)
    weights.safetensors   (or the weights file of another back-end)
    novelty.safetensors   training data in the network's feature space
    history.csv  scores.json  report.html

Everything that prediction needs stands in ``model.json``: bands, normalisation, classes with colours,
patch size, overlap. What MLM has no field for goes under keys that begin with ``rlearndeep:``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text
from rlearndeep.patches import UNITS
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.inputs import days_of
from rlearndeep.scene.novelty import FeatureSpace, check_shapes
from rlearndeep.scene.plain import listed, mapping, number, text, whole
from rlearndeep.scene.resampling import METHODS
from rlearndeep.scene.tasks import TASKS, Quantity

VERSION = 1
MANIFEST = "model.json"
NOVELTY = "novelty.safetensors"
STAC_VERSION = "1.1.0"
BRANCH = "branch"
FEATURES = "features"
"""In the place of a task: the encoder has been pre-trained, and there is nothing yet that answers."""

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"

# A manifest beyond this size was not written by this suite.
_LARGEST_MANIFEST = 16 * 1024**2
_LARGEST_PATCH = 65536
_LARGEST_AREA = 8192 * 8192

UNREADABLE = (
    DeepLearningError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
"""What reading or checking a file that somebody made up may raise."""

# What the extension allows as a name and as a version.
_MLM_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
_VERSION_NUMBER = re.compile(r"\d+\.\d+\.\d+(\+[0-9a-zA-Z.-]+)?")
_SOURCE_NAME = re.compile(r"auxiliary[1-9]\d?|series")
_LARGEST_NOVELTY = 256 * 1024**2

_FRAMEWORKS = {"torch": "PyTorch", "keras": "Keras"}

# What MLM calls the tasks; it has no word of its own for several labels.
_MLM_TASKS = {
    ("class", "cell"): "semantic-segmentation",
    ("class", "patch"): "scene-classification",
    ("presence", "patch"): "classification",
    ("value", "cell"): "regression",
    ("value", "patch"): "regression",
    (FEATURES, "cell"): "similarity-search",
    (FEATURES, "patch"): "similarity-search",
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
class ModelSource:
    """A further source that a model looks at.

    Attributes:
        name: ``auxiliary1``, ``auxiliary2``, ... or ``series``, as in the patch directory.
        bands: in the order of the network's input.
        shape: rows and columns of a window in cells of this source, for a patch of the model.
        resolution: height and width of a cell in map units.
        use: ``branch`` - the network has a branch for it and gets it in its own cells; ``nearest`` or ``bilinear`` -
            its bands are resampled into the cells of the reference and stand behind the bands of the reference and
            of the sources before it in ``ModelCard.bands``.
        normalization: of a branch, from raw values to network input; unused for resampled bands, which
            ``ModelCard.normalization`` covers.
        dates: of a series in training, ISO 8601; a series to predict may have others, and more or fewer.
    """

    name: str
    bands: tuple[Band, ...]
    shape: tuple[int, int]
    resolution: tuple[float, float]
    use: str = "branch"
    normalization: Normalization = field(default_factory=lambda: Normalization("none"))
    dates: tuple[str, ...] = ()

    def to_json(self) -> dict:
        """Plain values for the model's manifest."""
        return {
            "name": self.name,
            "bands": [band.to_json() for band in self.bands],
            "shape": list(self.shape),
            "resolution": list(self.resolution),
            "use": self.use,
            "normalization": self.normalization.to_json(),
            "dates": list(self.dates),
        }

    @classmethod
    def from_json(cls, values: dict) -> ModelSource:
        """Inverse of :meth:`to_json`."""
        return cls(
            text(values["name"]),
            tuple(Band.from_json(band) for band in listed(values["bands"])),
            _sides(values["shape"]),
            _lengths(values["resolution"]),
            text(values["use"]),
            Normalization.from_json(values["normalization"]),
            tuple(text(day) for day in listed(values["dates"])),
        )

    def check(self) -> None:
        """See that the values make sense.

        Raises:
            ValueError: they do not.
        """
        if not _SOURCE_NAME.fullmatch(self.name):
            raise ValueError(f"'{self.name[:40]}' is no name of a source")
        if self.use not in (BRANCH, *METHODS):
            raise ValueError(f"unknown use '{self.use[:40]}' of source {self.name}")
        if not self.bands or bool(self.dates) != (self.name == "series"):
            raise ValueError(f"bands or dates of source {self.name} make no sense")
        if not all(1 <= side <= _LARGEST_PATCH for side in self.shape) or self.shape[0] * self.shape[1] > _LARGEST_AREA:
            raise ValueError(f"patch {self.shape} of source {self.name} is absurd")
        if not all(side > 0 and math.isfinite(side) for side in self.resolution):
            raise ValueError(f"resolution {self.resolution} of source {self.name} is absurd")
        method, numbers = self.normalization.method, (self.normalization.mean, self.normalization.std)
        if method == "band" and any(len(values) != len(self.bands) for values in numbers):
            raise ValueError(f"normalisation of source {self.name} does not fit its bands")
        if not all(math.isfinite(value) for values in numbers for value in values):
            raise ValueError(f"a statistic of source {self.name} is not finite")
        if any(value <= 0 for value in self.normalization.std):
            raise ValueError(f"a standard deviation of source {self.name} is not positive")
        days_of(self.dates)


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
        largest: rows and columns of the largest input the network is to get; None for any. A network that loses what
            it learned within a larger picture gets patches only.
        projection: as in the patch directory.
        extent: west, south, east, north of the training data in degrees, or None.
        training: how the model was trained: options, versions, parts, command, times.
        scores: the content of ``scores.json``.
        created: ISO 8601 in UTC.
        task: what the network says, one of ``TASKS``: scores of classes that exclude each other, scores of
            classes each for itself, or a value; ``FEATURES`` where only its encoder has learned something, and the
            weights are those of the encoder.
        quantity: what the values are; None for other tasks.
        target: statistics of the training labels of a value; the network gives values with mean 0 and
            standard deviation 1 on them. None for other tasks.
        sources: further ones; none for a model of one source.
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
    largest: tuple[int, int] | None = None
    sources: tuple[ModelSource, ...] = ()

    @property
    def branches(self) -> tuple[ModelSource, ...]:
        """Sources that the network has a branch for."""
        return tuple(source for source in self.sources if source.use == BRANCH)

    @property
    def stacked(self) -> tuple[ModelSource, ...]:
        """Sources whose bands stand, resampled, behind those of the reference."""
        return tuple(source for source in self.sources if source.use != BRANCH)

    @property
    def reference_bands(self) -> tuple[Band, ...]:
        """The bands that come from the reference."""
        return self.bands[: len(self.bands) - sum(len(source.bands) for source in self.stacked)]

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
                    "bands": self._stac_bands(),  # STAC allows them among the properties only if an asset has them too
                }
            },
        }
        return item

    def _properties(self, name: str) -> dict:
        task = _MLM_TASKS[self.task, self.unit]
        version = str(self.training.get("versions", {}).get(self.backend, ""))
        return {
            "datetime": self.created or None,
            "bands": self._stac_bands(),
            "mlm:name": _mlm_name(name),
            "mlm:architecture": self.network.architecture,
            "mlm:tasks": [task],
            "mlm:framework": _FRAMEWORKS[self.backend],
            **({"mlm:framework_version": version} if _VERSION_NUMBER.fullmatch(version) else {}),
            "mlm:pretrained": bool(self.training.get("pretrained", False)),
            "mlm:pretrained_source": (self.training.get("weights") or {}).get("origin"),
            "mlm:input": [
                _mlm_input("reference", self.bands, self.patch, self.normalization),
                *(
                    _mlm_input(each.name, each.bands, each.shape, each.normalization, each.dates)
                    for each in self.branches
                ),
            ],
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
            "rlearndeep:sources": [source.to_json() for source in self.sources],
            "rlearndeep:normalization": self.normalization.to_json(),
            "rlearndeep:classes": self.classes.to_json(),
            "rlearndeep:patch": list(self.patch),
            "rlearndeep:resolution": list(self.resolution),
            "rlearndeep:stride": self.stride,
            "rlearndeep:reach": self.reach,
            "rlearndeep:largest": list(self.largest) if self.largest else None,
            "rlearndeep:projection": self.projection,
            "rlearndeep:training": self.training,
            "rlearndeep:scores": self.scores,
        }

    def _stac_bands(self) -> list[dict[str, str]]:
        """The bands that inputs name, each name once."""
        bands = [*self.bands, *(band for source in self.branches for band in source.bands)]
        return list({_band_name(band): _stac_band(band) for band in reversed(bands)}.values())[::-1]

    def _output(self, task: str) -> dict:
        if self.task == FEATURES:
            result = {"shape": [-1, -1], "dim_order": ["batch", "feature"], "data_type": "float32"}
            return {"name": "features", "tasks": [task], "result": result}
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
            backend=text(values["backend"]),
            weights=text(values["weights"]),
            network=Network(
                text(network["architecture"]),
                whole(network["bands"]),
                whole(network["classes"]),
                mapping(network["options"]),
            ),
            unit=text(values["unit"]),
            bands=tuple(Band.from_json(band) for band in listed(values["bands"])),
            normalization=Normalization.from_json(values["normalization"]),
            classes=ClassTable.from_json(values["classes"]),
            patch=_sides(values["patch"]),
            resolution=_lengths(values["resolution"]),
            stride=whole(values["stride"]),
            reach=_unless_none(whole, values["reach"]),
            projection=mapping(values["projection"]),
            extent=_unless_none(_box, item.get("bbox")),
            training=mapping(values["training"]),
            scores=mapping(values["scores"]),
            created=_unless_none(text, item["properties"].get("datetime")) or "",
            task=text(values["task"]),
            quantity=_unless_none(Quantity.from_json, values["quantity"]),
            target=_unless_none(BandStatistics.from_json, values["target"]),
            largest=_unless_none(_sides, values["largest"]),
            sources=tuple(ModelSource.from_json(source) for source in listed(values.get("sources", []))),
        )
        card._check()
        return card

    def _check(self) -> None:
        if self.unit not in UNITS or self.backend not in _FRAMEWORKS:
            raise ValueError(f"unknown unit '{self.unit}' or back-end '{self.backend}'")
        if self.task not in (*TASKS, FEATURES) or (self.task == "value") != (
            self.quantity is not None and self.target is not None
        ):
            raise ValueError(f"task '{self.task}' does not fit quantity or target")
        if self.task == "presence" and self.unit != "patch":
            raise ValueError("presence is a label of a patch, not of a cell")
        self._check_outputs()
        if self.normalization.method == "band" and len(self.normalization.mean) != len(self.bands):
            raise ValueError("normalisation does not fit the bands")
        if not all(1 <= side <= _LARGEST_PATCH for side in (*self.patch, self.stride, *(self.largest or ()))):
            raise ValueError(f"patch {self.patch} or stride {self.stride} is absurd")
        if self.patch[0] * self.patch[1] > _LARGEST_AREA:
            raise ValueError(f"patch {self.patch} is absurd")
        if self.reach is not None and not 0 <= self.reach <= _LARGEST_PATCH:
            raise ValueError(f"reach {self.reach} is absurd")
        if not all(side > 0 and math.isfinite(side) for side in self.resolution):
            raise ValueError(f"resolution {self.resolution} is absurd")
        self._check_numbers()
        self._check_training()
        for source in self.sources:
            source.check()
        stacked = sum(len(source.bands) for source in self.stacked)
        if len({source.name for source in self.sources}) != len(self.sources) or stacked >= len(self.bands):
            raise ValueError("the sources do not fit each other or the bands")
        if Path(self.weights).name != self.weights:
            raise ValueError(f"weights file '{self.weights}' lies outside the model directory")

    def _check_outputs(self) -> None:
        outputs = 1 if self.task == "value" else len(self.classes)
        if len(self.bands) != self.network.bands or outputs != self.network.classes:
            raise ValueError("bands or classes do not fit the network")
        if (self.task == "value" and len(self.classes)) or (not outputs and self.task != FEATURES):
            raise ValueError(f"{len(self.classes)} classes do not fit the task '{self.task}'")

    def _check_training(self) -> None:
        """Of the record of the training, what is read again."""
        for name in ("rules", "patches"):
            entries = self.training.get(name, [])
            for entry in [entries] if isinstance(entries, str) else listed(entries):
                text(entry)

    def _check_numbers(self) -> None:
        """JSON of Python has numbers that are none, and of any size."""
        numbers: list[float] = [*self.normalization.mean, *self.normalization.std, *(self.extent or ())]
        target = self.target
        numbers += [target.mean, target.std, target.minimum, target.maximum] if target else []
        numbers += [number(self.training.get("bf16_changes", 0.0))]
        if not all(math.isfinite(value) for value in numbers):
            raise ValueError("a statistic is not finite")
        if any(std <= 0 for std in (*self.normalization.std, *((self.target.std,) if self.target else ()))):
            raise ValueError("a standard deviation is not positive")
        if len(self.normalization.mean) != len(self.normalization.std):
            raise ValueError("means and standard deviations differ in number")


Value = TypeVar("Value")


def _unless_none(read: Callable[[Any], Value], value: Any) -> Value | None:
    return None if value is None else read(value)


def _sides(value: Any) -> tuple[int, int]:
    """Rows and columns."""
    rows, cols = listed(value)
    return whole(rows), whole(cols)


def _lengths(value: Any) -> tuple[float, float]:
    """Height and width."""
    height, width = listed(value)
    return number(height), number(width)


def _box(value: Any) -> tuple[float, float, float, float]:
    west, south, east, north = (number(edge) for edge in listed(value))
    return west, south, east, north


def _stac_band(band: Band) -> dict[str, str]:
    """A band as STAC has it: named as in the input of the model."""
    return {"name": _band_name(band), "description": f"Raster map {band.name}"}


def _band_name(band: Band) -> str:
    return str(band.semantic_label or band.name)


def _mlm_input(
    name: str, bands: Sequence[Band], shape: tuple[int, int], normalization: Normalization, dates: Sequence[str] = ()
) -> dict:
    """An input of the network as MLM describes it; a series may have any number of dates."""
    times, time_axis = ([-1], ["time"]) if dates else ([], [])
    scaling = None
    if normalization.method == "band":
        moments = zip(normalization.mean, normalization.std, strict=True)
        scaling = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in moments]
    return {
        "name": name,
        "bands": [_band_name(band) for band in bands],
        "input": {
            "shape": [-1, *times, len(bands), *shape],
            "dim_order": ["batch", *time_axis, "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": scaling,
    }


def _mlm_name(name: str) -> str:
    """The name of a model in the characters that the extension allows."""
    if _MLM_NAME.fullmatch(name):
        return name
    rest = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return f"model-{rest or 'unnamed'}"


def write_card(directory: Path, card: ModelCard, name: str) -> None:
    """Write ``model.json``; call it last, when all other files of the directory stand."""
    write_text(directory / MANIFEST, json.dumps(card.to_json(name), indent=1, ensure_ascii=False))


def read_card(path: str | os.PathLike) -> ModelCard:
    """Read ``model.json`` of a model directory that can answer; no code in it can run.

    Raises:
        DeepLearningError: no directory, no manifest, another version, damaged, or only pre-trained.
    """
    card = read_any_card(path)
    if card.task == FEATURES:
        raise DeepLearningError(
            f"A model must have been trained with labels to answer; '{path}' has only been pre-trained. Train with "
            f"weights={path} and labelled patches in patches=, and use that model."
        )
    return card


def read_any_card(path: str | os.PathLike) -> ModelCard:
    """Read ``model.json`` of a model directory, of one that has only been pre-trained too.

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
        card = ModelCard.from_json(item) if type(version) is int and version == VERSION else None
        if card is not None:
            _check_file(directory, card.weights)
    except UNREADABLE as error:
        raise _damaged(file, error) from error
    if card is None:
        raise DeepLearningError(
            f"This version reads models of version {VERSION}; '{directory}' has version {_short(version)}. "
            "Train the model again with r.learn.deep.train, or update the add-on."
        )
    return card


def _check_file(directory: Path, name: str) -> None:
    if not (directory / name).is_file():
        raise ValueError(f"{name} is missing")
    if (directory / name).resolve().parent != directory.resolve():
        raise ValueError(f"{name} lies outside the model directory")


def _damaged(file: Path, error: Exception) -> DeepLearningError:
    kind = "" if isinstance(error, DeepLearningError) else f"{type(error).__name__}: "
    return DeepLearningError(
        f"A model directory must be whole; '{file}' is damaged ({kind}{' '.join(str(error).split())[:300]}). "
        "Train the model again with r.learn.deep.train."
    )


def _short(value: Any) -> str:
    """A value of any kind in a message of one line."""
    return " ".join(str(value)[:40].split())


def write_feature_space(directory: Path, space: FeatureSpace) -> None:
    """Write ``novelty.safetensors``: the vectors, the weights, and as ``limits`` mean distance and threshold."""
    from safetensors.numpy import save

    limits = np.array([space.mean_distance, space.threshold], dtype=np.float64)
    (directory / NOVELTY).write_bytes(save({"vectors": space.vectors, "weights": space.weights, "limits": limits}))


def read_feature_space(path: str | os.PathLike) -> FeatureSpace:
    """Read ``novelty.safetensors`` of a model directory; no code in it can run.

    Raises:
        DeepLearningError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    file = Path(path) / NOVELTY
    if not file.is_file():
        raise DeepLearningError(
            f"Novelty needs the file {NOVELTY} of the model; '{path}' has none. Train the model again with this "
            "version of r.learn.deep.train, or leave novelty= out."
        )
    try:
        if file.stat().st_size > _LARGEST_NOVELTY:
            raise ValueError(f"{NOVELTY} is larger than {_LARGEST_NOVELTY} bytes")
        with safe_open(file, framework="numpy") as found:
            check_shapes(*(tuple(found.get_slice(name).get_shape()) for name in ("vectors", "weights")))
        arrays = load(file.read_bytes())
        space = FeatureSpace(arrays["weights"], arrays["vectors"], *(float(value) for value in arrays["limits"]))
        space.check()
    except (*UNREADABLE, SafetensorError) as error:
        raise _damaged(file, error) from error
    return space
