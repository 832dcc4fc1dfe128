"""Fake networks and scenes made of arrays, to predict without GRASS and without a framework."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from rlearndeep.model import ModelCard, ModelSource, Network
from rlearndeep.prediction.answers import Member, Question, Subject
from rlearndeep.prediction.branches import Branch, FurtherSource
from rlearndeep.prediction.stream import Job
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region, Window
from rlearndeep.scene.inputs import Further, Inputs
from scipy.ndimage import uniform_filter


class Sheet:
    """A writer that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[NDArray] = []

    def write(self, rows: NDArray) -> None:
        self.rows.extend(rows)


@dataclass
class Scene:
    """An array in map coordinates, seen through a region of its grid.

    Attributes:
        values: (bands, rows, cols); NaN is null.
        region: counts cells; the array's first cell is ``offset`` from the region's.
        offset: rows and columns from the region's first cell to the array's.
        read_cells: windows that were read.
    """

    values: NDArray
    region: Region
    offset: tuple[int, int] = (0, 0)
    read_cells: list[Window] = field(default_factory=list)

    @property
    def extent(self) -> Window:
        """The array's cells."""
        return Window(0, self.values.shape[1], 0, self.values.shape[2]).shifted(*self.offset)

    def read(self, window: Window) -> NDArray:
        """Values of a window, NaN outside the array."""
        self.read_cells.append(window)
        result = np.full((len(self.values), *window.shape), np.nan, dtype=np.float32)
        common = window.intersection(self.extent)
        if not common.is_empty:
            rows, cols = common.relative_to(window).slices
            source_rows, source_cols = common.relative_to(self.extent).slices
            result[:, rows, cols] = self.values[:, source_rows, source_cols]
        return result


def softmax(logits: NDArray, axis: int) -> NDArray[np.float32]:
    """Scores that sum to 1."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return (powers / powers.sum(axis=axis, keepdims=True)).astype(np.float32)


class BoxPredictor:
    """Sees the mean of a box around each cell; beyond its input it sees zeros, as convolutions do."""

    pixels_per_batch = 600
    is_apart = False

    def __init__(self, reach: int, classes: int = 3) -> None:
        self.reach = reach
        self.classes = classes
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        size = 2 * self.reach + 1
        means = uniform_filter(batch.astype(np.float64), (1, 1, size, size), mode="constant")
        return softmax(self.logits(means), axis=1)

    def logits(self, means: NDArray) -> NDArray:
        """Class k likes band k modulo the number of bands, and is k's own."""
        return np.stack([means[:, k % means.shape[1]] * (k + 1) - k / 3 for k in range(self.classes)], axis=1)


class ConstantPredictor:
    """The same scores everywhere."""

    pixels_per_batch = 300
    is_apart = False

    def __init__(self, scores: tuple[float, ...]) -> None:
        self.scores = np.array(scores, dtype=np.float32)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.broadcast_to(
            self.scores[None, :, None, None], (len(batch), len(self.scores), *batch.shape[2:])
        ).copy()


class PatchPredictor:
    """Scores of a patch from its corner cells and its mean, so that a shift by one cell is seen."""

    pixels_per_batch = 200
    is_apart = False

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        first = batch[:, 0, 0, 0]
        last = batch[:, 0, -1, -1]
        return softmax(np.stack([first, last, batch.mean(axis=(1, 2, 3))], axis=1), axis=1)


class FusingPredictor:
    """Looks at every source where its ground lies, and a little at the whole window, so that a shift is seen."""

    pixels_per_batch = 200
    is_apart = False

    def __init__(self, unit: str = "cell") -> None:
        self.unit = unit
        self.batches: list[Inputs] = []

    def predict(self, batch: Inputs) -> NDArray[np.float32]:
        self.batches.append(batch)
        count, _, rows, cols = batch.shape
        total = batch.images.mean(axis=1)
        for number, name in enumerate(sorted(batch.further)):
            plane, context = self.seen(batch.further[name], rows, cols)
            total = total + (number + 1) * (plane + 0.1 * context[:, None, None])
        scores = softmax(np.stack([total, 0.5 - total, np.zeros_like(total)], axis=1), axis=1)
        assert scores.shape == (count, 3, rows, cols)
        return scores if self.unit == "cell" else scores.mean(axis=(2, 3))

    @staticmethod
    def seen(source: Further, rows: int, cols: int) -> tuple[NDArray, NDArray]:
        """Its values in the cells of the reference, (N, rows, cols), and a number for the whole window, (N,)."""
        values, valid = source.values, source.valid
        if source.days.shape[1]:
            assert source.days.shape == values.shape[:2]
            values = (values * (1 + source.days / 365)[:, :, None, None, None]).mean(axis=1)
            valid = valid.any(axis=1)
        assert values.shape[2:] == valid.shape[1:]
        plane = values.mean(axis=1)
        top, left, height, width = source.box.T[:, :, None]
        down = np.floor(top + (np.arange(rows) + 0.5) / rows * height + 1e-4).astype(int)
        right = np.floor(left + (np.arange(cols) + 0.5) / cols * width + 1e-4).astype(int)
        inside = (down >= 0) & (down < plane.shape[1]), (right >= 0) & (right < plane.shape[2])
        place = np.arange(len(plane))[:, None, None]
        found = plane[
            place, down.clip(0, plane.shape[1] - 1)[:, :, None], right.clip(0, plane.shape[2] - 1)[:, None, :]
        ]
        weights = np.arange(plane[0].size).reshape(plane.shape[1:]) % 7
        return found * (inside[0][:, :, None] & inside[1][:, None, :]), (plane * weights).mean(axis=(1, 2))


def coordinates(region: Region) -> NDArray:
    """North and east of the centres of all cells, (2, rows, cols)."""
    east, north = region.centre(*np.mgrid[0 : region.rows, 0 : region.cols])
    return np.stack([north, east]).astype(np.float32)


def make_source(name: str, region: Region, shape: tuple[int, int], dates: tuple[str, ...] = (), **more) -> ModelSource:
    """A source of two bands that a model looks at."""
    bands = (Band(f"{name}_0"), Band(f"{name}_1"))
    return ModelSource(name, bands, shape, (region.nsres, region.ewres), dates=dates, **more)


def fusing(card: ModelCard, further: dict[str, Scene], sources: tuple[ModelSource, ...]) -> tuple[Member, dict]:
    """A model with a branch per source, and what its job needs of them."""
    predictor = FusingPredictor(card.unit)
    branches = tuple(Branch(source, tuple(range(len(source.bands)))) for source in sources)
    given = {
        source.name: FurtherSource(further[source.name], further[source.name].region, source.dates)
        for source in sources
        if source.name in further
    }
    card = replace(card, sources=sources)
    return Member(predictor, card, tuple(range(len(card.bands))), branches=branches), given


def make_card(
    unit: str = "cell",
    bands: int = 2,
    classes: int = 3,
    patch: tuple[int, int] = (4, 4),
    stride: int = 1,
    reach: int | None = 0,
    normalization: Normalization | None = None,
) -> ModelCard:
    """A card without a directory."""
    return ModelCard(
        backend="torch",
        weights="weights.safetensors",
        network=Network("fake", bands, classes),
        unit=unit,
        bands=tuple(Band(f"b{number}") for number in range(bands)),
        normalization=normalization or Normalization("none"),
        classes=ClassTable(tuple(MapClass(10 * number + 5, f"class {number}") for number in range(classes))),
        patch=patch,
        resolution=(1.0, 1.0),
        stride=stride,
        reach=reach,
    )


def member(predictor, card: ModelCard) -> Member:
    return Member(predictor, card, tuple(range(len(card.bands))))


def job_of(scene: Scene, region: Region, models: list[Member], plan, chunk: int = 9, **more) -> Job:
    question = more.pop("question", None) or Question(Subject.of(models[0].card))
    return Job(more.pop("source", scene), region, scene.extent, models, plan, question, chunk, **more)


def region_at(row: int, col: int, rows: int, cols: int) -> Region:
    """A region of cells of one unit, whose first cell is (row, col) of the endless grid."""
    return Region(-row, -row - rows, col + cols, col, rows, cols)


def random_values(seed: int, shape: tuple[int, int], bands: int = 2, holes: float = 0.1) -> NDArray:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(bands, *shape)).astype(np.float32)
    values[:, generator.random(shape) < holes] = np.nan
    return values
