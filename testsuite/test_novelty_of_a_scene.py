"""Novelty of a scene of which the network has seen one part: it tells the other ground from what it knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import Grass
from sklearn.metrics import roc_auc_score

KNOWN_ROWS = 60


def make_scene(grass: Grass) -> None:
    """Stripes of two kinds of ground with labels in the north; in the south ground that is bright in both bands.

    Each band alone has the same values in the north and in the south.
    """
    grass.ok("g.region", "n=900", "s=0", "w=0", "e=640", "res=10")
    grass.ok("r.mapcalc", f"truth = if(row() <= {KNOWN_ROWS}, 1 + (col() / 8) % 2, null())")
    for band in (1, 2):
        grass.ok(
            "r.mapcalc",
            "seed=1",
            f"expression=b{band} = if(isnull(truth), 3000, if(truth == {band}, 3000, 1000)) + rand(-250., 250.)",
        )
    grass.ok("i.group", "group=scene", "input=b1,b2")


def test_ground_that_was_never_seen_is_farther_than_the_edge_of_the_known(grass: Grass, tmp_path: Path) -> None:
    make_scene(grass)
    patches, model = tmp_path / "patches", tmp_path / "model"
    sampled = ("group=scene", "raster=truth", "size=1", "block_size=80", f"patches={patches}", "output=places")
    grass.ok("v.sample.patches", *sampled, "seed=1", "--quiet")
    options = ("architecture=mlp", "hidden=32,16", "epochs=8", "seed=1", "device=cpu")
    grass.ok("r.learn.deep.train", f"patches={patches}", f"model={model}", *options, "--quiet")
    grass.ok("r.learn.deep.predict", "group=scene", f"model={model}", "output=map", "novelty=far", "--quiet")
    text = grass.ok("r.out.ascii", "-h", "input=far", "output=-", "precision=6")
    novelty = np.array([line.split() for line in text.splitlines()], dtype=float)
    known, unknown = novelty[:KNOWN_ROWS], novelty[KNOWN_ROWS:]
    separation = roc_auc_score([0] * known.size + [1] * unknown.size, [*known.ravel(), *unknown.ravel()])
    assert separation > 0.98
    assert (known > 1).mean() < 0.1 < 0.8 < (unknown > 1).mean()
