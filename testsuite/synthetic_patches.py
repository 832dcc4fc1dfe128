"""Small patch directories with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rlearndeep.patches import PARTS, Manifest, PatchDataset, PatchWriter, Source
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region
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
