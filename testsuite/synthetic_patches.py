"""Small patch directories with a known answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rlearndeep.patches import PARTS, Manifest, PatchDataset, PatchWriter, Source
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region, Windows
from rlearndeep.scene.tasks import Quantity

CATEGORIES = (10, 20, 30)
CLASSES = ClassTable(tuple(MapClass(value, f"class {value}", (value, 100, 200 - value)) for value in CATEGORIES))


def make_patches(
    path: Path,
    unit: str = "cell",
    size: int = 16,
    count: int = 60,
    *,
    bands: int = 4,
    seed: int = 0,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    unlabelled: float = 0.05,
    null: float = 0.0,
    task: str = "class",
) -> PatchDataset:
    """Band k is bright where the class is k, in 16-bit numbers that are far from 0 and 1.

    Cells that are null hold a wild value; unlabelled ones have the largest value of the type as label. For the task
    ``presence`` a patch has the classes of its cells, for ``value`` the label is 100 + 10 times the class, of the
    cell, or the mean over the patch.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(len(CLASSES), size=(count, -(-size // 4), -(-size // 4)))
    truth = truth.repeat(4, axis=1).repeat(4, axis=2)[:, :size, :size]
    if unit == "patch" and task == "class":
        truth[:] = truth[:, :1, :1]
    images = random.normal(2000, 60, (count, bands, size, size))
    for band in range(min(bands, len(CLASSES))):
        images[:, band] += 300 * (truth == band)
    images = images.astype(np.uint16)
    valid = random.random((count, size, size)) >= null
    images[np.broadcast_to(~valid[:, None], images.shape)] = 65535
    parts = np.arange(count) % 10
    parts = np.searchsorted(np.cumsum(shares) * 10 - 1e-6, parts, side="right").clip(max=len(PARTS) - 1)
    labels = _labels(task, unit, truth, (random.random(truth.shape) < unlabelled) | ~valid)
    training = parts == 0
    statistics = tuple(BandStatistics.of(images[training][:, band][valid[training]]) for band in range(bands))
    source = Source(
        "reference",
        tuple(Band(f"b{band}", f"S2_{band}") for band in range(bands)),
        (size, size),
        (10.0, 10.0),
        "uint16",
        statistics,
    )
    manifest = Manifest(
        unit,
        "cells" if unit == "cell" else "presence" if task == "presence" else "inside",
        (source,),
        ClassTable(()) if task == "value" else CLASSES,
        Region(1000, 0, 1000, 0, 100, 100),
        projection={"name": "unknown", "epsg": None, "wkt": None},
        extent=(5.0, 45.0, 6.0, 46.0),
        report={"split": "block"},
        command="v.sample.patches ...",
        task=task,
        quantity=Quantity("height", "m") if task == "value" else None,
    )
    with PatchWriter(path, manifest, count) as writer:
        writer.index[:] = np.zeros((), dtype=writer.index.dtype)
        writer.index["id"] = np.arange(count) + 1
        writer.index["part"] = parts
        known = ~np.isnan(labels) if task == "value" else labels != 255
        writer.index["labelled"] = known.reshape(count, -1).sum(axis=1)
        writer.labels[:] = labels
        writer.images["reference"][:] = images
        writer.valid["reference"][:] = valid
        writer.commit(manifest)
    return PatchDataset.open(path)


def _labels(task: str, unit: str, truth: np.ndarray, none: np.ndarray) -> np.ndarray:
    if task == "presence":
        return np.stack([(truth == index).any(axis=(1, 2)) for index in range(len(CLASSES))], axis=1).astype(np.uint8)
    if task == "value":
        values = 100.0 + 10.0 * truth
        return np.where(none, np.nan, values) if unit == "cell" else values.mean(axis=(1, 2))
    return np.where(none, 255, truth) if unit == "cell" else truth[:, 0, 0]


CELL = 10.0
"""Side of a cell of the reference."""

DATES = ("2021-02-10", "2021-03-30", "2021-05-20", "2021-07-01", "2021-09-15", "2021-11-05")


@dataclass(frozen=True)
class Ground:
    """Squares of classes, and what sources see of them.

    Attributes:
        table: class indices of the squares, rows from the north.
        side: of a square in map units.
        west, north: of the first square.
    """

    table: np.ndarray
    side: float
    west: float
    north: float

    def classes(self, windows: Windows) -> np.ndarray:
        """Class at the centres of the cells of windows, (N, rows, cols)."""
        rows = windows.row[:, None] + np.arange(windows.shape[0]) + 0.5
        cols = windows.col[:, None] + np.arange(windows.shape[1]) + 0.5
        down = (self.north - windows.region.north + rows * windows.region.nsres) / self.side
        right = (windows.region.west - self.west + cols * windows.region.ewres) / self.side
        height, width = self.table.shape
        row, col = (np.floor(along + 1e-6).astype(int) for along in (down, right))
        return self.table[(row % height)[:, :, None], (col % width)[:, None, :]]


def make_sources(
    path: Path,
    carrier: str = "auxiliary1",
    unit: str = "cell",
    size: int = 16,
    count: int = 60,
    *,
    names: tuple[str, ...] = ("auxiliary1", "series"),
    shift: float = 0.0,
    context: int = 0,
    cloudy: float = 0.2,
    absent: float = 0.0,
    seed: int = 0,
    dates: tuple[str, ...] = DATES,
    task: str = "class",
) -> PatchDataset:
    """Patches of several sources, of which only ``carrier`` shows the classes; the others are noise.

    The reference has cells of 10 m, and a class is a bright band; an auxiliary source has cells of 20 m and one band
    that grows with the class; a series has cells of 20 m, and the class is the third of the dates at which its one
    band is high, so that no single date, and no mean of them, tells it. Classes are squares of 40 m, or a patch where
    that has the label; they begin where the cells of the auxiliary source begin.

    Args:
        shift: of the grids of further sources to the east and south, in map units.
        context: cells of a further source beyond the patch, on each side.
        cloudy: share of dates that are not valid in a whole patch.
        absent: share of patches without the auxiliary source, and without the series.
        task: what the labels say; values grow with the class, and each class is present where it is the patch's.
    """
    random = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(count)))
    cells = across * size + 8
    north, west = 5000.0, 300.0
    region = Region(north, north - cells * CELL, west + cells * CELL, west, cells, cells)
    row, col = (4 + along * size for along in np.divmod(np.arange(count), across))
    reference = Windows(region, row, col, (size, size))
    side, shape = (size * CELL, (across, across)) if unit == "patch" else (40.0, (97, 89))
    first = 4 * CELL if unit == "patch" else 0.0
    ground = Ground(random.integers(len(CLASSES), size=shape), side, west + first + shift, north - first - shift)
    truth = ground.classes(Windows(region, row, col, (1, 1)) if unit == "patch" else reference)
    parts = np.searchsorted([6, 8], np.arange(count) % 10, side="right")
    made = {"reference": _seen(ground, reference, carrier == "reference", (), random)}
    grids = {"reference": (Source("reference", _bands(3), (size, size), (CELL, CELL), "uint16"), reference)}
    width = 2 * CELL
    for name in names:
        own = Region(
            north - shift, north - shift - 4000.0, west + shift + 4000.0, west + shift, *[int(4000 / width)] * 2
        )
        window = (int(np.ceil(size * CELL / width)) + 2 * context,) * 2
        days = dates if name == "series" else ()
        windows = Windows.around(*reference.centres, own, window)
        source = Source(name, _bands(1, name), window, (width, width), "int16", dates=days, region=own)
        values, valid = _seen(ground, windows, name == carrier, days, random)
        if days:
            valid &= (random.random((count, len(days))) >= cloudy)[:, :, None, None]
        valid &= (random.random(count) >= absent).reshape(-1, *[1] * (valid.ndim - 1))
        made[name], grids[name] = (values, valid), (source, windows)
    sources = {name: source for name, (source, _) in grids.items()}
    return _written(path, unit, task, region, reference, truth, parts, sources, made)


def _bands(count: int, name: str = "b") -> tuple[Band, ...]:
    return tuple(Band(f"{name}_{band}", f"{name.upper()}_{band}") for band in range(count))


def _seen(
    ground: Ground, windows: Windows, is_carrier: bool, dates: tuple[str, ...], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Values and validity of windows as a source sees them."""
    classes = ground.classes(windows)
    if dates:
        third = np.arange(len(dates)) * len(CLASSES) // len(dates)
        signal = (third[:, None, None] == classes[:, None])[:, :, None]
    elif windows.region.nsres == CELL:
        signal = np.arange(3)[:, None, None] == classes[:, None]
    else:
        signal = classes[:, None]
    values = 1000 + 400 * signal * is_carrier + random.normal(0, 40, signal.shape)
    return values.astype(np.int16), np.ones(signal.shape[:-3] + signal.shape[-2:], dtype=bool)


def _written(
    path: Path,
    unit: str,
    task: str,
    region: Region,
    reference: Windows,
    truth: np.ndarray,
    parts: np.ndarray,
    sources: dict[str, Source],
    made: dict[str, tuple[np.ndarray, np.ndarray]],
) -> PatchDataset:
    training = parts == 0
    finished = []
    for name, source in sources.items():
        values, valid = (array[training] for array in made[name])
        statistics = (BandStatistics.of(np.moveaxis(values, -3, 0)[band][valid]) for band in range(len(source.bands)))
        finished.append(replace(source, statistics=tuple(statistics)))
    manifest = Manifest(
        unit,
        "cells" if unit == "cell" else "presence" if task == "presence" else "inside",
        tuple(finished),
        ClassTable(()) if task == "value" else CLASSES,
        region,
        task=task,
        quantity=Quantity("height", "m") if task == "value" else None,
    )
    with PatchWriter(path, manifest, len(parts)) as writer:
        writer.index[:] = np.zeros((), dtype=writer.index.dtype)
        writer.index["id"] = np.arange(len(parts)) + 1
        writer.index["part"] = parts
        writer.index["row"], writer.index["col"] = reference.row, reference.col
        writer.index["east"], writer.index["north"] = reference.centres
        writer.index["labelled"] = truth[0].size
        writer.labels[:] = _labels(task, unit, truth, np.zeros(truth.shape, dtype=bool))
        for name, (values, valid) in made.items():
            writer.images[name][:] = np.where(np.expand_dims(valid, -3), values, 0)
            writer.valid[name][:] = valid
        writer.commit(manifest)
    return PatchDataset.open(path)
