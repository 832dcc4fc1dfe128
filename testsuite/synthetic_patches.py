"""Small patch directories with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rlearndeep.patches import PARTS, Manifest, PatchDataset, PatchWriter, Source
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region

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
) -> PatchDataset:
    """Band k is bright where the class is k, in 16-bit numbers that are far from 0 and 1.

    Cells that are null hold a wild value; unlabelled ones have the largest value of the type as label.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(len(CLASSES), size=(count, -(-size // 4), -(-size // 4)))
    truth = truth.repeat(4, axis=1).repeat(4, axis=2)[:, :size, :size]
    if unit == "patch":
        truth[:] = truth[:, :1, :1]
    images = random.normal(2000, 60, (count, bands, size, size))
    for band in range(min(bands, len(CLASSES))):
        images[:, band] += 300 * (truth == band)
    images = images.astype(np.uint16)
    valid = random.random((count, size, size)) >= null
    images[np.broadcast_to(~valid[:, None], images.shape)] = 65535
    parts = np.arange(count) % 10
    parts = np.searchsorted(np.cumsum(shares) * 10 - 1e-6, parts, side="right").clip(max=len(PARTS) - 1)
    labels = np.where((random.random(truth.shape) < unlabelled) | ~valid, 255, truth)
    if unit == "patch":
        labels = truth[:, 0, 0]
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
        "cells" if unit == "cell" else "inside",
        (source,),
        CLASSES,
        Region(1000, 0, 1000, 0, 100, 100),
        projection={"name": "unknown", "epsg": None, "wkt": None},
        extent=(5.0, 45.0, 6.0, 46.0),
        report={"split": "block"},
        command="v.sample.patches ...",
    )
    with PatchWriter(path, manifest, count) as writer:
        writer.index[:] = np.zeros((), dtype=writer.index.dtype)
        writer.index["id"] = np.arange(count) + 1
        writer.index["part"] = parts
        writer.index["labelled"] = (labels != 255).reshape(count, -1).sum(axis=1)
        writer.labels[:] = labels
        writer.images["reference"][:] = images
        writer.valid["reference"][:] = valid
        writer.commit(manifest)
    return PatchDataset.open(path)
