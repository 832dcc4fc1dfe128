"""Patches whose class is a pattern, amid light that differs from patch to patch: easy to cluster, hard to read raw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rlearndeep.patches import PARTS, Manifest, PatchDataset, PatchWriter, Source
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.geometry import Region
from synthetic_patches import CLASSES

SIZE = 16
LIGHT, CONTRAST, NOISE = 0.5, (0.5, 1.5), 60


def make_textures(
    path: Path, training: int, validation: int = 0, *, seed: int = 0, labelled: bool = True, bands: int = 2
) -> PatchDataset:
    """Stripes, checks or dots of a random phase, direction, contrast and brightness, in numbers far from 0 and 1."""
    random = np.random.default_rng(seed)
    count = training + validation
    classes = np.arange(count) % len(CLASSES)
    pictures = np.stack([_pattern(kind, random) for kind in classes])[:, None]
    light, contrast = random.normal(0, LIGHT, (count, 1, 1, 1)), random.uniform(*CONTRAST, (count, 1, 1, 1))
    images = 2000 + 300 * (light + contrast * pictures) + random.normal(0, NOISE, (count, bands, SIZE, SIZE))
    parts = (np.arange(count) >= training).astype(np.int32)
    statistics = tuple(BandStatistics.of(images[parts == 0, band]) for band in range(bands))
    names = tuple(Band(f"b{band}", f"S2_{band}") for band in range(bands))
    source = Source("reference", names, (SIZE, SIZE), (10.0, 10.0), "float32", statistics)
    manifest = Manifest("patch", "inside", (source,), CLASSES, Region(1000, 0, 1000, 0, 100, 100))
    with PatchWriter(path, manifest, count) as writer:
        writer.index[:] = np.zeros((), dtype=writer.index.dtype)
        writer.index["part"] = parts
        writer.labels[:] = classes if labelled else manifest.unlabelled
        writer.images["reference"][:] = images
        writer.valid["reference"][:] = True
        writer.commit(manifest)
    assert PARTS[:2] == ("training", "validation")
    return PatchDataset.open(path)


def _pattern(kind: int, random: np.random.Generator) -> np.ndarray:
    rows, cols = np.indices((SIZE, SIZE)) + random.integers(4, size=2)[:, None, None]
    if kind == 0:
        stripes = np.where(rows % 4 < 2, 1.0, -1.0)
        return stripes if random.random() < 0.5 else stripes.T
    if kind == 1:
        return np.where((rows % 4 < 2) ^ (cols % 4 < 2), 1.0, -1.0)
    return np.where((rows % 4 < 2) & (cols % 4 < 2), 1.0, -1.0)
