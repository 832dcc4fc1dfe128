"""Where a model was trained: cells inside the footprints of its training patches."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.geometry import Region, Window

_XY = "XY"

# Which edges of a rectangle (north, south, east, west) move in a turn around the globe.
_EASTINGS = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class Footprints:
    """Rectangles of cells, counted in one region.

    Attributes:
        rows: (n, 2) first row and row after the last, ascending by the first.
        cols: (n, 2) first column and column after the last.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """True inside any footprint, (rows, cols) of the window."""
        result = np.zeros(window.shape, dtype=bool)
        touched = np.flatnonzero((self.rows[:, 0] < window.row_stop) & (self.rows[:, 1] > window.row_start))
        rows = np.clip(self.rows[touched] - window.row_start, 0, window.rows)
        cols = np.clip(self.cols[touched] - window.col_start, 0, window.cols)
        for (top, bottom), (left, right) in zip(rows.tolist(), cols.tolist(), strict=True):
            result[top:bottom, left:right] = True
        return result

    def __add__(self, other: Footprints) -> Footprints:
        """Both together."""
        rows, cols = np.concatenate([self.rows, other.rows]), np.concatenate([self.cols, other.cols])
        order = np.argsort(rows[:, 0], kind="stable")
        return Footprints(rows[order], cols[order])

    @classmethod
    def of_rectangles(cls, edges: NDArray[np.float64], region: Region, turn: float | None = None) -> Footprints:
        """Footprints of rectangles in map units, (n, 4) north, south, east, west.

        A cell belongs to a footprint when its centre does. On the globe, where rectangles are repeated after each
        ``turn`` (360 degrees), they lie in the one that the region lies in, or in two.
        """
        if turn is not None:
            first = edges - np.floor((edges[:, 3:] - region.west) / turn) * (turn * _EASTINGS)
            edges = np.concatenate([first, first - turn * _EASTINGS])
        rows = _cells(edges[:, :2], region.north, -region.nsres)
        cols = _cells(edges[:, [3, 2]], region.west, region.ewres)
        order = np.argsort(rows[:, 0], kind="stable")
        return cls(rows[order], cols[order])


def training_footprints(
    models: Sequence[str | os.PathLike],
    region: Region,
    project: Mapping[str, Any] | None = None,
    turn: float | None = None,
) -> Footprints:
    """Footprints, in cells of a region, of the training patches of models.

    The model directory names the patch directories it was trained with.

    Args:
        models: their directories.
        region: the grid.
        project: coordinate system of the region, as in a patch directory; None where it is not known.
        turn: as for :meth:`Footprints.of_rectangles`.

    Raises:
        DeepLearningError: no model, or a patch directory it names is gone, was sampled anew since, or has coordinates
            of another system.
    """
    edges = [np.empty((0, 4))]
    for directory in models:
        reports = read_card(directory).training.get("sampling") or []
        for path, report in zip(patch_directories(directory), chain(reports, repeat(None)), strict=False):
            dataset = PatchDataset.open(path)
            _check_report(dataset, report, directory)
            _check_project(dataset, project or {})
            chosen = dataset.index[dataset.positions("training")]
            home = dataset.manifest.region
            north, west = home.north - chosen["row"] * home.nsres, home.west + chosen["col"] * home.ewres
            # A patch may be padded, below and to the right; its middle is that of what it shows.
            south, east = 2 * chosen["north"] - north, 2 * chosen["east"] - west
            edges.append(np.stack([north, south, east, west], axis=1))
    return Footprints.of_rectangles(np.concatenate(edges), region, turn)


def _check_report(dataset: PatchDataset, report: Mapping[str, Any] | None, model: str | os.PathLike) -> None:
    """Refuse patches that took the place of those a model was trained with; ``report`` is that of the latter."""
    if report is not None and _found_then(report) != _found_then(dataset.manifest.report):
        raise DeepLearningError(
            f"Training footprints are those of the patches a model was trained with; '{dataset.path}' was sampled anew "
            f"since '{model}' was trained. Give the footprints that v.sample.patches wrote then with footprints=, or "
            "train again."
        )


def _found_then(report: Mapping[str, Any]) -> str:
    """A report without what differs between two runs that find the same patches; NaN equals NaN in a text."""
    return json.dumps({key: value for key, value in report.items() if key != "seconds"}, sort_keys=True)


def _check_project(dataset: PatchDataset, project: Mapping[str, Any]) -> None:
    theirs = dataset.manifest.projection
    codes = [system.get("epsg") for system in (theirs, project)]
    names = [system.get("name") for system in (theirs, project)]
    if (all(names) and names.count(_XY) == 1) or (all(codes) and codes[0] != codes[1]):
        raise DeepLearningError(
            f"Training footprints lie in the coordinate system of their patches; that of '{dataset.path}' is "
            f"{names[0]}, that of the project {names[1]}. Give the footprints that v.sample.patches wrote, brought "
            "here with v.proj, with footprints=."
        )


def _cells(edges: NDArray[np.float64], origin: float, step: float) -> NDArray[np.int64]:
    """First cell and cell after the last, (n, 2), whose centres lie between two edges of an axis."""
    return np.ceil((edges - origin) / step - 0.5 - 1e-6).astype(np.int64)


def patch_directories(model: str | os.PathLike) -> list[Path]:
    """The patch directories that a model was trained with, as they lie now.

    Raises:
        DeepLearningError: no model, one that names none, or a directory that is gone.
    """
    named = read_card(model).training.get("patches") or []
    named = [named] if isinstance(named, str) else named
    if not named:
        raise DeepLearningError(
            f"The model directory must name the patches it was trained with; '{model}' names none. "
            "Give the footprints that v.sample.patches wrote with footprints=."
        )
    return [_found(Path(path), Path(model)) for path in named]


def _found(path: Path, model: Path) -> Path:
    """The patch directory as it was named, seen from here or from beside the model."""
    for place in (path, model.absolute().parent / path):
        if place.is_dir():
            return place
    raise DeepLearningError(
        f"The patches a model was trained with must still be there; '{path}' of '{model}' is not. "
        "Give the footprints that v.sample.patches wrote with footprints= instead."
    )
